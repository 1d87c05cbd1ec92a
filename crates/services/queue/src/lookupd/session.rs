//! One producer's conversation: its commands in, answers out. No input or output, no clock.
//!
//! A command is a line; only `IDENTIFY` has a body. Any mistake ends the conversation, as in the
//! original.

use std::net::SocketAddr;

use serde_json::{Map, Value};

use super::{
    registry::{Moment, ProducerId, Registry, Source},
    wire::{Identified, Identify},
};
use crate::{name::Name, web::VERSION};

/// What has to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send this, read the next line.
    Answer(Vec<u8>),
    /// Read the body of the command: its length in four bytes, then as many.
    Body,
    /// Send this, then close the connection.
    Fatal(String),
}

/// What of a body did not come, or is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// How long it is.
    Size,
    /// Itself.
    Body,
}

impl Step {
    fn fatal(code: &str, description: impl std::fmt::Display) -> Self {
        Self::Fatal(format!("{code} {description}"))
    }

    fn ok() -> Self {
        Self::Answer(b"OK".to_vec())
    }
}

/// Who this nsqlookupd is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) broadcast_address: String,
    pub(super) hostname: String,
    pub(super) tcp_port: u16,
    pub(super) http_port: u16,
}

/// One producer's conversation.
#[derive(Debug)]
pub(super) struct Session {
    peer: SocketAddr,
    id: ProducerId,
    identified: bool,
}

/// The topic, and perhaps the channel, that a command is about.
type Arguments = (Name, Option<Name>);

impl Session {
    /// With a producer whose connection comes from `peer`.
    pub(super) fn new(peer: SocketAddr) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self { peer, id: ProducerId::new(&peer.to_string()), identified: false }
    }

    /// Takes a line, with or without its end.
    pub(super) fn line(&mut self, registry: &mut Registry, now: Moment, line: &str) -> Step {
        let mut words = line.trim().split(' ');
        let command = words.next().unwrap_or_default();
        match command {
            "PING" => {
                registry.ping(&self.id, now);
                Step::ok()
            }
            "IDENTIFY" if self.identified => Step::fatal("E_INVALID", "cannot IDENTIFY again"),
            "IDENTIFY" => Step::Body,
            "REGISTER" | "UNREGISTER" if !self.identified => {
                Step::fatal("E_INVALID", "client must IDENTIFY")
            }
            "REGISTER" => match arguments(command, words) {
                Ok((topic, channel)) => self.register(registry, &topic, channel.as_ref()),
                Err(step) => step,
            },
            "UNREGISTER" => match arguments(command, words) {
                Ok((topic, channel)) => {
                    registry.unregister(&self.id, &topic, channel.as_ref());
                    Step::ok()
                }
                Err(step) => step,
            },
            other => Step::fatal("E_INVALID", format_args!("invalid command {other}")),
        }
    }

    /// Takes the body of `IDENTIFY`, or what of it did not come.
    pub(super) fn body(
        &mut self,
        registry: &mut Registry,
        now: Moment,
        identity: &Identity,
        body: Result<&[u8], Missing>,
    ) -> Step {
        let bad = |description: &str| Step::fatal("E_BAD_BODY", description);
        let body = match body {
            Ok(body) => body,
            Err(Missing::Size) => return bad("IDENTIFY failed to read body size"),
            Err(Missing::Body) => return bad("IDENTIFY failed to read body"),
        };
        let Some(said) = decode(body) else {
            return bad("IDENTIFY failed to decode JSON body");
        };
        let Some(info) = said.peer_info(self.peer.to_string()) else {
            return bad("IDENTIFY missing fields");
        };
        tracing::info!(
            producer = %self.id,
            broadcast = info.broadcast_address,
            tcp = info.tcp_port,
            http = info.http_port,
            version = info.version,
            "identified"
        );
        registry.identify(&self.id, info, Source::Registered(self.peer.ip()), now);
        self.identified = true;
        let answer = Identified {
            broadcast_address: &identity.broadcast_address,
            hostname: &identity.hostname,
            http_port: identity.http_port,
            tcp_port: identity.tcp_port,
            version: VERSION,
        };
        match serde_json::to_vec(&answer) {
            Ok(answer) => Step::Answer(answer),
            Err(_) => Step::ok(),
        }
    }

    /// The connection is closed, for whatever reason.
    pub(super) fn end(self, registry: &mut Registry) {
        if self.identified {
            registry.leave(&self.id);
            tracing::info!(producer = %self.id, "left");
        }
    }

    fn register(&self, registry: &mut Registry, topic: &Name, channel: Option<&Name>) -> Step {
        match registry.register(&self.id, topic, channel) {
            Ok(()) => Step::ok(),
            // Not fatal: what the producer has registered so far shall stay.
            Err(error) => {
                tracing::error!(producer = %self.id, %topic, %error, "refused a registration");
                Step::Answer(format!("E_INVALID REGISTER {error}").into_bytes())
            }
        }
    }
}

/// Reads an object or `null`, as Go does; an array would do for a structure otherwise.
fn decode(body: &[u8]) -> Option<Identify> {
    let said: Option<Map<String, Value>> = serde_json::from_slice(body).ok()?;
    serde_json::from_value(Value::Object(said.unwrap_or_default())).ok()
}

fn arguments<'a>(
    command: &str,
    mut words: impl Iterator<Item = &'a str>,
) -> Result<Arguments, Step> {
    let Some(topic) = words.next() else {
        let description = format_args!("{command} insufficient number of params");
        return Err(Step::fatal("E_INVALID", description));
    };
    let name = Name::parse(topic).ok_or_else(|| {
        let description = format_args!("{command} topic name '{topic}' is not valid");
        Step::fatal("E_BAD_TOPIC", description)
    })?;
    let channel = words.next().filter(|it| !it.is_empty());
    let channel = channel.map(|channel| {
        Name::parse(channel).ok_or_else(|| {
            let description = format_args!("{command} channel name '{channel}' is not valid");
            Step::fatal("E_BAD_CHANNEL", description)
        })
    });
    Ok((name, channel.transpose()?))
}

#[cfg(test)]
mod tests;
