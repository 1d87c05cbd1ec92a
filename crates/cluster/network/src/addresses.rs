//! Where everything in the cluster's network is: ranges and the fixed addresses in them.

use std::{fmt, net::Ipv4Addr, str::FromStr};

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
        assert!(all.overlaps(pods) && pods.overlaps(all) && !pods.overlaps(services));
        assert_eq!(Addresses::default().host(), Ipv4Addr::new(10, 244, 255, 254));
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
