//! Sizes of the log, each with its reason. What is durable format is in `format`.

/// A segment ends before it grows beyond this. Small enough that reading the last one at a start
/// takes a tenth of a second and that retention is not coarse; large enough that beginning a new
/// one, which costs a few flushes, happens at most once a second.
pub(super) const SEGMENT_BYTES: u64 = 64 << 20;

/// A segment this large ends early when retention would delete it: below, it is not worth the
/// flushes.
pub(super) const SEGMENT_RETIRED_BYTES: u64 = 1 << 20;

/// The largest batch. Far above any limit on requests, far below what a length can say.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 30;

/// Messages are kept in memory in pieces of up to so many bytes (a larger batch is one piece).
/// Whoever keeps one body keeps its piece, so a piece must not be much larger than a body.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// The first pieces of a topic are as small as this, so that 1 000 quiet topics take 4 MiB.
pub(super) const CHUNK_BYTES_MIN: usize = 4 << 10;

/// One entry of the index per so many bytes: what is read in vain to find one message.
pub(super) const INDEX_BYTES: u64 = 64 << 10;

/// What is read at once. A system call and a checksum of this size take tens of microseconds.
pub(super) const READ_BYTES: usize = 128 << 10;

/// How many such pieces are read one after the other for somebody who reads on and on.
pub(super) const READ_AHEAD_MAX: usize = 8;

/// What is read at once where everything is read.
pub(super) const SCAN_BYTES: usize = 1 << 20;

/// Pieces smaller than this are gathered in a buffer before they are written.
pub(super) const WRITE_DIRECT_BYTES: usize = 32 << 10;

/// The size of that buffer.
pub(super) const WRITE_BYTES: usize = 256 << 10;

/// How many finished segments of a topic stay open, with their indexes, for reading.
pub(super) const OPENED_MAX: usize = 8;

/// How many places are remembered where readers left off.
pub(super) const HINTS_MAX: usize = 32;

/// In memory mode, messages are written when there are so many bytes of them, or this much of
/// what may wait for the disk.
pub(super) const SPILL_BYTES: usize = 1 << 20;

/// A disk with less room than this counts as full: what consumers say must still be noted.
pub(super) const KEEP_FREE_BYTES: u64 = 32 << 20;

/// Numbers that are passed over, at least, when acknowledged messages may have been lost with the
/// machine or the process: theirs must not return. More than can be acknowledged between two
/// flushes, which the size of a segment bounds.
pub(super) const LOST_MAX: u64 = 1 << 20;

/// The sizes that tests make smaller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) segment_bytes: u64,
    pub(super) segment_retired_bytes: u64,
    pub(super) index_bytes: u64,
    pub(super) read_bytes: usize,
    pub(super) keep_free_bytes: u64,
}

impl Sizes {
    pub(super) const STANDARD: Self = Self {
        segment_bytes: SEGMENT_BYTES,
        segment_retired_bytes: SEGMENT_RETIRED_BYTES,
        index_bytes: INDEX_BYTES,
        read_bytes: READ_BYTES,
        keep_free_bytes: KEEP_FREE_BYTES,
    };
}
