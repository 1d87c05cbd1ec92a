//! Where everything in the cluster's network is: ranges and the fixed addresses in them.

use std::{fmt, net::Ipv4Addr};

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

    /// The last address of the range.
    pub(crate) fn last(self) -> Ipv4Addr {
        self.address | !self.mask()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The ranges of a cluster; the fixed addresses follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Addresses of pods.
    pub pods: Subnet,
    /// Cluster addresses of Services.
    pub services: Subnet,
}

impl Addresses {
    /// The cluster's own end of every pod's link, and the pods' way to the host: a port of this
    /// address that the cluster does not serve itself is that port of the host's `127.0.0.1`.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.pods.at(1)
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_ends() {
        let Addresses { pods, services } = Addresses::default();
        assert_eq!(pods.last(), Ipv4Addr::new(10, 244, 255, 255));
        assert!(pods.contains(pods.last()) && !services.contains(pods.last()));
        let all = Subnet { address: Ipv4Addr::UNSPECIFIED, prefix: 0 };
        assert!(all.contains(pods.last()));
    }
}
