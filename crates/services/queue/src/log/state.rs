//! What a log has in memory: what waits for the disk, what was committed lately, and where in which
//! segment the rest is. No IO.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
};

use bytes::BytesMut;
use tokio::sync::oneshot;

use super::{
    chunk::Chunk,
    format::{self, HEADER_BYTES, Kind, Mark, NewFrame},
    limits::{CHUNK_BYTES, CHUNK_BYTES_MIN, HINTS_MAX, OPENED_MAX},
    types::{AppendError, Damage, ReadLimit, Retention},
    writer::Writer,
};
use crate::{
    Durability,
    disk::DiskFile,
    message::{Nanos, NewMessage, Sequence},
};

/// What the lock of a log protects. The disk is never touched under it.
#[derive(Debug)]
pub(super) struct State {
    /// The next message's.
    pub(super) next: Sequence,
    /// All below have been acknowledged and may be read.
    pub(super) committed: Sequence,
    /// All below are in the segments.
    pub(super) written: Sequence,
    /// All below are finished by everybody.
    pub(super) finished: Sequence,
    /// Batches that are neither committed nor being written, the last ones still open.
    ready: VecDeque<Chunk>,
    open: BytesMut,
    open_first: Sequence,
    open_time: Nanos,
    chunk_bytes: usize,
    /// How many bytes are not written yet, also of what is just being written.
    pub(super) waiting_bytes: usize,
    waiters: VecDeque<Waiter>,
    /// The last committed messages. Those that are not written yet stay here.
    pub(super) recent: VecDeque<Chunk>,
    recent_bytes: usize,
    /// What was read from files last.
    fetched: VecDeque<Chunk>,
    fetched_bytes: usize,
    /// Where in the files somebody left off.
    pub(super) hints: VecDeque<Hint>,
    /// By first sequence; the last one is being written.
    pub(super) segments: BTreeMap<Sequence, Segment>,
    /// Finished segments that are open, the one used last at the end.
    opened: VecDeque<Sequence>,
    /// By first sequence.
    pub(super) holes: BTreeMap<Sequence, Damage>,
    /// None while somebody writes, after a failure, and if there are no files.
    pub(super) writer: Option<Writer>,
    /// Why nothing will be written any more.
    pub(super) failure: Option<AppendError>,
    /// Why nothing could be written last, for want of room, until something could.
    pub(super) full: Option<AppendError>,
    pub(super) closed: bool,
    /// There are no files any more.
    pub(super) deleted: bool,
    /// Whether a committer knows that there is something to do.
    pub(super) queued: bool,
    /// When somebody last asked to delete what is finished, if nothing was done about it yet.
    pub(super) retire_at: Option<Nanos>,
    /// Segments that are no longer part of the log and still to be deleted, oldest first.
    pub(super) retired: Vec<Sequence>,
}

/// Who waits for a batch.
#[derive(Debug)]
pub(super) struct Waiter {
    end: Sequence,
    done: oneshot::Sender<Result<(), AppendError>>,
}

impl Waiter {
    pub(super) fn answer(self, outcome: Result<(), AppendError>) {
        // Somebody who has gone away does not want to know.
        drop(self.done.send(outcome));
    }
}

/// A file of messages.
#[derive(Debug)]
pub(super) struct Segment {
    /// The sequence after its last.
    pub(super) end: Sequence,
    /// Where its frames end.
    pub(super) bytes: u64,
    pub(super) time_max: Nanos,
    pub(super) opened: Option<Opened>,
}

/// What is needed to read it.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) marks: Arc<Vec<Mark>>,
}

/// The frame of this sequence is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hint {
    pub(super) sequence: Sequence,
    pub(super) segment: Sequence,
    pub(super) offset: u64,
}

impl State {
    pub(super) fn new(next: Sequence) -> Self {
        Self {
            next,
            committed: next,
            written: next,
            finished: Sequence(0),
            ready: VecDeque::new(),
            open: BytesMut::new(),
            open_first: next,
            open_time: Nanos::default(),
            chunk_bytes: CHUNK_BYTES_MIN,
            waiting_bytes: 0,
            waiters: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            fetched: VecDeque::new(),
            fetched_bytes: 0,
            hints: VecDeque::new(),
            segments: BTreeMap::new(),
            opened: VecDeque::new(),
            holes: BTreeMap::new(),
            writer: None,
            failure: None,
            full: None,
            closed: false,
            deleted: false,
            queued: false,
            retire_at: None,
            retired: Vec::new(),
        }
    }

    /// The oldest message that is there.
    pub(super) fn first(&self) -> Sequence {
        let in_memory = || self.finished.min(self.committed);
        self.segments.keys().next().copied().unwrap_or_else(in_memory)
    }

    /// Whether a batch of so many bytes may be appended.
    pub(super) fn writable(&self, bytes: usize, waiting_max: usize) -> Result<(), AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        // Alone, a batch of any size is welcome.
        if self.waiting_bytes > 0 && self.waiting_bytes + bytes > waiting_max {
            return Err(match &self.full {
                Some(full) => full.clone(),
                None => AppendError::Full,
            });
        }
        Ok(())
    }

    /// Appends a frame of that length to the open chunk.
    pub(super) fn encode(&mut self, new: NewFrame, length: usize, messages: &[NewMessage]) {
        if self.open.capacity() - self.open.len() < length {
            self.seal();
            self.open = BytesMut::with_capacity(self.chunk_bytes.max(length));
            self.chunk_bytes = CHUNK_BYTES.min(2 * self.chunk_bytes);
        }
        if self.open.is_empty() {
            (self.open_first, self.open_time) = (new.first, new.time);
        }
        format::encode(&mut self.open, new, messages);
        self.open_time = self.open_time.max(new.time);
        self.next = new.first.after(messages.len() as u64);
        self.waiting_bytes += length;
    }

    /// Who is told when everything appended so far is committed.
    pub(super) fn wait(&mut self) -> oneshot::Receiver<Result<(), AppendError>> {
        let (done, outcome) = oneshot::channel();
        self.waiters.push_back(Waiter { end: self.next, done });
        outcome
    }

    /// Commits what was just appended without writing it.
    pub(super) fn commit_unwritten(&mut self) {
        self.seal();
        while let Some(chunk) = self.ready.pop_front() {
            self.remember(chunk);
        }
        self.committed = self.next;
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            let bytes = self.open.split().freeze();
            let (first, end, time) = (self.open_first, self.next, self.open_time);
            self.ready.push_back(Chunk { first, end, time, bytes });
        }
    }

    /// What is to be written next, into so much room; but at least one chunk.
    pub(super) fn unwritten(&mut self, durability: Durability, room: u64) -> Vec<Chunk> {
        let mut left = room;
        let mut fits = |chunk: &Chunk, first: bool| {
            let bytes = chunk.bytes.len() as u64;
            let fits = first || bytes <= left;
            left = left.saturating_sub(bytes);
            fits
        };
        let mut chunks = Vec::new();
        if durability == Durability::Memory {
            let from = self.recent.partition_point(|it| it.first < self.written);
            let rest = self.recent.range(from..).enumerate();
            chunks.extend(rest.take_while(|(i, it)| fits(it, *i == 0)).map(|(_, it)| it.clone()));
            return chunks;
        }
        self.seal();
        while self.ready.front().is_some_and(|it| fits(it, chunks.is_empty())) {
            chunks.extend(self.ready.pop_front());
        }
        chunks
    }

    /// How large the next chunk to be written is.
    pub(super) fn next_chunk_bytes(&mut self, durability: Durability) -> Option<u64> {
        if durability == Durability::Memory {
            let from = self.recent.partition_point(|it| it.first < self.written);
            return self.recent.get(from).map(|it| it.bytes.len() as u64);
        }
        self.seal();
        self.ready.front().map(|it| it.bytes.len() as u64)
    }

    /// Takes back all that is not committed; says who waits for it.
    pub(super) fn take_back(&mut self) -> Vec<Waiter> {
        self.ready.clear();
        self.open.clear();
        self.next = self.committed;
        self.waiting_bytes = 0;
        mem::take(&mut self.waiters).into()
    }

    /// Those who wait for what is committed now.
    pub(super) fn satisfied(&mut self) -> Vec<Waiter> {
        let count = self.waiters.partition_point(|it| it.end <= self.committed);
        self.waiters.drain(..count).collect()
    }

    /// Notes what has been written to the last segment.
    pub(super) fn wrote(&mut self, chunk: &Chunk, index_bytes: u64) {
        let Some(mut segment) = self.segments.last_entry() else { return };
        let segment = segment.get_mut();
        if let Some(opened) = &mut segment.opened {
            let marks = Arc::make_mut(&mut opened.marks);
            super::scan::mark(marks, chunk.first, segment.bytes, chunk.time, index_bytes);
        }
        segment.end = chunk.end;
        segment.bytes += chunk.bytes.len() as u64;
        segment.time_max = segment.time_max.max(chunk.time);
        self.written = chunk.end;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(chunk.bytes.len());
    }

    /// Keeps a committed chunk in memory.
    pub(super) fn remember(&mut self, chunk: Chunk) {
        self.recent_bytes += chunk.bytes.len();
        self.recent.push_back(chunk);
    }

    /// Forgets the oldest of what is in files too, until the rest fits.
    pub(super) fn trim(&mut self, bytes_max: usize) {
        while self.recent_bytes > bytes_max {
            match self.recent.front() {
                Some(it) if it.end <= self.written => self.forget_front(),
                Some(_) | None => return,
            }
        }
    }

    /// Forgets what is below a sequence. For logs without files.
    pub(super) fn forget_below(&mut self, finished: Sequence) {
        while self.recent.front().is_some_and(|it| it.end <= finished) {
            self.forget_front();
        }
    }

    fn forget_front(&mut self) {
        if let Some(chunk) = self.recent.pop_front() {
            self.recent_bytes -= chunk.bytes.len();
        }
    }

    /// Keeps what was read from a file.
    pub(super) fn keep_fetched(&mut self, chunk: Chunk, bytes_max: usize) {
        self.fetched_bytes += chunk.bytes.len();
        self.fetched.push_back(chunk);
        while self.fetched_bytes > bytes_max && self.fetched.len() > 1 {
            if let Some(chunk) = self.fetched.pop_front() {
                self.fetched_bytes -= chunk.bytes.len();
            }
        }
    }

    /// The chunk in memory that has a committed message.
    pub(super) fn chunk_of(&self, sequence: Sequence) -> Option<&Chunk> {
        if sequence < self.first() {
            return None;
        }
        let place = self.recent.partition_point(|it| it.end <= sequence);
        let recent = self.recent.get(place).filter(|it| it.has(sequence));
        recent.or_else(|| self.fetched_chunk_of(sequence))
    }

    fn fetched_chunk_of(&self, sequence: Sequence) -> Option<&Chunk> {
        self.fetched.iter().rev().find(|it| it.has(sequence))
    }

    /// Chunks in memory that have what is to be read from `from` on, without a gap.
    pub(super) fn chunks(&self, mut from: Sequence, limit: ReadLimit) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        if from < self.first() {
            return chunks;
        }
        let end = from.after(limit.messages as u64).min(self.committed);
        let mut bytes = 0;
        // There may be very many small ones: only the first is looked for.
        let mut place = self.recent.partition_point(|it| it.end <= from);
        while from < end && bytes < limit.bytes {
            let recent = self.recent.get(place).filter(|it| it.has(from));
            place += usize::from(recent.is_some());
            let Some(chunk) = recent.or_else(|| self.fetched_chunk_of(from)) else { break };
            bytes += chunk.bytes.len();
            from = chunk.end;
            chunks.push(chunk.clone());
        }
        chunks
    }

    pub(super) fn keep_hint(&mut self, hint: Hint) {
        self.hints.retain(|it| it.sequence != hint.sequence);
        self.hints.push_back(hint);
        if self.hints.len() > HINTS_MAX {
            self.hints.pop_front();
        }
    }

    /// The segment that has a sequence, or would have it.
    pub(super) fn segment_of(&self, sequence: Sequence) -> Option<(Sequence, &Segment)> {
        let (first, segment) = self.segments.range(..=sequence).next_back()?;
        Some((*first, segment))
    }

    /// Keeps a finished segment open, instead of the one that was not used for longest.
    pub(super) fn keep_opened(&mut self, first: Sequence, opened: Opened) {
        let active = self.segments.keys().next_back() == Some(&first);
        let Some(segment) = self.segments.get_mut(&first) else { return };
        segment.opened = Some(opened);
        if !active {
            self.used(first);
        }
    }

    /// Notes that a finished segment is in use.
    pub(super) fn used(&mut self, first: Sequence) {
        self.opened.retain(|it| *it != first);
        self.opened.push_back(first);
        if self.opened.len() > OPENED_MAX {
            let oldest = self.opened.pop_front().and_then(|it| self.segments.get_mut(&it));
            if let Some(segment) = oldest {
                segment.opened = None;
            }
        }
    }

    /// Notes that messages are not there. What is known of some of them already stays.
    pub(super) fn add_hole(&mut self, hole: &Damage) {
        let known = self.holes.range(..=hole.from).next_back();
        let mut from = known.map_or(hole.from, |(_, it)| it.until.max(hole.from));
        while from < hole.until {
            let next = self.holes.range(from..hole.until).next();
            let (until, behind) =
                next.map_or((hole.until, hole.until), |(_, it)| (it.from, it.until));
            if from < until {
                self.holes.insert(from, Damage { from, until, ..hole.clone() });
            }
            from = behind;
        }
    }

    /// What is known to be unreadable at a sequence.
    pub(super) fn hole_at(&self, sequence: Sequence) -> Option<&Damage> {
        let (_, hole) = self.holes.range(..=sequence).next_back()?;
        (sequence < hole.until).then_some(hole)
    }

    /// How many bytes the files have.
    pub(super) fn file_bytes(&self) -> u64 {
        self.segments.values().map(|it| it.bytes).sum()
    }

    /// Takes away the oldest segments that retention does not keep; says what is to be deleted.
    pub(super) fn take_retired(&mut self, retention: Retention, now: Nanos) -> Vec<Sequence> {
        let mut bytes = self.file_bytes();
        while self.segments.len() > 1 {
            let Some(oldest) = self.segments.first_entry() else { break };
            let segment = oldest.get();
            if segment.end > self.finished || !is_expired(segment, bytes, retention, now) {
                break;
            }
            bytes -= segment.bytes;
            let first = *oldest.key();
            oldest.remove();
            self.opened.retain(|it| *it != first);
            self.retired.push(first);
        }
        let first = self.first();
        self.holes.retain(|_, it| it.until > first);
        mem::take(&mut self.retired)
    }

    /// Whether there is a segment that retention does not keep.
    pub(super) fn has_retired(&self, retention: Retention, now: Nanos) -> bool {
        let oldest = self.segments.values().next().filter(|_| self.segments.len() > 1);
        let expired = |it: &Segment| is_expired(it, self.file_bytes(), retention, now);
        !self.retired.is_empty() || oldest.is_some_and(|it| it.end <= self.finished && expired(it))
    }

    /// Whether a segment that is being written would be deleted if it were not.
    pub(super) fn should_end(&self, retention: Retention, now: Nanos, bytes_min: u64) -> bool {
        let Some((_, segment)) = self.segments.last_key_value() else { return false };
        segment.bytes >= bytes_min.max(HEADER_BYTES + 1)
            && segment.end <= self.finished
            && is_expired(segment, self.file_bytes(), retention, now)
    }

    /// The frame header of a batch that is appended now.
    pub(super) const fn new_frame(
        &self,
        durability: Durability,
        time: Nanos,
        salt: u32,
    ) -> NewFrame {
        let settled = match durability {
            Durability::Memory => self.next,
            Durability::Process | Durability::Disk => self.committed,
        };
        NewFrame { kind: Kind::Messages, first: self.next, settled, time, salt }
    }
}

fn is_expired(segment: &Segment, bytes: u64, retention: Retention, now: Nanos) -> bool {
    retention.age.is_some_and(|it| segment.time_max.after(it) < now)
        || retention.bytes.is_some_and(|it| bytes > it)
}
