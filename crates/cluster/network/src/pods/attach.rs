//! Connects a pod's network namespace to the cluster's, and undoes it.
//!
//! What the kernel has is the only record: the host end's name says which pod it belongs to, its
//! route says the address. A restart reads both and goes on. When a pod's namespace dies, the
//! kernel removes the pair and the route with it.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::pool::Pool;
use crate::{
    addresses::{Addresses, Subnet},
    netlink::{
        Doing, Error,
        route::{Link, Route, Routing},
    },
    setup::LOOPBACK,
    sysctl,
};

/// Name of the pod's end inside the pod.
const POD_LINK: &str = "eth0";
/// Begins the name of the host's end; 11 characters of a hash follow (`IFNAMSIZ` allows 15).
const HOST_LINK_PREFIX: &str = "veth";

/// Why a pod is not connected.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Every address belongs to a pod.
    #[error("no address is free in `{0}`")]
    Exhausted(Subnet),
    /// Another pod has a link of the same name: the hashes of their uids are equal.
    #[error("link `{name}` belongs to pod `{owner}`")]
    Taken {
        /// The link.
        name: String,
        /// The uid of its pod.
        owner: String,
    },
    /// The kernel refused a step.
    #[error(transparent)]
    Netlink(#[from] Error),
}

/// The pods of the cluster and their addresses. All functions block, for a few milliseconds.
#[derive(Debug)]
pub(crate) struct Pods {
    addresses: Addresses,
    pool: Mutex<Pool>,
}

impl Pods {
    /// Finds the pods that are connected already.
    pub(crate) fn adopt(addresses: Addresses) -> Result<Self, Error> {
        let mut routing = Routing::open()?;
        let names: BTreeMap<u32, String> = routing
            .links()?
            .into_iter()
            .filter(|it| it.name.starts_with(HOST_LINK_PREFIX))
            .map(|it| (it.index, it.name))
            .collect();
        let routes = routing.routes()?.into_iter().filter(|it| it.to.1 == 32);
        let assigned = routes.filter(|it| addresses.pods.contains(it.to.0)).filter_map(|route| {
            let name = names.get(&route.link)?;
            Some((name.clone(), route.to.0))
        });
        let pool = Pool::new(addresses.pods, assigned.collect());
        Ok(Self { addresses, pool: Mutex::new(pool) })
    }

    /// Connects the pod `uid`, whose namespace is `netns`; what of it is done already stays. The
    /// pod keeps its address until it is detached.
    pub(crate) fn attach(&self, uid: &str, netns: &OwnedFd) -> Result<Ipv4Addr, AttachError> {
        let name = link_name(uid);
        let address = self.pool().assign(&name);
        let address = address.ok_or(AttachError::Exhausted(self.addresses.pods))?;
        self.connect(uid, &name, netns, address)?;
        Ok(address)
    }

    /// Disconnects the pod `uid` and frees its address. Fine if it is not connected.
    pub(crate) fn detach(&self, uid: &str) -> Result<(), Error> {
        let name = link_name(uid);
        Routing::open()?.remove_link(&name)?;
        self.pool().release(&name);
        Ok(())
    }

    fn connect(
        &self,
        uid: &str,
        name: &str,
        netns: &OwnedFd,
        address: Ipv4Addr,
    ) -> Result<(), AttachError> {
        let mut here = Routing::open()?;
        let mut inside = routing_of_pod(netns)?;
        let (host_end, pod_end) = match here.link(name)? {
            Some(link) if !link.alias.is_empty() && link.alias != uid => {
                return Err(AttachError::Taken { name: link.name, owner: link.alias });
            }
            Some(host_end) => match inside.link(POD_LINK)? {
                Some(pod_end) if are_a_pair(&host_end, &pod_end) => (host_end, pod_end),
                // The rest of a namespace that the pod no longer has.
                Some(_) | None => {
                    here.remove_link(name)?;
                    make_pair(&mut here, &mut inside, name, netns)?
                }
            },
            None => make_pair(&mut here, &mut inside, name, netns)?,
        };
        let gateway = self.addresses.gateway();
        here.set_up(host_end.index, Some(uid))?;
        inside.set_up(LOOPBACK, None)?;
        inside.add_address(pod_end.index, address)?;
        inside.set_up(pod_end.index, None)?;
        let (link, source) = (pod_end.index, None);
        inside.add_route(Route { to: (gateway, 32), link, via: None, source })?;
        let everywhere = (Ipv4Addr::UNSPECIFIED, 0);
        inside.add_route(Route { to: everywhere, link, via: Some(gateway), source })?;
        // Last: it is what says which address the pod has, and makes it reachable.
        let link = host_end.index;
        here.add_route(Route { to: (address, 32), link, via: None, source: Some(gateway) })?;
        Ok(())
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Each of its changes is complete before anything can panic.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn are_a_pair(one: &Link, other: &Link) -> bool {
    one.peer == Some(other.index) && other.peer == Some(one.index)
}

fn make_pair(
    here: &mut Routing,
    inside: &mut Routing,
    name: &str,
    netns: &OwnedFd,
) -> Result<(Link, Link), Error> {
    here.add_veth(name, POD_LINK, netns.as_fd())?;
    let missing = |name: &str| {
        let cause = rustix::io::Errno::NODEV;
        Error::new(format!("find link `{name}` after making it"), cause)
    };
    let host_end = here.link(name)?.ok_or_else(|| missing(name))?;
    let pod_end = inside.link(POD_LINK)?.ok_or_else(|| missing(POD_LINK))?;
    Ok((host_end, pod_end))
}

/// rtnetlink inside a pod, whose settings are made on the way. A socket stays in the namespace in
/// which it was opened, so only a short-lived thread has to go there.
fn routing_of_pod(netns: &OwnedFd) -> Result<Routing, Error> {
    thread::scope(|scope| {
        let visit =
            thread::Builder::new().name("pod-network".to_owned()).spawn_scoped(scope, || {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(netns.as_fd(), network)
                    .doing(|| "enter the pod's network namespace".to_owned())?;
                sysctl::set_for_pod()?;
                Routing::open()
            });
        let visit = visit.doing(|| "start a thread".to_owned())?;
        visit.join().unwrap_or_else(|_| {
            let cause = std::io::Error::other("the thread panicked");
            Err(Error::new("visit the pod's network namespace", cause))
        })
    })
}

/// Name of the host's end of the pair of pod `uid`.
fn link_name(uid: &str) -> String {
    /// 11 hexadecimal digits.
    const HASH_MASK: u64 = (1 << 44) - 1;
    format!("{HOST_LINK_PREFIX}{:011x}", fnv1a(uid) & HASH_MASK)
}

/// FNV-1a: the same in every version of this program, unlike the standard library's hash.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_never_change() {
        assert_eq!(link_name("5ee7a7a0-0000-4000-8000-000000000001"), "veth97bb4237985");
    }
}
