//! A small client for NSQ, version 2 of its protocol: a [`Producer`] that publishes to one nsqd, and
//! [`consume`], which finds every nsqd that has a topic and hands its messages to a function.
//!
//! No TLS, no compression, no AUTH: a client library of NSQ has these.

mod connection;
mod consumer;
mod lookup;
mod producer;
mod wire;

pub use consumer::{Outcome, Subscription, consume};
pub use producer::{Producer, PublishError};
pub use wire::{Id, Message};
