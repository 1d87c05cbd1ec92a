//! Puts the entries of one layer into a folder, in the form that overlayfs takes as a lower layer.
//!
//! Ref: OCI image specification, "Image Layer Filesystem Changeset"; the kernel's
//! Documentation/filesystems/overlayfs.rst.

use std::{
    ffi::OsStr,
    io::BufRead,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::FileExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, XattrFlags},
    io::Errno,
};

use super::{
    Error, Lost, Refusal,
    limits::Budget,
    tree::{self, FolderMeta, Name, Tree},
};
use crate::{
    Owners,
    tarball::{Data, Entry, Kind, Piece, Reader, Time},
};

/// What begins the name of an entry that is about another one.
const WHITEOUT: &[u8] = b".wh.";
/// What begins the name of an entry about the folder, or of aufs' own books.
const META: &[u8] = b".wh..wh.";
/// Hides all that lower layers have in the folder.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// First word of a file's capabilities of version 2, without the flag in its lowest bit; and the
/// length of such.
const CAPABILITY_2: (u8, usize) = (2, 20);

/// What came of a layer.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) lost: Lost,
    /// What lower layers have is not seen.
    pub(super) is_opaque: bool,
    /// A folder got its owner and mode from lower layers: above others it would be another one.
    pub(super) is_of_chain: bool,
}

/// Unpacks `stream` into the empty folder `into`. `lowers` are the trees below, topmost first.
pub(super) fn apply(
    stream: impl BufRead,
    into: &Path,
    owners: Owners,
    lowers: &[PathBuf],
) -> Result<Applied, Error> {
    let system = |error: Errno| Error::Folder { path: into.to_owned(), source: error.into() };
    let root = tree::open_root(into).map_err(system)?;
    let mut budget = Budget::default();
    let [of_user, of_root] = tree::OPAQUE;
    let opaque = if owners.userxattr() { of_user } else { of_root };
    let mut layer = Layer { tree: Tree::new(root, opaque), owners, applied: Applied::default() };
    let mut reader = Reader::new(stream);
    while let Some(entry) = reader.next_entry().map_err(Error::Stream)? {
        budget.entry(layer.tree.root(), &entry)?;
        let refused = |source| Error::Entry { name: shown(&entry.name), source };
        layer.entry(&entry, &mut reader.data(), &mut budget).map_err(refused)?;
    }
    reader.finish().map_err(Error::Stream)?;
    layer.imply(lowers)?;
    layer.tree.finish_folders().map_err(|(name, source)| Error::Entry {
        name: shown(name.bytes()),
        source: Refusal::System(source),
    })?;
    Ok(layer.applied)
}

struct Layer {
    tree: Tree,
    owners: Owners,
    applied: Applied,
}

/// What an entry's name says of it.
enum Role {
    Itself(Name),
    /// The lower layers' file of that name is gone.
    Whiteout(Name),
    /// All that lower layers have in the folder is gone.
    Opaque(Name),
    /// Of no meaning to anybody but aufs.
    Nothing,
}

impl Layer {
    fn entry(
        &mut self,
        entry: &Entry,
        data: &mut Data<'_, impl BufRead>,
        budget: &mut Budget,
    ) -> Result<(), Refusal> {
        let name = match role(&entry.name)? {
            Role::Nothing => return Ok(()),
            Role::Whiteout(name) => return self.whiteout(&name),
            Role::Opaque(folder) => {
                self.tree.folder(&folder)?;
                self.applied.is_opaque |= folder.is_root();
                return self.tree.make_opaque(&folder);
            }
            Role::Itself(name) => name,
        };
        match &entry.kind {
            Kind::Folder => {
                let meta = FolderMeta { mode: entry.mode, time: entry.time, is_implied: false };
                let folder = self.tree.make_folder(&name, meta)?;
                self.own(entry, &folder)?;
                self.attributes(entry, &folder)
            }
            Kind::File { pieces, .. } => self.file(&name, entry, pieces.as_deref(), data, budget),
            Kind::SymbolicLink(target) => {
                if target.contains(&0) {
                    return Err(Refusal::Nul);
                }
                let target = OsStr::from_bytes(target);
                self.special(&name, entry, |above, last| rustix::fs::symlinkat(target, above, last))
            }
            Kind::HardLink(target) => self.hard_link(&name, target),
            Kind::Pipe => self
                .special(&name, entry, |above, last| rustix::fs::mkfifoat(above, last, Mode::RUSR)),
            Kind::Character(0, 0) => self.whiteout(&name),
            // What a container may use of the machine is not for an image to say.
            Kind::Character(..) | Kind::Block(..) => {
                self.applied.lost.devices += 1;
                Ok(())
            }
        }
    }

    /// Hides what lower layers have; what this layer has under the name stays, without theirs.
    fn whiteout(&mut self, name: &Name) -> Result<(), Refusal> {
        if name.is_root() {
            return Err(Refusal::Root);
        }
        match self.tree.stat(name)? {
            Some(stat) if tree::is_folder(&stat) => self.tree.make_opaque(name),
            Some(_) => Ok(()),
            None => self.tree.put(name, |above, last| {
                let device = FileType::CharacterDevice;
                rustix::fs::mknodat(above, last, device, Mode::empty(), 0)
            }),
        }
    }

    fn file(
        &mut self,
        name: &Name,
        entry: &Entry,
        pieces: Option<&[Piece]>,
        data: &mut Data<'_, impl BufRead>,
        budget: &mut Budget,
    ) -> Result<(), Refusal> {
        let Kind::File { size, .. } = entry.kind else { return Ok(()) };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = self.tree.put(name, |above, last| {
            rustix::fs::openat(above, last, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
        })?;
        let file = std::fs::File::from(file);
        let whole = [Piece { at: 0, length: size }];
        for piece in pieces.unwrap_or(&whole) {
            write_piece(&file, *piece, data, budget)?;
        }
        if pieces.is_some() {
            rustix::fs::ftruncate(&file, size)?;
        }
        // An owner before a mode, which it may clear, and both before capabilities.
        let file = OwnedFd::from(file);
        self.own(entry, &file)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
        self.attributes(entry, &file)?;
        Ok(rustix::fs::futimens(&file, &tree::times(entry.time))?)
    }

    /// A link or a pipe: what has no descriptor to work on.
    fn special(
        &mut self,
        name: &Name,
        entry: &Entry,
        make: impl FnMut(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()>,
    ) -> Result<(), Refusal> {
        self.tree.put(name, make)?;
        self.applied.lost.attributes += entry.attributes.len() as u64;
        let (uid, gid, is_kept) = self.owners.on_disk(entry.uid, entry.gid);
        self.applied.lost.owners += u64::from(!is_kept);
        let (above, last) = name.split();
        let (above, last) = (self.tree.folder(&above)?, tree::path(last));
        if (uid, gid) != self.owners.own() {
            tree::give(above, last, uid, gid)?;
        }
        if matches!(entry.kind, Kind::Pipe) {
            let mode = Mode::from_raw_mode(entry.mode);
            rustix::fs::chmodat(above, last, mode, AtFlags::empty())?;
        }
        let times = tree::times(entry.time);
        Ok(rustix::fs::utimensat(above, last, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn hard_link(&mut self, name: &Name, target: &[u8]) -> Result<(), Refusal> {
        let Role::Itself(target) = role(target)? else { return Err(Refusal::Whiteout) };
        if target == *name {
            return if self.tree.stat(name)?.is_some() { Ok(()) } else { Err(Refusal::NoTarget) };
        }
        if target.is_root() {
            return Err(Refusal::NoTarget);
        }
        let (folder, file) = target.split();
        let folder = match tree::open_folder(self.tree.root(), &folder, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(Refusal::NoTarget),
            other => other?,
        };
        let linked = self.tree.put(name, |above, last| {
            rustix::fs::linkat(&folder, tree::path(file), above, last, AtFlags::empty())
        });
        match linked {
            Err(Refusal::System(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Refusal::NoTarget)
            }
            other => other,
        }
    }

    /// Gives an open file to its owner.
    fn own(&mut self, entry: &Entry, file: &OwnedFd) -> Result<(), Refusal> {
        let (uid, gid, is_kept) = self.owners.on_disk(entry.uid, entry.gid);
        self.applied.lost.owners += u64::from(!is_kept);
        // A folder may have had another owner before.
        if (uid, gid) != self.owners.own() || matches!(entry.kind, Kind::Folder) {
            tree::give_open(file, uid, gid)?;
        }
        Ok(())
    }

    /// Sets those attributes that an image may set. Others are somebody's words to this machine:
    /// overlayfs' own (`trusted.overlay`, `user.overlay`), labels and lists of security modules.
    fn attributes(&mut self, entry: &Entry, file: &OwnedFd) -> Result<(), Refusal> {
        for (name, value) in &entry.attributes {
            let is_user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
            let value = match name.as_slice() {
                b"security.capability" => self.capability(value),
                _ => is_user.then(|| value.clone()),
            };
            let name = OsStr::from_bytes(name);
            let is_set = match &value {
                Some(value) => {
                    match rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()) {
                        Ok(()) => true,
                        // The file system has none, or not as many; or the process may not.
                        Err(
                            Errno::OPNOTSUPP
                            | Errno::PERM
                            | Errno::INVAL
                            | Errno::NOSPC
                            | Errno::RANGE
                            | Errno::TOOBIG,
                        ) => false,
                        Err(error) => return Err(error.into()),
                    }
                }
                None => false,
            };
            self.applied.lost.attributes += u64::from(!is_set);
        }
        Ok(())
    }

    /// Capabilities of a file as this machine keeps them: without root, they hold only in a
    /// container whose id 0 is the process's own, which version 3 says.
    fn capability(&self, value: &[u8]) -> Option<Vec<u8>> {
        let (version, length) = CAPABILITY_2;
        if matches!(self.owners, Owners::Root) {
            return Some(value.to_vec());
        }
        let [flags, zero_1, zero_2, kind, rest @ ..] = value else { return None };
        if *kind != version || value.len() != length {
            return None;
        }
        let head = [*flags, *zero_1, *zero_2, version + 1];
        let (uid, _) = self.owners.own();
        Some([head.as_slice(), rest, &uid.to_le_bytes()].concat())
    }

    /// Gives folders that no entry named, but that lower layers have, their owner and mode: an
    /// overlay shows those of the topmost layer.
    fn imply(&mut self, lowers: &[PathBuf]) -> Result<(), Error> {
        let meta = FolderMeta { mode: 0o755, time: Time::default(), is_implied: true };
        self.tree.folders.entry(Name::root()).or_insert(meta);
        let implied: Vec<Name> = {
            let all = self.tree.folders.iter().filter(|(_, it)| it.is_implied);
            all.map(|(name, _)| name.clone()).collect()
        };
        let lowers: Vec<OwnedFd> = lowers
            .iter()
            .map(|it| {
                tree::open_root(it)
                    .map_err(|error| Error::Folder { path: it.clone(), source: error.into() })
            })
            .collect::<Result<_, _>>()?;
        for name in implied {
            let failed = |error: Errno| Error::Entry {
                name: shown(name.bytes()),
                source: Refusal::System(error.into()),
            };
            let Some(stat) = below(&lowers, &name).map_err(failed)? else { continue };
            let Some(meta) = self.tree.folders.get_mut(&name) else { continue };
            let mode = stat.st_mode & 0o7777;
            let is_default = mode == meta.mode && (stat.st_uid, stat.st_gid) == self.owners.own();
            // Most layers do not name their root, and in most images it is as it should be.
            if name.is_root() && is_default {
                continue;
            }
            meta.mode = mode;
            self.applied.is_of_chain = true;
            let folder = tree::open_folder(self.tree.root(), &name, OFlags::RDONLY);
            folder.and_then(|it| tree::give_open(&it, stat.st_uid, stat.st_gid)).map_err(failed)?;
        }
        Ok(())
    }
}

/// The folder of that name as an overlay of `lowers` shows it.
fn below(lowers: &[OwnedFd], name: &Name) -> rustix::io::Result<Option<rustix::fs::Stat>> {
    for lower in lowers {
        match tree::open_folder(lower, name, OFlags::PATH) {
            Ok(folder) => return rustix::fs::fstat(&folder).map(Some),
            // Something else is there, which hides what is below.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        for above in name.prefixes() {
            match tree::open_folder(lower, &above, OFlags::RDONLY) {
                Ok(folder) if tree::is_opaque(&folder)? => return Ok(None),
                Ok(_) => {}
                Err(Errno::NOENT) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

pub(super) fn write_piece(
    file: &std::fs::File,
    piece: Piece,
    data: &mut impl BufRead,
    budget: &mut Budget,
) -> Result<(), Refusal> {
    let mut done = 0;
    while done < piece.length {
        let chunk = data.fill_buf().map_err(Refusal::Stream)?;
        let most = usize::try_from(piece.length - done).unwrap_or(usize::MAX).min(chunk.len());
        let chunk = chunk.get(..most).unwrap_or_default();
        if chunk.is_empty() {
            return Err(Refusal::Short);
        }
        file.write_all_at(chunk, piece.at + done).map_err(Refusal::System)?;
        data.consume(most);
        done += most as u64;
        budget.written(file.as_fd(), most)?;
    }
    Ok(())
}

fn role(raw: &[u8]) -> Result<Role, Refusal> {
    let name = Name::parse(raw)?;
    if name.is_root() {
        return Ok(Role::Itself(name));
    }
    let (folder, last) = name.split();
    let mut parts = folder.bytes().split(|it| *it == b'/');
    if let Some(part) = parts.find(|it| it.starts_with(WHITEOUT)) {
        return if part.starts_with(META) { Ok(Role::Nothing) } else { Err(Refusal::Whiteout) };
    }
    if last == OPAQUE {
        return Ok(Role::Opaque(folder));
    }
    if last.starts_with(META) {
        return Ok(Role::Nothing);
    }
    match last.strip_prefix(WHITEOUT) {
        Some(b"" | b"." | b"..") => Err(Refusal::Whiteout),
        Some(hidden) => Ok(Role::Whiteout(folder.join(hidden))),
        None => Ok(Role::Itself(name)),
    }
}

/// A name of a stranger in a message: of bounded length, on one line.
fn shown(name: &[u8]) -> String {
    /// Characters shown.
    const MAX: usize = 200;
    let text = String::from_utf8_lossy(name);
    let mut shown: String = text.chars().take(MAX).flat_map(char::escape_debug).collect();
    if MAX < text.chars().count() {
        shown.push('…');
    }
    shown
}
