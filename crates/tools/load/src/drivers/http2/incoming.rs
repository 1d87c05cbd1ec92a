//! What comes over an HTTP/2 connection, and when. Understands the length, type and flags of frames
//! and nothing more.
//!
//! A server that was frozen gives ten thousand answers at once. They are looked at one after the other,
//! and the last of them had come long before it is its turn: what the generator does meanwhile is none
//! of the server's. So the moment of an answer is that of the read which brought its last frame, and
//! between one answer and the next it is looked whether more has come.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// What is read ahead at once.
const READ: usize = 16 * 1024;
/// Bytes that are read ahead at most: some ten thousand answers without a body. The rest waits in the
/// kernel, as it would otherwise.
const AHEAD_MAX: usize = 512 * 1024;
/// Bytes before the payload of each frame (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
/// Types and a flag of frames (RFC 9113, 6.1 and 6.2).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// A connection whose answers have times; its clones are the same one.
pub(super) struct Incoming<S>(Rc<RefCell<Inner<S>>>);

struct Inner<S> {
    stream: S,
    frames: Frames,
    /// Streams that somebody waits for.
    awaited: HashMap<u32, Times>,
    /// Read from the kernel and not yet taken.
    ahead: BytesMut,
    /// What went wrong while reading ahead: comes after what was read.
    broken: Option<io::Error>,
    /// Who is to be woken when there is something to read.
    reader: Option<Waker>,
}

/// When parts of an answer came; `None` before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// Its first frame.
    pub(super) first: Option<Instant>,
    /// Its last.
    pub(super) last: Option<Instant>,
}

impl<S> Clone for Incoming<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncRead + Unpin> Incoming<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            stream,
            frames: Frames::default(),
            awaited: HashMap::new(),
            ahead: BytesMut::new(),
            broken: None,
            reader: None,
        })))
    }

    /// Notes from now on when the answer on a stream comes, until what is returned is dropped.
    pub(super) fn expect(&self, stream: u32) -> Expected<S> {
        self.0.borrow_mut().awaited.insert(stream, Times::default());
        Expected { incoming: self.clone(), stream }
    }

    /// Reads what has come meanwhile. Asks the kernel only if it has said that there is something.
    pub(super) fn read_ahead(&self) {
        self.0.borrow_mut().read_ahead();
    }
}

impl<S: AsyncRead + Unpin> Inner<S> {
    fn read_ahead(&mut self) {
        let Some(reader) = self.reader.clone() else { return };
        let mut ctx = Context::from_waker(&reader);
        let mut bytes = [0; READ];
        let mut has_come = false;
        while self.broken.is_none() && self.ahead.len() < AHEAD_MAX {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(&mut ctx, &mut buffer) {
                Poll::Pending => break,
                // The end of a connection is found again.
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    has_come = true;
                    break;
                }
                Poll::Ready(Ok(())) => {
                    self.note(buffer.filled());
                    self.ahead.extend_from_slice(buffer.filled());
                }
                Poll::Ready(Err(error)) => self.broken = Some(error),
            }
            has_come = true;
        }
        if has_come {
            reader.wake();
        }
    }

    /// Takes note of bytes that have just been read.
    fn note(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        let Self { frames, awaited, .. } = self;
        frames.take(bytes, |frame| {
            if !matches!(frame.kind, DATA | HEADERS) {
                return;
            }
            if let Some(times) = awaited.get_mut(&frame.stream) {
                times.first.get_or_insert(now);
                if frame.flags & END_STREAM != 0 {
                    times.last = Some(now);
                }
            }
        });
    }

    fn poll_read(
        &mut self,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(self.ahead.get(..length).unwrap_or_default());
            self.ahead.advance(length);
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(ctx, buffer);
        match &polled {
            Poll::Ready(Ok(())) => self.note(buffer.filled().get(before..).unwrap_or_default()),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.reader = Some(ctx.waker().clone()),
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Incoming<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(ctx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Incoming<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_write(ctx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_flush(ctx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_shutdown(ctx)
    }
}

/// An answer whose times are noted.
pub(super) struct Expected<S> {
    incoming: Incoming<S>,
    stream: u32,
}

impl<S> Expected<S> {
    /// When it came, as far as it has.
    pub(super) fn times(&self) -> Times {
        self.incoming.0.borrow().awaited.get(&self.stream).copied().unwrap_or_default()
    }
}

impl<S> Drop for Expected<S> {
    fn drop(&mut self) {
        self.incoming.0.borrow_mut().awaited.remove(&self.stream);
    }
}

/// A frame that has come as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Where in its frames the bytes of a connection are.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are there.
    filled: usize,
    /// Once the head is there: the frame, and the bytes of its payload that are still to come.
    payload: Option<(Frame, usize)>,
}

impl Frames {
    /// Takes bytes, and says which frames have thereby come as a whole.
    fn take(&mut self, mut bytes: &[u8], mut come: impl FnMut(Frame)) {
        loop {
            if let Some((frame, left)) = self.payload {
                let here = left.min(bytes.len());
                bytes.advance(here);
                if here < left {
                    self.payload = Some((frame, left - here));
                    return;
                }
                self.payload = None;
                come(frame);
            }
            let Some(head) = self.head.get_mut(self.filled..) else { return };
            let here = head.len().min(bytes.len());
            bytes.copy_to_slice(head.get_mut(..here).unwrap_or_default());
            self.filled += here;
            if self.filled < HEAD_BYTES {
                return;
            }
            self.filled = 0;
            let [a, b, c, kind, flags, stream @ ..] = self.head;
            // The highest bit is reserved.
            let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            self.payload = Some((Frame { kind, flags, stream }, length));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
        [&head[..], payload].concat()
    }

    #[test]
    fn frames_come_when_their_last_byte_has() {
        let bytes = [
            frame(4, 0, 0, &[]),
            frame(HEADERS, 4, 1, b"head"),
            frame(DATA, END_STREAM, 1, &[END_STREAM; 30]),
            frame(HEADERS, 5, 3, b"h"),
        ]
        .concat();
        let ends = [(9, 4, 0, 0), (22, 1, 4, 1), (61, 0, 1, 1), (71, 1, 5, 3)];
        for size in 1..=bytes.len() {
            let (mut frames, mut seen, mut upto) = (Frames::default(), Vec::new(), 0);
            for piece in bytes.chunks(size) {
                upto += piece.len();
                frames.take(piece, |it| seen.push((upto, it.kind, it.flags, it.stream)));
            }
            let expected = ends.map(|(end, kind, flags, stream)| {
                (usize::div_ceil(end, size) * size, kind, flags, stream)
            });
            let expected = expected
                .map(|(end, kind, flags, stream)| (end.min(bytes.len()), kind, flags, stream));
            assert_eq!(seen, expected, "{size}");
        }
    }

    /// Once something was awaited in vain, what comes is read ahead and loses nothing.
    #[tokio::test]
    async fn what_is_read_ahead_is_noted_once_and_handed_on() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut incoming = Incoming::new(ours);
        let expected = incoming.expect(1);
        assert!(expected.times().first.is_none());
        let mut byte = [0];
        // Nobody has said anything yet.
        let first = std::future::poll_fn(|ctx| {
            let mut buffer = ReadBuf::new(&mut byte);
            assert!(Pin::new(&mut incoming).poll_read(ctx, &mut buffer).is_pending());
            Poll::Ready(())
        });
        first.await;
        let sent = [frame(HEADERS, 4, 1, b"head"), frame(DATA, END_STREAM, 1, b"body")].concat();
        theirs.write_all(&sent[..20]).await.unwrap();
        incoming.read_ahead();
        let head = expected.times();
        assert!(head.first.is_some() && head.last.is_none(), "{head:?}");
        theirs.write_all(&sent[20..]).await.unwrap();
        incoming.read_ahead();
        let whole = expected.times();
        assert!(whole.first == head.first && whole.last >= whole.first, "{whole:?}");
        theirs.write_all(&frame(DATA, END_STREAM, 1, b"again")).await.unwrap();
        drop(theirs);
        let mut got = Vec::new();
        incoming.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [&sent[..], &frame(DATA, END_STREAM, 1, b"again")].concat());
        drop(expected);
        assert_eq!(incoming.0.borrow().awaited.len(), 0);
    }

    /// Gives one piece, then an error, once.
    struct Breaking(Option<&'static [u8]>, Option<io::Error>);

    impl AsyncRead for Breaking {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.0.take() {
                Some(bytes) => buffer.put_slice(bytes),
                None => return Poll::Ready(self.1.take().map_or(Ok(()), Err)),
            }
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn an_error_comes_after_what_was_read_before_it() {
        let error = io::Error::other("cut");
        let mut incoming = Incoming::new(Breaking(Some(b"abc"), Some(error)));
        incoming.0.borrow_mut().reader = Some(Waker::noop().clone());
        incoming.read_ahead();
        let mut bytes = [0; 8];
        assert_eq!(incoming.read(&mut bytes).await.unwrap(), 3);
        assert_eq!(incoming.read(&mut bytes).await.unwrap_err().to_string(), "cut");
    }
}
