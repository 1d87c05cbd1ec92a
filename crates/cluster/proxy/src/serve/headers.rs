//! What of the head of a request or an answer goes no further, and what the proxy adds.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request::Parts};

/// Fields that are about one connection only (RFC 9110, 7.6.1), besides those that `Connection` names.
const OF_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Over what a request came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// The client.
    pub(crate) client: IpAddr,
    /// The port of this machine.
    pub(crate) port: u16,
    /// The same as listeners of Gateways name it.
    pub(crate) at: u16,
    pub(crate) tls: bool,
}

/// Removes what is about the connection that the message came over.
pub(super) fn remove_of_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .filter_map(|it| HeaderName::from_bytes(it.trim().as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&OF_CONNECTION) {
        headers.remove(name);
    }
}

/// The protocol that a request wants to go on with; none if it stays HTTP.
pub(super) fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    let connection = parts.headers.get_all(header::CONNECTION).iter();
    let mut words = connection.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
    let asked = parts.version == Version::HTTP_11
        && words.any(|it| it.trim().eq_ignore_ascii_case("upgrade"));
    let wanted = asked.then(|| parts.headers.get(header::UPGRADE).cloned()).flatten()?;
    // An HTTP/2 connection begins with words of its own here; nobody can be switched to it.
    (!wanted.as_bytes().eq_ignore_ascii_case(b"h2c")).then_some(wanted)
}

/// Makes the head of a request that of the one to the endpoint.
pub(super) fn prepare(parts: &mut Parts, host: &str, arrival: Arrival) {
    let trailers = parts.headers.get(header::TE).is_some_and(|it| {
        it.to_str()
            .is_ok_and(|it| it.split(',').any(|it| it.trim().eq_ignore_ascii_case("trailers")))
    });
    remove_of_connection(&mut parts.headers);
    // The proxy answers that itself when the body is asked for.
    parts.headers.remove(header::EXPECT);
    if trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(&mut parts.headers);
    // Clients are programs of this machine and could say anything, and what they are believed matters.
    for name in [FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PORT, REAL_IP] {
        parts.headers.remove(name);
    }
    let proto = if arrival.tls { "https" } else { "http" };
    let client = arrival.client.to_string();
    let headers = &mut parts.headers;
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.insert(FORWARDED_PORT, HeaderValue::from(arrival.port));
    // Addresses and hosts have nothing in them that a value may not have.
    if let Ok(client) = HeaderValue::try_from(client) {
        headers.insert(FORWARDED_FOR, client.clone());
        headers.insert(REAL_IP, client);
    }
    if let Ok(host) = HeaderValue::try_from(host)
        && !host.is_empty()
    {
        headers.insert(FORWARDED_HOST, host.clone());
        headers.insert(header::HOST, host);
    }
}

/// HTTP/2 may send each cookie alone; HTTP/1.1 has one field (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    let Some(first) = all.next() else { return };
    let mut joined = first.as_bytes().to_vec();
    let before = joined.len();
    for cookie in all {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if before != joined.len()
        && let Ok(joined) = HeaderValue::from_bytes(&joined)
    {
        headers.insert(header::COOKIE, joined);
    }
}
