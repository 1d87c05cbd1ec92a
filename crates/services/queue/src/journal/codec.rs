//! Records as bytes. What a number means here never changes; a change that is new gets a new one,
//! and the format's version in `frame` goes up.

use std::ops::Range;

use super::{
    progress::Progress,
    runs::Unfinished,
    state::{Change, Record},
};
use crate::{
    broker::ChannelOptions,
    message::{Nanos, Sequence},
    name::Name,
};

/// The schema: what the first byte of a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    TopicCreated = 1,
    TopicDeleted = 2,
    TopicPaused = 3,
    Routed = 4,
    ChannelCreated = 5,
    ChannelDeleted = 6,
    ChannelPaused = 7,
    Placed = 8,
    Progress = 9,
    Reconciled = 10,
    /// Since format 2.
    TopicHeld = 11,
    /// Since format 3.
    Emptied = 12,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::TopicCreated,
        Self::TopicDeleted,
        Self::TopicPaused,
        Self::Routed,
        Self::ChannelCreated,
        Self::ChannelDeleted,
        Self::ChannelPaused,
        Self::Placed,
        Self::Progress,
        Self::Reconciled,
        Self::TopicHeld,
        Self::Emptied,
    ];

    const fn of(change: &Change) -> Self {
        match change {
            Change::TopicCreated { .. } => Self::TopicCreated,
            Change::TopicDeleted { .. } => Self::TopicDeleted,
            Change::TopicPaused { .. } => Self::TopicPaused,
            Change::TopicHeld { .. } => Self::TopicHeld,
            Change::Routed { .. } => Self::Routed,
            Change::ChannelCreated { .. } => Self::ChannelCreated,
            Change::ChannelDeleted { .. } => Self::ChannelDeleted,
            Change::ChannelPaused { .. } => Self::ChannelPaused,
            Change::Placed { .. } => Self::Placed,
            Change::Emptied { .. } => Self::Emptied,
            Change::Progress { .. } => Self::Progress,
            Change::Reconciled { .. } => Self::Reconciled,
        }
    }

    fn parse(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|it| *it as u8 == byte)
    }
}

/// Appends a record: kind, life, topic, then what the change has.
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) {
    let Record { change, life } = record;
    out.push(Kind::of(change) as u8);
    put_number(out, *life);
    match change {
        Change::TopicCreated { topic, routed } | Change::Routed { topic, routed } => {
            put_name(out, topic);
            put_number(out, routed.0);
        }
        Change::TopicDeleted { topic } => put_name(out, topic),
        Change::TopicPaused { topic, paused: yes } | Change::TopicHeld { topic, held: yes } => {
            put_name(out, topic);
            out.push(u8::from(*yes));
        }
        Change::ChannelCreated { topic, channel, cursor, options } => {
            put_name(out, topic);
            put_name(out, channel);
            put_number(out, cursor.0);
            put_options(out, options);
        }
        Change::ChannelDeleted { topic, channel } => {
            put_name(out, topic);
            put_name(out, channel);
        }
        Change::ChannelPaused { topic, channel, paused } => {
            put_name(out, topic);
            put_name(out, channel);
            out.push(u8::from(*paused));
        }
        Change::Placed { topic, channel, cursor } => {
            put_name(out, topic);
            put_name(out, channel);
            put_number(out, cursor.0);
        }
        Change::Emptied { topic, channel, range } => {
            put_name(out, topic);
            put_name(out, channel);
            put_range(out, &mut 0, range);
        }
        Change::Progress { topic, channel, progress } => {
            put_name(out, topic);
            put_name(out, channel);
            put_progress(out, progress);
        }
        Change::Reconciled { topic, log } => {
            put_name(out, topic);
            put_range(out, &mut 0, log);
        }
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

/// Small numbers of either sign are short: 0, -1, 1, -2, … become 0, 1, 2, 3, ….
fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

fn put_name(out: &mut Vec<u8>, name: &Name) {
    put_number(out, name.as_str().len() as u64);
    out.extend_from_slice(name.as_str().as_bytes());
}

/// A range after another: how far from the end of that, and how long.
fn put_range(out: &mut Vec<u8>, last_end: &mut u64, range: &Range<Sequence>) {
    put_signed(out, range.start.0.wrapping_sub(*last_end).cast_signed());
    put_number(out, range.start.until(range.end));
    *last_end = range.start.after(range.start.until(range.end)).0;
}

fn put_options(out: &mut Vec<u8>, options: &ChannelOptions) {
    let ChannelOptions { attempts_max, dead_letter_topic, ordered_by_key } = options;
    let flag = |has: bool, flag: u8| if has { flag } else { 0 };
    out.push(
        flag(attempts_max.is_some(), HAS_ATTEMPTS_MAX)
            | flag(dead_letter_topic.is_some(), HAS_DEAD_LETTER_TOPIC)
            | flag(*ordered_by_key, ORDERED_BY_KEY),
    );
    if let Some(attempts) = attempts_max {
        put_number(out, u64::from(*attempts));
    }
    if let Some(topic) = dead_letter_topic {
        put_name(out, topic);
    }
}

const HAS_ATTEMPTS_MAX: u8 = 1;
const HAS_DEAD_LETTER_TOPIC: u8 = 2;
const ORDERED_BY_KEY: u8 = 4;

fn put_progress(out: &mut Vec<u8>, progress: &Progress) {
    let Progress { cursor, finished, left } = progress;
    put_number(out, cursor.0);
    let mut end = cursor.0;
    put_number(out, finished.len() as u64);
    for range in finished {
        put_range(out, &mut end, range);
    }
    put_number(out, left.len() as u64);
    for (range, Unfinished { attempts, due }) in left {
        put_range(out, &mut end, range);
        put_number(out, u64::from(*attempts) << 1 | u64::from(due.is_some()));
        if let Some(due) = due {
            put_signed(out, due.0);
        }
    }
}

/// Takes a record off the front. `None` if there is none that [`encode`] could have made.
pub(super) fn decode(bytes: &mut &[u8]) -> Option<Record> {
    let kind = Kind::parse(take_byte(bytes)?)?;
    let life = take_number(bytes)?;
    let topic = take_name(bytes)?;
    let change = match kind {
        Kind::TopicCreated => Change::TopicCreated { topic, routed: take_sequence(bytes)? },
        Kind::TopicDeleted => Change::TopicDeleted { topic },
        Kind::TopicPaused => Change::TopicPaused { topic, paused: take_bool(bytes)? },
        Kind::TopicHeld => Change::TopicHeld { topic, held: take_bool(bytes)? },
        Kind::Routed => Change::Routed { topic, routed: take_sequence(bytes)? },
        Kind::ChannelCreated => Change::ChannelCreated {
            topic,
            channel: take_name(bytes)?,
            cursor: take_sequence(bytes)?,
            options: take_options(bytes)?,
        },
        Kind::ChannelDeleted => Change::ChannelDeleted { topic, channel: take_name(bytes)? },
        Kind::ChannelPaused => {
            Change::ChannelPaused { topic, channel: take_name(bytes)?, paused: take_bool(bytes)? }
        }
        Kind::Placed => {
            Change::Placed { topic, channel: take_name(bytes)?, cursor: take_sequence(bytes)? }
        }
        Kind::Emptied => {
            Change::Emptied { topic, channel: take_name(bytes)?, range: take_range(bytes, &mut 0)? }
        }
        Kind::Progress => {
            Change::Progress { topic, channel: take_name(bytes)?, progress: take_progress(bytes)? }
        }
        Kind::Reconciled => Change::Reconciled { topic, log: take_range(bytes, &mut 0)? },
    };
    Some(Record { change, life })
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

fn take_bool(bytes: &mut &[u8]) -> Option<bool> {
    match take_byte(bytes)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = take_byte(bytes)?;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        number |= part << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take_signed(bytes: &mut &[u8]) -> Option<i64> {
    let number = take_number(bytes)?;
    Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

fn take_sequence(bytes: &mut &[u8]) -> Option<Sequence> {
    take_number(bytes).map(Sequence)
}

fn take_name(bytes: &mut &[u8]) -> Option<Name> {
    let length = usize::try_from(take_number(bytes)?).ok()?;
    let (name, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Name::parse(std::str::from_utf8(name).ok()?)
}

fn take_range(bytes: &mut &[u8], last_end: &mut u64) -> Option<Range<Sequence>> {
    let start = last_end.wrapping_add(take_signed(bytes)?.cast_unsigned());
    let end = start.checked_add(take_number(bytes)?)?;
    *last_end = end;
    Some(Sequence(start)..Sequence(end))
}

fn take_options(bytes: &mut &[u8]) -> Option<ChannelOptions> {
    let flags = take_byte(bytes)?;
    let has = |flag| flags & flag != 0;
    if flags & !(HAS_ATTEMPTS_MAX | HAS_DEAD_LETTER_TOPIC | ORDERED_BY_KEY) != 0 {
        return None;
    }
    let mut options = ChannelOptions { ordered_by_key: has(ORDERED_BY_KEY), ..Default::default() };
    if has(HAS_ATTEMPTS_MAX) {
        options.attempts_max = Some(u16::try_from(take_number(bytes)?).ok()?);
    }
    if has(HAS_DEAD_LETTER_TOPIC) {
        options.dead_letter_topic = Some(take_name(bytes)?);
    }
    Some(options)
}

fn take_progress(bytes: &mut &[u8]) -> Option<Progress> {
    let cursor = take_sequence(bytes)?;
    let mut end = cursor.0;
    let mut progress = Progress { cursor, ..Progress::default() };
    // The counts are not trusted with memory: a range that is not there ends the loop.
    for _ in 0..take_number(bytes)? {
        progress.finished.push(take_range(bytes, &mut end)?);
    }
    for _ in 0..take_number(bytes)? {
        let range = take_range(bytes, &mut end)?;
        let packed = take_number(bytes)?;
        let attempts = u16::try_from(packed >> 1).ok()?;
        let due = if packed & 1 == 1 { Some(Nanos(take_signed(bytes)?)) } else { None };
        progress.left.push((range, Unfinished { attempts, due }));
    }
    Some(progress)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::journal::tests::{any_record, name};

    fn check(change: Change, expected: &Expect) {
        let mut bytes = Vec::new();
        encode(&Record { change, life: 3 }, &mut bytes);
        expected.assert_eq(&bytes.escape_ascii().to_string());
    }

    /// These bytes are in people's folders.
    #[test]
    fn numbers_are_pinned() {
        let (topic, channel) = (name("t"), name("c"));
        let cursor = Sequence(300);
        check(
            Change::TopicCreated { topic: topic.clone(), routed: cursor },
            &expect![[r"\x01\x03\x01t\xac\x02"]],
        );
        check(Change::TopicDeleted { topic: topic.clone() }, &expect![[r"\x02\x03\x01t"]]);
        check(
            Change::TopicPaused { topic: topic.clone(), paused: true },
            &expect![[r"\x03\x03\x01t\x01"]],
        );
        check(
            Change::TopicHeld { topic: topic.clone(), held: true },
            &expect![[r"\x0b\x03\x01t\x01"]],
        );
        check(
            Change::Routed { topic: topic.clone(), routed: cursor },
            &expect![[r"\x04\x03\x01t\xac\x02"]],
        );
        let options = ChannelOptions {
            attempts_max: Some(5),
            dead_letter_topic: Some(name("d")),
            ordered_by_key: true,
        };
        let (t, c) = (topic.clone(), channel.clone());
        check(
            Change::ChannelCreated { topic: t, channel: c, cursor, options },
            &expect![[r"\x05\x03\x01t\x01c\xac\x02\x07\x05\x01d"]],
        );
        let (t, c) = (topic.clone(), channel.clone());
        check(Change::ChannelDeleted { topic: t, channel: c }, &expect![[r"\x06\x03\x01t\x01c"]]);
        let (t, c) = (topic.clone(), channel.clone());
        check(
            Change::ChannelPaused { topic: t, channel: c, paused: false },
            &expect![[r"\x07\x03\x01t\x01c\x00"]],
        );
        let (t, c) = (topic.clone(), channel.clone());
        check(
            Change::Placed { topic: t, channel: c, cursor },
            &expect![[r"\x08\x03\x01t\x01c\xac\x02"]],
        );
        let (t, c) = (topic.clone(), channel.clone());
        check(
            Change::Emptied { topic: t, channel: c, range: Sequence(1)..cursor },
            &expect![[r"\x0c\x03\x01t\x01c\x02\xab\x02"]],
        );
        let mut progress = Progress::default();
        progress.took(cursor);
        progress.finished(Sequence(290)..Sequence(291));
        progress.left(Sequence(298), Unfinished { attempts: 2, due: Some(Nanos(-1)) });
        let t = topic.clone();
        check(
            Change::Progress { topic: t, channel, progress },
            &expect![[r"\t\x03\x01t\x01c\xac\x02\x01\x13\x01\x01\x0e\x01\x05\x01"]],
        );
        check(
            Change::Reconciled { topic, log: Sequence(1)..Sequence(300) },
            &expect![[r"\n\x03\x01t\x02\xab\x02"]],
        );
    }

    proptest! {
        #[test]
        fn records_come_back(records in proptest::collection::vec(any_record(), 0..5)) {
            let mut bytes = Vec::new();
            records.iter().for_each(|it| encode(it, &mut bytes));
            let mut rest = bytes.as_slice();
            for record in records {
                prop_assert_eq!(decode(&mut rest), Some(record));
            }
            prop_assert_eq!(decode(&mut rest), None);
        }

        #[test]
        fn what_is_cut_is_not_a_record(record in any_record(), cut in any::<proptest::sample::Index>()) {
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            bytes.truncate(cut.index(bytes.len()));
            prop_assert_eq!(decode(&mut bytes.as_slice()), None);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut rest = bytes.as_slice();
            if let Some(record) = decode(&mut rest) {
                let mut again = Vec::new();
                encode(&record, &mut again);
                prop_assert_eq!(decode(&mut again.as_slice()), Some(record));
            }
        }
    }
}
