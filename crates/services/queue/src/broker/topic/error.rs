//! Why a topic does not do what it is asked to.

use crate::{log::AppendError, name::Name};

/// Why messages were not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The topic is being deleted, or the process ends.
    #[error("exiting")]
    Exiting,
    /// Too much waits for the disk. Wait for [`super::Topic::room`].
    #[error("too much is waiting for the disk")]
    Full,
    /// The disk is full or has failed, or the batch is too large.
    #[error(transparent)]
    Refused(AppendError),
}

impl From<AppendError> for PublishError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Closed => Self::Exiting,
            AppendError::Full => Self::Full,
            AppendError::NoSpace { .. }
            | AppendError::Failed { .. }
            | AppendError::TooLarge { .. }
            | AppendError::KeyTooLong => Self::Refused(error),
        }
    }
}

/// Why a channel cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The topic is being deleted, or the process ends.
    #[error("exiting")]
    Exiting,
    /// The nsqd has as many as it may have.
    #[error("this nsqd has {limit} channels, and may have no more")]
    TooMany {
        /// How many it may have.
        limit: usize,
    },
    /// There is one of that name, with other options.
    #[error("channel {0} exists with other options")]
    Other(Name),
}

/// There is none of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} does not exist")]
pub struct NotFound(pub Name);

/// Why a topic cannot be emptied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "channel {0} is behind all that the topic was emptied of before: consume it or empty it first"
)]
pub struct TooOften(pub Name);
