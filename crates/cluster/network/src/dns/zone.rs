//! What the names of the cluster mean. Pure: a question and the directory in, records out.
//!
//! The names are those of the Kubernetes DNS specification 1.1.0,
//! <https://github.com/kubernetes/dns/blob/master/docs/specification.md>, and the names of pods and
//! of endpoints without a host name are CoreDNS's.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use client::Key;
use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, CNAME, PTR, SOA, SRV},
};
use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointSlice},
};

use crate::{
    addresses::Addresses,
    directory::{self, Directory},
    family::IpFamily,
};

/// The zone of the cluster.
pub(crate) const ZONE: &str = api::CLUSTER_DOMAIN;

/// The name of the machine itself, below the domain that is nobody's in public (ICANN, 2024). What
/// listens on its `127.0.0.1` answers there.
const HOST: &str = "host.coracle.internal";

/// How long an answer may be kept, in seconds; CoreDNS's default. Endpoints change.
const TTL: u32 = 5;
/// Priority and weight of all SRV records: none is preferred.
const SRV_PRIORITY: u16 = 0;
const SRV_WEIGHT: u16 = 100;

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Records that answer it, and records that the client will want next.
    Records { answers: Vec<Record>, additionals: Vec<Record> },
    /// The name is another name for `target`.
    Alias { target: Name },
    /// The name exists, but has no record of this type.
    NoData,
    /// The name does not exist.
    NoName,
    /// The name is none of ours.
    Elsewhere,
}

/// A name and the type of record that is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) name: &'a Name,
    pub(crate) kind: RecordType,
}

/// Who has the IPv6 address whose name is asked for: the directory of the zone knows only those of IPv4.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holders {
    service: Option<Key>,
    endpoint_of: Vec<Key>,
}

impl Holders {
    /// `six` is the directory of IPv6.
    pub(crate) fn find(six: &directory::Shared, addresses: &Addresses, name: &Name) -> Self {
        let Some(IpAddr::V6(address)) = reverse(name) else { return Self::default() };
        let Some(low) = addresses.v6.and_then(|it| it.low(address)) else { return Self::default() };
        let six = six.read();
        Self {
            service: six.service_at(low).map(|(key, _)| key.clone()),
            endpoint_of: six.services_with_endpoint(low).cloned().collect(),
        }
    }
}

/// A view of the directory as a zone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zone<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) addresses: &'a Addresses,
    pub(crate) holders: &'a Holders,
}

impl Zone<'_> {
    /// Answers one question.
    pub(crate) fn answer(&self, question: Question<'_>) -> Answer {
        let Question { name, kind } = question;
        let text = name.to_lowercase().to_ascii();
        let text = text.strip_suffix('.').unwrap_or(&text);
        if let Some(address) = reverse(name) {
            return self.pointers(address, question);
        }
        if text == HOST {
            let families = IpFamily::all(self.addresses).into_iter();
            let gateways = families.map(|(family, addresses)| family.at(addresses.gateway()));
            return hosts(question, gateways.collect());
        }
        let Some(inside) = text.strip_suffix(ZONE) else { return Answer::Elsewhere };
        let inside = match inside.strip_suffix('.') {
            Some(inside) => inside,
            None if inside.is_empty() => inside,
            None => return Answer::Elsewhere, // notcluster.local
        };
        let labels: Vec<&str> = inside.split('.').rev().filter(|it| !it.is_empty()).collect();
        match *labels.as_slice() {
            [] if kind == RecordType::SOA => records(soa().into_iter().collect()),
            [] | ["svc" | "pod"] => Answer::NoData,
            ["svc" | "pod", namespace] if self.directory.has_service_in(namespace) => {
                Answer::NoData
            }
            ["pod", _, dashed] => self.pod(dashed, question),
            ["svc", namespace, service, ref rest @ ..] => {
                let key = Key::namespaced(namespace, service);
                match self.directory.service(&key) {
                    Some(service) => self.service(&key, service, rest, question),
                    None => Answer::NoName,
                }
            }
            _ => Answer::NoName,
        }
    }

    fn service(
        &self,
        key: &Key,
        service: &Service,
        rest: &[&str],
        question: Question<'_>,
    ) -> Answer {
        match *rest {
            [] => match external_name(service) {
                Some(target) => to_alias(target),
                None => hosts(question, self.addresses_of(key, service)),
            },
            ["_tcp" | "_udp"] => Answer::NoData,
            [protocol @ ("_tcp" | "_udp"), port] if port.starts_with('_') => {
                self.ports(key, service, (protocol, port), question)
            }
            [host] => {
                let endpoints = self.ready_endpoints(key).filter(|(_, it)| host_name(it) == host);
                let addresses: BTreeSet<_> = endpoints.flat_map(|(_, it)| addresses(it)).collect();
                if addresses.is_empty() {
                    return Answer::NoName;
                }
                hosts(question, addresses)
            }
            _ => Answer::NoName,
        }
    }

    fn addresses_of(&self, key: &Key, service: &Service) -> BTreeSet<IpAddr> {
        if directory::is_headless(service) {
            return self
                .ready_endpoints(key)
                .flat_map(|(_, endpoint)| addresses(endpoint))
                .collect();
        }
        self.cluster_ips(service).collect()
    }

    /// The cluster addresses of a Service that are routed.
    fn cluster_ips(&self, service: &Service) -> impl Iterator<Item = IpAddr> {
        let spec = service.spec.as_ref().filter(|_| external_name(service).is_none()).into_iter();
        let all = spec.flat_map(|it| it.cluster_ips.iter().flatten().chain(&it.cluster_ip));
        all.filter_map(|it| it.parse().ok()).filter(|it| self.low(*it).is_some())
    }

    fn ready_endpoints(&self, key: &Key) -> impl Iterator<Item = (&EndpointSlice, &Endpoint)> {
        let has_addresses = |it: &&EndpointSlice| it.address_type != "FQDN";
        let slices = self.directory.slices(key).filter(has_addresses);
        let endpoints =
            slices.flat_map(|it| directory::endpoints(it).map(move |endpoint| (it, endpoint)));
        endpoints.filter(|(_, it)| it.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true))
    }

    /// SRV records of a named port, with the addresses of their targets.
    fn ports(
        &self,
        key: &Key,
        service: &Service,
        (protocol, port): (&str, &str),
        Question { name, kind }: Question<'_>,
    ) -> Answer {
        let is_named = |it_name: Option<&str>, it_protocol: Option<&str>| {
            port.strip_prefix('_') == it_name
                && protocol.strip_prefix('_').is_some_and(|protocol| {
                    protocol.eq_ignore_ascii_case(it_protocol.unwrap_or("TCP"))
                })
        };
        // Both addresses of a dual-stack Service, or of an endpoint with a host name, are one target.
        let mut targets: BTreeSet<(u16, Name)> = BTreeSet::new();
        let mut hosts: BTreeSet<(Name, IpAddr)> = BTreeSet::new();
        if directory::is_headless(service) {
            for (slice, endpoint) in self.ready_endpoints(key) {
                let ports = slice.ports.iter().flatten();
                let ports = ports.filter(|it| is_named(it.name.as_deref(), it.protocol.as_deref()));
                let target = endpoint_name(key, endpoint).zip(addresses(endpoint).next());
                let Some((target, address)) = target else { continue };
                for port in ports.filter_map(|it| u16::try_from(it.port?).ok()) {
                    targets.insert((port, target.clone()));
                    hosts.insert((target.clone(), address));
                }
            }
        } else if let Some(target) = service_name(key) {
            let ports = service.spec.iter().flat_map(|it| it.ports.iter().flatten());
            let ports = ports.filter(|it| is_named(it.name.as_deref(), it.protocol.as_deref()));
            let ports = ports.filter_map(|it| u16::try_from(it.port).ok());
            let all: Vec<IpAddr> = self.cluster_ips(service).collect();
            targets.extend(ports.filter(|_| !all.is_empty()).map(|it| (it, target.clone())));
            hosts.extend(all.into_iter().map(|it| (target.clone(), it)));
        }
        if targets.is_empty() {
            return Answer::NoName;
        }
        if kind != RecordType::SRV && kind != RecordType::ANY {
            return Answer::NoData;
        }
        let answers = targets.into_iter().map(|(port, target)| {
            let data = SRV::new(SRV_PRIORITY, SRV_WEIGHT, port, target);
            Record::from_rdata(name.clone(), TTL, RData::SRV(data))
        });
        let additionals = hosts.into_iter().map(|(target, address)| host(target, address));
        Answer::Records { answers: answers.collect(), additionals: additionals.collect() }
    }

    /// `10-244-0-7.NAMESPACE.pod`: any address of the pods' ranges, as CoreDNS has it by default.
    fn pod(&self, dashed: &str, question: Question<'_>) -> Answer {
        let v4 = || dashed.replace('-', ".").parse().ok();
        let address = dashed.replace('-', ":").parse().ok().or_else(v4);
        let is_pods =
            |it: &IpAddr| self.low(*it).is_some_and(|(ranges, low)| ranges.pods.contains(low));
        match address.filter(is_pods) {
            Some(address) => hosts(question, BTreeSet::from([address])),
            None => Answer::NoName,
        }
    }

    /// How an address of the cluster ends, and the ranges of such ends.
    fn low(&self, address: IpAddr) -> Option<(Addresses, Ipv4Addr)> {
        let mut families = IpFamily::all(self.addresses).into_iter();
        families.find_map(|(family, ranges)| Some((ranges, family.low(address)?)))
    }

    /// The names of an address.
    fn pointers(&self, address: IpAddr, Question { name, kind }: Question<'_>) -> Answer {
        let ours = |(ranges, low): (Addresses, Ipv4Addr)| {
            ranges.pods.contains(low) || ranges.services.contains(low)
        };
        if !self.low(address).is_some_and(ours) {
            return Answer::Elsewhere;
        }
        let (service, owners): (_, Vec<&Key>) = match address {
            IpAddr::V4(address) => (
                self.directory.service_at(address).map(|(key, _)| key),
                self.directory.services_with_endpoint(address).collect(),
            ),
            IpAddr::V6(_) => {
                (self.holders.service.as_ref(), self.holders.endpoint_of.iter().collect())
            }
        };
        let mut names: Vec<Name> = Vec::new();
        names.extend(service.and_then(service_name));
        for key in owners {
            let is_it = |it: &&Endpoint| addresses(it).any(|it| it == address);
            let endpoints = self.directory.slices(key).flat_map(directory::endpoints);
            names.extend(endpoints.filter(is_it).filter_map(|it| endpoint_name(key, it)));
        }
        match (names.is_empty(), kind) {
            (true, _) => Answer::NoName,
            (false, RecordType::PTR | RecordType::ANY) => {
                let pointer = |it| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(it)));
                records(names.into_iter().map(pointer).collect())
            }
            (false, _) => Answer::NoData,
        }
    }
}

/// The record that says how long a negative answer holds, and that the zone is ours.
pub(crate) fn soa() -> Option<Record> {
    const SERIAL: u32 = 1;
    const REFRESH: i32 = 7200;
    const RETRY: i32 = 1800;
    const EXPIRE: i32 = 86400;
    let name = |it: String| Name::from_ascii(it).ok();
    let (server, mailbox) = (format!("ns.dns.{ZONE}."), format!("hostmaster.{ZONE}."));
    let data = SOA::new(name(server)?, name(mailbox)?, SERIAL, REFRESH, RETRY, EXPIRE, TTL);
    Some(Record::from_rdata(name(format!("{ZONE}."))?, TTL, RData::SOA(data)))
}

fn records(answers: Vec<Record>) -> Answer {
    Answer::Records { answers, additionals: Vec::new() }
}

fn hosts(Question { name, kind }: Question<'_>, addresses: BTreeSet<IpAddr>) -> Answer {
    let all = addresses.into_iter().map(|it| host(name.clone(), it));
    let found: Vec<Record> =
        all.filter(|it| kind == RecordType::ANY || kind == it.record_type()).collect();
    if found.is_empty() { Answer::NoData } else { records(found) }
}

/// The record of an address.
fn host(name: Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name, TTL, data)
}

/// The addresses of an endpoint.
fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint.addresses.iter().filter_map(|it| it.parse().ok())
}

fn to_alias(target: &str) -> Answer {
    let Ok(mut target) = Name::from_ascii(target) else { return Answer::NoData };
    target.set_fqdn(true);
    Answer::Alias { target }
}

/// The record that says so.
pub(crate) fn alias(name: &Name, target: &Name) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target.clone())))
}

fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.external_name.as_deref().filter(|_| external)
}

/// The label of an endpoint: its host name, or its address with dashes.
fn host_name(endpoint: &Endpoint) -> String {
    let dashed = || endpoint.addresses.first().map(|it| it.replace(['.', ':'], "-"));
    endpoint.hostname.clone().or_else(dashed).unwrap_or_default()
}

fn service_name(key: &Key) -> Option<Name> {
    Name::from_ascii(format!("{}.{}.svc.{ZONE}.", key.name, key.namespace_or_empty())).ok()
}

fn endpoint_name(key: &Key, endpoint: &Endpoint) -> Option<Name> {
    service_name(key)?.prepend_label(host_name(endpoint)).ok()
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use client::Change;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;
    use crate::addresses::Prefix;

    fn add_service(directory: &mut Directory, name: &str, spec: Value) {
        let object = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        let new: Option<Arc<Service>> = Some(Arc::new(serde_json::from_value(object).unwrap()));
        let key = Key::namespaced("shop", name);
        directory.service_changed(Change { key, old: None, new }, &mut BTreeSet::new());
    }

    fn add_slice(directory: &mut Directory, name: &str, slice: Value) {
        let new: Option<Arc<EndpointSlice>> =
            Some(Arc::new(serde_json::from_value(slice).unwrap()));
        let key = Key::namespaced("shop", name);
        directory.slice_changed(&Change { key, old: None, new }, &mut BTreeSet::new());
    }

    fn addresses() -> Addresses {
        let prefix = Prefix::local([0x12, 0x34, 0x56, 0x78, 0x9a]);
        Addresses { v6: Some(prefix), ..Addresses::default() }
    }

    /// The same objects, as each family's directory has them.
    fn directory(family: IpFamily) -> directory::Shared {
        let shared = directory::Shared::new(family, addresses());
        fill(&mut shared.write());
        shared
    }

    fn fill(directory: &mut Directory) {
        let port = json!([{"name": "http", "port": 80}]);
        add_service(directory, "web", json!({"clusterIP": "10.96.0.7", "ports": port}));
        add_service(directory, "db", json!({"clusterIP": "None", "ports": port}));
        add_service(directory, "empty", json!({"clusterIP": "None"}));
        let external = json!({"type": "ExternalName", "externalName": "db.example.com"});
        add_service(directory, "outside", external);
        let both = json!(["10.96.0.8", "fd12:3456:789a::8"]);
        let both = json!({"clusterIP": "10.96.0.8", "clusterIPs": both, "ports": port});
        add_service(directory, "both", both);
        let six = json!({"clusterIP": "fd12:3456:789a::9", "clusterIPs": ["fd12:3456:789a::9"]});
        add_service(directory, "six", six);
        let elsewhere = json!({"clusterIP": "fd99::9", "clusterIPs": ["fd99::9"], "ports": port});
        add_service(directory, "elsewhere", elsewhere);
        let slice = json!({
            "metadata": {"name": "db-1", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "db"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.244.0.2"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.0.3"]},
                {"addresses": ["10.244.0.4"], "conditions": {"ready": false}},
            ],
        });
        let mut six = slice.clone();
        six["metadata"]["name"] = "db-2".into();
        six["addressType"] = "IPv6".into();
        six["endpoints"] = json!([
            {"addresses": ["fd12:3456:789a::af4:2"], "hostname": "db-0"},
            {"addresses": ["fd12:3456:789a::af4:3"]},
            {"addresses": ["fd12:3456:789a::af4:4"], "conditions": {"ready": false}},
        ]);
        let mut named = slice.clone();
        named["metadata"]["name"] = "db-3".into();
        named["addressType"] = "FQDN".into();
        named["endpoints"] = json!([{"addresses": ["db.example.com"], "hostname": "db-9"}]);
        add_slice(directory, "db-1", slice);
        add_slice(directory, "db-2", six);
        add_slice(directory, "db-3", named);
    }

    fn check(questions: &[(&str, RecordType)], expected: Expect) {
        let addresses = addresses();
        let four = directory(IpFamily::V4);
        let six = directory(IpFamily::V6(addresses.v6.unwrap()));
        let lines = questions.iter().map(|(name, kind)| {
            let answer = {
                let name = Name::from_ascii(name).unwrap();
                let holders = Holders::find(&six, &addresses, &name);
                let (directory, addresses) = (&*four.read(), &addresses);
                let zone = Zone { directory, addresses, holders: &holders };
                zone.answer(Question { name: &name, kind: *kind })
            };
            let shown = match answer {
                Answer::Records { answers, additionals } => {
                    let all = answers.iter().chain(&additionals).map(|it| it.to_string());
                    all.collect::<Vec<_>>().join("\n  ")
                }

                other => format!("{other:?}"),
            };
            format!("{kind} {name}\n  {shown}")
        });
        expected.assert_eq(&lines.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn services() {
        check(
            &[
                ("web.shop.svc.cluster.local.", RecordType::A),
                ("WEB.shop.svc.Cluster.Local.", RecordType::A),
                ("web.shop.svc.cluster.local.", RecordType::AAAA),
                ("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV),
                ("outside.shop.svc.cluster.local.", RecordType::A),
                ("7.0.96.10.in-addr.arpa.", RecordType::PTR),
            ],
            expect![[r#"
                A web.shop.svc.cluster.local.
                  web.shop.svc.cluster.local. 5 IN A 10.96.0.7
                A WEB.shop.svc.Cluster.Local.
                  WEB.shop.svc.Cluster.Local. 5 IN A 10.96.0.7
                AAAA web.shop.svc.cluster.local.
                  NoData
                SRV _http._tcp.web.shop.svc.cluster.local.
                  _http._tcp.web.shop.svc.cluster.local. 5 IN SRV 0 100 80 web.shop.svc.cluster.local.
                  web.shop.svc.cluster.local. 5 IN A 10.96.0.7
                A outside.shop.svc.cluster.local.
                  Alias { target: Name("db.example.com.") }
                PTR 7.0.96.10.in-addr.arpa.
                  7.0.96.10.in-addr.arpa. 5 IN PTR web.shop.svc.cluster.local."#]],
        );
    }

    #[test]
    fn headless_services() {
        check(
            &[
                ("db.shop.svc.cluster.local.", RecordType::A),
                ("db-0.db.shop.svc.cluster.local.", RecordType::A),
                ("10-244-0-3.db.shop.svc.cluster.local.", RecordType::A),
                ("10-244-0-4.db.shop.svc.cluster.local.", RecordType::A),
                ("_http._tcp.db.shop.svc.cluster.local.", RecordType::SRV),
                ("empty.shop.svc.cluster.local.", RecordType::A),
                ("2.0.244.10.in-addr.arpa.", RecordType::PTR),
            ],
            expect![[r#"
                A db.shop.svc.cluster.local.
                  db.shop.svc.cluster.local. 5 IN A 10.244.0.2
                  db.shop.svc.cluster.local. 5 IN A 10.244.0.3
                A db-0.db.shop.svc.cluster.local.
                  db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.2
                A 10-244-0-3.db.shop.svc.cluster.local.
                  10-244-0-3.db.shop.svc.cluster.local. 5 IN A 10.244.0.3
                A 10-244-0-4.db.shop.svc.cluster.local.
                  NoName
                SRV _http._tcp.db.shop.svc.cluster.local.
                  _http._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 100 8080 10-244-0-3.db.shop.svc.cluster.local.
                  _http._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 100 8080 db-0.db.shop.svc.cluster.local.
                  _http._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 100 8080 fd12-3456-789a--af4-3.db.shop.svc.cluster.local.
                  10-244-0-3.db.shop.svc.cluster.local. 5 IN A 10.244.0.3
                  db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.2
                  db-0.db.shop.svc.cluster.local. 5 IN AAAA fd12:3456:789a::af4:2
                  fd12-3456-789a--af4-3.db.shop.svc.cluster.local. 5 IN AAAA fd12:3456:789a::af4:3
                A empty.shop.svc.cluster.local.
                  NoData
                PTR 2.0.244.10.in-addr.arpa.
                  2.0.244.10.in-addr.arpa. 5 IN PTR db-0.db.shop.svc.cluster.local."#]],
        );
    }

    #[test]
    fn services_of_both_families() {
        check(
            &[
                ("both.shop.svc.cluster.local.", RecordType::A),
                ("both.shop.svc.cluster.local.", RecordType::AAAA),
                ("both.shop.svc.cluster.local.", RecordType::ANY),
                ("both.shop.svc.cluster.local.", RecordType::TXT),
                ("_http._tcp.both.shop.svc.cluster.local.", RecordType::SRV),
                ("_http._tcp.both.shop.svc.cluster.local.", RecordType::AAAA),
                ("six.shop.svc.cluster.local.", RecordType::A),
                ("six.shop.svc.cluster.local.", RecordType::AAAA),
                ("elsewhere.shop.svc.cluster.local.", RecordType::AAAA),
                ("_http._tcp.elsewhere.shop.svc.cluster.local.", RecordType::SRV),
            ],
            expect![[r#"
                A both.shop.svc.cluster.local.
                  both.shop.svc.cluster.local. 5 IN A 10.96.0.8
                AAAA both.shop.svc.cluster.local.
                  both.shop.svc.cluster.local. 5 IN AAAA fd12:3456:789a::8
                ANY both.shop.svc.cluster.local.
                  both.shop.svc.cluster.local. 5 IN A 10.96.0.8
                  both.shop.svc.cluster.local. 5 IN AAAA fd12:3456:789a::8
                TXT both.shop.svc.cluster.local.
                  NoData
                SRV _http._tcp.both.shop.svc.cluster.local.
                  _http._tcp.both.shop.svc.cluster.local. 5 IN SRV 0 100 80 both.shop.svc.cluster.local.
                  both.shop.svc.cluster.local. 5 IN A 10.96.0.8
                  both.shop.svc.cluster.local. 5 IN AAAA fd12:3456:789a::8
                AAAA _http._tcp.both.shop.svc.cluster.local.
                  NoData
                A six.shop.svc.cluster.local.
                  NoData
                AAAA six.shop.svc.cluster.local.
                  six.shop.svc.cluster.local. 5 IN AAAA fd12:3456:789a::9
                AAAA elsewhere.shop.svc.cluster.local.
                  NoData
                SRV _http._tcp.elsewhere.shop.svc.cluster.local.
                  NoName"#]],
        );
    }

    #[test]
    fn headless_services_of_both_families() {
        check(
            &[
                ("db.shop.svc.cluster.local.", RecordType::AAAA),
                ("db-0.db.shop.svc.cluster.local.", RecordType::AAAA),
                ("db-9.db.shop.svc.cluster.local.", RecordType::AAAA),
                ("10-244-0-3.db.shop.svc.cluster.local.", RecordType::AAAA),
                ("fd12-3456-789a--af4-3.db.shop.svc.cluster.local.", RecordType::AAAA),
                ("fd12-3456-789a--af4-3.db.shop.svc.cluster.local.", RecordType::A),
                ("fd12-3456-789a--af4-4.db.shop.svc.cluster.local.", RecordType::AAAA),
                ("empty.shop.svc.cluster.local.", RecordType::AAAA),
                ("fd12-3456-789a--af4-9.shop.pod.cluster.local.", RecordType::AAAA),
                ("fd12-3456-789a--af4-9.shop.pod.cluster.local.", RecordType::A),
                ("10-244-0-9.shop.pod.cluster.local.", RecordType::AAAA),
                ("fd12-3456-789a--9.shop.pod.cluster.local.", RecordType::AAAA),
                ("fd99--af4-9.shop.pod.cluster.local.", RecordType::AAAA),
            ],
            expect![[r#"
                AAAA db.shop.svc.cluster.local.
                  db.shop.svc.cluster.local. 5 IN AAAA fd12:3456:789a::af4:2
                  db.shop.svc.cluster.local. 5 IN AAAA fd12:3456:789a::af4:3
                AAAA db-0.db.shop.svc.cluster.local.
                  db-0.db.shop.svc.cluster.local. 5 IN AAAA fd12:3456:789a::af4:2
                AAAA db-9.db.shop.svc.cluster.local.
                  NoName
                AAAA 10-244-0-3.db.shop.svc.cluster.local.
                  NoData
                AAAA fd12-3456-789a--af4-3.db.shop.svc.cluster.local.
                  fd12-3456-789a--af4-3.db.shop.svc.cluster.local. 5 IN AAAA fd12:3456:789a::af4:3
                A fd12-3456-789a--af4-3.db.shop.svc.cluster.local.
                  NoData
                AAAA fd12-3456-789a--af4-4.db.shop.svc.cluster.local.
                  NoName
                AAAA empty.shop.svc.cluster.local.
                  NoData
                AAAA fd12-3456-789a--af4-9.shop.pod.cluster.local.
                  fd12-3456-789a--af4-9.shop.pod.cluster.local. 5 IN AAAA fd12:3456:789a::af4:9
                A fd12-3456-789a--af4-9.shop.pod.cluster.local.
                  NoData
                AAAA 10-244-0-9.shop.pod.cluster.local.
                  NoData
                AAAA fd12-3456-789a--9.shop.pod.cluster.local.
                  NoName
                AAAA fd99--af4-9.shop.pod.cluster.local.
                  NoName"#]],
        );
    }

    #[test]
    fn names_of_ipv6_addresses() {
        let questions = [
            "fd12:3456:789a::8",
            "fd12:3456:789a::9",
            "fd12:3456:789a::af4:2",
            "fd12:3456:789a::af4:3",
            "fd12:3456:789a::af4:9",
            "fd12:3456:789a::102:304",
            "2001:db8::8",
        ];
        let questions = questions.map(|it| {
            let address: IpAddr = it.parse().unwrap();
            Name::from(address).to_ascii()
        });
        let mut all: Vec<_> = questions.iter().map(|it| (it.as_str(), RecordType::PTR)).collect();
        all.push((questions[0].as_str(), RecordType::A));
        all.push(("8.b.d.0.1.0.0.2.ip6.arpa.", RecordType::PTR));
        check(
            &all,
            expect![[r#"
            PTR 8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.
              8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa. 5 IN PTR both.shop.svc.cluster.local.
            PTR 9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.
              9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa. 5 IN PTR six.shop.svc.cluster.local.
            PTR 2.0.0.0.4.f.a.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.
              2.0.0.0.4.f.a.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa. 5 IN PTR db-0.db.shop.svc.cluster.local.
            PTR 3.0.0.0.4.f.a.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.
              3.0.0.0.4.f.a.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa. 5 IN PTR fd12-3456-789a--af4-3.db.shop.svc.cluster.local.
            PTR 9.0.0.0.4.f.a.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.
              NoName
            PTR 4.0.3.0.2.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.
              Elsewhere
            PTR 8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.
              Elsewhere
            A 8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.
              NoData
            PTR 8.b.d.0.1.0.0.2.ip6.arpa.
              Elsewhere"#]],
        );
    }

    #[test]
    fn what_is_not_there_and_what_is_beside() {
        check(
            &[
                ("cluster.local.", RecordType::A),
                ("cluster.local.", RecordType::SOA),
                ("svc.cluster.local.", RecordType::A),
                ("shop.svc.cluster.local.", RecordType::A),
                ("other.svc.cluster.local.", RecordType::A),
                ("nope.shop.svc.cluster.local.", RecordType::A),
                ("_nope._tcp.web.shop.svc.cluster.local.", RecordType::SRV),
                ("10-244-0-9.shop.pod.cluster.local.", RecordType::A),
                ("192-168-0-9.shop.pod.cluster.local.", RecordType::A),
                ("host.coracle.internal.", RecordType::A),
                ("host.coracle.internal.", RecordType::AAAA),
                ("example.com.", RecordType::A),
                ("notcluster.local.", RecordType::A),
                ("9.0.96.10.in-addr.arpa.", RecordType::PTR),
                ("8.8.8.8.in-addr.arpa.", RecordType::PTR),
            ],
            expect![[r#"
                A cluster.local.
                  NoData
                SOA cluster.local.
                  cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
                A svc.cluster.local.
                  NoData
                A shop.svc.cluster.local.
                  NoData
                A other.svc.cluster.local.
                  NoName
                A nope.shop.svc.cluster.local.
                  NoName
                SRV _nope._tcp.web.shop.svc.cluster.local.
                  NoName
                A 10-244-0-9.shop.pod.cluster.local.
                  10-244-0-9.shop.pod.cluster.local. 5 IN A 10.244.0.9
                A 192-168-0-9.shop.pod.cluster.local.
                  NoName
                A host.coracle.internal.
                  host.coracle.internal. 5 IN A 10.244.0.1
                AAAA host.coracle.internal.
                  host.coracle.internal. 5 IN AAAA fd12:3456:789a::af4:1
                A example.com.
                  Elsewhere
                A notcluster.local.
                  Elsewhere
                PTR 9.0.96.10.in-addr.arpa.
                  NoName
                PTR 8.8.8.8.in-addr.arpa.
                  Elsewhere"#]],
        );
    }
}
