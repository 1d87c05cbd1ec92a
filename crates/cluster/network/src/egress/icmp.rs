//! ICMP messages (RFC 792) as bytes.

use std::net::{Ipv4Addr, SocketAddrV4};

/// `ICMP_DEST_UNREACH`.
const UNREACHABLE: u8 = 3;
/// `ICMP_ECHOREPLY`.
pub(super) const ECHO_REPLY: u8 = 0;
/// `ICMP_ECHO`.
pub(super) const ECHO_REQUEST: u8 = 8;

const ICMP: u8 = 1;
const UDP: u8 = 17;
/// Bytes of the headers of UDP and of an echo, and what an error has of the packet behind its IP header.
const HEADER: usize = 8;
/// Bytes of a UDP packet without data.
const DATAGRAM_BYTES: u16 = 8;
/// Bytes of an IPv4 packet with such a header and no more.
const PACKET_BYTES: u16 = 28;

/// An echo request or the answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo<'a> {
    /// By which whoever asks knows its own.
    pub(super) identifier: u16,
    /// The sequence number and the data, which come back as they are.
    pub(super) rest: &'a [u8],
}

impl<'a> Echo<'a> {
    /// Reads a message of this kind.
    pub(super) fn parse(kind: u8, message: &'a [u8]) -> Option<Self> {
        let (&[found, 0, _, _, high, low], rest) = message.split_first_chunk()? else {
            return None;
        };
        (found == kind).then_some(Self { identifier: u16::from_be_bytes([high, low]), rest })
    }

    /// The message.
    pub(super) fn message(&self, kind: u8) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0];
        message.extend(self.identifier.to_be_bytes());
        message.extend(self.rest);
        sum(&mut message);
        message
    }
}

/// The addresses and what follows the header of an IPv4 packet.
pub(super) fn split_packet(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, &[u8])> {
    let first = *packet.first()?;
    let words = usize::from(first & 0xf);
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    (first >> 4 == 4).then_some(())?;
    Some((address(12)?, address(16)?, packet.get(4 * words..)?))
}

/// A packet with an ICMP message. The kernel fills in the length, a number and the checksum of the header.
pub(super) fn packet(from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let mut packet = header(ICMP, 0, from, to);
    packet.extend(message);
    packet
}

/// The error that says that a UDP packet did not get to its target.
pub(super) fn of_datagram(code: u8, pod: SocketAddrV4, target: SocketAddrV4) -> Vec<u8> {
    let mut head = [0; HEADER];
    let fields = [pod.port(), target.port(), DATAGRAM_BYTES].map(u16::to_be_bytes);
    head.iter_mut().zip(fields.as_flattened()).for_each(|(to, from)| *to = *from);
    unreachable(code, UDP, (*pod.ip(), *target.ip()), head)
}

/// The error that says that an echo request did not get to its target.
pub(super) fn of_echo(code: u8, pod: Ipv4Addr, target: Ipv4Addr, echo: Echo<'_>) -> Vec<u8> {
    let message = echo.message(ECHO_REQUEST);
    let mut head = [0; HEADER];
    head.iter_mut().zip(&message).for_each(|(to, from)| *to = *from);
    unreachable(code, ICMP, (pod, target), head)
}

/// The error, with the head of the packet by which the pod knows its socket.
fn unreachable(
    code: u8,
    protocol: u8,
    (from, to): (Ipv4Addr, Ipv4Addr),
    head: [u8; HEADER],
) -> Vec<u8> {
    let mut inner = header(protocol, PACKET_BYTES, from, to);
    sum_at(&mut inner, 10);
    let mut message = vec![UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    message.extend(inner);
    message.extend(head);
    sum(&mut message);
    message
}

/// An IPv4 header without a checksum.
fn header(protocol: u8, length: u16, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    const HOPS: u8 = 64;
    // Version 4, five words; no service, number or fragments.
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0, 0, HOPS, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    header
}

/// Writes the checksum of an ICMP message.
fn sum(message: &mut [u8]) {
    sum_at(message, 2);
}

/// Writes the checksum of all of it at a place that is still zero (RFC 1071).
fn sum_at(bytes: &mut [u8], at: usize) {
    let (words, last) = bytes.as_chunks::<2>();
    let last = last.first().map_or(0, |it| u32::from(*it) << 8);
    let sum: u32 = words.iter().map(|it| u32::from(u16::from_be_bytes(*it))).sum::<u32>() + last;
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let sum = !u16::try_from(folded).unwrap_or(u16::MAX);
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_even(part: &[u8]) -> bool {
        let words = part.chunks(2).map(|it| {
            u32::from(u16::from_be_bytes([it[0], it.get(1).copied().unwrap_or_default()]))
        });
        let sum: u32 = words.sum();
        (sum & 0xffff) + (sum >> 16) == 0xffff
    }

    #[test]
    fn checksums_come_out_even() {
        let (pod, target) = ("10.244.0.2:1000".parse().unwrap(), "192.0.2.1:53".parse().unwrap());
        let message = of_datagram(3, pod, target);
        assert!(is_even(&message) && is_even(&message[8..28]), "{message:x?}");
        assert_eq!(message.len(), 36);
        let echo = Echo { identifier: 7, rest: &[0, 1, 2] };
        let message = of_echo(13, *pod.ip(), *target.ip(), echo);
        assert!(is_even(&message) && is_even(&message[8..28]), "{message:x?}");
        assert!(is_even(&echo.message(ECHO_REPLY)));
    }

    #[test]
    fn what_is_made_is_read() {
        let echo = Echo { identifier: 0x1234, rest: b"\0\x05data" };
        let message = echo.message(ECHO_REQUEST);
        let (from, to) = ([10, 244, 0, 2].into(), [192, 0, 2, 1].into());
        let packet = packet(from, to, &message);
        assert_eq!(split_packet(&packet), Some((from, to, message.as_slice())));
        assert_eq!(Echo::parse(ECHO_REQUEST, &message), Some(echo));
        assert_eq!(Echo::parse(ECHO_REPLY, &message), None);
        for cut in 0..6 {
            assert_eq!(Echo::parse(ECHO_REQUEST, &message[..cut]), None);
        }
        for cut in 0..20 {
            assert_eq!(split_packet(&packet[..cut]), None);
        }
    }
}
