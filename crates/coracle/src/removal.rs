//! Removes folders with files that belong to the user's containers: to other ids of the user's than its
//! own, or in folders that nobody may look into. Without root that takes a user namespace, and so a
//! process of its own.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, bail};

use crate::output;

/// The subcommand that is that process: its arguments are the folders.
pub(crate) const SUBCOMMAND: &str = "remove-folder";

/// Removes a folder with all that is in it; one that is not there is removed.
pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => remove_inside([folder]),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Into::into),
    }
}

/// Removes folders that the user itself may not remove. Those that are not there are removed.
pub(crate) fn remove_inside(
    folders: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> anyhow::Result<()> {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0("coracle").arg(SUBCOMMAND).args(folders);
    let done = command.output().context("start a process that may remove it")?;
    if !done.status.success() {
        bail!("{}", String::from_utf8_lossy(&done.stderr).trim_end());
    }
    Ok(())
}

/// The process in a user namespace of its own.
pub(crate) fn main(folders: impl Iterator<Item = OsString>) -> ExitCode {
    match try_main(folders) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failure(&error),
    }
}

fn try_main(folders: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    keeper::enter_own().context("become all the user's ids")?;
    for folder in folders {
        match fs::remove_dir_all(&folder) {
            // Somebody else removes it too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.with_context(|| format!("remove `{}`", folder.display()))?,
        }
    }
    Ok(())
}
