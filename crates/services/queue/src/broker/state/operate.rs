//! What operators do to a channel, and what is told of it: to them, and to the journal.

use super::{Counters, State, Window};
use crate::{
    broker::{ChannelOptions, ClientId, in_flight::InFlight},
    journal::{Progress, Runs},
    message::{NodeId, Sequence},
};

impl State {
    pub(in crate::broker) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Finishes everything.
    pub(in crate::broker) fn empty(&mut self) {
        self.go_to(self.routed);
    }

    /// Begins again at `cursor`, whatever was finished.
    pub(in crate::broker) fn go_to(&mut self, cursor: Sequence) {
        for (id, client) in &mut self.clients {
            client.in_flight = 0;
            self.freed.push(*id);
        }
        self.in_flight = InFlight::default();
        self.held.clear();
        self.ready.clear();
        self.missing.clear();
        self.deferred.clear();
        self.lanes.clear();
        self.dead.clear();
        self.again = Runs::default();
        self.again_until = Sequence(0);
        self.window = Window::default();
        self.emptied.clear();
        self.cursor = cursor;
        self.read = cursor;
        self.routed = self.routed.max(cursor);
        self.progress = Progress::default();
    }

    /// Whose messages it has.
    pub(in crate::broker) const fn node(&self) -> NodeId {
        self.config.node
    }

    pub(in crate::broker) const fn is_paused(&self) -> bool {
        self.paused
    }

    pub(in crate::broker) const fn cursor(&self) -> Sequence {
        self.cursor
    }

    pub(in crate::broker) const fn options(&self) -> &ChannelOptions {
        &self.config.options
    }

    pub(in crate::broker) const fn counters(&self) -> Counters {
        self.counters
    }

    pub(in crate::broker) fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    pub(in crate::broker) fn deferred_count(&self) -> usize {
        self.deferred.len()
    }

    /// What waits for consumers: not in flight and not deferred, as in the original.
    pub(in crate::broker) fn depth(&self) -> u64 {
        let again = self.held.len() - self.deferred.len();
        self.ahead() + u64::try_from(again).unwrap_or(u64::MAX)
    }

    /// How much of the depth is at hand in memory.
    pub(in crate::broker) fn in_memory(&self) -> usize {
        self.window.len() + self.ready.len()
    }

    pub(in crate::broker) fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.clients.keys().copied()
    }

    pub(in crate::broker) fn client_in_flight(&self, client: ClientId) -> u32 {
        self.clients.get(&client).map_or(0, |it| it.in_flight)
    }

    /// The first message that is not finished: all before it may go.
    pub(in crate::broker) fn unfinished_first(&self) -> Sequence {
        let held = self.held.keys().next().copied();
        [self.in_flight.first(), held].into_iter().flatten().fold(self.cursor, Sequence::min)
    }

    /// Whether there is something for the journal.
    pub(in crate::broker) const fn has_progress(&self) -> bool {
        !self.progress.is_empty()
    }

    /// What was done since it was last asked, for the journal.
    pub(in crate::broker) fn progress(&mut self) -> Option<Progress> {
        self.progress.take()
    }
}
