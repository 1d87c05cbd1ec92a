//! The consumers of a channel: who has how many messages, who gets the next, who waits for some.

use std::time::Duration;

use super::{Sent, State, count};
use crate::{
    broker::ClientId,
    log::{ReadLimit, Run},
    message::Nanos,
};

/// How many messages a consumer gets at once, so that others have their share and a connection
/// looks at what its consumer says in between.
const TAKE_MAX: usize = 256;

/// One consumer.
#[derive(Debug)]
pub(super) struct Client {
    sample: Option<Sample>,
    ready: u32,
    pub(super) in_flight: u32,
    pub(super) timeout: Duration,
    closing: bool,
    /// It found nothing to take and wants to be told.
    idle: bool,
    /// Whether it stands in the queue of the idle ones; it stays there until its turn comes.
    queued: bool,
}

/// A consumer that wants only some of the messages; the others count as done.
#[derive(Debug)]
struct Sample {
    percent: u8,
    random: fastrand::Rng,
}

impl Sample {
    fn leaves_out(&mut self) -> bool {
        self.random.u8(..100) > self.percent
    }
}

impl State {
    pub(in crate::broker) fn subscribe(
        &mut self,
        client: ClientId,
        timeout: Duration,
        sample: Option<u8>,
    ) {
        let random = fastrand::Rng::with_seed(client.0);
        let sample = sample.map(|percent| Sample { percent, random });
        let client_of = Client {
            sample,
            ready: 0,
            in_flight: 0,
            timeout,
            closing: false,
            idle: false,
            queued: false,
        };
        self.clients.insert(client, client_of);
    }

    /// The consumer is gone: what it had is ready again.
    pub(in crate::broker) fn unsubscribe(&mut self, client: ClientId) {
        self.clients.remove(&client);
        for sent in self.in_flight.remove_all_of(client) {
            self.hold(sent.messages, sent.attempts, None);
        }
    }

    pub(in crate::broker) fn ready(&mut self, client: ClientId, count: u32) {
        if let Some(it) = self.clients.get_mut(&client) {
            it.ready = count;
        }
    }

    /// The consumer takes no more, and finishes what it has.
    pub(in crate::broker) fn close(&mut self, client: ClientId) {
        if let Some(it) = self.clients.get_mut(&client) {
            it.closing = true;
        }
    }

    /// Gives messages to a consumer: as many as it is ready for, there are, and is fair to the
    /// others, until they have so many `bytes` of the log. Appends them with the attempt that each
    /// is. How many it were; if there is none, the consumer is remembered as idle.
    pub(in crate::broker) fn take(
        &mut self,
        client: ClientId,
        now: Nanos,
        bytes: usize,
        out: &mut Vec<(Run, u16)>,
    ) -> usize {
        let share = self.available().div_ceil(self.idle.len() + 1).clamp(1, TAKE_MAX);
        let Some(it) = self.clients.get_mut(&client) else { return 0 };
        it.idle = false;
        let room = it.ready.saturating_sub(it.in_flight);
        if it.closing || room == 0 {
            return 0;
        }
        let most = share.min(usize::try_from(room).unwrap_or(usize::MAX));
        // A sample is of messages.
        let together = if it.sample.is_some() { 1 } else { most };
        let (mut given, mut left) = (0, bytes);
        while given < most && left > 0 && !self.paused {
            let mut limit = ReadLimit { messages: together.min(most - given), bytes: left };
            let Some((messages, attempts)) = self.pop(now, &mut limit) else { break };
            let Some(it) = self.clients.get_mut(&client) else { break };
            if it.sample.as_mut().is_some_and(Sample::leaves_out) {
                self.done(&messages);
                continue;
            }
            it.in_flight += count(&messages);
            let deadline = now.after(it.timeout);
            given += messages.len();
            left = limit.bytes;
            out.push((messages.clone(), attempts));
            self.in_flight.insert(Sent { messages, attempts, client, at: now, deadline });
        }
        if given == 0
            && let Some(it) = self.clients.get_mut(&client)
        {
            it.idle = true;
            if !it.queued {
                it.queued = true;
                self.idle.push_back(client);
            }
        }
        given
    }

    /// The consumers to be told that there may be something for them.
    pub(in crate::broker) fn wake(&mut self) -> Vec<ClientId> {
        let mut woken = std::mem::take(&mut self.freed);
        let available = if self.paused { 0 } else { self.available() };
        let mut looks = self.idle.len();
        let enough = available + woken.len();
        while woken.len() < enough && looks > 0 {
            looks -= 1;
            let Some(id) = self.idle.pop_front() else { break };
            let Some(it) = self.clients.get_mut(&id) else { continue };
            if it.idle && (it.closing || it.ready <= it.in_flight) {
                self.idle.push_back(id);
                continue;
            }
            it.queued = false;
            if !it.idle {
                continue;
            }
            it.idle = false;
            woken.push(id);
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::{ChannelOptions, state::Config},
        message::{NodeId, Sequence},
    };

    #[test]
    fn a_consumer_that_finds_nothing_again_and_again_is_remembered_once() {
        let config = Config {
            node: NodeId::new(0).unwrap(),
            options: ChannelOptions::default(),
            timeout_max: Duration::from_mins(1),
            backlog_max: None,
        };
        let mut state = State::new(config, Sequence(1));
        for client in [ClientId(1), ClientId(2)] {
            state.subscribe(client, Duration::from_secs(1), None);
            state.ready(client, 1);
            for _ in 0..100 {
                assert_eq!(state.take(client, Nanos(0), usize::MAX, &mut Vec::new()), 0);
            }
        }
        assert_eq!(state.idle, [ClientId(1), ClientId(2)]);
    }
}
