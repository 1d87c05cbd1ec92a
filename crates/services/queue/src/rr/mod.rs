//! Request and reply over the queue: a caller publishes a request that names a topic for the
//! reply and a number to know it by, and a server publishes the reply there.
//!
//! Two dialects of programs that exist: the library svckit (package `nsq`) and its successor nsqm.
//! Any client of the queue can carry them; this module has no connection of its own. It is what is
//! between a handler and the queue, without input, output or clock: messages ([`Envelope`]), the
//! caller's side ([`Calls`]) and the server's ([`Server`]).
//!
//! What both sides get from the queue: requests are shared among the instances of a server (one
//! channel), a request that was not finished comes again, so handlers must be idempotent. What they
//! do not get: a reply is published at most once for each time a request is handled, and is lost to
//! a caller that has gone.

mod calls;
mod envelope;
mod server;
#[cfg(test)]
mod tests;

pub use calls::{Call, Calls, Dropped, Outcome, TooManyCalls};
pub use envelope::{DecodeError, Dialect, Envelope};
pub use server::{Action, Handled, Received, Request, RequeueOn, Server};
