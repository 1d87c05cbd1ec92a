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
    rdata::{A, CNAME, PTR, SOA, SRV},
};
use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointSlice},
};

use crate::{
    addresses::Addresses,
    directory::{self, Directory},
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

/// A view of the directory as a zone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zone<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) addresses: &'a Addresses,
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
            return hosts(question, BTreeSet::from([self.addresses.gateway()]));
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
                let addresses: BTreeSet<_> =
                    endpoints.flat_map(|(_, it)| directory::addresses(it)).collect();
                if addresses.is_empty() {
                    return Answer::NoName;
                }
                hosts(question, addresses)
            }
            _ => Answer::NoName,
        }
    }

    fn addresses_of(&self, key: &Key, service: &Service) -> BTreeSet<Ipv4Addr> {
        if directory::is_headless(service) {
            return self
                .ready_endpoints(key)
                .flat_map(|(_, endpoint)| directory::addresses(endpoint))
                .collect();
        }
        directory::cluster_ip(service).into_iter().collect()
    }

    fn ready_endpoints(&self, key: &Key) -> impl Iterator<Item = (&EndpointSlice, &Endpoint)> {
        let slices = self.directory.slices(key).filter(|it| it.address_type == "IPv4");
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
        let mut targets: Vec<(u16, Name, Ipv4Addr)> = Vec::new();
        if directory::is_headless(service) {
            for (slice, endpoint) in self.ready_endpoints(key) {
                let ports = slice.ports.iter().flatten();
                let ports = ports.filter(|it| is_named(it.name.as_deref(), it.protocol.as_deref()));
                for port in ports.filter_map(|it| u16::try_from(it.port?).ok()) {
                    let target = endpoint_name(key, endpoint);
                    let address = directory::addresses(endpoint).next();
                    targets.extend(target.zip(address).map(|(target, it)| (port, target, it)));
                }
            }
        } else if let Some(address) = directory::cluster_ip(service) {
            let ports = service.spec.iter().flat_map(|it| it.ports.iter().flatten());
            let ports = ports.filter(|it| is_named(it.name.as_deref(), it.protocol.as_deref()));
            let ports = ports.filter_map(|it| u16::try_from(it.port).ok());
            targets.extend(ports.filter_map(|it| Some((it, service_name(key)?, address))));
        }
        if targets.is_empty() {
            return Answer::NoName;
        }
        if kind != RecordType::SRV && kind != RecordType::ANY {
            return Answer::NoData;
        }
        let answers = targets.iter().map(|(port, target, _)| {
            let data = SRV::new(SRV_PRIORITY, SRV_WEIGHT, *port, target.clone());
            Record::from_rdata(name.clone(), TTL, RData::SRV(data))
        });
        let additionals = targets.iter().map(|(_, target, address)| {
            Record::from_rdata(target.clone(), TTL, RData::A(A(*address)))
        });
        Answer::Records { answers: answers.collect(), additionals: additionals.collect() }
    }

    /// `10-244-0-7.NAMESPACE.pod`: any address of the pods' range, as CoreDNS has it by default.
    fn pod(&self, dashed: &str, question: Question<'_>) -> Answer {
        let address = dashed.replace('-', ".").parse().ok();
        match address.filter(|it| self.addresses.pods.contains(*it)) {
            Some(address) => hosts(question, BTreeSet::from([address])),
            None => Answer::NoName,
        }
    }

    /// The names of an address.
    fn pointers(&self, address: Ipv4Addr, Question { name, kind }: Question<'_>) -> Answer {
        let Addresses { pods, services, .. } = self.addresses;
        if !pods.contains(address) && !services.contains(address) {
            return Answer::Elsewhere;
        }
        let mut names: Vec<Name> = Vec::new();
        names.extend(self.directory.service_at(address).and_then(|(key, _)| service_name(key)));
        for key in self.directory.services_with_endpoint(address) {
            let is_it = |it: &&Endpoint| directory::addresses(it).any(|it| it == address);
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

fn hosts(Question { name, kind }: Question<'_>, addresses: BTreeSet<Ipv4Addr>) -> Answer {
    if addresses.is_empty() || (kind != RecordType::A && kind != RecordType::ANY) {
        return Answer::NoData;
    }
    let record = |it| Record::from_rdata(name.clone(), TTL, RData::A(A(it)));
    records(addresses.into_iter().map(record).collect())
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
    let dashed = || endpoint.addresses.first().map(|it| it.replace('.', "-"));
    endpoint.hostname.clone().or_else(dashed).unwrap_or_default()
}

fn service_name(key: &Key) -> Option<Name> {
    Name::from_ascii(format!("{}.{}.svc.{ZONE}.", key.name, key.namespace_or_empty())).ok()
}

fn endpoint_name(key: &Key, endpoint: &Endpoint) -> Option<Name> {
    service_name(key)?.prepend_label(host_name(endpoint)).ok()
}

/// The address that a name below `in-addr.arpa` stands for.
fn reverse(name: &Name) -> Option<Ipv4Addr> {
    match name.parse_arpa_name().ok()? {
        net if net.prefix_len() != 32 => None,
        net => match net.addr() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use client::Change;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn add_service(directory: &mut Directory, name: &str, spec: Value) {
        let object = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        let new: Option<Arc<Service>> = Some(Arc::new(serde_json::from_value(object).unwrap()));
        let key = Key::namespaced("shop", name);
        directory.service_changed(Change { key, old: None, new }, &mut BTreeSet::new());
    }

    fn directory() -> Directory {
        let mut directory = Directory::default();
        let port = json!([{"name": "http", "port": 80}]);
        add_service(&mut directory, "web", json!({"clusterIP": "10.96.0.7", "ports": port}));
        add_service(&mut directory, "db", json!({"clusterIP": "None", "ports": port}));
        add_service(&mut directory, "empty", json!({"clusterIP": "None"}));
        let external = json!({"type": "ExternalName", "externalName": "db.example.com"});
        add_service(&mut directory, "outside", external);
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
        let new: Option<Arc<EndpointSlice>> =
            Some(Arc::new(serde_json::from_value(slice).unwrap()));
        let key = Key::namespaced("shop", "db-1");
        directory.slice_changed(&Change { key, old: None, new }, &mut BTreeSet::new());
        directory
    }

    fn check(questions: &[(&str, RecordType)], expected: Expect) {
        let (directory, addresses) = (directory(), Addresses::default());
        let zone = Zone { directory: &directory, addresses: &addresses };
        let lines = questions.iter().map(|(name, kind)| {
            let answer = {
                let name = Name::from_ascii(name).unwrap();
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
                  _http._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 100 8080 db-0.db.shop.svc.cluster.local.
                  _http._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 100 8080 10-244-0-3.db.shop.svc.cluster.local.
                  db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.2
                  10-244-0-3.db.shop.svc.cluster.local. 5 IN A 10.244.0.3
                A empty.shop.svc.cluster.local.
                  NoData
                PTR 2.0.244.10.in-addr.arpa.
                  2.0.244.10.in-addr.arpa. 5 IN PTR db-0.db.shop.svc.cluster.local."#]],
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
                  NoData
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
