//! The text of a pod's `/etc/resolv.conf` and `/etc/hosts`, as a kubelet writes them.
//! <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>
//!
//! Pure; the pod's folder and its mounts are elsewhere.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
};

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodDNSConfigOption, PodSpec};

use crate::context::{PodAddress, is_on_host};

/// Longest host name Linux takes: `HOST_NAME_MAX` less its end, as the kubelet cuts it.
const HOST_NAME_MAX: usize = 63;

/// How pods of this cluster resolve names.
#[derive(Clone, Debug)]
pub struct Dns {
    /// Address of the cluster's DNS server. It also answers for names outside the cluster.
    pub server: Ipv4Addr,
    /// Domain of the cluster, `cluster.local` by custom.
    pub domain: String,
}

/// How the machine resolves names, at the moment.
#[derive(Clone, Debug, Default)]
pub struct HostResolver {
    /// Name servers of the machine's own resolver, for pods on the host's network.
    pub servers: Vec<IpAddr>,
    /// Search path of the machine's own resolver, appended to the pod's.
    pub search: Vec<String>,
}

/// The pod's host name: what it asks for, else its own name, cut to what Linux takes. On the host's
/// network it is the host's, `machine`.
#[must_use]
pub(crate) fn host_name(pod: &Pod, machine: &str) -> String {
    if is_on_host(pod) {
        return cut(machine);
    }
    let asked = pod.spec.as_ref().and_then(|it| it.hostname.as_deref());
    let name = asked.filter(|it| !it.is_empty()).or(pod.metadata.name.as_deref());
    cut(name.unwrap_or_default())
}

fn cut(name: &str) -> String {
    let name: String = name.chars().take(HOST_NAME_MAX).collect();
    name.trim_end_matches(['-', '.']).to_owned()
}

/// The files that a pod has its own of. On the host's network the host's own are right, and stay so
/// when they change, unless the pod asks for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnFiles {
    pub(crate) resolv_conf: bool,
    pub(crate) hosts: bool,
}

impl OwnFiles {
    pub(crate) fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let asks = |it: Option<bool>| !is_on_host(pod) || it == Some(true);
        let resolver =
            |it: &PodSpec| it.dns_config.is_some() || it.dns_policy.as_deref() == Some("None");
        let aliases = |it: &PodSpec| it.host_aliases.as_ref().is_some_and(|it| !it.is_empty());
        Self { resolv_conf: asks(spec.map(resolver)), hosts: asks(spec.map(aliases)) }
    }
}

/// The `/etc/hosts` of a pod on the host's network: the host's own, `text`, and the pod's aliases.
#[must_use]
pub(crate) fn hosts_on_host(pod: &Pod, text: &str) -> String {
    let mut text = format!("# Kubernetes-managed hosts file (host network).\n{text}");
    add_aliases(pod, &mut text);
    text
}

/// The pod's `/etc/hosts`.
#[must_use]
pub(crate) fn hosts(pod: &Pod, address: PodAddress, domain: &str) -> String {
    let mut text = "# Kubernetes-managed hosts file.\n\
        127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::0\tip6-localnet\n\
        fe00::0\tip6-mcastprefix\n\
        fe00::1\tip6-allnodes\n\
        fe00::2\tip6-allrouters\n"
        .to_owned();
    let name = host_name(pod, "");
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let subdomain = spec.and_then(|it| it.subdomain.as_deref()).filter(|it| !it.is_empty());
    text.extend(address.all().map(|address| match subdomain {
        Some(it) => format!("{address}\t{name}.{it}.{namespace}.svc.{domain}\t{name}\n"),
        None => format!("{address}\t{name}\n"),
    }));
    add_aliases(pod, &mut text);
    text
}

fn add_aliases(pod: &Pod, text: &mut String) {
    let spec = pod.spec.as_ref();
    let aliases = spec.and_then(|it| it.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        text.extend(aliases.iter().map(alias_line));
    }
}

fn alias_line(alias: &HostAlias) -> String {
    format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"))
}

/// The pod's `/etc/resolv.conf`. `dnsPolicy: Default` also asks the cluster's server, only without
/// the cluster's search path: the machine's own resolver often listens on a loopback address that
/// a pod cannot reach, and the cluster's server passes on what it does not know.
#[must_use]
pub(crate) fn resolv_conf(pod: &Pod, dns: &Dns, host: &HostResolver) -> String {
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let policy = spec.and_then(|it| it.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let mut servers = Vec::new();
    let mut searches = Vec::new();
    let mut options: Vec<(String, Option<String>)> = Vec::new();
    match policy {
        "None" => {}
        // `ClusterFirst` means the same there, as in Kubernetes.
        _ if is_on_host(pod) => {
            servers.extend(host.servers.iter().map(ToString::to_string));
            searches.clone_from(&host.search);
        }
        "Default" => {
            servers.push(dns.server.to_string());
            searches.clone_from(&host.search);
        }
        _ => {
            let domain = &dns.domain;
            servers.push(dns.server.to_string());
            searches.push(format!("{namespace}.svc.{domain}"));
            searches.push(format!("svc.{domain}"));
            searches.push(domain.clone());
            searches.extend(host.search.iter().cloned());
            options.push(("ndots".to_owned(), Some("5".to_owned())));
        }
    }
    if let Some(config) = spec.and_then(|it| it.dns_config.as_ref()) {
        add_missing(&mut servers, config.nameservers.as_deref());
        add_missing(&mut searches, config.searches.as_deref());
        config.options.iter().flatten().for_each(|it| set_option(&mut options, it));
    }
    let mut text = String::new();
    if !searches.is_empty() {
        text.push_str(&format_line("search", &searches));
    }
    for server in servers {
        text.push_str(&format_line("nameserver", &[server]));
    }
    if !options.is_empty() {
        let options: Vec<String> = options
            .into_iter()
            .map(|(name, value)| value.map_or(name.clone(), |value| format!("{name}:{value}")))
            .collect();
        text.push_str(&format_line("options", &options));
    }
    text
}

fn add_missing(list: &mut Vec<String>, more: Option<&[String]>) {
    for it in more.unwrap_or_default() {
        if !list.contains(it) {
            list.push(it.clone());
        }
    }
}

fn set_option(options: &mut Vec<(String, Option<String>)>, option: &PodDNSConfigOption) {
    let name = option.name.clone().unwrap_or_default();
    match options.iter_mut().find(|(it, _)| *it == name) {
        Some((_, value)) => value.clone_from(&option.value),
        None => options.push((name, option.value.clone())),
    }
}

fn format_line(word: &str, values: &[String]) -> String {
    let mut line = word.to_owned();
    for value in values {
        // Writing to a String cannot fail.
        write!(line, " {value}").unwrap_or_default();
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let metadata = json!({ "namespace": "shop", "name": "app-1" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    fn check_resolv(spec: Value, expected: &Expect) {
        let dns = Dns { server: Ipv4Addr::new(10, 96, 0, 10), domain: "cluster.local".to_owned() };
        let host = HostResolver {
            servers: vec![IpAddr::from([127, 0, 0, 53])],
            search: vec!["lan".to_owned()],
        };
        expected.assert_eq(&resolv_conf(&pod(spec), &dns, &host));
    }

    #[test]
    fn resolv_conf_of_each_policy() {
        check_resolv(
            json!({ "containers": [] }),
            &expect![[r#"
                search shop.svc.cluster.local svc.cluster.local cluster.local lan
                nameserver 10.96.0.10
                options ndots:5
            "#]],
        );
        check_resolv(
            json!({ "containers": [], "dnsPolicy": "Default" }),
            &expect![[r#"
                search lan
                nameserver 10.96.0.10
            "#]],
        );
        check_resolv(
            json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": { "nameservers": ["1.2.3.4"] } }),
            &expect![[r#"
                nameserver 1.2.3.4
            "#]],
        );
    }

    #[test]
    fn dns_config_adds_and_overrides() {
        check_resolv(
            json!({ "containers": [], "dnsConfig": {
                "nameservers": ["10.96.0.10", "1.2.3.4"],
                "searches": ["lan", "corp"],
                "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] } }),
            &expect![[r#"
                search shop.svc.cluster.local svc.cluster.local cluster.local lan corp
                nameserver 10.96.0.10
                nameserver 1.2.3.4
                options ndots:2 edns0
            "#]],
        );
    }

    #[test]
    fn hosts_file() {
        let address = PodAddress {
            v4: Ipv4Addr::new(10, 244, 0, 9),
            v6: Some("fd12:3456:789a::af4:9".parse().unwrap()),
        };
        let spec = json!({ "containers": [], "subdomain": "web", "hostAliases": [
            { "ip": "1.2.3.4", "hostnames": ["a", "b"] }] });
        expect![[r#"
            # Kubernetes-managed hosts file.
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::0	ip6-localnet
            fe00::0	ip6-mcastprefix
            fe00::1	ip6-allnodes
            fe00::2	ip6-allrouters
            10.244.0.9	app-1.web.shop.svc.cluster.local	app-1
            fd12:3456:789a::af4:9	app-1.web.shop.svc.cluster.local	app-1

            # Entries added by HostAliases.
            1.2.3.4	a	b
        "#]]
        .assert_eq(&hosts(&pod(spec), address, "cluster.local"));
    }

    #[test]
    fn host_name_is_cut() {
        let mut pod = pod(json!({ "containers": [] }));
        assert_eq!(host_name(&pod, "box"), "app-1");
        pod.metadata.name = Some(format!("{}-tail", "x".repeat(62)));
        assert_eq!(host_name(&pod, "box"), "x".repeat(62));
        pod.spec.as_mut().unwrap().hostname = Some("other".to_owned());
        assert_eq!(host_name(&pod, "box"), "other");
        pod.spec.as_mut().unwrap().host_network = Some(true);
        assert_eq!(host_name(&pod, "box"), "box");
    }

    #[test]
    fn on_the_hosts_network_the_hosts_files_do() {
        let own = |more: Value| {
            let mut spec = json!({ "containers": [], "hostNetwork": true });
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let OwnFiles { resolv_conf, hosts } = OwnFiles::of(&pod(spec));
            (resolv_conf, hosts)
        };
        assert_eq!(own(json!({ "dnsPolicy": "ClusterFirst" })), (false, false));
        assert_eq!(own(json!({ "hostNetwork": false })), (true, true));
        assert_eq!(own(json!({ "dnsPolicy": "None" })), (true, false));
        assert_eq!(own(json!({ "hostAliases": [{ "ip": "1.2.3.4" }] })), (false, true));
        check_resolv(
            json!({ "containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirst",
                "dnsConfig": { "searches": ["corp"] } }),
            &expect![[r#"
                search lan corp
                nameserver 127.0.0.53
            "#]],
        );
        let spec = json!({ "containers": [], "hostNetwork": true, "hostAliases": [
            { "ip": "1.2.3.4", "hostnames": ["a"] }] });
        expect![[r#"
            # Kubernetes-managed hosts file (host network).
            127.0.0.1 localhost

            # Entries added by HostAliases.
            1.2.3.4	a
        "#]]
        .assert_eq(&hosts_on_host(&pod(spec), "127.0.0.1 localhost\n"));
    }
}
