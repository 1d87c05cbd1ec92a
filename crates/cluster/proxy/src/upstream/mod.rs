//! Requests to endpoints: one of a backend's endpoints is chosen, a connection to it taken or made, and
//! the request sent. It is sent again only when no connection could be made, when a connection that was
//! kept turns out to have been closed, or, to one other endpoint, when an endpoint broke off without an
//! answer; the latter two for requests that may be repeated.

mod dial;
mod patience;
mod pool;

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, Version};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::TrySendError};
use tokio::time::{Instant, timeout};

pub(crate) use dial::Dialer;
pub(crate) use patience::Progress;
pub(crate) use pool::{Lease, Pool};

use crate::{
    limits::{ANSWER_TIME_MAX, CONNECTS_TIME_MAX},
    metrics::Failed,
    serve::Body,
    table::Backend,
};
use patience::await_answer;
use pool::Connection;

/// Why there is no answer of an endpoint.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is none.
    NoEndpoints,
    /// None could be connected to; the last one, and why.
    Connect(SocketAddr, io::Error),
    /// It took the request and broke off.
    Broken(SocketAddr, hyper::Error),
    /// It took the request and says nothing for so long.
    Silent(SocketAddr, Duration),
    /// It took longer than the route allows.
    Late(Duration),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEndpoints => f.write_str("it has no ready endpoints"),
            Self::Connect(at, why) => write!(f, "cannot connect to its endpoint {at}: {why}"),
            Self::Broken(at, why) => {
                write!(f, "its endpoint {at} broke off without an answer: {why}")?;
                let mut source = std::error::Error::source(why);
                while let Some(why) = source {
                    write!(f, ": {why}")?;
                    source = why.source();
                }
                Ok(())
            }
            Self::Silent(at, limit) => {
                let seconds = limit.as_secs_f64();
                write!(f, "its endpoint {at} did not begin to answer within {seconds} s")
            }
            Self::Late(limit) => {
                let seconds = limit.as_secs_f64();
                write!(f, "no answer began within {seconds} s, which is the route's limit")
            }
        }
    }
}

/// An answer, and who gave it.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
    pub(crate) endpoint: SocketAddr,
}

/// How a request is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Whether the connection goes on with another protocol.
    pub(crate) upgrade: bool,
    /// How long an answer is waited for, whatever is sent meanwhile; if there is no limit, as long as an
    /// endpoint may usually say nothing.
    pub(crate) limit: Option<Duration>,
}

/// Sends a request to an endpoint of `backend`.
pub(crate) async fn send(
    pool: &Arc<Pool>,
    backend: &Backend,
    request: Request<Body>,
    manner: Manner,
) -> Result<Answer, Failure> {
    let Some(limit) = manner.limit else { return tries(pool, backend, request, manner).await };
    let sent = timeout(limit, tries(pool, backend, request, manner)).await;
    sent.unwrap_or(Err(Failure::Late(limit)))
}

async fn tries(
    pool: &Arc<Pool>,
    backend: &Backend,
    mut request: Request<Body>,
    Manner { upgrade, limit }: Manner,
) -> Result<Answer, Failure> {
    // A limit is for all tries together, and somebody else's to see to.
    let patience = limit.map_or(ANSWER_TIME_MAX, |_| Duration::MAX);
    let mut failure = Failure::NoEndpoints;
    let began = Instant::now();
    let mut repeated = false;
    for endpoint in backend.in_turn().take_while(|_| began.elapsed() < CONNECTS_TIME_MAX) {
        let mut fresh = upgrade;
        loop {
            let taken = pool.take(endpoint, backend.protocol, fresh, upgrade).await;
            let connection = match taken {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(%endpoint, %error, "endpoint not connected to");
                    failure = Failure::Connect(endpoint, error);
                    break;
                }
            };
            let used = connection.used();
            let again = if repeated { None } else { repeatable(&request) };
            match over(pool, (endpoint, patience), connection, request).await {
                Ok(answer) => return Ok(answer),
                // Each turn uses up a connection that was kept, so this ends.
                Err(Unsent::Whole(whole, _)) if used => request = *whole,
                Err(Unsent::Broken(failed)) => match again.filter(|_| failed.is_closed()) {
                    Some(again) if used => {
                        request = again;
                        fresh = true;
                    }
                    Some(again) => {
                        request = again;
                        repeated = true;
                        failure = failed;
                        break;
                    }
                    None => return Err(failed),
                },
                Err(Unsent::Whole(_, error)) => return Err(Failure::Broken(endpoint, error)),
            }
        }
    }
    Err(failure)
}

impl Failure {
    /// Who was tried last.
    pub(crate) const fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            Self::NoEndpoints | Self::Late(_) => None,
            Self::Connect(at, _) | Self::Broken(at, _) | Self::Silent(at, _) => Some(*at),
        }
    }

    pub(crate) const fn counted(&self) -> Failed {
        match self {
            Self::NoEndpoints => Failed::NoEndpoints,
            Self::Connect(..) => Failed::Connect,
            Self::Broken(..) => Failed::Broken,
            Self::Silent(..) | Self::Late(_) => Failed::Silent,
        }
    }

    /// Whether the connection was closed before an answer began.
    fn is_closed(&self) -> bool {
        match self {
            Self::Broken(_, error) => {
                error.is_incomplete_message()
                    || error.is_closed()
                    || error.is_canceled()
                    || is_reset(error)
            }
            Self::NoEndpoints | Self::Connect(..) | Self::Silent(..) | Self::Late(_) => false,
        }
    }
}

fn is_reset(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let kind = source.and_then(|it| it.downcast_ref::<io::Error>()).map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

/// A copy of a request that may be sent twice: one without a body, whose method promises that this
/// does no harm (RFC 9110, 9.2.2).
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    let harmless = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    );
    if !harmless || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Body::made(""));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

enum Unsent {
    /// Not a byte of it has gone.
    Whole(Box<Request<Body>>, hyper::Error),
    Broken(Failure),
}

async fn over(
    pool: &Arc<Pool>,
    (endpoint, patience): (SocketAddr, Duration),
    connection: Connection,
    mut request: Request<Body>,
) -> Result<Answer, Unsent> {
    let silent = || Unsent::Broken(Failure::Silent(endpoint, patience));
    let progress = request.body().progress();
    match connection {
        Connection::Http1(mut kept) => {
            *request.version_mut() = Version::HTTP_11;
            let uri = std::mem::take(request.uri_mut());
            *request.uri_mut() = origin_form(&uri);
            request.headers_mut().remove(http::header::TE);
            let sent = kept.sender.try_send_request(request);
            let response = await_answer(sent, &progress, patience).await.ok_or_else(silent)?;
            let response = response.map_err(|it| unsent(it, endpoint))?;
            let lease = pool.lease(endpoint, kept);
            Ok(Answer { response, lease, endpoint })
        }
        Connection::Http2(mut shared) => {
            *request.version_mut() = Version::HTTP_2;
            let uri = std::mem::take(request.uri_mut());
            *request.uri_mut() = absolute_form(&uri, request.headers(), shared.tls);
            request.headers_mut().remove(http::header::HOST);
            let sent = shared.sender.try_send_request(request);
            let response = await_answer(sent, &progress, patience).await.ok_or_else(silent)?;
            let response = response.map_err(|it| unsent(it, endpoint))?;
            Ok(Answer { response, lease: Lease::shared(), endpoint })
        }
    }
}

fn unsent(mut error: TrySendError<Request<Body>>, endpoint: SocketAddr) -> Unsent {
    match error.take_message() {
        Some(request) => Unsent::Whole(Box::new(request), error.into_error()),
        None => Unsent::Broken(Failure::Broken(endpoint, error.into_error())),
    }
}

fn origin_form(uri: &http::Uri) -> http::Uri {
    let path = uri.path_and_query().cloned();
    path.map(http::Uri::from).unwrap_or_default()
}

/// HTTP/2 has the host in the address of the request.
fn absolute_form(uri: &http::Uri, headers: &http::HeaderMap, tls: bool) -> http::Uri {
    let host = headers.get(http::header::HOST).map_or(&b"localhost"[..], |it| it.as_bytes());
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    http::Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(host)
        .path_and_query(path)
        .build()
        .unwrap_or_else(|_| uri.clone())
}
