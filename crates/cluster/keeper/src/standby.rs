//! The standby: a copy of the keeper's process that waits, with nothing open but its control socket,
//! to become the next keeper.
//!
//! It is a copy, made by `fork`, and not another execution: so it shares all of its memory with the
//! keeper and costs next to nothing. A copy can be copied again: the next keeper's standby is there
//! before that one takes over.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use crate::{
    enter::Namespaces,
    sys,
    wire::{self, Failure, FailureKind, Reply, Request},
};

/// Which of the two processes this is after [`copy`].
pub(crate) enum Copy {
    /// The one that was asked; with the socket that controls the standby.
    Original(OwnedFd),
    /// The standby; with its own end of that socket.
    Standby(OwnedFd),
}

/// What makes a standby the keeper.
pub(crate) struct TakeOver {
    pub(crate) control: OwnedFd,
    pub(crate) namespaces: Namespaces,
}

/// Makes a standby of a copy of this process.
pub(crate) fn copy() -> Result<Copy, Failure> {
    let failed = |error: io::Error| Failure {
        kind: FailureKind::Other,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("cannot start a standby keeper: {error}"),
    };
    let (ours, theirs) = wire::pair().map_err(failed)?;
    match sys::fork().map_err(failed)? {
        Some(_) => Ok(Copy::Original(ours)),
        None => Ok(Copy::Standby(theirs)),
    }
}

/// Waits until whoever holds the other end of `control` makes this process the keeper; `None` when
/// that one is gone.
pub(crate) fn run(mut control: OwnedFd) -> io::Result<Option<TakeOver>> {
    rustix::thread::set_name(c"coracle standby")?;
    // Of its own session, so that what is sent to the keeper's group is not for it.
    rustix::process::setsid()?;
    loop {
        let (request, fds) = match wire::receive::<Request>(&control) {
            Ok(Some(it)) => it,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match request {
            Request::TakeOver { rootless } => match Namespaces::from_fds(rootless, fds) {
                Some(namespaces) => return Ok(Some(TakeOver { control, namespaces })),
                None => refuse(&control, "the namespaces are missing")?,
            },
            Request::Standby => match copy() {
                Ok(Copy::Standby(of_copy)) => control = of_copy,
                Ok(Copy::Original(of_copy)) => {
                    wire::send(&control, &Reply::Standby, &[of_copy.as_fd()])?;
                }
                Err(failure) => wire::send(&control, &Reply::Failed(failure), &[])?,
            },
            _ => refuse(&control, "a standby only takes over")?,
        }
    }
}

fn refuse(control: &OwnedFd, cause: &str) -> io::Result<()> {
    wire::send(control, &Reply::Failed(Failure::bad_request(cause)), &[])
}
