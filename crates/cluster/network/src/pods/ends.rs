//! Where pods are: for who gives them frames past the routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::attach::{HOST_LINK_PREFIX, LEAVING};
use crate::netlink::{
    Error,
    route::{Mac, Routing},
};

/// Where a pod's frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The cluster's end of its link.
    pub(crate) link: u32,
    /// The address of its own end.
    pub(crate) mac: Mac,
}

/// Of the pods with these addresses, those that are connected.
pub(crate) fn ends(wanted: &BTreeSet<Ipv4Addr>) -> Result<BTreeMap<Ipv4Addr, End>, Error> {
    let mut routing = Routing::open()?;
    let links = routing.links()?.into_iter();
    let names: BTreeMap<u32, String> = links
        .filter(|it| it.name.starts_with(HOST_LINK_PREFIX) && it.group != LEAVING)
        .map(|it| (it.index, it.name))
        .collect();
    let mut found = BTreeMap::new();
    for route in routing.routes()? {
        let (IpAddr::V4(address), link) = (route.to.0, route.link) else { continue };
        let Some(name) = names.get(&link) else { continue };
        if route.to.1 == 32
            && wanted.contains(&address)
            && let Some(mac) = routing.mac_of_peer(name)?
        {
            found.insert(address, End { link, mac });
        }
    }
    Ok(found)
}
