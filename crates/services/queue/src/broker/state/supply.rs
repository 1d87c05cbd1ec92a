//! The topic's side of a channel: what it may see, what it wants to have read, and time.

use super::{Place, READY_MAX, State, WINDOW_BYTES, count};
use crate::{
    log::{ReadLimit, Run},
    message::{Nanos, Sequence},
};

impl State {
    /// Lets the channel see all messages before `routed`.
    pub(in crate::broker) fn see(&mut self, routed: Sequence) {
        self.counters.messages += self.routed.until(routed);
        self.routed = self.routed.max(routed);
        let Some(max) = self.config.backlog_max else { return };
        let excess = self.ahead().saturating_sub(max);
        if excess > 0 {
            self.cursor = self.ahead_of_cursor(excess);
            self.forget_emptied();
            self.window.skip_to(self.cursor);
            self.read = self.read.max(self.cursor);
            self.read_past_emptied();
        }
    }

    /// From where on messages should be read from the log, and how many.
    pub(in crate::broker) fn wants(&self) -> Option<(Sequence, ReadLimit)> {
        let messages = usize::try_from(self.read.until(self.readable())).unwrap_or(usize::MAX);
        let bytes = WINDOW_BYTES.saturating_sub(self.window.bytes());
        // Small reads cost as much as large ones: wait for half a window.
        (messages > 0 && bytes >= WINDOW_BYTES / 2)
            .then_some((self.read, ReadLimit { messages, bytes }))
    }

    /// Takes what was read from where [`Self::wants`] said.
    pub(in crate::broker) fn admit(&mut self, from: Sequence, runs: Vec<Run>) {
        if from != self.read {
            return; // It was rewound or emptied meanwhile.
        }
        for run in runs {
            self.read = run.end();
            self.window.push(run);
        }
        self.read_past_emptied();
    }

    /// Passes over what cannot be read, up to `until`; so many of that were messages.
    pub(in crate::broker) fn skip(&mut self, from: Sequence, until: Sequence, lost: u64) {
        if from == self.read {
            self.counters.skipped += lost;
            self.read = until;
            self.read_past_emptied();
        }
    }

    /// Which messages behind the cursor should be read from the log.
    pub(in crate::broker) fn missing(&self) -> Vec<Sequence> {
        let room = READY_MAX.saturating_sub(self.ready.len());
        self.missing.iter().take(room).copied().collect()
    }

    /// Whether there is something to read or to publish for the channel.
    pub(in crate::broker) fn needs_pump(&self) -> bool {
        let missing = !self.missing.is_empty() && self.ready.len() < READY_MAX;
        missing || !self.dead.is_empty() || self.wants().is_some()
    }

    /// Takes what was read because of [`Self::missing`]; `None` if the log has it no longer.
    pub(in crate::broker) fn found(&mut self, sequence: Sequence, message: Option<Run>) {
        if !self.missing.remove(&sequence) {
            return;
        }
        match message {
            Some(message) => self.ready.push_back(message),
            None => self.lost(sequence),
        }
    }

    /// A message that was to be delivered again cannot be read any more.
    fn lost(&mut self, sequence: Sequence) {
        self.counters.skipped += 1;
        self.held.remove(&sequence);
        self.progress.finished(sequence..sequence.after(1));
        let next = self.lanes.leave_unknown(sequence);
        self.release(next);
    }

    /// Moves what is due: timed out, or no longer deferred.
    pub(in crate::broker) fn tick(&mut self, now: Nanos) {
        while let Some(sent) = self.in_flight.expired(now) {
            self.counters.timed_out += sent.messages.len() as u64;
            if let Some(it) = self.clients.get_mut(&sent.client) {
                it.in_flight = it.in_flight.saturating_sub(count(&sent.messages));
                self.freed.push(sent.client);
            }
            self.hold(sent.messages, sent.attempts, None);
        }
        while let Some(&(due, sequence)) = self.deferred.first().filter(|it| it.0 <= now) {
            self.deferred.remove(&(due, sequence));
            if let Some(held) = self.held.get_mut(&sequence) {
                held.place = Place::Ready;
                self.missing.insert(sequence);
            }
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(in crate::broker) fn next_tick(&self) -> Option<Nanos> {
        let deferred = self.deferred.first().map(|it| it.0);
        [self.in_flight.deadline(), deferred].into_iter().flatten().min()
    }

    /// Messages that were tried too often.
    pub(in crate::broker) fn dead(&mut self) -> Vec<Sequence> {
        self.dead.drain(..).collect()
    }

    /// A dead message is in the topic for such messages, and is done with here.
    pub(in crate::broker) fn buried(&mut self, message: &Run) {
        if self.held.get(&message.first()).is_some_and(|it| it.place == Place::Dead) {
            self.held.remove(&message.first());
            self.done(message);
        }
    }

    /// A dead message cannot be read any more.
    pub(in crate::broker) fn lost_dead(&mut self, sequence: Sequence) {
        if self.held.get(&sequence).is_some_and(|it| it.place == Place::Dead) {
            self.lost(sequence);
        }
    }

    /// A dead message could not be published: it is tried again.
    pub(in crate::broker) fn not_buried(&mut self, sequence: Sequence) {
        if self.held.get(&sequence).is_some_and(|it| it.place == Place::Dead) {
            self.dead.push_back(sequence);
        }
    }
}
