//! A part of a file as the body of a request or an answer: read in a thread of its own, a little ahead.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Bytes read at once.
const PIECE_BYTES: u64 = 256 << 10;

/// Pieces read ahead.
const PIECES: usize = 4;

/// The body.
#[derive(Debug)]
pub(crate) struct FileBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    rest: u64,
    taken: Arc<AtomicU64>,
}

impl FileBody {
    /// `length` bytes of a file from `offset` on. `taken` is told how many of them have gone.
    pub(crate) fn new(mut file: File, offset: u64, length: u64, taken: Arc<AtomicU64>) -> Self {
        let (queue, pieces) = mpsc::channel(PIECES);
        let read = move || {
            let mut rest = length;
            let mut result = file.seek(SeekFrom::Start(offset)).map(drop);
            while rest > 0 && result.is_ok() {
                let mut piece = Vec::new();
                result = (&file).take(rest.min(PIECE_BYTES)).read_to_end(&mut piece).map(drop);
                if piece.is_empty() && result.is_ok() {
                    result = Err(io::ErrorKind::UnexpectedEof.into());
                }
                rest -= piece.len() as u64;
                // Whoever is not there any more needs no more.
                if !piece.is_empty() && queue.blocking_send(Ok(piece.into())).is_err() {
                    return;
                }
            }
            if let Err(error) = result {
                // As above.
                drop(queue.blocking_send(Err(error)));
            }
        };
        drop(tokio::task::spawn_blocking(read));
        Self { pieces, rest: length, taken }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = std::task::ready!(self.pieces.poll_recv(context));
        if let Some(Ok(piece)) = &piece {
            let length = piece.len() as u64;
            self.rest = self.rest.saturating_sub(length);
            self.taken.fetch_add(length, Ordering::Relaxed);
        }
        Poll::Ready(piece.map(|it| it.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest)
    }
}
