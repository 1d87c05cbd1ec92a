//! The bodies of commands: how large they may be, and what is said when they are not.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};

use super::Verb;
use crate::{name::Name, protocol::fault::Fault};

/// How many bytes a size has on the wire.
pub(super) const SIZE: usize = 4;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) body: u32,
    pub(super) message: u32,
    pub(super) req: Duration,
    pub(super) rdy: u32,
}

/// A command whose body is still to come.
#[derive(Clone, Debug)]
pub(super) enum Head {
    Identify,
    Auth,
    Publish { verb: Verb, topic: Name, delay: Duration, key: Option<Bytes> },
}

impl Head {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Identify => "IDENTIFY",
            Self::Auth => "AUTH",
            Self::Publish { verb, .. } => verb.as_str(),
        }
    }

    /// The size of the body, if it may have it.
    pub(super) fn check(&self, given: i32, limits: Limits) -> Result<usize, Fault> {
        let name = self.name();
        let (code, what, too_big, max) = match self {
            Self::Identify | Self::Auth => ("E_BAD_BODY", "body", "body", limits.body),
            Self::Publish { .. } => ("E_BAD_MESSAGE", "message body", "message", limits.message),
        };
        match u32::try_from(given) {
            Ok(size) if size > max => {
                Err(Fault::fatal(format!("{code} {name} {too_big} too big {given} > {max}")))
            }
            Ok(size @ 1..) => Ok(widened(size)),
            _ => Err(Fault::fatal(format!("{code} {name} invalid {what} size {given}"))),
        }
    }
}

pub(super) fn whole_batch(given: i32, limits: Limits) -> Result<usize, Fault> {
    let max = limits.body;
    match u32::try_from(given) {
        Ok(size) if size > max => {
            Err(Fault::fatal(format!("E_BAD_BODY MPUB body too big {given} > {max}")))
        }
        Ok(size @ 1..) => Ok(widened(size)),
        _ => Err(Fault::fatal(format!("E_BAD_BODY MPUB invalid body size {given}"))),
    }
}

pub(super) fn batch_count(given: i32, limits: Limits) -> Result<usize, Fault> {
    // Each message is at least a size and one byte.
    let max = limits.body.saturating_sub(4) / 5;
    match u32::try_from(given) {
        Ok(count) if (1..=max).contains(&count) => Ok(widened(count)),
        _ => Err(Fault::fatal(format!("E_BAD_BODY MPUB invalid message count {given}"))),
    }
}

pub(super) fn one_of_batch(given: i32, at: usize, limits: Limits) -> Result<usize, Fault> {
    let max = limits.message;
    match u32::try_from(given) {
        Ok(size) if size > max => {
            Err(Fault::fatal(format!("E_BAD_MESSAGE MPUB message too big {given} > {max}")))
        }
        Ok(size @ 1..) => Ok(widened(size)),
        _ => {
            Err(Fault::fatal(format!("E_BAD_MESSAGE MPUB invalid message({at}) body size {given}")))
        }
    }
}

/// No machine this runs on has a smaller word.
fn widened(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

pub(super) fn peek_size(input: &[u8]) -> Option<i32> {
    input.first_chunk::<SIZE>().map(|it| i32::from_be_bytes(*it))
}

pub(super) fn size_in(input: &mut BytesMut) -> Option<i32> {
    let size = peek_size(input)?;
    input.advance(SIZE);
    Some(size)
}
