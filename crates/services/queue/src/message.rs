//! A message, its place in its topic, and the name it has on the wire.

use std::{fmt, time::Duration};

use bytes::Bytes;

/// The place of a message in its topic at one nsqd: each is one more than the one before, without
/// gaps, so that a consumer of all messages can see that it missed one.
///
/// The first of a topic is the microsecond in which the topic was made. So numbers never come
/// again, not even when a topic is deleted and made anew or its folder is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// How many bits a sequence has within a [`MessageId`]: exact in a JavaScript number, and
    /// enough for microseconds until the year 2255.
    pub const BITS: u32 = 53;

    /// The one `count` later.
    #[must_use]
    pub const fn after(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many there are from this one up to, and without, `end`.
    #[must_use]
    pub const fn until(self, end: Self) -> u64 {
        end.0.saturating_sub(self.0)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The unique part of this nsqd in its cluster, 0 to 1 023 (`-node-id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(u16);

impl NodeId {
    /// One more than the greatest. The original's limit.
    pub const END: u16 = 1024;

    /// `None` if it is out of range.
    #[must_use]
    pub const fn new(id: u16) -> Option<Self> {
        if id < Self::END { Some(Self(id)) } else { None }
    }
}

/// What names a message on the wire: 16 hexadecimal digits. Here they are the node's id, then the
/// sequence; to clients they mean nothing, as in the original.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; Self::LENGTH]);

impl MessageId {
    /// How many bytes it has on the wire.
    pub const LENGTH: usize = 16;

    /// The name of a message of this node.
    #[must_use]
    pub fn new(node: NodeId, sequence: Sequence) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let number = u64::from(node.0) << Sequence::BITS | sequence.0 & Self::SEQUENCE;
        let mut digits = [0; Self::LENGTH];
        for (place, digit) in digits.iter_mut().rev().enumerate() {
            let value = usize::try_from(number >> (4 * place) & 0xf).unwrap_or(0);
            *digit = DIGITS.get(value).copied().unwrap_or(b'0');
        }
        Self(digits)
    }

    /// The sequence in it; `None` if not this node made it.
    #[must_use]
    pub fn sequence(&self, node: NodeId) -> Option<Sequence> {
        let mut number: u64 = 0;
        for digit in self.0 {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            number = number << 4 | u64::from(value);
        }
        (number >> Sequence::BITS == u64::from(node.0)).then_some(Sequence(number & Self::SEQUENCE))
    }

    const SEQUENCE: u64 = (1 << Sequence::BITS) - 1;
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A point in time as the protocol has it: nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub i64);

impl Nanos {
    /// The time of a clock.
    #[must_use]
    pub fn of(time: jiff::Timestamp) -> Self {
        Self(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
    }

    /// How long ago `earlier` is; nothing if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This much later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// A message as a publisher hands it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// What it says; at least one byte.
    pub body: Bytes,
    /// No channel delivers it before this much time has passed (`DPUB`, `?defer=`).
    pub delay: Duration,
    /// Messages of one key are delivered one after the other by channels that ask for it.
    pub key: Option<Bytes>,
}

impl NewMessage {
    /// A message to be delivered at once, in any order.
    #[must_use]
    pub const fn new(body: Bytes) -> Self {
        Self { body, delay: Duration::ZERO, key: None }
    }
}

/// A message of a topic, where it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRef<'a> {
    /// Its place.
    pub sequence: Sequence,
    /// When it was published.
    pub timestamp: Nanos,
    /// Not delivered before then, if it was published with a delay.
    pub due: Option<Nanos>,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// What it says.
    pub body: &'a [u8],
}

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place.
    pub sequence: Sequence,
    /// When it was published.
    pub timestamp: Nanos,
    /// Not delivered before then, if it was published with a delay.
    pub due: Option<Nanos>,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// What it says.
    pub body: Bytes,
}

impl From<MessageRef<'_>> for Message {
    fn from(it: MessageRef<'_>) -> Self {
        let MessageRef { sequence, timestamp, due, key, body } = it;
        let (key, body) = (key.map(Bytes::copy_from_slice), Bytes::copy_from_slice(body));
        Self { sequence, timestamp, due, key, body }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_node_and_sequence() {
        let id = MessageId::new(NodeId::new(1).unwrap(), Sequence(0x2a));
        assert_eq!(id.to_string(), "002000000000002a");
        let sequence = |id: &[u8; 16], node| MessageId(*id).sequence(NodeId::new(node).unwrap());
        assert_eq!(sequence(b"002000000000002a", 1), Some(Sequence(0x2a)));
        assert_eq!(sequence(b"002000000000002a", 0), None, "another node's");
        assert_eq!(sequence(b"002000000000002A", 1), None, "not as it was sent");
        assert_eq!(sequence(b"00200000000000zz", 1), None);
    }

    proptest! {
        #[test]
        fn sequences_come_back(node in 0..NodeId::END, sequence in 0..=MessageId::SEQUENCE) {
            let node = NodeId::new(node).unwrap();
            let id = MessageId::new(node, Sequence(sequence));
            prop_assert_eq!(id.sequence(node), Some(Sequence(sequence)));
        }
    }
}
