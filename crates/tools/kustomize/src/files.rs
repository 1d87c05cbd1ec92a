//! The door to files, and paths between folders.

use std::{collections::BTreeMap, io};

/// Largest file that is read, in bytes: far over what an object may have, far under what hurts.
pub const FILE_BYTES_MAX: usize = 32 << 20;

/// Names of the file that makes a folder a kustomization.
pub const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Where files come from. Paths are joined by [`join`].
pub trait Files {
    /// The bytes of a file; nothing if there is no such file, or it is a folder. Of a file larger
    /// than [`FILE_BYTES_MAX`], one byte more than that is enough.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;

    /// Whether there is a folder.
    fn is_folder(&self, path: &str) -> bool;
}

impl Files for BTreeMap<String, Vec<u8>> {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.get(path).cloned())
    }

    fn is_folder(&self, path: &str) -> bool {
        let inside = format!("{path}/");
        path == "." || self.keys().any(|it| it.starts_with(&inside))
    }
}

/// The file that makes `folder` a kustomization, if there is one.
pub fn find(files: &dyn Files, folder: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for name in NAMES {
        let path = join(folder, name);
        if files.read(&path)?.is_some() {
            found.push(path);
        }
    }
    Ok(found)
}

/// `path` as seen from `folder`, without `.` and with `..` only in front.
#[must_use]
pub fn join(folder: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{folder}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|it| *it != "..") => {
                parts.pop();
            }
            // Above the root there is only the root.
            ".." if whole.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    match (whole.starts_with('/'), parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Whether `path` is `folder` or below it.
pub(crate) fn inside(folder: &str, path: &str) -> bool {
    match folder {
        "." => !path.starts_with('/') && path != ".." && !path.starts_with("../"),
        "/" => true,
        folder => path.strip_prefix(folder).is_some_and(|it| it.is_empty() || it.starts_with('/')),
    }
}

/// Whether a path is one of another machine.
pub(crate) fn is_remote(path: &str) -> bool {
    let host = path.split('/').next().unwrap_or_default();
    path.contains("://")
        || path.contains("?ref=")
        || path.starts_with("git@")
        || path.contains("git::")
        || ["github.com", "gitlab.com", "bitbucket.org"].contains(&host)
}
