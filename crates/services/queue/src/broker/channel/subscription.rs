//! A consumer's hold on its channel.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::Channel;
use crate::{
    broker::{ClientId, Delivery, NotInFlight},
    message::{Message, MessageId, Nanos},
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
        let given = self.deliver(|message, id, attempts| {
            out.push(Delivery { message: message.clone(), id, attempts });
            ControlFlow::Continue(())
        });
        given > 0
    }

    /// Hands what there is to `give`, one by one, until that breaks off or has got as many as the
    /// consumer is ready for or has a share in; how many it got. All that `give` got is the
    /// consumer's. It must be quick and not touch the channel. After none there is something to
    /// [wait for](Self::woken).
    pub fn deliver(&self, give: impl FnMut(&Message, MessageId, u16) -> ControlFlow<()>) -> usize {
        let now = self.channel.now();
        let mut guarded = self.channel.lock();
        let given = guarded.state.take(self.client, now, give);
        if guarded.needs_pump() {
            self.channel.0.pump.notify_one();
        }
        self.channel.tell(&guarded);
        given
    }

    /// Waits until there may be a message for it, after [`Self::deliver`] gave none. Nothing is
    /// lost when it is dropped while it waits.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// It is done with a message (`FIN`); returns when the message was published.
    ///
    /// # Errors
    /// When it does not have it.
    pub fn finish(&self, id: MessageId) -> Result<Nanos, NotInFlight> {
        let finished = self.channel.change(|state| state.finish(self.client, id))?;
        self.wake.notify_one();
        Ok(finished)
    }

    /// It is done with messages, as by [`Self::finish`], and looks for more by itself afterwards:
    /// [`Self::next`] does not wake for these. Says of each when it was published, or why it has
    /// it no longer. `each` must be quick and not touch the channel.
    pub fn finish_all(
        &self,
        ids: &[MessageId],
        mut each: impl FnMut(MessageId, Result<Nanos, NotInFlight>),
    ) {
        self.channel.change(|state| {
            for id in ids {
                each(*id, state.finish(self.client, *id));
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
