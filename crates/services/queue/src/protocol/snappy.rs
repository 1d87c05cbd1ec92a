//! The framing format of snappy (google/snappy, `framing_format.txt`): chunks with checksums.
//!
//! Does no IO: what arrived goes in, what it says comes out, a chunk at a time, so that little
//! input never becomes much memory. `snap`'s own reader and writer of frames hold 140 kB each per
//! connection, used or not; here nothing is held.

use bytes::{Buf as _, BufMut as _, BytesMut};

/// The longest data of one chunk. The format's.
const CHUNK_MAX: usize = 64 * 1024;
/// The longest chunk: what does not compress grows a little, and its checksum.
const CHUNK_WIRE_MAX: usize = CHECKSUM + 32 + CHUNK_MAX + CHUNK_MAX / 6;
/// A type and three bytes of length.
const HEADER: usize = 4;
/// Of the data, before it.
const CHECKSUM: usize = 4;

const COMPRESSED: u8 = 0x00;
const UNCOMPRESSED: u8 = 0x01;
/// Types from here on may be skipped by who does not know them.
const SKIPPABLE: u8 = 0x80;
const IDENTIFIER: u8 = 0xff;
const IDENTIFIER_CHUNK: &[u8] = b"\xff\x06\0\0sNaPpY";

/// A stream that is not snappy, or was damaged.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the compressed stream is damaged")]
pub(super) struct Damaged;

/// Reads what a client compressed.
#[derive(Debug, Default)]
pub(super) struct Reader {
    started: bool,
    skip: usize,
}

impl Reader {
    /// Moves what one chunk says from `wire` to `plain`; `false` if none has arrived.
    ///
    /// # Errors
    /// If it is no such stream.
    pub(super) fn read(
        &mut self,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
    ) -> Result<bool, Damaged> {
        let skipped = self.skip.min(wire.len());
        wire.advance(skipped);
        self.skip -= skipped;
        let Some(&[kind, a, b, c]) = wire.first_chunk::<HEADER>() else { return Ok(false) };
        let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
        if !self.started && kind != IDENTIFIER {
            return Err(Damaged);
        }
        if SKIPPABLE <= kind && kind != IDENTIFIER {
            wire.advance(HEADER);
            self.skip = length;
            return Ok(true);
        }
        if CHUNK_WIRE_MAX < length {
            return Err(Damaged);
        }
        if wire.len() < HEADER + length {
            return Ok(false);
        }
        let chunk = wire.split_to(HEADER + length);
        if kind == IDENTIFIER {
            self.started = true;
            return if chunk == IDENTIFIER_CHUNK { Ok(true) } else { Err(Damaged) };
        }
        let (sum, data) =
            chunk.get(HEADER..).and_then(|it| it.split_first_chunk::<CHECKSUM>()).ok_or(Damaged)?;
        let before = plain.len();
        match kind {
            COMPRESSED => {
                let length = snap::raw::decompress_len(data).map_err(|_| Damaged)?;
                if CHUNK_MAX < length {
                    return Err(Damaged);
                }
                plain.resize(before + length, 0);
                let into = plain.get_mut(before..).unwrap_or_default();
                snap::raw::Decoder::new().decompress(data, into).map_err(|_| Damaged)?;
            }
            UNCOMPRESSED if data.len() <= CHUNK_MAX => plain.put_slice(data),
            _ => return Err(Damaged),
        }
        let right = u32::from_le_bytes(*sum) == masked(plain.get(before..).unwrap_or_default());
        if right { Ok(true) } else { Err(Damaged) }
    }
}

/// Compresses what a client reads.
#[derive(Debug, Default)]
pub(super) struct Writer {
    started: bool,
}

impl Writer {
    /// Appends to `wire` what says `plain`.
    pub(super) fn write(&mut self, plain: &[u8], wire: &mut BytesMut) {
        if !std::mem::replace(&mut self.started, true) {
            wire.put_slice(IDENTIFIER_CHUNK);
        }
        let mut encoder = snap::raw::Encoder::new();
        for data in plain.chunks(CHUNK_MAX) {
            let compressed = encoder.compress_vec(data).unwrap_or_default();
            // Less than an eighth is not worth the reader's time; nothing at all is a failure.
            let worth = !compressed.is_empty() && compressed.len() < data.len() - data.len() / 8;
            let (kind, body) =
                if worth { (COMPRESSED, &compressed[..]) } else { (UNCOMPRESSED, data) };
            let length = u32::try_from(CHECKSUM + body.len()).unwrap_or_default();
            wire.reserve(HEADER + CHECKSUM + body.len());
            wire.put_u8(kind);
            wire.put_uint_le(u64::from(length), 3);
            wire.put_u32_le(masked(data));
            wire.put_slice(body);
        }
    }
}

/// The checksum as the format has it: disguised, as it is not good to sum data that has its sum.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// How many bytes are summed at once.
const STRIDE: usize = 8;

/// For each byte, at each of the places of a stride, what it adds to a CRC-32C (RFC 3720, B.4).
static TABLES: [[u32; 256]; STRIDE] = tables();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would see it")]
const fn tables() -> [[u32; 256]; STRIDE] {
    let mut tables = [[0u32; 256]; STRIDE];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut sum = byte;
        let mut place = 0;
        while place < STRIDE {
            let mut bit = 0;
            while bit < 8 {
                sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
                bit += 1;
            }
            tables[place][byte as usize] = sum;
            place += 1;
        }
        byte += 1;
    }
    tables
}

fn crc32c(data: &[u8]) -> u32 {
    let (strides, rest) = data.as_chunks::<STRIDE>();
    let mut sum = u32::MAX;
    for stride in strides {
        let mixed = u64::from_le_bytes(*stride) ^ u64::from(sum);
        let bytes = mixed.to_le_bytes();
        let sums = bytes.iter().zip(TABLES.iter().rev()).map(|(&byte, table)| entry(table, byte));
        sum = sums.fold(0, |sum, it| sum ^ it);
    }
    let [table, ..] = &TABLES;
    for &byte in rest {
        let [low, ..] = sum.to_le_bytes();
        sum = sum >> 8 ^ entry(table, low ^ byte);
    }
    !sum
}

#[expect(clippy::indexing_slicing, reason = "a byte is always within 256 entries")]
fn entry(table: &[u32; 256], byte: u8) -> u32 {
    table[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use proptest::prelude::*;

    use super::*;

    fn read(stream: &[u8], cut: usize) -> Result<Vec<u8>, Damaged> {
        let (mut reader, mut plain) = (Reader::default(), BytesMut::new());
        let mut wire = BytesMut::new();
        for piece in stream.chunks(cut) {
            wire.extend_from_slice(piece);
            while reader.read(&mut wire, &mut plain)? {}
        }
        Ok(plain.to_vec())
    }

    #[test]
    fn sums_as_the_standard_says() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn damage_is_seen() {
        let mut wire = BytesMut::new();
        let plain: Vec<u8> = (0..200).map(|it| it % 50).collect();
        Writer::default().write(&plain, &mut wire);
        for at in 0..wire.len() {
            let mut damaged = wire.to_vec();
            damaged[at] ^= 0x40;
            // A changed length may also make the stream end too early.
            let told = read(&damaged, 1000);
            assert!(
                matches!(&told, Err(Damaged)) || told.as_ref().is_ok_and(Vec::is_empty),
                "{at}: {told:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn understands_and_is_understood(
            parts in proptest::collection::vec((any::<u8>(), any::<bool>(), 1..100_000usize), 1..4),
            cut in 1..1000usize,
        ) {
            let noise = |seed: u8, length: usize| (0..length).scan(u32::from(seed) + 1, |state, _| {
                *state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                Some(state.to_be_bytes()[0])
            }).collect::<Vec<u8>>();
            let parts: Vec<Vec<u8>> = parts
                .into_iter()
                .map(|(seed, noisy, length)| if noisy { noise(seed, length) } else { vec![seed; length] })
                .collect();
            let (mut writer, mut wire) = (Writer::default(), BytesMut::new());
            let mut theirs = snap::write::FrameEncoder::new(Vec::new());
            for part in &parts {
                writer.write(part, &mut wire);
                theirs.write_all(part).unwrap();
                theirs.flush().unwrap();
            }
            let mut understood = Vec::new();
            snap::read::FrameDecoder::new(&wire[..]).read_to_end(&mut understood).unwrap();
            prop_assert!(understood == parts.concat());
            prop_assert!(read(&wire, cut) == Ok(parts.concat()));
            prop_assert!(read(theirs.get_ref(), cut) == Ok(parts.concat()));
        }

        #[test]
        fn anything_may_come(stream: Vec<u8>, cut in 1..50usize) {
            let stream = [IDENTIFIER_CHUNK, &stream].concat();
            prop_assert_eq!(read(&stream, cut).is_err(), read(&stream, stream.len()).is_err());
        }
    }
}
