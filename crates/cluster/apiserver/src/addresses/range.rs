//! The ranges that cluster IPs come from, and the store's note of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    bootstrap,
    kinds::{KINDS, service::families::Family},
    object::{self, at},
    registry::keys,
};

/// How many leading bits all IPv6 addresses of Services share.
const BITS_V6: u8 = 112;

/// The ranges of cluster IPs, one for each family that Services may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange {
    /// First address of the IPv4 range, which is not given out.
    pub network: Ipv4Addr,
    /// Length of its prefix, at most 24.
    pub prefix: u8,
    /// First address of the IPv6 range, which is not given out; the range has 112 bits of prefix. Without
    /// one Services have IPv4 alone.
    pub v6: Option<Ipv6Addr>,
}

impl Default for ServiceRange {
    /// `10.96.0.0/16` and `fd00:10:96::/112`.
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(10, 96, 0, 0),
            prefix: 16,
            v6: Some(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0)),
        }
    }
}

impl ServiceRange {
    /// The ranges that a store's Services have their addresses from, if a cluster was ever made of it.
    #[must_use]
    pub fn of(store: &store::Store) -> Option<Self> {
        let kind = KINDS.iter().find(|it| it.kind == "ServiceCIDR")?;
        let entry = store.get(&keys::object(kind, "", bootstrap::NAME))?;
        let object = object::parse(&entry.value).ok()?;
        let cidrs = at(&object, &["spec", "cidrs"])?.as_array()?;
        let mut cidrs = cidrs.iter().filter_map(|it| it.as_str()?.split_once('/'));
        let (network, prefix) = cidrs.next()?;
        let second = cidrs.find(|(_, bits)| bits.parse() == Ok(BITS_V6));
        let v6 = second.and_then(|(network, _)| network.parse().ok());
        Some(Self { network: network.parse().ok()?, prefix: prefix.parse().ok()?, v6 })
    }

    /// The IPv4 address `offset` after the network's own: 1 is the API's, 10 DNS's.
    #[must_use]
    pub fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits().wrapping_add(offset))
    }

    /// The IPv6 address `offset` after the network's own.
    pub(super) fn address_v6(self, offset: u32) -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from_bits(self.v6?.to_bits().wrapping_add(offset.into())))
    }

    /// How far after its network's own an address of the range is; none if it is in neither.
    pub(super) fn offset(self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                let offset = address.to_bits().checked_sub(self.network.to_bits())?;
                (offset & mask == 0).then_some(offset)
            }
            IpAddr::V6(address) => {
                let offset = address.to_bits().checked_sub(self.v6?.to_bits())?;
                u16::try_from(offset).ok().map(u32::from)
            }
        }
    }

    /// The last offset that is given out: of IPv4 all but the broadcast address.
    pub(super) fn last(self, family: Family) -> u32 {
        match family {
            Family::V4 => (1 << 32_u32.saturating_sub(u32::from(self.prefix)).min(31)) - 2,
            Family::V6 => u16::MAX.into(),
        }
    }

    /// The families that Services may have, the usual one first.
    pub(super) fn families(self) -> &'static [Family] {
        match self.v6 {
            Some(_) => &[Family::V4, Family::V6],
            None => &[Family::V4],
        }
    }

    /// A family's range in CIDR notation.
    pub(super) fn cidr(self, family: Family) -> Option<String> {
        match family {
            Family::V4 => Some(format!("{}/{}", self.network, self.prefix)),
            Family::V6 => Some(format!("{}/{BITS_V6}", self.v6?)),
        }
    }

    /// The ranges in CIDR notation.
    pub(crate) fn cidrs(self) -> Vec<String> {
        self.families().iter().filter_map(|it| self.cidr(*it)).collect()
    }
}
