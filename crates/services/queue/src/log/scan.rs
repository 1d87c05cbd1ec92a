//! Going through the frames of a file: all of it when a segment is opened, some of it to read, and
//! past damage to the next frame that is whole.

use std::io;

use bytes::{Bytes, BytesMut};

use super::{
    chunk::Chunk,
    format::{self, FRAME_HEADER_BYTES, Frame, HEADER_BYTES, Kind, Mark, Parsed},
};
use crate::{
    disk::DiskFile,
    message::{Nanos, Sequence},
};

/// Walks over a file from frame to frame.
pub(super) struct Walk<'a> {
    file: &'a dyn DiskFile,
    salt: u32,
    /// Nothing beyond is looked at.
    limit: u64,
    /// How much is read at once.
    step: usize,
    /// Where the next frame is.
    offset: u64,
    piece: Bytes,
    /// Where the piece begins.
    base: u64,
}

/// What comes next in a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    /// A whole frame, which begins there.
    Frame(Frame, u64),
    /// Something else.
    Bad,
    /// The limit.
    End,
}

impl<'a> Walk<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, salt: u32, offset: u64, limit: u64) -> Self {
        let step = super::limits::SCAN_BYTES;
        Self { file, salt, limit, step, offset, piece: Bytes::new(), base: offset }
    }

    pub(super) fn in_steps_of(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// Passes over the next frame, if there is one.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        if self.offset >= self.limit {
            return Ok(Next::End);
        }
        let Some(frame) = self.frame_at(self.offset)? else { return Ok(Next::Bad) };
        let at = self.offset;
        self.offset += frame.length as u64;
        Ok(Next::Frame(frame, at))
    }

    /// Goes to the next whole frame behind something bad. Returns whether there is one.
    pub(super) fn resync(&mut self) -> io::Result<bool> {
        let mut at = self.offset + 1;
        while at + FRAME_HEADER_BYTES as u64 <= self.limit {
            self.cover(at, FRAME_HEADER_BYTES)?;
            let piece = self.loaded(at);
            let Some(found) = format::find_magic(piece) else {
                // The beginning of one may be at the end of the piece.
                at += (piece.len() as u64).saturating_sub(3).max(1);
                continue;
            };
            at += found as u64;
            if self.frame_at(at)?.is_some() {
                self.offset = at;
                return Ok(true);
            }
            at += 1;
        }
        Ok(false)
    }

    /// The frame that begins at `start`, which was just passed, and all whole frames behind it
    /// that have been read already and go on in sequence; and where they end.
    pub(super) fn chunk(&mut self, frame: &Frame, start: u64) -> (Chunk, u64) {
        let (mut end, mut time) = (frame.end(), frame.time);
        while let Parsed::Frame(next) = format::parse(self.loaded(self.offset), self.salt) {
            let within = self.offset + next.length as u64 <= self.limit;
            if next.kind != Kind::Messages || next.first != end || !within {
                break;
            }
            self.offset += next.length as u64;
            (end, time) = (next.end(), time.max(next.time));
        }
        let place = |offset: u64| usize::try_from(offset - self.base).unwrap_or(usize::MAX);
        let bytes = self.piece.slice(place(start)..place(self.offset));
        (Chunk { first: frame.first, end, time, bytes }, self.offset)
    }

    fn frame_at(&mut self, at: u64) -> io::Result<Option<Frame>> {
        loop {
            match format::parse(self.loaded(at), self.salt) {
                Parsed::Frame(frame) if at + frame.length as u64 <= self.limit => {
                    return Ok(Some(frame));
                }
                Parsed::Short(needed) if at + needed as u64 <= self.limit => {
                    if !self.cover(at, needed)? {
                        return Ok(None);
                    }
                }
                Parsed::Frame(_) | Parsed::Short(_) | Parsed::Bad => return Ok(None),
            }
        }
    }

    fn loaded(&self, at: u64) -> &[u8] {
        let place = at.checked_sub(self.base).and_then(|it| usize::try_from(it).ok());
        place.and_then(|it| self.piece.get(it..)).unwrap_or_default()
    }

    /// Has so many bytes at a place in memory, if the file has them. Returns whether it does.
    fn cover(&mut self, at: u64, needed: usize) -> io::Result<bool> {
        if self.loaded(at).len() < needed {
            let rest = usize::try_from(self.limit.saturating_sub(at)).unwrap_or(usize::MAX);
            let mut piece = BytesMut::zeroed(needed.max(self.step).min(rest));
            let read = self.file.read_at(at, &mut piece)?;
            piece.truncate(read);
            (self.piece, self.base) = (piece.freeze(), at);
        }
        Ok(self.loaded(at).len() >= needed)
    }
}

/// What is in a segment.
#[derive(Clone, Debug)]
pub(super) struct Scanned {
    pub(super) marks: Vec<Mark>,
    /// The sequence after the last message.
    pub(super) end: Sequence,
    /// Where the next frame goes.
    pub(super) bytes: u64,
    /// What should be there and is not.
    pub(super) holes: Vec<(Sequence, Sequence)>,
    /// Whether the last thing in it is that the log was closed.
    pub(super) closed: bool,
    /// Whether it ends in an index, so that another segment was begun.
    pub(super) indexed: bool,
}

impl Scanned {
    const fn new(first: Sequence) -> Self {
        Self {
            marks: Vec::new(),
            end: first,
            bytes: HEADER_BYTES,
            holes: Vec::new(),
            closed: false,
            indexed: false,
        }
    }

    fn take(&mut self, frame: &Frame, at: u64, index_bytes: u64) {
        let hole = frame.first > self.end;
        if hole {
            self.holes.push((self.end, frame.first));
        }
        self.end = frame.end();
        self.closed = frame.kind == Kind::Closed;
        self.indexed = frame.kind == Kind::Index;
        if frame.kind == Kind::Messages {
            self.bytes = at + frame.length as u64;
            mark(&mut self.marks, frame.first, at, frame.time, if hole { 0 } else { index_bytes });
        }
    }
}

/// Notes where frames are, if the last note is at least `every` bytes back.
pub(super) fn mark(marks: &mut Vec<Mark>, first: Sequence, offset: u64, time: Nanos, every: u64) {
    match marks.last_mut() {
        Some(last) if offset < last.offset + every => last.time_max = last.time_max.max(time),
        _ => marks.push(Mark { first, offset, time_max: time }),
    }
}

/// Reads a whole segment. In the last one, what follows damage that may never have been
/// acknowledged is left out: it was not acknowledged either.
pub(super) fn scan(
    mut walk: Walk<'_>,
    first: Sequence,
    last: bool,
    index_bytes: u64,
) -> io::Result<Scanned> {
    let mut scanned = Scanned::new(first);
    // As it was before each hole of which nothing has said yet that it had been acknowledged.
    let mut doubtful: Vec<Scanned> = Vec::new();
    loop {
        match walk.next()? {
            Next::Frame(frame, at) if frame.first >= scanned.end => {
                if last && frame.first > scanned.end {
                    doubtful.push(scanned.clone());
                }
                doubtful.retain(|it| it.end >= frame.settled);
                scanned.take(&frame, at, index_bytes);
            }
            // A frame of the past has no business here.
            Next::Frame(..) => {}
            Next::Bad => {
                if !walk.resync()? {
                    break;
                }
            }
            Next::End => break,
        }
    }
    Ok(doubtful.into_iter().next().unwrap_or(scanned))
}

/// What the index at the end of a finished segment says, if it is whole.
pub(super) fn read_index(
    file: &dyn DiskFile,
    salt: u32,
    first: Sequence,
) -> io::Result<Option<Scanned>> {
    let size = file.size()?;
    let Some(at) = size.checked_sub(format::TRAILER_BYTES) else { return Ok(None) };
    let mut trailer = [0; 16];
    file.read_at(at, &mut trailer)?;
    let Some(offset) = format::parse_trailer(&trailer).filter(|it| *it < at) else {
        return Ok(None);
    };
    let mut bytes = vec![0; usize::try_from(at - offset).unwrap_or(0)];
    file.read_at(offset, &mut bytes)?;
    let Parsed::Frame(frame) = format::parse(&bytes, salt) else { return Ok(None) };
    let Some(marks) = format::parse_marks(&bytes) else { return Ok(None) };
    let fits = frame.kind == Kind::Index && frame.length == bytes.len() && frame.first >= first;
    let scanned = Scanned { marks, end: frame.first, bytes: offset, ..Scanned::new(first) };
    Ok(fits.then_some(scanned))
}
