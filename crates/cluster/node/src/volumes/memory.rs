//! emptyDir volumes in memory: a tmpfs on the volume's folder, in the cluster's mount namespace,
//! which all shims share, so that it outlives the cluster process.

use std::{ffi::CString, fs, io, os::unix::fs::MetadataExt as _, path::Path};

use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags},
};

/// Mounts a tmpfs of at most `size_bytes` (the kernel's default is half the memory), unless one is
/// mounted there already.
pub(super) fn mount(path: &Path, size_bytes: Option<u64>) -> io::Result<()> {
    if is_mounted(path)? {
        return Ok(());
    }
    let options = match size_bytes {
        Some(size) => format!("mode=0777,size={size}"),
        None => "mode=0777".to_owned(),
    };
    let options = CString::new(options)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount("tmpfs", path, "tmpfs", flags, options.as_c_str())?)
}

/// Unmounts what is mounted on `path`, if anything is. Detached, so that a process that still looks
/// at it does not hold up the end of its pod.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    if !is_mounted(path)? {
        return Ok(());
    }
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A mounted file system has another device than its parent folder.
fn is_mounted(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    let device = fs::symlink_metadata(path)?.dev();
    Ok(device != fs::metadata(parent)?.dev())
}
