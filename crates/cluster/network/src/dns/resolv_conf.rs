//! `/etc/resolv.conf`: the host's is read, a pod's is written (resolv.conf(5)).

use std::net::{IpAddr, Ipv4Addr};

use super::zone::ZONE;

/// Name servers that are used; the rest are ignored, as the resolver library does (`MAXNS`).
const SERVERS_MAX: usize = 3;
/// Search domains of a pod, as the API allows them in `dnsConfig`.
const SEARCH_MAX: usize = 32;
/// Names with fewer dots are tried with the search domains first: so that
/// `_http._tcp.web.shop.svc` is found. Kubernetes' value for `ClusterFirst`.
const NDOTS: u32 = 5;

/// What a resolv.conf says, as far as we use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
}

impl ResolvConf {
    /// Reads what it understands; a name server with a scope (`fe80::1%eth0`) is passed over.
    pub(crate) fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    read.servers.extend(words.next().and_then(|it| it.parse::<IpAddr>().ok()));
                }
                // The last line of either kind counts.
                Some("search" | "domain") => {
                    read.search = words.filter(|it| *it != ".").map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        read.servers.truncate(SERVERS_MAX);
        read
    }

    /// The file for the pods of a namespace (`dnsPolicy: ClusterFirst`); `self` is the host's.
    pub(crate) fn for_pods(&self, server: Ipv4Addr, namespace: &str) -> String {
        let own = [format!("{namespace}.svc.{ZONE}"), format!("svc.{ZONE}"), ZONE.to_owned()];
        let search: Vec<String> =
            own.into_iter().chain(self.search.iter().cloned()).take(SEARCH_MAX).collect();
        let search = search.join(" ");
        format!("search {search}\nnameserver {server}\noptions ndots:{NDOTS}\n")
    }
}

/// The IPv4 name servers that a resolv.conf of this text has asked.
pub fn name_servers(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    ResolvConf::parse(text).servers.into_iter().filter_map(|it| match it {
        IpAddr::V4(it) => Some(it),
        IpAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn reads_the_hosts_and_writes_a_pods() {
        let host = ResolvConf::parse(
            "# written by hand\nnameserver 127.0.0.53 # local\nnameserver fe80::1%eth0\n\
             nameserver ::1\ndomain old\nsearch lan example.com\noptions edns0\n",
        );
        let servers: Vec<IpAddr> = vec!["127.0.0.53".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(host.servers, servers);
        expect![[r#"
            search shop.svc.cluster.local svc.cluster.local cluster.local lan example.com
            nameserver 10.96.0.10
            options ndots:5
        "#]]
        .assert_eq(&host.for_pods(Ipv4Addr::new(10, 96, 0, 10), "shop"));
    }
}
