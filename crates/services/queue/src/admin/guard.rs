//! Who may change things: requests from a page of another site never, others as configured.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, header};

/// Whether a request was made by a page of another site, in the browser of somebody who may more
/// than that site.
///
/// Browsers say where a request comes from: in `Sec-Fetch-Site` or, older ones, in `Origin`. What
/// says neither is no browser and is nobody's unwitting hand.
pub(super) fn is_foreign(method: &Method, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return false;
    }
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = headers.get(header::HOST).and_then(|it| it.to_str().ok());
    let origin = origin.to_str().ok().and_then(|it| it.split_once("://"));
    match (origin, host) {
        (Some((_, from)), Some(host)) => from != host,
        _ => true,
    }
}

/// Users who may change things, by a header that a proxy in front sets.
#[derive(Clone, Debug)]
pub(super) struct Admins {
    pub(super) header: String,
    /// If there are none, everybody may.
    pub(super) users: Vec<String>,
}

impl Admins {
    /// Whether whoever sent this may change things.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let user = headers.get(&self.header).map_or(&b""[..], |it| it.as_bytes());
        self.users.is_empty() || self.users.iter().any(|it| it.as_bytes() == user)
    }
}

/// A range of addresses, as `127.0.0.1/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    address: IpAddr,
    bits: u32,
}

impl Range {
    /// Reads a range; `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok()?;
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, bits })
    }

    /// Whether `peer` is in it.
    pub(super) fn contains(&self, peer: SocketAddr) -> bool {
        match (self.address, peer.ip().to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differs = ours.to_bits() ^ theirs.to_bits();
                differs.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differs = ours.to_bits() ^ theirs.to_bits();
                differs.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(method: Method, headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        is_foreign(&method, &map)
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let host = ("host", "admin:4171");
        assert!(!foreign(Method::GET, &[host, ("sec-fetch-site", "cross-site")]));
        assert!(foreign(Method::POST, &[host, ("sec-fetch-site", "cross-site")]));
        assert!(foreign(Method::DELETE, &[host, ("sec-fetch-site", "same-site")]));
        assert!(!foreign(Method::POST, &[host, ("sec-fetch-site", "same-origin")]));
        assert!(foreign(Method::POST, &[host, ("origin", "http://evil")]));
        assert!(foreign(Method::POST, &[host, ("origin", "null")]));
        assert!(!foreign(Method::POST, &[host, ("origin", "https://admin:4171")]));
        assert!(!foreign(Method::POST, &[host]));
    }

    #[test]
    fn ranges() {
        let inside = |range: &str, peer: &str| {
            Range::parse(range).unwrap().contains(SocketAddr::new(peer.parse().unwrap(), 1))
        };
        assert!(inside("127.0.0.1/8", "127.9.9.9"));
        assert!(inside("127.0.0.1/8", "::ffff:127.0.0.1"));
        assert!(!inside("127.0.0.1/8", "10.0.0.1"));
        assert!(inside("0.0.0.0/0", "10.0.0.1"));
        assert!(!inside("10.0.0.1/32", "10.0.0.2"));
        assert!(inside("fd00::/8", "fd12::1"));
        assert!(!inside("fd00::/8", "10.0.0.2"));
        for bad in ["127.0.0.1", "127.0.0.1/33", "a/8", "127.0.0.1/"] {
            assert_eq!(Range::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_named_users_change_things() {
        let mut headers = HeaderMap::new();
        let admins = |users: &[&str]| Admins {
            header: "X-Forwarded-User".to_owned(),
            users: users.iter().map(|it| (*it).to_owned()).collect(),
        };
        assert!(admins(&[]).allow(&headers));
        assert!(!admins(&["ann"]).allow(&headers));
        headers.insert("x-forwarded-user", "ann".parse().unwrap());
        assert!(admins(&["bob", "ann"]).allow(&headers));
        assert!(!admins(&["bob"]).allow(&headers));
    }
}
