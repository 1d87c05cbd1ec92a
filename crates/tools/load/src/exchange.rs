//! One request and what came of it, in no protocol's own words. Drivers turn these into bytes and
//! back; scenarios make and read them.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::time::Instant;

/// Where a request goes: what a connection can be shared by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Encrypted or not.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

/// A request, ready to be sent. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where to.
    pub origin: Arc<Origin>,
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: Bytes,
    /// Headers without `host` and `content-length`, which the driver adds.
    pub headers: Arc<HeaderMap>,
    /// Body.
    pub body: Bytes,
    /// How much of the answer is to be kept.
    pub keep: Keep,
    /// After how long the request is given up, counted from its actual start.
    pub timeout: Duration,
}

/// How much of an answer a driver keeps. All of it is read from the wire in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Keep the headers.
    pub headers: bool,
    /// Keep the body, up to [`BODY_MAX`].
    pub body: bool,
}

/// How much of a body is kept for checks and extraction; the rest is read and counted only.
pub const BODY_MAX: usize = 1024 * 1024;

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Headers, if they were to be kept.
    pub headers: HeaderMap,
    /// Body, if it was to be kept.
    pub body: Bytes,
}

/// What came of one request: how long its parts took, and the answer or why there is none.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// How long the parts took.
    pub phases: Phases,
    /// Bytes sent, as counted before encryption.
    pub sent: u64,
    /// Bytes received, as counted after decryption.
    pub received: u64,
    /// Whether it was sent again, because the server had closed the kept connection on which it
    /// was sent first, or said that it had not begun with it. Phases and bytes are those of the second
    /// time.
    pub again: bool,
    /// When the last byte of the answer was read. `None` if there is no answer. It may be a while
    /// before the exchange is looked at: what the generator does meanwhile is none of the server's.
    pub ended: Option<Instant>,
    /// The answer, or why there is none.
    pub outcome: Result<Response, Failure>,
}

/// How long the parts of one request took. A part that did not happen is `None`: a connection that
/// was open already has neither `connect` nor `tls`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Resolving the name and opening the connection.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// From the request's first byte handed to the kernel to the answer's first byte.
    pub first_byte: Option<Duration>,
    /// From the answer's first byte to its last.
    pub body: Option<Duration>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct Failure {
    /// What results count by.
    pub kind: FailureKind,
    /// What happened, in words.
    pub detail: String,
}

/// Kinds of failure, as results count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// The name has no address.
    Dns,
    /// It is not an address of this machine, and nobody said that it may be loaded.
    Foreign,
    /// Nobody listens there.
    Refused,
    /// Any other failure to open a connection.
    Connect,
    /// The TLS handshake failed, or TLS ended the connection later: an alert, or what it cannot read.
    Tls,
    /// The other side ended the connection before the answer was whole.
    Closed,
    /// The answer is not what the protocol allows.
    Protocol,
    /// No whole answer in time.
    Timeout,
    /// The generator has no descriptor left: a limit of its own.
    Descriptors,
    /// The generator has no local port left: a limit of its own.
    Ports,
    /// The generator may not open more connections: a limit of its own.
    Connections,
    /// The answer came and is an HTTP error: status 400 or above, unless the user expects it.
    Status,
    /// The answer came, and a check of the scenario says that it is wrong.
    Check,
}

impl FailureKind {
    /// All kinds, in the order in which they are printed.
    pub const ALL: [Self; 13] = [
        Self::Dns,
        Self::Foreign,
        Self::Refused,
        Self::Connect,
        Self::Tls,
        Self::Closed,
        Self::Protocol,
        Self::Timeout,
        Self::Descriptors,
        Self::Ports,
        Self::Connections,
        Self::Status,
        Self::Check,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Foreign => "foreign",
            Self::Refused => "refused",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Descriptors => "descriptors",
            Self::Ports => "ports",
            Self::Connections => "connections",
            Self::Status => "status",
            Self::Check => "check",
        }
    }

    /// Whether the generator itself is at its limit: what was measured then says nothing about the
    /// server.
    #[must_use]
    pub const fn is_own_limit(self) -> bool {
        matches!(self, Self::Descriptors | Self::Ports | Self::Connections)
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
