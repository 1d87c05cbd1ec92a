//! rtnetlink: links, addresses and routes of one network namespace. Each function is one request;
//! what belongs together is decided in `pods` and `setup`.
//!
//! Format: <https://docs.kernel.org/networking/netlink_spec/rt_link.html>.

mod detour;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    ParseableParametrized,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
        LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
    },
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use rustix::io::Errno;

pub(crate) use detour::{Detour, Mac};

use super::{Doing, Error, Family, Socket};
use crate::{addresses::Subnet, family::IpFamily, setup::LOOPBACK};

/// Place of our one rule: after the cluster's own addresses (0), before the main table (32766).
const RULE_PRIORITY: u32 = 1000;

/// What we need to know of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Free text; empty if none.
    pub(crate) alias: String,
    /// Index of the other end of a veth, in the other end's namespace.
    pub(crate) peer: Option<u32>,
    /// Packets pass. This comes some time after both ends are set up.
    pub(crate) running: bool,
    /// A number without a meaning to the kernel, which removes all links of a group at once.
    pub(crate) group: u32,
    /// None: it is of a kind that has none.
    pub(crate) mac: Option<Mac>,
}

/// The ends of a veth pair that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Veth<'a> {
    /// Name of the end here.
    pub(crate) name: &'a str,
    /// Name of the end in the other namespace.
    pub(crate) peer: &'a str,
    /// Indices of both ends, if the kernel is not to choose.
    pub(crate) indices: Option<(u32, u32)>,
}

/// A route to an address or prefix over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: (IpAddr, u8),
    pub(crate) link: u32,
    /// The next hop; none: the destination itself is on the link.
    pub(crate) via: Option<IpAddr>,
    /// The address that local senders use.
    pub(crate) source: Option<IpAddr>,
}

/// rtnetlink of one network namespace.
#[derive(Debug)]
pub(crate) struct Routing {
    socket: Socket,
}

impl Routing {
    /// For the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, Error> {
        let socket = Socket::open(Family::Route).doing(|| "open an rtnetlink socket".to_owned())?;
        Ok(Self { socket })
    }

    /// The link called `name`.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.call(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Ok(replies) => Ok(replies.into_iter().find_map(link)),
            Err(error) if is(&error, Errno::NODEV) => Ok(None),
            Err(error) => Err(Error::new(format!("look up link `{name}`"), error)),
        }
    }

    /// All links.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let replies = self
            .call(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)
            .doing(|| "list links".to_owned())?;
        Ok(replies.into_iter().filter_map(link).collect())
    }

    /// Makes a veth pair whose other end is in the namespace `netns`.
    pub(crate) fn add_veth(&mut self, veth: Veth<'_>, netns: BorrowedFd<'_>) -> io::Result<()> {
        let Veth { name, peer, indices } = veth;
        let mut other_end = LinkMessage::default();
        other_end.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        other_end.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        let mut message = LinkMessage::default();
        if let Some((here, there)) = indices {
            (message.header.index, other_end.header.index) = (here, there);
        }
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other_end))),
        ]));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.call(RouteNetlinkMessage::NewLink(message), flags).map(drop)
    }

    /// Keeps the kernel from giving a link an IPv6 address of its own. Kernels are built without IPv6;
    /// then there is none to keep away.
    pub(crate) fn without_ipv6_address(&mut self, index: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])]));
        match self.call(RouteNetlinkMessage::SetLink(message), NLM_F_ACK) {
            Err(error) if is(&error, Errno::AFNOSUPPORT) => Ok(()),
            other => {
                other.doing(|| format!("keep IPv6 addresses from link number `{index}`")).map(drop)
            }
        }
    }

    /// Sets a link up and gives it an alias, if any.
    pub(crate) fn set_up(&mut self, index: u32, alias: Option<&str>) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.extend(alias.map(|it| LinkAttribute::IfAlias(it.to_owned())));
        self.call(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
            .doing(|| format!("set up link number `{index}`"))?;
        Ok(())
    }

    /// Gives the link called `name` another alias.
    pub(crate) fn set_alias(&mut self, name: &str, alias: &str) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        self.call(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
            .doing(|| format!("give link `{name}` the alias `{alias}`"))?;
        Ok(())
    }

    /// Puts the link called `name` into a group; `false` if there is none.
    pub(crate) fn set_group(&mut self, name: &str, group: u32) -> Result<bool, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Group(group));
        match self.call(RouteNetlinkMessage::SetLink(message), NLM_F_ACK) {
            Ok(_) => Ok(true),
            Err(error) if is(&error, Errno::NODEV) => Ok(false),
            Err(error) => Err(Error::new(format!("put link `{name}` into group {group}"), error)),
        }
    }

    /// Removes all links of a group, which takes the kernel as long as one. Fine if there is none.
    pub(crate) fn remove_group(&mut self, group: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        match self.call(RouteNetlinkMessage::DelLink(message), NLM_F_ACK) {
            Err(error) if !is(&error, Errno::NODEV) => {
                Err(Error::new(format!("remove the links of group {group}"), error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Removes the link called `name`, and with it the other end of a veth. Fine if there is none.
    pub(crate) fn remove_link(&mut self, name: &str) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.call(RouteNetlinkMessage::DelLink(message), NLM_F_ACK) {
            Err(error) if !is(&error, Errno::NODEV) => {
                Err(Error::new(format!("remove link `{name}`"), error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Gives a link an address of its own, without a prefix on the link.
    pub(crate) fn add_address(&mut self, link: u32, address: IpAddr) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = family_of(address);
        message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
        message.header.index = link;
        // Nobody else can have it, so nobody is asked, which takes a second.
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.call(RouteNetlinkMessage::NewAddress(message), flags)
            .doing(|| format!("add address `{address}` to link number `{link}`"))?;
        Ok(())
    }

    /// Adds a route, or replaces the one to the same destination.
    pub(crate) fn add_route(&mut self, route: Route) -> Result<(), Error> {
        let (destination, prefix) = route.to;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.call(RouteNetlinkMessage::NewRoute(route_message(route)), flags)
            .doing(|| format!("add the route to `{destination}/{prefix}`"))?;
        Ok(())
    }

    /// Adds a route that says of all of a range that it is here.
    pub(crate) fn add_own_route(&mut self, route: Route) -> Result<(), Error> {
        let (destination, prefix) = route.to;
        let mut message = route_message(route);
        message.header.kind = RouteType::Local;
        message.header.scope = RouteScope::Host;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.call(RouteNetlinkMessage::NewRoute(message), flags)
            .doing(|| format!("take `{destination}/{prefix}` for its own"))?;
        Ok(())
    }

    /// Adds a route, unless there is one to the same destination, which stays.
    pub(crate) fn add_new_route(&mut self, route: Route) -> Result<(), Error> {
        let (destination, prefix) = route.to;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.call(RouteNetlinkMessage::NewRoute(route_message(route)), flags) {
            Err(error) if !is(&error, Errno::EXIST) => {
                Err(Error::new(format!("add the route to `{destination}/{prefix}`"), error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Refuses what no other route leads anywhere: senders are told at once, and that it is final.
    pub(crate) fn prohibit_everything_else(&mut self, family: IpFamily) -> Result<(), Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Prohibit;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.call(RouteNetlinkMessage::NewRoute(message), flags)
            .doing(|| "add the route that prohibits everything else".to_owned())?;
        Ok(())
    }

    /// Takes packets with a mark for the cluster's own, whatever address they are to: by a table of their
    /// own, which says so of every address.
    pub(crate) fn take_marked(
        &mut self,
        family: IpFamily,
        mark: u32,
        table: u8,
    ) -> Result<(), Error> {
        let doing = || format!("take packets marked `{mark:#x}`");
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        message.header.table = table;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Host;
        message.header.kind = RouteType::Local;
        message.attributes.push(RouteAttribute::Oif(LOOPBACK));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.call(RouteNetlinkMessage::NewRoute(message), flags).doing(doing)?;
        let mut rule = RuleMessage::default();
        rule.header.family = address_family(family);
        rule.header.table = table;
        rule.header.action = RuleAction::ToTable;
        rule.attributes.push(RuleAttribute::FwMark(mark));
        rule.attributes.push(RuleAttribute::Priority(RULE_PRIORITY));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.call(RouteNetlinkMessage::NewRule(rule), flags) {
            Err(error) if !is(&error, Errno::EXIST) => Err(Error::new(doing(), error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The IPv4 routes of the main table.
    pub(crate) fn routes(&mut self) -> Result<Vec<Route>, Error> {
        Ok(self.dump_routes()?.into_iter().filter_map(route).collect())
    }

    /// Whereto packets are sent or taken here, by routes of any table, each with its link. Addresses are
    /// among it, as the kernel has a route for each. What is refused or dropped is not.
    pub(crate) fn destinations(&mut self) -> Result<Vec<(Subnet, u32)>, Error> {
        Ok(self.dump_routes()?.into_iter().filter_map(destination).collect())
    }

    /// Whereto IPv6 packets are sent over a link, or taken where it is, by routes of any table.
    pub(crate) fn prefixes_v6(&mut self, link: u32) -> Result<Vec<(IpAddr, u8)>, Error> {
        let routes = self.dump_routes_of(AddressFamily::Inet6)?.into_iter();
        Ok(routes.filter_map(prefix_v6).filter(|it| it.1 == link).map(|it| it.0).collect())
    }

    /// Whether packets to an address are taken here.
    pub(crate) fn takes(&mut self, address: Ipv6Addr) -> Result<bool, Error> {
        let to = RouteAttribute::Destination(RouteAddress::Inet6(address));
        let routes = self.dump_routes_of(AddressFamily::Inet6)?;
        Ok(routes.iter().any(|it| match it {
            RouteNetlinkMessage::NewRoute(route) => {
                route.header.kind == RouteType::Local && route.attributes.contains(&to)
            }
            _ => false,
        }))
    }

    fn dump_routes(&mut self) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.dump_routes_of(AddressFamily::Inet)
    }

    fn dump_routes_of(&mut self, family: AddressFamily) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        self.call(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)
            .doing(|| "list routes".to_owned())
    }

    fn call(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let sequence = self.socket.sequences(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let replies = self.socket.exchange(&bytes, sequence, sequence)?;
        replies
            .iter()
            .map(|it| RouteNetlinkMessage::parse_with_param(it.payload.as_slice(), it.kind))
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)
    }
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_family(family: IpFamily) -> AddressFamily {
    match family {
        IpFamily::V4 => AddressFamily::Inet,
        IpFamily::V6(_) => AddressFamily::Inet6,
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn route_message(route: Route) -> RouteMessage {
    let (destination, prefix) = route.to;
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(destination);
    message.header.destination_prefix_length = prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope =
        if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let attributes = &mut message.attributes;
    if prefix > 0 {
        attributes.push(RouteAttribute::Destination(route_address(destination)));
    }
    attributes.push(RouteAttribute::Oif(route.link));
    attributes.extend(route.via.map(|it| RouteAttribute::Gateway(route_address(it))));
    attributes.extend(route.source.map(|it| RouteAttribute::PrefSource(route_address(it))));
    message
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(it) => RouteAddress::Inet(it),
        IpAddr::V6(it) => RouteAddress::Inet6(it),
    }
}

fn link(reply: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = reply else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alias: String::new(),
        peer: None,
        running: message.header.flags.contains(LinkFlags::Running),
        group: 0,
        mac: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Link(peer) => link.peer = Some(peer),
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::Address(mac) => link.mac = Mac::try_from(mac).ok(),
            _ => {}
        }
    }
    Some(link)
}

fn route(reply: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = reply else { return None };
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let prefix = message.header.destination_prefix_length;
    let everywhere = Ipv4Addr::UNSPECIFIED.into();
    let mut route = Route { to: (everywhere, prefix), link: 0, via: None, source: None };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(it)) => route.to.0 = it.into(),
            RouteAttribute::Gateway(RouteAddress::Inet(it)) => route.via = Some(it.into()),
            RouteAttribute::PrefSource(RouteAddress::Inet(it)) => route.source = Some(it.into()),
            RouteAttribute::Oif(it) => route.link = it,
            _ => {}
        }
    }
    Some(route)
}

fn destination(reply: RouteNetlinkMessage) -> Option<(Subnet, u32)> {
    let RouteNetlinkMessage::NewRoute(message) = reply else { return None };
    if !matches!(message.header.kind, RouteType::Unicast | RouteType::Local) {
        return None;
    }
    let prefix = message.header.destination_prefix_length;
    let mut to = Subnet { address: Ipv4Addr::UNSPECIFIED, prefix };
    let mut link = 0;
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(it)) => to.address = it,
            RouteAttribute::Oif(it) => link = it,
            _ => {}
        }
    }
    Some((to, link))
}

fn prefix_v6(reply: RouteNetlinkMessage) -> Option<((IpAddr, u8), u32)> {
    let RouteNetlinkMessage::NewRoute(message) = reply else { return None };
    let is_way = matches!(message.header.kind, RouteType::Unicast | RouteType::Local);
    (message.header.address_family == AddressFamily::Inet6 && is_way).then_some(())?;
    let mut to = Ipv6Addr::UNSPECIFIED;
    let mut link = 0;
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet6(it)) => to = it,
            RouteAttribute::Oif(it) => link = it,
            _ => {}
        }
    }
    Some(((to.into(), message.header.destination_prefix_length), link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_read_as_it_is_written() {
        let written = Route {
            to: (Ipv4Addr::new(10, 244, 0, 7).into(), 32),
            link: 12,
            via: None,
            source: Some(Ipv4Addr::new(10, 244, 0, 1).into()),
        };
        assert_eq!(route(RouteNetlinkMessage::NewRoute(route_message(written))), Some(written));
        let default =
            Route { to: (Ipv4Addr::UNSPECIFIED.into(), 0), via: written.source, ..written };
        assert_eq!(route(RouteNetlinkMessage::NewRoute(route_message(default))), Some(default));
    }
}
