//! The fixed part of the table: its sets, chains and rules. Everything that changes while the
//! cluster runs is an element of a set.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use super::{
    batch::{Batch, Hook},
    elements::{HAIRPIN, PORTS, SETS},
    expressions::{Echo, Field, Register},
    picker::{self, PICKERS},
    table,
};
use crate::{
    addresses::{Addresses, Subnet},
    family::IpFamily,
    netlink::Socket,
};

/// Changed with every change of the rules below: a table of another version is made anew.
const VERSION: u32 = 7;

const PREROUTING: &str = "prerouting";
const DATAGRAMS: &str = "datagrams";
const INPUT: &str = "input";
const OUTPUT: &str = "output";
const OUTPUT_FILTER: &str = "output-filter";
const POSTROUTING: &str = "postrouting";
const FORWARD: &str = "forward";

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Packets with this mark are taken here, whatever address they are to: a rule of `setup` says so.
pub(crate) const TAKEN_HERE: u32 = 0x00C0_4AC1;
/// Packets with this mark are answers in the name of somebody in the world, made here.
pub(crate) const ANSWERED_HERE: u32 = 0x0000_4AC2;
/// `NF_IP_PRI_NAT_DST`.
const DESTINATION_NAT: i32 = -100;
/// After that: Services' addresses have been exchanged for their endpoints'.
const AFTER_DESTINATION_NAT: i32 = -90;
/// `NF_IP_PRI_FILTER`.
const FILTER: i32 = 0;
/// `NF_IP_PRI_NAT_SRC`.
const SOURCE_NAT: i32 = 100;

/// What the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) family: IpFamily,
    /// The ranges, as this family has them.
    pub(crate) addresses: Addresses,
    /// Port of the gateway address that takes the pods' connections to the world outside.
    pub(crate) egress_port: u16,
    /// TCP ports of the gateway address that the cluster itself serves.
    pub(crate) local_ports: Vec<u16>,
}

impl Layout {
    /// Whether an address that a Service leads to is reached through the proxy: one of the world, or one of
    /// the host, which is a port of the gateway that the cluster does not serve itself, or any of another
    /// node's address.
    pub(crate) fn is_outside(&self, endpoint: SocketAddrV4) -> bool {
        let (address, gateway) = (*endpoint.ip(), self.addresses.gateway());
        let served = address == gateway && self.local_ports.contains(&endpoint.port());
        let Addresses { pods, services, .. } = self.addresses;
        let own = pods.contains(address) || services.contains(address);
        if own { self.addresses.is_node(address) && !served } else { is_somebody(address) }
    }

    /// Where connections to the host and to the world are taken.
    pub(crate) fn egress(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.addresses.gateway(), self.egress_port)
    }

    /// Tells tables apart whose rules differ; the comment of the table.
    pub(super) fn fingerprint(&self) -> String {
        let Self { family, addresses, egress_port, local_ports } = self;
        let Addresses { pods, services, .. } = addresses;
        let prefix = match family {
            IpFamily::V4 => String::new(),
            IpFamily::V6(prefix) => format!("{prefix} "),
        };
        format!("coracle {VERSION} {prefix}{pods} {services} {egress_port} {local_ports:?}")
    }

    /// Writes the table and its sets, of which nothing is asked yet.
    pub(super) fn write_sets(&self, batch: &mut Batch) {
        batch.table(&self.fingerprint());
        for set in SETS {
            batch.set(set);
        }
    }

    /// Writes the base chains: from then on the table is asked.
    pub(super) fn write_chains(&self, batch: &mut Batch) {
        let nat = |number, priority| Hook { kind: "nat", number, priority };
        let filter = |number| Hook { kind: "filter", number, priority: FILTER };
        batch.chain(PREROUTING, nat(0, DESTINATION_NAT));
        batch.chain(DATAGRAMS, Hook { kind: "filter", number: 0, priority: AFTER_DESTINATION_NAT });
        batch.chain(FORWARD, filter(2));
        if self.family != IpFamily::V4 {
            batch.chain(INPUT, filter(1));
        }
        batch.chain(OUTPUT, nat(3, DESTINATION_NAT));
        batch.chain(OUTPUT_FILTER, filter(3));
        batch.chain(POSTROUTING, nat(4, SOURCE_NAT));
        write_services(batch);
        self.write_egress(batch);
        self.write_datagrams(batch);
        self.write_refusals(batch);
        let gateway = self.addresses.gateway();
        batch.rule(POSTROUTING, "a pod that reaches itself through a service", |it| {
            it.load(Field::SourceAddress, Register(0)).load(Field::DestinationAddress, Register(1));
            it.look_up(HAIRPIN.name, Register(0), None).snat_to(gateway);
        });
    }

    /// TCP that is for neither a pod nor a service nor a port served here goes to the proxy. All
    /// other traffic that leads nowhere is answered by the routing table: prohibited, at once.
    fn write_egress(&self, batch: &mut Batch) {
        let Addresses { pods, services, .. } = self.addresses;
        let gateway = self.addresses.gateway();
        let only_gateway = Subnet { address: gateway, prefix: 32 };
        for port in &self.local_ports {
            batch.rule(PREROUTING, "served by the cluster", |it| {
                it.is_to(only_gateway).is_protocol(TCP).is_to_port(*port).accept();
            });
        }
        batch.rule(PREROUTING, "to the host", |it| {
            it.is_to_masked(gateway, self.addresses.node_mask());
            it.is_protocol(TCP).dnat_to(gateway, self.egress_port);
        });
        for subnet in [pods, services] {
            batch.rule(PREROUTING, "inside the cluster", |it| {
                it.is_to(subnet).accept();
            });
        }
        batch.rule(PREROUTING, "to the world", |it| {
            it.is_protocol(TCP).dnat_to(gateway, self.egress_port);
        });
    }

    /// UDP that is for neither a pod nor a service goes to the proxy, with the address it has, and so do
    /// echo requests.
    fn write_datagrams(&self, batch: &mut Batch) {
        let Addresses { pods, services, .. } = self.addresses;
        let gateway = self.addresses.gateway();
        let to = self.egress();
        if let IpFamily::V6(_) = self.family {
            // Of IPv4, `rp_filter` says so.
            batch.rule(DATAGRAMS, "from another link than the address is on", |it| {
                it.is_from_elsewhere().discard();
            });
        }
        batch.rule(DATAGRAMS, "answers", |it| {
            it.is_reply().accept();
        });
        // Only those of a Service: what else the cluster itself sends to its own addresses may come from
        // the host, and would go round for ever.
        batch.rule(DATAGRAMS, "of the cluster itself to a Service on the host", |it| {
            it.is_from(gateway).is_exchanged();
            it.is_to_masked(gateway, self.addresses.node_mask());
            it.is_protocol(UDP).take_here(*to.ip(), to.port(), TAKEN_HERE);
        });
        batch.rule(DATAGRAMS, "of the cluster itself", |it| {
            it.is_from(gateway).accept();
        });
        batch.rule(DATAGRAMS, "to the host", |it| {
            it.is_to_masked(gateway, self.addresses.node_mask());
            it.is_protocol(UDP).take_here(*to.ip(), to.port(), TAKEN_HERE);
        });
        batch.rule(DATAGRAMS, "to a group", |it| {
            it.is_to_group().accept();
        });
        for subnet in [pods, services] {
            batch.rule(DATAGRAMS, "inside the cluster", |it| {
                it.is_to(subnet).accept();
            });
        }
        batch.rule(DATAGRAMS, "to the world", |it| {
            it.is_protocol(UDP).take_here(*to.ip(), to.port(), TAKEN_HERE);
        });
        batch.rule(DATAGRAMS, "echo requests to the world", |it| {
            it.is_echo(Echo::Request).set_mark(TAKEN_HERE).accept();
        });
        for subnet in [pods, services] {
            batch.rule(OUTPUT_FILTER, "echo replies of the cluster", |it| {
                it.is_echo(Echo::Reply).is_from_subnet(subnet).accept();
            });
        }
        batch.rule(OUTPUT_FILTER, "echo replies of the world", |it| {
            it.is_echo(Echo::Reply).is_marked(ANSWERED_HERE).accept();
        });
        // The kernel would answer for whomever it has taken a request.
        batch.rule(OUTPUT_FILTER, "echo replies that are made up", |it| {
            it.is_echo(Echo::Reply).discard();
        });
    }

    /// What still has a service's address here found no endpoint.
    fn write_refusals(&self, batch: &mut Batch) {
        let services = self.addresses.services;
        // A reset for such a packet would end a healthy connection.
        batch.rule(FORWARD, "of no connection", |it| {
            it.is_invalid().discard();
        });
        batch.rule(OUTPUT_FILTER, "the name server", |it| {
            it.is_to(Subnet { address: self.addresses.dns(), prefix: 32 }).accept();
        });
        // A route of IPv6 leads such packets here, one of IPv4 past here.
        let way = if self.family == IpFamily::V4 { FORWARD } else { INPUT };
        for chain in [way, OUTPUT_FILTER] {
            batch.rule(chain, "no endpoint", |it| {
                it.is_to(services).is_protocol(TCP).reject_with_tcp_reset();
            });
            batch.rule(chain, "no endpoint", |it| {
                it.is_to(services).reject_with_port_unreachable();
            });
        }
    }
}

/// Whether somebody in the world may have an address: one that stands for this machine, for its link or for
/// many would mean something else at the proxy's place.
fn is_somebody(address: Ipv4Addr) -> bool {
    let nobody = address.is_loopback()
        || address.is_unspecified()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast();
    !nobody
}

/// Whether a table is there and is asked.
pub(super) fn is_asked(socket: &mut Socket, table: (IpFamily, &str)) -> io::Result<bool> {
    table::has_chain(socket, table, PREROUTING)
}

fn write_services(batch: &mut Batch) {
    for chain in [PREROUTING, OUTPUT] {
        batch.rule(chain, "services", |it| {
            picker::port(it, 0).look_up(PORTS.name, Register(0), Some(Register(3)));
            it.go_by(PICKERS.name, Register(3));
        });
    }
}
