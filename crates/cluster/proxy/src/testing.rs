//! A proxy before endpoints that say what they were sent, for tests: real sockets, no cluster.

use std::{
    convert::Infallible,
    fmt::Write as _,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use client::Key;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use runtime::{Clock, OnExit, Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    record::Recorder,
    serve::{Place, Proxy},
    table::{Backend, PathMatch, Protocol, Route, RouteOf, Rule, Table, Target, Wants},
    tls::{self, Authority, Certificates},
    upstream::{Dialer, Pool},
};

/// No host but this one.
#[derive(Debug)]
struct NoHost;

impl crate::HostSockets for NoHost {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, _: u16) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

#[derive(Debug)]
struct SelfSigned;

impl Authority for SelfSigned {
    fn sign_for(&self, hosts: &[String]) -> anyhow::Result<(String, String)> {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(hosts.to_vec())?;
        Ok((cert.pem(), signing_key.serialize_pem()))
    }
}

/// A proxy that listens.
pub(crate) struct Setup {
    pub(crate) address: SocketAddr,
    pub(crate) tasks: Tasks,
    pub(crate) table: watch::Sender<Arc<Table>>,
    pub(crate) metrics: Arc<Metrics>,
    /// Where the access log is.
    pub(crate) folder: tempfile::TempDir,
    pool: Arc<Pool>,
}

impl Setup {
    pub(crate) async fn new(table: Table) -> Self {
        let tasks = Tasks::default();
        let (table, follows) = watch::channel(Arc::new(table));
        let host = SocketAddr::from(([192, 0, 2, 1], 0)).ip();
        let pool = Pool::new(Dialer::new(Arc::new(NoHost), host, &tasks).unwrap());
        let certificates = Certificates::new(follows.clone(), Arc::new(SelfSigned));
        let acceptor = tls::acceptor(certificates).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let recorder = Recorder::new(log, Clock::system(), &tasks);
        let metrics = Arc::clone(&recorder.metrics);
        let found = (follows, Arc::clone(&pool));
        let proxy = Proxy::new(found, acceptor, recorder, tasks.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let place = Place { port: 80, at: 80, tls: false };
        proxy.serve(listener, place, CancellationToken::new());
        let setup = Self { address, tasks, table, metrics, folder, pool };
        setup.pool.keep_to(setup.table.borrow().endpoints());
        setup
    }

    /// With all paths of every host leading to these endpoints.
    pub(crate) async fn to(endpoints: &[SocketAddr], protocol: Protocol) -> Self {
        Self::new(leading_to(endpoints, protocol)).await
    }

    /// Leads somewhere else from now on.
    pub(crate) fn lead(&self, table: Table) {
        let endpoints = table.endpoints();
        self.table.send_replace(Arc::new(table));
        self.pool.keep_to(endpoints);
    }

    /// What comes back for these bytes until the connection is closed.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // It may refuse and close before all has been sent.
        let sent = stream.write_all(request).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(100), stream.read_to_end(&mut answer));
        let read = read.await.expect("the connection is closed");
        if answer.is_empty() {
            return format!("nothing: {sent:?} {:?}", read.map_err(|it| it.kind()));
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The status of what comes back.
    pub(crate) async fn status(&self, request: &[u8]) -> String {
        let answer = self.raw(request).await;
        let line = answer.lines().next().unwrap_or_default();
        line.strip_prefix("HTTP/1.1 ").unwrap_or(line).to_owned()
    }
}

pub(crate) fn leading_to(endpoints: &[SocketAddr], protocol: Protocol) -> Table {
    let key = Key::namespaced("shop", "web");
    let ready = endpoints.to_vec();
    let service = key.clone();
    let backend = Backend { service, port: 80, protocol, ready, ..Backend::default() };
    let backend = Arc::new(backend);
    let of = RouteOf { kind: "Ingress", key: key.clone() };
    let route = Route::new(of, Target::Forward(Arc::clone(&backend)));
    let any = vec![Rule { wants: Wants::path(PathMatch::prefix("/")), route }];
    Table { any, backends: [((key, 80), backend)].into(), ..Table::default() }
}

/// An endpoint that answers with what it was sent.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// What it was sent.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) end: CancellationToken,
}

impl Endpoint {
    pub(crate) async fn new(tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let endpoint = Self { address, seen: Arc::default(), connections: Arc::default(), end };
        let (own, of_connections) = (endpoint.clone(), tasks.clone());
        tasks.spawn("endpoint", OnExit::Log, |stop| async move {
            loop {
                let (stream, _) = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = own.end.cancelled() => return Ok(()),
                    accepted = listener.accept() => accepted?,
                };
                own.connections.fetch_add(1, Ordering::Relaxed);
                let own = own.clone();
                of_connections.spawn("endpoint-connection", OnExit::Log, |stop| async move {
                    let end = own.end.clone();
                    let service = service_fn(move |it| {
                        let own = own.clone();
                        async move { Ok::<_, Infallible>(own.answer(it).await) }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let connection =
                        builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = end.cancelled() => {}
                        ended = connection => drop(ended),
                    }
                    Ok(())
                });
            }
        });
        endpoint
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Answer> {
        let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
        let headers: &HeaderMap = request.headers();
        for (name, value) in headers {
            writeln!(text, "{name}: {}", value.to_str().unwrap_or("?")).unwrap();
        }
        if request.uri().path() == "/hang" {
            self.seen.lock().unwrap().push(text);
            let _ends = Ends(Arc::clone(&self.seen));
            return std::future::pending().await;
        }
        if request.headers().contains_key("upgrade") {
            return echo(&mut request);
        }
        let grpc = request.headers().contains_key("te");
        let path = request.uri().path().to_owned();
        match request.into_body().collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                let whole = format!("{text}\n{}", String::from_utf8_lossy(&body));
                text = if body.len() < 1000 { whole } else { format!("{} bytes", body.len()) };
            }
            Err(error) => text.push_str(&format!("broke off: {error}\n")),
        }
        self.seen.lock().unwrap().push(text.clone());
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("0"),
        )]);
        let mut frames = vec![Ok(Frame::data(Bytes::from(text)))];
        if grpc {
            frames.push(Ok(Frame::trailers(trailers)));
        }
        let mut response =
            Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed());
        response.headers_mut().insert("keep-alive", http::HeaderValue::from_static("timeout=5"));
        if let Some(code) = path.strip_prefix("/status/") {
            *response.status_mut() = code.parse().unwrap();
        }
        response
    }
}

type Answer = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// Notes that a request is no longer worked on.
struct Ends(Arc<Mutex<Vec<String>>>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("given up".to_owned());
    }
}

/// Switches, then sends back what comes.
fn echo(request: &mut Request<Incoming>) -> Response<Answer> {
    let upgraded = hyper::upgrade::on(request);
    #[expect(clippy::disallowed_methods, reason = "ends with the connection")]
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgraded.await.unwrap());
        let mut buffer = [0; 100];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..length]).await.unwrap();
        }
    });
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [("connection", "upgrade"), ("upgrade", "echo")] {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    response
}
