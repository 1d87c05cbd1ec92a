//! A layer's bytes, decompressed and hashed by one thread while another one uses them.

use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder, errors};

use crate::{
    Compression,
    digest::{Digest, Hasher},
};

/// Bytes handed over at once: few enough to stay in a core's cache.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks on the way: what one side may be ahead of the other. 2 MiB in all.
const CHUNKS_MAX: usize = 8;

type Chunk = Vec<u8>;

/// Calls `consume` with the decompressed bytes of `blob`, while they are decompressed. Of what
/// `consume` leaves unread the digest is taken as well. Gives its result and the digest of all
/// decompressed bytes.
///
/// # Errors
/// What `consume` fails with, or what `failed` makes of an error of the stream.
pub(super) fn decompressed<T, E>(
    blob: impl Read + Send,
    consume: impl FnOnce(&mut Stream) -> Result<T, E>,
    failed: impl Fn(io::Error) -> E,
) -> Result<(T, Digest), E> {
    let (full, filled) = sync_channel(CHUNKS_MAX);
    let (empty, emptied) = sync_channel(CHUNKS_MAX + 2);
    thread::scope(|scope| {
        let producer = thread::Builder::new()
            .name("decompress".to_owned())
            .spawn_scoped(scope, move || produce(blob, &full, &emptied))
            .map_err(&failed)?;
        let mut stream = Stream { filled, empty, chunk: Chunk::new(), at: 0 };
        let consumed = consume(&mut stream).and_then(|it| {
            io::copy(&mut stream, &mut io::sink()).map_err(&failed)?;
            Ok(it)
        });
        // Ends the producer if it is not at its end.
        drop(stream);
        let produced = producer.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
        // An end that came too early is the consumer's error as well, but not its cause.
        match (consumed, produced) {
            (Ok(it), Ok(Some(digest))) => Ok((it, digest)),
            (_, Err(error)) => Err(failed(error)),
            (Err(error), Ok(_)) => Err(error),
            (Ok(_), Ok(None)) => Err(failed(io::ErrorKind::BrokenPipe.into())),
        }
    })
}

/// The other thread: `None` if nobody wants the rest.
fn produce(
    blob: impl Read,
    full: &SyncSender<Chunk>,
    emptied: &Receiver<Chunk>,
) -> io::Result<Option<Digest>> {
    let mut input = open(blob)?;
    let mut hasher = Hasher::default();
    loop {
        let mut chunk = emptied.try_recv().unwrap_or_default();
        chunk.resize(CHUNK_BYTES, 0);
        let mut filled = 0;
        while let Some(rest) = chunk.get_mut(filled..).filter(|it| !it.is_empty()) {
            match input.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            return Ok(Some(hasher.finish()));
        }
        chunk.truncate(filled);
        hasher.update(&chunk);
        if full.send(chunk).is_err() {
            return Ok(None);
        }
    }
}

/// A reader of decompressed bytes, whatever `blob` begins with: a media type may lie.
pub(crate) fn open<'a>(mut blob: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut first = Vec::new();
    (&mut blob).take(4).read_to_end(&mut first)?;
    let compression = Compression::of_bytes(&first);
    let blob = io::BufReader::with_capacity(CHUNK_BYTES, io::Cursor::new(first).chain(blob));
    Ok(match compression {
        Compression::None => Box::new(blob),
        // Several members after each other are one stream, as gzip has it.
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        Compression::Zstd => Box::new(Frames::new(blob)),
    })
}

/// Zstandard frames after each other, with frames to be skipped between them.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    is_within: bool,
}

impl<R: io::BufRead> Frames<R> {
    fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), is_within: false }
    }

    /// Goes to the next frame; whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        use errors::{FrameDecoderError, ReadFrameHeaderError};
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = (&mut self.source).take(length.into());
                    if io::copy(&mut skipped, &mut io::sink())? != u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: io::BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while !into.is_empty() {
            if !self.is_within && !self.begin()? {
                break;
            }
            self.is_within = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, one).map_err(io::Error::other)?;
            }
            match self.decoder.read(into)? {
                0 => self.is_within = false,
                count => return Ok(count),
            }
        }
        Ok(0)
    }
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Stream {
    filled: Receiver<Chunk>,
    empty: SyncSender<Chunk>,
    chunk: Chunk,
    at: usize,
}

impl Stream {
    /// What is there without waiting for more than one chunk; empty at the end.
    fn available(&mut self) -> &[u8] {
        if self.chunk.len() <= self.at {
            let next = self.filled.recv().unwrap_or_default();
            let old = std::mem::replace(&mut self.chunk, next);
            // A chunk that finds no place is made anew.
            self.empty.try_send(old).ok();
            self.at = 0;
        }
        self.chunk.get(self.at..).unwrap_or_default()
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.available().read(into)?;
        self.at += count;
        Ok(count)
    }
}

impl io::BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.available())
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}
