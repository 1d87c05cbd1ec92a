//! Kernel settings of a network namespace, written through `/proc/sys/net`, which shows the
//! namespace of the thread that opens a file there.

use std::{fs, io, os::unix::fs::MetadataExt as _};

use rustix::process::getegid;

use crate::netlink::{Doing, Error};

/// One setting below `/proc/sys/net`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    path: &'static str,
    value: String,
    /// Kernels are built without IPv6 or br_netfilter; then there is nothing to set.
    optional: bool,
}

fn required(path: &'static str, value: &str) -> Setting {
    Setting { path, value: value.to_owned(), optional: false }
}

fn optional(path: &'static str, value: &str) -> Setting {
    Setting { path, value: value.to_owned(), optional: true }
}

/// The cluster's own namespace: it routes between pods. A new namespace has the host's IPv4
/// settings, so whatever matters is written.
pub(crate) fn set_for_cluster(v6: bool) -> Result<(), Error> {
    let settings = [
        // First, because it sets the others to their defaults.
        required("ipv4/ip_forward", "1"),
        // A pod that reaches itself through a service leaves by the link it came from.
        required("ipv4/conf/all/send_redirects", "0"),
        required("ipv4/conf/default/send_redirects", "0"),
        // The address of a pod comes from no other link.
        required("ipv4/conf/all/rp_filter", "1"),
        required("ipv4/conf/default/rp_filter", "1"),
        // The gateway's address is on the loopback link, and is answered for on every other.
        required("ipv4/conf/all/arp_ignore", "0"),
        required("ipv4/conf/default/arp_ignore", "0"),
        required("ipv4/conf/all/arp_filter", "0"),
        required("ipv4/conf/default/arp_filter", "0"),
        required("ipv4/ip_unprivileged_port_start", "0"),
        // Who sends to a service without endpoints is told each time, not once a second.
        required("ipv4/icmp_ratelimit", "0"),
        // Bridged packets would pass the rules twice. We make no bridge; a user may.
        optional("bridge/bridge-nf-call-iptables", "0"),
        optional("bridge/bridge-nf-call-ip6tables", "0"),
        optional("bridge/bridge-nf-call-arptables", "0"),
    ];
    let forwarding =
        [required("ipv6/conf/all/forwarding", "1"), required("ipv6/icmp/ratelimit", "0")];
    let forwarding = forwarding.iter().filter(|_| v6);
    settings.iter().chain(forwarding).chain(&ipv6(v6)).try_for_each(Setting::write)
}

/// Whether links have IPv6. Those that have get their addresses from us alone: nothing is asked of
/// routers or neighbours, so the machine sleeps.
fn ipv6(wanted: bool) -> Vec<Setting> {
    if !wanted {
        return vec![optional("ipv6/conf/default/disable_ipv6", "1")];
    }
    vec![
        // Of links that are there, too: they were made by a version that had no IPv6.
        required("ipv6/conf/all/disable_ipv6", "0"),
        required("ipv6/conf/default/disable_ipv6", "0"),
        required("ipv6/conf/default/accept_ra", "0"),
        required("ipv6/conf/default/autoconf", "0"),
        required("ipv6/conf/default/router_solicitations", "0"),
        // No address of the kernel's own making.
        required("ipv6/conf/default/addr_gen_mode", "1"),
    ]
}

/// A pod's namespace, before it has a link.
pub(crate) fn set_for_pod(v6: bool) -> Result<(), Error> {
    let group = group()?;
    let settings = [
        // As containerd sets them: port 80 and ping are for everyone. In a user namespace only its
        // own group can be named.
        required("ipv4/ip_unprivileged_port_start", "0"),
        required("ipv4/ping_group_range", &format!("{group} {group}")),
        required("ipv4/conf/all/arp_ignore", "0"),
        required("ipv4/conf/default/arp_ignore", "0"),
    ];
    settings.iter().chain(&ipv6(v6)).try_for_each(Setting::write)
}

/// The namespace at the other end of the shaper's link, where frames are only read.
pub(crate) fn set_for_shaper() -> Result<(), Error> {
    optional("ipv6/conf/default/disable_ipv6", "1").write()
}

/// The first group of the namespace: it may not be root's of the machine, but of a pod with users of its own,
/// whose the files are that say so.
fn group() -> Result<u32, Error> {
    let own = getegid().as_raw();
    if own != 0 {
        return Ok(own);
    }
    let file = "/proc/sys/net/ipv4/ping_group_range";
    Ok(fs::metadata(file).doing(|| format!("look at `{file}`"))?.gid())
}

impl Setting {
    fn write(&self) -> Result<(), Error> {
        let Self { path, value, optional } = self;
        match fs::write(format!("/proc/sys/net/{path}"), value) {
            Err(error) if *optional && error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.doing(|| format!("set `/proc/sys/net/{path}` to `{value}`")),
        }
    }
}
