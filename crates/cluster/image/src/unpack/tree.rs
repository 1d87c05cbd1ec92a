//! One layer's folder while it is filled: every name is looked up from the folder's descriptor and
//! no symbolic link is followed, so that nothing outside of it is ever touched.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStrExt as _,
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps,
        Uid, XattrFlags,
    },
    io::Errno,
};

use super::Refusal;
use crate::tarball::Time;

/// Most folders within folders of a name in a layer. Deeper ones cannot be removed without as many
/// descriptors.
pub(super) const DEPTH_MAX: usize = 256;

/// Most bytes of names of folders that are remembered until a layer is complete: their times are set
/// last. A real layer has some megabytes.
const FOLDER_NAMES_BYTES_MAX: usize = 256 << 20;

/// Attributes that make a folder opaque: without root and with it. An image's own are never set.
pub(crate) const OPAQUE: [&str; 2] = ["user.overlay.opaque", "trusted.overlay.opaque"];

/// Only within the tree, over no link and no mount.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// What a folder is to be when the layer is complete: while it is filled, only the process itself
/// may use it.
#[derive(Debug, Clone, Copy)]
pub(super) struct FolderMeta {
    pub(super) mode: u32,
    pub(super) time: Time,
    /// The layer has no entry of its own for it.
    pub(super) is_implied: bool,
}

/// A relative name without `.` and `..`, of at least no component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(Vec<u8>);

impl Name {
    pub(super) fn root() -> Self {
        Self(Vec::new())
    }

    /// The name of an entry. A leading slash and `.` mean nothing, as everywhere.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, Refusal> {
        let mut name = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for part in raw.split(|it| *it == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(Refusal::Outside),
                _ if part.contains(&0) => return Err(Refusal::Nul),
                _ => {}
            }
            depth += 1;
            if DEPTH_MAX < depth {
                return Err(Refusal::Deep);
            }
            if !name.is_empty() {
                name.push(b'/');
            }
            name.extend_from_slice(part);
        }
        Ok(Self(name))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The folder and the last component.
    pub(super) fn split(&self) -> (Self, &[u8]) {
        match self.0.iter().rposition(|it| *it == b'/') {
            Some(at) => {
                let (folder, last) = self.0.split_at(at);
                (Self(folder.to_vec()), last.get(1..).unwrap_or_default())
            }
            None => (Self(Vec::new()), &self.0),
        }
    }

    pub(super) fn join(&self, last: &[u8]) -> Self {
        if self.is_root() {
            Self(last.to_vec())
        } else {
            Self([&self.0, b"/".as_slice(), last].concat())
        }
    }

    /// From the first component to the whole.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = Self> {
        let slashes = self.0.iter().zip(0..).filter(|(it, _)| **it == b'/').map(|(_, at)| at);
        let end = (!self.is_root()).then_some(self.0.len());
        slashes.chain(end).map(|at: usize| Self(self.0.get(..at).unwrap_or_default().to_vec()))
    }
}

/// A path for system calls; `.` for the root.
pub(super) fn path(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(if name.is_empty() { b"." } else { name })
}

/// A folder that is being filled.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// The folder that was used last: entries of one folder come one after the other.
    last: Option<(Name, OwnedFd)>,
    pub(super) folders: BTreeMap<Name, FolderMeta>,
    names_bytes: usize,
    opaque: &'static str,
}

impl Tree {
    /// Of an empty folder. `opaque` is the attribute that hides what is below a folder.
    pub(super) fn new(root: OwnedFd, opaque: &'static str) -> Self {
        Self { root, last: None, folders: BTreeMap::new(), names_bytes: 0, opaque }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The folder of that name, which is made with those above it where they are missing.
    pub(super) fn folder(&mut self, name: &Name) -> Result<BorrowedFd<'_>, Refusal> {
        if self.last.as_ref().is_none_or(|(last, _)| last != name) {
            let opened = match open_folder(&self.root, name, OFlags::PATH) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    for prefix in name.prefixes() {
                        self.imply(&prefix)?;
                    }
                    open_folder(&self.root, name, OFlags::PATH)?
                }
                other => other?,
            };
            self.last = Some((name.clone(), opened));
        }
        Ok(self.last.as_ref().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }

    /// Makes one folder that no entry has named, if it is missing.
    fn imply(&mut self, name: &Name) -> Result<(), Refusal> {
        let (above, last) = name.split();
        let above = open_folder(&self.root, &above, OFlags::PATH)?;
        let was_hidden = match kind(&above, last)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Ok(());
            }
            Some(stat) if is_whiteout(&stat) => {
                rustix::fs::unlinkat(&above, path(last), AtFlags::empty())?;
                true
            }
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                return Err(Refusal::ThroughLink);
            }
            Some(_) => return Err(Refusal::NoFolder),
            None => false,
        };
        rustix::fs::mkdirat(&above, path(last), Mode::RWXU)?;
        let meta = FolderMeta { mode: 0o755, time: Time::default(), is_implied: !was_hidden };
        self.remember(name, meta)?;
        if was_hidden { self.make_opaque(name) } else { Ok(()) }
    }

    /// Makes the folder of an entry, or finds it. What else has its name makes way.
    pub(super) fn make_folder(
        &mut self,
        name: &Name,
        meta: FolderMeta,
    ) -> Result<OwnedFd, Refusal> {
        if !name.is_root() {
            let (above, last) = name.split();
            let above = self.folder(&above)?;
            match rustix::fs::mkdirat(above, path(last), Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    let is_folder = kind(&above, last)?.is_some_and(|it| is_folder(&it));
                    if !is_folder {
                        // It hid what is below; so does its successor.
                        rustix::fs::unlinkat(above, path(last), AtFlags::empty())?;
                        rustix::fs::mkdirat(above, path(last), Mode::RWXU)?;
                        self.make_opaque(name)?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.remember(name, meta)?;
        Ok(open_folder(&self.root, name, OFlags::RDONLY)?)
    }

    /// Hides all that lower layers have in the folder.
    pub(super) fn make_opaque(&mut self, name: &Name) -> Result<(), Refusal> {
        let folder = open_folder(&self.root, name, OFlags::RDONLY)?;
        rustix::fs::fsetxattr(folder, self.opaque, b"y", XattrFlags::empty())
            .map_err(|error| Refusal::Opaque(error.into()))
    }

    /// Calls `make` to put something into a folder under a name. What has that name makes way.
    pub(super) fn put<T>(
        &mut self,
        name: &Name,
        mut make: impl FnMut(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> Result<T, Refusal> {
        if name.is_root() {
            return Err(Refusal::Root);
        }
        let (above, last) = name.split();
        match make(self.folder(&above)?, path(last)) {
            Err(Errno::EXIST) => {
                self.remove(name)?;
                Ok(make(self.folder(&above)?, path(last))?)
            }
            other => Ok(other?),
        }
    }

    /// What has that name, with all that is in it.
    fn remove(&mut self, name: &Name) -> Result<(), Refusal> {
        self.last = None;
        let (above, last) = name.split();
        let above = open_folder(&self.root, &above, OFlags::PATH)?;
        remove(&above, last)?;
        let within = [name.bytes(), b"/"].concat();
        self.forget(name);
        let below: Vec<Name> = self
            .folders
            .range(Name(within.clone())..)
            .map(|(it, _)| it)
            .take_while(|it| it.bytes().starts_with(&within))
            .cloned()
            .collect();
        below.iter().for_each(|it| self.forget(it));
        Ok(())
    }

    /// What is there under that name, if anything.
    pub(super) fn stat(&mut self, name: &Name) -> Result<Option<Stat>, Refusal> {
        let (above, last) = name.split();
        kind(&self.folder(&above)?, last)
    }

    /// Sets modes and times of all folders, the innermost first.
    pub(super) fn finish_folders(&mut self) -> Result<(), (Name, io::Error)> {
        self.last = None;
        for (name, meta) in std::mem::take(&mut self.folders).into_iter().rev() {
            let done = open_folder(&self.root, &name, OFlags::RDONLY).and_then(|folder| {
                rustix::fs::fchmod(&folder, Mode::from_raw_mode(meta.mode))?;
                rustix::fs::futimens(&folder, &times(meta.time))
            });
            done.map_err(|error| (name, error.into()))?;
        }
        Ok(())
    }

    fn remember(&mut self, name: &Name, meta: FolderMeta) -> Result<(), Refusal> {
        if self.folders.insert(name.clone(), meta).is_none() {
            self.names_bytes += name.bytes().len();
        }
        if FOLDER_NAMES_BYTES_MAX < self.names_bytes { Err(Refusal::Folders) } else { Ok(()) }
    }

    fn forget(&mut self, name: &Name) {
        if self.folders.remove(name).is_some() {
            self.names_bytes = self.names_bytes.saturating_sub(name.bytes().len());
        }
    }
}

/// Opens a folder below `root`.
pub(super) fn open_folder(
    root: impl AsFd,
    name: &Name,
    how: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path(name.bytes()), flags, Mode::empty(), BENEATH)
}

/// What has the name, if anything.
fn kind(above: &impl AsFd, last: &[u8]) -> Result<Option<Stat>, Refusal> {
    match rustix::fs::statat(above, path(last), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Whether it is how overlayfs says that something is gone.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Removes what has the name, with all that is in it. Folders that cannot be looked into are opened
/// up first.
pub(crate) fn remove(above: &impl AsFd, last: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(above, path(last), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error),
    }
    let open = |how| {
        let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(above, path(last), flags, Mode::empty())
    };
    // By name, not by descriptor: one cannot be had before.
    if open(OFlags::RDONLY).is_err() {
        rustix::fs::chmodat(above, path(last), Mode::RWXU, AtFlags::empty())?;
    }
    let folder = open(OFlags::RDONLY)?;
    rustix::fs::fchmod(&folder, Mode::RWXU)?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove(&folder, name)?;
        }
    }
    rustix::fs::unlinkat(above, path(last), AtFlags::REMOVEDIR)
}

/// Both times of a file are when its contents changed: when it was read says nothing.
pub(super) fn times(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Gives what `name` is in `above` to an owner, not what a link leads to.
pub(super) fn give(
    above: BorrowedFd<'_>,
    name: &OsStr,
    uid: u32,
    gid: u32,
) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(above, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives an open file to an owner.
pub(super) fn give_open(file: &OwnedFd, uid: u32, gid: u32) -> rustix::io::Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Whether the folder hides what is below it.
pub(crate) fn is_opaque(folder: &OwnedFd) -> rustix::io::Result<bool> {
    for name in OPAQUE {
        let mut value = [0_u8; 1];
        match rustix::fs::fgetxattr(folder, name, value.as_mut_slice()) {
            Ok(_) => return Ok(value == *b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Opens a folder of the machine.
pub(super) fn open_root(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}
