//! Some frames in memory, one behind the other: how recent messages are kept, and how messages are
//! read from files.

use bytes::{Bytes, BytesMut};

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

/// Chunks smaller than this are joined for their readers: to pass one on costs as much as to copy so
/// much. In memory mode each message that is published alone is a chunk.
const SMALL_BYTES: usize = 2 << 10;

impl Chunk {
    /// Whether a message is in it.
    pub(super) fn has(&self, sequence: Sequence) -> bool {
        self.first <= sequence && sequence < self.end
    }

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

/// The same messages in fewer chunks. Neither have a gap.
pub(super) fn joined(chunks: &[Chunk]) -> Vec<Chunk> {
    let small = |it: &Chunk| it.bytes.len() < SMALL_BYTES;
    let groups = chunks.chunk_by(|one, next| small(one) && small(next));
    let join = |group: &[Chunk]| {
        let (first, last) = (group.first()?, group.last()?);
        if group.len() == 1 {
            return Some(first.clone());
        }
        let length = group.iter().map(|it| it.bytes.len()).sum();
        let mut bytes = BytesMut::with_capacity(length);
        group.iter().for_each(|it| bytes.extend_from_slice(&it.bytes));
        let time = group.iter().map(|it| it.time).fold(first.time, Nanos::max);
        Some(Chunk { first: first.first, end: last.end, time, bytes: bytes.freeze() })
    };
    groups.filter_map(join).collect()
}
