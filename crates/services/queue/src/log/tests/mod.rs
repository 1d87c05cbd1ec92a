//! The log on simulated disks, and on a real one.

mod basics;
mod damage;
mod model;

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;

use super::{
    Appended, Committers, Log, LogConfig, MemoryLimits, OpenError, Read, ReadLimit, Recovered,
    Retention, Run, limits::Sizes,
};
use crate::{
    Durability,
    disk::simulated::Simulated,
    message::{Message, Nanos, NewMessage, Sequence},
};

/// Small, so that a few batches fill segments.
const SIZES: Sizes = Sizes {
    segment_bytes: 2 << 10,
    segment_retired_bytes: 512,
    index_bytes: 256,
    read_bytes: 512,
    keep_free_bytes: 0,
};

const EVERYTHING: ReadLimit = ReadLimit { messages: usize::MAX, bytes: usize::MAX };

const NOW: Nanos = Nanos(1_000_000_000);

fn dir() -> PathBuf {
    PathBuf::from("/topics/t")
}

fn committers(disk: &Simulated) -> Committers {
    Committers::start(disk.arc(), MemoryLimits::default(), 0).unwrap()
}

fn config(durability: Durability) -> LogConfig {
    LogConfig { durability, retention: Retention::default() }
}

fn open(disk: &Simulated, durability: Durability) -> (Log, Recovered) {
    try_open(disk, config(durability)).unwrap()
}

fn try_open(disk: &Simulated, config: LogConfig) -> Result<(Log, Recovered), OpenError> {
    Log::open_with(&committers(disk), dir(), config, SIZES, NOW)
}

fn message(text: &str) -> NewMessage {
    NewMessage::new(Bytes::copy_from_slice(text.as_bytes()))
}

/// What has become of a batch, if that is known.
fn outcome(appended: &mut Appended) -> Option<bool> {
    match &mut appended.outcome {
        Some(outcome) => outcome.try_recv().ok().map(|it| it.is_ok()),
        None => Some(true),
    }
}

/// Everything that can be read, and how much cannot.
fn read_all(log: &Log, limit: ReadLimit) -> (Vec<Message>, Vec<super::Damage>) {
    let (mut messages, mut skipped) = (Vec::new(), Vec::new());
    let mut next = log.first();
    loop {
        match log.read(next, limit).unwrap() {
            Read::Messages(more) => {
                for it in more.iter().flat_map(Run::messages) {
                    assert_eq!(it.sequence, next);
                    next = next.after(1);
                    messages.push(it.into());
                }
            }
            Read::Skipped(damage) => {
                assert!(damage.from == next && damage.until > next, "{damage:?}");
                next = damage.until;
                skipped.push(damage);
            }
            Read::End => return (messages, skipped),
        }
    }
}

/// One message, read alone.
fn get(log: &Log, sequence: Sequence) -> Option<Message> {
    let found = log.get(&[sequence]).unwrap().pop().unwrap()?;
    assert_eq!(found.len(), 1);
    found.messages().next().map(Message::from)
}

/// The messages of runs.
fn messages(runs: &[Run]) -> Vec<Message> {
    runs.iter().flat_map(Run::messages).map(Message::from).collect()
}

fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|it| std::str::from_utf8(&it.body).unwrap()).collect()
}

fn later(seconds: u64) -> Nanos {
    NOW.after(Duration::from_secs(seconds))
}

fn first() -> Sequence {
    Sequence(1_000_000)
}
