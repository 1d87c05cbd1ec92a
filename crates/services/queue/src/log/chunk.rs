//! Some frames in memory, one behind the other: how recent messages are kept, and how messages are
//! read from files.

use bytes::Bytes;

use super::{format::Cursor, types::ReadLimit};
use crate::message::{Message, Nanos, Sequence};

/// Whole frames without a gap. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) first: Sequence,
    pub(super) end: Sequence,
    /// The latest time of a frame in it.
    pub(super) time: Nanos,
    pub(super) bytes: Bytes,
}

/// Where a reader left off within a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bookmark {
    /// The first of the chunk.
    pub(super) chunk: Sequence,
    cursor: Cursor,
    /// Where the frame ends that the cursor is in.
    frame_end: usize,
}

impl Bookmark {
    /// The next message.
    pub(super) const fn sequence(&self) -> Sequence {
        self.cursor.sequence
    }
}

impl Chunk {
    /// Reads messages from `from` on, until there are no more or the limit, which is lowered, is
    /// used up. Says where it stopped if that is within the chunk.
    pub(super) fn read(
        &self,
        from: Sequence,
        bookmark: Option<Bookmark>,
        limit: &mut ReadLimit,
        out: &mut Vec<Message>,
    ) -> Option<Bookmark> {
        let start = bookmark.filter(|it| it.chunk == self.first && it.sequence() == from);
        let (mut cursor, mut frame_end) = match start {
            Some(it) => (it.cursor, it.frame_end),
            None => self.enter(from)?,
        };
        loop {
            while cursor.left > 0 {
                if limit.is_used_up() {
                    return Some(Bookmark { chunk: self.first, cursor, frame_end });
                }
                let message = cursor.next(&self.bytes)?;
                limit.use_up(&message);
                out.push(message);
            }
            (cursor, frame_end) = Cursor::enter(&self.bytes, frame_end)?;
        }
    }

    /// The first sequence of a frame that is not older than a time.
    pub(super) fn since(&self, time: Nanos) -> Option<Sequence> {
        let (mut cursor, mut frame_end) = Cursor::enter(&self.bytes, 0)?;
        while cursor.time < time {
            (cursor, frame_end) = Cursor::enter(&self.bytes, frame_end)?;
        }
        Some(cursor.sequence)
    }

    fn enter(&self, from: Sequence) -> Option<(Cursor, usize)> {
        let (mut cursor, mut frame_end) = Cursor::enter(&self.bytes, 0)?;
        while cursor.sequence.after(u64::from(cursor.left)) <= from {
            (cursor, frame_end) = Cursor::enter(&self.bytes, frame_end)?;
        }
        cursor.skip_to(&self.bytes, from);
        Some((cursor, frame_end))
    }
}
