//! `pods/NAME/proxy` and `services/NAME/proxy`: a request is passed on to a pod, or to an endpoint of a
//! Service, and its answer back.
//!
//! The name may say more than the object: `[SCHEME:]NAME[:PORT]`. What identifies the caller to this
//! server is not passed on.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use api::status::{Reason, Status};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri,
    header::{self, AUTHORIZATION, CONNECTION, HOST, LOCATION, UPGRADE},
    request::Parts,
};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use runtime::AnyCertificate;
use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::Value;
use store::Range;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    http::body::{Body, Streamed, Unread},
    kinds::{KINDS, Kind},
    object::{self, at, text},
    registry::{Call, Registry, keys},
};

/// To connect, with TLS if that is wanted: as long as Kubernetes' API server dials.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);

/// On an EndpointSlice: the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What concerns one connection (RFC 9110, section 7.6.1).
const OF_ONE_CONNECTION: [HeaderName; 7] = [
    CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    UPGRADE,
];
/// The same, of before there was a standard.
const KEEP_ALIVE: &str = "keep-alive";
/// Headers by which a request acts as somebody else begin so.
const IMPERSONATE: &str = "impersonate-";

/// A connection to a pod.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// What drives a connection.
type Exchange = http1::Connection<TokioIo<Box<dyn Connection>>, Streamed>;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    address: SocketAddr,
    tls: bool,
}

/// What a name in the path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named<'a> {
    tls: bool,
    name: &'a str,
    /// A number or a name; empty: the only one, or the first.
    port: &'a str,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Result<Self, Status> {
        let parts: Vec<&str> = text.split(':').collect();
        let (tls, name, port) = match *parts.as_slice() {
            [name] => (false, name, ""),
            [name, port] => (false, name, port),
            ["http" | "", name, port] => (false, name, port),
            ["https", name, port] => (true, name, port),
            _ => return Err(Status::bad_request(format!("invalid proxy target \"{text}\""))),
        };
        Ok(Self { tls, name, port })
    }
}

impl Registry {
    /// Any method.
    pub(crate) async fn proxy(
        self: &Arc<Self>,
        call: &Call<'_>,
        parts: &Parts,
        body: Unread,
    ) -> Result<Response<Body>, Status> {
        if parts.headers.contains_key(UPGRADE) {
            let message = "connections that change their protocol are not passed on to pods yet";
            return Err(Status::bad_request(message.to_owned()));
        }
        let (here, rest) = split(parts.uri.path());
        let rest = match rest {
            // Relative links of the page would lead elsewhere.
            "" if matches!(parts.method, Method::GET | Method::HEAD) => {
                return Ok(moved(&parts.uri));
            }
            "" => "/",
            rest => rest,
        };
        let target = match call.kind.kind {
            "Pod" => self.pod(call)?,
            _ => self.endpoint(call)?,
        };
        if is_special(target.address.ip()) {
            return Err(Status::bad_request("address not allowed".to_owned()));
        }
        let request = request(parts, target, (here, rest), body)?;
        let answer = self.ask(target, request).await;
        let mut answer = answer.map_err(|error| {
            let message = format!("error trying to reach service: {error}");
            Status::new(Reason::ServiceUnavailable, message)
        })?;
        clean(answer.headers_mut());
        lead_back(&mut answer, target, here);
        Ok(answer)
    }

    async fn ask(&self, target: Target, request: Request<Streamed>) -> io::Result<Response<Body>> {
        let stream = timeout(CONNECT_TIME_MAX, self.connect(target)).await;
        let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let (mut connection, mut open) = (Box::pin(connection), true);
        let answer = sender.send_request(request);
        tokio::pin!(answer);
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer.map_err(io::Error::other)?,
            ended = &mut connection => {
                ended.map_err(io::Error::other)?;
                open = false;
                answer.await.map_err(io::Error::other)?
            }
        };
        let stop = self.stop.clone();
        let stopped = Box::pin(async move { stop.cancelled().await });
        Ok(answer.map(|body| Body::passed(Passed { body, connection, open }.take_until(stopped))))
    }

    async fn connect(&self, target: Target) -> io::Result<Box<dyn Connection>> {
        let Target { address, tls } = target;
        let stream: TcpStream = self.connector.connect(address).await?;
        stream.set_nodelay(true)?;
        if !tls {
            return Ok(Box::new(stream));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let any = AnyCertificate::new(&provider);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(any));
        let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
        let name = ServerName::IpAddress(address.ip().into());
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    /// The address of a pod, and the port that is named or its first.
    fn pod(&self, call: &Call<'_>) -> Result<Target, Status> {
        let Named { tls, name, port } = Named::parse(call.name)?;
        let pod = self.object_of(call, name)?;
        let ip = text(&pod, &["status", "podIP"]).parse::<IpAddr>();
        let ip = ip.map_err(|_| no_address(&format!("pod \"{name}\" has no address yet")))?;
        let port = match port {
            "" => {
                let containers = items(&pod, &["spec", "containers"]);
                let mut ports = containers.flat_map(|it| items(it, &["ports"]));
                let first = ports.find_map(|it| number(it, "containerPort"));
                first.unwrap_or(if tls { 443 } else { 80 })
            }
            port => port.parse().map_err(|_| {
                Status::bad_request(format!("invalid port \"{port}\" of pod \"{name}\""))
            })?,
        };
        Ok(Target { address: SocketAddr::new(ip, port), tls })
    }

    /// A ready endpoint of a Service, for the port that is named or its only one.
    fn endpoint(&self, call: &Call<'_>) -> Result<Target, Status> {
        let Named { tls, name, port } = Named::parse(call.name)?;
        let service = self.object_of(call, name)?;
        let ports: Vec<&Value> = items(&service, &["spec", "ports"]).collect();
        let chosen = match (port, ports.as_slice()) {
            ("", [only]) => Some(*only),
            ("", _) => None,
            (port, ports) => ports.iter().copied().find(|it| {
                text(it, &["name"]) == port
                    || number(it, "port").is_some_and(|it| port == it.to_string())
            }),
        };
        let chosen = chosen.ok_or_else(|| {
            no_address(&format!("no service port \"{port}\" found for service \"{name}\""))
        })?;
        let kind = kind("EndpointSlice")?;
        let prefix = keys::collection(kind, call.namespace);
        let mut endpoints = Vec::new();
        for entry in self.store.range(Range::prefix(&prefix)).entries {
            let slice = object::parse(&entry.value)?;
            if at(&slice, &["metadata", "labels", SERVICE_NAME]).and_then(Value::as_str)
                == Some(name)
            {
                endpoints.extend(ready(&slice, text(chosen, &["name"])));
            }
        }
        let missing = || no_address(&format!("no endpoints available for service \"{name}\""));
        let index = (!endpoints.is_empty()).then(|| self.random(|it| it.usize(..endpoints.len())));
        let index = index.ok_or_else(missing)?;
        let address = *endpoints.get(index).ok_or_else(missing)?;
        Ok(Target { address, tls })
    }

    fn object_of(&self, call: &Call<'_>, name: &str) -> Result<Value, Status> {
        let key = keys::object(call.kind, call.namespace.unwrap_or_default(), name);
        let entry = self.store.get(&key);
        let entry = entry.ok_or_else(|| Status::not_found(call.kind.resource(), name))?;
        object::parse(&entry.value)
    }
}

/// Whether an address can be no pod's: it would lead to this process itself, to its link, or to many.
fn is_special(ip: IpAddr) -> bool {
    let of_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    of_link || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()
}

fn kind(name: &str) -> Result<&'static Kind, Status> {
    let kind = KINDS.iter().copied().find(|it| it.kind == name);
    kind.ok_or_else(|| Status::internal(&format!("there is no kind {name}")))
}

fn no_address(message: &str) -> Status {
    Status::new(Reason::ServiceUnavailable, message)
}

fn items<'a>(object: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> {
    at(object, path).and_then(Value::as_array).into_iter().flatten()
}

fn number(object: &Value, field: &str) -> Option<u16> {
    u16::try_from(at(object, &[field])?.as_u64()?).ok()
}

/// The ready endpoints of a slice at the port of this name.
fn ready(slice: &Value, port: &str) -> Vec<SocketAddr> {
    let mut ports = items(slice, &["ports"])
        .filter(|it| text(it, &["name"]) == port && matches!(text(it, &["protocol"]), "" | "TCP"));
    let Some(port) = ports.find_map(|it| number(it, "port")) else { return Vec::new() };
    let endpoints = items(slice, &["endpoints"]);
    let ready =
        endpoints.filter(|it| at(it, &["conditions", "ready"]) != Some(&Value::Bool(false)));
    let addresses = ready.filter_map(|it| items(it, &["addresses"]).next()?.as_str()?.parse().ok());
    addresses.map(|ip: IpAddr| SocketAddr::new(ip, port)).collect()
}

/// The path up to `/proxy`, and what comes after it, as they were sent.
fn split(path: &str) -> (&str, &str) {
    // `/api/v1/namespaces/NAMESPACE/pods/NAME/proxy`.
    const SLASHES: usize = 7;
    let end = path.match_indices('/').nth(SLASHES).map_or(path.len(), |(index, _)| index);
    path.split_at(end)
}

/// Sends the client to the same path with a slash at its end.
fn moved(uri: &Uri) -> Response<Body> {
    let query = uri.query().map(|it| format!("?{it}")).unwrap_or_default();
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
    if let Ok(to) = HeaderValue::from_str(&format!("{}/{query}", uri.path())) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

/// The request as the pod gets it.
fn request(
    parts: &Parts,
    target: Target,
    (here, rest): (&str, &str),
    body: Unread,
) -> Result<Request<Streamed>, Status> {
    let unusable = |what: &str| Status::bad_request(format!("{what} cannot be passed on"));
    let query = parts.uri.query().map(|it| format!("?{it}")).unwrap_or_default();
    let mut request = Request::new(body.streamed());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = format!("{rest}{query}").parse().map_err(|_| unusable("this path"))?;
    let mut headers = parts.headers.clone();
    clean(&mut headers);
    let impersonating: Vec<HeaderName> =
        headers.keys().filter(|it| it.as_str().starts_with(IMPERSONATE)).cloned().collect();
    impersonating.into_iter().chain([AUTHORIZATION]).for_each(|it| drop(headers.remove(it)));
    let host = headers.remove(HOST);
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| unusable("this path"));
    let asked = parts.uri.authority().map(|it| value(it.as_str())).transpose()?.or(host);
    headers.insert(HOST, value(&target.address.to_string())?);
    headers.insert("x-forwarded-uri", value(&format!("{here}{rest}"))?);
    headers.extend(asked.map(|it| (HeaderName::from_static("x-forwarded-host"), it)));
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    *request.headers_mut() = headers;
    Ok(request)
}

/// Removes what concerns one connection.
fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .filter_map(|it| it.trim().parse().ok())
        .collect();
    named.into_iter().chain(OF_ONE_CONNECTION).for_each(|it| drop(headers.remove(it)));
    headers.remove(KEEP_ALIVE);
}

/// Makes a redirection within the pod one within this path.
fn lead_back(answer: &mut Response<Body>, target: Target, here: &str) {
    let Some(location) = answer.headers().get(LOCATION).and_then(|it| it.to_str().ok()) else {
        return;
    };
    let Ok(uri) = location.parse::<Uri>() else { return };
    let own = uri.authority().is_none_or(|it| it.as_str() == target.address.to_string());
    let Some(path) = uri.path_and_query().filter(|it| own && it.as_str().starts_with('/')) else {
        return;
    };
    if let Ok(to) = HeaderValue::from_str(&format!("{here}{path}")) {
        answer.headers_mut().insert(LOCATION, to);
    }
}

/// The body of an answer, and what it comes over.
struct Passed {
    body: Incoming,
    connection: Pin<Box<Exchange>>,
    open: bool,
}

impl Stream for Passed {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Self { body, connection, open } = self.get_mut();
        if *open && connection.as_mut().poll(cx).is_ready() {
            *open = false;
        }
        loop {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Ok(frame)) => {
                    // Trailers have no place in what is passed on.
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
            }
        }
    }
}
