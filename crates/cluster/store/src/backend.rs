//! The only door to the disk, so that a test can stand in it: [`Backend`] and the real [`Folder`].
//!
//! Knows names and bytes; what is in the files belongs to `format`.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// One flat folder of files, held exclusively.
///
/// The promises are POSIX's and no more: what was written is durable after [`BackendFile::sync`];
/// names made, changed or removed are durable after [`Backend::sync_folder`], and may become so
/// earlier, in any order.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The names in the folder, in any order.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn names(&self) -> io::Result<Vec<String>>;
    /// The whole of a file.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Opens a file for writing; `Create` makes it, or empties it if it is there.
    ///
    /// # Errors
    /// It cannot be opened or made.
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn BackendFile>>;
    /// Gives a file another name, replacing a file of that name.
    ///
    /// # Errors
    /// The folder cannot be changed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The folder cannot be changed.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names durable.
    ///
    /// # Errors
    /// The disk has failed.
    fn sync_folder(&self) -> io::Result<()>;
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is there, and its content stays.
    Existing,
    /// It is made, or emptied.
    Create,
}

/// A file open for writing.
pub trait BackendFile: fmt::Debug + Send {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// Some of it may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros that need not take space.
    ///
    /// # Errors
    /// The file is as before.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable (`fdatasync`).
    ///
    /// # Errors
    /// Nothing is known of what was written since the last call; trying again proves nothing
    /// (<https://lwn.net/Articles/752063/>).
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the machine, locked with `flock` for as long as this value lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    handle: File,
}

impl Folder {
    /// Makes the folder (mode 0700, with its parents) if it is not there, and locks it. None if
    /// another process holds it.
    ///
    /// # Errors
    /// It cannot be made, opened or locked.
    pub fn lock(path: &Path) -> io::Result<Option<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let handle = File::open(path)?;
        match handle.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), handle })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Backend for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in self.path.read_dir()? {
            // A name that is not UTF-8 is none of ours.
            names.extend(file?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.path.join(name))
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn BackendFile>> {
        let create = mode == Mode::Create;
        let file = OpenOptions::new()
            .write(true)
            .create(create)
            .truncate(create)
            .mode(0o600)
            .open(self.path.join(name))?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

impl BackendFile for File {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// No disk at all: everything succeeds and nothing is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nowhere;

impl Backend for Nowhere {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn open(&self, _: &str, _: Mode) -> io::Result<Box<dyn BackendFile>> {
        Ok(Box::new(*self))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }
}

impl BackendFile for Nowhere {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
