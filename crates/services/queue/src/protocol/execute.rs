//! What each command does. The order of checks and the texts are the original's.

use std::{io, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use serde::Serialize;

use super::{
    auth::{Asking, Grant},
    clients::State,
    command::{Broken, Command, Gate, Verb},
    connection::{Connection, Consumer},
    fault::{Fault, quoted},
    frame,
    identify::identify,
    replies::not_published,
};
use crate::{
    broker::{ChannelError, ClientId, NotInFlight, PublishError, SubscribeError, Subscription},
    message::{MessageId, Nanos, NewMessage},
    name::Name,
};

/// How many commands of a client that publishes or finishes one message at a time are carried out
/// together.
const TOGETHER_MAX: usize = 256;

/// How often a client tries to get into an ephemeral channel that goes while it comes.
const SUB_TRIES: usize = 3;

/// How long each time until the channel is gone, so that it can be made anew. The original's.
const SUB_AGAIN: Duration = Duration::from_millis(100);

/// Commands that are carried out together.
enum Together {
    /// Of one topic.
    Publish(Name, Vec<NewMessage>),
    Finish(Vec<MessageId>),
}

impl Together {
    /// Whether a command is carried out together with these.
    fn takes(&self, next: &Command) -> bool {
        match (self, next) {
            (Self::Publish(all, messages), Command::Publish { verb: Verb::Pub, topic, .. }) => {
                all == topic && messages.len() < TOGETHER_MAX
            }
            (Self::Finish(ids), Command::Fin(_)) => ids.len() < TOGETHER_MAX,
            _ => false,
        }
    }
}

/// Messages for which there is no room while too much waits for the disk. Until there is, no
/// further command is read.
#[derive(Debug)]
pub(super) struct Stalled {
    verb: Verb,
    pub(super) topic: Name,
    messages: Vec<NewMessage>,
    commands: usize,
}

/// Whether a command must wait until all before it are answered.
const fn needs_silence(command: &Command) -> bool {
    matches!(command, Command::Identify(_) | Command::Auth(_))
}

/// What a client learns of its authorisation.
#[derive(Serialize)]
struct Authorised<'a> {
    identity: &'a str,
    identity_url: &'a str,
    permission_count: usize,
}

impl Connection {
    /// Does what the input says, until it says no more or the client must read first.
    ///
    /// # Errors
    /// If the connection is broken.
    pub(super) async fn commands(&mut self) -> io::Result<()> {
        let mut together: Option<Together> = None;
        let mut heard = false;
        self.more = false;
        loop {
            let gate = self.gate();
            let next = match self.held.take() {
                Some(command) => Ok(Some(command)),
                None => self.parser.next(&mut self.input, gate),
            };
            let takes = |next: &Command| together.as_ref().is_none_or(|it| it.takes(next));
            if !next.as_ref().is_ok_and(|it| it.as_ref().is_some_and(takes)) {
                self.carry_out(&mut together).await;
            }
            let command = match next {
                Ok(Some(command)) => command,
                Ok(None) => break,
                Err(Broken::Fault(fault)) => {
                    self.refuse(fault);
                    break;
                }
                Err(Broken::Line) => return Err(self.endless()),
            };
            if self.stalled.is_some() || !self.replies.is_empty() && needs_silence(&command) {
                self.held = Some(command);
                self.more = true;
                break;
            }
            heard = true;
            let done = match command {
                Command::Fin(id) => {
                    collect(&mut together, id);
                    Ok(())
                }
                Command::Publish { verb: Verb::Pub, topic, messages } => {
                    self.collect(&mut together, topic, messages).await
                }
                command => self.execute(command).await?,
            };
            if let Err(fault) = done {
                self.carry_out(&mut together).await;
                self.refuse(fault);
            }
            if !self.may_read() {
                self.more = true;
                break;
            }
        }
        self.carry_out(&mut together).await;
        if heard {
            self.hear();
        }
        if self.stalled.is_none() && self.held.is_none() && !self.parser.is_within() {
            self.give_back();
        }
        Ok(())
    }

    fn endless(&self) -> io::Error {
        tracing::info!(client = %self.client.remote, "sent a line without end");
        io::ErrorKind::InvalidData.into()
    }

    fn gate(&self) -> Gate {
        let required = self.shared.options.tls.as_ref().is_some_and(|it| it.required);
        Gate {
            state: self.state,
            tls_missing: required && !self.transport.is_encrypted(),
            heartbeats: self.settings.heartbeat.is_some(),
        }
    }

    /// # Errors
    /// Outside, if the connection is broken; inside, what the client is told.
    async fn execute(&mut self, command: Command) -> io::Result<Result<(), Fault>> {
        Ok(match command {
            // Boxed, as other rare things below: an idle connection need not hold room for them.
            Command::Identify(body) => return Box::pin(self.identify(&body)).await,
            Command::Auth(secret) => Box::pin(self.auth(secret)).await,
            Command::Sub { topic, channel } => Box::pin(self.sub(topic, channel)).await,
            Command::Rdy(count) => {
                self.rdy(count);
                Ok(())
            }
            Command::Fin(id) => {
                self.finish(&[id]);
                Ok(())
            }
            Command::Req(id, delay) => {
                self.answer("REQ", id, |it| it.requeue(id, delay)).map(|()| {
                    self.client.requeued.fetch_add(1, Ordering::Relaxed);
                })
            }
            Command::Touch(id) => self.answer("TOUCH", id, |it| it.touch(id)),
            Command::Cls => {
                self.cls();
                Ok(())
            }
            Command::Nop => Ok(()),
            Command::Publish { verb, topic, messages } => {
                match self.check(verb.as_str(), &topic, None).await {
                    Ok(()) => self.publish(Stalled { verb, topic, messages, commands: 1 }).await,
                    Err(fault) => Err(fault),
                }
            }
        })
    }

    async fn identify(&mut self, body: &[u8]) -> io::Result<Result<(), Fault>> {
        let identified = match identify(body, self.settings, &self.shared.options) {
            Ok(identified) => identified,
            Err(fault) => return Ok(Err(fault)),
        };
        let again = identified.tls && self.transport.is_encrypted()
            || identified.compression.is_some() && self.transport.is_compressed();
        if again || self.transport.is_compressed() && identified.tls {
            return Ok(Err(Fault::fatal("E_IDENTIFY_FAILED IDENTIFY failed already negotiated")));
        }
        self.settings = identified.settings;
        {
            let mut about = self.client.about();
            let (identity, tls) = (about.identity.take(), about.tls.take());
            *about = identified.about;
            (about.identity, about.tls) = (identity, tls);
        }
        frame::response(&mut self.output, &identified.answer);
        self.say_all().await?;
        if identified.tls
            && let Some(acceptor) = self.shared.tls.clone()
        {
            // What came before the handshake would pass for encrypted afterwards.
            if !self.input.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let stats = self.transport.start_tls(&acceptor).await?;
            self.client.about().tls = Some(stats);
            frame::response(&mut self.output, frame::OK);
            self.say_all().await?;
        }
        if let Some(compression) = identified.compression {
            self.transport.start_compression(compression, &mut self.input);
            let snappy = compression == super::identify::Compression::Snappy;
            self.client.snappy.store(snappy, Ordering::Relaxed);
            self.client.deflate.store(!snappy, Ordering::Relaxed);
            frame::response(&mut self.output, frame::OK);
            self.say_all().await?;
        }
        self.restart_timers();
        Ok(Ok(()))
    }

    async fn auth(&mut self, secret: Bytes) -> Result<(), Fault> {
        if self.grant.is_some() {
            return Err(Fault::fatal("E_INVALID AUTH already set"));
        }
        if self.shared.auth.is_none() {
            return Err(Fault::fatal("E_AUTH_DISABLED AUTH disabled"));
        }
        self.secret = secret.to_vec();
        let grant = self.asked().await?;
        if grant.permissions() == 0 {
            return Err(Fault::fatal("E_UNAUTHORIZED AUTH no authorizations found"));
        }
        let told = Authorised {
            identity: &grant.identity,
            identity_url: &grant.identity_url,
            permission_count: grant.permissions(),
        };
        let told = serde_json::to_vec(&told)
            .map_err(|error| Fault::fatal(format!("E_AUTH_ERROR AUTH error {error}")))?;
        let identity = (grant.identity.clone(), grant.identity_url.clone());
        self.client.about().identity = Some(identity);
        self.grant = Some(grant);
        self.respond(told.into());
        Ok(())
    }

    /// Asks an auth server. Everything else on this connection waits.
    async fn asked(&mut self) -> Result<Grant, Fault> {
        let refused = || Fault::fatal("E_AUTH_FAILED AUTH failed");
        let authority = self.shared.auth.as_ref().ok_or_else(refused)?;
        let asking = Asking {
            remote_ip: self.client.remote.ip(),
            tls: self.transport.is_encrypted(),
            common_name: self.transport.common_name(),
            secret: String::from_utf8_lossy(&self.secret).into_owned(),
        };
        authority.ask(&asking).await.map_err(|error| {
            // The client is not told: it is not yet trusted.
            let error = anyhow::Error::from(error);
            tracing::warn!(client = %self.client.remote, error = format!("{error:#}"), "not authorised");
            refused()
        })
    }

    /// Whether the client may publish to the topic, or consume its channel.
    async fn check(
        &mut self,
        verb: &str,
        topic: &Name,
        channel: Option<&Name>,
    ) -> Result<(), Fault> {
        if self.shared.auth.is_none() {
            return Ok(());
        }
        let Some(grant) = &self.grant else {
            return Err(Fault::fatal(format!("E_AUTH_FIRST AUTH required before {verb}")));
        };
        if grant.is_expired() {
            self.grant = Some(Box::pin(self.asked()).await?);
        }
        let channel = channel.map_or("", Name::as_str);
        if self.grant.as_ref().is_some_and(|it| it.allows(topic.as_str(), channel)) {
            return Ok(());
        }
        let (topic, channel) = (quoted(topic.as_str().as_bytes()), quoted(channel.as_bytes()));
        Err(Fault::fatal(format!("E_UNAUTHORIZED AUTH failed for {verb} on {topic} {channel}")))
    }

    async fn sub(&mut self, topic: Name, channel: Name) -> Result<(), Fault> {
        self.check("SUB", &topic, Some(&channel)).await?;
        let subscription = self.subscribe(&topic, &channel).await?;
        let deleted = subscription.deleted();
        let latency = self.shared.options.latencies.recorder(&topic, &channel);
        {
            let mut about = self.client.about();
            about.channel = Some(subscription.channel().clone());
            about.subscribed = Some((topic, channel));
        }
        self.consumer = Some(Consumer { subscription, ready: 0, deleted, latency });
        self.enter(State::Subscribed);
        self.respond(Bytes::from_static(frame::OK));
        Ok(())
    }

    /// An ephemeral topic or channel may be going while the client comes: then it waits for that.
    async fn subscribe(&mut self, topic: &Name, channel: &Name) -> Result<Subscription, Fault> {
        let failed = |why: String| Fault::fatal(format!("E_SUB_FAILED SUB failed {why}"));
        let sample = Some(self.settings.sample_rate).filter(|it| 0 < *it);
        let mut changes = self.shared.broker.changes();
        for _ in 0..SUB_TRIES {
            changes.mark_unchanged();
            let found = self.shared.broker.topic(topic).await;
            let found = found.map_err(|it| failed(crate::chain(&it)))?;
            let found = match found.channel(channel) {
                Ok(found) => Some(found),
                Err(ChannelError::Exiting) => None,
                Err(error) => return Err(failed(error.to_string())),
            };
            let id = ClientId(self.client.id);
            let timeout = self.settings.msg_timeout;
            match found.map(|it| it.subscribe(id, timeout, sample)) {
                Some(Ok(subscription)) => {
                    // Who is told OK finds the channel again after a crash.
                    let settled = self.shared.broker.settled().await;
                    return settled.map(|()| subscription).map_err(|it| failed(crate::chain(&it)));
                }
                Some(Err(SubscribeError::Deleted)) | None => {}
                Some(Err(error)) => return Err(failed(error.to_string())),
            }
            // If nothing changes in time, the next try says so.
            drop(tokio::time::timeout(SUB_AGAIN, changes.changed()).await);
        }
        Err(failed("to deleted topic/channel".to_owned()))
    }

    fn rdy(&mut self, count: u32) {
        // After CLS the client gets no more, whatever it says.
        if self.state == State::Subscribed
            && let Some(consumer) = &mut self.consumer
        {
            consumer.ready = count;
            consumer.subscription.ready(count);
            self.client.ready.store(count, Ordering::Relaxed);
        }
    }

    /// Finishes messages; the client is told of those that it cannot finish.
    fn finish(&mut self, ids: &[MessageId]) {
        let (mut published, mut failed) = (Vec::new(), Vec::new());
        let mut count = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        if let Some(Consumer { subscription, latency, .. }) = &self.consumer {
            subscription.finish_all(ids, |finished| match finished {
                Ok(run) if latency.is_some() => {
                    published.extend(run.messages().map(|it| it.timestamp));
                }
                Ok(_) => {}
                Err((id, error)) => failed.push(not_answered("FIN", id, error)),
            });
            count -= u64::try_from(failed.len()).unwrap_or(0);
        }
        self.client.finished.fetch_add(count, Ordering::Relaxed);
        self.took(&published);
        for fault in failed {
            self.refuse(fault);
        }
    }

    fn took(&self, published: &[Nanos]) {
        if let Some(latency) = self.consumer.as_ref().and_then(|it| it.latency.as_ref()) {
            let now = Nanos::of(self.shared.clock.now());
            published.iter().for_each(|it| latency.record(now.since(*it)));
        }
    }

    /// Tells the channel what became of a message.
    fn answer(
        &self,
        verb: &str,
        id: MessageId,
        tell: impl FnOnce(&Subscription) -> Result<(), NotInFlight>,
    ) -> Result<(), Fault> {
        let told = self.consumer.as_ref().map_or(Ok(()), |it| tell(&it.subscription));
        told.map_err(|error| not_answered(verb, id, error))
    }

    fn cls(&mut self) {
        if let Some(consumer) = &mut self.consumer {
            consumer.ready = 0;
            consumer.subscription.close();
        }
        self.client.ready.store(0, Ordering::Relaxed);
        self.enter(State::Closing);
        self.respond(Bytes::from_static(frame::CLOSE_WAIT));
    }

    /// Adds a message to those that are published together.
    async fn collect(
        &mut self,
        together: &mut Option<Together>,
        topic: Name,
        messages: Vec<NewMessage>,
    ) -> Result<(), Fault> {
        self.check(Verb::Pub.as_str(), &topic, None).await?;
        match together {
            Some(Together::Publish(_, all)) => all.extend(messages),
            _ => *together = Some(Together::Publish(topic, messages)),
        }
        Ok(())
    }

    /// Does what was collected.
    async fn carry_out(&mut self, together: &mut Option<Together>) {
        match together.take() {
            Some(Together::Publish(topic, messages)) => {
                let commands = messages.len();
                let all = Stalled { verb: Verb::Pub, topic, messages, commands };
                if let Err(fault) = self.publish(all).await {
                    self.refuse(fault);
                }
            }
            Some(Together::Finish(ids)) => self.finish(&ids),
            None => {}
        }
    }

    /// Publishes, or remembers that it must be tried again.
    async fn publish(&mut self, all: Stalled) -> Result<(), Fault> {
        let Stalled { verb, topic, messages, commands } = &all;
        let found = match self.shared.broker.existing_topic(topic) {
            Some(found) => Ok(found),
            None => Box::pin(self.shared.broker.topic(topic)).await,
        };
        let receipt = match found.map_err(|it| not_published(*verb, &it))?.publish(messages) {
            Err(PublishError::Full) => {
                self.stalled = Some(all);
                return Ok(());
            }
            other => other.map_err(|it| not_published(*verb, &it))?,
        };
        let bytes = messages.iter().map(|it| it.body.len()).sum();
        self.client.published(topic, u64::try_from(messages.len()).unwrap_or(u64::MAX));
        self.replies.published(receipt, *verb, *commands, bytes);
        drop(all);
        self.give_back();
        Ok(())
    }

    /// Tries again what there was no room for.
    pub(super) async fn publish_stalled(&mut self) {
        if let Some(stalled) = self.stalled.take()
            && let Err(fault) = self.publish(stalled).await
        {
            self.refuse(fault);
        }
    }

    fn respond(&mut self, data: Bytes) {
        self.replies.respond(data, &mut self.output);
        self.urgent = true;
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.client.set_state(state);
    }
}

/// Adds a message to those that are finished together.
fn collect(together: &mut Option<Together>, id: MessageId) {
    match together {
        Some(Together::Finish(ids)) => ids.push(id),
        _ => *together = Some(Together::Finish(vec![id])),
    }
}

/// What a client is told that answers a message which it does not have.
fn not_answered(verb: &str, id: MessageId, error: NotInFlight) -> Fault {
    let (code, why) = (format!("E_{verb}_FAILED {verb} "), format!(" failed {error}"));
    Fault::passing([code.as_bytes(), &id.0, why.as_bytes()].concat())
}
