//! A file of the journal: a header, then frames, each with a checksum of itself and its place.
//!
//! A frame tells how much of the file had been flushed when it was written. So the reader can tell
//! two things apart that look alike: bytes that were never safe, because the power went (they are
//! cut, and nobody was promised anything), and bytes that were and now are wrong (damage).

use std::ops::Range;

/// Begins a file.
const MAGIC: [u8; 8] = *b"coraclqj";

/// The version of the format that is written. Older ones are read: they know less kinds of changes.
/// Newer ones are refused, not guessed at.
pub(super) const VERSION: u32 = 3;

/// Magic, version, number, checksum.
pub(super) const HEADER_BYTES: usize = 24;

/// Begins a frame, so that the next one is found behind damage.
const FRAME_MAGIC: [u8; 2] = [0xc0, 0x7a];

/// Magic, kind, zero; length of the records; bytes flushed; checksum.
pub(super) const FRAME_HEADER_BYTES: usize = 20;

/// The longest frame: more than what is aimed at and the longest record (about 200 KiB) together. A
/// length that claims more is damage.
const FRAME_MAX: usize = 1 << 20;

/// A frame that has reached this is closed.
pub(super) const FRAME_TARGET: usize = 256 << 10;

/// What the records of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    /// Part of the snapshot with which the file begins.
    Snapshot = 1,
    /// Its end.
    SnapshotEnd = 2,
    /// Changes since.
    Changes = 3,
}

impl FrameKind {
    fn parse(byte: u8) -> Option<Self> {
        [Self::Snapshot, Self::SnapshotEnd, Self::Changes].into_iter().find(|it| *it as u8 == byte)
    }
}

/// The name of the file with a number, and the name under which it is prepared.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:016x}.journal")
}

/// Ends the name of a file that is not complete.
pub(super) const TEMPORARY: &str = ".new";

/// The number of a complete file, if the name is one of ours.
pub(super) fn file_number(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(".journal")?, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

/// The first bytes of a file.
pub(super) fn header(number: u64) -> Vec<u8> {
    header_of(VERSION, number)
}

fn header_of(version: u32, number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// What the header says of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderState {
    Good,
    /// The version is one we do not know.
    Newer(u32),
    Damaged,
}

pub(super) fn read_header(number: u64, file: &[u8]) -> HeaderState {
    let version = file.get(8..12).and_then(|it| it.try_into().ok()).map(u32::from_le_bytes);
    match version {
        // Before the checksum: a newer version may have another header.
        Some(version) if file.starts_with(&MAGIC) && version > VERSION => {
            HeaderState::Newer(version)
        }
        Some(version) if 0 < version && file.starts_with(&header_of(version, number)) => {
            HeaderState::Good
        }
        _ => HeaderState::Damaged,
    }
}

/// Appends a frame that will be at `offset` of the file with this `number`, of which `flushed`
/// bytes are safe.
pub(super) fn put_frame(
    out: &mut Vec<u8>,
    place: Place,
    flushed: u64,
    kind: FrameKind,
    records: &[u8],
) {
    let length = u32::try_from(records.len()).unwrap_or(u32::MAX);
    debug_assert!(records.len() <= FRAME_MAX, "a frame of {length} bytes");
    let start = out.len();
    out.extend_from_slice(&FRAME_MAGIC);
    out.extend_from_slice(&[kind as u8, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&flushed.to_le_bytes());
    let crc = place.checksum(out.get(start..).unwrap_or_default(), records);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(records);
}

/// Where a frame is. It is part of its checksum: a frame of another file or another place, left
/// over on the disk, is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) offset: u64,
}

impl Place {
    fn checksum(self, header: &[u8], records: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.number.to_le_bytes());
        hasher.update(&self.offset.to_le_bytes());
        hasher.update(header);
        hasher.update(records);
        hasher.finalize()
    }
}

/// A frame that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) bytes: Range<usize>,
    pub(super) kind: FrameKind,
    pub(super) flushed: u64,
    pub(super) records: &'a [u8],
}

fn frame_at(number: u64, file: &[u8], start: usize) -> Option<Frame<'_>> {
    let (header, rest) = file.get(start..)?.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let (checked, crc) = header.split_last_chunk::<4>()?;
    let [m0, m1, kind, 0, l0, l1, l2, l3, flushed @ ..] = checked else { return None };
    let length = usize::try_from(u32::from_le_bytes([*l0, *l1, *l2, *l3])).ok()?;
    if [*m0, *m1] != FRAME_MAGIC || length > FRAME_MAX {
        return None;
    }
    let records = rest.get(..length)?;
    let place = Place { number, offset: start as u64 };
    if place.checksum(checked, records) != u32::from_le_bytes(*crc) {
        return None;
    }
    Some(Frame {
        bytes: start..start.checked_add(FRAME_HEADER_BYTES)?.checked_add(length)?,
        kind: FrameKind::parse(*kind)?,
        flushed: u64::from_le_bytes(flushed.try_into().ok()?),
        records,
    })
}

/// What is in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan<'a> {
    /// The frames that are whole and count, in order.
    pub(super) frames: Vec<Frame<'a>>,
    /// What had been flushed and is not readable any more.
    pub(super) damage: Vec<Range<usize>>,
    /// How many bytes at the end were never safe, and do not count.
    pub(super) cut: usize,
    /// Whether nothing of the snapshot is missing.
    pub(super) snapshot_whole: bool,
}

/// Reads a file, whatever became of it.
pub(super) fn scan(number: u64, file: &[u8]) -> Scan<'_> {
    let mut scan = Scan::default();
    let mut holes = Vec::new();
    let mut at = HEADER_BYTES.min(file.len());
    while at < file.len() {
        if let Some(frame) = frame_at(number, file, at) {
            at = frame.bytes.end;
            scan.frames.push(frame);
            continue;
        }
        let next = (at..file.len()).skip(1).find(|it| {
            file.get(*it..).is_some_and(|it| it.starts_with(&FRAME_MAGIC))
                && frame_at(number, file, *it).is_some()
        });
        let end = next.unwrap_or(file.len());
        holes.push(at..end);
        at = end;
    }
    // A file has its name only when its snapshot has been flushed.
    let snapshot_end = scan.frames.iter().find(|it| it.kind == FrameKind::SnapshotEnd);
    let snapshot_end = snapshot_end.map_or(file.len(), |it| it.bytes.end);
    let flushed = scan.frames.iter().map(|it| usize::try_from(it.flushed).unwrap_or(usize::MAX));
    let flushed = flushed.max().unwrap_or(0).max(snapshot_end);
    scan.snapshot_whole = file.len() >= HEADER_BYTES
        && scan.frames.iter().any(|it| it.kind == FrameKind::SnapshotEnd)
        && holes.iter().all(|it| it.start >= snapshot_end);
    let torn = holes.iter().map(|it| it.start).find(|it| *it >= flushed).unwrap_or(file.len());
    scan.cut = file.len() - torn;
    scan.frames.retain(|it| it.bytes.start < torn);
    holes.retain(|it| it.start < torn);
    scan.damage = holes;
    scan
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    const NUMBER: u64 = 7;

    /// A file with a snapshot and changes, of which the first two frames were flushed.
    fn file() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header(NUMBER);
        let mut flushed = 0;
        let mut starts = Vec::new();
        let frames = [
            (FrameKind::Snapshot, "some state"),
            (FrameKind::SnapshotEnd, ""),
            (FrameKind::Changes, "first"),
            (FrameKind::Changes, "second"),
            (FrameKind::Changes, "third"),
        ];
        for (index, (kind, text)) in frames.into_iter().enumerate() {
            let place = Place { number: NUMBER, offset: bytes.len() as u64 };
            starts.push(bytes.len());
            put_frame(&mut bytes, place, flushed, kind, text.as_bytes());
            if index == 1 || index == 2 {
                flushed = bytes.len() as u64;
            }
        }
        starts.push(bytes.len());
        (bytes, starts)
    }

    fn texts(scan: &Scan<'_>) -> Vec<String> {
        scan.frames.iter().map(|it| String::from_utf8_lossy(it.records).into_owned()).collect()
    }

    #[test]
    fn what_was_written_is_found() {
        let (bytes, _) = file();
        assert_eq!(read_header(NUMBER, &bytes), HeaderState::Good);
        let scan = scan(NUMBER, &bytes);
        expect![[r#"["some state", "", "first", "second", "third"]"#]]
            .assert_eq(&format!("{:?}", texts(&scan)));
        assert_eq!((scan.damage.len(), scan.cut, scan.snapshot_whole), (0, 0, true));
    }

    #[test]
    fn a_frame_of_another_file_is_none() {
        let (bytes, _) = file();
        assert!(scan(NUMBER + 1, &bytes).frames.is_empty());
    }

    #[test]
    fn a_newer_version_is_told() {
        let mut bytes = header(NUMBER);
        bytes[8] += 1;
        assert_eq!(read_header(NUMBER, &bytes), HeaderState::Newer(VERSION + 1));
        assert_eq!(read_header(NUMBER, &header_of(1, NUMBER)), HeaderState::Good);
        assert_eq!(read_header(NUMBER, &header_of(0, NUMBER)), HeaderState::Damaged);
        assert_eq!(read_header(NUMBER + 1, &header(NUMBER)), HeaderState::Damaged);
        assert_eq!(read_header(NUMBER, b"cor"), HeaderState::Damaged);
    }

    /// `third` says that `first` had been flushed: a hole there is damage, one behind it is a
    /// consequence of a power cut, whatever is behind.
    #[test]
    fn damage_is_told_from_a_torn_tail() {
        let (whole, starts) = file();
        let broken = |index: usize| {
            let mut bytes = whole.clone();
            bytes[starts[index] + 12] ^= 1;
            let scan = scan(NUMBER, &bytes);
            format!("{:?} {:?} {} {}", texts(&scan), scan.damage, scan.cut, scan.snapshot_whole)
        };
        expect![[r#"["", "first", "second", "third"] [24..54] 0 false"#]].assert_eq(&broken(0));
        expect![[r#"["some state", "first", "second", "third"] [54..74] 0 false"#]]
            .assert_eq(&broken(1));
        expect![[r#"["some state", "", "second", "third"] [74..99] 0 true"#]].assert_eq(&broken(2));
        expect![[r#"["some state", "", "first"] [] 51 true"#]].assert_eq(&broken(3));
        expect![[r#"["some state", "", "first", "second"] [] 25 true"#]].assert_eq(&broken(4));
    }

    proptest! {
        #[test]
        fn a_cut_file_has_what_is_before_the_cut(cut in any::<proptest::sample::Index>()) {
            let (bytes, starts) = file();
            let cut = cut.index(bytes.len());
            let scan = scan(NUMBER, &bytes[..cut]);
            let whole = starts.iter().skip(1).filter(|it| **it <= cut).count();
            prop_assert_eq!(scan.frames.len(), whole);
        }

        #[test]
        fn any_bytes_are_read_without_harm(
            garbage in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<proptest::sample::Index>(),
        ) {
            let (good, _) = file();
            let mut bytes = good.clone();
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + garbage.len());
            bytes.splice(at..end, garbage);
            let before = scan(NUMBER, &good);
            let after = scan(NUMBER, &bytes);
            prop_assert!(after.frames.iter().all(|it| before.frames.contains(it)));
        }
    }
}
