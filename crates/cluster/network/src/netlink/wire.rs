//! The byte format of netlink: messages, and attributes that may hold attributes. Builds and reads;
//! does not know what any message means.
//!
//! Format: <https://docs.kernel.org/userspace-api/netlink/intro.html>.

use crate::family::IpFamily;

/// Length of `struct nfgenmsg`, which every message of netfilter begins with.
pub(crate) const GENERIC_LEN: usize = 4;

/// `struct nfgenmsg`: the family (`NFPROTO_*`), version 0, resource 0.
pub(crate) const fn generic(family: IpFamily) -> [u8; GENERIC_LEN] {
    [protocol(family), 0, 0, 0]
}

/// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
pub(crate) const fn protocol(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 2,
        IpFamily::V6(_) => 10,
    }
}

/// Size of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// Where `nlmsg_flags` is in it.
const FLAGS_OFFSET: usize = 6;
/// Size of `struct nlattr`.
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// Marks an attribute that holds attributes.
const NESTED: u16 = 1 << 15;
/// The bits of an attribute's type that name it; the two highest are flags.
const KIND_MASK: u16 = 0x3fff;
/// The largest attribute, header included: its length has 16 bits.
pub(crate) const ATTRIBUTE_MAX: usize = u16::MAX as usize;

/// What stands at the head of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
}

/// Messages one after another, sent in one call.
#[derive(Debug, Default)]
pub(crate) struct Datagram {
    bytes: Vec<u8>,
    last: usize,
}

impl Datagram {
    /// Appends a message.
    pub(crate) fn message(&mut self, header: Header, body: impl FnOnce(&mut Body<'_>)) {
        let start = self.bytes.len();
        self.last = start;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&header.kind.to_ne_bytes());
        self.bytes.extend_from_slice(&header.flags.to_ne_bytes());
        self.bytes.extend_from_slice(&header.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        body(&mut Body { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        patch(&mut self.bytes, start, &length.to_ne_bytes());
    }

    /// Adds to the flags of the message appended last.
    pub(crate) fn add_flags(&mut self, flags: u16) {
        let place = self.bytes.get_mut(self.last + FLAGS_OFFSET..);
        if let Some(place) = place.and_then(<[u8]>::first_chunk_mut) {
            *place = (u16::from_ne_bytes(*place) | flags).to_ne_bytes();
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The inside of a message or of a nested attribute.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Body<'_> {
    /// The fixed part that comes before the attributes.
    pub(crate) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.put(kind, |body| {
            body.fixed(value);
        })
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.put(kind, |body| {
            body.fixed(value.as_bytes()).fixed(&[0]);
        })
    }

    /// Netfilter has its integers in network byte order.
    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    pub(crate) fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Body<'_>)) -> &mut Self {
        self.put(kind | NESTED, inside)
    }

    fn put(&mut self, kind: u16, inside: impl FnOnce(&mut Body<'_>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        inside(&mut Body { bytes: self.bytes });
        let length = self.bytes.len() - start;
        debug_assert!(length <= ATTRIBUTE_MAX, "attribute {kind} has {length} bytes");
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        patch(self.bytes, start, &length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }
}

fn patch(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// A message as received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of a received datagram; ends at the first that does not fit.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let sequence = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
        let payload = bytes.get(HEADER_LEN..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, sequence, payload })
    })
}

/// The attributes in `bytes`, flags removed from their kinds; ends at the first that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & KIND_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_LEN..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute called `kind`.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(it, _)| *it == kind).map(|(_, value)| value)
}

/// The value at the end of a path of nested attributes.
pub(crate) fn attribute_at<'a>(bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, kind| attribute(bytes, *kind))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(build: impl FnOnce(&mut Body<'_>), expected: Expect) {
        let mut datagram = Datagram::default();
        datagram.message(Header { kind: 0x1234, flags: 5, sequence: 7 }, build);
        expected.assert_eq(&hex(datagram.as_bytes()));
    }

    fn hex(bytes: &[u8]) -> String {
        let words = bytes
            .chunks(4)
            .map(|word| word.iter().map(|it| format!("{it:02x}")).collect::<Vec<_>>().join(" "));
        words.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn pads_attributes_but_not_their_length() {
        check(
            |body| {
                body.text(1, "ab").number(2, 258);
            },
            expect![[r#"
                20 00 00 00
                34 12 05 00
                07 00 00 00
                00 00 00 00
                07 00 01 00
                61 62 00 00
                08 00 02 00
                00 00 01 02"#]],
        );
    }

    #[test]
    fn marks_what_is_nested() {
        check(
            |body| {
                body.nested(3, |body| {
                    body.attribute(1, &[9]);
                });
            },
            expect![[r#"
                1c 00 00 00
                34 12 05 00
                07 00 00 00
                00 00 00 00
                0c 00 03 80
                05 00 01 00
                09 00 00 00"#]],
        );
    }

    #[test]
    fn reads_what_it_wrote() {
        let mut datagram = Datagram::default();
        for sequence in [1, 2] {
            datagram.message(Header { kind: 9, flags: 0, sequence }, |body| {
                body.attribute(5, b"xyz").nested(6, |body| {
                    body.number(1, sequence);
                });
            });
        }
        let read: Vec<_> = messages(datagram.as_bytes())
            .map(|it| (it.kind, it.sequence, attribute_at(it.payload, &[6, 1]).unwrap().to_vec()))
            .collect();
        assert_eq!(read, [(9, 1, vec![0, 0, 0, 1]), (9, 2, vec![0, 0, 0, 2])]);
    }

    proptest::proptest! {
        #[test]
        fn never_runs_away_on_garbage(bytes: Vec<u8>) {
            proptest::prop_assert!(messages(&bytes).count() <= bytes.len());
            proptest::prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
