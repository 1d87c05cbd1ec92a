//! Connects a pod's network namespace to the cluster's, and undoes it.
//!
//! What the kernel has is the only record: the host end's alias says which pod it belongs to, its
//! route says the address. A restart reads both and goes on. When a pod's namespace dies, the
//! kernel removes the pair and the route with it.
//!
//! To remove a pair takes the kernel some 20 ms, in which it waits for itself, and many pairs take it
//! no longer than one. So a pod that is disconnected only has its link put into a group, which is
//! removed behind its back; until then it keeps its address.
//!
//! A namespace may be connected before it has a pod, as a *spare*; a pod takes it over under its own
//! uid. Spares do not outlive this process: the next one removes what is left of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::pool::Pool;
use crate::{
    addresses::{Addresses, Subnet},
    family::IpFamily,
    netlink::{
        Doing, Error, modules,
        route::{Link, Route, Routing, Veth},
    },
    setup::LOOPBACK,
    sysctl,
};

/// Name of the pod's end inside the pod.
const POD_LINK: &str = "eth0";
/// Its index: the first after the loopback link's.
const POD_LINK_INDEX: u32 = 2;
/// Pause between two looks at a link, and how many there are: two seconds in all.
const RUNNING_CHECK: Duration = Duration::from_micros(200);
const RUNNING_CHECKS: u32 = 10_000;
/// Begins the name of the host's end; 11 characters of a hash follow (`IFNAMSIZ` allows 15).
pub(super) const HOST_LINK_PREFIX: &str = "veth";

/// Begins what stands in place of a uid as long as a namespace has no pod.
const SPARE_PREFIX: &str = "spare-";

/// The group of links that are about to be removed. Kubernetes has no use for groups, and a process
/// that finds such links removes them.
pub(super) const LEAVING: u32 = 0x00C0_4AC1;

/// Pause after links could not be removed.
const REMOVAL_RETRY: Duration = Duration::from_secs(1);

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
    /// The links that are not called after their pod, because they were spare: by its uid.
    renamed: Mutex<BTreeMap<String, String>>,
    leaving: Mutex<Leaving>,
    /// Told of each that leaves.
    left: Notify,
}

/// Links that are about to be removed, after which their addresses are free.
#[derive(Debug, Default)]
struct Leaving {
    /// By name: which of all that ever left it was.
    names: BTreeMap<String, u64>,
    count: u64,
}

impl Pods {
    /// Finds the pods that are connected already; also returns their addresses, by uid.
    pub(crate) fn adopt(addresses: Addresses) -> Result<(Self, BTreeMap<String, Ipv4Addr>), Error> {
        let mut routing = Routing::open()?;
        routing.remove_group(LEAVING)?;
        let (mut names, mut renamed) = (BTreeMap::new(), BTreeMap::new());
        let mut owners = BTreeMap::new();
        for link in routing.links()? {
            if !link.name.starts_with(HOST_LINK_PREFIX) {
                continue;
            }
            if link.alias.starts_with(SPARE_PREFIX) {
                routing.remove_link(&link.name)?;
                continue;
            }
            owners.insert(link.index, link.alias.clone());
            if !link.alias.is_empty() && link.name != link_name(&link.alias) {
                renamed.insert(link.alias, link.name.clone());
            }
            names.insert(link.index, link.name);
        }
        let routes = routing.routes()?.into_iter().filter(|it| it.to.1 == 32);
        let mut found = BTreeMap::new();
        let assigned = routes.filter_map(|route| {
            let IpAddr::V4(address) = route.to.0 else { return None };
            let name = names.get(&route.link).filter(|_| addresses.pods.contains(address))?;
            let owner = owners.get(&route.link).filter(|it| !it.is_empty());
            found.extend(owner.map(|it| (it.clone(), address)));
            Some((name.clone(), address))
        });
        let pool = Pool::new(assigned.collect());
        let (pool, renamed) = (Mutex::new(pool), Mutex::new(renamed));
        let (leaving, left) = (Mutex::default(), Notify::new());
        Ok((Self { addresses, pool, renamed, leaving, left }, found))
    }

    /// Removes the links of pods that are disconnected, until told to stop. What is left then, the
    /// next process removes.
    pub(crate) async fn remove_leaving(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.left.notified() => {}
            }
            let pods = Arc::clone(&self);
            let removed = tokio::task::spawn_blocking(move || pods.remove_those_leaving()).await;
            if let Err(error) = removed.map_err(anyhow::Error::from).and_then(|it| Ok(it?)) {
                tracing::warn!(error = format!("{error:#}"), "links not removed");
                tokio::time::sleep(REMOVAL_RETRY).await;
                self.left.notify_one();
            }
        }
    }

    fn remove_those_leaving(&self) -> Result<(), Error> {
        let seen = self.leaving().names.clone();
        Routing::open()?.remove_group(LEAVING)?;
        let mut leaving = self.leaving();
        for (name, which) in seen {
            // Not those that were made anew meanwhile.
            if leaving.names.get(&name) == Some(&which) {
                leaving.names.remove(&name);
                self.pool().release(&name);
            }
        }
        Ok(())
    }

    /// Connects a namespace that has no pod yet; returns what stands in place of a uid.
    pub(crate) fn attach_spare(
        &self,
        netns: &OwnedFd,
        part: Subnet,
    ) -> Result<(String, Ipv4Addr), AttachError> {
        let stat = rustix::fs::fstat(netns).doing(|| "look at a network namespace".to_owned())?;
        // No other namespace has this number as long as this one, and with it the link, is there.
        let spare = format!("{SPARE_PREFIX}{}", stat.st_ino);
        // A pod whose link has this name has lost its namespace, which had the same number.
        let name = link_name(&spare);
        self.renamed().retain(|_, it| *it != name);
        self.pool().release(&name);
        match self.attach(&spare, netns, part) {
            Ok(address) => Ok((spare, address)),
            Err(error) => {
                self.detach(&spare)?;
                Err(error)
            }
        }
    }

    /// Makes what is connected as `spare` the pod `uid`'s, in place of what it had; returns the address.
    pub(crate) fn take_over(&self, spare: &str, uid: &str) -> Result<Ipv4Addr, Error> {
        self.detach(uid)?;
        let name = link_name(spare);
        Routing::open()?.set_alias(&name, uid)?;
        // It has one since it was connected.
        let address = self.pool().of(&name);
        let missing = || Error::new(format!("find the address of link `{name}`"), Errno::NODEV);
        let address = address.ok_or_else(missing)?;
        self.renamed().insert(uid.to_owned(), name);
        Ok(address)
    }

    /// Connects the pod `uid`, whose namespace is `netns`; what of it is done already stays. The
    /// pod keeps its address, one of its node's `part`, until it is detached.
    pub(crate) fn attach(
        &self,
        uid: &str,
        netns: &OwnedFd,
        part: Subnet,
    ) -> Result<Ipv4Addr, AttachError> {
        let name = self.link_of(uid);
        self.leaving().names.remove(&name);
        let address = self.pool().assign(&name, part);
        let address = address.ok_or(AttachError::Exhausted(part))?;
        self.connect(uid, &name, netns, address)?;
        Ok(address)
    }

    /// Disconnects the pod `uid`; its link and its address are free some time later. Fine if it is
    /// not connected.
    pub(crate) fn detach(&self, uid: &str) -> Result<(), Error> {
        let name = self.link_of(uid);
        if Routing::open()?.set_group(&name, LEAVING)? {
            let mut leaving = self.leaving();
            leaving.count += 1;
            let which = leaving.count;
            leaving.names.insert(name, which);
            self.left.notify_one();
        } else {
            self.pool().release(&name);
        }
        self.renamed().remove(uid);
        Ok(())
    }

    /// Name of the host's end of the pair of pod `uid`.
    fn link_of(&self, uid: &str) -> String {
        self.renamed().get(uid).cloned().unwrap_or_else(|| link_name(uid))
    }

    fn renamed(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.renamed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaving(&self) -> MutexGuard<'_, Leaving> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(
        &self,
        uid: &str,
        name: &str,
        netns: &OwnedFd,
        address: Ipv4Addr,
    ) -> Result<(), AttachError> {
        let mut here = Routing::open()?;
        let mut inside = routing_of_pod(netns, self.addresses.v6.is_some())?;
        let mut found = here.link(name)?;
        if found.take_if(|it| it.group == LEAVING).is_some() {
            here.remove_link(name)?;
        }
        let (host_end, pod_end) = match found {
            Some(link) if !link.alias.is_empty() && link.alias != uid => {
                return Err(AttachError::Taken { name: link.name, owner: link.alias });
            }
            Some(host_end) => match inside.link(POD_LINK)? {
                Some(pod_end) if are_a_pair(&host_end, &pod_end) => (host_end, pod_end),
                // The rest of a namespace that the pod no longer has.
                Some(_) | None => {
                    here.remove_link(name)?;
                    make_pair(
                        &mut here,
                        &mut inside,
                        (name, address),
                        (netns, self.addresses.pods),
                    )?
                }
            },
            None => {
                // That of a spare, which was not taken over.
                inside.remove_link(POD_LINK)?;
                make_pair(&mut here, &mut inside, (name, address), (netns, self.addresses.pods))?
            }
        };
        here.set_up(host_end.index, Some(uid))?;
        inside.set_up(LOOPBACK, None)?;
        inside.set_up(pod_end.index, None)?;
        let families = IpFamily::all(&self.addresses);
        for (family, _) in &families {
            self.lead_out(*family, &mut inside, (&pod_end, &host_end), address)?;
        }
        wait_until_running(&mut here, name)?;
        wait_until_running(&mut inside, POD_LINK)?;
        if let Some(prefix) = self.addresses.v6 {
            wait_until_taken(&mut inside, prefix.at(address))?;
        }
        // Last, and IPv4's at the very end: it is what says which address the pod has, and makes it reachable.
        for (family, _) in families.iter().rev() {
            self.lead_in(*family, &mut here, (&pod_end, &host_end), address)?;
        }
        Ok(())
    }

    /// Gives the pod's end of a link its address, and routes.
    fn lead_out(
        &self,
        family: IpFamily,
        inside: &mut Routing,
        (pod_end, host_end): (&Link, &Link),
        address: Ipv4Addr,
    ) -> Result<(), Error> {
        let (link, gateway) = (pod_end.index, self.addresses.gateway());
        inside.add_address(link, family.at(address))?;
        introduce(family, inside, link, (gateway, host_end))?;
        let (to, via) = (family.only(gateway), Some(family.at(gateway)));
        inside.add_route(Route { to, link, via: None, source: None })?;
        inside.add_route(Route { to: family.everywhere(), link, via, source: None })
    }

    /// Routes the pod's address over the cluster's end of its link.
    fn lead_in(
        &self,
        family: IpFamily,
        here: &mut Routing,
        (pod_end, host_end): (&Link, &Link),
        address: Ipv4Addr,
    ) -> Result<(), Error> {
        let (link, source) = (host_end.index, Some(family.at(self.addresses.gateway())));
        introduce(family, here, link, (address, pod_end))?;
        here.add_route(Route { to: family.only(address), link, via: None, source })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Each of its changes is complete before anything can panic.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says which end of a pair has an address. The addresses of IPv4 are asked for by ARP; to be asked for
/// one of IPv6, a link would need more addresses of its own.
fn introduce(
    family: IpFamily,
    routing: &mut Routing,
    link: u32,
    (address, end): (Ipv4Addr, &Link),
) -> Result<(), Error> {
    match (family, end.mac) {
        (IpFamily::V6(prefix), Some(mac)) => {
            routing.add_neighbour(link, prefix.at(address).into(), mac)
        }
        (IpFamily::V4, _) | (IpFamily::V6(_), None) => Ok(()),
    }
}

fn are_a_pair(one: &Link, other: &Link) -> bool {
    one.peer == Some(other.index) && other.peer == Some(one.index)
}

/// Makes the two ends, with indices that differ. The kernel treats a link whose two indices are
/// equal like a physical one (`linkwatch_urgent_event`) and lets packets pass only up to a second
/// after it is set up; left to itself it would give the first pod of a cluster such a link.
fn make_pair(
    here: &mut Routing,
    inside: &mut Routing,
    (name, address): (&str, Ipv4Addr),
    (netns, range): (&OwnedFd, Subnet),
) -> Result<(Link, Link), Error> {
    let host_index = address.to_bits() - range.address.to_bits() + POD_LINK_INDEX;
    let chosen = Some((host_index, POD_LINK_INDEX));
    let mut veth = Veth { name, peer: POD_LINK, indices: chosen };
    let made = match here.add_veth(veth, netns.as_fd()) {
        // An index is taken, by a link that is not ours.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::EXIST | Errno::BUSY)) => {
            veth.indices = None;
            here.add_veth(veth, netns.as_fd())
        }
        made => made,
    };
    made.doing_with(modules::VETH, || format!("make the veth pair `{name}` and `{POD_LINK}`"))?;
    let missing =
        |name: &str| Error::new(format!("find link `{name}` after making it"), Errno::NODEV);
    let host_end = here.link(name)?.ok_or_else(|| missing(name))?;
    let pod_end = inside.link(POD_LINK)?.ok_or_else(|| missing(POD_LINK))?;
    Ok((host_end, pod_end))
}

/// Waits until packets pass. Those sent before would be lost, and a connection would begin with a
/// second's wait. The kernel does its part in the background and mostly has by now.
pub(crate) fn wait_until_running(routing: &mut Routing, name: &str) -> Result<(), Error> {
    for _ in 0..RUNNING_CHECKS {
        if routing.link(name)?.is_some_and(|it| it.running) {
            return Ok(());
        }
        thread::sleep(RUNNING_CHECK);
    }
    tracing::warn!(link = name, "link is not running yet; first packets may be lost");
    Ok(())
}

/// Waits until the kernel takes packets to an address of IPv6: it has a task do so that comes after the call
/// which adds the address (`addrconf_dad_start`), also where nobody is asked about it.
fn wait_until_taken(routing: &mut Routing, address: Ipv6Addr) -> Result<(), Error> {
    for _ in 0..RUNNING_CHECKS {
        if routing.takes(address)? {
            return Ok(());
        }
        thread::sleep(RUNNING_CHECK);
    }
    tracing::warn!(%address, "packets to the address are not taken yet; the first may be lost");
    Ok(())
}

/// rtnetlink inside a pod, whose settings are made on the way. A socket stays in the namespace in
/// which it was opened, so only a short-lived thread has to go there.
fn routing_of_pod(netns: &OwnedFd, v6: bool) -> Result<Routing, Error> {
    thread::scope(|scope| {
        let visit =
            thread::Builder::new().name("pod-network".to_owned()).spawn_scoped(scope, || {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(netns.as_fd(), network)
                    .doing(|| "enter the pod's network namespace".to_owned())?;
                sysctl::set_for_pod(v6)?;
                Routing::open()
            });
        let visit = visit.doing(|| "start a thread".to_owned())?;
        visit.join().unwrap_or_else(|_| {
            let cause = std::io::Error::other("the thread panicked");
            Err(Error::new("visit the pod's network namespace", cause))
        })
    })
}

/// Name of the host's end of the pair that is made for pod `uid`.
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
