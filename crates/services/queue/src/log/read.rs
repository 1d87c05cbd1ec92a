//! Reading messages, from memory if they are there, else from files.

use std::{io, sync::Arc};

use super::{
    chunk::{self, Chunk},
    format::{HEADER_BYTES, Kind},
    limits::READ_AHEAD_MAX,
    run::Run,
    scan::{self, Next, Walk},
    shared::Shared,
    state::{Hint, Opened, State},
    types::{Damage, Read, ReadError, ReadLimit, Why},
    writer,
};
use crate::{
    disk::{DiskFile, Mode},
    message::{Nanos, Sequence},
};

/// Where in the files a message is, or where to look.
enum Place {
    At(Spot),
    /// In that segment, which is not open.
    Closed {
        segment: Sequence,
        end: Sequence,
    },
}

/// Where in a segment to start looking.
struct Spot {
    segment: Sequence,
    /// The sequence after the last in the segment.
    end: Sequence,
    file: Arc<dyn DiskFile>,
    /// A frame begins there,
    offset: u64,
    /// of this sequence.
    expected: Sequence,
    /// Where the segment ends.
    limit: u64,
}

impl Shared {
    /// Reads what is in memory; `None` if what comes next is not.
    pub(super) fn read_memory(&self, from: Sequence, limit: ReadLimit) -> Option<Vec<Run>> {
        let chunks = self.lock().chunks(from, limit);
        let end = from.after(limit.messages as u64);
        let mut runs = Vec::with_capacity(chunks.len());
        for chunk in chunk::joined(&chunks) {
            let mut run = chunk.run(runs.last().map_or(from, Run::end))?;
            run.truncate(end);
            runs.push(run);
        }
        if runs.is_empty() { None } else { Some(runs) }
    }

    /// Reads what is next, wherever it is.
    pub(super) fn read(&self, from: Sequence, limit: ReadLimit) -> Result<Read, ReadError> {
        let limit = ReadLimit { messages: limit.messages.max(1), bytes: limit.bytes.max(1) };
        loop {
            if let Some(runs) = self.read_memory(from, limit) {
                return Ok(Read::Messages(runs));
            }
            let state = self.lock();
            let first = state.first();
            if from < first {
                return Ok(Read::Skipped(Damage { from, until: first, why: Why::Retired }));
            }
            if let Some(hole) = state.hole_at(from) {
                return Ok(Read::Skipped(Damage { from, ..hole.clone() }));
            }
            if from >= state.committed {
                return Ok(Read::End);
            }
            // It may have been written and forgotten, or read, since it was looked for in memory.
            if state.chunk_of(from).is_some() {
                continue;
            }
            let place = place(&state, from);
            drop(state);
            match place {
                Some(Place::At(spot)) => self.fetch(from, spot, self.pieces(limit))?,
                Some(Place::Closed { segment, end }) => {
                    self.open_segment(segment, end)?;
                }
                None => return Ok(Read::End),
            }
        }
    }

    /// Reads single messages, each into memory of its own.
    pub(super) fn get(&self, sequences: &[Sequence]) -> Result<Vec<Option<Run>>, ReadError> {
        let mut found = Vec::with_capacity(sequences.len());
        while let Some(&first) = sequences.get(found.len()) {
            // Most of them are neighbours, and lie in the same piece.
            let rest = sequences.iter().skip(found.len());
            let neighbours = (0..).zip(rest).take_while(|(after, it)| **it == first.after(*after));
            let limit = ReadLimit { messages: neighbours.count(), bytes: 1 };
            let Read::Messages(runs) = self.read(first, limit)? else {
                found.push(None);
                continue;
            };
            for mut run in runs {
                while !run.is_empty() {
                    found.push(run.take_one().alone());
                }
            }
        }
        Ok(found)
    }

    /// The first message that was published at that time or later.
    pub(super) fn since(&self, time: Nanos) -> Result<Sequence, ReadError> {
        let mut after = Sequence(0);
        loop {
            let state = self.lock();
            let mut segments = state.segments.range(after..);
            let Some((segment, found)) = segments.find(|(_, it)| it.time_max >= time) else {
                let chunk =
                    state.recent.iter().find(|it| it.end > state.written && it.time >= time);
                let chunk = chunk.cloned();
                let committed = state.committed;
                drop(state);
                return Ok(chunk.and_then(|it| it.since(time)).unwrap_or(committed));
            };
            let (segment, end, limit) = (*segment, found.end, found.bytes);
            let opened = found.opened.clone();
            drop(state);
            let Some(opened) = opened else {
                if !self.open_segment(segment, end)? {
                    after = end.max(segment.after(1));
                }
                continue;
            };
            match self.since_in(&opened, limit, time).map_err(self.failed(segment))? {
                Some(found) => return Ok(found),
                // What had this time is damaged.
                None => after = end.max(segment.after(1)),
            }
        }
    }

    fn since_in(&self, opened: &Opened, limit: u64, time: Nanos) -> io::Result<Option<Sequence>> {
        let Some(mark) = opened.marks.iter().find(|it| it.time_max >= time) else {
            return Ok(None);
        };
        let mut walk = Walk::new(&*opened.file, self.salt, mark.offset, limit);
        loop {
            match walk.next()? {
                Next::Frame(frame, _) if frame.kind == Kind::Messages && frame.time >= time => {
                    return Ok(Some(frame.first));
                }
                Next::Frame(..) => {}
                Next::Bad if walk.resync()? => {}
                Next::Bad | Next::End => return Ok(None),
            }
        }
    }

    /// How many pieces to read at once for somebody who wants that much: whoever wants many
    /// messages comes back for the next, and a trip to a thread that may block costs as much as
    /// reading some pieces. One log keeps at least four times as much in memory.
    fn pieces(&self, limit: ReadLimit) -> usize {
        if limit.messages == 1 {
            return 1;
        }
        let room = self.pool.recent_max() / 4 / self.sizes.read_bytes.max(1);
        room.clamp(1, READ_AHEAD_MAX)
    }

    /// Reads the frame of a message and what is behind it into memory, or notes that it is damaged.
    fn fetch(&self, from: Sequence, spot: Spot, pieces: usize) -> Result<(), ReadError> {
        let segment = spot.segment;
        let (fetched, holes) =
            self.fetch_from(from, &spot, pieces).map_err(self.failed(segment))?;
        let mut state = self.lock();
        for hole in holes {
            tracing::error!(log = %self.dir.display(), "{hole}");
            state.add_hole(&hole);
        }
        if let Some((last, offset)) = fetched.last() {
            state.keep_hint(Hint { sequence: last.end, segment, offset: *offset });
        }
        for (chunk, _) in fetched {
            state.keep_fetched(chunk, self.pool.recent_max());
        }
        Ok(())
    }

    fn fetch_from(&self, from: Sequence, spot: &Spot, pieces: usize) -> io::Result<Fetched> {
        let mut walk = Walk::new(&*spot.file, self.salt, spot.offset, spot.limit)
            .in_steps_of(self.sizes.read_bytes);
        let mut holes = Vec::new();
        let mut expected = spot.expected;
        let hole = |from, until| Damage { from, until, why: Why::Corrupt };
        loop {
            match walk.next()? {
                Next::Frame(frame, at)
                    if frame.kind == Kind::Messages && frame.first >= expected =>
                {
                    if frame.first > expected {
                        holes.push(hole(expected, frame.first));
                    }
                    if frame.first > from {
                        return Ok((Vec::new(), holes));
                    }
                    if frame.end() > from {
                        let first = walk.chunk(&frame, at);
                        return Ok((chunks(&mut walk, first, pieces), holes));
                    }
                    expected = frame.end();
                }
                // A frame of the past has no business here.
                Next::Frame(..) => {}
                Next::Bad if walk.resync()? => {}
                Next::Bad | Next::End => {
                    holes.push(hole(expected, spot.end));
                    return Ok((Vec::new(), holes));
                }
            }
        }
    }

    /// Opens a finished segment for reading. Returns whether it is there.
    fn open_segment(&self, segment: Sequence, end: Sequence) -> Result<bool, ReadError> {
        let path = writer::path(&self.dir, segment);
        let open = || -> io::Result<Opened> {
            let file: Arc<dyn DiskFile> = Arc::from(self.pool.disk.open(&path, Mode::Read)?);
            let index = scan::read_index(&*file, self.salt, segment)?;
            let scanned = match index {
                Some(scanned) => scanned,
                None => {
                    let walk = Walk::new(&*file, self.salt, HEADER_BYTES, file.size()?);
                    scan::scan(walk, segment, false, self.sizes.index_bytes)?
                }
            };
            Ok(Opened { file, marks: Arc::new(scanned.marks) })
        };
        match open() {
            Ok(opened) => {
                self.lock().keep_opened(segment, opened);
                Ok(true)
            }
            // It was deleted by retention meanwhile, or by somebody else.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut state = self.lock();
                if state.segments.contains_key(&segment) {
                    let hole = Damage { from: segment, until: end, why: Why::Missing };
                    tracing::error!(log = %self.dir.display(), "{hole}");
                    state.add_hole(&hole);
                }
                Ok(false)
            }
            Err(error) => Err(self.failed(segment)(error)),
        }
    }

    fn failed(&self, segment: Sequence) -> impl FnOnce(io::Error) -> ReadError {
        let path = writer::path(&self.dir, segment);
        move |source| ReadError::Io { path, source }
    }
}

/// Chunks, each with where it ends in the file; and what was found to be damaged on the way to
/// the first.
type Fetched = (Vec<(Chunk, u64)>, Vec<Damage>);

/// The first chunk and those behind it, `pieces` at most, as far as they go on without a gap. What
/// is wrong behind them is found when somebody wants it.
fn chunks(walk: &mut Walk<'_>, first: (Chunk, u64), pieces: usize) -> Vec<(Chunk, u64)> {
    let mut end = first.0.end;
    let mut chunks = vec![first];
    while chunks.len() < pieces
        && let Ok(Next::Frame(frame, at)) = walk.next()
        && frame.kind == Kind::Messages
        && frame.first == end
    {
        let next = walk.chunk(&frame, at);
        end = next.0.end;
        chunks.push(next);
    }
    chunks
}

/// Where to look for a message that is in the files.
fn place(state: &State, from: Sequence) -> Option<Place> {
    let (segment, found) = state.segment_of(from).filter(|(_, it)| from < it.end)?;
    let (end, limit) = (found.end, found.bytes);
    let Some(opened) = &found.opened else { return Some(Place::Closed { segment, end }) };
    let hint = state.hints.iter().find(|it| it.sequence == from && it.segment == segment);
    let marks = &opened.marks;
    let before = marks.partition_point(|it| it.first <= from);
    let mark = before.checked_sub(1).and_then(|it| marks.get(it));
    let (expected, offset) = match (hint, mark) {
        (Some(hint), _) => (hint.sequence, hint.offset),
        (None, Some(mark)) => (mark.first, mark.offset),
        (None, None) => (segment, HEADER_BYTES),
    };
    let file = Arc::clone(&opened.file);
    Some(Place::At(Spot { segment, end, file, offset, expected, limit }))
}
