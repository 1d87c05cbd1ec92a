//! Local archives that ADD unpacks.

use std::{
    cell::Cell,
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{
    copy::{Copying, Failure, look},
    places::join,
};
use crate::{
    assemble::{Item, Plan, Source},
    tarball::{Error, Kind, Reader},
    unpack::decompress,
};

/// Most bytes of one archive: an image of a model is smaller.
const BYTES_MAX: u64 = 64 << 30;

/// Most entries of one archive: what a layer may have.
const ENTRIES_MAX: usize = 4_000_000;

/// Where contents of archives are until they are in a layer.
#[derive(Debug)]
pub(super) struct Archives {
    folder: PathBuf,
    next: Cell<u64>,
}

impl Archives {
    /// In an empty folder.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, next: Cell::new(0) }
    }

    /// Plans what is in the archive `path` below `to`; whether it is one at all.
    pub(super) fn add(
        &self,
        path: &Path,
        to: &[u8],
        copying: &Copying<'_>,
        plan: &mut Plan,
    ) -> Result<bool, Failure> {
        let shown = super::copy::name_of(path);
        let failed = |it| Failure::Io(format!("unpack `{shown}`"), it);
        let file = fs::File::open(path).map_err(failed)?;
        // What cannot be decompressed or is no archive inside is a file like others.
        let Ok(stream) = decompress(file) else { return Ok(false) };
        let mut reader = Reader::new(stream);
        let mut bytes = 0_u64;
        let mut is_first = true;
        for _ in 0..ENTRIES_MAX {
            let entry = match reader.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(!is_first),
                Err(Error::Checksum | Error::Short | Error::Read(_)) if is_first => {
                    return Ok(false);
                }
                Err(error) => return Err(failed(io::Error::other(error))),
            };
            is_first = false;
            let name = relative(&entry.name).ok_or_else(|| format!("`{shown}` has `..` in it"))?;
            let last = name.rsplit(|it| *it == b'/').next().unwrap_or_default();
            if last.starts_with(b".wh.") {
                return Err(
                    format!("`{shown}`: names beginning with .wh. cannot be in a layer").into()
                );
            }
            if name.is_empty() {
                continue;
            }
            let to = look(copying.image.resolve(&join(to, parent(&name))), &shown)?;
            let mut item = Item { entry, source: Source::Bytes(Vec::new()) };
            item.entry.name = join(&to, last);
            item.entry.time = copying.time;
            if let Some(owner) = copying.owner {
                (item.entry.uid, item.entry.gid) = owner;
            }
            match &mut item.entry.kind {
                Kind::File { size, pieces } => {
                    bytes = bytes.saturating_add(*size);
                    if BYTES_MAX < bytes {
                        return Err(format!("`{shown}` has more than {BYTES_MAX} bytes").into());
                    }
                    let path =
                        self.keep(&mut reader.data(), pieces.as_deref(), *size).map_err(failed)?;
                    *pieces = None;
                    item.source = Source::Path(path);
                }
                Kind::HardLink(target) => {
                    let name =
                        relative(target).ok_or_else(|| format!("`{shown}` has `..` in it"))?;
                    *target = join(&to_root(copying, &name, &shown)?, base(&name));
                }
                // As everywhere: a container's devices are not an image's to say.
                Kind::Character(..) | Kind::Block(..) => continue,
                Kind::Folder | Kind::SymbolicLink(_) | Kind::Pipe => {}
            }
            plan.put(item);
        }
        Err(format!("`{shown}` has more than {ENTRIES_MAX} entries").into())
    }

    /// Writes a file's contents where they can be read again.
    fn keep(
        &self,
        data: &mut impl io::Read,
        pieces: Option<&[crate::tarball::Piece]>,
        size: u64,
    ) -> io::Result<PathBuf> {
        let path = self.folder.join(self.next.get().to_string());
        self.next.set(self.next.get() + 1);
        let mut file = fs::File::create(&path)?;
        let whole = [crate::tarball::Piece { at: 0, length: size }];
        for piece in pieces.unwrap_or(&whole) {
            io::Seek::seek(&mut file, io::SeekFrom::Start(piece.at))?;
            io::copy(&mut io::Read::take(&mut *data, piece.length), &mut file)?;
        }
        file.set_len(size)?;
        Ok(path)
    }
}

/// Where a hard link's target has gone.
fn to_root(copying: &Copying<'_>, name: &[u8], shown: &str) -> Result<Vec<u8>, Failure> {
    let to = copying.to.trim_matches('/').as_bytes();
    look(copying.image.resolve(&join(to, parent(name))), shown)
}

/// A name without `.` and slashes at its ends; nothing if it leads out.
fn relative(name: &[u8]) -> Option<Vec<u8>> {
    let mut relative = Vec::new();
    for part in name.split(|it| *it == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => relative = join(&relative, part),
        }
    }
    Some(relative)
}

fn parent(name: &[u8]) -> &[u8] {
    Path::new(OsStr::from_bytes(name)).parent().map_or(b"", |it| it.as_os_str().as_bytes())
}

fn base(name: &[u8]) -> &[u8] {
    name.rsplit(|it| *it == b'/').next().unwrap_or_default()
}
