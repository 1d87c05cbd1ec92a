//! The four ways in which GNU tar says where the bytes of a sparse file belong.
//!
//! Ref: GNU tar manual, "Storing Sparse Files".

use super::{BLOCK, Error, Piece, pax::decimal, read::Header};

/// Most pieces of one sparse file. A map of them is in memory: 16 bytes each.
pub(super) const PIECES_MAX: usize = 1 << 18;

/// Longest number in a map that is text, with its newline.
const DIGITS_MAX: usize = 21;

type Map = (u64, Vec<Piece>);

/// PAX records that begin with `GNU.sparse.`.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    real_size: Option<u64>,
    major: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
    has_map: bool,
}

impl Words {
    pub(super) fn set(&mut self, word: &[u8], value: &[u8]) -> Result<(), Error> {
        let number = || decimal(value).ok_or(Error::Field("sparse map"));
        match word {
            b"name" => self.name = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"realsize" => self.real_size = Some(number()?),
            b"major" => self.major = Some(number()?),
            b"numblocks" => self.has_map = true,
            b"offset" | b"numbytes" => {
                self.has_map = true;
                self.numbers.push(number()?);
            }
            b"map" => {
                self.has_map = true;
                for text in value.split(|it| *it == b',').filter(|it| !it.is_empty()) {
                    self.numbers.push(decimal(text).ok_or(Error::Field("sparse map"))?);
                }
            }
            _ => {}
        }
        if 2 * PIECES_MAX < self.numbers.len() { Err(Error::Pieces) } else { Ok(()) }
    }

    pub(super) fn is_version_1(&self) -> bool {
        self.major == Some(1)
    }
}

/// Versions 0.0 and 0.1: the map is in PAX records.
pub(super) fn version_0(words: &Words) -> Result<Option<Map>, Error> {
    let Some(size) = words.size.filter(|_| words.has_map) else { return Ok(None) };
    Ok(Some((size, pieces(&words.numbers)?)))
}

/// Version 1.0: the map is text before the data, filled up to a block.
pub(super) fn version_1(
    words: &Words,
    mut next: impl FnMut(&mut [u8; BLOCK]) -> Result<(), Error>,
) -> Result<Map, Error> {
    const BAD: Error = Error::Field("sparse map");
    let size = words.real_size.ok_or(BAD)?;
    let mut text: Vec<u8> = Vec::new();
    let mut block = [0; BLOCK];
    let mut number = || -> Result<u64, Error> {
        loop {
            if let Some(end) = text.iter().position(|it| *it == b'\n') {
                let number = text.get(..end).and_then(decimal).ok_or(BAD)?;
                text.drain(..=end);
                return Ok(number);
            }
            if DIGITS_MAX < text.len() {
                return Err(BAD);
            }
            next(&mut block)?;
            text.extend_from_slice(&block);
        }
    };
    let count = usize::try_from(number()?).map_err(|_| Error::Pieces)?;
    if PIECES_MAX < count {
        return Err(Error::Pieces);
    }
    let numbers: Vec<u64> = (0..2 * count).map(|_| number()).collect::<Result<_, _>>()?;
    Ok((size, pieces(&numbers)?))
}

/// GNU's own entry type: four pieces in the header, more in blocks behind it.
pub(super) fn old_gnu(
    header: &Header,
    mut next: impl FnMut(&mut [u8; BLOCK]) -> Result<(), Error>,
) -> Result<Map, Error> {
    let size = header.number(483, 12, "sparse size")?;
    let mut numbers = Vec::new();
    take(header, 386, 4, &mut numbers)?;
    let mut is_continued = header.0[482] != 0;
    while is_continued {
        let mut block = Header([0; BLOCK]);
        next(&mut block.0)?;
        take(&block, 0, 21, &mut numbers)?;
        is_continued = block.0[504] != 0;
        if 2 * PIECES_MAX < numbers.len() {
            return Err(Error::Pieces);
        }
    }
    Ok((size, pieces(&numbers)?))
}

fn take(block: &Header, from: usize, count: usize, numbers: &mut Vec<u64>) -> Result<(), Error> {
    for at in (from..).step_by(24).take(count) {
        if block.text(at, 24).is_empty() {
            break;
        }
        numbers.push(block.number(at, 12, "sparse map")?);
        numbers.push(block.number(at + 12, 12, "sparse map")?);
    }
    Ok(())
}

fn pieces(numbers: &[u64]) -> Result<Vec<Piece>, Error> {
    numbers
        .chunks(2)
        .map(|pair| match pair {
            [at, length] => Ok(Piece { at: *at, length: *length }),
            _ => Err(Error::Field("sparse map")),
        })
        .collect()
}

/// Pieces come in order, lie within the file and are all of the `stored` bytes.
pub(super) fn check(size: u64, pieces: &[Piece], stored: u64) -> Result<(), Error> {
    const BAD: Error = Error::Field("sparse map");
    let mut end = 0;
    let mut sum = 0_u64;
    for piece in pieces {
        if piece.at < end {
            return Err(BAD);
        }
        end = piece.at.checked_add(piece.length).ok_or(BAD)?;
        sum = sum.checked_add(piece.length).ok_or(BAD)?;
    }
    if end <= size && sum == stored { Ok(()) } else { Err(BAD) }
}
