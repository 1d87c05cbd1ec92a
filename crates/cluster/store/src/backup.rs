//! Everything a store holds at one moment: for a file that is kept, or for another store.
//!
//! The file is a snapshot as docs/decisions/0002-store.md describes it, numbered 1, at rest: no log
//! belongs to it. [`Backup::install`] makes a folder of it that [`Store::open`] takes.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    Config, Durability, Entry, OpenError, Revision, Store,
    backend::{Backend, Folder, Mode, Nowhere},
    commit::Shared,
    format::{self, FileName, HEADER_BYTES, Header, HeaderError},
    history::History,
    index::Index,
    limits::Limits,
    log::{self, Log},
    recover::Recovered,
    snapshot::{self, Encoder, Malformed},
};

/// The name that a backup has in a folder.
const NAME: FileName = FileName::snapshot(1);

/// Behind the name of a folder that is being made.
const UNFINISHED: &str = ".restoring";

/// All entries as of one revision.
#[derive(Clone, Debug)]
pub struct Backup {
    entries: Vec<Entry>,
    revision: Revision,
}

/// Why bytes are no backup.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// They are not, or no longer, what was written.
    #[error("the snapshot is corrupt at byte {offset}: {reason}")]
    Corrupt {
        /// Where, in bytes from the beginning.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// Written by a newer program.
    #[error("the snapshot has format version {version}, and this program reads up to {supported}")]
    Newer {
        /// Its version.
        version: u32,
        /// The newest one known here.
        supported: u32,
    },
}

/// Why a backup did not become a folder.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is something already.
    #[error("`{}` is there already", dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// The machine refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
}

impl Store {
    /// Everything as of now. Values are shared with the store, not copied; writes wait meanwhile,
    /// about a millisecond for 10 000 entries.
    #[must_use]
    pub fn backup(&self) -> Backup {
        let state = self.shared().lock();
        let entries = state.index.piece(None, usize::MAX);
        Backup { entries, revision: state.revision }
    }

    /// A store that keeps nothing on the disk: for tests, and for whoever wants a fresh one in an
    /// instant. What it promises about order and watching holds; what it promises about crashes does not.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn in_memory() -> Result<Self, OpenError> {
        let empty = Backup { entries: Vec::new(), revision: Revision::ZERO };
        empty.into_memory()
    }
}

impl Backup {
    /// The last write that is in it.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// How many entries it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The same entries in a store that goes on after `revision` at the earliest. So whoever has
    /// seen later revisions of the store that this one replaces never sees them come back with
    /// another meaning.
    #[must_use]
    pub fn no_earlier_than(self, revision: Revision) -> Self {
        Self { revision: self.revision.max(revision), ..self }
    }

    /// The bytes of the file, in pieces of about 256 KiB and at most one entry more.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        // Copies reference counts, so that the pieces may outlive the backup.
        let entries = self.entries.clone().into_iter();
        let encoder = Encoder::new(NAME, self.revision);
        Pieces { entries, encoder, revision: self.revision, over: false }
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// They are not what was written, from the first to the last byte.
    pub fn read(bytes: &[u8]) -> Result<Self, BackupError> {
        let header = Header::decode(NAME, bytes).map_err(|error| match error {
            HeaderError::Corrupt(reason) => BackupError::Corrupt { offset: 0, reason },
            HeaderError::Newer(version) => {
                BackupError::Newer { version, supported: format::VERSION }
            }
        })?;
        let mut entries = Vec::new();
        let read = snapshot::read(bytes, HEADER_BYTES, |entry| entries.push(entry));
        let Malformed { offset, reason } = match read {
            Ok(end) if end.copied != header.base => {
                Malformed { offset: end.offset, reason: "a log belongs to this snapshot" }
            }
            Ok(end) if end.offset != bytes.len() => {
                Malformed { offset: end.offset, reason: "there is more behind the end" }
            }
            Ok(_) => return Ok(Self { entries, revision: header.base }),
            Err(malformed) => malformed,
        };
        Err(BackupError::Corrupt { offset, reason })
    }

    /// Makes the folder `dir` for [`Store::open`]: it is there whole, and durable, or not at all.
    ///
    /// # Errors
    /// There is something at `dir`, or the machine refuses.
    pub fn install(&self, dir: &Path) -> Result<(), InstallError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| InstallError::Io { action, path, source }
        };
        match fs::symlink_metadata(dir) {
            Ok(_) => return Err(InstallError::Exists { dir: dir.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at", dir)(error)),
        }
        let mut name = dir.as_os_str().to_owned();
        name.push(UNFINISHED);
        let unfinished = PathBuf::from(name);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &unfinished)(error));
            }
            _ => {}
        }
        self.fill(&unfinished).map_err(failed("fill", &unfinished))?;
        fs::rename(&unfinished, dir).map_err(failed("create", dir))?;
        let parent = match dir.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        File::open(parent).and_then(|it| it.sync_all()).map_err(failed("flush", parent))
    }

    fn fill(&self, dir: &Path) -> io::Result<()> {
        let Some(folder) = Folder::lock(dir)? else {
            return Err(io::ErrorKind::ResourceBusy.into());
        };
        let file = folder.open(&NAME.text(), Mode::Create)?;
        let mut offset = 0;
        for piece in self.pieces() {
            file.write_at(offset, &piece)?;
            offset += piece.len() as u64;
        }
        file.sync()?;
        let reserve = Limits::default().reserve_bytes;
        log::create(&folder, FileName::log(1), self.revision, Durability::Disk, reserve)
            .map(drop)
            .map_err(log::AppendError::into_io)
    }

    /// A store of its own with the same entries, which keeps nothing on the disk: see
    /// [`Store::in_memory`]. It can be watched from this backup's revision on.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn into_memory(self) -> Result<Store, OpenError> {
        let config = Config::new(PathBuf::new());
        // A snapshot would be written to nowhere too.
        let limits = Limits { compact_bytes: u64::MAX, ..Limits::default() };
        let (revision, name) = (self.revision, FileName::log(1));
        let (backend, durability) = (Arc::new(Nowhere), Durability::Process);
        let active = log::create(&*backend, name, revision, durability, limits.reserve_bytes)
            .map_err(|error| OpenError::Io {
                action: "create",
                path: name.text().into(),
                source: error.into_io(),
            })?;
        let index = Index::of(self.entries);
        let log = Log::new(backend, durability, limits, active, revision);
        let history = History::new(revision, config.history_events_max, config.history_bytes_max);
        let recovered = Recovered { index, history, revision, log, sealed_bytes: 0 };
        Store::start(Shared::new(recovered, limits), &config)
    }
}

/// The file of a backup, piece by piece.
struct Pieces {
    entries: std::vec::IntoIter<Entry>,
    encoder: Encoder,
    revision: Revision,
    over: bool,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        while !self.encoder.is_full() {
            let Some(entry) = self.entries.next() else {
                self.encoder.end(self.revision);
                self.over = true;
                break;
            };
            self.encoder.add(&entry);
        }
        Some(self.encoder.take().into())
    }
}
