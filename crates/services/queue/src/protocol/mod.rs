//! nsqd's side of NSQ's TCP protocol, version 2 (nsq.io, "TCP Protocol Spec").
//!
//! Clients cannot tell it from the original, down to the text of errors. It holds no messages:
//! what is published goes to the broker, what is consumed comes from there.

mod auth;
mod clients;
mod command;
mod connection;
mod deflate;
mod execute;
mod fault;
mod frame;
#[cfg(test)]
mod full_disk;
mod greeting;
mod identify;
mod options;
mod replies;
mod server;
mod snappy;
mod tls;
mod transport;

pub use crate::tls::TlsError;
pub use clients::{ClientStats, Clients, PubCount, State};
pub use command::KEY_MAX;
pub use options::{
    AuthMethod, AuthOptions, ClientAuth, DESCRIPTORS_RESERVED, HANDSHAKE_TIMEOUT, LINE_MAX,
    Options, TlsOptions, TlsVersion,
};
pub use server::{Server, build};
