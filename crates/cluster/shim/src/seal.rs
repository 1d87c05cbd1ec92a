//! Keeps containers from changing the program that shims run.
//!
//! Until it runs its own program, a container's first process runs this one, and so does, for ever, one
//! whose image names `/proc/self/exe` as its program. Others in the container could then open
//! `/proc/PID/exe` and, being root on the machine, write to the file once nobody runs it any more
//! (CVE-2019-5736). What is executed from a mount that can only be read cannot be written through that
//! file, whoever one is.

use std::{
    ffi::{CString, OsString},
    io,
    os::{fd::AsFd as _, unix::ffi::OsStringExt as _},
};

use rustix::{
    fs::StatVfsMountFlags,
    mount::{MountAttrFlags, OpenTreeFlags},
};

use crate::sys;

const OWN: &str = "/proc/self/exe";

/// Sees to it that this process runs from a mount that can only be read: if it does not, it executes
/// itself anew, from one that is mounted nowhere, and returns only if that fails.
pub(crate) fn seal() -> io::Result<()> {
    if rustix::fs::statvfs(OWN)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = rustix::mount::open_tree(rustix::fs::CWD, OWN, flags)?;
    sys::set_this_mount(copy.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    if !rustix::fs::fstatvfs(&copy)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        // It would do so for ever.
        return Err(io::Error::other("the kernel does not make its program read-only"));
    }
    let argv = std::env::args_os().map(c_string).collect::<io::Result<Vec<_>>>()?;
    let env = std::env::vars_os().map(|(name, value)| {
        let mut variable = name;
        variable.push("=");
        variable.push(value);
        c_string(variable)
    });
    Err(sys::execute_file(copy.as_fd(), &argv, &env.collect::<io::Result<Vec<_>>>()?))
}

fn c_string(string: OsString) -> io::Result<CString> {
    Ok(CString::new(string.into_vec())?)
}
