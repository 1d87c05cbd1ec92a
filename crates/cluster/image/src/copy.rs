//! Copies a stream into a blob at the speed of the disk: one thread reads and makes the digest, another
//! writes, and a third flushes what is written, so that the end does not wait for all of it.

use std::{
    fs,
    io::{self, Read, Write as _},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use crate::store::{Error, Writer};

/// Bytes that go from one thread to the other at once: enough that the threads seldom meet, and little
/// enough to stay in a processor's cache.
const PIECE_BYTES: usize = 512 << 10;

/// Pieces on their way; more would only be memory.
const PIECES: usize = 4;

/// Bytes after which a flush begins, if none is under way: enough for the disk to be busy with.
const FLUSH_BYTES: usize = 16 << 20;

/// Content that is not worth more threads.
const SMALL_BYTES: u64 = 1 << 20;

/// Copies all of `reader`; returns how much it was.
pub(crate) fn copy(reader: &mut dyn Read, writer: &mut Writer) -> Result<u64, Error> {
    let before = writer.offset();
    let mut first = Vec::new();
    let unread = |source| Error::io("read the source of", writer.path(), source);
    reader.take(SMALL_BYTES).read_to_end(&mut first).map_err(unread)?;
    writer.append(&first)?;
    if first.len() as u64 == SMALL_BYTES {
        copy_large(reader, writer)?;
    }
    Ok(writer.offset() - before)
}

fn copy_large(reader: &mut dyn Read, writer: &mut Writer) -> Result<(), Error> {
    let clone = |writer: &mut Writer| {
        let file = writer.parts().0.try_clone();
        file.map_err(|source| Error::io("open", writer.path(), source))
    };
    let (file, flushed) = (clone(writer)?, clone(writer)?);
    let path = writer.path().to_owned();
    let (full, pieces) = sync_channel(PIECES);
    let (done, empty) = sync_channel(PIECES);
    let (flush, flushes) = sync_channel(1);
    for _ in 0..PIECES {
        // There is room for all of them.
        done.try_send(Vec::with_capacity(PIECE_BYTES)).unwrap_or_default();
    }
    let (read, written) = thread::scope(|scope| {
        // An error of a flush is told once only, so it must not be lost here.
        let flush_all =
            scope.spawn(move || flushes.into_iter().try_for_each(|()| flushed.sync_data()));
        let write = scope.spawn(|| write_all(file, pieces, done, flush));
        let read = read_all(reader, writer, full, &empty);
        let panicked = |_| Err(io::Error::other("a thread panicked"));
        let written = write.join().unwrap_or_else(panicked);
        (read, written.and(flush_all.join().unwrap_or_else(panicked)))
    });
    if let Err(source) = written {
        writer.restart()?;
        return Err(Error::io("write", &path, source));
    }
    read
}

/// Reads until the end, or until the writer is gone.
fn read_all(
    reader: &mut dyn Read,
    writer: &mut Writer,
    full: SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> Result<(), Error> {
    while let Ok(mut piece) = empty.recv() {
        piece.clear();
        let read = reader.take(PIECE_BYTES as u64).read_to_end(&mut piece);
        read.map_err(|source| Error::io("read the source of", writer.path(), source))?;
        if piece.is_empty() {
            break;
        }
        writer.check_room(piece.len())?;
        let (_, hasher, written) = writer.parts();
        hasher.update(&piece);
        *written += piece.len() as u64;
        if full.send(piece).is_err() {
            break;
        }
    }
    Ok(())
}

fn write_all(
    mut file: fs::File,
    pieces: Receiver<Vec<u8>>,
    done: SyncSender<Vec<u8>>,
    flush: SyncSender<()>,
) -> io::Result<()> {
    let mut unflushed = 0;
    for piece in pieces {
        file.write_all(&piece)?;
        unflushed += piece.len();
        if unflushed > FLUSH_BYTES && flush.try_send(()).is_ok() {
            unflushed = 0;
        }
        // The reader may have come to its end already.
        done.send(piece).unwrap_or_default();
    }
    Ok(())
}
