//! Answers that the proxy gives itself, for people who look at them in a browser or with curl.

use http::{HeaderValue, Response, StatusCode, header};

use super::{Body, headers::Arrival};
use crate::{limits::HOSTS_SHOWN_MAX, table::Table};

/// An answer that says why there is no other.
pub(super) fn refuse(status: StatusCode, why: &str) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or_default();
    let text = format!("{} {reason}\n\n{why}\n", status.as_u16());
    let mut response = Response::new(Body::made(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    let store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, store);
    response
}

/// No rule takes the request. Who asks below `localhost` is told what there is: only programs of this
/// machine can, and no page of the web, whatever name of its own it has led to the loopback address.
pub(super) fn not_found(table: &Table, host: &str, path: &str, arrival: Arrival) -> Response<Body> {
    let mut text = format!("no Ingress, HTTPRoute or Service takes `{path}` of the host `{host}`");
    if is_local(host) {
        let scheme = if arrival.tls { "https" } else { "http" };
        let port = match (arrival.tls, arrival.port) {
            (false, 80) | (true, 443) => String::new(),
            (_, port) => format!(":{port}"),
        };
        let mut hosts = table.shown_hosts();
        text.push_str("\n\nThere are:\n");
        for host in hosts.by_ref().take(HOSTS_SHOWN_MAX) {
            text.push_str(&format!("  {scheme}://{host}{port}/\n"));
        }
        let more = hosts.count();
        if more != 0 {
            text.push_str(&format!("and {more} more\n"));
        }
    }
    refuse(StatusCode::NOT_FOUND, text.trim_end())
}

fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.ends_with(".localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}
