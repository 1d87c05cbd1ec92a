//! The limits the store keeps to, with their reasons. Only tests use others than the defaults.

use std::time::Duration;

/// Sizes of files and queues, and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// A log file that has reached this is finished. Small enough that replaying the last ones
    /// does not show in the time to start.
    pub(crate) segment_bytes: u64,
    /// Zeros are written ahead in steps of this: flushing one costs about a millisecond, paid once
    /// in several hundred writes.
    pub(crate) reserve_bytes: u64,
    /// Finished log files are replaced by a snapshot when they hold as much as the live entries,
    /// but at least this; so the log is at most about twice what it has to be.
    pub(crate) compact_bytes: u64,
    /// What a finished log file counts towards that besides its bytes, since every file costs time
    /// when the store is opened.
    pub(crate) file_cost_bytes: u64,
    /// Memory for encoding that is kept between batches.
    pub(crate) buffer_kept_bytes: usize,
    /// While appends take no longer, their thread is not freed of its other tasks meanwhile, which
    /// costs about a tenth of that in processor time and change of threads: the tasks cannot tell
    /// the wait from computing. It is some flushes of a solid-state disk.
    pub(crate) append_time_quick: Duration,
    /// Writes that wait for the disk; at the limit, further ones are refused as `Busy`.
    pub(crate) pending_bytes: usize,
    /// Entries that are copied for a snapshot at a time, under the lock: about 0.4 ms of work.
    pub(crate) compact_entries: usize,
    /// Whether snapshots are written by the commits that follow, one piece each, instead of a
    /// thread of their own, so that a test can foresee the order of things.
    pub(crate) compact_inline: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 4 << 20,
            reserve_bytes: 512 << 10,
            compact_bytes: 4 << 20,
            file_cost_bytes: 64 << 10,
            buffer_kept_bytes: 256 << 10,
            append_time_quick: Duration::from_micros(500),
            pending_bytes: 64 << 20,
            compact_entries: 1_000,
            compact_inline: false,
        }
    }
}
