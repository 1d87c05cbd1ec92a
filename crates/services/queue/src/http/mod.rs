//! nsqd's HTTP API: the original's paths, parameters, statuses and words, and a few of ours
//! (`/channel/rewind`, `/metrics`, more parameters of `/pub` and `/channel/create`).
//!
//! It holds nothing: it asks the broker and tells what that said. `docs/queue-http.md` lists what
//! is ours.

mod channel;
mod config;
mod debug;
mod params;
mod publish;
mod show;
#[cfg(test)]
mod tests;
mod topic;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request::Parts};
use hyper::body::Body as HttpBody;
use jiff::Timestamp;
use runtime::{Clock, Tasks};
use tokio::{sync::watch, time::timeout};
use tokio_rustls::TlsAcceptor;

use crate::{
    bodies::{Budget, FREE_BYTES, Reserved},
    cli::{TlsRequired, nsqd::Options},
    listen::Listener,
    stats::Source,
    web::{self, Body, Failure, Found, Query, ReadError, Reply, Route, Serve, plain, v1},
};

/// Clients at once at one address; more wait to be accepted. The API is for tools, scrapers and
/// publishers without a library; each open one costs a file and some 20 kB.
const CLIENTS_MAX: usize = 4096;

/// How much is read of a body that means nothing, so that the connection can be used again.
const IGNORED_BYTES_MAX: usize = 64 << 10;

/// How long a large body may take: others wait for the memory it has. Twice what the TCP protocol
/// gives one.
const BODY_TIME_MAX: Duration = Duration::from_mins(2);

/// What the API needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The figures, and through them the broker.
    pub source: Source,
    /// What was set; `/config/…` shows it and changes some of it.
    pub options: watch::Sender<Options>,
    /// The time.
    pub clock: Clock,
    /// When this nsqd began.
    pub started: Timestamp,
    /// What this machine is called.
    pub hostname: String,
    /// Where the TCP protocol is served; `None` on a Unix socket.
    pub tcp_port: Option<u16>,
    /// Where HTTP is; `None` on a Unix socket or nowhere.
    pub http_port: Option<u16>,
    /// Where HTTPS is, if it is.
    pub https_port: Option<u16>,
    /// How much memory bodies may take that have not arrived as a whole, of all clients.
    pub bodies: Budget,
}

/// The API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api(Arc<Config>);

/// By which door a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Plain HTTP.
    Plain,
    /// HTTPS.
    Tls,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Every resource. The name in the path of `config` is its own.
#[derive(Clone, Copy, Debug)]
enum Resource {
    Ping,
    Info,
    Stats,
    Metrics,
    Pub,
    Mpub,
    Topic(topic::Action),
    Channel(channel::Action),
    ConfigGet,
    ConfigPut,
    Debug,
}

fn routes() -> Vec<Route<Resource>> {
    let route = |method, path, to| Route { method, path, to };
    let get = |path, to| route(Method::GET, path, to);
    let post = |path, to| route(Method::POST, path, to);
    vec![
        get("/ping", Resource::Ping),
        get("/info", Resource::Info),
        post("/pub", Resource::Pub),
        post("/mpub", Resource::Mpub),
        get("/stats", Resource::Stats),
        get("/metrics", Resource::Metrics),
        post("/topic/create", Resource::Topic(topic::Action::Create)),
        post("/topic/delete", Resource::Topic(topic::Action::Delete)),
        post("/topic/empty", Resource::Topic(topic::Action::Empty)),
        post("/topic/pause", Resource::Topic(topic::Action::Pause)),
        post("/topic/unpause", Resource::Topic(topic::Action::Unpause)),
        post("/channel/create", Resource::Channel(channel::Action::Create)),
        post("/channel/delete", Resource::Channel(channel::Action::Delete)),
        post("/channel/empty", Resource::Channel(channel::Action::Empty)),
        post("/channel/pause", Resource::Channel(channel::Action::Pause)),
        post("/channel/unpause", Resource::Channel(channel::Action::Unpause)),
        post("/channel/rewind", Resource::Channel(channel::Action::Rewind)),
        get("/config/:", Resource::ConfigGet),
        route(Method::PUT, "/config/:", Resource::ConfigPut),
        get("/debug/pprof/*", Resource::Debug),
        post("/debug/pprof/symbol", Resource::Debug),
        route(Method::PUT, "/debug/setblockrate", Resource::Debug),
        post("/debug/freememory", Resource::Debug),
    ]
}

impl Api {
    /// The API of one nsqd.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(config))
    }

    /// Serves it at an address, in `tasks`, until these stop. With `tls` it is HTTPS.
    pub fn serve(&self, listener: Listener, tls: Option<TlsAcceptor>, tasks: &Tasks) {
        let door = if tls.is_some() { Door::Tls } else { Door::Plain };
        let how = Serve { name: "nsqd-http", clients_max: CLIENTS_MAX, answers_half_closed: true };
        let table: Arc<[Route<Resource>]> = routes().into();
        let api = self.clone();
        web::serve_at(listener, tls, how, tasks, move |request, peer| {
            let (api, table) = (api.clone(), Arc::clone(&table));
            async move { api.answer(&table, request, peer, door).await }
        });
    }

    async fn answer<B>(
        &self,
        table: &[Route<Resource>],
        request: Request<B>,
        peer: SocketAddr,
        door: Door,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send,
        B::Error: Into<Cause>,
    {
        if let Some(refusal) = self.tls_required(door) {
            return refusal;
        }
        let (head, body) = request.into_parts();
        let (resource, rest) = match web::find(table, &head.method, &head.uri) {
            Found::Resource(resource, rest) => (resource, rest),
            Found::Answer(answer) => return answer,
        };
        let answer = self.resource(resource, &head, &rest, body).await;
        let (status, method, path) = (answer.status().as_u16(), &head.method, head.uri.path());
        if !matches!(resource, Resource::Pub | Resource::Mpub) {
            tracing::debug!(status, %method, path, %peer, "answered");
        }
        answer
    }

    async fn resource<B>(
        &self,
        resource: Resource,
        head: &Parts,
        rest: &str,
        mut body: B,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send,
        B::Error: Into<Cause>,
    {
        let query = || query(head);
        match resource {
            Resource::Pub => return v1(self.publish(query, body).await),
            Resource::Mpub => return v1(self.publish_many(query, body).await),
            Resource::ConfigPut => return v1(self.set_config(rest, body).await),
            _ => {}
        }
        if let Err(failure) = ignore(&mut body).await {
            return v1(Err(failure));
        }
        match resource {
            Resource::Ping => plain(self.ping()),
            Resource::Info => v1(Ok(self.info())),
            Resource::Stats => v1(query().map(|it| self.stats(&it))),
            Resource::Metrics => query().map_or_else(|it| v1(Err(it)), |it| self.metrics(&it)),
            Resource::Topic(action) => v1(match query() {
                Ok(query) => self.topic(action, &query).await,
                Err(failure) => Err(failure),
            }),
            Resource::Channel(action) => v1(match query() {
                Ok(query) => self.channel(action, &query).await,
                Err(failure) => Err(failure),
            }),
            Resource::ConfigGet => v1(self.config(rest)),
            Resource::Debug => debug::answer(),
            Resource::Pub | Resource::Mpub | Resource::ConfigPut => v1(Err(Failure::no_path())),
        }
    }

    /// As the original: who must use TLS is told where.
    fn tls_required(&self, door: Door) -> Option<Response<Body>> {
        let required = self.0.options.borrow().requires_tls() == TlsRequired::Yes;
        if door == Door::Tls || !required {
            return None;
        }
        let port = self.0.https_port.unwrap_or(0);
        let text = format!("{{\"message\": \"TLS_REQUIRED\", \"https_port\": {port}}}");
        let mut answer = v1(Ok(Reply::Json(text)));
        *answer.status_mut() = StatusCode::FORBIDDEN;
        Some(answer)
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

fn query(head: &Parts) -> Result<Query, Failure> {
    let text = head.uri.query().unwrap_or_default();
    Query::parse(text).map_err(|_| Failure::bad("INVALID_REQUEST"))
}

/// Reads and drops a body, up to a limit; beyond it the connection is not used again.
async fn ignore<B>(body: &mut B) -> Result<(), Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Cause>,
{
    let mut left = IGNORED_BYTES_MAX;
    while let Some(piece) = web::piece(body).await.map_err(|_| Failure::bad("INVALID_REQUEST"))? {
        match left.checked_sub(piece.len()) {
            Some(less) => left = less,
            None => break,
        }
    }
    Ok(())
}

/// A body with the memory it was given.
struct Arrived {
    body: Bytes,
    _reserved: Reserved,
}

impl Api {
    /// Reads a body of up to `max` bytes, when there is memory for it.
    async fn read<B>(&self, body: B, max: usize, too_long: &'static str) -> Result<Arrived, Failure>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<Cause>,
    {
        let refused = || Failure::new(StatusCode::PAYLOAD_TOO_LARGE, too_long);
        let told = body.size_hint();
        let at_least = usize::try_from(told.lower()).unwrap_or(usize::MAX);
        if at_least > max {
            return Err(refused());
        }
        // Who does not say how much it will be may send as much as is allowed.
        let bytes = told.exact().map_or(max, |_| at_least);
        let reserved = self.0.bodies.reserve(bytes).await;
        let reading = web::read(body, max);
        let body = if bytes <= FREE_BYTES {
            reading.await
        } else {
            timeout(BODY_TIME_MAX, reading).await.unwrap_or(Err(ReadError::Silent))
        };
        let body = body.map_err(|error| match error {
            ReadError::TooLong { .. } => refused(),
            ReadError::Broken(_) | ReadError::Silent => internal_error(),
        })?;
        Ok(Arrived { body, _reserved: reserved })
    }
}

fn internal_error() -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR")
}
