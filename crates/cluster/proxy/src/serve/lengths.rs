//! Connections on which a length may stand beside chunks. Of such a request hyper takes the chunks and drops
//! the length, as RFC 9112, 6.3 has it; but whoever sent it may have a reader before us who took the length,
//! and then what follows on the connection is not what either thinks. So the connection ends with the answer.
//!
//! Nobody tells that there was a length, so it is looked for in what is read: at the beginning of a line,
//! whether of a head or a body. Who is taken for such by mistake only has to connect again.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const NAME: &[u8] = b"content-length:";

/// Whether a length has been read. Clones tell of the same connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Length(Arc<AtomicBool>);

impl Length {
    pub(super) fn seen(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection whose reading is watched.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    length: Length,
    line: Line,
}

/// How much of a line is that of a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// All of so many bytes.
    Same(usize),
    Other,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S) -> (Self, Length) {
        let length = Length::default();
        (Self { stream, length: length.clone(), line: Line::Same(0) }, length)
    }
}

impl Line {
    /// The line after more bytes; none once it was a length.
    fn after(mut self, bytes: &[u8]) -> Option<Self> {
        for byte in bytes {
            self = match self {
                _ if *byte == b'\n' => Self::Same(0),
                Self::Same(so_far) if NAME.get(so_far) == Some(&byte.to_ascii_lowercase()) => {
                    if so_far + 1 == NAME.len() {
                        return None;
                    }
                    Self::Same(so_far + 1)
                }
                _ => Self::Other,
            };
        }
        Some(self)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if !self.length.seen() {
            let read = buffer.filled().get(before..).unwrap_or_default();
            match self.line.after(read) {
                Some(line) => self.line = line,
                None => self.length.0.store(true, Ordering::Relaxed),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_is_at_the_beginning_of_a_line() {
        let is = |text: &str| Line::Same(0).after(text.as_bytes()).is_none();
        assert!(is("POST / HTTP/1.1\r\nHost: a\r\nCONTENT-length: 5\r\n"));
        assert!(is("POST / HTTP/1.1\nContent-Length:5\n"));
        assert!(!is("POST / HTTP/1.1\r\nX-Content-Length: 5\r\n"));
        assert!(!is("POST /content-length:5 HTTP/1.1\r\nContent-Lengths: 5\r\nContent-Length"));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_it_comes(text in "(\n|[cC]ontent-|length|:|x){0,12}", cut: usize) {
            let (first, second) = text.as_bytes().split_at(cut % (text.len() + 1));
            let whole = Line::Same(0).after(text.as_bytes());
            prop_assert_eq!(whole, Line::Same(0).after(first).and_then(|it| it.after(second)));
            let lower = text.to_lowercase();
            prop_assert_eq!(whole.is_none(), lower.split('\n').any(|it| it.starts_with("content-length:")));
        }
    }
}
