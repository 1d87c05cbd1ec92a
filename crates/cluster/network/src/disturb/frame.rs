//! Frames as packet sockets have them: a `struct virtio_net_hdr`, the head of Ethernet, a packet. Pure.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::Ipv4Addr,
};

use super::line::Dice;
use crate::netlink::route::Mac;

/// Size of `struct virtio_net_hdr`.
const OFFLOADS_LEN: usize = 10;
/// Size of the head of Ethernet.
const ETHERNET_LEN: usize = 14;
const PACKET_AT: usize = OFFLOADS_LEN + ETHERNET_LEN;
/// Largest frame: what the kernel lets through to a link that gets single packets is much smaller.
pub(super) const FRAME_MAX: usize = PACKET_AT + (1 << 16);

/// `ETH_P_IP`, `ETH_P_IPV6` and `ETH_P_ALL`.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
pub(super) const ANYTHING: u16 = 3;

/// Where the parts of a packet of IPv4 are.
const FRAGMENT_AT: usize = PACKET_AT + 6;
const PROTOCOL_AT: usize = PACKET_AT + 9;
const SOURCE_AT: usize = PACKET_AT + 12;
const DESTINATION_AT: usize = PACKET_AT + 16;
/// Those of one of IPv6, and how the destination ends.
const NEXT_HEADER_AT: usize = PACKET_AT + 6;
const SOURCE_V6_AT: usize = PACKET_AT + 8;
const END_V6_AT: usize = PACKET_AT + 36;
const HEADER_V6_LEN: usize = 40;

/// The checksum is still to be made.
const NEEDS_CHECKSUM: u8 = 1;

/// What the shaper needs to know of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// To whom it is; of IPv6 how the address ends, as only those of the cluster come here.
    pub(super) to: Ipv4Addr,
    /// What the sender's way was: the last two bytes of the address that the frame was sent to.
    pub(super) class: u16,
    /// The same for all packets of a connection.
    pub(super) flow: usize,
    /// Bytes on a wire.
    pub(super) length: usize,
}

/// What the packet in a frame is.
pub(super) fn protocol(frame: &[u8]) -> Option<u16> {
    match frame.get(PACKET_AT)? >> 4 {
        4 => Some(IPV4),
        6 => Some(IPV6),
        _ => None,
    }
}

/// Reads a frame. None: it is no packet of IPv4 or IPv6.
pub(super) fn read(frame: &[u8]) -> Option<Head> {
    let class = u16::from_be_bytes(bytes_at(frame, OFFLOADS_LEN + 4)?);
    let mut hasher = DefaultHasher::new();
    let to: [u8; 4] = match protocol(frame)? {
        IPV4 => {
            flow_v4(frame)?.hash(&mut hasher);
            bytes_at(frame, DESTINATION_AT)?
        }
        _ => {
            flow_v6(frame)?.hash(&mut hasher);
            bytes_at(frame, END_V6_AT)?
        }
    };
    let flow = usize::try_from(hasher.finish() >> 32).unwrap_or_default();
    Some(Head { to: to.into(), class, flow, length: frame.len() - OFFLOADS_LEN })
}

/// Addresses, protocol and ports, if there are some.
type Flow<const N: usize> = ([u8; N], u8, Option<[u8; 4]>);

fn flow_v4(frame: &[u8]) -> Option<Flow<8>> {
    /// More fragments follow, or this is not the first.
    const FRAGMENT_MASK: u16 = 0x3fff;
    let words = usize::from(frame.get(PACKET_AT)? & 0xf);
    let is_fragment = u16::from_be_bytes(bytes_at(frame, FRAGMENT_AT)?) & FRAGMENT_MASK != 0;
    let ports = bytes_at(frame, PACKET_AT + words * 4).filter(|_| !is_fragment);
    Some((bytes_at(frame, SOURCE_AT)?, *frame.get(PROTOCOL_AT)?, ports))
}

fn flow_v6(frame: &[u8]) -> Option<Flow<32>> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let protocol = *frame.get(NEXT_HEADER_AT)?;
    // Of fragments, and behind other headers, they are not looked for.
    let ports = bytes_at(frame, PACKET_AT + HEADER_V6_LEN);
    let ports = ports.filter(|_| [TCP, UDP].contains(&protocol));
    Some((bytes_at(frame, SOURCE_V6_AT)?, protocol, ports))
}

/// Has the frame be from and to these.
pub(super) fn address(frame: &mut [u8], from: Mac, to: Mac) {
    let place: Option<&mut [u8; 12]> =
        frame.get_mut(OFFLOADS_LEN..).and_then(<[u8]>::first_chunk_mut);
    if let Some(place) = place {
        let (first, second) = place.split_at_mut(6);
        first.copy_from_slice(&to);
        second.copy_from_slice(&from);
    }
}

/// Turns a bit of the packet over, in its head or in what it carries, under the checksum that it had. `false`:
/// the checksum cannot be made here, since the kernel would cut this into packets first.
pub(super) fn corrupt(frame: &mut [u8], dice: &mut Dice) -> bool {
    let Some([flags, segmentation, ..]) = frame.first_chunk::<OFFLOADS_LEN>().copied() else {
        return false;
    };
    if segmentation != 0 {
        return false;
    }
    if flags & NEEDS_CHECKSUM != 0 && finish_checksum(frame).is_none() {
        return false;
    }
    // Nobody has looked at the checksum, and nothing is left to do.
    if let Some(offloads) = frame.get_mut(..OFFLOADS_LEN) {
        offloads.fill(0);
    }
    let bits = frame.len().saturating_sub(PACKET_AT).saturating_mul(8);
    let bit = usize::try_from(dice.number() >> 32).unwrap_or_default().checked_rem(bits);
    let Some(bit) = bit else { return false };
    if let Some(byte) = frame.get_mut(PACKET_AT + bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
    true
}

/// Makes the checksum that the sender left to the network card.
fn finish_checksum(frame: &mut [u8]) -> Option<()> {
    let start = OFFLOADS_LEN + usize::from(u16::from_ne_bytes(bytes_at(frame, 6)?));
    let place = start + usize::from(u16::from_ne_bytes(bytes_at(frame, 8)?));
    // The sum over the addresses is in its place already.
    let covered = frame.get(start..)?;
    let mut sum = 0_u32;
    for pair in covered.chunks(2) {
        let high = u32::from(*pair.first()?) << 8;
        sum += high + pair.get(1).copied().map_or(0, u32::from);
    }
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    // Zero would mean that there is none.
    let checksum = match !u16::try_from(folded).ok()? {
        0 => u16::MAX,
        other => other,
    };
    frame.get_mut(place..place + 2)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

fn bytes_at<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A datagram of UDP from 10.244.0.2 port 1000 to 10.244.0.3 port 80.
    fn datagram(flags: u8) -> Vec<u8> {
        let mut frame = vec![flags, 0, 0, 0, 0, 0];
        frame.extend(34_u16.to_ne_bytes()); // where what is covered begins
        frame.extend(6_u16.to_ne_bytes()); // where the checksum is, from there
        frame.extend([2, 0, 0, 0, 1, 2, 4, 4, 4, 4, 4, 4, 8, 0]);
        frame.extend([0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 244, 0, 2, 10, 244, 0, 3]);
        // 10.244.0.2 + 10.244.0.3 + protocol 17 + length 12, which the sender has summed up.
        frame.extend([3, 232, 0, 80, 0, 12]);
        frame.extend((10 * 256 + 244 + 2 + 10 * 256 + 244 + 3 + 17 + 12_u16).to_be_bytes());
        frame.extend(b"data");
        frame
    }

    fn sum(bytes: &[u8]) -> u32 {
        let pairs = bytes.chunks(2).map(|it| u32::from(it[0]) << 8 | u32::from(it[1]));
        let sum: u32 = pairs.sum();
        (sum & 0xffff) + (sum >> 16)
    }

    #[test]
    fn knows_the_flow() {
        let frame = datagram(0);
        let head = read(&frame).unwrap();
        assert_eq!(head.to, Ipv4Addr::new(10, 244, 0, 3));
        assert_eq!((head.class, head.length), (0x0102, 46));
        let mut other = frame.clone();
        other[PACKET_AT + 21] ^= 1;
        assert_ne!(read(&other).unwrap().flow, head.flow);
        // Fragments of one packet are one flow, whatever is where ports would be.
        for it in [&frame, &other] {
            let mut fragment = it.clone();
            fragment[FRAGMENT_AT + 1] = 1;
            let first = [fragment.clone(), frame.clone()].map(|it| read(&it).unwrap().flow);
            assert_ne!(first[0], first[1]);
            fragment[PACKET_AT + 21] ^= 1;
            assert_eq!(read(&fragment).unwrap().flow, first[0]);
        }
        for length in 0..PACKET_AT + 20 {
            assert_eq!(read(&frame[..length]), None);
        }
    }

    #[test]
    fn knows_the_flow_of_ipv6() {
        let mut frame = datagram(0)[..PACKET_AT].to_vec();
        frame.extend([0x60, 0, 0, 0, 0, 12, 17, 64]);
        let prefix = [0xfd, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0];
        for end in [[10, 244, 0, 2], [10, 244, 0, 3]] {
            frame.extend(prefix);
            frame.extend(end);
        }
        frame.extend([3, 232, 0, 80, 0, 12, 0, 0]);
        frame.extend(b"data");
        let head = read(&frame).unwrap();
        assert_eq!(head.to, Ipv4Addr::new(10, 244, 0, 3));
        assert_eq!((head.class, head.length), (0x0102, 66));
        assert_eq!((protocol(&frame), protocol(&datagram(0))), (Some(IPV6), Some(IPV4)));
        let mut other = frame.clone();
        other[PACKET_AT + 41] ^= 1;
        assert_ne!(read(&other).unwrap().flow, head.flow);
        // A fragment's are not looked for.
        for it in [&mut frame, &mut other] {
            it[NEXT_HEADER_AT] = 44;
        }
        assert_eq!(read(&other).unwrap().flow, read(&frame).unwrap().flow);
        for length in 0..PACKET_AT + 40 {
            assert_eq!(read(&frame[..length]), None);
        }
    }

    #[test]
    fn gets_new_addresses() {
        let mut frame = datagram(0);
        address(&mut frame, [1; 6], [2; 6]);
        assert_eq!(frame[OFFLOADS_LEN..][..12], [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn one_bit_is_wrong_and_the_checksum_shows_it() {
        let whole = {
            let mut frame = datagram(NEEDS_CHECKSUM);
            finish_checksum(&mut frame).unwrap();
            frame
        };
        let pseudo = sum(&[10, 244, 0, 2, 10, 244, 0, 3, 0, 17, 0, 12]);
        assert_eq!((sum(&whole[PACKET_AT + 20..]) + pseudo) % 0xffff, 0);
        let mut dice = Dice::new(3);
        for _ in 0..100 {
            let mut frame = datagram(NEEDS_CHECKSUM);
            assert!(corrupt(&mut frame, &mut dice));
            assert_eq!(frame[..OFFLOADS_LEN], [0; OFFLOADS_LEN]);
            let both = frame.iter().zip(&whole).skip(OFFLOADS_LEN);
            assert_eq!(both.map(|(a, b)| (a ^ b).count_ones()).sum::<u32>(), 1);
        }
    }

    #[test]
    fn what_is_to_be_cut_stays_whole() {
        let mut frame = datagram(NEEDS_CHECKSUM);
        frame[1] = 1;
        assert!(!corrupt(&mut frame, &mut Dice::new(1)));
        assert!(!corrupt(&mut [0; OFFLOADS_LEN], &mut Dice::new(1)));
    }
}
