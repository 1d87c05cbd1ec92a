//! Keeps containers from changing the program that shims run.
//!
//! Until it runs its own program, a container's first process runs this one, and so does, for ever, one
//! whose image names `/proc/self/exe` as its program. Others in the container could then open
//! `/proc/PID/exe` and, being root on the machine, write to the file once nobody runs it any more
//! (CVE-2019-5736). What is executed from a mount that can only be read cannot be written through that
//! file, whoever one is; neither can a copy in memory that is sealed.

use std::{
    ffi::{CString, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
};

use rustix::{
    fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags},
    mount::{MountAttrFlags, OpenTreeFlags},
};

use crate::sys;

const OWN: &str = "/proc/self/exe";

/// Sees to it that nobody can write to what this process runs: if somebody could, it executes itself
/// anew, from a mount that can only be read and is mounted nowhere, and returns only if that fails.
pub(crate) fn seal() -> io::Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let sealed = match own_mount()? {
        Some(mount) => mount,
        None => copy()?,
    };
    let argv = std::env::args_os().map(c_string).collect::<io::Result<Vec<_>>>()?;
    let env = std::env::vars_os().map(|(name, value)| {
        let mut variable = name;
        variable.push("=");
        variable.push(value);
        c_string(variable)
    });
    Err(sys::execute_file(sealed.as_fd(), &argv, &env.collect::<io::Result<Vec<_>>>()?))
}

fn is_sealed() -> io::Result<bool> {
    let file = File::open(OWN)?;
    let read_only = rustix::fs::fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    // A file that is not in memory has no seals.
    let sealed = rustix::fs::fcntl_get_seals(&file).is_ok_and(|it| it.contains(SealFlags::WRITE));
    Ok(read_only || sealed)
}

/// A mount of this program's file alone, which can only be read. None if the file is not where it was,
/// as after an update, or cannot be seen here.
///
/// The mount that it runs from may be one of another mount namespace, which cannot be copied here.
fn own_mount() -> io::Result<Option<OwnedFd>> {
    let path = std::fs::read_link(OWN)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(&path, flags, Mode::empty()) else { return Ok(None) };
    let (found, own) = (rustix::fs::fstat(&file)?, rustix::fs::stat(OWN)?);
    if (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino) {
        return Ok(None);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(&file, "", flags)?;
    sys::set_this_mount(mount.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    if !rustix::fs::fstatvfs(&mount)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        // It would do so for ever.
        return Err(io::Error::other("the kernel does not make its program read-only"));
    }
    Ok(Some(mount))
}

/// A copy in memory, which all shims share.
fn copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(rustix::fs::memfd_create("coracle", flags)?);
    io::copy(&mut File::open(OWN)?, &mut copy)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    // The kernel runs nothing that somebody has open for writing.
    let file = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    Ok(file.into())
}

fn c_string(string: OsString) -> io::Result<CString> {
    Ok(CString::new(string.into_vec())?)
}
