//! nsqd's side of NSQ's TCP protocol, version 2 (nsq.io, "TCP Protocol Spec").
//!
//! Clients cannot tell it from the original, down to the text of errors. It holds no messages:
//! what is published goes to the broker, what is consumed comes from there.

#[cfg_attr(not(test), expect(dead_code, reason = "the connections, which fill it, follow"))]
mod clients;
mod options;

pub use clients::{ClientStats, Clients, PubCount, State};
pub use options::{
    AuthMethod, AuthOptions, ClientAuth, DESCRIPTORS_RESERVED, HANDSHAKE_TIMEOUT, LINE_MAX,
    Options, TlsOptions, TlsVersion,
};
