//! The load on an nsqd while it lives: publishers, consumers that do all that consumers may, and one
//! that never finishes anything. Each is one thread, and ends when the process does.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;

use crate::{
    book::{Book, Key, Post, Reading},
    nsqd::Addresses,
    wire::{Connection, Frame, Message, ask, batch, command},
};

/// The channel that a consumer of each topic reads.
pub(crate) const EAGER: &str = "eager";
/// The channel where one consumer never finishes anything.
pub(crate) const HOARD: &str = "hoard";
/// The channel that nobody reads before the end.
pub(crate) const IDLE: &str = "idle";

/// Commands that a publisher sends before it reads the answers.
const PIPELINE_MAX: usize = 6;
/// Messages of one `MPUB`.
const BATCH_MAX: usize = 12;
/// Longest pause of a publisher between two pipelines. It keeps what has to be read at the end in
/// bounds.
const THINK_MAX: Duration = Duration::from_millis(12);
/// Longest delay of a deferred or requeued message: some are due in this life, some in the next.
const DELAY_MAX: Duration = Duration::from_millis(400);
/// Most bytes of a message, of one in twenty; the others have a hundredth.
const FILLING_MAX: usize = 20_000;
/// What a consumer holds without an answer before it leaves.
const HELD_MAX: usize = 25;
/// How many messages the consumer takes that never finishes one.
const HOARD_MAX: u32 = 12;

/// What the threads of one life share.
pub(crate) struct Life<'a> {
    pub(crate) addresses: Addresses,
    book: &'a Mutex<Book>,
    /// Set before the process is killed or asked to end: connections may break from then on.
    ending: AtomicBool,
}

impl<'a> Life<'a> {
    pub(crate) fn new(addresses: Addresses, book: &'a Mutex<Book>) -> Self {
        Self { addresses, book, ending: AtomicBool::new(false) }
    }

    /// From now on connections may break.
    pub(crate) fn is_over(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        lock(self.book)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Runs a client until its connection ends, which it may only when the process does.
    pub(crate) fn client(&self, who: &str, run: impl FnOnce() -> io::Result<()>) {
        if let Err(error) = run()
            && !self.is_ending()
        {
            self.book().complain(format!("{who}: {error}"));
        }
    }

    /// Publishes with `PUB`, `DPUB` and `MPUB`, several commands at once.
    pub(crate) fn publish(
        &self,
        topics: &[&'static str],
        publisher: usize,
        mut random: Rng,
    ) -> io::Result<()> {
        let mut connection = Connection::open(self.addresses.tcp)?;
        loop {
            let mut said = Vec::new();
            let mut asked: Vec<(&'static str, Vec<u64>)> = Vec::new();
            for _ in 0..random.usize(1..=PIPELINE_MAX) {
                let Some(topic) = random.choice(topics.iter().copied()) else { return Ok(()) };
                let (bytes, posts) = self.command(topic, publisher, &mut random);
                said.extend(bytes);
                asked.push((topic, posts.iter().map(|it| it.id).collect()));
            }
            connection.say(&said)?;
            for (topic, ids) in asked {
                ok(connection.frame()?)?;
                let mut book = self.book();
                ids.iter().for_each(|it| book.acknowledged(topic, publisher, *it));
            }
            std::thread::sleep(THINK_MAX.mul_f32(random.f32()));
        }
    }

    fn command(
        &self,
        topic: &'static str,
        publisher: usize,
        random: &mut Rng,
    ) -> (Vec<u8>, Vec<Post>) {
        let kind = random.u8(..4);
        let delay = if kind == 0 { delay(random) } else { Duration::ZERO };
        let count = if kind == 1 { random.usize(1..=BATCH_MAX) } else { 1 };
        let posts: Vec<Post> = (0..count)
            .map(|_| {
                let most = if random.u8(..20) == 0 { FILLING_MAX } else { FILLING_MAX / 100 };
                self.book().send(topic, publisher, delay, random.usize(..most))
            })
            .collect();
        let bodies: Vec<Vec<u8>> = posts.iter().map(|it| it.body.clone()).collect();
        let bytes = match (kind, bodies.as_slice()) {
            (0, [body]) => command(&format!("DPUB {topic} {}", delay.as_millis()), body),
            (1, bodies) => command(&format!("MPUB {topic}"), &batch(bodies)),
            (_, bodies) => command(&format!("PUB {topic}"), &bodies.concat()),
        };
        (bytes, posts)
    }

    /// Consumes: finishes most messages, gives some back at once or with a delay, touches some, holds
    /// some without a word; and when it holds many, leaves and comes again.
    pub(crate) fn consume(&self, key: &Key, mut random: Rng) -> io::Result<()> {
        loop {
            let ready = random.u32(1..100);
            let mut connection = Connection::consume(self.addresses.tcp, key.0, &key.1, ready)?;
            let held_max = HELD_MAX.min(usize::try_from(ready).unwrap_or(HELD_MAX));
            let mut held = 0;
            while held < held_max {
                let message = self.message(&mut connection, key)?;
                held += usize::from(!self.answer(&mut connection, key, &message, &mut random)?);
            }
        }
    }

    /// Whether it was answered.
    fn answer(
        &self,
        connection: &mut Connection,
        key: &Key,
        message: &Message,
        random: &mut Rng,
    ) -> io::Result<bool> {
        let id = String::from_utf8_lossy(&message.id);
        let said = match random.u8(..20) {
            0 => return Ok(false),
            1 => format!("TOUCH {id}\n"),
            2 | 3 => format!("REQ {id} 0\n"),
            4 | 5 => format!("REQ {id} {}\n", delay(random).as_millis()),
            _ => String::new(),
        };
        let done = !said.starts_with("REQ");
        if done {
            self.book().finished(key, message);
        }
        let finish = if done { format!("FIN {id}\n") } else { String::new() };
        connection.say(format!("{said}{finish}").as_bytes())?;
        Ok(true)
    }

    /// Consumes and never finishes. What it got is noted as kept when nsqd has acknowledged a change
    /// that is written behind it.
    pub(crate) fn hoard(&self, key: &Key) -> io::Result<()> {
        let mut connection = Connection::consume(self.addresses.tcp, key.0, &key.1, HOARD_MAX)?;
        let mut got = Vec::new();
        for turn in 0_u64.. {
            let message = self.message(&mut connection, key)?;
            got.push((message.id, message.attempts));
            if connection.has_more() {
                continue;
            }
            let verb = if turn.is_multiple_of(2) { "pause" } else { "unpause" };
            let target = format!("/channel/{verb}?topic={}&channel={IDLE}", key.0);
            let (status, body) = ask(self.addresses.http, "POST", &target)?;
            if status != 200 {
                return Err(io::Error::other(format!("{target} was answered {status}: {body}")));
            }
            self.book().keep(key, &got);
        }
        Ok(())
    }

    /// Finishes whatever comes.
    pub(crate) fn drain(&self, key: &Key) -> io::Result<()> {
        let mut connection = Connection::consume(self.addresses.tcp, key.0, &key.1, 500)?;
        let mut finish = Vec::new();
        loop {
            let message = self.message(&mut connection, key)?;
            self.book().finished(key, &message);
            finish.extend([b"FIN ", message.id.as_slice(), b"\n"].concat());
            if !connection.has_more() {
                connection.say(&finish)?;
                finish.clear();
            }
        }
    }

    fn message(&self, connection: &mut Connection, key: &Key) -> io::Result<Message> {
        match connection.frame()? {
            Frame::Message(message) => {
                let reading = if self.is_ending() { Reading::AtWill } else { Reading::InOrder };
                self.book().delivered(key, &message, reading);
                Ok(message)
            }
            other => Err(io::Error::other(format!("{key:?} got {other:?}"))),
        }
    }
}

fn ok(frame: Frame) -> io::Result<()> {
    match frame {
        Frame::Response(it) if it == b"OK" => Ok(()),
        other => Err(io::Error::other(format!("answered with {other:?}"))),
    }
}

fn delay(random: &mut Rng) -> Duration {
    let most = u64::try_from(DELAY_MAX.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random.u64(1..most))
}

/// Nothing is half done when a thread panics with the book.
pub(crate) fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
