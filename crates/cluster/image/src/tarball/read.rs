//! Reads entries one by one. Memory is bounded whatever the stream says.
//!
//! Ref: POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Extended Header"; the GNU tar
//! manual, "Basic Tar Format".

use std::io::{BufRead, Read, Seek, SeekFrom};

use super::{BLOCK, Entry, Error, Kind, Time, padding, pax::Extension, sparse};

/// Longest extended header (names, attributes) of one entry, in bytes: what Go's reader takes, with
/// which images are made.
pub(crate) const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// Most extended headers before one entry: a real one has a name, a link and a PAX header.
const EXTENSIONS_MAX: usize = 16;

/// Reads a tar stream.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes of the current entry that are still in the stream.
    left: u64,
    /// Bytes up to the next header, after those.
    padding: u64,
    done: bool,
}

/// A raw header block.
pub(super) struct Header(pub(super) [u8; BLOCK]);

impl<R: Read> Reader<R> {
    /// Of a stream that has not been read from.
    pub fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0, done: false }
    }

    /// The next entry; what was not read of the one before is skipped. `None` at the end.
    ///
    /// # Errors
    /// [`Error`]; nothing sensible can be read after one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut extension = Extension::default();
        for _ in 0..EXTENSIONS_MAX {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            match header.kind() {
                b'x' => extension.read_pax(&self.extension(&header)?)?,
                // Of all that follows, which no tool of images writes; Go's reader does not heed it.
                b'g' => drop(self.extension(&header)?),
                b'L' => extension.set_long_name(self.extension(&header)?),
                b'K' => extension.set_long_link(self.extension(&header)?),
                // The name of a volume.
                b'V' => {}
                _ => return self.entry(&header, extension).map(Some),
            }
        }
        Err(Error::Field("number of extended headers"))
    }

    /// The bytes of the current entry, those that are in the stream.
    pub fn data(&mut self) -> Data<'_, R> {
        Data(self)
    }

    /// Reads what is behind the end of the archive, to the end of the stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(mut self) -> Result<(), Error> {
        std::io::copy(&mut self.input, &mut std::io::sink()).map_err(Error::Read)?;
        Ok(())
    }

    fn entry(&mut self, header: &Header, extension: Extension) -> Result<Entry, Error> {
        let stored = extension.size.map_or_else(|| header.size(), Ok)?;
        let mut name = extension.name.unwrap_or_else(|| header.name());
        let link = extension.link.unwrap_or_else(|| header.text(157, 100).to_vec());
        let device = || Ok((header.small(329, "device")?, header.small(337, "device")?));
        let kind = match header.kind() {
            b'0' | b'7' | b'S' => self.file(header, stored, &extension.sparse, &mut name)?,
            // Before POSIX, folders were files whose name says so.
            0 if name.ends_with(b"/") => Kind::Folder,
            0 => self.file(header, stored, &extension.sparse, &mut name)?,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::SymbolicLink(link),
            b'3' => device().map(|(major, minor)| Kind::Character(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::Block(major, minor))?,
            b'5' => Kind::Folder,
            b'6' => Kind::Pipe,
            other => return Err(Error::Type(char::from(other))),
        };
        let time =
            || header.signed(136, 12, "time").map(|seconds| Time { seconds, nanoseconds: 0 });
        Ok(Entry {
            name,
            kind,
            mode: u32::try_from(header.number(100, 8, "mode")? & 0o7777).unwrap_or_default(),
            uid: extension.uid.map_or_else(|| header.number(108, 8, "owner"), Ok)?,
            gid: extension.gid.map_or_else(|| header.number(116, 8, "group"), Ok)?,
            time: extension.time.map_or_else(time, Ok)?,
            attributes: extension.attributes,
        })
    }

    /// The rest of a regular file's header: what of it is where.
    fn file(
        &mut self,
        header: &Header,
        stored: u64,
        sparse: &sparse::Words,
        name: &mut Vec<u8>,
    ) -> Result<Kind, Error> {
        (self.left, self.padding) = (stored, padding(stored));
        let map = if header.kind() == b'S' {
            let map = sparse::old_gnu(header, |block| read_block(&mut self.input, block))?;
            Some(map)
        } else if sparse.is_version_1() {
            let map = sparse::version_1(sparse, |block| {
                self.left = self.left.checked_sub(BLOCK as u64).ok_or(Error::Short)?;
                read_block(&mut self.input, block)
            })?;
            Some(map)
        } else {
            sparse::version_0(sparse)?
        };
        if let Some(real) = &sparse.name {
            name.clone_from(real);
        }
        let Some((size, pieces)) = map else {
            return Ok(Kind::File { size: stored, pieces: None });
        };
        sparse::check(size, &pieces, self.left)?;
        Ok(Kind::File { size, pieces: Some(pieces) })
    }

    /// The next header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        if self.done {
            return Ok(None);
        }
        let mut header = Header([0; BLOCK]);
        let mut filled = 0;
        while let Some(rest) = header.0.get_mut(filled..).filter(|it| !it.is_empty()) {
            match self.input.read(rest) {
                Ok(0) if filled == 0 => break,
                Ok(0) => return Err(Error::Short),
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        // A block of zeros ends the archive; so does the end of the stream.
        if header.0.iter().all(|it| *it == 0) {
            self.done = true;
            return Ok(None);
        }
        header.check()?;
        Ok(Some(header))
    }

    /// The contents of an extended header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, Error> {
        let size = header.size()?;
        if EXTENSION_BYTES_MAX < size {
            return Err(Error::Extension(size));
        }
        (self.left, self.padding) = (size, padding(size));
        let mut contents = Vec::new();
        self.data().read_to_end(&mut contents).map_err(Error::Read)?;
        if contents.len() as u64 == size { Ok(contents) } else { Err(Error::Short) }
    }

    fn skip(&mut self) -> Result<(), Error> {
        let count = self.left.checked_add(self.padding).ok_or(Error::Field("size"))?;
        let skipped = std::io::copy(&mut (&mut self.input).take(count), &mut std::io::sink());
        let skipped = skipped.map_err(Error::Read)?;
        // The padding of the last entry may be missing, as Go's reader has it.
        if skipped < self.left {
            return Err(Error::Short);
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Goes past the bytes of the current entry without reading them, and says where they begin. That the
    /// stream ends before they do is not noticed.
    ///
    /// # Errors
    /// Those of the stream; [`Error::Field`] for a size that no stream has.
    pub fn pass(&mut self) -> Result<u64, Error> {
        let begin = self.input.stream_position().map_err(Error::Read)?;
        let end = begin.checked_add(self.left).and_then(|it| it.checked_add(self.padding));
        let end = end.ok_or(Error::Field("size"))?;
        self.input.seek(SeekFrom::Start(end)).map_err(Error::Read)?;
        (self.left, self.padding) = (0, 0);
        Ok(begin)
    }
}

/// The stored bytes of one entry.
#[derive(Debug)]
pub struct Data<'a, R>(&'a mut Reader<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.0.left).unwrap_or(usize::MAX).min(into.len());
        let into = into.get_mut(..most).unwrap_or_default();
        let count = self.0.input.read(into)?;
        self.0.left -= count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Data<'_, R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.0.left == 0 {
            return Ok(&[]);
        }
        let available = self.0.input.fill_buf()?;
        let most = usize::try_from(self.0.left).unwrap_or(usize::MAX).min(available.len());
        Ok(available.get(..most).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.0.left = self.0.left.saturating_sub(count as u64);
        self.0.input.consume(count);
    }
}

fn read_block(input: &mut impl Read, block: &mut [u8; BLOCK]) -> Result<(), Error> {
    input.read_exact(block).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::Short,
        _ => Error::Read(error),
    })
}

impl Header {
    fn kind(&self) -> u8 {
        self.0[156]
    }

    /// A field up to its first NUL.
    pub(super) fn text(&self, at: usize, length: usize) -> &[u8] {
        let field = self.field(at, length);
        field.split(|it| *it == 0).next().unwrap_or_default()
    }

    fn field(&self, at: usize, length: usize) -> &[u8] {
        self.0.get(at..at + length).unwrap_or_default()
    }

    /// The name, with the prefix that ustar puts before a long one.
    fn name(&self) -> Vec<u8> {
        let (name, prefix) = (self.text(0, 100), self.text(345, 155));
        // GNU's magic is another one: it keeps times where the prefix would be.
        if self.field(257, 8) != b"ustar\x0000" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn size(&self) -> Result<u64, Error> {
        self.number(124, 12, "size")
    }

    fn small(&self, at: usize, what: &'static str) -> Result<u32, Error> {
        u32::try_from(self.number(at, 8, what)?).map_err(|_| Error::Field(what))
    }

    pub(super) fn number(
        &self,
        at: usize,
        length: usize,
        what: &'static str,
    ) -> Result<u64, Error> {
        number(self.field(at, length))
            .and_then(|it| u64::try_from(it).ok())
            .filter(|it| i64::try_from(*it).is_ok())
            .ok_or(Error::Field(what))
    }

    fn signed(&self, at: usize, length: usize, what: &'static str) -> Result<i64, Error> {
        let number = number(self.field(at, length)).ok_or(Error::Field(what))?;
        i64::try_from(number).map_err(|_| Error::Field(what))
    }

    /// The sum of all bytes with the field itself as spaces; old tools summed signed bytes.
    fn check(&self) -> Result<(), Error> {
        let bytes = || {
            let field = 148..156;
            self.0.iter().zip(0..).map(move |(it, at)| if field.contains(&at) { b' ' } else { *it })
        };
        let unsigned: i128 = bytes().map(i128::from).sum();
        let signed: i128 = bytes().map(|it| i128::from(it.cast_signed())).sum();
        let said = number(self.field(148, 8)).ok_or(Error::Checksum)?;
        if said == unsigned || said == signed { Ok(()) } else { Err(Error::Checksum) }
    }
}

/// Octal digits between spaces and NULs, or, with the highest bit set, base 256 (GNU).
pub(super) fn number(field: &[u8]) -> Option<i128> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Twelve bytes at most, so nothing overflows. The bit below the highest is the sign.
        let start = i128::from(first & 0x7f) - if first & 0x40 != 0 { 0x80 } else { 0 };
        return Some(rest.iter().fold(start, |sum, it| (sum << 8) | i128::from(*it)));
    }
    let is_blank = |it: &u8| *it == b' ' || *it == 0;
    let from = field.iter().position(|it| !is_blank(it)).unwrap_or(field.len());
    let digits = field.get(from..)?;
    let to = digits.iter().position(is_blank).unwrap_or(digits.len());
    let digits = std::str::from_utf8(digits.get(..to)?).ok()?;
    if digits.is_empty() {
        return Some(0);
    }
    digits.bytes().all(|it| it.is_ascii_digit()).then(|| i128::from_str_radix(digits, 8).ok())?
}
