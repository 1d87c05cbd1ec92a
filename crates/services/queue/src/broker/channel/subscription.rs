//! A consumer's hold on its channel.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::Channel;
use crate::{
    broker::{ClientId, Delivery, NotInFlight},
    log::Run,
    message::{MessageId, MessageRef, NodeId, Sequence},
};

/// A consumer of a channel. When it is dropped, what it has not answered is delivered again.
#[derive(Debug)]
pub struct Subscription {
    pub(super) channel: Channel,
    pub(super) client: ClientId,
    pub(super) wake: Arc<Notify>,
}

impl Subscription {
    /// The channel.
    #[must_use]
    pub const fn channel(&self) -> &Channel {
        &self.channel
    }

    /// How many unanswered messages it may have from now on (`RDY`).
    pub fn ready(&self, count: u32) {
        self.channel.lock().state.ready(self.client, count);
        self.wake.notify_one();
    }

    /// Waits until there is at least one message for it and appends what there is, at most as many
    /// as it is ready for. Nothing is lost when it is dropped while it waits.
    pub async fn next(&self, out: &mut Vec<Delivery>) {
        while !self.take(out) {
            self.woken().await;
        }
    }

    /// As [`Self::next`], without waiting: whether there was one.
    pub fn take(&self, out: &mut Vec<Delivery>) -> bool {
        let given = self.deliver(usize::MAX, |message, id, attempts| {
            out.push(Delivery { message: message.into(), id, attempts });
        });
        given > 0
    }

    /// Hands what there is to `give`, one by one: as many as the consumer is ready for or has a share
    /// in, and until they have so many bytes of the log; how many it got. They are the consumer's.
    /// After none there is something to [wait for](Self::woken).
    pub fn deliver(
        &self,
        bytes: usize,
        mut give: impl FnMut(MessageRef<'_>, MessageId, u16),
    ) -> usize {
        let now = self.channel.now();
        let mut runs = Vec::new();
        let mut guarded = self.channel.lock();
        let given = guarded.state.take(self.client, now, bytes, &mut runs);
        if guarded.needs_pump() {
            self.channel.0.pump.notify_one();
        }
        self.channel.tell(&guarded);
        // Others need not wait for what this one does with its messages.
        drop(guarded);
        for (run, attempts) in runs {
            for message in run.messages() {
                give(message, MessageId::new(self.channel.0.node, message.sequence), attempts);
            }
        }
        given
    }

    /// Waits until there may be a message for it, after [`Self::deliver`] gave none. Nothing is
    /// lost when it is dropped while it waits.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// It is done with a message (`FIN`).
    ///
    /// # Errors
    /// When it does not have it.
    pub fn finish(&self, id: MessageId) -> Result<(), NotInFlight> {
        let mut finished = Ok(());
        self.finish_all(&[id], |outcome| finished = outcome.map(|_| ()).map_err(|it| it.1));
        self.wake.notify_one();
        finished
    }

    /// It is done with messages, as by [`Self::finish`], and looks for more by itself afterwards:
    /// [`Self::next`] does not wake for these. `each` is told what was finished, part by part, and of
    /// each that it has no longer, why. It must be quick and not touch the channel.
    pub fn finish_all(
        &self,
        ids: &[MessageId],
        mut each: impl FnMut(Result<&Run, (MessageId, NotInFlight)>),
    ) {
        let node = self.channel.0.node;
        let named = named(ids, node);
        self.channel.change(|state| {
            for one in named {
                match one {
                    Ok(messages) => state.finish(self.client, messages, |finished| {
                        each(finished.map_err(|(it, why)| (MessageId::new(node, it), why)));
                    }),
                    Err(id) => each(Err((id, NotInFlight::Unknown))),
                }
            }
        });
    }

    /// It gives a message back, to be delivered after `delay` at the earliest (`REQ`).
    ///
    /// # Errors
    /// When it does not have it.
    pub fn requeue(&self, id: MessageId, delay: Duration) -> Result<(), NotInFlight> {
        let now = self.channel.now();
        self.channel.change(|state| state.requeue(self.client, id, delay, now))?;
        self.wake.notify_one();
        Ok(())
    }

    /// It needs more time for a message (`TOUCH`).
    ///
    /// # Errors
    /// When it does not have it.
    pub fn touch(&self, id: MessageId) -> Result<(), NotInFlight> {
        let now = self.channel.now();
        self.channel.change(|state| state.touch(self.client, id, now))
    }

    /// It takes no more messages, and finishes what it has (`CLS`).
    pub fn close(&self) {
        self.channel.lock().state.close(self.client);
    }

    /// How many messages it has not answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.channel.in_flight_of(self.client)
    }

    /// Becomes true when the channel is deleted: the connection is to be closed.
    #[must_use]
    pub fn deleted(&self) -> watch::Receiver<bool> {
        self.channel.0.deleted.subscribe()
    }
}

/// Which messages ids name, neighbours together. One that this node did not make names none.
fn named(ids: &[MessageId], node: NodeId) -> Vec<Result<Range<Sequence>, MessageId>> {
    let mut named: Vec<Result<Range<Sequence>, MessageId>> = Vec::new();
    for id in ids {
        match (id.sequence(node), named.last_mut()) {
            (Some(next), Some(Ok(range))) if range.end == next => range.end = next.after(1),
            (Some(one), _) => named.push(Ok(one..one.after(1))),
            (None, _) => named.push(Err(*id)),
        }
    }
    named
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.channel.change(|state| state.unsubscribe(self.client));
        let mut guarded = self.channel.lock();
        guarded.wake.remove(&self.client);
        if guarded.wake.is_empty() && self.channel.0.name.is_ephemeral() {
            self.channel.0.abandoned.store(true, Ordering::Relaxed);
        }
        drop(guarded);
        self.channel.0.pump.notify_one();
    }
}
