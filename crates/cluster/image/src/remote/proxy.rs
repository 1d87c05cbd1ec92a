//! Proxies: which one stands between here and a registry, and the way through it.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` mean what they mean to Docker and Podman, whose rules are Go's:
//! <https://pkg.go.dev/golang.org/x/net/http/httpproxy>. Through a proxy, what speaks TLS goes in a tunnel
//! (`CONNECT`), and what does not is asked of the proxy itself.

use std::{
    fmt, io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection, proxy::Tunnel},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tokio::{net::TcpStream, time::timeout};
use tower::Service;

use super::transport::Tcp;

/// An address to ask about.
const SOME_REGISTRY: &str = "https://registry.invalid/";

/// A variable names no proxy.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` in the environment names no proxy that can be used: it is `http://HOST:PORT` or `https://HOST:PORT`, \
     where `USER:PASSWORD@` may stand before the host"
)]
pub struct ProxyError(pub String);

/// The proxies of a user, and what goes past them. By default there are none. Cheap to clone.
#[derive(Clone, Default)]
pub struct Proxies(Option<Arc<Rules>>);

struct Rules {
    of: Matcher,
    /// Hosts that are reached without a proxy at one port only.
    not_at: Vec<(u16, Matcher)>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses of proxies may have passwords.
        f.debug_tuple("Proxies").field(&self.0.is_some()).finish()
    }
}

impl Proxies {
    /// What these variables of the environment say. Of two that differ in case only, the one in capitals
    /// counts.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub fn new(variables: &[(String, String)]) -> Result<Self, ProxyError> {
        let find = |name: &str| {
            let value = variables.iter().find(|(it, value)| it == name && !value.is_empty());
            value.map(|(name, value)| (name.as_str(), value.as_str()))
        };
        let either = |name: &str| find(name).or_else(|| find(&name.to_ascii_lowercase()));
        let address = |name: &str| -> Result<&str, ProxyError> {
            let Some((name, value)) = either(name) else { return Ok("") };
            let some = Uri::from_static(SOME_REGISTRY);
            let found = Matcher::builder().all(value).build().intercept(&some);
            let usable = found.is_some_and(|it| {
                [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&it.uri().scheme())
            });
            if usable { Ok(value) } else { Err(ProxyError(name.to_owned())) }
        };
        let (https, http) = (address("HTTPS_PROXY")?, address("HTTP_PROXY")?);
        if https.is_empty() && http.is_empty() {
            return Ok(Self(None));
        }
        let no = either("NO_PROXY").map_or("", |(_, value)| value);
        let (ported, whole): (Vec<&str>, Vec<&str>) =
            no.split(',').map(str::trim).partition(|it| port_of(it).is_some());
        let not = |hosts: &str| Matcher::builder().all("http://proxy.invalid").no(hosts).build();
        let not_at = ported.into_iter().filter_map(port_of).map(|(host, port)| (port, not(host)));
        // curl's `*.example.com` is Go's too, and means what `.example.com` does.
        let whole: Vec<&str> = whole
            .into_iter()
            .map(|it| it.strip_prefix('*').filter(|it| !it.is_empty()).unwrap_or(it))
            .collect();
        let of = Matcher::builder().https(https).http(http).no(whole.join(",")).build();
        Ok(Self(Some(Arc::new(Rules { of, not_at: not_at.collect() }))))
    }

    /// The proxy on the way to an address. To this machine there is none.
    fn of(&self, to: &Uri) -> Option<Intercept> {
        let rules = self.0.as_ref()?;
        let host = to.host()?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if host == "localhost" || bare.parse().is_ok_and(|it: IpAddr| it.is_loopback()) {
            return None;
        }
        let usual = if to.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = to.port_u16().unwrap_or(usual);
        if rules.not_at.iter().any(|(at, not)| *at == port && not.intercept(to).is_none()) {
            return None;
        }
        rules.of.intercept(to)
    }

    /// What a request without TLS says to the proxy that it is asked of.
    pub(crate) fn authorization(&self, to: &Uri) -> Option<HeaderValue> {
        let proxy = self.of(to).filter(|_| to.scheme() == Some(&Scheme::HTTP))?;
        proxy.basic_auth().cloned()
    }
}

/// Host and port of an entry of `NO_PROXY` that has one.
fn port_of(entry: &str) -> Option<(&str, u16)> {
    let (host, port) = entry.rsplit_once(':')?;
    let whole = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if whole { Some((host, port.parse().ok()?)) } else { None }
}

/// The way through a proxy failed.
#[derive(Debug, thiserror::Error)]
#[error("through the proxy `{proxy}`, which the environment names")]
struct ThroughError {
    proxy: String,
    source: BoxError,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections, through a proxy where one is meant to be.
#[derive(Clone, Debug)]
pub(crate) struct Via {
    pub(crate) tcp: Tcp,
    /// The proxy itself may speak TLS.
    pub(crate) to_proxy: HttpsConnector<Tcp>,
    pub(crate) proxies: Proxies,
    /// Longest that a proxy may think about it.
    pub(crate) patience: Duration,
}

impl Service<Uri> for Via {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.of(&to) else {
            let connecting = self.tcp.call(to);
            return Box::pin(async move {
                Ok(Stream { io: MaybeHttpsStream::Http(connecting.await?), is_asked: false })
            });
        };
        let is_asked = to.scheme() != Some(&Scheme::HTTPS);
        let (mut to_proxy, patience) = (self.to_proxy.clone(), self.patience);
        Box::pin(async move {
            let connecting = async {
                if is_asked {
                    return to_proxy.call(proxy.uri().clone()).await;
                }
                let mut tunnel = Tunnel::new(proxy.uri().clone(), to_proxy);
                if let Some(authorization) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(authorization.clone());
                }
                tunnel.call(to).await.map_err(Into::into)
            };
            let connected = timeout(patience, connecting).await;
            let connected = connected.unwrap_or_else(|late| Err(late.into()));
            let failed = |source| ThroughError { proxy: proxy.uri().to_string(), source };
            Ok(Stream { io: connected.map_err(failed)?, is_asked })
        })
    }
}

/// A connection.
pub(crate) struct Stream {
    io: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// Whether requests on it are for the proxy.
    is_asked: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.is_asked)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which proxy is on the way, by variables `NAME=VALUE`.
    fn check(variables: &str, to: &str) -> String {
        let variables: Vec<(String, String)> = variables
            .split_whitespace()
            .filter_map(|it| it.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        match Proxies::new(&variables) {
            Ok(proxies) => proxies
                .of(&to.parse().unwrap())
                .map_or("none".to_owned(), |it| it.uri().to_string()),
            Err(error) => error.0,
        }
    }

    #[test]
    fn variables_name_proxies() {
        let both = "HTTPS_PROXY=http://s.test:3128 HTTP_PROXY=p.test:80";
        assert_eq!(check(both, "https://quay.io/v2/"), "http://s.test:3128/");
        assert_eq!(check(both, "http://quay.io/v2/"), "http://p.test:80/");
        assert_eq!(check("https_proxy=https://s.test", "https://quay.io/"), "https://s.test/");
        assert_eq!(
            check("https_proxy=a.test HTTPS_PROXY=b.test", "https://c.test/"),
            "http://b.test/"
        );
        assert_eq!(check("HTTP_PROXY=a.test", "https://quay.io/"), "none");
        assert_eq!(check("", "https://quay.io/"), "none");
    }

    #[test]
    fn this_machine_is_reached_without() {
        for to in ["http://localhost:5000/", "https://127.0.0.2/", "http://[::1]:5000/"] {
            assert_eq!(check("HTTPS_PROXY=a.test HTTP_PROXY=a.test", to), "none", "{to}");
        }
    }

    #[test]
    fn what_goes_past_them() {
        let of =
            |no: &str, to: &str| check(&format!("HTTPS_PROXY=a.test no_proxy={no}"), to) == "none";
        assert!(of("*", "https://quay.io/"));
        assert!(of("quay.io", "https://quay.io/") && of("quay.io", "https://cdn.quay.io/"));
        assert!(of(".quay.io", "https://cdn.quay.io/") && of("*.quay.io", "https://cdn.quay.io/"));
        assert!(!of("quay.io", "https://notquay.io/"));
        assert!(of("a.test,10.0.0.0/8", "https://10.1.2.3:5000/"));
        assert!(!of("10.0.0.0/8", "https://11.1.2.3/"));
        assert!(of("quay.io:5000", "https://quay.io:5000/"));
        assert!(!of("quay.io:5000", "https://quay.io/"));
        assert!(of("quay.io:443", "https://quay.io/"));
        assert!(
            of("fd00::/8", "https://[fd00::1]/") && of("[fd00::1]:5000", "https://[fd00::1]:5000/")
        );
    }

    #[test]
    fn what_is_no_proxy_is_named() {
        assert_eq!(check("HTTPS_PROXY=socks5://a.test", "https://b.test/"), "HTTPS_PROXY");
        assert_eq!(check("http_proxy=http://", "https://b.test/"), "http_proxy");
    }

    #[test]
    fn passwords_do_not_show() {
        let variables = [("HTTP_PROXY".to_owned(), "http://ann:se%20cret@a.test".to_owned())];
        let proxies = Proxies::new(&variables).unwrap();
        let to = "http://b.test/".parse().unwrap();
        assert_eq!(proxies.authorization(&to).unwrap(), "Basic YW5uOnNlIGNyZXQ=");
        assert_eq!(proxies.authorization(&"https://b.test/".parse().unwrap()), None);
        assert_eq!(proxies.of(&to).unwrap().uri(), "http://a.test/");
        assert!(!format!("{proxies:?}").contains("cret"));
    }
}
