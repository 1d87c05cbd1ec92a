//! What the proxy knows when a request comes: hosts, rules, and the endpoints behind them. A table never
//! changes; another takes its place as a whole.

mod actions;
mod shares;
mod wants;

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

pub(crate) use actions::{Filters, HeaderEdits, PathEdit, Redirect, Rewrite, Timeouts};
pub(crate) use shares::{Share, Shares};
pub(crate) use wants::{Asked, PathMatch, Text, USUAL, Wants};

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
    /// Certificates by host; those of `*.REST` are for all hosts below, and `""` is for hosts that have none.
    pub(crate) certificates: BTreeMap<String, Arc<CertifiedKey>>,
    /// All backends that the rules lead to.
    pub(crate) backends: BTreeMap<(Key, u16), Arc<Backend>>,
    /// What is shared among several backends, by the rule's place in its object.
    pub(crate) shares: BTreeMap<(RouteOf, usize), Arc<Shares>>,
}

/// Requests that are like this take that route.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) wants: Wants,
    pub(crate) route: Route,
}

/// What becomes of requests, and on whose behalf.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Of which object it is, for logs and metrics.
    pub(crate) of: Arc<RouteOf>,
    /// What is done to the request and its answer, wherever it goes.
    pub(crate) filters: Option<Arc<Filters>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) action: Action,
}

impl Route {
    /// One on which nothing is done to requests.
    pub(crate) fn new(of: RouteOf, target: Target) -> Self {
        let action = Action::To(target);
        Self { of: Arc::new(of), filters: None, timeouts: Timeouts::default(), action }
    }
}

/// The object that wants a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteOf {
    pub(crate) kind: &'static str,
    pub(crate) key: Key,
}

/// What becomes of a request that takes a route.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    To(Target),
    /// One of several has it.
    Share(Arc<Shares>),
    /// The client is told of another address.
    Redirect(Arc<Redirect>),
}

/// Where a request goes.
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
    /// The route of a request. What names the host comes before names of Services, these before what names
    /// none. Hosts are also reached below `localhost`.
    pub(crate) fn route(&self, asked: &Asked<'_>) -> Option<&Route> {
        let Asked { host, .. } = *asked;
        let below = || first(self.of_host(host.strip_suffix(".localhost")?), asked);
        first(self.of_host(host), asked)
            .or_else(|| self.names.get(host).filter(|_| asked.is_usual()))
            .or_else(below)
            .or_else(|| first(self.any.iter().map(|it| (it, false)), asked))
            .or_else(|| self.fallback.as_ref().filter(|_| asked.is_usual()))
    }

    /// The certificate that was given for a host. The cluster's own names have those of its authority.
    pub(crate) fn certificate(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        let wildcard = || rests(host).find_map(|it| self.certificates.get(&format!("*.{it}")));
        let others =
            || if self.names.contains_key(host) { None } else { self.certificates.get("") };
        self.certificates.get(host).or_else(wildcard).or_else(others)
    }

    /// Whether a host is named by a rule or a Service.
    pub(crate) fn serves(&self, host: &str) -> bool {
        let wildcard = || rests(host).any(|it| self.wildcards.contains_key(it));
        self.hosts.contains_key(host) || self.names.contains_key(host) || wildcard()
    }

    /// The rules that name a host, the closest first, and whether they name one further up than by a label.
    fn of_host<'a, 'b>(
        &'a self,
        host: &'b str,
    ) -> impl Iterator<Item = (&'a Rule, bool)> + use<'a, 'b> {
        let own = self.hosts.get(host).into_iter().flatten().map(|it| (it, false));
        let wildcards = rests(host).enumerate().flat_map(|(depth, rest)| {
            let rules = self.wildcards.get(rest).into_iter().flatten();
            rules.map(move |it| (it, depth != 0))
        });
        own.chain(wildcards)
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
        for (place, shares) in &self.shares {
            if let Some(last) = last.shares.get(place) {
                shares.go_on_after(last);
            }
        }
    }
}

/// What a host ends in after each of its dots, the longest first.
fn rests(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(host.split_once('.'), |(_, rest)| rest.split_once('.')).map(|it| it.1)
}

fn first<'a>(
    mut rules: impl Iterator<Item = (&'a Rule, bool)>,
    asked: &Asked<'_>,
) -> Option<&'a Route> {
    rules.find(|(rule, deep)| rule.wants.takes(asked, *deep)).map(|(rule, _)| &rule.route)
}
