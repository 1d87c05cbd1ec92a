//! A container's terminal, of its own `/dev/pts`: the process's standard input, output and error, and
//! `/dev/console`. The other end goes to the shim.

use std::{ffi::OsStr, io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{Mode, OFlags},
    pty::OpenptFlags,
};

use super::{failed, mounts};
use crate::wire::{Stage, StartError};

/// Makes a terminal, which the process in its session controls from now on; returns the shim's end.
pub(super) fn open() -> Result<OwnedFd, StartError> {
    try_open().map_err(failed(Stage::Root, "cannot make a terminal"))
}

fn try_open() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let ours = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&ours)?;
    let name = rustix::pty::ptsname(&ours, Vec::new())?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    rustix::process::ioctl_tiocsctty(&terminal)?;
    rustix::stdio::dup2_stdin(&terminal)?;
    rustix::stdio::dup2_stdout(&terminal)?;
    rustix::stdio::dup2_stderr(&terminal)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dev = rustix::fs::open("/dev", flags, Mode::empty())?;
    let tree =
        mounts::clone(rustix::fs::CWD, Path::new(OsStr::new(name.to_str().unwrap_or_default())))?;
    mounts::attach(tree, mounts::file(&dev, OsStr::new("console"))?)?;
    Ok(ours)
}
