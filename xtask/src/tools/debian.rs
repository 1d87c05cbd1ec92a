//! Programs of Debian that tests use: the one kind that is installed into the machine itself, by its own
//! package manager, and only where it is missing.

use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{check::as_user, process};

/// Has packages installed, each named with a program of it by which it is known to be there.
pub(crate) fn install(packages: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing = |it: &&(&str, &str)| {
        // What a program says of itself is of no interest here, only whether there is one.
        let mut command = Command::new("sh");
        command.args(["-c", "command -v \"$0\"", it.1]);
        process::read(&mut command).is_err()
    };
    let missing: Vec<&str> = packages.iter().filter(missing).map(|it| it.0).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install {}", missing.join(" "));
    if !as_user::is_root()? {
        bail!("programs are missing that tests use; as root, on Debian: {line}");
    }
    println!("{line}");
    process::run(Command::new("apt-get").args(["--quiet=2", "update"]))
        .context("look for the packages of Debian")?;
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["--quiet=2", "--yes", "--no-install-recommends", "install"]);
    process::run(command.args(missing)).with_context(|| line)
}
