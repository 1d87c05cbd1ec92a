//! The ranges of pods and Services: chosen when a cluster is made, remembered in its state folder, and
//! the same ever after.

use std::{fs, io, net::Ipv6Addr, path::Path};

use anyhow::{Context as _, bail};
use apiserver::ServiceRange;
use network::{Addresses, HostRoutes, Prefix, Subnet, Taken, Wish};
use serde::{Deserialize, Serialize};
use store::Store;

use crate::{
    cli::StartArguments,
    directories::{Directories, write_private},
};

/// The file in the state folder.
const FILE: &str = "ranges";

/// Only there if the kernel has IPv6: it shows the settings of the network of whoever looks.
const IPV6: &str = "/proc/sys/net/ipv6";

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    pods: String,
    services: String,
    /// What IPv6 addresses begin with; nothing if the kernel had no IPv6, or the version knew none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    v6: Option<String>,
}

/// The ranges of this cluster. `ran`: it has run before, maybe by a version that remembered none, when
/// there were only the usual ones.
pub(super) fn decide(
    directories: &Directories,
    arguments: &StartArguments,
    (store, ran): (&Store, bool),
    host: &HostRoutes,
) -> anyhow::Result<Addresses> {
    let v6 = Path::new(IPV6).exists().then(|| Prefix::local(random()));
    let wish = Wish { pods: arguments.pod_cidr, services: arguments.service_cidr, v6 };
    let remembered = read(&directories.state)?;
    let stored = ServiceRange::of(store);
    let fixed = Wish {
        pods: match remembered {
            Some(remembered) => Some(remembered.pods),
            None => ran.then(|| Addresses::default().pods),
        },
        // With the objects, so that a copy of them has the range that its Services are in.
        services: stored.map(subnet),
        v6: stored.and_then(|it| it.v6).and_then(prefix).or(remembered.and_then(|it| it.v6)),
    };
    keeps(wish.pods, fixed.pods, "--pod-cidr", "pods", &directories.name)?;
    keeps(wish.services, fixed.services, "--service-cidr", "Services", &directories.name)?;
    let wanted = Wish {
        pods: fixed.pods.or(wish.pods),
        services: fixed.services.or(wish.services),
        v6: fixed.v6.or(wish.v6),
    };
    let addresses = network::choose(wanted, &taken(directories, host)?)?;
    remember(&directories.state, addresses)?;
    // Another kernel may have none.
    Ok(Addresses { v6: addresses.v6.filter(|_| v6.is_some()), ..addresses })
}

fn random() -> [u8; 5] {
    std::array::from_fn(|_| fastrand::u8(..))
}

/// What others use.
fn taken(directories: &Directories, host: &HostRoutes) -> anyhow::Result<Vec<Taken>> {
    let mut taken = host.taken()?;
    let resolver = fs::read_to_string(super::RESOLV_CONF).unwrap_or_default();
    taken.extend(network::name_servers(&resolver).map(|address| Taken {
        range: Subnet { address, prefix: 32 },
        by: "a name server of the host".to_owned(),
    }));
    // Those of an ordinary user are routed from nowhere, and so in nobody's way.
    if rustix::process::geteuid().is_root() {
        taken.extend(of_others(directories));
    }
    Ok(taken)
}

/// The ranges of root's other clusters, also of those that do not run now.
fn of_others(directories: &Directories) -> Vec<Taken> {
    let folders = directories.state.parent().and_then(|it| fs::read_dir(it).ok());
    let mut taken = Vec::new();
    for folder in folders.into_iter().flatten().flatten().map(|it| it.path()) {
        if folder == directories.state {
            continue;
        }
        // Not a cluster, or one that is being removed.
        let Ok(Some(Addresses { pods, services, .. })) = read(&folder) else { continue };
        let name = folder.file_name().unwrap_or_default().display();
        let by = format!("the range of cluster `{name}`");
        taken.extend([pods, services].map(|range| Taken { range, by: by.clone() }));
    }
    taken
}

fn keeps(
    wish: Option<Subnet>,
    has: Option<Subnet>,
    flag: &str,
    whose: &str,
    name: &str,
) -> anyhow::Result<()> {
    if let (Some(wish), Some(has)) = (wish, has)
        && wish != has
    {
        bail!(
            "{flag} {wish}: cluster `{name}` was made with {has} for {whose}, and keeps it; \
             give another --name, or remove the cluster with `coracle down --delete`"
        );
    }
    Ok(())
}

fn read(state: &Path) -> anyhow::Result<Option<Addresses>> {
    let path = state.join(FILE);
    let doing = || format!("read the ranges of addresses in `{}`", path.display());
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(doing),
    };
    let remembered: Remembered = serde_json::from_slice(&text).with_context(doing)?;
    Ok(Some(Addresses {
        pods: remembered.pods.parse().with_context(doing)?,
        services: remembered.services.parse().with_context(doing)?,
        v6: remembered.v6.map(|it| it.parse()).transpose().with_context(doing)?,
    }))
}

fn remember(state: &Path, addresses: Addresses) -> anyhow::Result<()> {
    let Addresses { pods, services, v6 } = addresses;
    let remembered = Remembered {
        pods: pods.to_string(),
        services: services.to_string(),
        v6: v6.map(|it| it.to_string()),
    };
    let path = state.join(FILE);
    let mut text = serde_json::to_vec(&remembered)?;
    text.push(b'\n');
    write_private(&path, &text)
        .with_context(|| format!("remember the ranges of addresses in `{}`", path.display()))
}

fn subnet(range: ServiceRange) -> Subnet {
    Subnet { address: range.network, prefix: range.prefix }
}

/// What the IPv6 addresses of a cluster begin with whose Services have theirs in this range.
fn prefix(range: Ipv6Addr) -> Option<Prefix> {
    format!("{range}/{}", Prefix::BITS).parse().ok()
}

/// The other way round.
pub(super) fn service_range(addresses: Addresses) -> ServiceRange {
    let Subnet { address, prefix } = addresses.services;
    let v6 = addresses.v6().map(|(prefix, low)| prefix.at(low.services.address));
    ServiceRange { network: address, prefix, v6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        for v6 in [None, Some(Prefix::local([1, 2, 3, 4, 5]))] {
            let addresses = Addresses { v6, ..Addresses::default() };
            remember(folder.path(), addresses).unwrap();
            assert_eq!(read(folder.path()).unwrap(), Some(addresses));
        }
        fs::write(folder.path().join(FILE), "{}").unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("read the ranges"));
    }

    #[test]
    fn the_range_of_services_tells_the_prefix() {
        let own = Prefix::local([0, 0, 0x56, 0x78, 0x9a]);
        let addresses = Addresses { v6: Some(own), ..Addresses::default() };
        assert_eq!(service_range(addresses).v6.and_then(prefix), Some(own));
        assert_eq!(service_range(Addresses::default()).v6, None);
        // One that somebody wrote, and that has bits where pods have their IPv4 addresses.
        assert_eq!(prefix("fd00::1:0".parse().unwrap()), None);
    }

    #[test]
    fn a_cluster_keeps_its_ranges() {
        let range = |it: &str| Some(it.parse().unwrap());
        keeps(range("10.1.0.0/16"), None, "--pod-cidr", "pods", "a").unwrap();
        keeps(range("10.1.0.0/16"), range("10.1.0.0/16"), "--pod-cidr", "pods", "a").unwrap();
        keeps(None, range("10.1.0.0/16"), "--pod-cidr", "pods", "a").unwrap();
        let refused = keeps(range("10.1.0.0/16"), range("10.2.0.0/16"), "--pod-cidr", "pods", "a");
        assert!(refused.unwrap_err().to_string().contains("was made with 10.2.0.0/16 for pods"));
    }
}
