//! One request: its host is read, a route found, the request sent on, and the answer passed back.

use std::{borrow::Cow, convert::Infallible, sync::Arc, time::Duration};

use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header, uri::Authority};
use hyper::body::Incoming;

use super::{
    Body, Proxy, answer, filters,
    headers::{self, Arrival},
    upgrade,
};
use crate::{
    limits::TARGET_BYTES_MAX,
    record::Exchange,
    table::{Action, Asked, Backend, Filters, Target},
    upstream::{self, Failure, Manner},
};

impl Proxy {
    /// Answers a request, whatever happens.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        arrival: Arrival,
    ) -> Result<Response<Body>, Infallible> {
        let (parts, incoming) = request.into_parts();
        let authority = authority(&parts);
        let shown = authority.as_ref().map_or("-", |it| it.as_ref().map_or("-", Authority::as_str));
        let mut exchange = self.recorder.begin(&parts, shown, arrival);
        let request = Request::from_parts(parts, incoming);
        let response = match refused(&request).and(authority) {
            Ok(authority) => self.take(request, authority, arrival, &mut exchange).await,
            Err(Refused(status, text)) => answer::refuse(status, &text),
        };
        exchange.status = Some(response.status());
        Ok(response.map(|it| it.recorded(exchange)))
    }

    /// Finds the route and takes it.
    async fn take(
        self: &Arc<Self>,
        request: Request<Incoming>,
        authority: Option<Authority>,
        arrival: Arrival,
        exchange: &mut Exchange,
    ) -> Response<Body> {
        let host = authority.as_ref().map(|it| it.host().to_ascii_lowercase()).unwrap_or_default();
        let table = Arc::clone(&self.table.borrow());
        let asked = Asked {
            host: host.trim_end_matches('.'),
            at: arrival.at,
            method: request.method(),
            path: request.uri().path(),
            query: request.uri().query().unwrap_or_default(),
            headers: request.headers(),
        };
        let Some(route) = table.route(&asked) else {
            return answer::not_found(&table, &host, asked.path, arrival);
        };
        let (target, share) = match &route.action {
            Action::To(target) => (target, None),
            Action::Share(shares) => {
                let share = shares.next();
                (&share.target, share.filters.as_deref())
            }
            Action::Redirect(redirect) => {
                exchange.takes(Arc::clone(&route.of), self.recorder.metrics.of(&route.of, None));
                let (uri, on_machine) = (request.uri(), |it| self.on_machine(it));
                let mut response =
                    filters::redirect(redirect, (uri, authority.as_ref()), arrival, on_machine);
                let edits = route.filters.as_deref().map(|it| &it.response);
                edits.into_iter().for_each(|it| it.apply(response.headers_mut()));
                return response;
            }
        };
        match target {
            Target::Refuse(status, why) => {
                exchange.takes(Arc::clone(&route.of), self.recorder.metrics.of(&route.of, None));
                answer::refuse(*status, &format!("{} {}: {why}", route.of.kind, route.of.key))
            }
            Target::Forward(backend) => {
                let series = self.recorder.metrics.of(&route.of, Some(backend));
                exchange.takes(Arc::clone(&route.of), series);
                let host = authority.as_ref().map_or("", Authority::as_str);
                let filters = [route.filters.as_deref(), share];
                let way = Way { host, backend, filters, limit: route.timeouts.limit() };
                self.forward(request, arrival, way, exchange).await
            }
        }
    }

    async fn forward(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        arrival: Arrival,
        way: Way<'_>,
        exchange: &mut Exchange,
    ) -> Response<Body> {
        let backend = way.backend;
        let client = hyper::upgrade::on(&mut request);
        let (mut parts, incoming) = request.into_parts();
        let wanted = headers::upgrade(&parts);
        headers::prepare(&mut parts, way.host, arrival);
        for filters in way.filters.into_iter().flatten() {
            if let Err(error) = filters::change(&mut parts, filters) {
                let text = format!("what the route makes of the path is none: {error}");
                return answer::refuse(StatusCode::INTERNAL_SERVER_ERROR, &text);
            }
        }
        if let Some(wanted) = &wanted {
            parts.headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, wanted.clone());
        }
        let request = Request::from_parts(parts, Body::of_client(incoming));
        let manner = Manner { upgrade: wanted.is_some(), limit: way.limit };
        let sent = upstream::send(&self.pool, backend, request, manner).await;
        let upstream::Answer { mut response, lease, endpoint } = match sent {
            Ok(answer) => answer,
            Err(failure) => {
                exchange.endpoint = failure.endpoint();
                if let Some(series) = exchange.series() {
                    series.failed(failure.counted());
                }
                return failed(backend, &failure);
            }
        };
        exchange.endpoint = Some(endpoint);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return match wanted {
                Some(_) => upgrade::join(&self.tasks, client, response),
                None => answer::refuse(
                    StatusCode::BAD_GATEWAY,
                    "the endpoint switched to another protocol, which nobody asked for",
                ),
            };
        }
        headers::remove_of_connection(response.headers_mut());
        *response.version_mut() = Version::default();
        for filters in way.filters.into_iter().flatten() {
            filters.response.apply(response.headers_mut());
        }
        response.map(|it| Body::of_endpoint(it, lease))
    }
}

/// How a request goes on.
#[derive(Clone, Copy)]
struct Way<'a> {
    /// The host that was asked for.
    host: &'a str,
    backend: &'a Backend,
    /// What is done to it.
    filters: [Option<&'a Filters>; 2],
    /// How long an answer is waited for, if not as long as usual.
    limit: Option<Duration>,
}

fn failed(backend: &Backend, failure: &Failure) -> Response<Body> {
    let status = match failure {
        Failure::NoEndpoints => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Connect(..) | Failure::Broken(..) => StatusCode::BAD_GATEWAY,
        Failure::Silent(..) | Failure::Late(_) => StatusCode::GATEWAY_TIMEOUT,
    };
    let Backend { service, port, .. } = backend;
    answer::refuse(status, &format!("Service {service} port {port}: {failure}"))
}

/// Why a request goes nowhere.
struct Refused(StatusCode, Cow<'static, str>);

fn bad(text: &'static str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, text.into())
}

fn refused(request: &Request<Incoming>) -> Result<(), Refused> {
    if request.method() == Method::CONNECT {
        let text = "CONNECT asks for a tunnel, and this is no proxy to elsewhere";
        return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, text.into()));
    }
    if TARGET_BYTES_MAX < request.uri().path_and_query().map_or(0, |it| it.as_str().len()) {
        let text = format!("the address is longer than {TARGET_BYTES_MAX} bytes");
        return Err(Refused(StatusCode::URI_TOO_LONG, text.into()));
    }
    Ok(())
}

/// Which host is asked for. A request names one at most once; that of its address counts (RFC 9112,
/// 3.2.2). Only HTTP/1.0 may name none.
fn authority(parts: &http::request::Parts) -> Result<Option<Authority>, Refused> {
    let of_header = of_header(&parts.headers)?;
    let authority = parts.uri.authority().cloned().or(of_header);
    match &authority {
        None if parts.version == Version::HTTP_11 => Err(bad("the request names no host")),
        Some(it) if it.as_str().contains('@') => Err(bad("the host has a user before it")),
        _ => Ok(authority),
    }
}

fn of_header(headers: &HeaderMap) -> Result<Option<Authority>, Refused> {
    let mut all = headers.get_all(header::HOST).iter();
    let Some(first) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(bad("the request names its host twice"));
    }
    if first.is_empty() {
        return Ok(None);
    }
    Authority::try_from(first.as_bytes())
        .map(Some)
        .map_err(|_| bad("the host is not a name and a port"))
}
