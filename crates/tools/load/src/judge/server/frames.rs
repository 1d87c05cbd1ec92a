//! Watches the frames of an HTTP/2 connection go by, for when a request really came and an answer
//! really went. Understands the length, type and flags of frames and nothing more.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::judge::server::alarm::now;

/// Bytes that a client sends before its first frame.
const PREFACE_BYTES: usize = 24;
/// Bytes before the payload of each frame.
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
/// Flag of a frame that is the last of its stream.
const END_STREAM: u8 = 1;

/// When streams were seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Streams whose first frame was read, and when.
    pub(super) begun: Vec<(u32, u64)>,
    /// Streams whose last frame was written, and when.
    pub(super) ended: Vec<(u32, u64)>,
}

/// A connection that notes in [`Seen`] what goes through it.
pub(super) struct Watched<S> {
    inner: S,
    read: Frames,
    written: Frames,
    seen: Rc<RefCell<Seen>>,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S) -> (Self, Rc<RefCell<Seen>>) {
        let seen = Rc::<RefCell<Seen>>::default();
        let read = Frames { skip: PREFACE_BYTES, ..Frames::default() };
        (Self { inner, read, written: Frames::default(), seen: seen.clone() }, seen)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(context, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            let (moment, mut seen) = (now(), this.seen.borrow_mut());
            let new = buffer.filled().get(before..).unwrap_or_default();
            this.read.take(new, |frame| {
                if frame.kind == HEADERS {
                    seen.begun.push((frame.stream, moment));
                }
            });
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Before the call: what the client does meanwhile may keep this thread from the clock.
        let moment = now();
        let written = Pin::new(&mut this.inner).poll_write(context, buffer);
        if let Poll::Ready(Ok(count)) = written {
            let mut seen = this.seen.borrow_mut();
            this.written.take(buffer.get(..count).unwrap_or_default(), |frame| {
                if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                    seen.ended.push((frame.stream, moment));
                }
            });
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

/// One frame that has gone by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Where one direction of a connection is.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes until the next head, or until the end of the frame that `passing` is.
    skip: usize,
    passing: Option<Frame>,
    head: [u8; HEAD_BYTES],
    /// Bytes of `head` that are there.
    filled: usize,
}

impl Frames {
    /// Takes what was read or written, and says which frames have thereby gone by as a whole.
    fn take(&mut self, mut bytes: &[u8], mut frame: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            bytes = bytes.get(skipped..).unwrap_or_default();
            self.skip -= skipped;
            if self.skip > 0 {
                return;
            }
            if let Some(passed) = self.passing.take() {
                frame(passed);
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if let Some(place) = self.head.get_mut(self.filled) {
                *place = *byte;
            }
            self.filled += 1;
            if self.filled == HEAD_BYTES {
                self.filled = 0;
                let [a, b, c, kind, flags, stream @ ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                // The highest bit is reserved.
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                self.passing = Some(Frame { kind, flags, stream });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_pieces_of_any_size() {
        let mut bytes = vec![0; PREFACE_BYTES];
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        bytes.extend([0, 0, 3, HEADERS, 5, 0, 0, 0, 1, 7, 7, 7]);
        bytes.extend([0, 1, 0, DATA, END_STREAM, 0x80, 0, 1, 2]);
        bytes.extend([9; 256]);
        for size in 1..bytes.len() {
            let mut frames = Frames { skip: PREFACE_BYTES, ..Frames::default() };
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                frames.take(piece, |it| seen.push((it.kind, it.flags, it.stream)));
            }
            assert_eq!(seen, [(4, 0, 0), (HEADERS, 5, 1), (DATA, 1, 258)], "{size}");
        }
    }
}
