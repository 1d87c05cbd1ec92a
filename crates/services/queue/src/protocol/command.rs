//! Commands of a client, and the parser that finds them in a stream of bytes.
//!
//! The parser does no IO and is fed whatever has arrived: where the stream is cut makes no
//! difference. Bodies are not copied, they share the memory they were read into. It checks all
//! that the original checks before it acts, in the same order, and says the same.
//!
//! One thing the original does not have: `PUB topic key=VALUE` gives the message a key. The
//! original ignores what follows the topic, so a publisher may say it to either.

mod body;
mod plain;
mod words;

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};

use self::{
    body::{Head, Limits, SIZE, batch_count, one_of_batch, peek_size, size_in, whole_batch},
    words::{Words, fault, id, key_of, name, not_now, number},
};
use super::{
    clients::State,
    fault::{Fault, quoted},
    options::{LINE_MAX, Options},
};
use crate::{
    message::{MessageId, NewMessage},
    name::Name,
};

/// The longest key of a message, in bytes: it is a name for an order, not a place for data.
pub const KEY_MAX: usize = 255;

/// How many messages of a batch there is room for before the first has arrived: a client that
/// announces many has to send them before they cost memory.
const BATCH_EXPECTED: usize = 256;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `IDENTIFY`: tells of itself and asks for features, in JSON.
    Identify(Bytes),
    /// `AUTH`: its secret.
    Auth(Bytes),
    /// `SUB`
    Sub {
        /// Of which topic.
        topic: Name,
        /// By which channel.
        channel: Name,
    },
    /// `RDY`: how many messages it can have in flight.
    Rdy(u32),
    /// `FIN`
    Fin(MessageId),
    /// `REQ`, to be delivered again after a while.
    Req(MessageId, Duration),
    /// `TOUCH`
    Touch(MessageId),
    /// `CLS`
    Cls,
    /// `NOP`
    Nop,
    /// `PUB`, `MPUB` or `DPUB`.
    Publish {
        /// Which of them.
        verb: Verb,
        /// To which topic.
        topic: Name,
        /// At least one.
        messages: Vec<NewMessage>,
    },
}

/// How something is published; its name is part of what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// One message.
    Pub,
    /// Many.
    Mpub,
    /// One that is deferred.
    Dpub,
}

impl Verb {
    /// As it is on the wire.
    #[must_use]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pub => "PUB",
            Self::Mpub => "MPUB",
            Self::Dpub => "DPUB",
        }
    }
}

/// What is allowed on the connection when the next command is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    /// How far the connection has come.
    pub(super) state: State,
    /// Whether nothing may be done before TLS is on, and it is not.
    pub(super) tls_missing: bool,
    /// Whether it has heartbeats, without which nobody may consume.
    pub(super) heartbeats: bool,
}

/// Why no command can be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The client is told, then hung up on.
    Fault(Fault),
    /// A line is longer than [`LINE_MAX`]: it is hung up on without a word, as by the original.
    Line,
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Finds commands in what a client sends.
#[derive(Debug)]
pub(super) struct Parser {
    limits: Limits,
    next: Next,
    /// How much of the beginning has no end of line in it.
    searched: usize,
    /// The topics this client publishes to lately, so that their names need not be made anew.
    topics: VecDeque<Name>,
}

/// How many names a parser remembers.
const TOPICS_REMEMBERED: usize = 4;

/// What the next bytes are.
#[derive(Debug)]
enum Next {
    Line,
    Body { of: Head, size: Option<usize> },
    Batch { topic: Name, left: Option<usize>, count: Option<usize>, messages: Vec<NewMessage> },
}

impl Parser {
    /// One for a new connection.
    #[must_use]
    pub(super) fn new(options: &Options) -> Self {
        let limits = Limits {
            body: options.max_body_size,
            message: options.max_msg_size,
            req: options.max_req_timeout,
            rdy: options.max_rdy_count,
        };
        Self { limits, next: Next::Line, searched: 0, topics: VecDeque::new() }
    }

    /// Takes the next command from `input`; `None` if it is not complete.
    ///
    /// # Errors
    /// If it cannot be a command, or not now. The parser must not be used after that.
    pub(super) fn next(
        &mut self,
        input: &mut BytesMut,
        gate: Gate,
    ) -> Result<Option<Command>, Broken> {
        loop {
            match &mut self.next {
                Next::Line => {
                    // Searched: the beginning of something else was seen here.
                    if self.searched == 0
                        && let Some(id) = plain::fin(input, gate)
                    {
                        return Ok(Some(Command::Fin(id)));
                    }
                    let Some(line) = self.line(input)? else { return Ok(None) };
                    if let Some(command) = self.head(&line, gate)? {
                        return Ok(Some(command));
                    }
                }
                Next::Body { .. } => return Ok(self.body(input)?),
                Next::Batch { .. } => return Ok(self.batch(input)?),
            }
        }
    }

    /// How many bytes the command in hand needs beyond those that have arrived, as far as known.
    #[must_use]
    pub(super) fn missing(&self, arrived: usize) -> usize {
        let unknown =
            matches!(self.next, Next::Body { size: None, .. } | Next::Batch { left: None, .. });
        let whole = if unknown { SIZE } else { self.body_bytes() };
        whole.saturating_sub(arrived)
    }

    /// How large the body of the command in hand is, as far as known and still to be parsed.
    pub(super) fn body_bytes(&self) -> usize {
        match &self.next {
            Next::Line => 0,
            Next::Body { size, .. } => size.unwrap_or(0),
            Next::Batch { left, .. } => left.unwrap_or(0),
        }
    }

    /// Whether a command has begun of which the body is not complete.
    pub(super) const fn is_within(&self) -> bool {
        !matches!(self.next, Next::Line)
    }

    /// What is wrong with a stream that ends here: nothing between commands.
    #[must_use]
    pub(super) fn truncated(&self, arrived: usize) -> Option<Fault> {
        Some(Fault::fatal(match &self.next {
            Next::Line => return None,
            Next::Body { of: Head::Publish { verb, .. }, size } => {
                let what = if size.is_none() { " size" } else { "" };
                format!("E_BAD_MESSAGE {} failed to read message body{what}", verb.as_str())
            }
            Next::Body { of, size } => {
                let what = if size.is_none() { " size" } else { "" };
                format!("E_BAD_BODY {} failed to read body{what}", of.name())
            }
            Next::Batch { left: None, .. } => "E_BAD_BODY MPUB failed to read body size".to_owned(),
            Next::Batch { count: None, .. } => {
                "E_BAD_BODY MPUB failed to read message count".to_owned()
            }
            Next::Batch { messages, .. } if arrived < SIZE => {
                let at = messages.len();
                format!("E_BAD_MESSAGE MPUB failed to read message({at}) body size")
            }
            Next::Batch { .. } => "E_BAD_MESSAGE MPUB failed to read message body".to_owned(),
        }))
    }

    /// The next line without its end.
    fn line(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, Broken> {
        let fresh = input.get(self.searched..).unwrap_or_default();
        let within = LINE_MAX.saturating_sub(self.searched);
        let Some(end) = fresh.iter().take(within).position(|&it| it == b'\n') else {
            self.searched = input.len();
            return if LINE_MAX <= input.len() { Err(Broken::Line) } else { Ok(None) };
        };
        let mut line = input.split_to(self.searched + end);
        input.advance(1);
        self.searched = 0;
        if line.ends_with(b"\r") {
            line.truncate(line.len() - 1);
        }
        Ok(Some(line))
    }

    /// A command without body; with one, what comes next is set to it.
    fn head(&mut self, line: &[u8], gate: Gate) -> Result<Option<Command>, Fault> {
        let mut words = line.split(|&it| it == b' ');
        let verb = words.next().unwrap_or_default();
        if verb != b"IDENTIFY" && gate.tls_missing {
            return Err(fault(&[b"E_INVALID cannot ", verb, b" in current state (TLS required)"]));
        }
        let words = [words.next(), words.next()];
        match verb {
            b"IDENTIFY" => self.with_body("IDENTIFY", Head::Identify, gate),
            b"AUTH" if gate.state != State::Init => self.with_body("AUTH", Head::Auth, gate),
            b"AUTH" if words[0].is_some() => {
                Err(Fault::fatal("E_INVALID AUTH invalid number of parameters"))
            }
            b"AUTH" => self.with_body("AUTH", Head::Auth, gate),
            b"SUB" => self.sub(&words, gate).map(Some),
            b"RDY" => self.rdy(&words, gate).map(Some),
            b"FIN" => Ok(Some(Command::Fin(id("FIN", &words, 1, gate)?))),
            b"REQ" => self.req(&words, gate).map(Some),
            b"TOUCH" => Ok(Some(Command::Touch(id("TOUCH", &words, 1, gate)?))),
            b"CLS" if gate.state != State::Subscribed => Err(not_now("CLS")),
            b"CLS" => Ok(Some(Command::Cls)),
            b"NOP" => Ok(Some(Command::Nop)),
            b"PUB" => self.publish(Verb::Pub, &words).map(|()| None),
            b"MPUB" => self.publish(Verb::Mpub, &words).map(|()| None),
            b"DPUB" => self.publish(Verb::Dpub, &words).map(|()| None),
            other => Err(fault(&[b"E_INVALID invalid command ", other])),
        }
    }

    fn with_body(
        &mut self,
        verb: &'static str,
        of: Head,
        gate: Gate,
    ) -> Result<Option<Command>, Fault> {
        if gate.state != State::Init {
            return Err(not_now(verb));
        }
        self.next = Next::Body { of, size: None };
        Ok(None)
    }

    fn sub(&mut self, words: &Words<'_>, gate: Gate) -> Result<Command, Fault> {
        if gate.state != State::Init {
            return Err(not_now("SUB"));
        }
        if !gate.heartbeats {
            return Err(Fault::fatal("E_INVALID cannot SUB with heartbeats disabled"));
        }
        let [Some(topic), Some(channel)] = words else {
            return Err(Fault::fatal("E_INVALID SUB insufficient number of parameters"));
        };
        let topic = self.topic("E_BAD_TOPIC SUB", topic)?;
        let channel = name(channel).ok_or_else(|| {
            let name = quoted(channel);
            Fault::fatal(format!("E_BAD_CHANNEL SUB channel name {name} is not valid"))
        })?;
        Ok(Command::Sub { topic, channel })
    }

    fn rdy(&self, words: &Words<'_>, gate: Gate) -> Result<Command, Fault> {
        if gate.state == State::Init {
            return Err(not_now("RDY"));
        }
        let max = self.limits.rdy;
        let Some(word) = words[0].filter(|_| gate.state == State::Subscribed) else {
            return Ok(Command::Rdy(1.min(max)));
        };
        let count =
            number(word).ok_or_else(|| fault(&[b"E_INVALID RDY could not parse count ", word]))?;
        match u32::try_from(count) {
            Ok(count) if count <= max => Ok(Command::Rdy(count)),
            _ => Err(Fault::fatal(format!("E_INVALID RDY count {count} out of range 0-{max}"))),
        }
    }

    fn req(&self, words: &Words<'_>, gate: Gate) -> Result<Command, Fault> {
        let id = id("REQ", words, 2, gate)?;
        let word = words[1].unwrap_or_default();
        let delay = number(word)
            .ok_or_else(|| fault(&[b"E_INVALID REQ could not parse timeout ", word]))?;
        let delay = u64::try_from(delay).map_or(Duration::ZERO, Duration::from_millis);
        Ok(Command::Req(id, delay.min(self.limits.req)))
    }

    fn publish(&mut self, verb: Verb, words: &Words<'_>) -> Result<(), Fault> {
        let name = verb.as_str();
        let needed = if verb == Verb::Dpub { words[1] } else { words[0] };
        let (Some(topic), Some(_)) = (words[0], needed) else {
            return Err(Fault::fatal(format!(
                "E_INVALID {name} insufficient number of parameters"
            )));
        };
        // The original says its code twice for MPUB.
        let twice = if verb == Verb::Mpub { "E_BAD_TOPIC " } else { "" };
        let topic = self.topic(&format!("E_BAD_TOPIC {twice}{name}"), topic)?;
        let (mut delay, mut key) = (Duration::ZERO, None);
        match verb {
            Verb::Dpub => delay = self.delay(words[1].unwrap_or_default())?,
            Verb::Pub => key = words[1].map(key_of).transpose()?.flatten(),
            Verb::Mpub => {
                let messages = Vec::new();
                self.next = Next::Batch { topic, left: None, count: None, messages };
                return Ok(());
            }
        }
        self.next = Next::Body { of: Head::Publish { verb, topic, delay, key }, size: None };
        Ok(())
    }

    fn delay(&self, word: &[u8]) -> Result<Duration, Fault> {
        let delay = number(word)
            .ok_or_else(|| fault(&[b"E_INVALID DPUB could not parse timeout ", word]))?;
        let max = self.limits.req;
        match u64::try_from(delay).map(Duration::from_millis) {
            Ok(delay) if delay <= max => Ok(delay),
            _ => Err(Fault::fatal(format!(
                "E_INVALID DPUB timeout {delay} out of range 0-{}",
                max.as_millis()
            ))),
        }
    }

    /// A name of a topic, remembered.
    fn topic(&mut self, whose: &str, word: &[u8]) -> Result<Name, Fault> {
        if let Some(known) = self.topics.iter().find(|it| it.as_str().as_bytes() == word) {
            return Ok(known.clone());
        }
        let Some(new) = name(word) else {
            let name = quoted(word);
            return Err(Fault::fatal(format!("{whose} topic name {name} is not valid")));
        };
        if self.topics.len() == TOPICS_REMEMBERED {
            self.topics.pop_back();
        }
        self.topics.push_front(new.clone());
        Ok(new)
    }

    fn body(&mut self, input: &mut BytesMut) -> Result<Option<Command>, Fault> {
        let Next::Body { of, size } = &mut self.next else { return Ok(None) };
        let length = match *size {
            Some(length) => length,
            None => {
                let Some(given) = size_in(input) else { return Ok(None) };
                *size.insert(of.check(given, self.limits)?)
            }
        };
        if input.len() < length {
            return Ok(None);
        }
        let body = input.split_to(length).freeze();
        let of = of.clone();
        self.next = Next::Line;
        Ok(Some(match of {
            Head::Identify => Command::Identify(body),
            Head::Auth => Command::Auth(body),
            Head::Publish { verb, topic, delay, key } => {
                Command::Publish { verb, topic, messages: vec![NewMessage { body, delay, key }] }
            }
        }))
    }

    fn batch(&mut self, input: &mut BytesMut) -> Result<Option<Command>, Fault> {
        let limits = self.limits;
        let Next::Batch { topic, left, count, messages } = &mut self.next else { return Ok(None) };
        let left = match left {
            Some(left) => left,
            None => {
                let Some(given) = size_in(input) else { return Ok(None) };
                left.insert(whole_batch(given, limits)?)
            }
        };
        let count = match *count {
            Some(count) => count,
            None => {
                let Some(given) = size_in(input) else { return Ok(None) };
                // It counts into the size; a size that has no room for it is found below.
                *left = left.saturating_sub(SIZE);
                let given = *count.insert(batch_count(given, limits)?);
                messages.reserve(given.min(BATCH_EXPECTED));
                given
            }
        };
        while messages.len() < count {
            let Some(given) = peek_size(input) else { return Ok(None) };
            let length = one_of_batch(given, messages.len(), limits)?;
            // The original reads on beyond the size it was told, without any limit.
            *left = left
                .checked_sub(SIZE + length)
                .ok_or_else(|| Fault::fatal("E_BAD_BODY MPUB messages are larger than the body"))?;
            if input.len() < SIZE + length {
                *left += SIZE + length;
                return Ok(None);
            }
            input.advance(SIZE);
            messages.push(NewMessage::new(input.split_to(length).freeze()));
        }
        let (topic, messages) = (topic.clone(), std::mem::take(messages));
        self.next = Next::Line;
        Ok(Some(Command::Publish { verb: Verb::Mpub, topic, messages }))
    }
}

#[cfg(test)]
mod tests;
