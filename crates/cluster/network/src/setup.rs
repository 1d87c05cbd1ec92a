//! Makes the network namespace of the cluster ready: its loopback link, the fixed addresses, the
//! route for services. Every step may be repeated, so a restart simply does it again.

use std::net::Ipv4Addr;

use crate::{
    addresses::Addresses,
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

/// Gives the network namespace of the calling thread the address of a node.
pub(crate) fn add_node(address: Ipv4Addr) -> Result<(), Error> {
    Routing::open()?.add_address(LOOPBACK, address)
}

/// Prepares the network namespace of the calling thread.
pub(crate) fn prepare(addresses: &Addresses) -> Result<(), Error> {
    sysctl::set_for_cluster()?;
    let mut routing = Routing::open()?;
    routing.set_up(LOOPBACK, None)?;
    // The gateway first: the kernel takes the first address of the link where nothing says which.
    routing.add_address(LOOPBACK, addresses.gateway())?;
    routing.add_address(LOOPBACK, addresses.dns())?;
    // A service's address is exchanged for an endpoint's before routing (from a pod) or after it
    // (from here). Either way the route must exist: for the first so that what found no endpoint
    // comes to the rule that refuses it, for the second so that a connection can begin at all.
    routing.add_route(Route {
        to: (addresses.services.address, addresses.services.prefix),
        link: LOOPBACK,
        via: None,
        source: Some(addresses.gateway()),
    })?;
    routing.take_marked(TAKEN_HERE, TAKEN_HERE_TABLE)?;
    // "No route" would be a soft error, for which a UDP client waits in vain.
    routing.prohibit_everything_else()
}
