//! HTTP and TLS to registries: names resolved without the C library, one timeout for every wait, and no
//! redirect that is not looked at.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use bytes::Bytes;
use http::{Request, Response, header::PROXY_AUTHORIZATION};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use runtime::{AnyCertificate, Names};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tower::Service;

use super::{
    certificates::Folder,
    error::Kind,
    proxy::{Proxies, Via},
};

/// Largest answer that is not content: errors and tokens.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How long a connection that nobody uses stays open; registries close theirs after a minute.
const IDLE: Duration = Duration::from_secs(30);

/// A body that goes at once: a manifest at most.
const SMALL_BODY_BYTES: u64 = 4 << 20;

/// Longest upload of a blob: 100 GB at 10 Mbit/s.
const UPLOAD_MAX: Duration = Duration::from_hours(24);

/// What a request carries.
pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// How long is waited, and how often tried.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest wait in which nothing comes: for the head of an answer, and for each piece of a body.
    pub stall: Duration,
    /// Failures in a row, with no byte between them, after which it is given up.
    pub attempts: u32,
    /// The wait after the first failure; each further one waits twice as long, up to 5 s.
    pub pause: Duration,
}

impl Default for Patience {
    /// What is borne with on a bad network, and less than a user waits without wondering.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            attempts: 4,
            pause: Duration::from_millis(300),
        }
    }
}

/// Makes connections and keeps them for the next request.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    strict: Inner,
    lenient: Inner,
    /// Those with certificates of their own, by HOST[:PORT]; or why these cannot be used.
    own: BTreeMap<String, Result<Inner, String>>,
    proxies: Proxies,
    pub(crate) patience: Patience,
}

type Inner = Client<HttpsConnector<Via>, Body>;

/// Connections to whoever it is, without TLS.
pub(crate) type Tcp = HttpConnector<Resolver>;

impl Transport {
    pub(crate) fn new(
        folders: &[Folder],
        proxies: Proxies,
        patience: Patience,
    ) -> Result<Self, Kind> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|error| local("set up TLS", io::Error::other(error)))
        };
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::warn!(%error, "some certificates of this machine cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
        let own = folders.iter().map(|it| (it, it.config(Arc::clone(&provider), &roots)));
        let own: Vec<_> = own.collect();
        let strict = builder()?.with_root_certificates(roots).with_no_client_auth();
        let any = Arc::new(AnyCertificate::new(&provider));
        let lenient = builder()?.dangerous().with_custom_certificate_verifier(any);
        let lenient = lenient.with_no_client_auth();
        let mut tcp = HttpConnector::new_with_resolver(Resolver(Arc::new(Names::default())));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(patience.connect));
        let https = |tls| HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let via = Via {
            to_proxy: https(strict.clone()).enable_http1().wrap_connector(tcp.clone()),
            tcp,
            proxies: proxies.clone(),
            patience: patience.connect + patience.stall,
        };
        let client = |tls| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .build(https(tls).enable_http1().wrap_connector(via.clone()))
        };
        let own = own.into_iter().map(|(folder, config)| {
            (folder.host.clone(), config.map(&client).map_err(|it| it.to_string()))
        });
        let own = own.collect();
        Ok(Self { strict: client(strict), lenient: client(lenient), own, proxies, patience })
    }

    /// Sends a request and waits for the head of the answer. `insecure` takes any certificate.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        insecure: bool,
    ) -> Result<Response<Incoming>, Kind> {
        if let Some(value) = self.proxies.authorization(request.uri()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        let registry = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let client = match self.own.get(&registry) {
            _ if insecure => &self.lenient,
            Some(Ok(own)) => own,
            Some(Err(why)) => {
                let source = io::Error::other(why.clone());
                return Err(local("use the certificates of the registry", source));
            }
            None => &self.strict,
        };
        let stalled = |_| Kind::Stalled {
            registry: registry.clone(),
            after: self.patience.stall,
            attempts: 1,
        };
        // Who sends a body looks himself whether it goes on.
        let sends = hyper::body::Body::size_hint(request.body()).lower() > SMALL_BODY_BYTES;
        let wait = if sends { UPLOAD_MAX } else { self.patience.stall + self.patience.connect };
        let answer = timeout(wait, client.request(request));
        answer.await.map_err(stalled)?.map_err(|error| {
            let registry = registry.clone();
            if is_distrust(&error) {
                return Kind::Untrusted { registry, cause: chain(&error) };
            }
            if error.is_connect() {
                return Kind::Unreachable { registry, cause: chain(&error) };
            }
            Kind::BrokenOff { registry, cause: chain(&error), attempts: 1 }
        })
    }

    /// The next piece of a body; nothing at its end.
    pub(crate) async fn piece(
        &self,
        registry: &str,
        body: &mut Incoming,
    ) -> Result<Option<Bytes>, Kind> {
        loop {
            let frame = timeout(self.patience.stall, body.frame()).await;
            let stalled = |_| Kind::Stalled {
                registry: registry.to_owned(),
                after: self.patience.stall,
                attempts: 1,
            };
            let Some(frame) = frame.map_err(stalled)? else {
                return Ok(None);
            };
            let broken = |error: hyper::Error| Kind::BrokenOff {
                registry: registry.to_owned(),
                cause: chain(&error),
                attempts: 1,
            };
            // What is not data are trailers, which say nothing here.
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// A whole body, which has at most `max` bytes.
    pub(crate) async fn whole(
        &self,
        registry: &str,
        mut body: Incoming,
        max: usize,
    ) -> Result<Vec<u8>, Kind> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(registry, &mut body).await? {
            if bytes.len() + piece.len() > max {
                let cause = format!("more than {max} bytes, where so much never is");
                return Err(Kind::Lied { registry: registry.to_owned(), cause });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// A whole body that is no content.
    pub(crate) async fn answer(&self, registry: &str, body: Incoming) -> Result<Vec<u8>, Kind> {
        self.whole(registry, body, ANSWER_BYTES_MAX).await
    }
}

/// An empty body.
pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

/// A body that is there.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

pub(crate) const fn local(what: &'static str, source: io::Error) -> Kind {
    Kind::Local { what, source }
}

/// Whether a certificate was not accepted.
fn is_distrust(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // What an error of the system's kind is made of is not its source.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// An error with all its causes, as HTTP libraries hide what matters in the last one.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

/// Resolves names for the connector.
#[derive(Clone, Debug)]
pub(crate) struct Resolver(Arc<Names>);

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let names = Arc::clone(&self.0);
        Box::pin(async move {
            let found = names.resolve(name.as_str()).await.map_err(io::Error::other)?;
            // The connector puts the port in.
            let addresses: Vec<SocketAddr> =
                found.into_iter().map(|it| SocketAddr::new(it, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}
