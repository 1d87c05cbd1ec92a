//! The two families of addresses, as rules, sets and decisions see them: by four bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use crate::addresses::{Addresses, Prefix, Subnet};

/// A family of addresses of the cluster. Within one, each is told by four bytes: the IPv4 address, or how
/// the IPv6 address ends, all of which begin in the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IpFamily {
    #[default]
    V4,
    V6(Prefix),
}

impl IpFamily {
    /// The families that a cluster has, each with the ranges in it.
    pub(crate) fn all(addresses: &Addresses) -> Vec<(Self, Addresses)> {
        let v6 = addresses.v6().map(|(prefix, addresses)| (Self::V6(prefix), addresses));
        [(Self::V4, *addresses)].into_iter().chain(v6).collect()
    }

    /// The whole address.
    pub(crate) fn at(self, low: Ipv4Addr) -> IpAddr {
        match self {
            Self::V4 => low.into(),
            Self::V6(prefix) => prefix.at(low).into(),
        }
    }

    /// A range, as an address and how many bits its addresses share.
    pub(crate) fn range(self, low: Subnet) -> (IpAddr, u8) {
        let shared = match self {
            Self::V4 => 0,
            Self::V6(_) => Prefix::BITS,
        };
        (self.at(low.address), shared + low.prefix)
    }

    /// A single address as a range.
    pub(crate) fn only(self, low: Ipv4Addr) -> (IpAddr, u8) {
        self.range(Subnet { address: low, prefix: 32 })
    }

    /// All addresses there are.
    pub(crate) fn everywhere(self) -> (IpAddr, u8) {
        match self {
            Self::V4 => (Ipv4Addr::UNSPECIFIED.into(), 0),
            Self::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), 0),
        }
    }

    /// The four bytes of an address; none if it is of the other family, or an IPv6 address of somebody else.
    pub(crate) fn low(self, address: IpAddr) -> Option<Ipv4Addr> {
        match (self, address) {
            (Self::V4, IpAddr::V4(address)) => Some(address),
            (Self::V6(prefix), IpAddr::V6(address)) => prefix.low(address),
            (Self::V4, IpAddr::V6(_)) | (Self::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// The same of a text.
    pub(crate) fn parse(self, address: &str) -> Option<Ipv4Addr> {
        self.low(address.parse().ok()?)
    }

    /// Whether a slice has addresses of this family.
    pub(crate) fn is_of(self, slice: &EndpointSlice) -> bool {
        let wanted = match self {
            Self::V4 => "IPv4",
            Self::V6(_) => "IPv6",
        };
        slice.address_type == wanted
    }

    /// The cluster address of a Service; none if it is headless, external, or has none of this family.
    pub(crate) fn cluster_ip(self, service: &Service) -> Option<Ipv4Addr> {
        let spec = service.spec.as_ref()?;
        let external = spec.type_.as_deref() == Some("ExternalName");
        let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let mut all = all.filter(|_| !external);
        all.find_map(|it| self.parse(it))
    }
}

/// The address that follows, none if it is the last of its family.
pub(crate) fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(it) => Some(Ipv4Addr::from_bits(it.to_bits().checked_add(1)?).into()),
        IpAddr::V6(it) => Some(Ipv6Addr::from_bits(it.to_bits().checked_add(1)?).into()),
    }
}

/// The address that goes before, none if it is the first of its family.
pub(crate) fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(it) => Some(Ipv4Addr::from_bits(it.to_bits().checked_sub(1)?).into()),
        IpAddr::V6(it) => Some(Ipv6Addr::from_bits(it.to_bits().checked_sub(1)?).into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_family_finds_its_own() {
        let prefix = Prefix::local([0x12, 0x34, 0x56, 0x78, 0x9a]);
        let addresses = Addresses { v6: Some(prefix), ..Addresses::default() };
        let families = IpFamily::all(&addresses);
        let both = json!(["fd12:3456:789a::7", "10.96.0.7"]);
        let service = |spec| serde_json::from_value::<Service>(json!({"spec": spec})).unwrap();
        let of = |spec| -> Vec<String> {
            let service = service(spec);
            let found = families.iter().filter_map(|(family, _)| family.cluster_ip(&service));
            found.map(|it| it.to_string()).collect()
        };
        assert_eq!(of(json!({"clusterIPs": both})), ["10.96.0.7", "0.0.0.7"]);
        assert_eq!(of(json!({"clusterIP": "10.96.0.7"})), ["10.96.0.7"]);
        assert_eq!(of(json!({"clusterIP": "2001:db8::7"})), [""; 0]);
        assert_eq!(of(json!({"clusterIP": "None"})), [""; 0]);
        assert_eq!(of(json!({"clusterIPs": both, "type": "ExternalName"})), [""; 0]);
        assert_eq!(
            IpFamily::V6(prefix).at(Ipv4Addr::new(0, 0, 0, 7)).to_string(),
            "fd12:3456:789a::7"
        );
    }
}
