//! Where files are looked up by name: the context of a build, or the layers of an image as a
//! container sees them. Links are followed within, never out of it.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::ignore::Ignore;
use crate::{Owners, tarball::Time};

/// Most symbolic links on the way to one file, as in the kernel.
const LINKS_MAX: usize = 40;

/// Something that is there.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) time: Time,
    /// Where its bytes are.
    pub(super) path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File { size: u64 },
    Folder,
    Link(Vec<u8>),
    Other,
}

/// A place. Paths have no slash at the beginning; the empty one is the place itself.
#[derive(Debug)]
pub(super) enum Place<'a> {
    Context { folder: &'a Path, ignore: &'a Ignore },
    Layers(View<'a>),
}

impl Place<'_> {
    /// What is at the path; over no link.
    pub(super) fn stat(&self, path: &[u8]) -> io::Result<Option<Found>> {
        match self {
            Place::Context { folder, ignore } => {
                let is_gone = !path.is_empty() && ignore.is_ignored(path);
                let found = stat(&folder.join(Path::new(as_os(path))), None)?;
                // Something in it may be there, although it is not.
                let is_way = ignore.has_exceptions()
                    && found.as_ref().is_some_and(|it| it.kind == Kind::Folder);
                Ok(found.filter(|_| !is_gone || is_way))
            }
            Place::Layers(view) => view.stat(path),
        }
    }

    /// Whether the folder is there for its own sake, not only for what is in it.
    pub(super) fn is_itself(&self, path: &[u8]) -> bool {
        match self {
            Place::Context { ignore, .. } => path.is_empty() || !ignore.is_ignored(path),
            Place::Layers(_) => true,
        }
    }

    /// The names in a folder, in order.
    pub(super) fn list(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        match self {
            Place::Context { folder, .. } => {
                let entries = fs::read_dir(folder.join(Path::new(as_os(path))))?;
                let name = |it: io::Result<fs::DirEntry>| Ok(it?.file_name().as_bytes().to_vec());
                let mut names: Vec<Vec<u8>> = entries.map(name).collect::<io::Result<_>>()?;
                names.sort();
                Ok(names)
            }
            Place::Layers(view) => view.list(path),
        }
    }

    /// The path with all its links followed. What is not there stays as it is named.
    pub(super) fn resolve(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let mut todo: Vec<Vec<u8>> =
            path.split(|it| *it == b'/').rev().map(<[u8]>::to_vec).collect();
        let mut resolved: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    let above = resolved.iter().rposition(|it| *it == b'/').unwrap_or(0);
                    resolved.truncate(above);
                    continue;
                }
                _ => {}
            }
            let next = join(&resolved, &part);
            match self.stat(&next)? {
                Some(Found { kind: Kind::Link(target), .. }) => {
                    links += 1;
                    if LINKS_MAX < links {
                        return Err(rustix::io::Errno::LOOP.into());
                    }
                    if target.starts_with(b"/") {
                        resolved.clear();
                    }
                    todo.extend(target.split(|it| *it == b'/').rev().map(<[u8]>::to_vec));
                }
                _ => resolved = next,
            }
        }
        Ok(resolved)
    }
}

/// Layers on top of each other.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// As [`crate::unpack::ensure`] gives them: topmost first.
    pub(super) folders: &'a [PathBuf],
    pub(super) owners: Owners,
}

/// What one layer has to say of a path.
enum Said {
    There(Found),
    /// It is not there, whatever lower layers have.
    Gone,
    Nothing,
}

impl View<'_> {
    fn stat(&self, path: &[u8]) -> io::Result<Option<Found>> {
        for layer in self.folders {
            match self.ask(layer, path)? {
                Said::There(found) => return Ok(Some(found)),
                Said::Gone => return Ok(None),
                Said::Nothing => {}
            }
        }
        // A root is always there.
        let root = || Found {
            kind: Kind::Folder,
            mode: 0o755,
            uid: 0,
            gid: 0,
            time: Time::default(),
            path: PathBuf::new(),
        };
        Ok(path.is_empty().then(root))
    }

    fn ask(&self, layer: &Path, path: &[u8]) -> io::Result<Said> {
        let slashes = path.iter().zip(0..).filter(|(it, _)| **it == b'/').map(|(_, at)| at);
        let mut is_opaque = false;
        for end in slashes {
            let above = layer.join(Path::new(as_os(path.get(..end).unwrap_or_default())));
            match stat(&above, Some(self.owners))? {
                Some(found) if found.kind == Kind::Folder => is_opaque |= opaque(&above)?,
                Some(_) => return Ok(Said::Gone),
                None => return Ok(if is_opaque { Said::Gone } else { Said::Nothing }),
            }
        }
        match stat(&layer.join(Path::new(as_os(path))), Some(self.owners))? {
            // Nothing else of that kind is in a layer's folder.
            Some(found) if found.kind == Kind::Other && is_whiteout(&found.path)? => Ok(Said::Gone),
            Some(found) => Ok(Said::There(found)),
            None => Ok(if is_opaque { Said::Gone } else { Said::Nothing }),
        }
    }

    fn list(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut names = std::collections::BTreeSet::new();
        let mut gone = std::collections::BTreeSet::new();
        for layer in self.folders {
            match self.ask(layer, path)? {
                Said::There(found) if found.kind == Kind::Folder => {
                    for entry in fs::read_dir(&found.path)? {
                        let entry = entry?;
                        let name = entry.file_name().as_bytes().to_vec();
                        if gone.contains(&name) {
                            continue;
                        }
                        if is_whiteout(&entry.path())? {
                            gone.insert(name);
                        } else {
                            names.insert(name);
                        }
                    }
                    if opaque(&found.path)? {
                        break;
                    }
                }
                Said::There(_) | Said::Gone => break,
                Said::Nothing => {}
            }
        }
        // A name that is both is of a layer above the one where it is gone.
        Ok(names.into_iter().collect())
    }
}

/// What is at a path of the machine; its owner as an image has it, or root's.
fn stat(path: &Path, owners: Option<Owners>) -> io::Result<Option<Found>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let file_type = found.file_type();
    let kind = if file_type.is_dir() {
        Kind::Folder
    } else if file_type.is_file() {
        Kind::File { size: found.len() }
    } else if file_type.is_symlink() {
        Kind::Link(fs::read_link(path)?.as_os_str().as_bytes().to_vec())
    } else {
        Kind::Other
    };
    let (uid, gid) = owners.map_or((0, 0), |it| it.in_image(found.uid(), found.gid()));
    let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap_or_default();
    let time = Time { seconds: found.mtime(), nanoseconds };
    let mode = found.mode() & 0o7777;
    Ok(Some(Found { kind, mode, uid, gid, time, path: path.to_owned() }))
}

fn opaque(folder: &Path) -> io::Result<bool> {
    Ok(crate::unpack::is_opaque(&fs::File::open(folder)?.into())?)
}

fn is_whiteout(path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    let is_device = std::os::unix::fs::FileTypeExt::is_char_device(&found.file_type());
    Ok(is_device && found.rdev() == 0)
}

/// A path below a folder.
pub(super) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let slash = if folder.is_empty() || name.is_empty() { &[][..] } else { b"/" };
    [folder, slash, name].concat()
}

fn as_os(path: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(path)
}
