//! NSQ's protocol, with messages that are safe and can be replayed.
//!
//! One program, three roles, as in the original: `nsqd` holds topics and their messages,
//! `nsqlookupd` tells consumers where a topic is, `nsqadmin` shows both to a person. Each runs
//! alone, in a pod, or inside the one binary. This crate knows nothing of Kubernetes.
//!
//! What it promises:
//! * A message is acknowledged to its publisher only when it is as durable as [`Durability`] says,
//!   and no consumer sees it before.
//! * After a crash every acknowledged message is delivered to every channel that had not finished
//!   it, in flight or not.
//! * A message stays readable after it was finished, for as long as the retention says: a channel
//!   may begin, or begin again, at any message that is still there.

pub mod admin;
pub mod bodies;
pub mod broker;
pub mod cli;
pub mod disk;
pub mod http;
pub mod journal;
pub mod listen;
pub mod log;
pub mod lookupd;
pub mod message;
pub mod name;
pub mod nsqd;
pub mod peers;
pub mod protocol;
pub mod rr;
pub mod stats;
pub mod tls;
mod web;

/// What went wrong with all its causes, for somebody who is told one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |it| it.source())
        .fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

/// What a message has survived when its publisher is told `OK`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing yet: it is in this process's memory, and goes to files when memory is short or the
    /// process ends as asked. What the original does by default.
    Memory,
    /// A crash of this process: the kernel has it.
    Process,
    /// A crash of the machine: it has been flushed.
    #[default]
    Disk,
}
