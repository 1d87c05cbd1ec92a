//! `coracle` as a command of linked programs: a folder, first in their `PATH`, where that name is the
//! binary that runs their cluster, whatever else is installed on the machine.
//!
//! The folder lies beside the run folder, which no container can see.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// What the binary is called there.
pub(crate) const COMMAND: &str = "coracle";

/// Where programs are looked up if the user's environment has no `PATH`: as in containerd.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the kernel appends to the path of a program whose file was removed or replaced.
const DELETED: &str = " (deleted)";

/// Lets `coracle` in `folder` mean this program, and puts the folder first in the `PATH` of
/// `variables`. The link is by path: after an upgrade in place it means the new program.
pub(crate) fn install(folder: &Path, variables: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    let program = env::current_exe().context("find this program's file")?;
    link(&without_mark(program), folder)
        .with_context(|| format!("make the command `{COMMAND}` in `{}`", folder.display()))?;
    let folder = folder.to_str().with_context(|| format!("`{}` is no text", folder.display()))?;
    match variables.iter_mut().find(|(name, _)| name == "PATH") {
        Some((_, path)) => *path = format!("{folder}:{path}"),
        None => variables.push(("PATH".to_owned(), format!("{folder}:{PATH}"))),
    }
    Ok(())
}

fn without_mark(program: PathBuf) -> PathBuf {
    match program.to_str().and_then(|it| it.strip_suffix(DELETED)) {
        Some(before) => PathBuf::from(before),
        None => program,
    }
}

/// Programs may be looking the command up at this moment: it is replaced by a rename.
fn link(program: &Path, folder: &Path) -> io::Result<()> {
    let new = folder.join(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(program, &new)?;
    fs::rename(new, folder.join(COMMAND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_found_first_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().display();
        let mut variables =
            vec![("HOME".to_owned(), "/home/ann".to_owned()), ("PATH".to_owned(), "/bin".into())];
        for _ in 0..2 {
            install(folder.path(), &mut variables).unwrap();
        }
        assert_eq!(variables[1].1, format!("{text}:{text}:/bin"));
        let command = fs::read_link(folder.path().join(COMMAND)).unwrap();
        assert_eq!(command, env::current_exe().unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let mut none = Vec::new();
        install(folder.path(), &mut none).unwrap();
        assert_eq!(none, [("PATH".to_owned(), format!("{text}:{PATH}"))]);
    }

    #[test]
    fn a_replaced_program_is_found_where_it_was() {
        assert_eq!(without_mark("/bin/coracle (deleted)".into()), Path::new("/bin/coracle"));
        assert_eq!(without_mark("/bin/coracle".into()), Path::new("/bin/coracle"));
    }
}
