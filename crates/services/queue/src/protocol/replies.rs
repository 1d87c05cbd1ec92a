//! Answers to commands, in the order of the commands: a publisher need not wait for one message to
//! be safe before it sends the next.

use std::{
    collections::VecDeque,
    error::Error,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};

use super::{command::Verb, fault::Fault, frame};
use crate::broker::{PublishError, Receipt};

/// How many commands may be unanswered; no more are read until some are.
const UNANSWERED_MAX: usize = 1024;
/// How many bytes of messages may be unanswered; no more are read until some are. Three of the
/// largest batches.
const UNANSWERED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Replies {
    waiting: VecDeque<Reply>,
    bytes: usize,
}

enum Reply {
    Response(Bytes),
    Error(Fault),
    Published(Published),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response(data) => write!(f, "{data:?}"),
            Self::Error(fault) => fault.fmt(f),
            Self::Published(it) => write!(f, "{} × {}", it.verb.as_str(), it.commands),
        }
    }
}

/// Commands whose messages are not safe yet.
struct Published {
    committed: Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>,
    verb: Verb,
    commands: usize,
    bytes: usize,
}

impl Replies {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more commands may be read.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < UNANSWERED_MAX && self.bytes < UNANSWERED_BYTES_MAX
    }

    /// Gives back memory that nobody uses.
    pub(super) fn rest(&mut self) {
        self.waiting.shrink_to_fit();
    }

    /// Answers at once if nothing waits, else in turn.
    pub(super) fn respond(&mut self, data: Bytes, out: &mut BytesMut) {
        if self.is_empty() {
            frame::response(out, &data);
        } else {
            self.waiting.push_back(Reply::Response(data));
        }
    }

    /// Refuses at once if nothing waits, else in turn.
    pub(super) fn refuse(&mut self, fault: Fault, out: &mut BytesMut) {
        if self.is_empty() {
            frame::error(out, &fault.text);
        } else {
            self.waiting.push_back(Reply::Error(fault));
        }
    }

    /// Answers as many `commands` when their messages, of so many `bytes`, are safe.
    pub(super) fn published(
        &mut self,
        receipt: Receipt,
        verb: Verb,
        commands: usize,
        bytes: usize,
    ) {
        self.bytes += bytes;
        let committed = Box::pin(receipt.committed());
        self.waiting.push_back(Reply::Published(Published { committed, verb, commands, bytes }));
    }

    /// Waits until answers are due and appends them to `out`; gives the first that ends the
    /// connection. Nothing is lost when it is dropped.
    pub(super) async fn next(&mut self, out: &mut BytesMut) -> Option<Fault> {
        poll_fn(|context| self.poll(context, out)).await
    }

    fn poll(&mut self, context: &mut Context<'_>, out: &mut BytesMut) -> Poll<Option<Fault>> {
        let before = out.len();
        while let Some(first) = self.waiting.front_mut() {
            match first {
                Reply::Response(data) => frame::response(out, data),
                Reply::Error(fault) => frame::error(out, &fault.text),
                Reply::Published(it) => {
                    let Poll::Ready(committed) = it.committed.as_mut().poll(context) else { break };
                    self.bytes -= it.bytes;
                    match committed {
                        Ok(()) => {
                            (0..it.commands).for_each(|_| frame::response(out, frame::OK));
                        }
                        Err(error) => {
                            let fault = not_published(it.verb, &error);
                            self.waiting.clear();
                            return Poll::Ready(Some(fault));
                        }
                    }
                }
            }
            self.waiting.pop_front();
        }
        if before < out.len() { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// What a publisher is told whose messages were not taken.
pub(super) fn not_published(verb: Verb, error: &dyn Error) -> Fault {
    let (name, why) = (verb.as_str(), crate::chain(error));
    Fault::fatal(format!("E_{name}_FAILED {name} failed {why}"))
}
