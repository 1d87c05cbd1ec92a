//! Messages of one key, one after the other.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::message::Sequence;

/// Which message of each key is being worked on, and which wait for it.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<Bytes, Lane>,
    waiting: usize,
}

#[derive(Debug)]
struct Lane {
    active: Sequence,
    waiting: VecDeque<Sequence>,
}

impl Lanes {
    /// How many messages wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// A message comes: whether it may go, or has to wait for another of its key.
    pub(super) fn enter(&mut self, key: &[u8], sequence: Sequence) -> bool {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.waiting.push_back(sequence);
            self.waiting += 1;
            return false;
        }
        let lane = Lane { active: sequence, waiting: VecDeque::new() };
        self.lanes.insert(Bytes::copy_from_slice(key), lane);
        true
    }

    /// The message of a key that was worked on is finished: the one that may go now.
    pub(super) fn leave(&mut self, key: &[u8]) -> Option<Sequence> {
        let lane = self.lanes.get_mut(key)?;
        let Some(next) = lane.waiting.pop_front() else {
            self.lanes.remove(key);
            return None;
        };
        lane.active = next;
        self.waiting -= 1;
        Some(next)
    }

    /// As [`Self::leave`], for a message of which the key cannot be read any more. Rare, so it may
    /// take a look at all.
    pub(super) fn leave_unknown(&mut self, sequence: Sequence) -> Option<Sequence> {
        let key = self.lanes.iter().find(|it| it.1.active == sequence)?.0.clone();
        self.leave(&key)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
