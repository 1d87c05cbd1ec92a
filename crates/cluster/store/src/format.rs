//! The bytes on the disk, format version 1: file names, file header, records.
//!
//! docs/decisions/0002-store.md describes it byte by byte. All numbers are little-endian.
//! Pure: bytes in, bytes out.

use bytes::Bytes;

use crate::Revision;

/// The version this program writes, and the newest it reads.
pub(crate) const VERSION: u32 = 1;

/// First bytes of every file.
const MAGIC: [u8; 8] = *b"coracle\0";

/// Size of the header of a file.
pub(crate) const HEADER_BYTES: usize = 48;

/// Size of a record before its key.
pub(crate) const RECORD_HEAD_BYTES: usize = 40;

/// Records begin at multiples of this, so that a search for them need not look at every byte.
pub(crate) const ALIGNMENT: usize = 8;

/// At most so many bytes more than key and value are in a record.
pub(crate) const RECORD_MORE_BYTES_MAX: usize = RECORD_HEAD_BYTES + ALIGNMENT;

/// Longest key. Kubernetes names are at most 253 bytes; a key joins a few of them.
pub(crate) const KEY_BYTES_MAX: usize = 4 << 10;

/// Longest value. Over the API's limit for a request body (3 MiB), with room for what is added.
pub(crate) const VALUE_BYTES_MAX: usize = 8 << 20;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Writes, in order.
    Log,
    /// All entries at one revision.
    Snapshot,
}

impl FileKind {
    const fn number(self) -> u32 {
        match self {
            Self::Log => 1,
            Self::Snapshot => 2,
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Snapshot => "snapshot",
        }
    }
}

/// The name of a file: what it is and its place in the sequence. A snapshot stands for every log
/// file with a lower number than its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileName {
    pub(crate) kind: FileKind,
    pub(crate) sequence: u64,
}

/// Ends the name of a file that is not complete.
pub(crate) const TEMPORARY: &str = ".tmp";

impl FileName {
    pub(crate) const fn log(sequence: u64) -> Self {
        Self { kind: FileKind::Log, sequence }
    }

    pub(crate) const fn snapshot(sequence: u64) -> Self {
        Self { kind: FileKind::Snapshot, sequence }
    }

    /// The file that `name` is, if it is one of ours.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (number, extension) = name.split_once('.')?;
        let sequence = u64::from_str_radix(number, 16).ok()?;
        [FileKind::Log, FileKind::Snapshot]
            .into_iter()
            .find(|it| it.extension() == extension)
            .map(|kind| Self { kind, sequence })
            .filter(|it| it.text() == name)
    }

    pub(crate) fn text(self) -> String {
        format!("{:016x}.{}", self.sequence, self.kind.extension())
    }

    /// The name under which it is prepared.
    pub(crate) fn temporary(self) -> String {
        self.text() + TEMPORARY
    }
}

/// The first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: FileName,
    /// Of a log, the revision before its first record. Of a snapshot, the revision it shows.
    pub(crate) base: Revision,
    /// Whether records may have been acknowledged before they were flushed.
    pub(crate) unflushed: bool,
}

/// Why a header is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Corrupt(&'static str),
    Newer(u32),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.name.kind.number().to_le_bytes());
        bytes.extend_from_slice(&self.name.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.base.get().to_le_bytes());
        bytes.extend_from_slice(&u64::from(self.unflushed).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&bytes);
        header
    }

    /// Reads the header of the file called `name`.
    pub(crate) fn decode(name: FileName, file: &[u8]) -> Result<Self, HeaderError> {
        let corrupt = HeaderError::Corrupt;
        let header =
            file.get(..HEADER_BYTES).ok_or(corrupt("the file is shorter than a header"))?;
        if !header.starts_with(&MAGIC) {
            return Err(corrupt("this is not a file of the store"));
        }
        let number = |offset| u64_at(header, offset).unwrap_or_default();
        let version = u32_at(header, 8).unwrap_or_default();
        // Before the checksum: a newer version may have another header.
        if version > VERSION {
            return Err(HeaderError::Newer(version));
        }
        let checked = header.get(..HEADER_BYTES - 4).unwrap_or_default();
        if u32_at(header, HEADER_BYTES - 4) != Some(crc32fast::hash(checked)) {
            return Err(corrupt("the header does not match its checksum"));
        }
        if u32_at(header, 12) != Some(name.kind.number()) || number(16) != name.sequence {
            return Err(corrupt("the header belongs to a file of another name"));
        }
        Ok(Self { name, base: Revision::new(number(24)), unflushed: number(32) != 0 })
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// In a log: the key has this value now.
    Put,
    /// In a log: the key is gone; the value is what watchers are shown.
    Delete,
    /// In a snapshot: an entry.
    Entry,
    /// The last record of a snapshot; `created` holds the number of entries.
    End,
}

impl RecordKind {
    const fn number(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Delete => 2,
            Self::Entry => 3,
            Self::End => 4,
        }
    }

    fn parse(number: u8) -> Option<Self> {
        [Self::Put, Self::Delete, Self::Entry, Self::End]
            .into_iter()
            .find(|it| it.number() == number)
    }
}

/// One record, still in the file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: RecordKind,
    /// The write; of a snapshot's entry, the last write of its key.
    pub(crate) revision: Revision,
    /// The last revision known to be durable when this record was written. A record that cannot
    /// be read is a torn tail, unless one behind it says that it had been durable.
    pub(crate) durable: Revision,
    pub(crate) created: Revision,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// What stands at a place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    /// A record, and where the next one begins.
    Record(Record<'a>, usize),
    /// Zeros, or the end of the file: nothing was written here.
    Nothing,
    /// Something else.
    Bad(&'static str),
}

impl<'a> Record<'a> {
    /// Appends the record to `out`, padded to [`ALIGNMENT`].
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let (key_len, value_len) = (self.key.len(), self.value.len());
        let body = RECORD_HEAD_BYTES - 8 + key_len + value_len;
        // Both fit: keys and values are far below 4 GiB (KEY_BYTES_MAX, VALUE_BYTES_MAX).
        let length = u32::try_from(body).unwrap_or(u32::MAX).to_le_bytes();
        let key_length = u32::try_from(key_len).unwrap_or(u32::MAX).to_le_bytes();
        out.extend_from_slice(&length);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.revision.get().to_le_bytes());
        out.extend_from_slice(&self.durable.get().to_le_bytes());
        out.extend_from_slice(&self.created.get().to_le_bytes());
        out.extend_from_slice(&[self.kind.number(), 0, 0, 0]);
        out.extend_from_slice(&key_length);
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
        let crc = checksum(&length, out.get(start + 8..).unwrap_or_default());
        if let Some(place) = out.get_mut(start + 4..start + 8) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// Reads the record at `offset` of `file`.
    pub(crate) fn decode(file: &'a [u8], offset: usize) -> Decoded<'a> {
        let rest = file.get(offset..).unwrap_or_default();
        let Some(length) = u32_at(rest, 0).filter(|it| *it != 0) else {
            // A length of zero ends the log, but only if nothing at all stands behind it.
            let blank = rest.iter().all(|it| *it == 0);
            return if blank { Decoded::Nothing } else { Decoded::Bad("a record has no length") };
        };
        match Self::decode_body(rest, length) {
            Ok((record, size)) => Decoded::Record(record, offset + size),
            Err(reason) => Decoded::Bad(reason),
        }
    }

    fn decode_body(rest: &'a [u8], length: u32) -> Result<(Self, usize), &'static str> {
        let size = 8 + usize::try_from(length).map_err(|_| "a record is too long")?;
        if size > RECORD_HEAD_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX {
            return Err("a record is too long");
        }
        let body = rest.get(8..size).ok_or("a record is longer than the file")?;
        let payload = rest.get(RECORD_HEAD_BYTES..size).ok_or("a record is too short")?;
        if u32_at(rest, 4) != Some(checksum(&length.to_le_bytes(), body)) {
            return Err("a record does not match its checksum");
        }
        let number = |offset| Revision::new(u64_at(rest, offset).unwrap_or_default());
        let key_length = u32_at(rest, 36).and_then(|it| usize::try_from(it).ok());
        let (key, value) = key_length
            .and_then(|it| payload.split_at_checked(it))
            .ok_or("a record's key is longer than the record")?;
        let kind = rest
            .get(32)
            .and_then(|it| RecordKind::parse(*it))
            .ok_or("a record is of an unknown kind")?;
        let (revision, durable, created) = (number(8), number(16), number(24));
        let record = Self { kind, revision, durable, created, key, value };
        Ok((record, size.next_multiple_of(ALIGNMENT)))
    }

    /// Its key and value, copied out of the file.
    pub(crate) fn copied(&self) -> (Bytes, Bytes) {
        (Bytes::copy_from_slice(self.key), Bytes::copy_from_slice(self.value))
    }
}

/// Whether a record behind `offset` says that `revision` had been durable, and where it stands.
pub(crate) fn proof_of(revision: Revision, file: &[u8], offset: usize) -> Option<usize> {
    (offset..file.len()).step_by(ALIGNMENT).skip(1).find(|it| {
        // Looked at before the checksum, so that the search stays linear.
        let durable = u64_at(file, it + 16).is_some_and(|it| it >= revision.get());
        let later = u64_at(file, it + 8) > u64_at(file, it + 16);
        durable && later && matches!(Record::decode(file, *it), Decoded::Record(..))
    })
}

/// Checksum of a record; it covers the length, so that a torn length cannot lead astray.
fn checksum(length: &[u8; 4], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(body);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_le_bytes(*field))
}
