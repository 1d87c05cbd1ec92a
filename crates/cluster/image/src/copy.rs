//! Copies a stream into a blob at the speed of the disk: one thread reads and makes the digest while
//! another writes, and begins to flush early, so that the end does not wait for all of it.

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

/// Content that is not worth a second thread.
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
    let file = writer.parts().0.try_clone();
    let file = file.map_err(|source| Error::io("open", writer.path(), source))?;
    let path = writer.path().to_owned();
    let (full, pieces) = sync_channel(PIECES);
    let (done, empty) = sync_channel(PIECES);
    for _ in 0..PIECES {
        // There is room for all of them.
        done.try_send(Vec::with_capacity(PIECE_BYTES)).unwrap_or_default();
    }
    let (read, written) = thread::scope(|scope| {
        let write = scope.spawn(|| write_all(file, pieces, done));
        let read = read_all(reader, writer, full, &empty);
        let written = write.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
        (read, written)
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
) -> io::Result<()> {
    for piece in pieces {
        file.write_all(&piece)?;
        // The reader may have come to its end already.
        done.send(piece).unwrap_or_default();
    }
    Ok(())
}
