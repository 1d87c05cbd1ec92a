//! System calls that need `unsafe`, each behind a function that keeps its rules.
//!
//! Only for the keeper's own process, which has one thread.
#![expect(unsafe_code, reason = "fork, unshare and signal have no safe form")]

use rustix::{process::Pid, thread::UnshareFlags};

/// A copy of this process: `None` in the child.
///
/// The caller has one thread, so the child may allocate and take locks like any process.
pub(crate) fn fork() -> std::io::Result<Option<Pid>> {
    // SAFETY: the process has one thread, so no lock can be held by a thread that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Ends a forked child without the exit handlers of its parent.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends the process at once; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}

/// Closes what the caller's other files and locks were handed down as: a process that lives for
/// ever would hold them for ever. To be called before this process opens anything.
pub(crate) fn close_inherited() -> std::io::Result<()> {
    // SAFETY: nothing in this process has opened a descriptor above standard error yet.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Moves this process into new namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: FILES is not among the flags used, so no thread loses sight of a descriptor.
    unsafe { rustix::thread::unshare_unsafe(flags.difference(UnshareFlags::FILES)) }
}

/// Undoes [`ignore_children`] in a child that will execute another program.
pub(crate) fn heed_children() {
    // SAFETY: SIG_DFL installs no handler, so no code runs at a signal.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Ended children leave no zombies, and nobody has to wait for them.
pub(crate) fn ignore_children() {
    // SAFETY: SIG_IGN installs no handler, so no code runs at a signal.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}
