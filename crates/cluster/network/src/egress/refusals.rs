//! Tells pods that a packet did not arrive: ICMP errors, which the kernel would have sent had it known.

use std::{io, net::SocketAddrV4, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

/// `ICMP_DEST_UNREACH`.
const UNREACHABLE: u8 = 3;
/// `ICMP_PKT_FILTERED`. That there is no way would be a soft error, for which a client waits in vain.
const PROHIBITED: u8 = 13;
/// `ICMP_PORT_UNREACH`.
const PORT: u8 = 3;

/// A socket that may send them.
#[derive(Debug)]
pub(super) struct Refusals(OwnedFd);

impl Refusals {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let icmp = Some(ipproto::ICMP);
        Ok(Self(socket_with(AddressFamily::INET, SocketType::RAW, flags, icmp)?))
    }

    /// Says that a UDP packet of `pod` did not get to `target`.
    pub(super) fn send(&self, pod: SocketAddrV4, target: SocketAddrV4, error: &io::Error) {
        let code = match error.kind() {
            io::ErrorKind::ConnectionRefused => PORT,
            _ => PROHIBITED,
        };
        let sent = sendto(
            &self.0,
            &message(code, pod, target),
            SendFlags::empty(),
            &SocketAddrV4::new(*pod.ip(), 0),
        );
        if let Err(error) = sent {
            // It waits for an answer instead.
            tracing::debug!(%pod, %target, %error, "a pod is not told that its packet is lost");
        }
    }
}

/// The error, with the head of the packet by which the pod knows its socket.
fn message(code: u8, pod: SocketAddrV4, target: SocketAddrV4) -> Vec<u8> {
    const UDP: u8 = 17;
    const IP_HEADER: u16 = 20;
    const UDP_HEADER: u16 = 8;
    let mut message = vec![UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    // Version 4, five words; no service, length, number or fragments.
    message.extend([0x45, 0]);
    message.extend((IP_HEADER + UDP_HEADER).to_be_bytes());
    message.extend([0, 0, 0, 0]);
    // Hops, protocol, checksum.
    message.extend([64, UDP, 0, 0]);
    message.extend(pod.ip().octets());
    message.extend(target.ip().octets());
    message.extend(pod.port().to_be_bytes());
    message.extend(target.port().to_be_bytes());
    message.extend(UDP_HEADER.to_be_bytes());
    message.extend([0, 0]);
    set_checksum(&mut message, 8, 18);
    set_checksum(&mut message, 0, 2);
    message
}

/// Writes the checksum of what begins at `from` and of which the header is all (RFC 1071); for the
/// inner header only its 20 bytes count.
fn set_checksum(message: &mut [u8], from: usize, at: usize) {
    const IP_HEADER: usize = 20;
    let length = if from == 0 { message.len() } else { IP_HEADER };
    let words = message.get(from..from + length).unwrap_or_default().chunks(2);
    let sum: u32 = words.map(|it| u32::from(u16::from_be_bytes([first(it), second(it)]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let sum = !u16::try_from(folded).unwrap_or(u16::MAX);
    if let Some(place) = message.get_mut(at..at + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

fn first(word: &[u8]) -> u8 {
    word.first().copied().unwrap_or(0)
}

fn second(word: &[u8]) -> u8 {
    word.get(1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_come_out_even() {
        let message =
            message(PORT, "10.244.0.2:1000".parse().unwrap(), "192.0.2.1:53".parse().unwrap());
        for part in [message.as_slice(), &message[8..28]] {
            let words = part.chunks(2).map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])));
            let sum: u32 = words.sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{part:x?}");
        }
        assert_eq!(message.len(), 36);
    }
}
