//! An archive as a table of its files: a folder, a tar that can be read anywhere, or one that comes as a
//! stream and is put into the store file by file.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::{Component, Path, PathBuf},
};

use super::{Error, Into};
use crate::{
    progress::Event,
    spec::{DOCUMENT_BYTES_MAX, Descriptor},
    store::{self, Blob},
    tarball::{self, Kind, Reader},
};

/// Most files in an archive: many times what 1000 images have.
const ENTRIES_MAX: usize = 200_000;

/// How many links lead to a file at most. Docker's old archives have one.
const LINKS_MAX: usize = 8;

/// The files of an archive.
pub(super) enum Archive {
    Folder(PathBuf),
    File { file: fs::File, entries: BTreeMap<String, Entry> },
    Stored(BTreeMap<String, Entry>),
}

/// What a path leads to.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    At { offset: u64, size: u64 },
    Stored(Blob),
    Link(String),
}

impl Archive {
    pub(super) fn of_folder(path: &Path) -> Self {
        Self::Folder(path.to_owned())
    }

    /// Reads the headers of a tar and nothing else.
    pub(super) fn of_file(file: fs::File, path: &Path) -> Result<Self, Error> {
        let mut entries = BTreeMap::new();
        let end =
            file.metadata().map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let mut tar = Reader::new(&file);
        while let Some(entry) = tar.next_entry().map_err(|it| unreadable(path, it))? {
            let offset = tar.pass().map_err(|it| unreadable(path, it))?;
            if let Some((name, found)) = place(&entry)? {
                let entry = match found {
                    Place::File(size) if end.len() < offset.saturating_add(size) => {
                        return Err(unreadable(path, tarball::Error::Short));
                    }
                    Place::File(size) => Entry::At { offset, size },
                    Place::Link(to) => Entry::Link(to),
                };
                insert(&mut entries, name, entry, path)?;
            }
        }
        Ok(Self::File { file, entries })
    }

    /// Puts every file of a tar into the store.
    pub(super) fn of_stream(
        reader: &mut dyn Read,
        path: &Path,
        into: Into<'_>,
    ) -> Result<Self, Error> {
        let mut tar = Reader::new(reader);
        let mut entries = BTreeMap::new();
        while let Some(entry) = tar.next_entry().map_err(|it| unreadable(path, it))? {
            let Some((name, found)) = place(&entry)? else {
                continue;
            };
            let content = match found {
                Place::Link(to) => Entry::Link(to),
                Place::File(size) => {
                    let blob = into.ingest(&name, Some(size), &mut tar.data())?;
                    if size != blob.size {
                        return Err(unreadable(path, tarball::Error::Short));
                    }
                    Entry::Stored(blob)
                }
            };
            insert(&mut entries, name, content, path)?;
        }
        // Whoever writes into a pipe is to come to the end.
        tar.finish().map_err(|it| unreadable(path, it))?;
        Ok(Self::Stored(entries))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::File { entries, .. } | Self::Stored(entries) => entries.contains_key(name),
        }
    }

    /// Reads a document into memory.
    pub(super) fn document(&self, into: Into<'_>, name: &str) -> Result<Vec<u8>, Error> {
        let (mut reader, size) = self.open(into, name)?;
        let too_large = |size| Error::Malformed {
            part: name.to_owned(),
            reason: format!("{size} bytes, and a document has at most {DOCUMENT_BYTES_MAX}"),
        };
        if size > DOCUMENT_BYTES_MAX {
            return Err(too_large(size));
        }
        let mut bytes = Vec::new();
        let read = (&mut reader).take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|source| Error::Read { path: name.into(), source })?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(too_large(bytes.len() as u64));
        }
        Ok(bytes)
    }

    /// The first bytes of a file, as many as there are up to four.
    pub(super) fn magic(&self, into: Into<'_>, name: &str) -> Result<Vec<u8>, Error> {
        let (reader, _) = self.open(into, name)?;
        let mut bytes = Vec::new();
        let read = reader.take(4).read_to_end(&mut bytes);
        read.map_err(|source| Error::Read { path: name.into(), source })?;
        Ok(bytes)
    }

    /// Puts a file into the store under the digest that it turns out to have.
    pub(super) fn ingest(&self, into: Into<'_>, name: &str) -> Result<Blob, Error> {
        if let Some(Entry::Stored(blob)) = self.entry(name)? {
            return Ok(blob);
        }
        let (mut reader, size) = self.open(into, name)?;
        let blob = into.ingest(name, Some(size), &mut reader)?;
        if blob.size != size {
            return Err(Error::Missing(name.to_owned()));
        }
        Ok(blob)
    }

    /// Puts a file into the store, which must be what the descriptor says. What is there is not read.
    pub(super) fn ingest_as(
        &self,
        into: Into<'_>,
        name: &str,
        expected: &Descriptor,
    ) -> Result<(), Error> {
        into.lease.hold([expected.digest])?;
        if let Some(Entry::Stored(blob)) = self.entry(name)? {
            return verify(&blob, expected).map_err(Error::from);
        }
        let present = || Event::Present { part: name.to_owned() };
        let Some(mut writer) = into.store.writer_of(expected)? else {
            (into.options.progress)(present());
            return Ok(());
        };
        // The beginning that is there may be from elsewhere: this costs less than to look for it here.
        writer.restart()?;
        let (reader, _) = self.open(into, name)?;
        writer.copy(&mut Told::new(reader, name, Some(expected.size), into))?;
        writer.commit()?;
        (into.options.progress)(Event::Finished { part: name.to_owned() });
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<Option<Entry>, Error> {
        let (Self::File { entries, .. } | Self::Stored(entries)) = self else {
            return Ok(None);
        };
        let mut name = name;
        for _ in 0..LINKS_MAX {
            match entries.get(name) {
                Some(Entry::Link(to)) => name = to,
                found => return Ok(found.cloned()),
            }
        }
        let reason = format!("more than {LINKS_MAX} links lead from one to the next");
        Err(Error::Malformed { part: name.to_owned(), reason })
    }

    fn open<'a>(
        &'a self,
        into: Into<'_>,
        name: &str,
    ) -> Result<(Box<dyn Read + Send + 'a>, u64), Error> {
        let missing = || Error::Missing(name.to_owned());
        if let Self::Folder(folder) = self {
            return open_in(folder, name);
        }
        match (self, self.entry(name)?.ok_or_else(missing)?) {
            (Self::File { file, .. }, Entry::At { offset, size }) => {
                Ok((Box::new(Section { file, offset, end: offset + size }), size))
            }
            (_, Entry::Stored(blob)) => Ok((Box::new(into.store.blob(&blob.digest)?), blob.size)),
            _ => Err(missing()),
        }
    }
}

/// Opens a file of a folder that somebody else made: no links, no way out.
fn open_in(folder: &Path, name: &str) -> Result<(Box<dyn Read + Send + 'static>, u64), Error> {
    let path = folder.join(name);
    let read = |source| Error::Read { path: path.clone(), source };
    let normal = Path::new(name).components().all(|it| matches!(it, Component::Normal(_)));
    let found = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Missing(name.to_owned()));
        }
        found => found.map_err(read)?,
    };
    if !normal || !found.is_file() {
        return Err(Error::Missing(name.to_owned()));
    }
    let file = fs::File::open(&path).map_err(read)?;
    Ok((Box::new(file), found.len()))
}

impl Into<'_> {
    /// Puts content into the store; what it is, is known at its end.
    pub(super) fn ingest(
        self,
        name: &str,
        size: Option<u64>,
        reader: &mut dyn Read,
    ) -> Result<Blob, Error> {
        let mut writer = self.store.writer()?;
        writer.copy(&mut Told::new(reader, name, size, self))?;
        self.lease.hold([writer.digest()])?;
        let blob = writer.commit()?;
        (self.options.progress)(Event::Finished { part: name.to_owned() });
        Ok(blob)
    }
}

/// Fails if a blob is not what a descriptor says.
fn verify(blob: &Blob, expected: &Descriptor) -> Result<(), store::Error> {
    if blob.digest != expected.digest {
        return Err(store::Error::Digest { expected: expected.digest, found: blob.digest });
    }
    if blob.size != expected.size {
        let (digest, expected) = (expected.digest, expected.size);
        return Err(store::Error::Size { digest, expected, found: blob.size });
    }
    Ok(())
}

/// What of an archive of images an entry can be.
enum Place {
    /// So many bytes.
    File(u64),
    /// Another name of this one.
    Link(String),
}

/// The name of an entry that matters, and what it is; nothing for folders and what has no place in an
/// archive of images.
fn place(entry: &tarball::Entry) -> Result<Option<(String, Place)>, Error> {
    let Some(name) = normal(Path::new(OsStr::from_bytes(&entry.name))) else {
        return Ok(None);
    };
    let (folder, target) = match &entry.kind {
        Kind::File { size, pieces: None } => return Ok(Some((name, Place::File(*size)))),
        Kind::File { pieces: Some(_), .. } => {
            let reason = "a sparse file, which no program writes there: pack the archive again without \
                          `--sparse`";
            return Err(Error::Malformed { part: name, reason: reason.to_owned() });
        }
        Kind::SymbolicLink(target) => (Path::new(&name).parent(), target),
        Kind::HardLink(target) => (None, target),
        Kind::Folder | Kind::Character(..) | Kind::Block(..) | Kind::Pipe => return Ok(None),
    };
    let target = folder.unwrap_or(Path::new("")).join(OsStr::from_bytes(target));
    Ok(normal(&target).map(|it| (name, Place::Link(it))))
}

fn unreadable(path: &Path, error: tarball::Error) -> Error {
    let source = match error {
        tarball::Error::Read(source) => source,
        tarball::Error::Short => io::Error::new(io::ErrorKind::UnexpectedEof, error),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    };
    Error::Read { path: path.to_owned(), source }
}

/// A path without `.` and `..`; nothing if it leads outside or is not text.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => parts.pop().map(drop)?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn insert(
    entries: &mut BTreeMap<String, Entry>,
    name: String,
    entry: Entry,
    path: &Path,
) -> Result<(), Error> {
    if entries.len() >= ENTRIES_MAX {
        let reason = format!("more than {ENTRIES_MAX} files");
        return Err(Error::Malformed { part: path.display().to_string(), reason });
    }
    entries.insert(name, entry);
    Ok(())
}

/// A part of a file.
struct Section<'a> {
    file: &'a fs::File,
    offset: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let room = rest.min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..room).unwrap_or_default(), self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Tells how much of a reader was read.
struct Told<'a, R> {
    inner: R,
    name: &'a str,
    total: Option<u64>,
    done: u64,
    into: Into<'a>,
}

impl<'a, R> Told<'a, R> {
    const fn new(inner: R, name: &'a str, total: Option<u64>, into: Into<'a>) -> Self {
        Self { inner, name, total, done: 0, into }
    }
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.done += count as u64;
        let (part, done, total) = (self.name.to_owned(), self.done, self.total);
        (self.into.options.progress)(Event::Advanced { part, done, total });
        Ok(count)
    }
}
