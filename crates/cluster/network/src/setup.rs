//! Makes the network namespace of the cluster ready: its loopback link, the fixed addresses, the
//! route for services. Every step may be repeated, so a restart simply does it again.

use crate::{
    addresses::Addresses,
    family::IpFamily,
    netlink::{
        Error,
        route::{Route, Routing},
    },
    nft::TAKEN_HERE,
    sysctl,
};

/// The loopback link is the first of every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// The table of routes for packets that are marked.
const TAKEN_HERE_TABLE: u8 = 100;

/// Gives the network namespace of the calling thread the addresses of a node.
pub(crate) fn add_node(addresses: &Addresses, node: u32) -> Result<(), Error> {
    let mut routing = Routing::open()?;
    for (family, addresses) in IpFamily::all(addresses) {
        routing.add_address(LOOPBACK, family.at(addresses.node(node)))?;
    }
    Ok(())
}

/// Prepares the network namespace of the calling thread.
pub(crate) fn prepare(addresses: &Addresses) -> Result<(), Error> {
    sysctl::set_for_cluster(addresses.v6.is_some())?;
    let mut routing = Routing::open()?;
    routing.set_up(LOOPBACK, None)?;
    for (family, addresses) in IpFamily::all(addresses) {
        prepare_family(&mut routing, family, &addresses)?;
    }
    Ok(())
}

fn prepare_family(
    routing: &mut Routing,
    family: IpFamily,
    addresses: &Addresses,
) -> Result<(), Error> {
    let gateway = family.at(addresses.gateway());
    // The gateway first: the kernel takes the first address of the link where nothing says which.
    routing.add_address(LOOPBACK, gateway)?;
    if family == IpFamily::V4 {
        routing.add_address(LOOPBACK, addresses.dns().into())?;
    }
    // A service's address is exchanged for an endpoint's before routing (from a pod) or after it
    // (from here). Either way the route must exist: for the first so that what found no endpoint
    // comes to the rule that refuses it, for the second so that a connection can begin at all.
    let (to, source) = (family.range(addresses.services), Some(gateway));
    let route = Route { to, link: LOOPBACK, via: None, source };
    match family {
        IpFamily::V4 => routing.add_route(route)?,
        // Of another kind IPv6 has none over this link: it would refuse what comes.
        IpFamily::V6(_) => routing.add_own_route(route)?,
    }
    routing.take_marked(family, TAKEN_HERE, TAKEN_HERE_TABLE)?;
    // "No route" would be a soft error, for which a UDP client waits in vain.
    routing.prohibit_everything_else(family)
}
