//! From a URL to where requests go.

use bytes::Bytes;
use http::{Uri, uri::Scheme};

use crate::exchange::Origin;

/// Why a URL cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("`{0}` is no URL")]
    Malformed(String),
    #[error("`{0}` has no scheme: write `http://{0}` or `https://{0}`")]
    NoScheme(String),
    #[error("`{0}`: only http and https are spoken")]
    Scheme(String),
    #[error("`{0}`: users in URLs are not sent; give a header")]
    UserInfo(String),
}

/// Origin, and path with query.
pub(super) fn parse(text: &str) -> Result<(Origin, Bytes), Error> {
    // A fragment stays with the client.
    let url = text.split('#').next().unwrap_or_default();
    let uri: Uri = url.parse().map_err(|_| Error::Malformed(text.to_owned()))?;
    let scheme = uri.scheme().ok_or_else(|| Error::NoScheme(text.to_owned()))?;
    let tls = if *scheme == Scheme::HTTPS {
        true
    } else if *scheme == Scheme::HTTP {
        false
    } else {
        return Err(Error::Scheme(text.to_owned()));
    };
    let authority = uri.authority().ok_or_else(|| Error::Malformed(text.to_owned()))?;
    if authority.as_str().contains('@') {
        return Err(Error::UserInfo(text.to_owned()));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let default = if tls { 443 } else { 80 };
    let has_port = !authority.as_str().ends_with(authority.host());
    let port = match authority.port_u16() {
        Some(port) if port > 0 => port,
        None if !has_port => default,
        _ => return Err(Error::Malformed(text.to_owned())),
    };
    if host.is_empty() {
        return Err(Error::Malformed(text.to_owned()));
    }
    let path = uri.path_and_query().map_or("/", |it| it.as_str());
    let path = if path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
    Ok((Origin { tls, host, port }, Bytes::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = match parse(text) {
            Ok((origin, path)) => format!("{origin} {}", String::from_utf8_lossy(&path)),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn urls() {
        check("http://127.0.0.1:8080/a?b=c#d", "http://127.0.0.1:8080 /a?b=c");
        check("https://localhost", "https://localhost:443 /");
        check("http://[::1]:9?x", "http://[::1]:9 /?x");
        check("http://localhost:80", "http://localhost:80 /");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        check(
            "localhost",
            "error: `localhost` has no scheme: write `http://localhost` or `https://localhost`",
        );
        check("ftp://localhost/", "error: `ftp://localhost/`: only http and https are spoken");
        check("http://a@b/", "error: `http://a@b/`: users in URLs are not sent; give a header");
        for text in ["http://", "http:///x", "http://a:b/", "http://a:0/", "http://a:99999/"] {
            check(text, &format!("error: `{text}` is no URL"));
        }
    }
}
