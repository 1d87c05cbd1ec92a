//! Every limit of the request path, with its reason and what happens when it is reached.

use std::time::Duration;

use jiff::SignedDuration;

/// Largest request body, in bytes; more is answered with 413. Kubernetes' own limit.
pub(crate) const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A request must be answered within this time, its body having come, or the answer is 504: one byte a
/// second must not hold a place for weeks. Kubernetes' (`--request-timeout`). Watches and logs go on.
pub(crate) const REQUEST_TIME_MAX: Duration = Duration::from_mins(1);

/// Requests from outside that read, and others, which are answered at once; one more is answered with
/// 429. A place is held until the client has taken the answer. Kubernetes' (`--max-requests-inflight`,
/// `--max-mutating-requests-inflight`). Watches, logs, health checks and this process do not count.
pub(crate) const READS_MAX: usize = 400;
pub(crate) const WRITES_MAX: usize = 200;

/// Bytes of large answers that were written whole and that clients have not taken yet, all together; one
/// more is answered with 429. Some lists of the largest cluster that one machine has. Lists in JSON are
/// written while they are sent, and have some pieces each.
pub(crate) const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Bytes of an answer that are given to a connection at once. A client that takes them more slowly than
/// [`UNTAKEN_TIME_MAX`] allows, 4 kB a second, does not read.
pub(crate) const PIECE_BYTES: usize = 256 * 1024;

/// A piece of an answer or a chunk of a watch must be taken within this time; else the stream is cut
/// off, or the connection where it has no streams. As long as Kubernetes lets a request take.
pub(crate) const UNTAKEN_TIME_MAX: Duration = Duration::from_mins(1);

/// A stream that was cut off must have let go of its answer within this time, or its connection ends.
pub(crate) const CUT_TIME_MAX: Duration = Duration::from_secs(1);

/// A connection over which nothing is asked for so long is closed. Kubernetes' own limit.
pub(crate) const IDLE_TIME_MAX: Duration = Duration::from_secs(90);

/// The head of a request must arrive within this time, or the connection is closed. HTTP/1.1 counts it
/// from the end of the request before, so that it is no shorter than what may be idle.
pub(crate) const HEAD_TIME_MAX: Duration = IDLE_TIME_MAX;

/// Snapshots that are sent at once; one more is answered with 429. Each keeps all that the store had when
/// it began.
pub(crate) const SNAPSHOTS_MAX: usize = 4;

/// A TLS handshake must end within this time, or the connection is closed.
pub(crate) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Open connections over all listeners; more wait in the kernel's backlog. An idle one costs about
/// 30 kB, so this many stay under 400 MB.
pub(crate) const CONNECTIONS_MAX: usize = 12_000;

/// Requests at once over one HTTP/2 connection. Kubernetes' default; a client that wants more
/// waits or opens another connection.
pub(crate) const STREAMS_PER_CONNECTION_MAX: u32 = 250;

/// Watches at once; one more is answered with 429. 1 000 watchers are an expected load.
pub(crate) const WATCHES_MAX: usize = 10_000;

/// Bytes of watch events handed to a connection at once. Events after that wait in the store's
/// shared history until the client has taken these; a client that does not is cut off after
/// [`UNTAKEN_TIME_MAX`].
pub(crate) const WATCH_CHUNK_BYTES: usize = 64 * 1024;

/// Answers of more bytes than this are compressed for clients that take it. As in Kubernetes: below,
/// compressing costs more than it saves.
pub(crate) const COMPRESSED_BYTES_MIN: usize = 128 * 1024;

/// Pages of a list can be had as of its first one for this long; then 410, with a token that goes on
/// with what is newest. As in Kubernetes, whose store forgets after this.
pub(crate) const CONTINUE_TIME_MAX: SignedDuration = SignedDuration::from_mins(5);

/// How often a watch that allows bookmarks gets one when nothing else happens. As in Kubernetes.
pub(crate) const BOOKMARK_PERIOD: Duration = Duration::from_mins(1);

/// Shortest and longest life of a watch whose client names no `timeoutSeconds`, in seconds. As in
/// Kubernetes (`--min-request-timeout`); the spread keeps clients from returning all at once.
pub(crate) const WATCH_SECONDS: std::ops::Range<u64> = 1_800..3_600;

/// How often a write is computed anew because the object changed meanwhile, before the client gets
/// the conflict. Each round means that some other write succeeded.
pub(crate) const WRITE_ATTEMPTS_MAX: u32 = 32;

/// Pods that a disruption budget may have let go without its controller having seen that; one more
/// is refused. As in Kubernetes.
pub(crate) const BUDGET_EVICTIONS_MAX: usize = 2_000;

/// How often `generateName` is tried with another suffix. As in Kubernetes.
pub(crate) const GENERATE_NAME_ATTEMPTS_MAX: u32 = 8;

/// Operations in one JSON patch; more is answered with 413. As in Kubernetes.
pub(crate) const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// Bytes that one JSON patch may copy and move, all operations together; more is answered with 413. As in
/// Kubernetes, which counts copies only: what is moved is looked at here, so it costs as much.
pub(crate) const JSON_PATCH_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Levels of nesting in an object; deeper ones are answered with 400. What is stored must be readable
/// again, and the JSON parser stops at 127; no kind needs a third of this.
pub(crate) const DEPTH_MAX: usize = 100;

/// Letters of all warnings in one answer. If they have more, each is cut to
/// [`WARNING_LETTERS_MAX`], and those that come when this is reached are left out. As in Kubernetes:
/// clients and proxies refuse answers whose headers are larger than some kilobytes.
pub(crate) const WARNINGS_LETTERS_MAX: usize = 4 * 1024;

/// Letters of one warning among too many. As in Kubernetes.
pub(crate) const WARNING_LETTERS_MAX: usize = 256;

/// Levels of nesting in a YAML text; deeper ones are answered with 400. Its parser takes some 20 kB of
/// a thread's 2 MB for each without optimisation, and no kind has a fourth of this.
pub(crate) const YAML_DEPTH_MAX: usize = 64;

/// Values in one YAML text, those that its aliases repeat counted too; more are answered with 400. A
/// small text can stand for billions; a definition of a megabyte, such as of custom resources, has some
/// 60 000.
pub(crate) const YAML_NODES_MAX: usize = 250_000;

/// Bytes of all texts in one YAML text, those that its aliases repeat counted too; more are answered
/// with 400. What has more cannot be stored.
pub(crate) const YAML_SCALAR_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Aliases, anchors and merge keys in one YAML text; more are answered with 400. People write a few.
pub(crate) const YAML_ALIASES_MAX: usize = 50_000;

/// Findings in one applied object that are told, and conflicts; the rest is counted. Each has a path,
/// which may be long.
pub(crate) const FINDINGS_MAX: usize = 100;

/// After stop was asked, requests that are being answered have this long.
pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// After stop was asked, a client that takes nothing of its answer for this long is not waited for: it
/// watches and does not read. Long enough for one that does read.
pub(crate) const DRAIN_UNTAKEN_TIME_MAX: Duration = Duration::from_millis(20);

/// Wait after `accept` failed (no file descriptors left), so that the loop does not spin.
pub(crate) const ACCEPT_RETRY: Duration = Duration::from_millis(100);
