//! The pump of a topic: hands what is committed to the channels, reads for them what is no longer in
//! memory, buries the dead letters, lets the log forget what all have finished.

use std::{error::Error as _, time::Duration};

use tokio_util::sync::CancellationToken;

use super::Topic;
use crate::{
    broker::{Channel, channel::Wants},
    log::{Read, ReadError, ReadLimit, Run},
    message::{Message, Nanos, NewMessage, Sequence},
    name::Name,
};

/// After a failure to read it is tried again so much later.
const RETRY: Duration = Duration::from_secs(1);

/// How often it is looked for messages that may go. Counting what is unfinished costs a little.
const RETIRE_PERIOD: Duration = Duration::from_secs(5);

/// The longest sleep of a pump: messages also go because they are old.
const SLEEP_MAX: Duration = Duration::from_mins(1);

impl Topic {
    /// Runs until the topic ends: hands what is committed to the channels, reads for them, lets
    /// time pass for them.
    pub(in crate::broker) async fn pump(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut committed = self.0.log.committed();
        loop {
            let end = *committed.borrow_and_update();
            let (next_tick, more) = self.serve(end).await;
            if self.end_if_abandoned().await {
                return Ok(());
            }
            if more {
                continue;
            }
            let now = self.now();
            let sleep = next_tick.map_or(SLEEP_MAX, |it| it.since(now));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.0.stop.cancelled() => return Ok(()),
                it = committed.changed() => if it.is_err() { return Ok(()) },
                () = self.0.pump.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// One round over the channels: when the next is due, and whether one wants more at once.
    async fn serve(&self, end: Sequence) -> (Option<Nanos>, bool) {
        let (channels, routed) = {
            let mut topology = self.topology();
            if topology.routes() {
                topology.routed = end;
            }
            (topology.channels.values().cloned().collect::<Vec<_>>(), topology.routed)
        };
        let (mut next_tick, mut more) = (None::<Nanos>, false);
        for channel in channels {
            if channel.is_abandoned() {
                // A consumer that came meanwhile makes it anew.
                let _gone = self.delete_channel(channel.name());
                continue;
            }
            channel.see(routed);
            let wants = channel.tick(self.now());
            if let Some(next) = wants.next_tick {
                next_tick = Some(next_tick.map_or(next, |it| it.min(next)));
            }
            match self.give(&channel, wants).await {
                Ok(wants_more) => more |= wants_more,
                Err(error) => {
                    let source = error.source().map(ToString::to_string).unwrap_or_default();
                    tracing::error!(topic = %self.0.name, %error, source, "cannot read messages");
                    let retry = self.now().after(RETRY);
                    next_tick = Some(next_tick.map_or(retry, |it| it.min(retry)));
                }
            }
        }
        let next = [next_tick, self.retire()];
        (next.into_iter().flatten().min(), more)
    }

    /// Gives a channel what it wants; whether it may want more.
    async fn give(&self, channel: &Channel, wants: Wants) -> Result<bool, ReadError> {
        let more = wants.ahead.is_some() || !wants.missing.is_empty();
        if let Some((from, limit)) = wants.ahead {
            match self.read(from, limit).await? {
                Read::Messages(runs) => channel.admit(from, runs),
                Read::Skipped(damage) => {
                    let (topic, channel_name) = (&self.0.name, channel.name());
                    tracing::warn!(%topic, channel = %channel_name, "skipped: {damage}");
                    channel.skip(from, &damage);
                }
                Read::End => {}
            }
        }
        if !wants.missing.is_empty() {
            let found = self.get(wants.missing).await?;
            for (sequence, _) in found.iter().filter(|it| it.1.is_none()) {
                self.tell_lost(channel, *sequence);
            }
            channel.found(found);
        }
        for sequence in wants.dead {
            self.bury(channel, sequence).await?;
        }
        Ok(more)
    }

    async fn read(&self, from: Sequence, limit: ReadLimit) -> Result<Read, ReadError> {
        if let Some(runs) = self.0.log.read_cached(from, limit) {
            return Ok(Read::Messages(runs));
        }
        let log = self.0.log.clone();
        let reading = tokio::task::spawn_blocking(move || log.read(from, limit));
        // A panic there is logged by the runtime's hook; the next round tries again.
        reading.await.unwrap_or(Ok(Read::End))
    }

    async fn get(
        &self,
        sequences: Vec<Sequence>,
    ) -> Result<Vec<(Sequence, Option<Run>)>, ReadError> {
        let log = self.0.log.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let found = log.get(&sequences)?;
            Ok(sequences.into_iter().zip(found).collect())
        });
        reading.await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// Publishes a message that was tried too often to where such messages go.
    async fn bury(&self, channel: &Channel, sequence: Sequence) -> Result<(), ReadError> {
        let found = self.get(vec![sequence]).await.inspect_err(|_| channel.not_buried(sequence))?;
        let found = found.into_iter().find_map(|it| it.1);
        let message = found.as_ref().and_then(|it| Some((it, it.messages().next()?)));
        let Some((run, message)) = message else {
            self.tell_lost(channel, sequence);
            channel.lost_dead(sequence);
            return Ok(());
        };
        if let Some(name) = channel.options().dead_letter_topic {
            let Message { key, body, .. } = message.into();
            let copy = NewMessage { key, ..NewMessage::new(body) };
            if let Err(error) = self.publish_to(&name, copy).await {
                let error = format!("{error:#}");
                tracing::error!(topic = %self.0.name, dead_letter_topic = %name, error, "cannot publish a dead letter");
                channel.not_buried(sequence);
                return Ok(());
            }
        }
        channel.buried(run);
        Ok(())
    }

    fn tell_lost(&self, channel: &Channel, sequence: Sequence) {
        let (topic, channel) = (&self.0.name, channel.name());
        tracing::error!(%topic, %channel, %sequence, "not delivered again: it cannot be read");
    }

    async fn publish_to(&self, topic: &Name, message: NewMessage) -> anyhow::Result<()> {
        // Boxed: making a topic starts a pump, whose future would contain itself.
        let topic = Box::pin(self.0.broker.topic(topic)).await?;
        topic.publish_when_there_is_room(&[message]).await?.committed().await?;
        Ok(())
    }

    /// Lets the log delete what all channels have finished. If it is too early to look again: when
    /// it is time, so that a full disk need not wait for the next message.
    fn retire(&self) -> Option<Nanos> {
        let now = self.now();
        let ephemeral = self.0.name.is_ephemeral();
        let mut topology = self.topology();
        if !ephemeral && now.since(topology.retired) < RETIRE_PERIOD {
            return Some(topology.retired.after(RETIRE_PERIOD));
        }
        topology.retired = now;
        let channels: Vec<Channel> = topology.channels.values().cloned().collect();
        let routed = topology.routed;
        drop(topology);
        let first = channels.iter().map(Channel::first_unfinished).fold(routed, Sequence::min);
        self.0.log.retire(first, now);
        None
    }

    /// An ephemeral topic goes with its last channel.
    async fn end_if_abandoned(&self) -> bool {
        let abandoned = {
            let topology = self.topology();
            self.0.name.is_ephemeral() && topology.had_channels && topology.channels.is_empty()
        };
        abandoned && Box::pin(self.0.broker.delete_topic(&self.0.name)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use runtime::{Clock, Tasks};
    use tokio::time::sleep;

    use super::*;
    use crate::{
        Durability,
        broker::{Broker, Config},
        disk::Folders,
        message::NodeId,
    };

    /// What is finished just after somebody looked is not kept until the next message comes.
    #[tokio::test(start_paused = true)]
    async fn it_is_looked_again_soon() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::following_tokio("2026-01-02T03:04:05Z".parse().unwrap());
        let config =
            Config { durability: Durability::Memory, ..Config::new(NodeId::new(1).unwrap()) };
        let path = folder.path().to_owned();
        let broker = Broker::open(config, Arc::new(Folders), path, clock, Tasks::default()).await;
        let topic = broker.unwrap().topic(&Name::parse("t").unwrap()).await.unwrap();
        sleep(Duration::from_millis(100)).await;
        let first = topic.topology().retired;
        let message = NewMessage::new("a".into());
        topic.publish(&[message]).unwrap().committed().await.unwrap();
        sleep(RETIRE_PERIOD).await;
        assert!(topic.topology().retired > first);
    }
}
