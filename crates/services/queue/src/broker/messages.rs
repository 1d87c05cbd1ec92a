//! The messages of an ephemeral topic: in memory only, and only the newest.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::message::{Message, Nanos, NewMessage, Sequence};

#[derive(Debug)]
pub(super) struct Messages {
    held: Mutex<Held>,
    committed: watch::Sender<Sequence>,
    max: usize,
}

#[derive(Debug)]
struct Held {
    messages: VecDeque<Message>,
    next: Sequence,
}

impl Messages {
    pub(super) fn new(first: Sequence, max: usize) -> Self {
        let held = Mutex::new(Held { messages: VecDeque::new(), next: first });
        Self { held, committed: watch::Sender::new(first), max }
    }

    pub(super) fn append(&self, now: Nanos, messages: Vec<NewMessage>) -> Range<Sequence> {
        let mut held = self.lock();
        let first = held.next;
        for message in messages {
            let NewMessage { body, delay, key } = message;
            let due = (!delay.is_zero()).then(|| now.after(delay));
            let sequence = held.next;
            held.messages.push_back(Message { sequence, timestamp: now, due, key, body });
            held.next = sequence.after(1);
        }
        while held.messages.len() > self.max {
            held.messages.pop_front();
        }
        self.committed.send_replace(held.next);
        first..held.next
    }

    pub(super) fn committed(&self) -> watch::Receiver<Sequence> {
        self.committed.subscribe()
    }

    pub(super) fn read(&self, from: Sequence, count: usize) -> Vec<Message> {
        let held = self.lock();
        let start = held.messages.partition_point(|it| it.sequence < from);
        held.messages.iter().skip(start).take(count).cloned().collect()
    }

    pub(super) fn first(&self) -> Sequence {
        let held = self.lock();
        held.messages.front().map_or(held.next, |it| it.sequence)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
