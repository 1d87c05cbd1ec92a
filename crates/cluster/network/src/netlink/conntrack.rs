//! Connection tracking, as far as services need it: forgetting UDP flows that lead to an endpoint
//! which is none any more.
//!
//! A TCP connection to a removed endpoint ends by itself; a UDP client that keeps its port would be
//! sent to the dead address for as long as it goes on. Format: `ctnetlink`,
//! <https://docs.kernel.org/networking/netlink_spec/conntrack.html>.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddrV4},
    sync::{Mutex, PoisonError},
};

use rustix::io::Errno;

use crate::family::IpFamily;

use super::{
    Doing, Error, Family, Socket, modules,
    wire::{self, Datagram, GENERIC_LEN, Header},
};

const NFNL_SUBSYS_CTNETLINK: u16 = 1 << 8;
const IPCTNL_MSG_CT_GET: u16 = NFNL_SUBSYS_CTNETLINK | 1;
const IPCTNL_MSG_CT_DELETE: u16 = NFNL_SUBSYS_CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
/// `CTA_FILTER_FLAG(CTA_PROTO_NUM)`: only entries with the protocol of the given tuple.
const CTA_FILTER_PROTO_NUM: u32 = 1 << 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const UDP: u8 = 17;

/// From a service address to the endpoint that got the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) service: SocketAddrV4,
    pub(crate) endpoint: SocketAddrV4,
}

/// The tracked connections of a family, of the network namespace in which it is first used.
#[derive(Debug, Default)]
pub(crate) struct Conntrack {
    family: IpFamily,
    /// Opened once and kept, for the reason that the nftables table keeps its own.
    socket: Mutex<Option<Socket>>,
}

impl Conntrack {
    pub(crate) fn new(family: IpFamily) -> Self {
        Self { family, ..Self::default() }
    }

    /// Forgets the UDP flows that `removed` names; the next packet of such a client chooses anew.
    /// Takes milliseconds: the kernel looks through one table for the whole machine.
    pub(crate) fn forget(&self, removed: &BTreeSet<Flow>) -> Result<usize, Error> {
        let doing = || "list tracked connections".to_owned();
        let mut kept = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = match &mut *kept {
            Some(socket) => socket,
            None => {
                kept.insert(Socket::open(Family::Netfilter).doing_with(modules::NETFILTER, doing)?)
            }
        };
        let (sequence, generic) = (socket.sequences(1), wire::generic(self.family));
        let mut dump = Datagram::default();
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        dump.message(Header { kind: IPCTNL_MSG_CT_GET, flags, sequence }, |body| {
            // Kernels before 5.8 pass over the filter, and answer with all entries.
            body.fixed(&generic).nested(CTA_FILTER, |filter| {
                filter.attribute(CTA_FILTER_ORIG_FLAGS, &CTA_FILTER_PROTO_NUM.to_ne_bytes());
            });
            body.nested(CTA_TUPLE_ORIG, |tuple| {
                tuple.nested(CTA_TUPLE_PROTO, |protocol| {
                    protocol.attribute(CTA_PROTO_NUM, &[UDP]);
                });
            });
        });
        let entries = socket.exchange(dump.as_bytes(), sequence, sequence);
        let entries = entries.doing_with(modules::CONNTRACK, doing)?;
        let mut forgotten = 0;
        for entry in entries {
            let Some(attributes) = entry.payload.get(GENERIC_LEN..) else { continue };
            let Some(original) = wire::attribute(attributes, CTA_TUPLE_ORIG) else { continue };
            if flow(self.family, attributes).is_some_and(|it| removed.contains(&it)) {
                remove(socket, generic, original)
                    .doing(|| "forget a tracked connection".to_owned())?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }
}

fn remove(socket: &mut Socket, generic: [u8; GENERIC_LEN], original: &[u8]) -> io::Result<()> {
    let sequence = socket.sequences(1);
    let mut datagram = Datagram::default();
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    datagram.message(Header { kind: IPCTNL_MSG_CT_DELETE, flags, sequence }, |body| {
        body.fixed(&generic).nested(CTA_TUPLE_ORIG, |tuple| {
            tuple.fixed(original);
        });
    });
    match socket.exchange(datagram.as_bytes(), sequence, sequence) {
        // It timed out in between.
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
        other => other.map(drop),
    }
}

/// The flow that an entry's attributes describe, if it is UDP.
fn flow(family: IpFamily, attributes: &[u8]) -> Option<Flow> {
    let protocol = [CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_PROTO_NUM];
    if wire::attribute_at(attributes, &protocol)? != [UDP] {
        return None;
    }
    let original = wire::attribute(attributes, CTA_TUPLE_ORIG)?;
    let reply = wire::attribute(attributes, CTA_TUPLE_REPLY)?;
    let (source, destination) = match family {
        IpFamily::V4 => (CTA_IP_V4_SRC, CTA_IP_V4_DST),
        IpFamily::V6(_) => (CTA_IP_V6_SRC, CTA_IP_V6_DST),
    };
    Some(Flow {
        service: address(family, original, destination, CTA_PROTO_DST_PORT)?,
        endpoint: address(family, reply, source, CTA_PROTO_SRC_PORT)?,
    })
}

fn address(family: IpFamily, tuple: &[u8], ip: u16, port: u16) -> Option<SocketAddrV4> {
    let bytes = wire::attribute_at(tuple, &[CTA_TUPLE_IP, ip])?;
    let address: IpAddr = match family {
        IpFamily::V4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        IpFamily::V6(_) => <[u8; 16]>::try_from(bytes).ok()?.into(),
    };
    let port = wire::attribute_at(tuple, &[CTA_TUPLE_PROTO, port])?.try_into().ok()?;
    Some(SocketAddrV4::new(family.low(address)?, u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: [u8; 2] = [0, 53];

    fn tuple(body: &mut wire::Body<'_>, source: [u8; 4], destination: [u8; 4]) {
        body.nested(CTA_TUPLE_IP, |ip| {
            ip.attribute(CTA_IP_V4_SRC, &source).attribute(CTA_IP_V4_DST, &destination);
        });
        body.nested(CTA_TUPLE_PROTO, |protocol| {
            protocol.attribute(CTA_PROTO_NUM, &[UDP]);
            protocol.attribute(CTA_PROTO_SRC_PORT, &PORT).attribute(CTA_PROTO_DST_PORT, &PORT);
        });
    }

    #[test]
    fn reads_where_a_flow_was_sent() {
        let mut datagram = Datagram::default();
        datagram.message(Header { kind: 0, flags: 0, sequence: 0 }, |body| {
            body.nested(CTA_TUPLE_ORIG, |it| tuple(it, [10, 244, 0, 2], [10, 96, 0, 9]));
            body.nested(CTA_TUPLE_REPLY, |it| tuple(it, [10, 244, 0, 3], [10, 244, 0, 2]));
        });
        let message = wire::messages(datagram.as_bytes()).next().unwrap();
        let expected = Flow {
            service: "10.96.0.9:53".parse().unwrap(),
            endpoint: "10.244.0.3:53".parse().unwrap(),
        };
        assert_eq!(flow(IpFamily::V4, message.payload), Some(expected));
    }
}
