//! The `type` of a hostPath: what must be there, and what is made.
//! <https://kubernetes.io/docs/concepts/storage/volumes/#hostpath>

use std::{
    fs::{self, FileType, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Checks that `path` is what `kind` says, after making it if `kind` says so.
pub(super) fn check(path: &Path, kind: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("hostPath `{}`: {error}", path.display());
    let made = match kind {
        "DirectoryOrCreate" => fs::DirBuilder::new().mode(0o755).recursive(true).create(path),
        "FileOrCreate" => {
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o644).open(path).map(drop)
        }
        _ => Ok(()),
    };
    made.map_err(failed)?;
    let (is, what): (fn(&FileType) -> bool, _) = match kind {
        "" => return Ok(()),
        "Directory" | "DirectoryOrCreate" => (FileType::is_dir, "a directory"),
        "File" | "FileOrCreate" => (FileType::is_file, "a file"),
        "Socket" => (FileType::is_socket, "a socket file"),
        "CharDevice" => (FileType::is_char_device, "a character device"),
        "BlockDevice" => (FileType::is_block_device, "a block device"),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    let found = fs::metadata(path).is_ok_and(|it| is(&it.file_type()));
    if found {
        return Ok(());
    }
    Err(format!("hostPath type check failed: {} is not {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        check(&path("d/e"), "DirectoryOrCreate").unwrap();
        check(&path("d/e"), "Directory").unwrap();
        check(&path("f"), "FileOrCreate").unwrap();
        check(&path("f"), "File").unwrap();
        check(&path("none"), "").unwrap();
        check(Path::new("/dev/null"), "CharDevice").unwrap();
        for (name, kind) in [("f", "Directory"), ("d", "File"), ("f", "Socket"), ("f", "x")] {
            check(&path(name), kind).unwrap_err();
        }
    }
}
