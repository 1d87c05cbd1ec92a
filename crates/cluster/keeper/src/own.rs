//! Namespaces for one process that needs no cluster: a build, whose commands run in containers.

use crate::{
    enter::{self, EnterError},
    make, sys,
    wire::Failure,
};

/// Why a process did not get namespaces of its own.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// They could not be made.
    #[error(transparent)]
    Make(#[from] Failure),
    /// They could not be entered.
    #[error(transparent)]
    Enter(#[from] EnterError),
}

/// Puts the calling process, which has one thread, into a mount namespace of its own, and, without
/// root, into a user namespace that maps the user and its subordinate ids to themselves, as that of a
/// cluster does. The network stays what it is. All of it ends with the process and its children.
///
/// # Errors
/// [`OwnError`]; what is wrong with the machine, where it is that. The process goes on as it was when
/// they could not be made, and should end when they could not be entered.
pub fn enter_own() -> Result<(), OwnError> {
    let made = make::make();
    // The programs that map users were waited for, and what this process starts is to be as well.
    sys::heed_children();
    Ok(enter::enter_but_network(&made?)?)
}
