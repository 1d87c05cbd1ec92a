//! Single steps of mounting, on descriptors instead of paths: no step can be led astray by a
//! symbolic link.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags},
};

use crate::{
    sys::{self, Reach},
    users::PodUsers,
};

/// A new file system, not yet mounted anywhere.
pub(super) fn new(kind: &str, options: &[(&str, &str)]) -> io::Result<OwnedFd> {
    new_with(kind, options, MountAttrFlags::empty())
}

/// The same with mount attributes.
pub(super) fn new_with(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, *key)?;
        } else {
            rustix::mount::fsconfig_set_string(&context, *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A copy of what is at a path, with everything mounted below it, not yet mounted anywhere.
pub(super) fn clone(dir: impl AsFd, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        // Touching what an automounter would mount could wait for a dead file server.
        | OpenTreeFlags::AT_NO_AUTOMOUNT;
    Ok(rustix::mount::open_tree(dir, path.as_ref(), flags)?)
}

/// A read-only copy of what is at a path, not yet mounted anywhere.
pub(super) fn clone_read_only(dir: impl AsFd, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let tree = clone(dir, path)?;
    make_read_only(&tree)?;
    Ok(tree)
}

/// A copy of what a descriptor names, with everything mounted below it, not yet mounted anywhere.
pub(super) fn clone_of(fd: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(fd, "", flags)?)
}

/// Makes a copy read-only.
pub(super) fn make_read_only(tree: impl AsFd) -> io::Result<()> {
    restrict(tree, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Makes a mount read-only, and nothing that is mounted in it.
pub(super) fn make_this_read_only(mount: impl AsFd) -> io::Result<()> {
    sys::set_this_mount(mount.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Lets no device file of a mount be used.
pub(super) fn forbid_devices(mount: impl AsFd) -> io::Result<()> {
    sys::set_this_mount(mount.as_fd(), MountAttrFlags::MOUNT_ATTR_NODEV)
}

/// Gives a copy and everything mounted in it these attributes.
pub(super) fn restrict(tree: impl AsFd, attributes: MountAttrFlags) -> io::Result<()> {
    sys::set_mounts(tree.as_fd(), attributes)
}

/// Shows the owners of files in a copy, which is mounted nowhere yet, as they are called outside for a pod
/// with users of its own: who owns a file on the disk owns it in there.
///
/// What is mounted in it and has no such owners, as `/proc`, stays as it is: nobody's in there.
pub(super) fn map_owners(tree: impl AsFd, users: &PodUsers) -> io::Result<()> {
    let map = |reach| sys::map_ids(tree.as_fd(), users.as_fd(), reach);
    let is_unfit = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    match map(Reach::All).or_else(|it| if is_unfit(&it) { map(Reach::This) } else { Err(it) }) {
        Err(error) if is_unfit(&error) => Err(io::Error::other(
            "its file system cannot show other owners (mounts with mapped ids), which `hostUsers: false` \
             needs",
        )),
        result => result,
    }
}

/// Where a symbolic link leads; `None` if an entry of a folder is none, or missing.
pub(super) fn link(dir: impl AsFd, name: &OsStr) -> io::Result<Option<PathBuf>> {
    match rustix::fs::readlinkat(dir, name, Vec::new()) {
        Ok(link) => Ok(Some(PathBuf::from(OsStr::from_bytes(link.to_bytes())))),
        Err(Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Lets nothing that is mounted in a copy show in what it was copied from.
pub(super) fn keep_to_itself(tree: impl AsFd) -> io::Result<()> {
    sys::make_slave(tree.as_fd())
}

/// Mounts what is not yet mounted anywhere. `tree` then names the root of the mount.
pub(super) fn attach(tree: impl AsFd, onto: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", onto, "", flags)?)
}

/// Opens a path below `root` as a process would whose root it is, only to name what is there.
pub(super) fn find(root: impl AsFd, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT;
    Ok(rustix::fs::openat2(root, path.as_ref(), flags, Mode::empty(), resolve)?)
}

/// Opens an entry of a folder, only to name it.
pub(super) fn entry(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Makes a folder and opens it.
pub(super) fn folder(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(&dir, name, Mode::from_bits_retain(0o755))?;
    entry(dir, name)
}

/// Makes an empty file and opens it.
pub(super) fn file(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::from_bits_retain(0o644))?)
}

/// Whether a descriptor names a folder.
pub(super) fn is_folder(fd: impl AsFd) -> io::Result<bool> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    Ok(rustix::fs::FileType::from_raw_mode(mode).is_dir())
}

/// Which mount a descriptor is on: Linux 5.8.
pub(super) fn mount_id(fd: impl AsFd) -> io::Result<u64> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok(stat.stx_mnt_id)
}
