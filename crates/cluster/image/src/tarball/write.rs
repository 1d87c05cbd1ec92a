//! Writes entries: ustar headers, PAX records for what does not fit them. The same entries give the
//! same bytes.

use std::io::{self, Read, Write};

use super::{BLOCK, Entry, Kind, padding};

/// Largest owner that fits seven octal digits.
const OWNER_MAX: u64 = 0o7_777_777;
/// Largest size or time that fits eleven octal digits.
const SIZE_MAX: u64 = 0o77_777_777_777;
/// Bytes of the fields for a name and a link's target.
const NAME_MAX: usize = 100;

/// Writes a tar stream.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    /// Into an empty stream.
    pub fn new(output: W) -> Self {
        Self { output }
    }

    /// Adds an entry. `data` has the bytes of a file and is not read for others; whole files only,
    /// sparse ones are written with their zeros.
    ///
    /// # Errors
    /// Those of either stream; `UnexpectedEof` if `data` is shorter than the file was said to be.
    pub fn append(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        let (kind, size, link, device) = parts(&entry.kind);
        let records = records(entry, size, link);
        if !records.is_empty() {
            let length = records.len() as u64;
            let mut header = Block::new(b"@PaxHeader", b'x', 0o644);
            header.number(124, 12, length);
            self.output.write_all(&header.summed())?;
            self.output.write_all(&records)?;
            self.pad(length)?;
        }
        let mut header = Block::new(&entry.name, kind, entry.mode & 0o7777);
        header.number(108, 8, Some(entry.uid).filter(|it| *it <= OWNER_MAX).unwrap_or(0));
        header.number(116, 8, Some(entry.gid).filter(|it| *it <= OWNER_MAX).unwrap_or(0));
        header.number(124, 12, Some(size).filter(|it| *it <= SIZE_MAX).unwrap_or(0));
        header.number(136, 12, header_time(entry));
        header.text(157, NAME_MAX, link);
        if let Some((major, minor)) = device {
            header.number(329, 8, u64::from(major));
            header.number(337, 8, u64::from(minor));
        }
        self.output.write_all(&header.summed())?;
        if io::copy(&mut data.take(size), &mut self.output)? != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file has become shorter",
            ));
        }
        self.pad(size)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        Ok(self.output)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        io::copy(&mut io::repeat(0).take(padding(size)), &mut self.output)?;
        Ok(())
    }
}

type Parts<'a> = (u8, u64, &'a [u8], Option<(u32, u32)>);

fn parts(kind: &Kind) -> Parts<'_> {
    match kind {
        Kind::File { size, .. } => (b'0', *size, &[], None),
        Kind::HardLink(target) => (b'1', 0, target, None),
        Kind::SymbolicLink(target) => (b'2', 0, target, None),
        Kind::Character(major, minor) => (b'3', 0, &[], Some((*major, *minor))),
        Kind::Block(major, minor) => (b'4', 0, &[], Some((*major, *minor))),
        Kind::Folder => (b'5', 0, &[], None),
        Kind::Pipe => (b'6', 0, &[], None),
    }
}

/// A time before 1970 stands in a record.
fn header_time(entry: &Entry) -> u64 {
    u64::try_from(entry.time.seconds).ok().filter(|it| *it <= SIZE_MAX).unwrap_or(0)
}

/// The PAX records that the entry needs, in a fixed order.
fn records(entry: &Entry, size: u64, link: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut decimal = |needed: bool, key: &str, value: String| {
        if needed {
            records.extend(record(key.as_bytes(), value.as_bytes()));
        }
    };
    let seconds = entry.time.seconds;
    let is_odd_time = u64::try_from(seconds).ok() != Some(header_time(entry));
    decimal(OWNER_MAX < entry.gid, "gid", entry.gid.to_string());
    decimal(is_odd_time, "mtime", seconds.to_string());
    decimal(SIZE_MAX < size, "size", size.to_string());
    decimal(OWNER_MAX < entry.uid, "uid", entry.uid.to_string());
    if NAME_MAX < entry.name.len() {
        records.extend(record(b"path", &entry.name));
    }
    if NAME_MAX < link.len() {
        records.extend(record(b"linkpath", link));
    }
    for (name, value) in &entry.attributes {
        records.extend(record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value));
    }
    records
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

struct Block([u8; BLOCK]);

impl Block {
    fn new(name: &[u8], kind: u8, mode: u32) -> Self {
        let mut block = Self([0; BLOCK]);
        block.text(0, NAME_MAX, name);
        block.number(100, 8, u64::from(mode));
        block.number(108, 8, 0);
        block.number(116, 8, 0);
        block.number(124, 12, 0);
        block.number(136, 12, 0);
        block.text(148, 8, b"        ");
        block.text(156, 1, &[kind]);
        block.text(257, 8, b"ustar\x0000");
        block
    }

    fn text(&mut self, at: usize, length: usize, text: &[u8]) {
        let into = self.0.get_mut(at..at + length).unwrap_or_default();
        for (to, from) in into.iter_mut().zip(text) {
            *to = *from;
        }
    }

    fn number(&mut self, at: usize, length: usize, number: u64) {
        let width = length - 1;
        self.text(at, length, format!("{number:0width$o}\0").as_bytes());
    }

    fn summed(mut self) -> [u8; BLOCK] {
        let sum: u64 = self.0.iter().map(|it| u64::from(*it)).sum();
        self.text(148, 8, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}
