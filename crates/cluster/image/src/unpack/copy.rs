//! Layers merged into one folder, for where overlays cannot be mounted. Contents are shared with the
//! layers where the file system can.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags},
    io::Errno,
};

use super::{
    Error,
    tree::{self, OPAQUE},
};

/// Room for the names, or the value, of a file's attributes: the kernel's own limit.
const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;

/// Copies the layers into the folder `into`, which is there and empty. `layers` are folders that
/// [`super::ensure`] gave, topmost first. Memory grows with the hard links of one layer.
///
/// # Errors
/// [`Error::Folder`]; what is in `into` is of no use then.
pub fn copy(layers: &[PathBuf], into: &Path) -> Result<(), Error> {
    let open = |path: &Path| {
        tree::open_root(path)
            .map_err(|error| Error::Folder { path: path.to_owned(), source: error.into() })
    };
    let target = open(into)?;
    for layer in layers.iter().rev() {
        let mut links = Links::new();
        folder(&open(layer)?, &target, (&target, Path::new("")), &mut links)
            .map_err(|error| Error::Folder { path: layer.clone(), source: error.into() })?;
    }
    Ok(())
}

/// Where the first of several names of a file went, by its number.
type Links = BTreeMap<u64, PathBuf>;

/// Merges what is in `from` into `to`, which is at `place` of the target; then its own attributes.
fn folder(
    from: &OwnedFd,
    to: &OwnedFd,
    (target, place): (&OwnedFd, &Path),
    links: &mut Links,
) -> rustix::io::Result<()> {
    if tree::is_opaque(from)? {
        for name in names(to)? {
            tree::remove(to, name.as_bytes())?;
        }
    }
    for name in names(from)? {
        let stat = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let place = place.join(&name);
        if tree::is_folder(&stat) {
            match rustix::fs::mkdirat(to, &name, Mode::RWXU) {
                Err(Errno::EXIST) => {
                    let there = rustix::fs::statat(to, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                    if !tree::is_folder(&there) {
                        tree::remove(to, name.as_bytes())?;
                        rustix::fs::mkdirat(to, &name, Mode::RWXU)?;
                    }
                }
                other => other?,
            }
            let (below, above) = (open_folder(from, &name)?, open_folder(to, &name)?);
            folder(&below, &above, (target, &place), links)?;
            continue;
        }
        tree::remove(to, name.as_bytes())?;
        if tree::is_whiteout(&stat) {
            continue;
        }
        if let Some(first) = links.get(&stat.st_ino) {
            rustix::fs::linkat(target, first, to, &name, AtFlags::empty())?;
            continue;
        }
        file(from, to, &name, &stat)?;
        if 1 < stat.st_nlink {
            links.insert(stat.st_ino, place);
        }
    }
    finish(from, to, &rustix::fs::fstat(from)?)
}

/// One file that is no folder.
fn file(from: &OwnedFd, to: &OwnedFd, name: &OsStr, stat: &Stat) -> rustix::io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, read, Mode::empty())?;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let copy = rustix::fs::openat(to, name, write, Mode::RUSR | Mode::WUSR)?;
            let source = contents(source, &copy)?;
            return finish(&source, &copy, stat);
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
        }
        FileType::Fifo => rustix::fs::mkfifoat(to, name, Mode::from_raw_mode(stat.st_mode))?,
        // Layers have nothing else.
        _ => return Err(Errno::INVAL),
    }
    let owners = (stat.st_uid, stat.st_gid);
    tree::give(std::os::fd::AsFd::as_fd(to), name, owners.0, owners.1)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
    }
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Shares the bytes, or has the kernel copy them.
fn contents(source: OwnedFd, copy: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    if rustix::fs::ioctl_ficlone(copy, &source).is_ok() {
        return Ok(source);
    }
    let failed = |it: std::io::Error| Errno::from_io_error(&it).unwrap_or(Errno::IO);
    let mut source = fs::File::from(source);
    let mut copy = fs::File::from(copy.try_clone().map_err(failed)?);
    std::io::copy(&mut source, &mut copy).map_err(failed)?;
    Ok(source.into())
}

/// Owner, mode, attributes and times of an open file, in the order in which none undoes another.
fn finish(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> rustix::io::Result<()> {
    tree::give_open(to, stat.st_uid, stat.st_gid)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0; ATTRIBUTES_BYTES_MAX];
    let length = match rustix::fs::flistxattr(from, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = names.get(..length).unwrap_or_default();
    for name in names.split(|it| *it == 0).filter(|it| !it.is_empty()) {
        let name = OsStr::from_bytes(name);
        if OPAQUE.iter().any(|it| *it == name) {
            continue;
        }
        let mut value = vec![0; ATTRIBUTES_BYTES_MAX];
        let length = rustix::fs::fgetxattr(from, name, value.as_mut_slice())?;
        let value = value.get(..length).unwrap_or_default();
        match rustix::fs::fsetxattr(to, name, value, XattrFlags::empty()) {
            // Labels that the machine puts on every file are on the new one already.
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) => {}
            other => other?,
        }
    }
    rustix::fs::futimens(to, &times(stat))
}

fn times(stat: &Stat) -> Timestamps {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

fn open_folder(above: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::empty())
}

fn names(folder: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}
