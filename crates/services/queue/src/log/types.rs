//! The words of the log: what it is told, what it answers, and what can go wrong.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::oneshot;

use super::run::Run;
use crate::{Durability, message::Sequence};

/// How a log keeps its messages.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// What a batch has survived when its publisher is told so.
    pub durability: Durability,
    /// How long messages stay that everybody has finished.
    pub retention: Retention,
}

/// How long messages stay that everybody has finished. They go in whole segments, oldest first, and
/// as soon as either limit is exceeded; with neither they stay for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// No longer than this after they were published.
    pub age: Option<Duration>,
    /// Not more than so many bytes of files, with those that are not finished.
    pub bytes: Option<u64>,
}

/// What opening a log has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes cut at the end: of a batch that was interrupted before it was acknowledged.
    pub cut_bytes: u64,
    /// Messages that should be there and are not. Damage within finished segments shows only when
    /// they are read.
    pub damage: Vec<Damage>,
}

/// Messages that should be there and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The first of them.
    pub from: Sequence,
    /// The next one that can be read.
    pub until: Sequence,
    /// Why.
    pub why: Why,
}

/// Why messages cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// They were finished, and retention has deleted them. No damage at all.
    Retired,
    /// What is on the disk is not what was written.
    Corrupt,
    /// A file is not there.
    Missing,
    /// The process or the machine died when they had been acknowledged but not flushed, which only
    /// `Durability::Memory` and `Durability::Process` allow. The numbers may have been in use or
    /// not; they do not return.
    Unflushed,
}

impl Damage {
    /// Whether these were messages, acknowledged and not to be deleted yet.
    #[must_use]
    pub const fn is_loss(&self) -> bool {
        matches!(self.why, Why::Corrupt | Why::Missing)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::Retired => "were deleted when all had finished them",
            Why::Corrupt => "are damaged",
            Why::Missing => "are in a file that is not there",
            Why::Unflushed => "were not flushed, as far as there were any",
        };
        write!(f, "messages {} to {} {why}", self.from, self.until.0.saturating_sub(1))
    }
}

/// How much to read at once: until either is used up, but at least one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// So many messages.
    pub messages: usize,
    /// So many bytes of the log, which is read in whole pieces: the last of them may go beyond.
    pub bytes: usize,
}

impl ReadLimit {
    /// Whether there is nothing left of it.
    #[must_use]
    pub const fn is_used_up(&self) -> bool {
        self.messages == 0 || self.bytes == 0
    }
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// At least one message, without a gap, beginning with the one asked for.
    Messages(Vec<Run>),
    /// The one asked for cannot be read, nor any before `until`: go on there.
    Skipped(Damage),
    /// There is nothing there yet.
    End,
}

/// A batch that was appended and may still be lost.
#[derive(Debug)]
#[must_use = "it is not durable yet"]
pub struct Appended {
    /// The messages' places. They are no more than a plan until the batch is committed: a batch
    /// that is refused leaves its numbers to the next.
    pub range: Range<Sequence>,
    pub(super) outcome: Option<oneshot::Receiver<Result<(), AppendError>>>,
}

impl Appended {
    /// Waits until the batch is as durable as the log was told to make it.
    ///
    /// # Errors
    /// It was refused as a whole: `NoSpace`, `Failed`, or `Closed`.
    pub async fn committed(self) -> Result<(), AppendError> {
        match self.outcome {
            Some(outcome) => outcome.await.unwrap_or(Err(AppendError::Closed)),
            None => Ok(()),
        }
    }
}

/// Why a batch was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Too much waits for the disk: wait for `Log::room`.
    #[error("too much is waiting for the disk")]
    Full,
    /// The disk is full; nothing was lost, and it works again when there is room.
    #[error(
        "no room on the disk of {}: free some, or let finished messages go sooner \
         (-retention-size, -retention-age); then it goes on by itself",
        dir.display()
    )]
    NoSpace {
        /// The folder.
        dir: Arc<Path>,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// The disk has failed. No batch is taken until the log is opened anew.
    #[error("the disk has failed at {}: look after it, then start nsqd again", dir.display())]
    Failed {
        /// The folder.
        dir: Arc<Path>,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// The batch is larger than can be written at once.
    #[error("a batch of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A key is longer than 65 535 bytes.
    #[error("a key is longer than 65535 bytes")]
    KeyTooLong,
    /// The log is closed or deleted.
    #[error("the log is closed")]
    Closed,
}

impl AppendError {
    /// What the disk said, with where and what to do about it.
    pub(super) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::NoSpace { source, .. } | Self::Failed { source, .. } => source.kind(),
            Self::Full | Self::TooLarge { .. } | Self::KeyTooLong | Self::Closed => {
                io::ErrorKind::Other
            }
        };
        io::Error::new(kind, self)
    }
}

/// Why messages could not be read. That they are damaged is no error but [`Read::Skipped`].
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk has failed.
    #[error("cannot read the segment {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// Why a log could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk has failed, or is full.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A newer program wrote it.
    #[error("{} has format {version}, this program knows up to {supported}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
        /// The newest that can be read.
        supported: u32,
    },
    /// Nothing in it makes sense.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
}
