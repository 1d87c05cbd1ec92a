//! Blobs: how they are written, verified on the way, gone on with after an interruption, and read.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{Error, Store};
use crate::{
    Digest,
    digest::Hasher,
    spec::{DOCUMENT_BYTES_MAX, Descriptor},
};

/// How much is read at once where a file is read again.
const READ_BYTES: usize = 1 << 20;

/// Content that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// Writes a blob and makes its digest on the way. It is in the store after [`Writer::commit`].
///
/// If it was opened for a known digest, what was written stays when the writer is dropped or its
/// process killed, and the next writer of the same digest goes on there; else it is removed.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    file: fs::File,
    path: PathBuf,
    hasher: Hasher,
    written: u64,
    expected: Option<Blob>,
    committed: bool,
}

impl Store {
    /// Where a blob is when it is there.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    /// The length of a blob; nothing if it is not there.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io("look at", &path, source)),
        }
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    ///
    /// [`Error::NoBlob`], or what the system says.
    pub fn blob(&self, digest: &Digest) -> Result<fs::File, Error> {
        let path = self.blob_path(digest);
        match fs::File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoBlob(*digest)),
            Err(source) => Err(Error::io("open", &path, source)),
        }
    }

    /// Reads a document, and makes sure that it is what its digest says.
    ///
    /// # Errors
    ///
    /// [`Error::NoBlob`], [`Error::TooLarge`], [`Error::Digest`] if the disk changed it, or what the
    /// system says.
    pub fn document(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let file = self.blob(digest)?;
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        file.take(DOCUMENT_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::io("read", &path, source))?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(Error::TooLarge { digest: *digest, size: bytes.len() as u64 });
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::Digest { expected: *digest, found });
        }
        Ok(bytes)
    }

    /// Puts bytes that are in memory into the store.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn put(&self, bytes: &[u8]) -> Result<Blob, Error> {
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        if self.blob_size(&blob.digest)? == Some(blob.size) {
            return Ok(blob);
        }
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(|source| Error::io("write", &writer.path, source))?;
        writer.commit()
    }

    /// A writer of content whose digest is not known before.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn writer(&self) -> Result<Writer, Error> {
        let path = self.fresh_staging_path()?;
        let file = open_locked(&path).map_err(|source| Error::io("create", &path, source))?;
        Ok(Writer {
            store: self.clone(),
            file,
            path,
            hasher: Hasher::default(),
            written: 0,
            expected: None,
            committed: false,
        })
    }

    /// A writer of content with this digest and length, which goes on where the last one ended; nothing
    /// if the content is there. While another process writes the same, this waits for it: do not call it
    /// where waiting is not allowed.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn writer_of(&self, expected: &Descriptor) -> Result<Option<Writer>, Error> {
        let blob = Blob { digest: expected.digest, size: expected.size };
        let path = self.staging_folder().join(blob.digest.hex());
        loop {
            let file = open_locked(&path).map_err(|source| Error::io("open", &path, source))?;
            if self.blob_size(&blob.digest)? == Some(blob.size) {
                remove_if_same(&path, &file).map_err(|it| Error::io("remove", &path, it))?;
                return Ok(None);
            }
            // Whoever held it may have renamed or removed it while this one waited.
            if is_at(&path, &file).map_err(|source| Error::io("look at", &path, source))? {
                return Writer::resume(self, file, path, blob).map(Some);
            }
        }
    }

    /// A path in the staging folder that nobody uses.
    pub(crate) fn fresh_staging_path(&self) -> Result<PathBuf, Error> {
        let mut random = [0; 16];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random).map_err(
            |_| Error::io("draw", &self.staging_folder(), io::Error::other("no random numbers")),
        )?;
        // Shorter than a digest: never taken for one.
        let name = format!("new-{:032x}", u128::from_ne_bytes(random));
        Ok(self.staging_folder().join(name))
    }
}

impl Writer {
    fn resume(
        store: &Store,
        mut file: fs::File,
        path: PathBuf,
        expected: Blob,
    ) -> Result<Self, Error> {
        let mut hasher = Hasher::default();
        let mut written = 0;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count =
                file.read(&mut buffer).map_err(|source| Error::io("read", &path, source))?;
            let Some(read) = buffer.get(..count).filter(|it| !it.is_empty()) else {
                break;
            };
            hasher.update(read);
            written += count as u64;
        }
        let mut this = Self {
            store: store.clone(),
            file,
            path,
            hasher,
            written,
            expected: Some(expected),
            committed: false,
        };
        if this.written > expected.size {
            this.restart()?;
        }
        Ok(this)
    }

    /// The digest of what was written until now.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// A text that no other writer has: the name of its file.
    pub(crate) fn id(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// How many bytes are there: where to go on.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.written
    }

    /// Forgets what was written, for a source that cannot begin in the middle, or lied.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn restart(&mut self) -> Result<(), Error> {
        let truncate = || {
            self.file.set_len(0)?;
            io::Seek::rewind(&mut &self.file)
        };
        truncate().map_err(|source| Error::io("truncate", &self.path, source))?;
        self.hasher = Hasher::default();
        self.written = 0;
        Ok(())
    }

    /// As [`io::Write::write_all`], with an error that names the file.
    ///
    /// # Errors
    ///
    /// [`Error::Size`] if more comes than was said, or what the system says.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.check_room(bytes.len())?;
        let written = self.file.write_all(bytes);
        if let Err(source) = written {
            // How much of it was written is not known, so the file says no longer where to go on.
            self.restart()?;
            return Err(Error::io("write", &self.path, source));
        }
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Copies all that a reader gives: one thread reads and makes the digest, another writes.
    ///
    /// # Errors
    ///
    /// The reader's error as [`Error::Io`], or as [`Writer::append`].
    pub fn copy(&mut self, reader: &mut dyn io::Read) -> Result<u64, Error> {
        crate::copy::copy(reader, self)
    }

    /// Flushes the content, verifies it and puts it into the store.
    ///
    /// # Errors
    ///
    /// [`Error::Digest`] or [`Error::Size`] if it is not what was said, which is then forgotten; else
    /// what the system says.
    pub fn commit(mut self) -> Result<Blob, Error> {
        let found = Blob { digest: self.digest(), size: self.written };
        if let Some(expected) = self.expected {
            if found.size != expected.size {
                // Too little may become enough; the rest stays.
                let (digest, expected) = (expected.digest, expected.size);
                return Err(Error::Size { digest, expected, found: found.size });
            }
            if found.digest != expected.digest {
                self.expected = None;
                return Err(Error::Digest { expected: expected.digest, found: found.digest });
            }
        }
        self.file.sync_data().map_err(|source| Error::io("flush", &self.path, source))?;
        let path = self.store.blob_path(&found.digest);
        fs::rename(&self.path, &path).map_err(|source| Error::io("rename to", &path, source))?;
        self.committed = true;
        Ok(found)
    }

    /// What [`crate::copy`] needs: the file to write to, and a place to tell of what was written.
    pub(crate) const fn parts(&mut self) -> (&fs::File, &mut Hasher, &mut u64) {
        (&self.file, &mut self.hasher, &mut self.written)
    }

    /// Fails if `more` bytes are more than were said to come.
    pub(crate) fn check_room(&self, more: usize) -> Result<(), Error> {
        let Some(expected) = self.expected else {
            return Ok(());
        };
        let found = self.written + more as u64;
        if found > expected.size {
            let (digest, expected) = (expected.digest, expected.size);
            return Err(Error::Size { digest, expected, found });
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.committed || self.expected.is_some() {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "staging file stays");
        }
    }
}

/// Opens or creates a file for this process alone; waits while another has it.
fn open_locked(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.lock()?;
    Ok(file)
}

/// Whether a path still leads to this file.
pub(super) fn is_at(path: &Path, file: &fs::File) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.ino() == held.ino() && found.dev() == held.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_if_same(path: &Path, file: &fs::File) -> io::Result<()> {
    if is_at(path, file)? { fs::remove_file(path) } else { Ok(()) }
}
