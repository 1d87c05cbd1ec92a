//! The host's routing, from within the cluster's network: what the host has is seen, and as root the
//! ranges of pods and Services are routed from it, over a pair of links of our own.
//!
//! Nothing else of the host's is changed: no firewall, no setting, nobody's link or route. The kernel
//! removes the pair, and with it the routes, together with the cluster's network namespace.
//!
//! That the host has something of the IPv6 prefix itself is not looked for: forty bits of it are random.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use client::{Api, Client, EventType, Events, Patch, PatchParams};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use runtime::{Backoff, watch_descriptor};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
        socket_with,
    },
};
use serde_json::json;
use tokio::io::{Interest, unix::AsyncFd};
use tokio_util::sync::CancellationToken;

use crate::{
    addresses::Addresses,
    family::IpFamily,
    netlink::{
        Doing as _, Error,
        route::{Link, Route, Routing, Veth},
    },
    ranges::{self, Taken},
    services::{blocking, describe},
};

/// Name of the host's end. The kernel puts the next free number in place of `%d`, so nobody's link is
/// in the way; and programs that manage networks leave pairs alone, or links that are not called as
/// cards are.
const HOST_LINK: &str = "coracle%d";
/// Name of the cluster's end. No pod's link is called so.
const CLUSTER_LINK: &str = "host";

/// The kernel tells of links (`RTMGRP_LINK`) and of routes (`RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_ROUTE`).
const NEWS: u32 = 0x1 | 0x40 | 0x400;
/// Pause after news: a VPN brings many at once, and to read the routes of a router takes a while.
const PAUSE: Duration = Duration::from_millis(200);
/// Waits after the kernel or the API refused something.
const RETRY: Backoff = Backoff { base: Duration::from_millis(200), max: Duration::from_secs(30) };
/// Reason of the event about ranges that clash.
const REASON: &str = "RangeClash";

/// The routing of the host, seen from whoever [opened](HostRoutes::open) it.
#[derive(Debug)]
pub struct HostRoutes {
    routing: Mutex<Routing>,
    news: OwnedFd,
}

/// Whose routes are kept, and who is told.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// What is to be routed.
    pub addresses: Addresses,
    /// Text that the host's link has, by which it is known: no other cluster's is the same.
    pub alias: String,
    /// Whether there are to be routes at all: only root may make some.
    pub as_root: bool,
    /// Name of the Node that is told.
    pub node: String,
}

/// How the host reaches the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// In words, for [`api::annotation::HOST_ROUTES`].
    routes: String,
    clash: Option<String>,
}

impl HostRoutes {
    /// To be called on the host's network: it is that of the calling thread for ever, wherever threads
    /// go afterwards.
    ///
    /// # Errors
    /// When the kernel does not let itself be asked.
    pub fn open() -> Result<Self, Error> {
        let doing = || "hear of the host's routes".to_owned();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let news =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).doing(doing)?;
        bind(&news, &SocketAddrNetlink::new(0, NEWS)).doing(doing)?;
        Ok(Self { routing: Mutex::new(Routing::open()?), news })
    }

    /// Whatever the host routes somewhere, or has itself.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn taken(&self) -> Result<Vec<Taken>, Error> {
        taken(&mut self.routing.lock().unwrap_or_else(PoisonError::into_inner), None)
    }

    /// Keeps the routes as long as they are in nobody's way, and tells of what is in theirs, until `stop`.
    ///
    /// # Errors
    /// When news cannot be waited for.
    pub async fn keep(
        self,
        keeping: Keeping,
        (client, events): (Client, Events),
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let news = watch_descriptor(self.news, Interest::READABLE)?;
        let kept = Arc::new(Kept { routing: self.routing, keeping });
        let (mut said, mut failures) = (None, 0_u32);
        loop {
            let reconciling = Arc::clone(&kept);
            let seen = blocking(move || reconciling.reconcile()).await;
            let told = match seen {
                Ok(seen) if said.as_ref() == Some(&seen) => Ok(()),
                Ok(seen) => {
                    let told =
                        tell(&kept.keeping.node, (&client, &events), &seen, said.as_ref()).await;
                    told.map(|()| said = Some(seen)).map_err(anyhow::Error::from)
                }
                Err(error) => Err(error.into()),
            };
            failures = match told {
                Ok(()) => 0,
                Err(error) => {
                    let error = describe(&*error);
                    tracing::debug!(error, "the host's routes are not as they should be");
                    failures.saturating_add(1)
                }
            };
            let retry = tokio::time::sleep(RETRY.delay(failures));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = retry, if failures > 0 => {}
                heard = hear(&news) => {
                    heard?;
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
            }
        }
    }
}

/// Removes the host's end of the link of a cluster that is gone, if it is still there: the kernel takes
/// a namespace down in its own time. To be called on the host's network.
///
/// # Errors
/// When the kernel refuses.
pub fn forget(alias: &str) -> Result<(), Error> {
    let mut host = Routing::open()?;
    for link in host.links()?.iter().filter(|it| it.alias == alias) {
        host.remove_link(&link.name)?;
    }
    Ok(())
}

fn taken(host: &mut Routing, own: Option<u32>) -> Result<Vec<Taken>, Error> {
    let links = host.links()?;
    let destinations = host.destinations()?.into_iter().filter(|(_, link)| Some(*link) != own);
    let taken = destinations.map(|(range, index)| {
        let link = links.iter().find(|it| it.index == index);
        let over = link.map(|it| format!(" over `{}`", it.name)).unwrap_or_default();
        Taken { range, by: format!("which the host routes{over}") }
    });
    Ok(taken.collect())
}

/// Waits until there is news, and reads all of it. What is said does not matter, nor what got lost.
async fn hear(news: &AsyncFd<OwnedFd>) -> anyhow::Result<()> {
    let mut ready = news.readable().await?;
    let mut buffer = [0; 8192];
    loop {
        match recv(news.get_ref(), &mut buffer, RecvFlags::DONTWAIT) {
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    ready.clear_ready();
    Ok(())
}

async fn tell(
    node: &str,
    (client, events): (&Client, &Events),
    seen: &Seen,
    said: Option<&Seen>,
) -> Result<(), client::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let annotations = json!({
        api::annotation::HOST_ROUTES: seen.routes,
        api::annotation::RANGE_CLASH: seen.clash,
    });
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    nodes.patch(node, &PatchParams::default(), &patch).await?;
    tracing::info!(routes = seen.routes, clash = seen.clash, "the host's routes");
    if let Some(clash) = &seen.clash
        && said.is_none_or(|it| it.clash != seen.clash)
    {
        // As kubelets name their node: its name is its uid.
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        let note = format!("{clash}; {WHAT_TO_DO}");
        events.record(about, EventType::Warning, REASON, note);
    }
    Ok(())
}

/// What helps against a clash.
const WHAT_TO_DO: &str = "a cluster made anew chooses others (`coracle down --delete`, `coracle up`), or \
                          takes those of --pod-cidr and --service-cidr";

/// What the loop works on.
#[derive(Debug)]
struct Kept {
    routing: Mutex<Routing>,
    keeping: Keeping,
}

impl Kept {
    /// Looks, and makes or removes what has to be.
    fn reconcile(&self) -> Result<Seen, Error> {
        let Keeping { addresses, as_root, .. } = &self.keeping;
        let mut host = self.routing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cluster = Routing::open()?;
        let own = self.own(&mut host, &mut cluster)?;
        let taken = taken(&mut host, own.as_ref().map(|it| it.index))?;
        let clash = ranges::clash(addresses, &taken);
        let routes = match &clash {
            _ if !as_root => "not routed from the host: only root can do that".to_owned(),
            Some(_) => {
                if let Some(link) = own {
                    host.remove_link(&link.name)?;
                }
                "not routed from the host: the ranges clash with its own".to_owned()
            }
            None => match self.connect(own, &mut host, &mut cluster) {
                Ok(link) => {
                    let routed = format!("routed from the host over `{}`", link.name);
                    match self.connect_v6(&link, &mut host, &mut cluster) {
                        Ok(()) => routed,
                        Err(error) => format!("{routed}, but not by IPv6: {}", describe(&error)),
                    }
                }
                Err(error) => format!("not routed from the host: {}", describe(&error)),
            },
        };
        Ok(Seen { routes, clash })
    }

    /// The host's end of our pair, if all of the pair is there.
    fn own(&self, host: &mut Routing, cluster: &mut Routing) -> Result<Option<Link>, Error> {
        let Some(Link { peer: Some(peer), .. }) = cluster.link(CLUSTER_LINK)? else {
            return Ok(None);
        };
        let links = host.links()?;
        let is_own = |it: &Link| it.index == peer && it.alias == self.keeping.alias;
        Ok(links.into_iter().find(is_own))
    }

    /// Makes what is missing; returns the host's link.
    fn connect(
        &self,
        own: Option<Link>,
        host: &mut Routing,
        cluster: &mut Routing,
    ) -> Result<Link, Error> {
        let addresses = self.keeping.addresses;
        let link = match own {
            Some(link) => link,
            None => self.make(host, cluster)?,
        };
        if !link.running {
            host.set_up(link.index, None)?;
        }
        let routes: Vec<_> =
            host.destinations()?.into_iter().filter(|it| it.1 == link.index).collect();
        let (gateway, source) = (addresses.gateway(), Some(addresses.host().into()));
        let mut add = |to: (Ipv4Addr, u8), via: Option<Ipv4Addr>| {
            if routes.iter().any(|(it, _)| (it.address, it.prefix) == to) {
                return Ok(());
            }
            let (to, via) = ((to.0.into(), to.1), via.map(IpAddr::from));
            host.add_new_route(Route { to, link: link.index, via, source })
        };
        add((gateway, 32), None)?;
        for range in [addresses.pods, addresses.services] {
            add((range.address, range.prefix), Some(gateway))?;
        }
        Ok(link)
    }

    /// Makes what is missing of IPv6 over the same pair. Its ends are told of each other: nobody asks.
    fn connect_v6(
        &self,
        link: &Link,
        host: &mut Routing,
        cluster: &mut Routing,
    ) -> Result<(), Error> {
        let Some((prefix, addresses)) = self.keeping.addresses.v6() else { return Ok(()) };
        let family = IpFamily::V6(prefix);
        let there = host.prefixes_v6(link.index)?;
        let (own, gateway) = (addresses.host(), addresses.gateway());
        let inside = cluster.link(CLUSTER_LINK)?;
        let ends = inside.as_ref().and_then(|it| Some((it.index, it.mac?, link.mac?)));
        let ends = ends.ok_or_else(|| Error::new("find the link to the host", Errno::NODEV));
        let (inside, inside_mac, mac) = ends?;
        if !there.contains(&family.only(own)) {
            host.add_address(link.index, family.at(own))?;
        }
        if !there.contains(&family.only(gateway)) {
            host.add_neighbour(link.index, family.at(gateway), inside_mac)?;
            cluster.add_neighbour(inside, family.at(own), mac)?;
            let back = Route { to: family.only(own), link: inside, via: None, source: None };
            cluster.add_route(back)?;
        }
        let (link, source) = (link.index, Some(family.at(own)));
        let to_gateway = (family.only(gateway), None);
        let ranges = [addresses.pods, addresses.services].map(|it| family.range(it));
        let ranges = ranges.map(|it| (it, Some(family.at(gateway))));
        for (to, via) in [to_gateway].into_iter().chain(ranges) {
            if !there.contains(&to) {
                host.add_new_route(Route { to, link, via, source })?;
            }
        }
        Ok(())
    }

    fn make(&self, host: &mut Routing, cluster: &mut Routing) -> Result<Link, Error> {
        let address = self.keeping.addresses.host();
        // What is left of another attempt.
        cluster.remove_link(CLUSTER_LINK)?;
        let doing = || "make a link between the host's network and the cluster's".to_owned();
        let netns = File::open("/proc/thread-self/ns/net").doing(doing)?;
        let veth = Veth { name: HOST_LINK, peer: CLUSTER_LINK, indices: None };
        host.add_veth(veth, netns.as_fd()).doing(doing)?;
        let inside = cluster.link(CLUSTER_LINK)?;
        let inside = inside.ok_or_else(|| Error::new(doing(), Errno::NODEV))?;
        let index = inside.peer.ok_or_else(|| Error::new(doing(), Errno::NODEV))?;
        host.without_ipv6_address(index)?;
        host.add_address(index, address.into())?;
        cluster.set_up(inside.index, None)?;
        let back = Route { to: (address.into(), 32), link: inside.index, via: None, source: None };
        cluster.add_route(back)?;
        // By the alias it is known as ours, and as complete.
        host.set_up(index, Some(&self.keeping.alias))?;
        let links = host.links()?;
        let made = links.into_iter().find(|it| it.index == index);
        made.ok_or_else(|| Error::new(doing(), Errno::NODEV))
    }
}
