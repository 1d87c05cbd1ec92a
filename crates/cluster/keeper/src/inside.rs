//! Starts a process on the host's network that is otherwise inside the namespaces.
//!
//! What is executed, and why, is the business of whoever asks.

use std::{
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
};

use crate::{
    enter::{self, Namespaces},
    sys,
    wire::{Failure, FailureKind},
};

/// Exit code of a child that could not execute its program, as shells have it.
const NOT_EXECUTED: i32 = 127;

/// Starts the process: `fds` are its program, standard input and standard error.
pub(crate) fn spawn(
    namespaces: &Namespaces,
    arguments: &[String],
    fds: Vec<OwnedFd>,
) -> Result<(), Failure> {
    let Ok([program, stdin, stderr]) = <[OwnedFd; 3]>::try_from(fds) else {
        return Err(Failure::bad_request("a program, its standard input and error are missing"));
    };
    let Some((name, arguments)) = arguments.split_first() else {
        return Err(Failure::bad_request("a process has a name"));
    };
    let child = sys::fork().map_err(|error| Failure {
        kind: FailureKind::Other,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("cannot start a process on the host's network: {error}"),
    })?;
    if child.is_some() {
        return Ok(());
    }
    let error = execute(namespaces, &program, (name, arguments), (stdin, &stderr));
    // Nobody else can be told.
    writeln!(std::fs::File::from(stderr), "coracle keeper: cannot run `{name}`: {error}").ok();
    sys::exit(NOT_EXECUTED);
}

/// Runs the program in place of this process, which is the child; returns why it could not.
fn execute(
    namespaces: &Namespaces,
    program: &OwnedFd,
    (name, arguments): (&str, &[String]),
    (stdin, stderr): (OwnedFd, &OwnedFd),
) -> io::Error {
    let prepared = || -> io::Result<Stdio> {
        enter::enter_but_network(namespaces).map_err(io::Error::other)?;
        // What is ignored stays ignored when a program is executed, and this one has children.
        sys::heed_children();
        Ok(stderr.try_clone()?.into())
    };
    let stderr = match prepared() {
        Ok(stderr) => stderr,
        Err(error) => return error,
    };
    // By descriptor, so that a binary replaced meanwhile does not matter.
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.arg0(name).args(arguments).env_clear();
    command.stdin(stdin).stdout(Stdio::null()).stderr(stderr).exec()
}
