//! The one promise to tokio that the compiler cannot check.
#![expect(unsafe_code, reason = "tokio cannot see that an owned descriptor stays open")]

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Lets tasks wait for a descriptor of any kind (pidfd, inotify, sequenced-packet socket).
///
/// # Errors
/// If epoll cannot watch it, as with regular files.
pub fn watch_descriptor(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and here it is
    // dropped only by the `AsyncFd`, after that has deregistered it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(Into::into)
}
