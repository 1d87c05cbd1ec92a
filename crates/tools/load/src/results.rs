//! What a run measured, and whether it may be believed. Plain data: reports print it, thresholds
//! read it.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use jiff::Timestamp;

use crate::exchange::FailureKind;

/// Significant decimal digits of every histogram: 0.1 %.
pub const DIGITS: u8 = 3;
/// A start this much after it was meant is late.
pub const LATE_AFTER: Duration = Duration::from_millis(1);
/// Share of late starts above which percentiles are withheld.
pub const LATE_SHARE_MAX: f64 = 0.01;

/// Durations in nanoseconds, [`DIGITS`] significant digits; grows as needed.
pub type Times = Histogram<u64>;

/// All that a run measured.
#[derive(Clone, Debug)]
pub struct Results {
    /// When the first start was meant.
    pub began: Timestamp,
    /// From then to the last answer, or to the end of waiting.
    pub took: Duration,
    /// How long starts were meant for: the length of the schedule, shorter if the run was
    /// interrupted. What is meant divided by this is the rate meant.
    pub planned: Duration,
    /// Whether somebody ended the run before its plan did.
    pub interrupted: bool,
    /// The seed of schedule and choices.
    pub seed: u64,
    /// How arrivals were decided.
    pub mode: Mode,
    /// What was aimed at, as the user wrote it.
    pub targets: Vec<String>,
    /// Everything.
    pub total: Series,
    /// The same per step, named `flow/step`, in the order of the plan.
    pub steps: Vec<(String, Series)>,
    /// Seconds of the run, counted from `began`, in order, none missing.
    pub seconds: Vec<Second>,
    /// How the generator itself did.
    pub own: Own,
}

/// How arrivals were decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By a schedule: latency counts from the meant start.
    Open,
    /// By the answers before: latency counts from the actual start and hides what the server did to
    /// those who would have come meanwhile.
    Closed,
}

/// Measurements of one kind of request.
#[derive(Clone, Debug)]
pub struct Series {
    /// Starts that the schedule meant (first steps), or that followed from an answer (later steps).
    pub meant: u64,
    /// Requests that were started.
    pub started: u64,
    /// Requests that ended, well or not.
    pub done: u64,
    /// Requests that were answered well.
    pub succeeded: u64,
    /// Requests that were not, by kind.
    pub failures: BTreeMap<FailureKind, u64>,
    /// Answers by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Failed checks by name.
    pub checks: BTreeMap<String, u64>,
    /// From the meant start to the last byte of the answer; of every answer, also of an HTTP error or
    /// one that fails a check. A request without an answer is not in here but among the failures.
    pub latency: Times,
    /// The same from the actual start: what a generator that forgives the server would report.
    pub service: Times,
    /// Opening connections.
    pub connect: Times,
    /// TLS handshakes.
    pub tls: Times,
    /// Request sent to first byte.
    pub first_byte: Times,
    /// First byte to last.
    pub body: Times,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// One second of a run.
#[derive(Clone, Debug)]
pub struct Second {
    /// Starts meant in this second.
    pub meant: u64,
    /// Requests ended in this second.
    pub done: u64,
    /// Those of them that failed, by kind.
    pub failures: BTreeMap<FailureKind, u64>,
    /// Requests under way at its end.
    pub in_flight: u64,
    /// Starts of this second that were later than [`LATE_AFTER`]: where the generator was the one
    /// who was slow.
    pub late: u64,
    /// Latency of those that were answered in it.
    pub latency: Times,
}

/// A run under way, as its watcher sees it: about once a second, more often for a terminal.
#[derive(Clone, Debug)]
pub struct Progress<'run> {
    /// Since the first meant start.
    pub elapsed: Duration,
    /// How long the schedule lasts, without the waiting for answers after it.
    pub planned: Duration,
    /// How arrivals are decided.
    pub mode: Mode,
    /// All seconds that have ended, as in [`Results::seconds`]. Most often the last was there
    /// before, sometimes several are new.
    pub seconds: &'run [Second],
    /// Starts meant so far.
    pub meant: u64,
    /// Requests ended so far.
    pub done: u64,
    /// Those of them that failed, by kind.
    pub failures: &'run BTreeMap<FailureKind, u64>,
    /// Requests under way.
    pub in_flight: u64,
    /// From meant to actual start, so far.
    pub lag: &'run Times,
    /// Starts later than [`LATE_AFTER`], so far.
    pub late: u64,
    /// Starts that were meant and will never happen, so far.
    pub dropped: u64,
}

/// How the generator itself did.
#[derive(Clone, Debug)]
pub struct Own {
    /// From meant to actual start of everything that the schedule meant.
    pub lag: Times,
    /// Starts later than [`LATE_AFTER`].
    pub late: u64,
    /// Starts that were meant and never happened.
    pub dropped: u64,
    /// Processor time used, of all threads.
    pub cpu: Duration,
    /// Cores that this process may use.
    pub cores: usize,
    /// Requests still without an answer when waiting ended.
    pub unanswered: u64,
}

/// Why percentiles are withheld.
#[derive(Clone, Debug, PartialEq)]
pub enum Doubt {
    /// More than [`LATE_SHARE_MAX`] of the starts were late by more than [`LATE_AFTER`].
    Late {
        /// Their share, 0 to 1.
        share: f64,
    },
    /// Starts never happened.
    Dropped(u64),
    /// The generator hit a limit of its own.
    Limit {
        /// Which.
        kind: FailureKind,
        /// How often.
        times: u64,
    },
    /// Nothing succeeded.
    NoSuccess,
}

impl Results {
    /// Why the percentiles say nothing about the server; empty if they do.
    #[must_use]
    pub fn doubts(&self) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        let starts = self.own.lag.len();
        #[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
        let share = if starts == 0 { 0.0 } else { self.own.late as f64 / starts as f64 };
        if share > LATE_SHARE_MAX {
            doubts.push(Doubt::Late { share });
        }
        if self.own.dropped > 0 {
            doubts.push(Doubt::Dropped(self.own.dropped));
        }
        for (kind, times) in self.total.failures.iter().filter(|(it, _)| it.is_own_limit()) {
            doubts.push(Doubt::Limit { kind: *kind, times: *times });
        }
        if self.total.succeeded == 0 {
            doubts.push(Doubt::NoSuccess);
        }
        doubts
    }
}
