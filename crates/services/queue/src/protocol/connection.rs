//! One client's connection: one task that reads its commands and writes what it gets.
//!
//! Reading does not wait for writing nor for messages to be safe, until one of them is too far
//! behind ([`Replies::has_room`], [`OUTPUT_MAX`]): then the client has to read first, and if it
//! does not, it is dropped after a heartbeat interval. Nobody else notices.

use std::{
    future::pending,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    auth::Grant,
    clients::{Registered, State},
    command::{Command, Parser},
    execute::Stalled,
    fault::Fault,
    frame,
    greeting::say,
    identify::{Buffering, Settings},
    replies::Replies,
    server::Shared,
    transport::{Progress, Transport},
};
use crate::{
    bodies::Share,
    broker::{Subscription, Topic},
    stats::Latency,
};

/// How many bytes may wait to be written before neither commands are read nor messages taken: one
/// large output buffer, and the bodies of messages come on top one by one.
const OUTPUT_MAX: usize = 128 * 1024;

/// How long a refused client may go on sending before it is hung up on, so that it reads why: what
/// it sent and nobody read would make the kernel throw the refusal away.
const LINGER: Duration = Duration::from_secs(1);

/// How long unanswered publishers are waited for when nsqd ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Further than any timer is asked to wait.
const FAR: Duration = Duration::from_hours(24);

/// A connection and all it remembers.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Registered,
    pub(super) transport: Transport,
    /// Arrived, and not parsed.
    pub(super) input: BytesMut,
    /// Frames that are not on their way yet.
    pub(super) output: BytesMut,
    pub(super) parser: Parser,
    pub(super) settings: Settings,
    pub(super) state: State,
    pub(super) consumer: Option<Consumer>,
    pub(super) replies: Replies,
    pub(super) grant: Option<Grant>,
    pub(super) secret: Vec<u8>,
    pub(super) stalled: Option<Stalled>,
    /// What it has of the memory for large bodies.
    share: Share,
    /// A command that waits until all before it are answered, or published.
    pub(super) held: Option<Command>,
    /// There may be more commands in the input.
    pub(super) more: bool,
    /// Nothing is read any more: when all is answered and written, the connection ends.
    pub(super) ending: bool,
    /// Something in the output must not wait.
    pub(super) urgent: bool,
    timers: Timers,
    alarm: Pin<Box<Sleep>>,
}

/// What a client consumes.
pub(super) struct Consumer {
    pub(super) subscription: Subscription,
    pub(super) ready: u32,
    pub(super) deleted: watch::Receiver<bool>,
    pub(super) latency: Option<Arc<Latency>>,
}

struct Timers {
    /// Of the first of all intervals.
    started: Instant,
    heartbeat: Option<Instant>,
    /// When the last command was read.
    heard: Instant,
    /// When buffered messages are sent.
    flush: Option<Instant>,
}

/// What the task woke up for.
enum Event {
    Stop,
    Deleted,
    Moved(io::Result<Progress>),
    Answered(Option<Fault>),
    Woken,
    Room,
    Granted,
    Time,
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        client: Registered,
        transport: Transport,
        input: BytesMut,
    ) -> Self {
        let settings = Settings::new(&shared.options);
        let parser = Parser::new(&shared.options);
        let share = Share::new(shared.options.bodies.clone());
        let now = Instant::now();
        Self {
            shared,
            client,
            transport,
            more: !input.is_empty(),
            input,
            output: BytesMut::new(),
            parser,
            settings,
            state: State::Init,
            consumer: None,
            replies: Replies::default(),
            grant: None,
            secret: Vec::new(),
            stalled: None,
            share,
            held: None,
            ending: false,
            urgent: false,
            timers: Timers {
                started: now,
                heartbeat: settings.heartbeat.map(|it| now + it),
                heard: now,
                flush: None,
            },
            alarm: Box::pin(sleep_until(now + FAR)),
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> io::Result<()> {
        loop {
            if self.more && self.may_read() {
                self.commands().await?;
            }
            self.give();
            self.write()?;
            if self.ending && self.is_done() {
                break;
            }
            match self.event(&stop).await {
                Event::Stop => {
                    self.stop().await?;
                    break;
                }
                Event::Deleted => {
                    tracing::debug!(client = %self.client.remote, "its channel was deleted");
                    return Ok(());
                }
                Event::Moved(Ok(Progress::Read)) => self.more = true,
                Event::Moved(Ok(Progress::End)) => self.end(),
                Event::Moved(Ok(Progress::Wrote)) | Event::Woken => {}
                Event::Moved(Err(error)) => return Err(error),
                Event::Room => self.publish_stalled().await,
                // It had to wait for us: now its time begins.
                Event::Granted => self.hear(),
                Event::Answered(fault) => {
                    self.urgent = true;
                    if let Some(fault) = fault {
                        self.refuse(fault);
                    }
                }
                Event::Time => self.on_time(Instant::now())?,
            }
        }
        self.hang_up().await
    }

    /// Waits for whatever happens next.
    async fn event(&mut self, stop: &CancellationToken) -> Event {
        let read = self.may_read() && self.share.covers(self.parser.body_bytes());
        let read = read.then(|| self.parser.missing(self.input.len()));
        self.set_alarm();
        let take = self.may_take();
        let full = self.stalled.as_ref().map(|it| &it.topic);
        let full = full.and_then(|it| self.shared.broker.existing_topic(it));
        let stalled = self.stalled.is_some();
        let Self { transport, input, output, replies, consumer, alarm, share, .. } = self;
        let consumer = consumer.as_mut();
        let (subscription, deleted) =
            consumer.map(|it| (&it.subscription, &mut it.deleted)).unzip();
        tokio::select! {
            () = stop.cancelled() => Event::Stop,
            () = is_deleted(deleted) => Event::Deleted,
            it = transport.progress(input, read) => Event::Moved(it),
            it = replies.next(output) => Event::Answered(it),
            () = woken(subscription), if take => Event::Woken,
            () = room(full), if stalled => Event::Room,
            () = share.granted() => Event::Granted,
            () = alarm.as_mut() => Event::Time,
        }
    }

    /// Whether commands may be read.
    pub(super) fn may_read(&self) -> bool {
        let answered = self.held.is_none() || self.replies.is_empty();
        !self.ending
            && answered
            && self.stalled.is_none()
            && self.replies.has_room()
            && self.output.len() < OUTPUT_MAX
    }

    /// Whether the client is to say something, and in time. One that holds memory which others wait
    /// for has to also while it does not read what it is told.
    fn is_to_speak(&self) -> bool {
        let held_up = self.stalled.is_some() || !self.replies.has_room();
        !self.share.waits() && (self.may_read() || self.share.holds() && !held_up)
    }

    /// How long it may be silent. Without heartbeats that is for ever, unless others wait.
    fn silence_max(&self) -> Option<Duration> {
        let twice = self.settings.heartbeat.map(|it| 2 * it);
        twice.or_else(|| self.share.holds().then_some(self.shared.options.client_timeout))
    }

    /// Gives back what it had for a large body, which has been dealt with.
    pub(super) fn give_back(&mut self) {
        if self.share.holds() {
            // The buffer is as large as the body was.
            self.input = BytesMut::from(&self.input[..]);
        }
        self.share.give_back();
    }

    fn may_take(&self) -> bool {
        self.output.len() < OUTPUT_MAX
    }

    /// Moves messages to the output, as many as there is room for. They are copied once, from the
    /// memory of the log.
    fn give(&mut self) {
        let Self { consumer: Some(consumer), output, .. } = self else { return };
        let mut count = 0;
        while output.len() < OUTPUT_MAX {
            let room = OUTPUT_MAX - output.len();
            let given = consumer.subscription.deliver(room, |message, id, attempts| {
                frame::message(output, message, id, attempts);
            });
            if given == 0 {
                break;
            }
            count += given;
        }
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.client.messages.fetch_add(count, Ordering::Relaxed);
    }

    /// Sends the output on its way when it is time for that.
    fn write(&mut self) -> io::Result<()> {
        if self.output.is_empty() || !self.transport.is_idle() {
            return Ok(());
        }
        if self.is_due() {
            self.transport.send(&mut self.output)?;
            self.urgent = false;
            self.timers.flush = None;
        }
        Ok(())
    }

    fn is_due(&mut self) -> bool {
        if self.urgent || self.ending || self.settings.buffer_size <= self.output.len() {
            return true;
        }
        let full = self.consumer.as_ref().is_none_or(|it| it.ready <= it.subscription.in_flight());
        if full {
            return true;
        }
        match self.settings.buffering {
            Buffering::Idle => true,
            Buffering::Full => false,
            Buffering::Every(interval) => {
                let now = Instant::now();
                let started = self.timers.started;
                now >= *self.timers.flush.get_or_insert_with(|| multiple(started, interval, now))
            }
        }
    }

    /// Makes the task wake up when the next thing is due.
    fn set_alarm(&mut self) {
        let heartbeat = self.settings.heartbeat;
        let silence_max = self.silence_max().filter(|_| self.is_to_speak());
        let unheard = silence_max.map(|it| self.timers.heard + it);
        let stuck = self.transport.leaving_since().zip(heartbeat).map(|(since, it)| since + it);
        let flush = self.timers.flush.filter(|_| self.transport.is_idle());
        let next = [self.timers.heartbeat, unheard, stuck, flush].into_iter().flatten().min();
        let next = next.unwrap_or_else(|| self.alarm.deadline() + FAR);
        // A timer that goes off early is set again then; most of them move on long before.
        if next < self.alarm.deadline() || self.alarm.is_elapsed() {
            self.alarm.as_mut().reset(next);
        }
    }

    fn on_time(&mut self, now: Instant) -> io::Result<()> {
        let silence_max = self.silence_max().filter(|_| self.is_to_speak());
        if silence_max.is_some_and(|it| self.timers.heard + it <= now) {
            tracing::info!(client = %self.client.remote, "does not answer: hung up on");
            self.end();
            return Ok(());
        }
        let Some(interval) = self.settings.heartbeat else { return Ok(()) };
        if self.transport.leaving_since().is_some_and(|it| it + interval <= now) {
            tracing::info!(client = %self.client.remote, "does not read: hung up on");
            return Err(io::ErrorKind::TimedOut.into());
        }
        if self.timers.heartbeat.is_some_and(|it| it <= now) && !self.ending {
            self.rest();
            frame::response(&mut self.output, frame::HEARTBEAT);
            self.urgent = true;
            self.timers.heartbeat = Some(now + interval);
        }
        Ok(())
    }

    /// Gives back the memory of what happened and is over.
    fn rest(&mut self) {
        self.transport.rest();
        self.replies.rest();
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }

    /// A command was read.
    pub(super) fn hear(&mut self) {
        self.timers.heard = Instant::now();
    }

    /// Begins the intervals of the current settings.
    pub(super) fn restart_timers(&mut self) {
        let now = Instant::now();
        self.timers.started = now;
        self.timers.heard = now;
        self.timers.flush = None;
        self.timers.heartbeat = self.settings.heartbeat.map(|it| now + it);
    }

    /// Tells the client in turn why its command was refused.
    pub(super) fn refuse(&mut self, fault: Fault) {
        let text = String::from_utf8_lossy(&fault.text);
        if fault.fatal {
            tracing::info!(client = %self.client.remote, %text, "refused");
            self.ending = true;
            self.leave();
        } else {
            tracing::debug!(client = %self.client.remote, %text, "refused");
        }
        self.replies.refuse(fault, &mut self.output);
        self.urgent = true;
    }

    /// Nothing more will be read.
    fn end(&mut self) {
        if let Some(fault) = self.parser.truncated(self.input.len()) {
            self.refuse(fault);
        }
        self.ending = true;
        self.leave();
    }

    /// Ends consuming: what was not answered is delivered to others.
    fn leave(&mut self) {
        self.consumer = None;
        self.stalled = None;
        self.give_back();
    }

    fn is_done(&self) -> bool {
        self.replies.is_empty() && self.output.is_empty() && self.transport.is_idle()
    }

    /// Writes all that there is to say, before something else begins.
    ///
    /// # Errors
    /// If the client does not take it in time.
    pub(super) async fn say_all(&mut self) -> io::Result<()> {
        let within = self.settings.heartbeat.unwrap_or(self.shared.options.max_heartbeat_interval);
        self.urgent = false;
        say(&mut self.transport, &mut self.output, within).await
    }

    /// nsqd ends: publishers whose messages are safe in time learn it.
    async fn stop(&mut self) -> io::Result<()> {
        self.leave();
        let answering = async {
            while !self.replies.is_empty() {
                if let Some(fault) = self.replies.next(&mut self.output).await {
                    frame::error(&mut self.output, &fault.text);
                    return;
                }
            }
        };
        // Who is not answered publishes again.
        if timeout(LAST_ANSWERS, answering).await.is_err() {
            tracing::info!(client = %self.client.remote, "left without an answer");
        }
        say(&mut self.transport, &mut self.output, LAST_ANSWERS).await
    }

    /// Closes so that the client can read all that was said.
    async fn hang_up(mut self) -> io::Result<()> {
        self.transport.shutdown().await?;
        let gone = async {
            while self.transport.progress(&mut self.input, Some(0)).await? == Progress::Read {
                self.input.clear();
            }
            Ok(())
        };
        timeout(LINGER, gone).await.unwrap_or(Ok(()))
    }
}

/// Waits until there is room for more messages. Where the topic is gone, publishing says so.
async fn room(topic: Option<Topic>) {
    if let Some(topic) = topic {
        topic.room().await;
    }
}

/// The first multiple of `interval` after `now`, counted from `started`.
fn multiple(started: Instant, interval: Duration, now: Instant) -> Instant {
    let passed = (now - started).as_nanos();
    let interval = interval.as_nanos().max(1);
    let next = (passed / interval + 1) * interval;
    started + Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX))
}

async fn is_deleted(deleted: Option<&mut watch::Receiver<bool>>) {
    let Some(deleted) = deleted else { return pending().await };
    // The sender lives in the channel, which the subscription keeps.
    if deleted.wait_for(|it| *it).await.is_err() {
        pending::<()>().await;
    }
}

async fn woken(subscription: Option<&Subscription>) {
    match subscription {
        Some(it) => it.woken().await,
        None => pending().await,
    }
}
