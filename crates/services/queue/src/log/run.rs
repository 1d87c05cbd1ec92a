//! [`Run`]: messages one behind the other, as they lie in the log.
//!
//! Whoever passes messages on passes runs on: that costs by the pieces of the log, not by the
//! messages in them. Only who writes them out goes through them, and where they lie.

use std::{fmt, ops::Range};

use bytes::Bytes;

use super::{
    format::{Cursor, Place},
    types::ReadLimit,
};
use crate::message::{MessageRef, Sequence};

/// Messages without a gap. Cheap to clone; shares memory with the piece of the log that they were
/// written or read in, of up to 128 KiB (a larger batch is one piece).
#[derive(Clone)]
pub struct Run {
    bytes: Bytes,
    position: Position,
    range: Range<Sequence>,
}

/// Where in a piece of the log somebody is: at or before the message that is next.
#[derive(Clone, Copy, Debug)]
struct Position {
    cursor: Cursor,
    /// Where the frame ends that the cursor is in.
    frame_end: usize,
}

impl Position {
    fn enter(bytes: &[u8], frame: usize) -> Option<Self> {
        let (cursor, frame_end) = Cursor::enter(bytes, frame)?;
        Some(Self { cursor, frame_end })
    }

    /// Passes the first message from `from` on: where it begins, and what it has where.
    fn step(&mut self, bytes: &[u8], from: Sequence) -> Option<(Cursor, Place)> {
        loop {
            while self.cursor.left == 0 {
                *self = Self::enter(bytes, self.frame_end)?;
            }
            let start = self.cursor;
            let place = self.cursor.step(bytes)?;
            if from <= start.sequence {
                return Some((start, place));
            }
        }
    }
}

impl Run {
    /// The messages from `from` up to `end` of a piece of whole frames, which has them.
    pub(super) fn new(bytes: Bytes, from: Sequence, end: Sequence) -> Option<Self> {
        let mut position = Position::enter(&bytes, 0)?;
        while position.cursor.sequence.after(u64::from(position.cursor.left)) <= from {
            position = Position::enter(&bytes, position.frame_end)?;
        }
        Some(Self { bytes, position, range: from..end })
    }

    /// The first message.
    #[must_use]
    pub const fn first(&self) -> Sequence {
        self.range.start
    }

    /// The one after the last message.
    #[must_use]
    pub const fn end(&self) -> Sequence {
        self.range.end
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.range.start.until(self.range.end)).unwrap_or(usize::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// About how much memory of the log it has before it, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len().saturating_sub(self.position.cursor.at)
    }

    /// The messages one by one.
    #[must_use]
    pub fn messages(&self) -> Messages<'_> {
        let Self { bytes, position, range } = self;
        Messages { bytes, position: *position, range: range.clone() }
    }

    /// Leaves out what is at `end` and behind it.
    pub fn truncate(&mut self, end: Sequence) {
        self.range.end = end.clamp(self.range.start, self.range.end);
    }

    /// Leaves out what is before `first`.
    pub fn skip_to(&mut self, first: Sequence) {
        self.range.start = first.clamp(self.range.start, self.range.end);
    }

    /// Takes messages away from the beginning, until the limit, which is lowered, is used up, but at
    /// least one. One that is not to be delivered before some time is taken alone.
    #[must_use]
    pub fn take(&mut self, limit: &mut ReadLimit) -> Self {
        let mut taken = self.clone();
        let most = self.range.start.after(limit.messages.max(1) as u64).min(self.range.end);
        let at = self.position.cursor.at;
        let full = at.saturating_add(limit.bytes);
        while self.range.start < most {
            let Some((start, place)) = self.position.step(&self.bytes, self.range.start) else {
                // Whole frames have all their messages, so that this is not reached.
                self.range.start = self.range.end;
                break;
            };
            let alone = place.due.is_some();
            if alone && taken.range.start < start.sequence {
                self.position.cursor = start;
                break;
            }
            self.range.start = start.sequence.after(1);
            if alone || full <= self.position.cursor.at {
                break;
            }
        }
        taken.range.end = self.range.start;
        limit.messages = limit.messages.saturating_sub(taken.len());
        limit.bytes = limit.bytes.saturating_sub(self.position.cursor.at - at);
        taken
    }

    /// Takes the first message away.
    #[must_use]
    pub fn take_one(&mut self) -> Self {
        self.take(&mut ReadLimit { messages: 1, bytes: 1 })
    }

    /// Its first message, in memory of its own.
    #[must_use]
    pub fn alone(&self) -> Option<Self> {
        let mut position = self.position;
        let (start, _) = position.step(&self.bytes, self.range.start)?;
        let bytes = Bytes::copy_from_slice(self.bytes.get(start.at..position.cursor.at)?);
        let cursor = Cursor { at: 0, left: 1, ..start };
        let position = Position { cursor, frame_end: bytes.len() };
        let range = self.range.start..self.range.start.after(1);
        Some(Self { bytes, position, range })
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Run").field(&self.range).finish()
    }
}

/// The same messages, wherever they lie.
impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.range == other.range && self.messages().eq(other.messages())
    }
}

impl Eq for Run {}

/// Goes through the messages of a [`Run`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    bytes: &'a [u8],
    position: Position,
    range: Range<Sequence>,
}

impl<'a> Iterator for Messages<'a> {
    type Item = MessageRef<'a>;

    fn next(&mut self) -> Option<MessageRef<'a>> {
        if self.range.is_empty() {
            return None;
        }
        let (start, place) = self.position.step(self.bytes, self.range.start)?;
        self.range.start = start.sequence.after(1);
        Some(MessageRef {
            sequence: start.sequence,
            timestamp: start.time,
            due: place.due,
            key: place.key.and_then(|it| self.bytes.get(it)),
            body: self.bytes.get(place.body).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
impl Run {
    /// These messages, published together at the beginning of time, of which the first is `first`.
    pub(crate) fn of(first: Sequence, messages: &[crate::message::NewMessage]) -> Self {
        use super::format::{self, Kind, NewFrame};
        let time = crate::message::Nanos(0);
        let new = NewFrame { kind: Kind::Messages, first, settled: first, time, salt: 0 };
        let mut bytes = bytes::BytesMut::new();
        format::encode(&mut bytes, new, messages);
        let end = first.after(messages.len() as u64);
        Self::new(bytes.freeze(), first, end).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::message::{Message, NewMessage};

    fn message() -> impl Strategy<Value = NewMessage> {
        let bytes = || vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        (bytes(), 0..2_u64, option::of(bytes())).prop_map(|(body, delay, key)| NewMessage {
            body,
            delay: Duration::from_secs(delay),
            key,
        })
    }

    /// Batches one behind the other, as a piece of the log has them; and the messages.
    fn piece(batches: &[Vec<NewMessage>]) -> (Bytes, Vec<Message>) {
        let (mut bytes, mut messages) = (Vec::new(), Vec::new());
        for batch in batches {
            let run = Run::of(Sequence(10 + messages.len() as u64), batch);
            messages.extend(run.messages().map(Message::from));
            bytes.extend_from_slice(&run.bytes);
        }
        (bytes.into(), messages)
    }

    fn all(run: &Run) -> Vec<Message> {
        run.messages().map(Message::from).collect()
    }

    proptest! {
        #[test]
        fn has_the_messages_of_its_piece(
            batches in vec(vec(message(), 1..6), 1..6),
            from in any::<prop::sample::Index>(),
            limits in vec((1..6_usize, 1..100_usize), 1..20),
        ) {
            let (bytes, messages) = piece(&batches);
            let from = from.index(messages.len());
            let end = Sequence(10 + messages.len() as u64);
            let mut run = Run::new(bytes, Sequence(10 + from as u64), end).unwrap();
            let mut left = messages.get(from..).unwrap();
            prop_assert_eq!(all(&run), left);
            prop_assert_eq!(all(&run.alone().unwrap()), &left[..1]);
            let (mut cut, mut skipped) = (run.clone(), run.clone());
            cut.truncate(Sequence(11 + from as u64));
            skipped.skip_to(Sequence(11 + from as u64));
            prop_assert_eq!(all(&cut), &left[..1]);
            prop_assert_eq!(all(&skipped), &left[1..]);
            prop_assert_eq!(skipped.alone().map(|it| all(&it)), left.get(1).map(|it| vec![it.clone()]));
            for (messages, bytes) in limits.into_iter().cycle() {
                if run.is_empty() {
                    break;
                }
                let mut limit = ReadLimit { messages, bytes };
                let taken = run.take(&mut limit);
                prop_assert!((1..=messages).contains(&taken.len()));
                prop_assert_eq!(limit.messages, messages - taken.len());
                let (before, behind) = left.split_at(taken.len());
                prop_assert_eq!(all(&taken), before);
                let alone = before.iter().any(|it| it.due.is_some());
                prop_assert!(!alone || before.len() == 1, "what is to wait comes alone");
                left = behind;
            }
            prop_assert!(left.is_empty());
        }
    }

    #[test]
    fn a_limit_of_bytes_is_passed_by_one_message() {
        let message = NewMessage::new(Bytes::from_static(&[b'x'; 95]));
        let mut run = Run::of(Sequence(1), &vec![message; 10]);
        let mut limit = ReadLimit { messages: 10, bytes: 250 };
        assert_eq!(run.take(&mut limit).len(), 3);
        assert_eq!(limit, ReadLimit { messages: 7, bytes: 0 });
        assert_eq!((run.first(), run.len(), run.bytes()), (Sequence(4), 7, 700));
    }
}
