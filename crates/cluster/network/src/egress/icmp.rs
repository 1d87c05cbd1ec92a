//! ICMP messages (RFC 792), and those of IPv6 (RFC 4443), as bytes.

use std::net::{IpAddr, SocketAddr};

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
const UDP: u8 = 17;
/// Bytes of the headers of UDP and of an echo, and what an error has of the packet behind its IP header.
const HEADER: usize = 8;
/// The same as a length in a header.
const HEADER_BYTES: u16 = 8;
/// Where the checksum of an ICMP message is.
const SUM: usize = 2;

/// Which of the two an echo message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Reply,
}

impl Kind {
    /// Its number, as among messages to this address.
    fn number(self, address: IpAddr) -> u8 {
        match (self, address) {
            (Self::Request, IpAddr::V4(_)) => 8,
            (Self::Reply, IpAddr::V4(_)) => 0,
            (Self::Request, IpAddr::V6(_)) => 128,
            (Self::Reply, IpAddr::V6(_)) => 129,
        }
    }
}

/// Why a packet did not get to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Nobody listens there.
    Port,
    Host,
    /// What there is no way for, too: that would be a soft error, for which a client waits in vain.
    Prohibited,
}

impl Reason {
    /// Type and code of the message that says so to this address.
    fn numbers(self, address: IpAddr) -> [u8; 2] {
        match (self, address) {
            (Self::Port, IpAddr::V4(_)) => [3, 3],
            (Self::Host, IpAddr::V4(_)) => [3, 1],
            (Self::Prohibited, IpAddr::V4(_)) => [3, 13],
            (Self::Port, IpAddr::V6(_)) => [1, 4],
            (Self::Host, IpAddr::V6(_)) => [1, 3],
            (Self::Prohibited, IpAddr::V6(_)) => [1, 1],
        }
    }
}

/// An echo request or the answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo<'a> {
    /// By which whoever asks knows its own.
    pub(super) identifier: u16,
    /// The sequence number and the data, which come back as they are.
    pub(super) rest: &'a [u8],
}

impl<'a> Echo<'a> {
    /// Reads a message of this kind between such addresses.
    pub(super) fn parse(kind: Kind, family: IpAddr, message: &'a [u8]) -> Option<Self> {
        let (&[found, 0, _, _, high, low], rest) = message.split_first_chunk()? else {
            return None;
        };
        let identifier = u16::from_be_bytes([high, low]);
        (found == kind.number(family)).then_some(Self { identifier, rest })
    }

    /// The message between such addresses. That of IPv6 has no checksum, which is about the addresses too: the
    /// kernel adds it.
    pub(super) fn message(&self, kind: Kind, family: IpAddr) -> Vec<u8> {
        let mut message = vec![kind.number(family), 0, 0, 0];
        message.extend(self.identifier.to_be_bytes());
        message.extend(self.rest);
        if family.is_ipv4() {
            sum_at(&mut message, &[], SUM);
        }
        message
    }
}

/// The addresses and what follows the header of an IPv4 packet.
pub(super) fn split_packet(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let first = *packet.first()?;
    let words = usize::from(first & 0xf);
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(octets))
    };
    (first >> 4 == 4).then_some(())?;
    Some((address(12)?, address(16)?, packet.get(4 * words..)?))
}

/// The packet of an answer. Of IPv4, the kernel fills in the length, a number and the checksum of the header.
pub(super) fn reply(from: IpAddr, to: IpAddr, echo: Echo<'_>) -> Vec<u8> {
    let mut message = echo.message(Kind::Reply, to);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    if to.is_ipv6() {
        let mut about = [octets(from), octets(to)].concat();
        about.extend(u32::from(length).to_be_bytes());
        about.extend([0, 0, 0, ICMP_V6]);
        sum_at(&mut message, &about, SUM);
    }
    let mut packet = header(None, length, from, to);
    packet.extend(message);
    packet
}

/// The error that says that a UDP packet did not get to its target.
pub(super) fn of_datagram(reason: Reason, pod: SocketAddr, target: SocketAddr) -> Vec<u8> {
    let mut head = [0; HEADER];
    let fields = [pod.port(), target.port(), HEADER_BYTES].map(u16::to_be_bytes);
    head.iter_mut().zip(fields.as_flattened()).for_each(|(to, from)| *to = *from);
    unreachable(reason, Some(UDP), (pod.ip(), target.ip()), head)
}

/// The error that says that an echo request did not get to its target.
pub(super) fn of_echo(reason: Reason, ends: (IpAddr, IpAddr), echo: Echo<'_>) -> Vec<u8> {
    let message = echo.message(Kind::Request, ends.0);
    let mut head = [0; HEADER];
    head.iter_mut().zip(&message).for_each(|(to, from)| *to = *from);
    unreachable(reason, None, ends, head)
}

/// The error, with the head of the packet by which the pod knows its socket. That of IPv6 has no checksum,
/// which the kernel adds.
fn unreachable(
    reason: Reason,
    protocol: Option<u8>,
    (from, to): (IpAddr, IpAddr),
    head: [u8; HEADER],
) -> Vec<u8> {
    let mut inner = header(protocol, HEADER_BYTES, from, to);
    let [kind, code] = reason.numbers(from);
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    if from.is_ipv4() {
        sum_at(&mut inner, &[], 10);
    }
    message.extend(inner);
    message.extend(head);
    if from.is_ipv4() {
        sum_at(&mut message, &[], SUM);
    }
    message
}

/// An IP header of a packet with so many bytes after it, of ICMP if nothing else is said. That of IPv4 has
/// no checksum.
fn header(protocol: Option<u8>, payload: u16, from: IpAddr, to: IpAddr) -> Vec<u8> {
    const HOPS: u8 = 64;
    /// Bytes of such a header of IPv4.
    const LENGTH: u16 = 20;
    let mut header = match from {
        // Version 4, five words; no service, number or fragments.
        IpAddr::V4(_) => {
            let [high, low] = payload.saturating_add(LENGTH).to_be_bytes();
            vec![0x45, 0, high, low, 0, 0, 0, 0, HOPS, protocol.unwrap_or(ICMP), 0, 0]
        }
        IpAddr::V6(_) => {
            let [high, low] = payload.to_be_bytes();
            vec![0x60, 0, 0, 0, high, low, protocol.unwrap_or(ICMP_V6), HOPS]
        }
    };
    header.extend(octets(from));
    header.extend(octets(to));
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Writes the checksum of all of it, and of what it is `about`, at a place that is still zero (RFC 1071).
fn sum_at(bytes: &mut [u8], about: &[u8], at: usize) {
    let sum = !folded(words(bytes) + words(about));
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

fn words(bytes: &[u8]) -> u32 {
    let (words, last) = bytes.as_chunks::<2>();
    let last = last.first().map_or(0, |it| u32::from(*it) << 8);
    words.iter().map(|it| u32::from(u16::from_be_bytes(*it))).sum::<u32>() + last
}

fn folded(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 2));
    const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn is_even(parts: &[&[u8]]) -> bool {
        folded(parts.iter().map(|it| words(it)).sum()) == 0xffff
    }

    fn six() -> (IpAddr, IpAddr) {
        ("fd12:3456:789a::af4:2".parse().unwrap(), "2001:db8::1".parse().unwrap())
    }

    #[test]
    fn checksums_come_out_even() {
        let message = of_datagram(Reason::Port, (POD, 1000).into(), (TARGET, 53).into());
        assert!(is_even(&[&message]) && is_even(&[&message[8..28]]), "{message:x?}");
        assert_eq!(message.len(), 36);
        let echo = Echo { identifier: 7, rest: &[0, 1, 2] };
        let message = of_echo(Reason::Prohibited, (POD, TARGET), echo);
        assert!(is_even(&[&message]) && is_even(&[&message[8..28]]), "{message:x?}");
        assert!(is_even(&[&echo.message(Kind::Reply, POD)]));
        let (pod, target) = six();
        let packet = reply(target, pod, echo);
        let length = u8::try_from(packet.len() - 40).unwrap();
        let about = [&packet[8..40], &[0, 0, 0, length, 0, 0, 0, ICMP_V6]].concat();
        assert!(is_even(&[&packet[40..], &about]), "{packet:x?}");
    }

    /// Type, code, and then the packet that it is about.
    #[test]
    fn errors_of_ipv6_name_the_packet() {
        let (pod, target) = six();
        let message = of_datagram(Reason::Port, (pod, 1000).into(), (target, 53).into());
        assert_eq!(message[..8], [1, 4, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message[8..16], [0x60, 0, 0, 0, 0, 8, UDP, 64]);
        assert_eq!(message[16..48], [octets(pod), octets(target)].concat());
        assert_eq!(message[48..], [3, 232, 0, 53, 0, 8, 0, 0]);
    }

    #[test]
    fn what_is_made_is_read() {
        let echo = Echo { identifier: 0x1234, rest: b"\0\x05data" };
        for (pod, target) in [(POD, TARGET), six()] {
            let message = echo.message(Kind::Request, target);
            assert_eq!(Echo::parse(Kind::Request, pod, &message), Some(echo));
            assert_eq!(Echo::parse(Kind::Reply, pod, &message), None);
            for cut in 0..6 {
                assert_eq!(Echo::parse(Kind::Request, pod, &message[..cut]), None);
            }
        }
        let packet = reply(TARGET, POD, echo);
        let message = echo.message(Kind::Reply, POD);
        assert_eq!(split_packet(&packet), Some((TARGET, POD, message.as_slice())));
        for cut in 0..20 {
            assert_eq!(split_packet(&packet[..cut]), None);
        }
    }
}
