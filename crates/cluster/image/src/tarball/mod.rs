//! Tar streams: what layers and archives of images are. Reads ustar, PAX, GNU and sparse entries
//! from whomever, within limits; writes PAX, the same bytes for the same entries.
//!
//! Does not touch the file system, and believes no name: that is `unpack`.

mod pax;
mod read;
mod sparse;
mod write;

pub use read::{Data, Reader};
pub use write::Writer;

/// Size of a block: headers and data come in these.
pub(crate) const BLOCK: usize = 512;

/// What a tar calls one of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As it stands in the stream: perhaps absolute, perhaps with `..`.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions with set-id and sticky bits: twelve bits.
    pub mode: u32,
    /// Owner, as numbered in the image.
    pub uid: u64,
    /// Group, as numbered in the image.
    pub gid: u64,
    /// When its contents changed.
    pub time: Time,
    /// Extended attributes, by name.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Kinds of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes. Of a sparse one only `pieces` are in the stream, one after
    /// the other.
    File {
        /// Logical size in bytes.
        size: u64,
        /// Where the bytes of the stream belong; `None` for all of it from the start.
        pieces: Option<Vec<Piece>>,
    },
    /// A folder.
    Folder,
    /// Another name of an earlier entry.
    HardLink(Vec<u8>),
    /// A symbolic link with its target.
    SymbolicLink(Vec<u8>),
    /// A character device: major and minor number.
    Character(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Pipe,
}

/// A run of bytes in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the file.
    pub at: u64,
    /// Bytes.
    pub length: u64,
}

/// Seconds since 1970 and nanoseconds below a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// May be negative.
    pub seconds: i64,
    /// Below 1 000 000 000.
    pub nanoseconds: u32,
}

/// What is wrong with a tar stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream below failed.
    #[error("cannot read the tar stream")]
    Read(#[source] std::io::Error),
    /// The stream ends inside of an entry.
    #[error("the tar stream ends within an entry")]
    Short,
    /// A header's checksum is wrong: not a tar, or a damaged one.
    #[error("not a tar header: wrong checksum")]
    Checksum,
    /// A field that is no number, or one out of bounds.
    #[error("bad {0} in a tar header")]
    Field(&'static str),
    /// A kind of entry that no image has: continued volumes, vendor's own.
    #[error("a tar entry of the unknown type {0:?}")]
    Type(char),
    /// More bytes of extended header than anyone needs.
    #[error("an extended tar header of {0} bytes, at most {max}", max = read::EXTENSION_BYTES_MAX)]
    Extension(u64),
    /// More pieces in a sparse file than anyone needs.
    #[error("a sparse file of too many pieces, at most {max}", max = sparse::PIECES_MAX)]
    Pieces,
}

/// Bytes that fill up the last block of `size` bytes.
pub(crate) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

#[cfg(test)]
mod tests;
