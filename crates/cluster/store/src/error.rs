//! What can go wrong, one enum per operation, a variant per thing a caller can do about it.

use std::{io, path::PathBuf, sync::Arc};

use crate::{Entry, Revision};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error("the folder `{}` is in use by another process", dir.display())]
    Locked {
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
    /// Bytes that were once durable are not what was written. Nothing has been changed.
    #[error("`{}` is corrupt at byte {offset}: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes from its beginning.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// A file that must be there is not. Nothing has been changed.
    #[error("`{}` is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer program. Nothing has been changed.
    #[error(
        "`{}` has format version {version}, and this program reads up to {supported}",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest one known here.
        supported: u32,
    },
}

/// Why a write did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The key is not as expected. Judged also against writes that are not yet acknowledged.
    #[error("the entry is not as expected")]
    Conflict {
        /// How it is.
        current: Option<Entry>,
    },
    /// Key or value is over its limit.
    #[error("{what} of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// `key` or `value`.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Too much is waiting for the disk. Try again later.
    #[error("too many writes are waiting for the disk")]
    Busy,
    /// The disk is full. Nothing was written; writes work again once there is room.
    #[error("no space left for the log")]
    NoSpace(#[source] Arc<io::Error>),
    /// Writing or flushing failed, now or earlier, so that nobody knows what is on the disk. The
    /// store refuses all writes until it is opened anew; this one may or may not be found then.
    #[error("the log has failed, and the store takes no more writes")]
    Failed(#[source] Arc<io::Error>),
}

/// Why a watch cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The history does not go back so far.
    #[error("the history begins after revision {oldest}")]
    Compacted {
        /// The least revision after which a watch can begin.
        oldest: Revision,
    },
    /// The revision has not happened.
    #[error("the newest revision is {newest}")]
    Future {
        /// The newest one.
        newest: Revision,
    },
}

/// The watcher was slower than the writers for so long that its next event has left the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watch has fallen behind: the history begins after revision {oldest}")]
pub struct Lagged {
    /// The least revision after which a watch can begin now.
    pub oldest: Revision,
}

impl WriteError {
    /// The commit has ended without an answer, which only a panic in it can cause.
    pub(crate) fn abandoned() -> Self {
        Self::Failed(Arc::new(io::Error::other("the commit was abandoned")))
    }
}
