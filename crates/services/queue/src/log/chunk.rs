//! Some frames in memory, one behind the other: how recent messages are kept, and how messages are
//! read from files.

use bytes::Bytes;

use super::{format::Cursor, run::Run};
use crate::message::{Nanos, Sequence};

/// Whole frames without a gap. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) first: Sequence,
    pub(super) end: Sequence,
    /// The latest time of a frame in it.
    pub(super) time: Nanos,
    pub(super) bytes: Bytes,
}

impl Chunk {
    /// Its messages from one of them on.
    pub(super) fn run(&self, from: Sequence) -> Option<Run> {
        Run::new(self.bytes.clone(), from, self.end)
    }

    /// The first sequence of a frame that is not older than a time.
    pub(super) fn since(&self, time: Nanos) -> Option<Sequence> {
        let (mut cursor, mut frame_end) = Cursor::enter(&self.bytes, 0)?;
        while cursor.time < time {
            (cursor, frame_end) = Cursor::enter(&self.bytes, frame_end)?;
        }
        Some(cursor.sequence)
    }
}
