//! What leads marked packets another way: a table of routes for each mark, the rules that choose one, and
//! who is at the other end.

use std::{io, net::IpAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use rustix::io::Errno;

use super::{Routing, family_of, is, route_address};
use crate::netlink::{Doing, Error};

/// An address of a link.
pub(crate) type Mac = [u8; 6];

/// How packets with a mark go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Detour {
    /// The whole mark.
    pub(crate) mark: u32,
    /// Number of a table of routes that nobody else has.
    pub(crate) table: u32,
    pub(crate) link: u32,
    /// The next hop, an address that nobody has; packets of its family go so.
    pub(crate) via: IpAddr,
    /// What frames to it are addressed to.
    pub(crate) mac: Mac,
    /// The address that local senders use.
    pub(crate) source: IpAddr,
}

/// Rules are asked in the order of their priorities: these, which nobody else may have, before those that are
/// always there.
const PRIORITY: u32 = 100;

impl Routing {
    /// Says what frames to an address at the other end of a link are addressed to, so that it is not asked.
    pub(crate) fn add_neighbour(
        &mut self,
        link: u32,
        address: IpAddr,
        mac: Mac,
    ) -> Result<(), Error> {
        let destination = match address {
            IpAddr::V4(it) => NeighbourAddress::Inet(it),
            IpAddr::V6(it) => NeighbourAddress::Inet6(it),
        };
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(address);
        message.header.ifindex = link;
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::Destination(destination));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.call(RouteNetlinkMessage::NewNeighbour(message), flags)
            .doing(|| format!("say who `{address}` is"))?;
        Ok(())
    }

    /// Adds a detour, its rule last.
    pub(crate) fn add_detour(&mut self, detour: Detour) -> Result<(), Error> {
        let Detour { mark, table, link, via, mac, source } = detour;
        self.add_neighbour(link, via, mac)?;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(via);
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = RouteScope::Universe;
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Table(table));
        message.attributes.push(RouteAttribute::Oif(link));
        message.attributes.push(RouteAttribute::Gateway(route_address(via)));
        message.attributes.push(RouteAttribute::PrefSource(route_address(source)));
        self.call(RouteNetlinkMessage::NewRoute(message), flags)
            .doing(|| format!("add a route to table `{table}`"))?;
        let mut message = RuleMessage::default();
        message.header.family = family_of(via);
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Priority(PRIORITY));
        message.attributes.push(RuleAttribute::FwMark(mark));
        message.attributes.push(RuleAttribute::Table(table));
        self.call(RouteNetlinkMessage::NewRule(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
            .doing(|| format!("add a rule for packets with mark `{mark:#x}`"))?;
        Ok(())
    }

    /// Removes the rules of all detours but those that lead to `kept` tables.
    pub(crate) fn remove_detours(&mut self, kept: impl Fn(u32) -> bool) -> Result<(), Error> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let rules = match self.call(RouteNetlinkMessage::GetRule(message), NLM_F_DUMP) {
                // The kernel has no IPv6.
                Err(error) if is(&error, Errno::OPNOTSUPP) => continue,
                other => other.doing(|| "list rules of routing".to_owned())?,
            };
            for rule in rules {
                let RouteNetlinkMessage::NewRule(rule) = rule else { continue };
                // A kernel that has none of a family lists those of all.
                let is_ours = rule.header.family == family
                    && rule.attributes.contains(&RuleAttribute::Priority(PRIORITY));
                let is_kept = rule.attributes.iter().any(|it| match it {
                    RuleAttribute::Table(table) => kept(*table),
                    _ => false,
                });
                if is_ours && !is_kept {
                    self.remove_rule(rule)?;
                }
            }
        }
        Ok(())
    }

    fn remove_rule(&mut self, rule: RuleMessage) -> Result<(), Error> {
        match self.call(RouteNetlinkMessage::DelRule(rule), NLM_F_ACK) {
            Err(error) if !is(&error, Errno::NOENT) => {
                Err(Error::new("remove a rule of routing", error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Cuts what is sent over a link into packets before it gets there.
    pub(crate) fn send_single_packets(&mut self, link: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::GsoMaxSegs(1));
        self.call(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
            .doing(|| format!("have link number `{link}` get single packets"))?;
        Ok(())
    }

    /// The address of the other end of the veth called `name`, wherever that is. None: it is gone.
    pub(crate) fn mac_of_peer(&mut self, name: &str) -> Result<Option<Mac>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let Some(attributes) = self.look_up(message, name)? else { return Ok(None) };
        let mut peer = LinkMessage::default();
        let mut namespace = None;
        for attribute in attributes {
            match attribute {
                LinkAttribute::Link(index) => peer.header.index = index,
                LinkAttribute::LinkNetNsId(id) => namespace = Some(id),
                _ => {}
            }
        }
        peer.attributes.extend(namespace.map(LinkAttribute::IfNetnsId));
        peer.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let attributes = self.look_up(peer, name)?.unwrap_or_default();
        Ok(attributes.into_iter().find_map(|it| match it {
            LinkAttribute::Address(mac) => Mac::try_from(mac).ok(),
            _ => None,
        }))
    }

    fn look_up(
        &mut self,
        message: LinkMessage,
        name: &str,
    ) -> Result<Option<Vec<LinkAttribute>>, Error> {
        let found: io::Result<_> = self.call(RouteNetlinkMessage::GetLink(message), NLM_F_ACK);
        match found {
            Ok(replies) => Ok(replies.into_iter().find_map(|it| match it {
                RouteNetlinkMessage::NewLink(link) => Some(link.attributes),
                _ => None,
            })),
            // The link has gone, or the namespace at its other end.
            Err(error) if is(&error, Errno::NODEV) || is(&error, Errno::INVAL) => Ok(None),
            Err(error) => Err(Error::new(format!("look at the other end of link `{name}`"), error)),
        }
    }
}
