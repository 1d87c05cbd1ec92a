//! Limits of the proxy, each with its reason. What happens at one is said where it is used.

use std::time::Duration;

/// Connections from clients at a time; the next one waits in the backlog. A silent one takes some 25 KiB, so all
/// of them 400 MiB. Where the process may not have as many descriptors, its [`Room`](runtime::Room) ends before.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;
/// Descriptors of one: its own. Those to endpoints are shared, and their number is bounded.
pub(crate) const DESCRIPTORS: u32 = 1;

/// Wait when no descriptor is left, which `accept` would report again at once.
pub(crate) const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long the head of a request may take, and how long a connection may be without one: who sends a
/// byte now and then must not hold a connection.
pub(crate) const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// Bytes of a request's head. nginx takes 32 KiB, Go 1 MiB; browsers stop at 16 KiB or less of cookies
/// for a host. More is answered with 431.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Header fields of a request. More is answered with 431.
pub(crate) const HEADERS_MAX: usize = 128;

/// Bytes of a path with its query; nginx and Apache take 8 KiB of a whole request line. A longer one is
/// answered with 414.
pub(crate) const TARGET_BYTES_MAX: usize = 16 * 1024;

/// Requests at a time on one HTTP/2 connection; a client that wants more waits, as it was told.
pub(crate) const STREAMS_MAX: u32 = 256;

/// How long an endpoint may take to accept a connection. They are on this machine, so one that takes
/// longer has a full backlog or is gone; another one is tried then.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// For how long another endpoint is tried when none could be connected to: three that do not answer. Those
/// that refuse do so at once, and then all are tried, as those of a lost node may stand in a row.
pub(crate) const CONNECTS_TIME_MAX: Duration = CONNECT_TIME_MAX.saturating_mul(3);

/// How long an endpoint may take to begin its answer once nothing more of the request was sent to it: what
/// nginx allows. 504 after it.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a connection to an endpoint is kept without a request. Servers close theirs after 5 s (Node),
/// 75 s (nginx) or never; whoever closes first, the next request takes another connection.
pub(crate) const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// Connections without a request that are kept per endpoint; what comes back beyond is closed.
pub(crate) const IDLE_MAX: usize = 64;

/// How long requests in flight may go on when the cluster process stops.
pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a TLS handshake may take; the rest of a connection's beginning has a limit of its own.
pub(crate) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Certificates that are kept of those made here: more than a person has hosts, at some 2 KiB each. All are
/// forgotten at the limit, and made again when asked for.
pub(crate) const CERTIFICATES_MAX: usize = 1024;

/// Routes to Services that are counted apart. Objects come and go; at the limit, what was counted of those
/// without a request is forgotten.
pub(crate) const SERIES_MAX: usize = 10_000;

/// Lines of the access log that wait to be written: at most some 800 KiB, and what 200 000 requests a second make
/// during a pause. More are lost, and their number is said.
pub(crate) const LOG_LINES_MAX: usize = 4096;

/// Between two writes of the access log, each of which costs some ten calls of the kernel on another thread: what
/// comes meanwhile is written together. Nobody who reads along notices.
pub(crate) const LOG_PAUSE: Duration = Duration::from_millis(20);

/// Bytes of the access log, after which another begins. One that is full is kept beside it.
pub(crate) const LOG_BYTES_MAX: u64 = 16 << 20;

/// Names of hosts that an answer lists; a page is for reading.
pub(crate) const HOSTS_SHOWN_MAX: usize = 50;
