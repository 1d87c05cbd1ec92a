//! HTTP/2: many requests at once on a connection, as many as the server allows; when all are full,
//! another is opened. Framing is h2's.
//!
//! Headers are counted as they are written, not as they are packed on the wire: what a connection
//! packs belongs to no single request.

mod incoming;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, client::SendRequest};
use http::{
    HeaderMap, HeaderName, Version, header,
    uri::{Authority, PathAndQuery, Scheme, Uri},
};
use tokio::{sync::Notify, time::Instant};

use self::incoming::Incoming;
use super::{
    Driver,
    connect::{self, Connector, Stream},
    http1::authority,
};
use crate::exchange::{
    BODY_MAX, Exchange, Failure, FailureKind, Keep, Origin, Phases, Request, Response,
};

/// What a server may send of one body before we have taken it: enough for the fastest network here.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// The same of all bodies of a connection.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// How many requests count on one connection that is being opened: what the specification advises
/// servers to allow at least (RFC 9113, 6.5.2).
const STREAMS_EXPECTED: usize = 100;
/// Headers that mean something to one connection of HTTP/1.1 only (RFC 9113, 8.2.2).
const FORBIDDEN: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Speaks HTTP/2.
pub(crate) struct Http2 {
    connector: Arc<Connector>,
    pools: RefCell<Vec<Rc<Pool>>>,
}

/// Connections to one origin.
struct Pool {
    origin: Arc<Origin>,
    scheme: Scheme,
    authority: Option<Authority>,
    open: RefCell<Vec<Rc<Connection>>>,
    /// Connections that are being opened, and requests that wait for one.
    opening: Cell<usize>,
    waiting: Cell<usize>,
    opened: Notify,
}

struct Connection {
    sender: SendRequest<Bytes>,
    incoming: Incoming<Stream>,
    in_flight: Cell<usize>,
    /// Whether a request was answered on it.
    is_used: Cell<bool>,
    is_closed: Cell<bool>,
}

impl Driver for Http2 {
    fn new(connector: Arc<Connector>) -> Self {
        Self { connector, pools: RefCell::default() }
    }

    fn attempts(
        &self,
        request: &Request,
        exchange: &mut Exchange,
    ) -> impl Future<Output = Result<Response, Failure>> {
        // The future of a stream is large, and most of a run's are waiting.
        Box::pin(self.attempt_twice(request, exchange))
    }
}

/// Why one attempt failed.
enum Broken {
    /// The server did nothing with it, or it may be done twice.
    Unprocessed(Failure),
    Failed(Failure),
}

impl Http2 {
    async fn attempt_twice(
        &self,
        request: &Request,
        exchange: &mut Exchange,
    ) -> Result<Response, Failure> {
        let pool = &self.pool(&request.origin);
        let slot = self.slot(pool, exchange).await?;
        match attempt(pool, &slot, request, exchange).await {
            Ok(response) => return Ok(response),
            Err(Broken::Failed(failure)) => return Err(failure),
            Err(Broken::Unprocessed(_)) => {}
        }
        drop(slot);
        exchange.again = true;
        exchange.phases = Phases::default();
        let slot = self.slot(pool, exchange).await?;
        attempt(pool, &slot, request, exchange).await.map_err(|broken| match broken {
            Broken::Unprocessed(failure) | Broken::Failed(failure) => failure,
        })
    }

    fn pool(&self, origin: &Arc<Origin>) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        let is_same = |it: &&Rc<Pool>| Arc::ptr_eq(&it.origin, origin) || it.origin == *origin;
        if let Some(pool) = pools.iter().find(is_same) {
            return Rc::clone(pool);
        }
        let pool = Rc::new(Pool {
            origin: Arc::clone(origin),
            scheme: if origin.tls { Scheme::HTTPS } else { Scheme::HTTP },
            authority: authority(origin).parse().ok(),
            open: RefCell::default(),
            opening: Cell::new(0),
            waiting: Cell::new(0),
            opened: Notify::new(),
        });
        pools.push(Rc::clone(&pool));
        pool
    }

    /// Room for one request on some connection.
    async fn slot(&self, pool: &Rc<Pool>, exchange: &mut Exchange) -> Result<Slot, Failure> {
        loop {
            if let Some(slot) = pool.free() {
                return Ok(slot);
            }
            if pool.waiting.get() < pool.opening.get() * STREAMS_EXPECTED {
                let _waiting = Count::up(&pool.waiting);
                pool.opened.notified().await;
                continue;
            }
            let (connect, tls) = self.open(pool).await?;
            exchange.phases.connect = Some(connect);
            exchange.phases.tls = tls;
        }
    }

    /// Opens one more connection.
    async fn open(&self, pool: &Rc<Pool>) -> Result<(Duration, Option<Duration>), Failure> {
        // Whether it opens or not, those who wait must look again.
        let _wake = Wake(&pool.opened);
        let _opening = Count::up(&pool.opening);
        let connected = self.connector.connect(&pool.origin).await?;
        let incoming = Incoming::new(connected.stream);
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(incoming.clone())
            .await
            .map_err(|error| failure(&error))?;
        let entry = Rc::new(Connection {
            sender,
            incoming,
            in_flight: Cell::new(0),
            is_used: Cell::new(false),
            is_closed: Cell::new(false),
        });
        pool.open.borrow_mut().push(Rc::clone(&entry));
        drop(tokio::task::spawn_local(async move {
            // Why it ended, its requests learn by themselves.
            drop(connection.await);
            entry.is_closed.set(true);
        }));
        Ok((connected.connect, connected.tls))
    }
}

impl Pool {
    /// Room on a connection that is open already.
    fn free(&self) -> Option<Slot> {
        let mut open = self.open.borrow_mut();
        open.retain(|it| !it.is_closed.get());
        let has_room =
            |it: &&Rc<Connection>| it.in_flight.get() < it.sender.current_max_send_streams();
        open.iter().find(has_room).map(|it| {
            it.in_flight.set(it.in_flight.get() + 1);
            Slot(Rc::clone(it))
        })
    }
}

/// Room for one request.
struct Slot(Rc<Connection>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}

struct Count<'count>(&'count Cell<usize>);

impl<'count> Count<'count> {
    fn up(count: &'count Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

struct Wake<'notify>(&'notify Notify);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

/// Sends a request on a connection and reads the answer.
async fn attempt(
    pool: &Pool,
    slot: &Slot,
    request: &Request,
    exchange: &mut Exchange,
) -> Result<Response, Broken> {
    let connection = &slot.0;
    let was_used = connection.is_used.get();
    // Before an answer has begun, the connection's end is nobody's fault if it was used before.
    let unanswered = |error: h2::Error| {
        // The server says that it has not begun with this stream (RFC 9113, 8.7).
        let unprocessed = error.is_remote()
            && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM));
        let gone = was_used && error.is_io();
        if error.is_io() || error.is_go_away() {
            connection.is_closed.set(true);
        }
        let failure = failure(&error);
        if unprocessed || (gone && request.method.is_idempotent()) {
            Broken::Unprocessed(failure)
        } else {
            Broken::Failed(failure)
        }
    };
    let begin = Instant::now();
    let head = head(pool, request).map_err(|detail| {
        Broken::Failed(Failure { kind: FailureKind::Protocol, detail: detail.to_string() })
    })?;
    exchange.sent = (size(head.headers())
        + request.method.as_str().len()
        + request.path.len()
        + request.body.len()) as u64;
    let mut sender = connection.sender.clone().ready().await.map_err(unanswered)?;
    let has_body = !request.body.is_empty();
    let (answer, mut upload) = sender.send_request(head, !has_body).map_err(unanswered)?;
    drop(sender);
    let expected = connection.incoming.expect(answer.stream_id().as_u32());
    if has_body {
        upload.send_data(request.body.clone(), true).map_err(unanswered)?;
    }
    let (answer, mut stream) = answer.await.map_err(unanswered)?.into_parts();
    connection.is_used.set(true);
    exchange.received = size(&answer.headers) as u64;
    let within = |error: h2::Error| Broken::Failed(failure(&error));
    let mut body = BytesMut::new();
    while let Some(part) = stream.data().await {
        let part = part.map_err(within)?;
        exchange.received += part.len() as u64;
        stream.flow_control().release_capacity(part.len()).map_err(within)?;
        keep(&mut body, &part, request.keep);
    }
    // A whole answer has both.
    let times = expected.times();
    let end = times.last.unwrap_or_else(Instant::now);
    let first = times.first.unwrap_or(end);
    exchange.phases.first_byte = Some(first.saturating_duration_since(begin));
    exchange.phases.body = Some(end.saturating_duration_since(first));
    exchange.ended = Some(end);
    connection.incoming.read_ahead();
    let headers = if request.keep.headers { answer.headers } else { HeaderMap::new() };
    Ok(Response { status: answer.status.as_u16(), headers, body: body.freeze() })
}

fn head(pool: &Pool, request: &Request) -> Result<http::Request<()>, http::Error> {
    let host = request.headers.get(header::HOST);
    let authority = match host {
        Some(host) => Some(Authority::try_from(host.as_bytes())?),
        None => pool.authority.clone(),
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(pool.scheme.clone());
    parts.authority = authority;
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(request.path.clone())?);
    let mut head = http::Request::new(());
    *head.method_mut() = request.method.clone();
    *head.version_mut() = Version::HTTP_2;
    *head.uri_mut() = Uri::from_parts(parts)?;
    let headers = head.headers_mut();
    headers.clone_from(&request.headers);
    for name in &FORBIDDEN {
        headers.remove(name);
    }
    if !request.body.is_empty() {
        headers.insert(header::CONTENT_LENGTH, request.body.len().into());
    }
    Ok(head)
}

fn keep(body: &mut BytesMut, part: &[u8], keep: Keep) {
    if keep.body {
        let room = BODY_MAX.saturating_sub(body.len()).min(part.len());
        body.extend_from_slice(part.get(..room).unwrap_or_default());
    }
}

/// Names and values, without any framing.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

fn failure(error: &h2::Error) -> Failure {
    let kind = match error.get_io() {
        Some(error) => connect::ended(error),
        None if error.is_remote() => FailureKind::Closed,
        // What the server sent made no sense, and it is this side that ends it.
        None => FailureKind::Protocol,
    };
    Failure { kind, detail: error.to_string() }
}
