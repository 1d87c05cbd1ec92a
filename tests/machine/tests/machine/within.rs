//! `machine within GROUP USER PROGRAM…`: a program in a control group, as a user, in place of this process. So a
//! service manager starts what it has given a group.

use std::{
    convert::Infallible,
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::Context as _;

/// The group that is none: whatever this process is in.
pub(crate) const ANY: &str = "-";

/// Returns only if it could not.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let Err(error) = run(arguments);
    println!("within: {error:#}");
    ExitCode::FAILURE
}

fn run(arguments: &[String]) -> anyhow::Result<Infallible> {
    let [group, user, program, rest @ ..] = arguments else {
        anyhow::bail!("what is {arguments:?}?")
    };
    let user: u32 = user.parse()?;
    if group != ANY {
        let file = Path::new(group).join("cgroup.procs");
        // The process that writes it.
        fs::write(&file, "0").with_context(|| format!("join {}", file.display()))?;
    }
    // Groups of the user before are given up with it.
    Err(Command::new(program).args(rest).uid(user).gid(user).exec()).context("start it")
}
