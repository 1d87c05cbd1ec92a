//! What the proxy knows when a request comes: hosts, rules, and the endpoints behind them. A table never
//! changes; another takes its place as a whole.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use client::Key;
use http::StatusCode;
use rustls::sign::CertifiedKey;

/// The hosts with their rules.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Rules by host, in the order in which they are tried.
    pub(crate) hosts: BTreeMap<String, Vec<Rule>>,
    /// Rules of hosts `*.REST`, by `REST`.
    pub(crate) wildcards: BTreeMap<String, Vec<Rule>>,
    /// Names that lead to Services.
    pub(crate) names: BTreeMap<String, Route>,
    /// Rules for whatever host is asked for.
    pub(crate) any: Vec<Rule>,
    /// What takes the requests that no rule takes.
    pub(crate) fallback: Option<Route>,
    /// Certificates by host; `*.` stands for one label.
    pub(crate) certificates: BTreeMap<String, Arc<CertifiedKey>>,
    /// All backends that the rules lead to.
    pub(crate) backends: BTreeMap<(Key, u16), Arc<Backend>>,
}

/// Requests to these paths take that route.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) path: PathMatch,
    pub(crate) route: Route,
}

/// Which paths a rule takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathMatch {
    Exact(String),
    /// Whole elements, without a slash at the end: `/a/b` takes `/a/b`, `/a/b/` and `/a/b/c`; the empty one
    /// takes everything.
    Prefix(String),
}

impl PathMatch {
    /// `path` begins with a slash, and has no query.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => path == wanted,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    /// A prefix as it is compared.
    pub(crate) fn prefix(path: &str) -> Self {
        Self::Prefix(path.trim_end_matches('/').to_owned())
    }
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Of which object it is, for logs and metrics.
    pub(crate) of: Arc<RouteOf>,
    pub(crate) target: Target,
}

/// The object that wants a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteOf {
    pub(crate) kind: &'static str,
    pub(crate) key: Key,
}

/// What becomes of a request that takes a route.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Forward(Arc<Backend>),
    /// Answered here, and why.
    Refuse(StatusCode, Arc<str>),
}

/// How a backend is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS and without asking first.
    H2c,
    /// HTTP/2 or 1.1 over TLS, whoever the endpoint says it is.
    Https,
}

/// A port of a Service.
#[derive(Debug, Default)]
pub(crate) struct Backend {
    pub(crate) service: Key,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// Endpoints that take new requests.
    pub(crate) ready: Vec<SocketAddr>,
    /// Endpoints that are on their way out but still answer: used for want of others.
    pub(crate) leaving: Vec<SocketAddr>,
    /// Counts requests, so that endpoints take turns.
    pub(crate) turn: AtomicUsize,
}

impl Backend {
    /// The endpoints to try for one request, in order.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = SocketAddr> {
        let endpoints = if self.ready.is_empty() { &self.leaving } else { &self.ready };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(endpoints.len()).unwrap_or(0);
        let (before, after) = endpoints.split_at_checked(first).unwrap_or((&[], endpoints));
        after.iter().chain(before).copied()
    }
}

impl Table {
    /// The route of a request; `host` is in lower case, without a port. What names the host comes before
    /// names of Services, these before what names none. Hosts are also reached below `localhost`.
    pub(crate) fn route(&self, host: &str, path: &str) -> Option<&Route> {
        let below = host.strip_suffix(".localhost");
        first(self.of_host(host), path)
            .or_else(|| self.names.get(host))
            .or_else(|| first(self.of_host(below?), path))
            .or_else(|| first(self.any.iter(), path))
            .or(self.fallback.as_ref())
    }

    /// The certificate that was given for a host.
    pub(crate) fn certificate(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        let wildcard = || {
            let (_, rest) = host.split_once('.')?;
            self.certificates.get(&format!("*.{rest}"))
        };
        self.certificates.get(host).or_else(wildcard)
    }

    /// Whether a host is named by a rule or a Service.
    pub(crate) fn serves(&self, host: &str) -> bool {
        let wildcard = host.split_once('.').is_some_and(|(_, it)| self.wildcards.contains_key(it));
        wildcard || self.hosts.contains_key(host) || self.names.contains_key(host)
    }

    /// The rules that name a host; `*` stands for one label.
    fn of_host(&self, host: &str) -> impl Iterator<Item = &Rule> {
        let wildcard = host.split_once('.').and_then(|(_, rest)| self.wildcards.get(rest));
        [self.hosts.get(host), wildcard].into_iter().flatten().flatten()
    }

    /// The hosts that are served, for people.
    pub(crate) fn shown_hosts(&self) -> impl Iterator<Item = String> {
        let wildcards = self.wildcards.keys().map(|it| format!("*.{it}"));
        let mut hosts: BTreeSet<String> = self.hosts.keys().cloned().chain(wildcards).collect();
        hosts.extend(self.names.keys().cloned());
        hosts.into_iter()
    }

    /// Every endpoint to which a request may go.
    pub(crate) fn endpoints(&self) -> HashSet<SocketAddr> {
        let endpoints =
            |it: &Backend| it.ready.iter().chain(&it.leaving).copied().collect::<Vec<_>>();
        self.backends.values().flat_map(|it| endpoints(it)).collect()
    }

    /// Whether new requests go to `address` as to a ready endpoint.
    pub(crate) fn leads_to(&self, address: IpAddr) -> bool {
        self.backends.values().any(|it| it.ready.iter().any(|it| it.ip() == address))
    }

    /// Lets endpoints take turns where they did in `last`.
    pub(crate) fn go_on_after(&self, last: &Self) {
        for (key, backend) in &self.backends {
            if let Some(last) = last.backends.get(key) {
                backend.turn.store(last.turn.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }
}

fn first<'a>(mut rules: impl Iterator<Item = &'a Rule>, path: &str) -> Option<&'a Route> {
    rules.find(|it| it.path.matches(path)).map(|it| &it.route)
}
