//! The only door to files, so that a test can stand in it: [`Disk`], the real [`Folders`], and for
//! tests a `simulated` one that fails on request and shows what a power cut may leave.
//!
//! Knows paths and bytes; what is in the files belongs to `log` and `journal`.

mod folders;
#[cfg(test)]
pub(crate) mod rot;
#[cfg(test)]
pub(crate) mod simulated;

use std::{fmt, io, path::Path};

pub use folders::Folders;

/// Folders and files.
///
/// The promises are POSIX's and no more: what was written is durable after [`DiskFile::sync`];
/// names made, changed or removed are durable after [`Disk::sync_folder`] of the folder they are
/// in, and may become so earlier, in any order.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a folder (mode 0700) and those above it, if they are not there. What it made of them
    /// is durable when this returns.
    ///
    /// # Errors
    /// The disk is full or has failed, or a file is in the way.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// The names in a folder, of files and of folders, sorted; those that are not UTF-8 are none
    /// of ours and left out.
    ///
    /// # Errors
    /// The folder is not there (`NotFound`) or cannot be read.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Opens a file.
    ///
    /// # Errors
    /// It is not there (`NotFound`), or cannot be opened or made.
    fn open(&self, file: &Path, mode: Mode) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name in the same folder, replacing a file of that name.
    ///
    /// # Errors
    /// The folder cannot be changed.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; a file that is not there is no error.
    ///
    /// # Errors
    /// The folder cannot be changed.
    fn remove(&self, file: &Path) -> io::Result<()>;
    /// Removes a folder and the files in it; a folder that is not there is no error. It is durable
    /// after [`Disk::sync_folder`] of the folder above, and may be done in part before.
    ///
    /// # Errors
    /// There is a folder in it, or it cannot be changed.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// The disk has failed.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Holds a file, which is made if it is not there, against other processes for as long as the
    /// value lives. None if another process holds it.
    ///
    /// # Errors
    /// It cannot be made, opened or locked.
    fn lock(&self, file: &Path) -> io::Result<Option<Box<dyn Held>>>;
    /// How many more bytes fit below a folder.
    ///
    /// # Errors
    /// The file system does not say.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
    /// A number that is another one after the machine has been started anew, and 0 if that cannot
    /// be known: as long as it is the same, nothing that was written can have been lost, flushed
    /// or not.
    fn boot(&self) -> u64;

    /// The whole of a file.
    ///
    /// # Errors
    /// It is not there (`NotFound`) or cannot be read.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(file, Mode::Read)?;
        let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is there, and only read.
    Read,
    /// It is there, and its content stays.
    Write,
    /// It is made (mode 0600), or emptied; to be written and read.
    Create,
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// How many bytes it has.
    ///
    /// # Errors
    /// The disk has failed.
    fn size(&self) -> io::Result<u64>;
    /// Reads from `offset` on until `bytes` is full or the file ends, and says how many it read.
    ///
    /// # Errors
    /// The disk has failed.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// Some of it may have been written. `StorageFull` or `QuotaExceeded` ([`is_full`]): there was
    /// no room for the rest, and the file is as good as before if it is cut again.
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

/// A locked file; let go when dropped.
pub trait Held: fmt::Debug + Send + Sync {}

/// Whether a write failed because there was no room, so that it may succeed later.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
