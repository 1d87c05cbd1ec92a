//! What a route does to a request before it goes on, and the addresses of which clients are told instead.

use http::{HeaderValue, Response, StatusCode, Uri, header, request::Parts, uri::Authority};

use super::{Body, answer, headers::Arrival};
use crate::table::{Filters, Redirect};

/// Changes the head of a request that is ready to be sent.
pub(super) fn change(parts: &mut Parts, filters: &Filters) -> Result<(), http::Error> {
    if let Some(rewrite) = &filters.rewrite {
        if let Some(host) = &rewrite.host {
            parts.headers.insert(header::HOST, host.clone());
        }
        if let Some(edit) = &rewrite.path {
            parts.uri = with_query(edit.apply(parts.uri.path()), &parts.uri).parse::<Uri>()?;
        }
    }
    filters.request.apply(&mut parts.headers);
    Ok(())
}

fn with_query(path: String, uri: &Uri) -> String {
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

/// Tells of another address. `on_machine` says which port of this machine a listener's port is.
pub(super) fn redirect(
    redirect: &Redirect,
    (uri, authority): (&Uri, Option<&Authority>),
    arrival: Arrival,
    on_machine: impl Fn(u16) -> u16,
) -> Response<Body> {
    let came = if arrival.tls { "https" } else { "http" };
    let scheme = redirect.scheme.unwrap_or(came);
    let usual = if scheme == "https" { 443 } else { 80 };
    let of_scheme = redirect.scheme.map_or(arrival.at, |_| usual);
    let port = redirect.port.unwrap_or(of_scheme);
    // Elsewhere a port is what it is.
    let port = if redirect.host.is_none() { on_machine(port) } else { port };
    let own = || authority.map_or("localhost", Authority::host);
    let host = redirect.host.as_deref().unwrap_or_else(own);
    let path = redirect.path.as_ref().map(|it| it.apply(uri.path()));
    let path = with_query(path.unwrap_or_else(|| uri.path().to_owned()), uri);
    let place = if port == usual { String::new() } else { format!(":{port}") };
    let location = format!("{scheme}://{host}{place}{path}");
    let Ok(location) = HeaderValue::try_from(&location) else {
        let text = format!("{location:?} is not an address that could be told of");
        return answer::refuse(StatusCode::INTERNAL_SERVER_ERROR, &text);
    };
    let mut response = answer::refuse(redirect.status, "It is elsewhere.");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::table::PathEdit;

    fn told(of: &Redirect, at: u16, tls: bool) -> String {
        let uri = Uri::from_static("/foo/bar?a=b");
        let host = Authority::from_static("shop.test:8080");
        let arrival = Arrival { client: Ipv4Addr::LOCALHOST.into(), port: 8080, at, tls };
        let on_machine = |it| match it {
            80 => 8080,
            443 => 8443,
            it => it,
        };
        let answer = redirect(of, (&uri, Some(&host)), arrival, on_machine);
        answer.headers()[header::LOCATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn what_is_not_said_stays() {
        let status = StatusCode::FOUND;
        let nothing = Redirect { scheme: None, host: None, port: None, path: None, status };
        assert_eq!(told(&nothing, 80, false), "http://shop.test:8080/foo/bar?a=b");
        assert_eq!(told(&nothing, 7000, true), "https://shop.test:7000/foo/bar?a=b");
        let secure = Redirect { scheme: Some("https"), ..nothing.clone() };
        assert_eq!(told(&secure, 80, false), "https://shop.test:8443/foo/bar?a=b");
        let elsewhere = Redirect { host: Some("else.test".to_owned()), ..secure };
        assert_eq!(told(&elsewhere, 80, false), "https://else.test/foo/bar?a=b");
        let port = Redirect { port: Some(8083), ..elsewhere };
        assert_eq!(told(&port, 80, false), "https://else.test:8083/foo/bar?a=b");
        let edit = PathEdit::Prefix("/foo".to_owned(), String::new());
        let path = Redirect { path: Some(edit), ..nothing };
        assert_eq!(told(&path, 80, false), "http://shop.test:8080/bar?a=b");
    }
}
