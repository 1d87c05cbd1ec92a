//! The bytes in a segment: header, frames, index at the end. Format 1; numbers are little-endian.
//!
//! A file is `<first sequence, 20 digits>.log`. It gets that name when its header is durable.
//!
//! | header | |
//! | --- | --- |
//! | 0 | `coracleq` |
//! | 8 | u32 version; a higher one is refused |
//! | 12 | u32 salt of the topic's checksums, so that no body can look like a frame |
//! | 16 | u64 first sequence |
//! | 24 | u64 end of the segment before, when this one was begun; if it is less than the first, the numbers between were never used, or what had them is lost |
//! | 32 | u64 the machine's boot, of `Disk::boot` |
//! | 40 | u8 durability: 0 memory, 1 process, 2 disk; zeros up to 60 |
//! | 60 | u32 CRC-32 of the bytes before |
//!
//! | frame | |
//! | --- | --- |
//! | 0 | u32 `CQFR` |
//! | 4 | u32 length of the whole frame |
//! | 8 | u32 CRC-32, begun with the salt, of bytes 0 to 8 and 12 to the end |
//! | 12 | u8 kind: 1 messages, 2 index, 3 closed; three zeros |
//! | 16 | u64 first sequence; of 2 and 3, the one after the last |
//! | 24 | u64 settled: all below had been acknowledged when this was written |
//! | 32 | i64 time, nanoseconds since 1970 |
//! | 40 | u32 number of messages, or of entries |
//! | 44 | u32 CRC-32, begun with the salt, of bytes 0 to 8 and 12 to 44 |
//! | 48 | messages: u8 flags, u32 length of the body, i64 when it is due (flag 1), u16 length of the key and the key (flag 2), the body |
//! | | entries: u64 first sequence, u64 offset, i64 latest time until the next entry |
//!
//! A finished segment ends in its index and 16 bytes that lead to it: u64 offset of the index,
//! u32 `CQIX`, u32 CRC-32 of the 12 bytes before. They only save time.
//!
//! Settled is what tells a torn end from a damaged middle. Of the batches that were being flushed
//! when the power went, any part may be there, also the end without the beginning; so a readable
//! frame behind an unreadable one proves nothing by itself. One that says that the unreadable one
//! *had been acknowledged* does.

use std::ops::Range;

use bytes::BytesMut;

use super::limits::FRAME_BYTES_MAX;
use crate::{
    Durability,
    message::{Nanos, NewMessage, Sequence},
};

/// The newest format this program knows.
pub(super) const VERSION: u32 = 1;

/// Where the first frame is.
pub(super) const HEADER_BYTES: u64 = 64;

/// The fixed part of a frame.
pub(super) const FRAME_HEADER_BYTES: usize = 48;

/// Where the checksum of the fixed part is.
const HEAD_SUM: usize = 44;

/// What leads to the index.
pub(super) const TRAILER_BYTES: u64 = 16;

/// Behind the name of a file that is not finished.
pub(super) const TEMPORARY: &str = ".tmp";

const MAGIC: &[u8; 8] = b"coracleq";
const FRAME_MAGIC: [u8; 4] = *b"CQFR";
const INDEX_MAGIC: [u8; 4] = *b"CQIX";
const HAS_DUE: u8 = 1;
const HAS_KEY: u8 = 2;
const MARK_BYTES: usize = 24;

/// The name of the segment that begins there.
pub(super) fn file_name(first: Sequence) -> String {
    format!("{:020}.log", first.0)
}

/// The first sequence of a file of that name; `None` if it is no segment.
pub(super) fn parse_name(name: &str) -> Option<Sequence> {
    let digits = name.strip_suffix(".log")?;
    let first = Sequence(digits.parse().ok()?);
    (file_name(first) == name).then_some(first)
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) salt: u32,
    pub(super) first: Sequence,
    pub(super) previous_end: Sequence,
    pub(super) boot: u64,
    pub(super) durability: Durability,
}

/// Why a header is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged,
    Newer(u32),
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.salt.to_le_bytes());
        bytes.extend(self.first.0.to_le_bytes());
        bytes.extend(self.previous_end.0.to_le_bytes());
        bytes.extend(self.boot.to_le_bytes());
        bytes.push(match self.durability {
            Durability::Memory => 0,
            Durability::Process => 1,
            Durability::Disk => 2,
        });
        bytes.resize(60, 0);
        let sum = crc32fast::hash(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let checked =
            |version| if version > VERSION { Err(HeaderError::Newer(version)) } else { Ok(()) };
        let parts = || {
            let (content, sum) = bytes.get(..64)?.split_at_checked(60)?;
            (content.starts_with(MAGIC) && u32_at(sum, 0)? == crc32fast::hash(content))
                .then_some(content)
        };
        let content = parts().ok_or(HeaderError::Damaged)?;
        checked(u32_at(content, 8).unwrap_or(0))?;
        let read = || {
            Some(Self {
                salt: u32_at(content, 12)?,
                first: Sequence(u64_at(content, 16)?),
                previous_end: Sequence(u64_at(content, 24)?),
                boot: u64_at(content, 32)?,
                durability: match content.get(40)? {
                    0 => Durability::Memory,
                    1 => Durability::Process,
                    2 => Durability::Disk,
                    _ => return None,
                },
            })
        };
        read().ok_or(HeaderError::Damaged)
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Messages,
    Index,
    Closed,
}

/// The fixed part of a frame that was found to be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) length: usize,
    pub(super) first: Sequence,
    pub(super) settled: Sequence,
    pub(super) time: Nanos,
    pub(super) count: u32,
}

impl Frame {
    /// The sequence after its last message.
    pub(super) const fn end(&self) -> Sequence {
        match self.kind {
            Kind::Messages => self.first.after(self.count as u64),
            Kind::Index | Kind::Closed => self.first,
        }
    }
}

/// What is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Frame(Frame),
    /// It may be one, of at least this length.
    Short(usize),
    Bad,
}

/// Looks for a frame at the beginning of `bytes`, and checks it.
pub(super) fn parse(bytes: &[u8], salt: u32) -> Parsed {
    let Some(head) = bytes.get(..FRAME_HEADER_BYTES) else {
        return Parsed::Short(FRAME_HEADER_BYTES);
    };
    if u32_at(head, HEAD_SUM) != Some(checksum(head.get(..HEAD_SUM).unwrap_or_default(), salt)) {
        return Parsed::Bad;
    }
    let Some((length, frame)) = parse_head(head) else { return Parsed::Bad };
    let Some(whole) = bytes.get(..length) else { return Parsed::Short(length) };
    if u32_at(head, 8) == Some(checksum(whole, salt)) { Parsed::Frame(frame) } else { Parsed::Bad }
}

fn parse_head(head: &[u8]) -> Option<(usize, Frame)> {
    let length = usize::try_from(u32_at(head, 4)?).ok()?;
    let kind = match head.get(12..16)? {
        [1, 0, 0, 0] => Kind::Messages,
        [2, 0, 0, 0] => Kind::Index,
        [3, 0, 0, 0] => Kind::Closed,
        _ => return None,
    };
    let plausible =
        head.starts_with(&FRAME_MAGIC) && (FRAME_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length);
    let frame = Frame {
        kind,
        length,
        first: Sequence(u64_at(head, 16)?),
        settled: Sequence(u64_at(head, 24)?),
        time: Nanos(i64_at(head, 32)?),
        count: u32_at(head, 40)?,
    };
    plausible.then_some((length, frame))
}

/// Where in `bytes` something begins that looks like a frame.
pub(super) fn find_magic(bytes: &[u8]) -> Option<usize> {
    bytes.windows(FRAME_MAGIC.len()).position(|it| it == FRAME_MAGIC)
}

fn checksum(frame: &[u8], salt: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(frame.get(..8).unwrap_or_default());
    hasher.update(frame.get(12..).unwrap_or_default());
    hasher.finalize()
}

/// How long the frame of these messages is; `None` if a key is longer than can be said.
pub(super) fn length_of(messages: &[NewMessage]) -> Option<usize> {
    let mut length = FRAME_HEADER_BYTES;
    for message in messages {
        let key = match &message.key {
            Some(key) if key.len() > usize::from(u16::MAX) => return None,
            Some(key) => 2 + key.len(),
            None => 0,
        };
        let due = if message.delay.is_zero() { 0 } else { 8 };
        length = length.saturating_add(5 + due + key + message.body.len());
    }
    Some(length)
}

/// What the header of a new frame says.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewFrame {
    pub(super) kind: Kind,
    pub(super) first: Sequence,
    pub(super) settled: Sequence,
    pub(super) time: Nanos,
    pub(super) salt: u32,
}

/// Appends a frame whose messages `length_of` accepted and whose length is within the limit.
pub(super) fn encode(out: &mut BytesMut, new: NewFrame, messages: &[NewMessage]) {
    frame(out, new, messages.len(), |out| {
        for message in messages {
            let due = (!message.delay.is_zero()).then(|| new.time.after(message.delay));
            let flags = if due.is_some() { HAS_DUE } else { 0 }
                | if message.key.is_some() { HAS_KEY } else { 0 };
            out.extend_from_slice(&[flags]);
            out.extend_from_slice(&low_u32(message.body.len()).to_le_bytes());
            if let Some(due) = due {
                out.extend_from_slice(&due.0.to_le_bytes());
            }
            if let Some(key) = &message.key {
                let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(key);
            }
            out.extend_from_slice(&message.body);
        }
    });
}

fn frame(out: &mut BytesMut, new: NewFrame, count: usize, content: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    let mut head = [0; FRAME_HEADER_BYTES];
    put(&mut head, 0, &FRAME_MAGIC);
    let kind = match new.kind {
        Kind::Messages => 1,
        Kind::Index => 2,
        Kind::Closed => 3,
    };
    put(&mut head, 12, &[kind]);
    put(&mut head, 16, &new.first.0.to_le_bytes());
    put(&mut head, 24, &new.settled.0.to_le_bytes());
    put(&mut head, 32, &new.time.0.to_le_bytes());
    put(&mut head, 40, &low_u32(count).to_le_bytes());
    out.extend_from_slice(&head);
    content(out);
    let Some(whole) = out.get_mut(start..) else { return };
    let length = low_u32(whole.len());
    put(whole, 4, &length.to_le_bytes());
    let sum = checksum(whole.get(..HEAD_SUM).unwrap_or_default(), new.salt);
    put(whole, HEAD_SUM, &sum.to_le_bytes());
    let sum = checksum(whole, new.salt);
    put(whole, 8, &sum.to_le_bytes());
}

/// One entry of a segment's index: where a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) first: Sequence,
    pub(super) offset: u64,
    /// The latest time of a frame from here to the next mark.
    pub(super) time_max: Nanos,
}

/// The end of a finished segment: the index, and what leads to it.
pub(super) fn encode_index(marks: &[Mark], end: Sequence, offset: u64, salt: u32) -> BytesMut {
    let mut out = BytesMut::with_capacity(FRAME_HEADER_BYTES + marks.len() * MARK_BYTES + 16);
    let time = marks.iter().map(|it| it.time_max).max().unwrap_or_default();
    let new = NewFrame { kind: Kind::Index, first: end, settled: end, time, salt };
    frame(&mut out, new, marks.len(), |out| {
        for mark in marks {
            out.extend_from_slice(&mark.first.0.to_le_bytes());
            out.extend_from_slice(&mark.offset.to_le_bytes());
            out.extend_from_slice(&mark.time_max.0.to_le_bytes());
        }
    });
    let mut trailer = [0; 16];
    put(&mut trailer, 0, &offset.to_le_bytes());
    put(&mut trailer, 8, &INDEX_MAGIC);
    let sum = crc32fast::hash(trailer.get(..12).unwrap_or_default());
    put(&mut trailer, 12, &sum.to_le_bytes());
    out.extend_from_slice(&trailer);
    out
}

/// Where the trailer says that the index is.
pub(super) fn parse_trailer(bytes: &[u8]) -> Option<u64> {
    let content = bytes.get(..12)?;
    let good = content.ends_with(&INDEX_MAGIC) && u32_at(bytes, 12)? == crc32fast::hash(content);
    good.then(|| u64_at(bytes, 0))?
}

/// The entries of an index that was found to be whole.
pub(super) fn parse_marks(frame: &[u8]) -> Option<Vec<Mark>> {
    let count = usize::try_from(u32_at(frame, 40)?).ok()?;
    let entries = frame.get(FRAME_HEADER_BYTES..)?;
    if entries.len() != count.checked_mul(MARK_BYTES)? {
        return None;
    }
    let mark = |it: &[u8]| {
        Some(Mark {
            first: Sequence(u64_at(it, 0)?),
            offset: u64_at(it, 8)?,
            time_max: Nanos(i64_at(it, 16)?),
        })
    };
    entries.chunks_exact(MARK_BYTES).map(mark).collect()
}

/// Goes through the messages of a frame that was found to be whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    /// Where the next message begins.
    pub(super) at: usize,
    /// Its sequence.
    pub(super) sequence: Sequence,
    pub(super) time: Nanos,
    /// How many are left.
    pub(super) left: u32,
}

/// One message as it lies in memory.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) due: Option<Nanos>,
    pub(super) key: Option<Range<usize>>,
    pub(super) body: Range<usize>,
}

impl Cursor {
    /// At the first message of the frame at an offset, and where that frame ends.
    pub(super) fn enter(bytes: &[u8], at: usize) -> Option<(Self, usize)> {
        let head = bytes.get(at..)?.get(..FRAME_HEADER_BYTES)?;
        let (length, frame) = parse_head(head)?;
        let left = if frame.kind == Kind::Messages { frame.count } else { 0 };
        let (sequence, time) = (frame.first, frame.time);
        Some((Self { at: at + FRAME_HEADER_BYTES, sequence, time, left }, at.checked_add(length)?))
    }

    /// Passes the next message, and says where it has what.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Option<Place> {
        self.left.checked_sub(1)?;
        let rest = bytes.get(self.at..)?;
        let flags = *rest.first()?;
        let length = usize::try_from(u32_at(rest, 1)?).ok()?;
        let mut at = 5;
        let mut due = None;
        if flags & HAS_DUE != 0 {
            due = Some(Nanos(i64_at(rest, at)?));
            at += 8;
        }
        let mut key = None;
        if flags & HAS_KEY != 0 {
            let length = usize::from(u16::from_le_bytes(rest.get(at..at + 2)?.try_into().ok()?));
            key = Some(self.at + at + 2..self.at + at + 2 + length);
            at += 2 + length;
        }
        let body = self.at + at..self.at.checked_add(at)?.checked_add(length)?;
        if body.end > bytes.len() {
            return None;
        }
        self.at = body.end;
        self.sequence = self.sequence.after(1);
        self.left -= 1;
        Some(Place { due, key, body })
    }
}

fn put(out: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = out.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// A number that is known to be within `FRAME_BYTES_MAX`.
fn low_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn message() -> impl Strategy<Value = NewMessage> {
        let bytes = || vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        (bytes(), 0..3_u64, option::of(bytes())).prop_map(|(body, delay, key)| NewMessage {
            body,
            delay: Duration::from_secs(delay),
            key,
        })
    }

    proptest! {
        #[test]
        fn messages_come_back(messages in vec(message(), 1..6), flip in any::<prop::sample::Index>()) {
            let new = NewFrame {
                kind: Kind::Messages,
                first: Sequence(7),
                settled: Sequence(6),
                time: Nanos(5),
                salt: 9,
            };
            let mut out = BytesMut::new();
            encode(&mut out, new, &messages);
            prop_assert_eq!(Some(out.len()), length_of(&messages));
            let bytes = out.freeze();
            let Parsed::Frame(frame) = parse(&bytes, 9) else { panic!("not whole") };
            prop_assert_eq!((frame.first, frame.settled), (Sequence(7), Sequence(6)));
            let (mut cursor, end) = Cursor::enter(&bytes, 0).unwrap();
            prop_assert_eq!(end, bytes.len());
            for (place, it) in (7..).zip(&messages) {
                prop_assert_eq!(cursor.sequence, Sequence(place));
                let read = cursor.step(&bytes).unwrap();
                let due = (!it.delay.is_zero()).then(|| Nanos(5).after(it.delay));
                prop_assert_eq!((&bytes[read.body], read.due), (&it.body[..], due));
                prop_assert_eq!(read.key.map(|it| &bytes[it]), it.key.as_deref());
            }
            prop_assert!(cursor.step(&bytes).is_none());
            prop_assert_eq!(parse(&bytes, 8), Parsed::Bad);
            let mut damaged = bytes.to_vec();
            *flip.get_mut(&mut damaged) ^= 1;
            prop_assert!(!matches!(parse(&damaged, 9), Parsed::Frame(_)));
        }
    }

    #[test]
    fn a_header_comes_back() {
        let header = Header {
            salt: 1,
            first: Sequence(2),
            previous_end: Sequence(3),
            boot: 4,
            durability: Durability::Process,
        };
        let mut bytes = header.encode();
        assert_eq!(bytes.len() as u64, HEADER_BYTES);
        assert_eq!(Header::decode(&bytes), Ok(header));
        bytes[8] = 2;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Damaged));
        let sum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Newer(2)));
    }

    #[test]
    fn an_index_comes_back() {
        let marks = [Mark { first: Sequence(1), offset: 64, time_max: Nanos(3) }];
        let bytes = encode_index(&marks, Sequence(9), 500, 7);
        let (frame, trailer) = bytes.split_at(bytes.len() - 16);
        assert_eq!(parse_trailer(trailer), Some(500));
        assert!(matches!(parse(frame, 7), Parsed::Frame(it) if it.first == Sequence(9)));
        assert_eq!(parse_marks(frame), Some(marks.to_vec()));
    }

    #[test]
    fn names_are_exact() {
        assert_eq!(parse_name(&file_name(Sequence(12))), Some(Sequence(12)));
        assert_eq!(parse_name("12.log"), None);
        assert_eq!(parse_name("00000000000000000012.log.tmp"), None);
    }
}
