//! Name servers that somebody has chosen: for some domains, and for all other names in place of the
//! host's.
//!
//! They are said in the ConfigMap `kube-system/kube-dns`, in the form that kube-dns has given it
//! (<https://kubernetes.io/docs/tasks/administer-cluster/dns-custom-nameservers/> in versions that
//! have it): `stubDomains` is a JSON object of domains with their servers, `upstreamNameservers` a JSON
//! array of servers. A server is an address, with a port if it is not 53.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use client::{Caches, EventType, Events, Key};
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource as _;
use runtime::{OnExit, Tasks};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::PORT;

/// Where the ConfigMap is.
const NAMESPACE: &str = "kube-system";
/// Its name.
const NAME: &str = "kube-dns";
/// Key of the servers of domains.
const STUBS: &str = "stubDomains";
/// Key of the servers of all else.
const UPSTREAM: &str = "upstreamNameservers";
/// Servers of a domain; as many as a resolv.conf may have (`MAXNS`). The rest is not asked.
const SERVERS_MAX: usize = 3;
/// Reason of the Events about what cannot be used.
const REASON: &str = "InvalidNameServer";
/// How long the first question waits for the ConfigMap to be known: it comes with the first answer of
/// the API, and clients ask again after 5 s.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// What somebody has chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// By domain.
    stubs: BTreeMap<Name, Vec<SocketAddr>>,
    /// Empty: the host's.
    upstream: Vec<SocketAddr>,
}

impl Chosen {
    /// Reads what is usable; and what is not, and why. `own` is the name server of the cluster.
    fn parse(data: &BTreeMap<String, String>, own: IpAddr) -> (Self, Vec<String>) {
        let mut this = Self::default();
        let mut problems = Vec::new();
        for (key, text) in data {
            let read = match key.as_str() {
                STUBS => this.read_stubs(text, &mut problems),
                UPSTREAM => serde_json::from_str(text).map(|it: Value| {
                    this.upstream = servers(UPSTREAM, &it, &mut problems);
                }),
                other => {
                    problems.push(format!("`{other}` is not known: {STUBS} and {UPSTREAM} are"));
                    Ok(())
                }
            };
            problems.extend(read.err().map(|error| format!("`{key}` is not JSON: {error}")));
        }
        for servers in this.stubs.values_mut().chain([&mut this.upstream]) {
            let before = servers.len();
            servers.retain(|it| it.ip() != own);
            if servers.len() < before {
                problems.push(format!("{own} is the cluster's own name server"));
            }
        }
        (this, problems)
    }

    fn read_stubs(&mut self, text: &str, problems: &mut Vec<String>) -> serde_json::Result<()> {
        let all: BTreeMap<String, Value> = serde_json::from_str(text)?;
        for (domain, servers_of) in all {
            let Ok(mut name) = Name::from_str(&domain) else {
                problems.push(format!("`{domain}` in `{STUBS}` is no domain"));
                continue;
            };
            name.set_fqdn(true);
            let servers = servers(&domain, &servers_of, problems);
            if !servers.is_empty() {
                self.stubs.insert(name.to_lowercase(), servers);
            }
        }
        Ok(())
    }

    /// Who is to be asked for `name` in place of the host's servers.
    fn of(&self, name: &Name) -> Option<&[SocketAddr]> {
        let stubs = self.stubs.iter().filter(|(domain, _)| domain.zone_of(name));
        let servers = stubs
            .max_by_key(|(domain, _)| domain.num_labels())
            .map_or(&self.upstream, |(_, servers)| servers);
        (!servers.is_empty()).then_some(servers)
    }
}

/// The usable ones of an array of servers.
fn servers(of: &str, said: &Value, problems: &mut Vec<String>) -> Vec<SocketAddr> {
    let Some(said) = said.as_array() else {
        problems.push(format!("the servers of `{of}` are no array"));
        return Vec::new();
    };
    let mut servers = Vec::new();
    for server in said {
        let text = server.as_str().unwrap_or_default();
        let address = text.parse::<IpAddr>().map(|it| SocketAddr::new(it, PORT));
        match address.or_else(|_| text.parse()) {
            Ok(address) => servers.push(address),
            Err(_) => problems.push(format!(
                "{server} of `{of}` is no address: 192.0.2.1, or 192.0.2.1:5353 with a port"
            )),
        }
    }
    if servers.len() > SERVERS_MAX {
        problems.push(format!("of `{of}`, only the first {SERVERS_MAX} servers are asked"));
        servers.truncate(SERVERS_MAX);
    }
    servers
}

/// What is chosen now; nothing before it is known. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Choice(watch::Receiver<Option<Arc<Chosen>>>);

impl Choice {
    /// Who is to be asked for `name` in place of the host's servers.
    pub(super) async fn of(&self, name: &Name) -> Option<Vec<SocketAddr>> {
        if self.0.borrow().is_none() {
            let mut known = self.0.clone();
            let first = tokio::time::timeout(KNOWN_WITHIN, known.wait_for(Option::is_some)).await;
            // An API that does not answer leaves the host's.
            drop(first);
        }
        let chosen = self.0.borrow().clone();
        chosen?.of(name).map(<[SocketAddr]>::to_vec)
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(watch::channel(Some(Arc::default())).1)
    }
}

/// Follows the ConfigMap until the tasks stop.
pub(crate) fn follow(caches: &Caches, own: Ipv4Addr, events: Events, tasks: &Tasks) -> Choice {
    let (known, choice) = watch::channel(None);
    let config_maps = caches.singles::<ConfigMap>();
    let held = config_maps.hold(&Key::namespaced(NAMESPACE, NAME));
    tasks.spawn("name-servers", OnExit::StopProcess, |stop: CancellationToken| async move {
        let mut changes = held.subscribe();
        let work = async {
            held.synced().await;
            loop {
                let object = config_maps.get(&Key::namespaced(NAMESPACE, NAME));
                learn(object.as_deref(), own.into(), &known, &events);
                changes.next().await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            never = work => never,
        }
    });
    Choice(choice)
}

fn learn(
    object: Option<&ConfigMap>,
    own: IpAddr,
    known: &watch::Sender<Option<Arc<Chosen>>>,
    events: &Events,
) {
    let data = object.and_then(|it| it.data.as_ref());
    let (chosen, problems) = data.map(|it| Chosen::parse(it, own)).unwrap_or_default();
    let is_news = known.send_if_modified(|known| {
        let is_news = known.as_deref() != Some(&chosen);
        if is_news {
            *known = Some(Arc::new(chosen));
        }
        is_news
    });
    if is_news {
        tracing::debug!(chosen = ?known.borrow(), "name servers");
    }
    if let Some(object) = object {
        for problem in problems {
            events.record(object.object_ref(&()), EventType::Warning, REASON, problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn parse(data: &[(&str, &str)]) -> (Chosen, Vec<String>) {
        let owned = data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        Chosen::parse(&owned.collect(), [10, 96, 0, 10].into())
    }

    fn asked(chosen: &Chosen, name: &str) -> Vec<String> {
        let servers = chosen.of(&Name::from_str(name).unwrap()).unwrap_or_default();
        servers.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn the_longest_domain_counts() {
        let stubs =
            r#"{"Corp.example": ["10.0.0.1"], "db.corp.example.": ["10.96.3.7:8600", "::1"]}"#;
        let (chosen, problems) = parse(&[(STUBS, stubs), (UPSTREAM, r#"["192.0.2.1"]"#)]);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(asked(&chosen, "corp.example."), ["10.0.0.1:53"]);
        assert_eq!(asked(&chosen, "WWW.corp.EXAMPLE."), ["10.0.0.1:53"]);
        assert_eq!(asked(&chosen, "one.db.corp.example."), ["10.96.3.7:8600", "[::1]:53"]);
        assert_eq!(asked(&chosen, "notcorp.example."), ["192.0.2.1:53"]);
        let (chosen, _) = parse(&[(STUBS, stubs)]);
        assert_eq!(asked(&chosen, "example."), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_used_is_named_and_the_rest_counts() {
        let stubs = r#"{"a..b": ["10.0.0.1"], "y": "10.0.0.1",
            "x": ["10.0.0.1", "ns.example", 7, "10.96.0.10"]}"#;
        let many = r#"["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]"#;
        let (chosen, problems) =
            parse(&[(STUBS, stubs), (UPSTREAM, many), ("Corefile", ".:53 {}")]);
        expect![[r#"
            `Corefile` is not known: stubDomains and upstreamNameservers are
            `a..b` in `stubDomains` is no domain
            "ns.example" of `x` is no address: 192.0.2.1, or 192.0.2.1:5353 with a port
            7 of `x` is no address: 192.0.2.1, or 192.0.2.1:5353 with a port
            the servers of `y` are no array
            of `upstreamNameservers`, only the first 3 servers are asked
            10.96.0.10 is the cluster's own name server"#]]
        .assert_eq(&problems.join("\n"));
        assert_eq!(asked(&chosen, "x."), ["10.0.0.1:53"]);
        assert_eq!(asked(&chosen, "y.").len(), 3);
        let (_, problems) = parse(&[(STUBS, "[]"), (UPSTREAM, "{")]);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
