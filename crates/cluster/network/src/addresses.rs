//! Where everything in the cluster's network is: ranges and the fixed addresses in them.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// An IPv4 range in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// First address of the range.
    pub address: Ipv4Addr,
    /// How many leading bits all its addresses share, 0 to 32.
    pub prefix: u8,
}

impl Subnet {
    /// The bits that all addresses of the range share.
    pub(crate) fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0))
    }

    /// Whether `address` is in the range.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.address
    }

    /// The address `offset` after the first.
    #[must_use]
    pub fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits().saturating_add(offset))
    }

    /// How many pods get an address of it: all but its own, a node's, and the last two, which a network needs.
    #[must_use]
    pub fn pods_max(self) -> u32 {
        (self.last().to_bits() - self.address.to_bits()).saturating_sub(3)
    }

    /// The last address of the range.
    pub(crate) fn last(self) -> Ipv4Addr {
        self.address | !self.mask()
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// It has another form.
    #[error("`{0}` is no IPv4 range, such as 10.244.0.0/16")]
    Malformed(String),
    /// It is not of this size, or no range of IPv6.
    #[error("`{0}` is no IPv6 range of 96 bits, such as fd12:3456:789a::/96")]
    NoPrefix(String),
    /// The address has bits beyond the prefix.
    #[error("`{given}` begins within a range: `{range}` is meant")]
    Within {
        /// What was read.
        given: String,
        /// The range that has the address.
        range: Subnet,
    },
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let malformed = || SubnetError::Malformed(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let prefix = prefix.parse().ok().filter(|it| *it <= 32).ok_or_else(malformed)?;
        let range = Self { address, prefix };
        let range = Self { address: address & range.mask(), prefix };
        if range.address != address {
            return Err(SubnetError::Within { given: text.to_owned(), range });
        }
        Ok(range)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// What all IPv6 addresses of a cluster begin with: 96 bits. The other 32 are written as an IPv4 address.
///
/// Those of a pod, a node or the gateway are its IPv4 address, so that nothing has to say which two
/// addresses belong together. Those of a Service are 0.0.0.0 and following, which is nobody's IPv4 address.
/// So the same rules, sets and decisions serve both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix([u8; 12]);

impl Prefix {
    /// How many bits it has.
    pub const BITS: u8 = 96;

    /// A prefix of one's own, as RFC 4193 makes it: `fd`, and forty bits that are `random`.
    #[must_use]
    pub fn local(random: [u8; 5]) -> Self {
        let [a, b, c, d, e] = random;
        Self([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0])
    }

    /// The address that ends with `low`.
    #[must_use]
    pub fn at(self, low: Ipv4Addr) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..12].copy_from_slice(&self.0);
        octets[12..].copy_from_slice(&low.octets());
        octets.into()
    }

    /// How `address` ends; none if it begins otherwise.
    #[must_use]
    pub fn low(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = address.octets();
        let low: [u8; 4] = octets.strip_prefix(&self.0)?.try_into().ok()?;
        Some(low.into())
    }

    pub(crate) const fn as_bytes(self) -> [u8; 12] {
        self.0
    }

    /// The range of the addresses that end with one of `low`, in CIDR notation.
    #[must_use]
    pub fn range(self, low: Subnet) -> String {
        format!("{}/{}", self.at(low.address), Self::BITS + low.prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.at(Ipv4Addr::UNSPECIFIED), Self::BITS)
    }
}

impl FromStr for Prefix {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let address = text.split_once('/').filter(|(_, bits)| bits.parse() == Ok(Self::BITS));
        let address = address.and_then(|(address, _)| address.parse::<Ipv6Addr>().ok());
        let octets = address.map(|it| it.octets());
        let bytes = octets.as_ref().and_then(|it| it.strip_suffix(&[0; 4]));
        let bytes = bytes.and_then(|it| it.try_into().ok());
        bytes.map(Self).ok_or_else(|| SubnetError::NoPrefix(text.to_owned()))
    }
}

/// The ranges of a cluster; the fixed addresses follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Addresses of pods.
    pub pods: Subnet,
    /// Cluster addresses of Services.
    pub services: Subnet,
    /// What IPv6 addresses begin with; none, if the kernel has no IPv6.
    pub v6: Option<Prefix>,
}

/// How the IPv6 addresses of Services end: the range is a /112, of the size of the usual IPv4 one.
const SERVICES_V6: Subnet = Subnet { address: Ipv4Addr::UNSPECIFIED, prefix: 16 };

/// How many more leading bits the addresses of one node's pods share: a range has parts for so many nodes.
const NODE_BITS: u8 = 4;
/// No part is smaller, unless the whole range is: a node is to have room for some 250 pods.
const NODE_PREFIX_MAX: u8 = 24;

impl Addresses {
    /// The prefix, and how the IPv6 addresses in these ranges end.
    #[must_use]
    pub fn v6(&self) -> Option<(Prefix, Self)> {
        Some((self.v6?, Self { services: SERVICES_V6, ..*self }))
    }

    /// How many nodes the pods' range has room for.
    #[must_use]
    pub fn nodes_max(&self) -> u32 {
        1 << (self.node_prefix() - self.pods.prefix)
    }

    /// The part of the pods' range from which the pods of a node have their addresses, the first
    /// node's being the first. Always the same, however many nodes there are.
    /// Nodes beyond the last share its part.
    #[must_use]
    pub fn part(&self, node: u32) -> Subnet {
        let prefix = self.node_prefix();
        let index = node.min(self.nodes_max() - 1);
        let offset = index.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Subnet { address: self.pods.at(offset), prefix }
    }

    /// The node whose part begins with this address.
    pub(crate) fn node_of_part(&self, address: Ipv4Addr) -> Option<u8> {
        let number = (0..self.nodes_max()).find(|it| self.part(*it).address == address)?;
        u8::try_from(number).ok()
    }

    /// The address of a node: the first of its part. The first node's is the gateway.
    #[must_use]
    pub fn node(&self, node: u32) -> Ipv4Addr {
        self.part(node).at(1)
    }

    /// Whether a node may have this address. All of them stand for the machine, as the gateway does.
    #[must_use]
    pub fn is_node(&self, address: Ipv4Addr) -> bool {
        address & self.node_mask() == self.gateway()
    }

    /// The bits that the addresses of all nodes share.
    pub(crate) fn node_mask(&self) -> Ipv4Addr {
        let (pods, part) = (self.pods.mask(), self.part(0).mask());
        pods | !part
    }

    fn node_prefix(&self) -> u8 {
        let Subnet { prefix, .. } = self.pods;
        (prefix + NODE_BITS).min(NODE_PREFIX_MAX).max(prefix)
    }

    /// The cluster's own end of every pod's link, and the pods' way to the host: a port of this
    /// address that the cluster does not serve itself is that port of the host's `127.0.0.1`.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.pods.at(1)
    }

    /// The host's own end of its link into the cluster's network, where there is one: what pods see
    /// when the host itself connects to them.
    #[must_use]
    pub fn host(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.pods.last().to_bits().saturating_sub(1))
    }

    /// Address of the Service `default/kubernetes`.
    #[must_use]
    pub fn kubernetes(&self) -> Ipv4Addr {
        self.services.at(1)
    }

    /// Address of the name server.
    #[must_use]
    pub fn dns(&self) -> Ipv4Addr {
        self.services.at(10)
    }
}

impl Default for Addresses {
    /// Pods in 10.244.0.0/16, Services in 10.96.0.0/16.
    fn default() -> Self {
        Self {
            pods: Subnet { address: Ipv4Addr::new(10, 244, 0, 0), prefix: 16 },
            services: Subnet { address: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 },
            v6: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_ends() {
        let Addresses { pods, services, .. } = Addresses::default();
        assert_eq!(pods.last(), Ipv4Addr::new(10, 244, 255, 255));
        assert!(pods.contains(pods.last()) && !services.contains(pods.last()));
        let all = Subnet { address: Ipv4Addr::UNSPECIFIED, prefix: 0 };
        assert!(all.contains(pods.last()));
        assert!(all.overlaps(pods) && pods.overlaps(all) && !pods.overlaps(services));
        assert_eq!(Addresses::default().host(), Ipv4Addr::new(10, 244, 255, 254));
    }

    #[test]
    fn each_node_has_a_part() {
        let of = |pods: &str, node| {
            let addresses = Addresses { pods: pods.parse().unwrap(), ..Addresses::default() };
            let (part, address) = (addresses.part(node), addresses.node(node));
            assert!(addresses.is_node(address) && !addresses.is_node(part.at(2)));
            format!("{part} {address} of {}", addresses.nodes_max())
        };
        assert_eq!(of("10.244.0.0/16", 0), "10.244.0.0/20 10.244.0.1 of 16");
        assert_eq!(of("10.244.0.0/16", 2), "10.244.32.0/20 10.244.32.1 of 16");
        assert_eq!(of("10.1.4.0/22", 3), "10.1.7.0/24 10.1.7.1 of 4");
        assert_eq!(of("10.1.4.0/24", 0), "10.1.4.0/24 10.1.4.1 of 1");
        assert!(!Addresses::default().is_node(Ipv4Addr::new(10, 245, 0, 1)));
    }

    #[test]
    fn ipv6_addresses_end_as_ipv4_ones() {
        let prefix = Prefix::local([0x12, 0x34, 0x56, 0x78, 0x9a]);
        let addresses = Addresses { v6: Some(prefix), ..Addresses::default() };
        let (found, low) = addresses.v6().unwrap();
        assert_eq!(found, prefix);
        assert_eq!(prefix.range(low.part(1)), "fd12:3456:789a::af4:1000/116");
        assert_eq!(prefix.range(low.services), "fd12:3456:789a::/112");
        let gateway = prefix.at(low.gateway());
        assert_eq!(gateway.to_string(), "fd12:3456:789a::af4:1");
        assert_eq!(prefix.low(gateway), Some(addresses.gateway()));
        assert_eq!(prefix.low(Ipv6Addr::LOCALHOST), None);
        assert_eq!(prefix.to_string().parse(), Ok(prefix));
        for text in ["fd12::/64", "fd12::1/96", "10.0.0.0/96", "fd12::"] {
            assert_eq!(text.parse::<Prefix>(), Err(SubnetError::NoPrefix(text.to_owned())));
        }
    }

    #[test]
    fn reads_what_it_prints() {
        let pods = Addresses::default().pods;
        assert_eq!(pods.to_string().parse(), Ok(pods));
        for text in ["10.244.0.0", "10.244.0.0/33", "10.244/16", "fd00::/64", ""] {
            assert_eq!(text.parse::<Subnet>(), Err(SubnetError::Malformed(text.to_owned())));
        }
        let within = "10.244.1.0/16".parse::<Subnet>().unwrap_err();
        assert_eq!(
            within.to_string(),
            "`10.244.1.0/16` begins within a range: `10.244.0.0/16` is meant"
        );
    }
}
