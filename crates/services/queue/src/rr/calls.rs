//! [`Calls`]: the caller's side. Which calls wait for a reply, and until when.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;

use super::envelope::{Dialect, Envelope};
use crate::{message::Nanos, name::Name};

/// Calls of one caller: numbers them, knows their replies, ends those that got none. `W` is what
/// waits: a channel's sender, a task's name, whatever the transport needs.
///
/// A call leaves by exactly one door: its reply, its deadline ([`expire`](Self::expire)), or
/// because the caller gave up ([`forget`](Self::forget)). Nothing is kept of it after that, so that
/// memory is bounded by the calls that wait, of which there is a limit.
#[derive(Debug)]
pub struct Calls<W> {
    dialect: Dialect,
    reply_to: Name,
    calls_max: usize,
    next: u32,
    waiting: BTreeMap<u64, Waiting<W>>,
    deadlines: BTreeSet<(Nanos, u64)>,
}

#[derive(Debug)]
struct Waiting<W> {
    deadline: Nanos,
    waiter: W,
}

/// A call that was noted: publish the message. If that fails, [`Calls::forget`] it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub id: u64,
    /// The request.
    pub message: Bytes,
}

/// As many calls wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} calls wait for their replies already")]
pub struct TooManyCalls(pub usize);

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The body of its reply.
    Reply(Bytes),
    /// It could not; the text says why, and names the error among programs that agreed on texts.
    Failed(String),
}

/// A message at the topic for replies that belongs to no call; it is finished and forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It is no envelope, or has no number.
    NotAReply,
    /// Nobody waits for it: it is late, came twice, or was meant for an earlier process.
    Unknown,
}

impl<W> Calls<W> {
    /// Calls whose replies come to `reply_to`, a topic of this process alone (svckit:
    /// `z...rsp.<app>.<instance>`, nsqm: `z...rsp-<app>-<node>`), at most `calls_max` at once.
    /// Numbers count up from `start`: if it is random, replies to an earlier process of the same
    /// topic are not taken for replies to this one.
    #[must_use]
    pub fn new(dialect: Dialect, reply_to: Name, calls_max: usize, start: u32) -> Self {
        let (waiting, deadlines) = (BTreeMap::new(), BTreeSet::new());
        Self { dialect, reply_to, calls_max, next: start, waiting, deadlines }
    }

    /// Notes a call that waits for `patience`. The request carries the deadline, in whole seconds
    /// and not before it, so that a server does not begin what nobody waits for.
    ///
    /// # Errors
    /// Too many wait already; nothing is noted.
    pub fn call(
        &mut self,
        now: Nanos,
        method: &str,
        body: Bytes,
        patience: Duration,
        waiter: W,
    ) -> Result<Call, TooManyCalls> {
        if self.waiting.len() >= self.calls_max {
            return Err(TooManyCalls(self.calls_max));
        }
        let id = self.number();
        let deadline = now.after(patience);
        let second = Duration::from_secs(1).saturating_sub(Duration::from_nanos(1));
        let message = Envelope {
            method: Some(method.to_owned()),
            reply_to: Some(self.reply_to.clone()),
            correlation: Some(id.to_string()),
            expires: Some(deadline.after(second).0.div_euclid(1_000_000_000)),
            error: None,
            body,
        };
        self.waiting.insert(id, Waiting { deadline, waiter });
        self.deadlines.insert((deadline, id));
        Ok(Call { id, message: message.encode(self.dialect) })
    }

    /// The next number that nobody waits with; there is one, as the limit is below 2³².
    fn number(&mut self) -> u64 {
        loop {
            let id = u64::from(self.next);
            self.next = self.next.wrapping_add(1);
            if id != 0 && !self.waiting.contains_key(&id) {
                return id;
            }
        }
    }

    /// Takes a message from the topic for replies: who waits for it and what they get.
    ///
    /// # Errors
    /// Nobody waits for it.
    pub fn reply(&mut self, now: Nanos, message: &Bytes) -> Result<(W, Outcome), Dropped> {
        let reply = Envelope::decode(self.dialect, message).map_err(|_| Dropped::NotAReply)?;
        let id = reply.correlation.ok_or(Dropped::NotAReply)?;
        let id = id.parse().map_err(|_| Dropped::Unknown)?;
        // One that is late stays for `expire`, so that its end is the same however they race.
        if self.waiting.get(&id).is_none_or(|it| it.deadline <= now) {
            return Err(Dropped::Unknown);
        }
        let waiter = self.forget(id).ok_or(Dropped::Unknown)?;
        Ok((waiter, reply.error.map_or(Outcome::Reply(reply.body), Outcome::Failed)))
    }

    /// The caller gave up, or its request could not be published. Who waited, if the call was
    /// still there.
    pub fn forget(&mut self, id: u64) -> Option<W> {
        let Waiting { deadline, waiter } = self.waiting.remove(&id)?;
        self.deadlines.remove(&(deadline, id));
        Some(waiter)
    }

    /// Who waited long enough.
    pub fn expire(&mut self, now: Nanos) -> Vec<W> {
        let mut expired = Vec::new();
        while let Some(&(_, id)) = self.deadlines.first().filter(|it| it.0 <= now) {
            expired.extend(self.forget(id));
        }
        expired
    }

    /// When [`expire`](Self::expire) has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.deadlines.first().map(|it| it.0)
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        debug_assert_eq!(self.waiting.len(), self.deadlines.len());
        self.waiting.len()
    }
}
