//! A connection's bytes: encryption and compression below, what is said above. Knows no commands.
//!
//! Buffers exist only while there is something in them or while they are in use: an idle
//! connection costs its state and nothing else.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    clients::TlsStats, deflate, identify::Compression, options::HANDSHAKE_TIMEOUT, snappy, tls,
};
use crate::listen::Stream;

/// How much is read at once from a client that says little.
const READ_MIN: usize = 4 * 1024;
/// How much is read at once from a client that says much.
const READ_MAX: usize = 64 * 1024;
/// How much room is made at once for the body of a command: all of it only when it has come near.
const READ_BODY_MAX: usize = 256 * 1024;

/// A connection's lower half.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Socket,
    codec: Codec,
    /// Arrived, and still compressed.
    arrived: BytesMut,
    /// On its way to the client.
    leaving: BytesMut,
    /// What was written is perhaps not on its way yet.
    unflushed: bool,
    /// Since when something is on its way that has not arrived in the kernel.
    leaving_since: Option<Instant>,
    read_size: usize,
}

#[derive(Debug)]
enum Socket {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
    /// Nothing can be read or written any more: a handshake failed.
    Gone,
}

#[derive(Debug)]
enum Codec {
    Plain,
    Snappy(snappy::Reader, snappy::Writer),
    Deflate(Box<(deflate::Reader, deflate::Writer)>),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Something arrived.
    Read,
    /// Nothing more will arrive.
    End,
    /// All that was to leave has left.
    Wrote,
}

impl Transport {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            socket: Socket::Plain(stream),
            codec: Codec::Plain,
            arrived: BytesMut::new(),
            leaving: BytesMut::new(),
            unflushed: false,
            leaving_since: None,
            read_size: READ_MIN,
        }
    }

    /// Whether all that was to leave has left.
    pub(super) const fn is_idle(&self) -> bool {
        self.leaving_since.is_none()
    }

    /// Since when something has not left.
    pub(super) const fn leaving_since(&self) -> Option<Instant> {
        self.leaving_since
    }

    /// Sends `plain` on its way; the transport must be idle.
    ///
    /// # Errors
    /// If it cannot be compressed.
    pub(super) fn send(&mut self, plain: &mut BytesMut) -> io::Result<()> {
        match &mut self.codec {
            Codec::Plain => std::mem::swap(&mut self.leaving, plain),
            Codec::Snappy(_, writer) => writer.write(plain, &mut self.leaving),
            Codec::Deflate(both) => {
                both.1.write(plain, &mut self.leaving).map_err(io::Error::other)?;
            }
        }
        plain.clear();
        self.unflushed = true;
        self.leaving_since = Some(Instant::now());
        Ok(())
    }

    /// Writes what is to leave and, if `read` says how many bytes are known to be needed, reads
    /// into `input`, until one of both has come to something. Nothing is lost when it is dropped.
    ///
    /// # Errors
    /// If the connection is broken.
    pub(super) async fn progress(
        &mut self,
        input: &mut BytesMut,
        read: Option<usize>,
    ) -> io::Result<Progress> {
        poll_fn(|context| {
            let wrote = self.poll_leave(context)?;
            if let Some(missing) = read
                && let Poll::Ready(some) = self.poll_arrive(context, input, missing)?
            {
                return Poll::Ready(Ok(if some { Progress::Read } else { Progress::End }));
            }
            if wrote { Poll::Ready(Ok(Progress::Wrote)) } else { Poll::Pending }
        })
        .await
    }

    /// Whether just now the last byte has left.
    fn poll_leave(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        if self.leaving_since.is_none() {
            return Ok(false);
        }
        while !self.leaving.is_empty() {
            match self.socket.poll_write(context, &self.leaving) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.leaving.advance(count),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(false),
            }
        }
        if self.unflushed {
            match self.socket.poll_flush(context) {
                Poll::Ready(done) => done?,
                Poll::Pending => return Ok(false),
            }
        }
        self.unflushed = false;
        self.leaving_since = None;
        Ok(true)
    }

    /// Whether something arrived, or the end.
    fn poll_arrive(
        &mut self,
        context: &mut Context<'_>,
        input: &mut BytesMut,
        missing: usize,
    ) -> Poll<io::Result<bool>> {
        if matches!(self.codec, Codec::Plain) {
            return poll_read(&mut self.socket, &mut self.read_size, context, input, missing);
        }
        loop {
            let decoded = match &mut self.codec {
                Codec::Plain => false,
                Codec::Snappy(reader, _) => {
                    reader.read(&mut self.arrived, input).map_err(io::Error::other)?
                }
                Codec::Deflate(both) => {
                    both.0.read(&mut self.arrived, input).map_err(io::Error::other)?
                }
            };
            if decoded {
                return Poll::Ready(Ok(true));
            }
            let arrived = &mut self.arrived;
            let read = poll_read(&mut self.socket, &mut self.read_size, context, arrived, 0);
            if !ready!(read)? {
                return Poll::Ready(Ok(false));
            }
        }
    }

    /// Encrypts from here on. The client begins with its handshake.
    ///
    /// # Errors
    /// If the handshake fails or takes too long.
    pub(super) async fn start_tls(&mut self, acceptor: &TlsAcceptor) -> io::Result<TlsStats> {
        let Socket::Plain(stream) = std::mem::replace(&mut self.socket, Socket::Gone) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let accepted = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
        let stream = accepted.map_err(|_| tls::late())??;
        let stats = tls::stats(stream.get_ref().1);
        self.socket = Socket::Tls(Box::new(stream));
        Ok(stats)
    }

    /// Compresses from here on, beginning with what is in `input` already.
    pub(super) fn start_compression(&mut self, kind: Compression, input: &mut BytesMut) {
        self.codec = match kind {
            Compression::Snappy => {
                Codec::Snappy(snappy::Reader::default(), snappy::Writer::default())
            }
            Compression::Deflate(level) => {
                Codec::Deflate(Box::new((deflate::Reader::new(), deflate::Writer::new(level))))
            }
        };
        self.arrived = input.split();
    }

    pub(super) const fn is_encrypted(&self) -> bool {
        matches!(self.socket, Socket::Tls(_))
    }

    pub(super) const fn is_compressed(&self) -> bool {
        !matches!(self.codec, Codec::Plain)
    }

    /// The common name in the client's certificate, if it showed one that has it.
    pub(super) fn common_name(&self) -> String {
        match &self.socket {
            Socket::Tls(stream) => tls::common_name(stream.get_ref().1),
            Socket::Plain(_) | Socket::Gone => String::new(),
        }
    }

    /// Gives back the memory of buffers that nobody uses.
    pub(super) fn rest(&mut self) {
        self.read_size = READ_MIN;
        for buffer in [&mut self.arrived, &mut self.leaving] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// If the connection is broken.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|context| self.socket.poll_shutdown(context)).await
    }
}

/// Reads once; whether there was anything before the end.
fn poll_read(
    socket: &mut Socket,
    size: &mut usize,
    context: &mut Context<'_>,
    into: &mut BytesMut,
    missing: usize,
) -> Poll<io::Result<bool>> {
    // A buffer is made when there is something to put into it.
    if let Socket::Plain(stream) = socket {
        ready!(match stream {
            Stream::Tcp(stream) => stream.poll_read_ready(context),
            Stream::Unix(stream) => stream.poll_read_ready(context),
        })?;
    }
    let wanted = missing.clamp(*size, READ_BODY_MAX);
    if into.capacity() - into.len() < wanted.min(READ_MIN) {
        into.reserve(wanted);
    }
    let room = into.capacity() - into.len();
    let count = ready!(match socket {
        Socket::Plain(stream) => pin!(stream.read_buf(into)).poll(context),
        Socket::Tls(stream) => pin!(stream.read_buf(into)).poll(context),
        Socket::Gone => Poll::Ready(Ok(0)),
    })?;
    if count == room {
        *size = (*size * 2).min(READ_MAX);
    }
    Poll::Ready(Ok(0 < count))
}

impl Socket {
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}
