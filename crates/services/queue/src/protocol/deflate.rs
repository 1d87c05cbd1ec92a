//! Deflate without header (RFC 1951), flushed after each write.
//!
//! Does no IO: what arrived goes in, what it says comes out, little by little, so that little
//! input never becomes much memory at once.

use bytes::{Buf as _, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::snappy::Damaged;

/// How much is read or written at once.
const PIECE: usize = 16 * 1024;

/// What a piece can become: blocks that do not compress are stored, with a few bytes each.
const ROOM: usize = PIECE + PIECE / 8 + 256;

/// Reads what a client compressed.
#[derive(Debug)]
pub(super) struct Reader(Decompress);

impl Reader {
    /// One for a new stream.
    #[must_use]
    pub(super) fn new() -> Self {
        Self(Decompress::new(false))
    }

    /// Moves a piece of what is said from `wire` to `plain`; `false` if there is none.
    ///
    /// # Errors
    /// If it is no such stream, or one that has ended.
    pub(super) fn read(
        &mut self,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
    ) -> Result<bool, Damaged> {
        let before = plain.len();
        plain.resize(before + PIECE, 0);
        let (was_in, was_out) = (self.0.total_in(), self.0.total_out());
        let into = plain.get_mut(before..).unwrap_or_default();
        let status = self.0.decompress(wire, into, FlushDecompress::None);
        let taken = between(was_in, self.0.total_in());
        let given = between(was_out, self.0.total_out());
        wire.advance(taken.min(wire.len()));
        plain.truncate(before + given);
        match status {
            Ok(Status::Ok | Status::BufError) => Ok(0 < given || 0 < taken),
            Ok(Status::StreamEnd) if 0 < given => Ok(true),
            Ok(Status::StreamEnd) | Err(_) => Err(Damaged),
        }
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

/// Compresses what a client reads.
#[derive(Debug)]
pub(super) struct Writer(Compress);

impl Writer {
    /// One for a new stream, of level 0 to 9.
    #[must_use]
    pub(super) fn new(level: u8) -> Self {
        Self(Compress::new(Compression::new(u32::from(level.min(9))), false))
    }

    /// Appends to `wire` all that a reader needs to read `plain`.
    ///
    /// # Errors
    /// If it cannot be compressed, which no input is known to cause.
    pub(super) fn write(&mut self, plain: &[u8], wire: &mut BytesMut) -> Result<(), Damaged> {
        // With room for the worst case a call never has to be continued, which the library gets
        // wrong: it may then say that it is done and hold back the end.
        for piece in plain.chunks(PIECE) {
            let before = wire.len();
            wire.resize(before + ROOM, 0);
            let (was_in, was_out) = (self.0.total_in(), self.0.total_out());
            let into = wire.get_mut(before..).unwrap_or_default();
            let status = self.0.compress(piece, into, FlushCompress::Sync);
            let taken = between(was_in, self.0.total_in());
            let given = between(was_out, self.0.total_out());
            wire.truncate(before + given);
            if !matches!(status, Ok(Status::Ok)) || taken < piece.len() || ROOM <= given {
                return Err(Damaged);
            }
        }
        Ok(())
    }
}

fn between(before: u64, after: u64) -> usize {
    usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_ended_stream_is_damaged() {
        let mut wire = BytesMut::from(&b"\x03\x00"[..]);
        assert_eq!(Reader::new().read(&mut wire, &mut BytesMut::new()), Err(Damaged));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_at_once(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40_000), 1..4),
            cut in 1..1000usize,
            level in 1..=9u8,
        ) {
            let (mut writer, mut reader) = (Writer::new(level), Reader::new());
            for part in parts {
                let mut wire = BytesMut::new();
                writer.write(&part, &mut wire).unwrap();
                let (mut arrived, mut plain) = (BytesMut::new(), BytesMut::new());
                for piece in wire.chunks(cut) {
                    arrived.extend_from_slice(piece);
                    while reader.read(&mut arrived, &mut plain).unwrap() {}
                }
                prop_assert!(plain == part);
            }
        }

        #[test]
        fn anything_may_come(stream: Vec<u8>) {
            let (mut wire, mut plain) = (BytesMut::from(&stream[..]), BytesMut::new());
            let mut reader = Reader::new();
            while let Ok(true) = reader.read(&mut wire, &mut plain) {}
        }
    }
}
