//! HTTP/1.1: one request at a time on a connection; connections are kept and the one used last is
//! used first. Written for few system calls (one to send, one to receive) and little memory: buffers
//! belong to the worker, a connection that waits has none.
//!
//! A server may close a kept connection just when a request is on its way. Then nobody did anything
//! wrong and nothing was answered, so a request that may be repeated (RFC 9110, 9.2.2) is sent
//! again, once, on a new connection. Latency goes on counting from the meant start, and the exchange
//! says that it was sent again. On a new connection, or after a byte of an answer, it is a failure.

mod answer;

use std::{
    cell::RefCell,
    future::poll_fn,
    io::Write as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Method;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    time::Instant,
};

use self::answer::Answer;
use super::{
    Driver,
    connect::{self, Connected, Connector, Stream},
};
use crate::exchange::{Exchange, Failure, FailureKind, Origin, Phases, Request, Response};

/// What is read at once, of a whole worker. Larger answers need more reads; larger buffers do not fit
/// the processor's cache.
const READ_MAX: usize = 64 * 1024;
/// A body up to this long is copied behind its head, so that one call sends both.
const TOGETHER_MAX: usize = 16 * 1024;

/// Speaks HTTP/1.1.
pub(crate) struct Http1 {
    connector: Arc<Connector>,
    idle: RefCell<Vec<(Arc<Origin>, Vec<Stream>)>>,
    encoded: RefCell<Encoded>,
    scratch: RefCell<Box<[u8]>>,
}

impl Driver for Http1 {
    fn new(connector: Arc<Connector>) -> Self {
        Self {
            connector,
            idle: RefCell::default(),
            encoded: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_MAX].into_boxed_slice()),
        }
    }

    async fn attempts(
        &self,
        request: &Request,
        exchange: &mut Exchange,
    ) -> Result<Response, Failure> {
        if let Some(stream) = self.take(&request.origin) {
            match self.attempt(stream, true, request, exchange).await {
                Err(Broken::Stale(_)) if request.method.is_idempotent() => {}
                Err(Broken::Stale(failure) | Broken::Failed(failure)) => return Err(failure),
                Ok(response) => return Ok(response),
            }
            exchange.again = true;
            exchange.phases = Phases::default();
            exchange.sent = 0;
        }
        let Connected { stream, connect, tls } = self.open(&request.origin).await?;
        exchange.phases.connect = Some(connect);
        exchange.phases.tls = tls;
        self.attempt(stream, false, request, exchange).await.map_err(|broken| match broken {
            Broken::Stale(failure) | Broken::Failed(failure) => failure,
        })
    }
}

/// Why one attempt failed.
enum Broken {
    /// The server had closed a kept connection: nothing came.
    Stale(Failure),
    Failed(Failure),
}

impl Http1 {
    /// Sends a request on a connection and reads the answer.
    async fn attempt(
        &self,
        mut stream: Stream,
        is_reused: bool,
        request: &Request,
        exchange: &mut Exchange,
    ) -> Result<Response, Broken> {
        let begin = Instant::now();
        let ended = |kind, detail: String| {
            let failure = Failure { kind, detail };
            if is_reused { Broken::Stale(failure) } else { Broken::Failed(failure) }
        };
        exchange.sent = self
            .send(&mut stream, request)
            .await
            .map_err(|error| ended(connect::ended(&error), format!("while sending: {error}")))?;
        let mut answer = Answer::new(&request.method, request.keep);
        let mut first = None;
        while !answer.is_whole() {
            let read = poll_fn(|ctx| self.poll_answer(ctx, &mut stream, &mut answer)).await;
            let (length, used) = match read {
                Ok(lengths) => lengths,
                Err(Unreadable::Protocol(error)) => {
                    let kind = FailureKind::Protocol;
                    return Err(Broken::Failed(Failure { kind, detail: error.to_string() }));
                }
                Err(Unreadable::Io(error)) if first.is_none() => {
                    let detail = format!("before the answer: {error}");
                    return Err(ended(connect::ended(&error), detail));
                }
                Err(Unreadable::Io(error)) => {
                    let detail = format!("within the answer: {error}");
                    let kind = connect::ended(&error);
                    return Err(Broken::Failed(Failure { kind, detail }));
                }
            };
            if length == 0 {
                if answer.end() {
                    break;
                }
                if first.is_none() {
                    return Err(ended(FailureKind::Closed, "before the answer".to_owned()));
                }
                let detail = "within the answer".to_owned();
                return Err(Broken::Failed(Failure { kind: FailureKind::Closed, detail }));
            }
            exchange.received += used as u64;
            let is_clean = used == length;
            if first.is_none() {
                first = Some(Instant::now());
            }
            if answer.is_whole() && is_clean && answer.is_persistent() {
                self.give(&request.origin, stream);
                break;
            }
        }
        let end = Instant::now();
        let first = first.unwrap_or(end);
        exchange.phases.first_byte = Some(first.saturating_duration_since(begin));
        exchange.phases.body = Some(end.saturating_duration_since(first));
        exchange.ended = Some(end);
        Ok(answer.into_response())
    }

    /// Reads once and hands on what came: how much, and how much of it belongs to the answer.
    fn poll_answer(
        &self,
        ctx: &mut Context<'_>,
        stream: &mut Stream,
        answer: &mut Answer,
    ) -> Poll<Result<(usize, usize), Unreadable>> {
        let mut scratch = self.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(stream).poll_read(ctx, &mut buffer)).map_err(Unreadable::Io)?;
        let came = buffer.filled();
        let used = answer.feed(came).map_err(Unreadable::Protocol)?;
        Poll::Ready(Ok((came.len(), used)))
    }

    /// Sends a request; says how many bytes it is.
    async fn send(&self, stream: &mut Stream, request: &Request) -> std::io::Result<u64> {
        // In almost all cases the kernel takes all at once, straight out of the worker's buffer.
        let (length, rest) = poll_fn(|ctx| {
            let mut encoded = self.encoded.borrow_mut();
            let bytes = encoded.request(request);
            match Pin::new(&mut *stream).poll_write(ctx, bytes) {
                Poll::Ready(Ok(done)) => {
                    let rest = bytes.get(done..).unwrap_or_default().to_vec();
                    Poll::Ready(Ok((bytes.len(), rest)))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        write_all(stream, &rest).await?;
        let apart: &[u8] = if request.body.len() > TOGETHER_MAX { &request.body } else { &[] };
        write_all(stream, apart).await?;
        if request.origin.tls {
            poll_fn(|ctx| Pin::new(&mut *stream).poll_flush(ctx)).await?;
        }
        Ok((length + apart.len()) as u64)
    }

    /// A kept connection that is still open, as far as can be known without asking.
    fn take(&self, origin: &Arc<Origin>) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        let (_, streams) = idle.iter_mut().find(|(it, _)| is_same(it, origin))?;
        let mut ctx = Context::from_waker(std::task::Waker::noop());
        loop {
            let mut stream = streams.pop()?;
            if !stream.is_readable(&mut ctx) || is_quiet(&mut ctx, &mut stream) {
                return Some(stream);
            }
        }
    }

    fn give(&self, origin: &Arc<Origin>, stream: Stream) {
        let mut idle = self.idle.borrow_mut();
        match idle.iter_mut().find(|(it, _)| is_same(it, origin)) {
            Some((_, streams)) => streams.push(stream),
            None => idle.push((Arc::clone(origin), vec![stream])),
        }
    }

    /// Opens a connection; at a limit, after those that were closed meanwhile have made room.
    async fn open(&self, origin: &Origin) -> Result<Connected, Failure> {
        match self.connector.connect(origin).await {
            Err(failure) if failure.kind.is_own_limit() && self.clear() > 0 => {
                self.connector.connect(origin).await
            }
            other => other,
        }
    }

    /// Drops kept connections that the server has closed; says how many.
    fn clear(&self) -> usize {
        let mut ctx = Context::from_waker(std::task::Waker::noop());
        let mut dropped = 0;
        for (_, streams) in self.idle.borrow_mut().iter_mut() {
            let before = streams.len();
            streams.retain_mut(|it| !it.is_readable(&mut ctx) || is_quiet(&mut ctx, it));
            dropped += before - streams.len();
        }
        dropped
    }
}

enum Unreadable {
    Protocol(answer::Error),
    Io(std::io::Error),
}

/// Whether a connection that has something to read has nothing to say: TLS sends tickets when it
/// likes. Its end, or an answer that nobody waits for, make it useless.
fn is_quiet(ctx: &mut Context<'_>, stream: &mut Stream) -> bool {
    let mut byte = [0];
    Pin::new(stream).poll_read(ctx, &mut ReadBuf::new(&mut byte)).is_pending()
}

fn is_same(one: &Arc<Origin>, other: &Arc<Origin>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

async fn write_all(stream: &mut Stream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let done = poll_fn(|ctx| Pin::new(&mut *stream).poll_write(ctx, bytes)).await?;
        bytes = bytes.get(done..).unwrap_or_default();
    }
    Ok(())
}

/// The request that was written last, as bytes. Most users send the same again and again; then it is
/// made once. What it was made of is kept alive here, so that the same address means the same thing.
#[derive(Default)]
struct Encoded {
    of: Option<Request>,
    bytes: Vec<u8>,
}

impl Encoded {
    /// Head and body of a request; only the head if the body is longer than [`TOGETHER_MAX`].
    fn request(&mut self, request: &Request) -> &[u8] {
        let is_same = self.of.as_ref().is_some_and(|of| {
            let are_same = |one: &Bytes, other: &Bytes| {
                one.as_ptr() == other.as_ptr() && one.len() == other.len()
            };
            Arc::ptr_eq(&of.origin, &request.origin)
                && Arc::ptr_eq(&of.headers, &request.headers)
                && are_same(&of.path, &request.path)
                && are_same(&of.body, &request.body)
                && of.method == request.method
        });
        if !is_same {
            self.encode(request);
            self.of = Some(request.clone());
        }
        &self.bytes
    }

    fn encode(&mut self, request: &Request) {
        let bytes = &mut self.bytes;
        bytes.clear();
        bytes.extend_from_slice(request.method.as_str().as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(&request.path);
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        if !request.headers.contains_key(http::header::HOST) {
            bytes.extend_from_slice(b"host: ");
            bytes.extend_from_slice(authority(&request.origin).as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        for (name, value) in &*request.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        // Methods that have a body by their meaning say so even of an empty one (RFC 9110, 8.6).
        let wants_length = matches!(request.method, Method::POST | Method::PUT | Method::PATCH);
        if wants_length || !request.body.is_empty() {
            // Writing to memory does not fail.
            drop(write!(bytes, "content-length: {}\r\n", request.body.len()));
        }
        bytes.extend_from_slice(b"\r\n");
        if request.body.len() <= TOGETHER_MAX {
            bytes.extend_from_slice(&request.body);
        }
    }
}

/// Host and port as a request names them; without the port that the scheme implies.
pub(super) fn authority(origin: &Origin) -> String {
    let host =
        if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    match (origin.tls, origin.port) {
        (false, 80) | (true, 443) => host,
        (_, port) => format!("{host}:{port}"),
    }
}
