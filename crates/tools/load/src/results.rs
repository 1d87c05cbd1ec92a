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
    /// What came of the thresholds, in their order; empty if there were none, and until they are
    /// judged.
    pub verdicts: Vec<Verdict>,
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
    /// Requests that were sent a second time, because the server had closed the kept connection on
    /// which they were sent first, or refused to begin with them; counted once everywhere else.
    pub again: u64,
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
    /// The same from the actual start. What latency has more passed before the request was sent.
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

/// What came of one threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The threshold, as it is printed.
    pub threshold: String,
    /// Whether it was reached.
    pub met: bool,
    /// What was found instead of the bound, in the words of a threshold, or why nothing was.
    pub found: String,
    /// What was found, in `unit`; none if nothing was.
    pub measured: Option<f64>,
    /// With what it was compared, in `unit`.
    pub bound: f64,
    /// What both numbers count.
    pub unit: Unit,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// How often something happened.
    Count,
    /// A share from 0 to 1.
    Share,
    /// Something per second.
    PerSecond,
}

impl Unit {
    /// Its name in what machines read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Count => "count",
            Self::Share => "share",
            Self::PerSecond => "per_second",
        }
    }
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

/// A histogram without a value.
#[must_use]
#[expect(clippy::expect_used, reason = "three digits are allowed, and nothing else is checked")]
pub fn times() -> Times {
    Times::new(DIGITS).expect("a histogram of three digits")
}

impl Default for Series {
    fn default() -> Self {
        Self {
            meant: 0,
            started: 0,
            done: 0,
            again: 0,
            succeeded: 0,
            failures: BTreeMap::new(),
            statuses: BTreeMap::new(),
            checks: BTreeMap::new(),
            latency: times(),
            service: times(),
            connect: times(),
            tls: times(),
            first_byte: times(),
            body: times(),
            sent: 0,
            received: 0,
        }
    }
}

impl Series {
    /// Requests that failed, of whatever kind.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Takes in what another has measured of other requests.
    pub fn add(&mut self, other: &Self) {
        self.meant += other.meant;
        self.started += other.started;
        self.done += other.done;
        self.again += other.again;
        self.succeeded += other.succeeded;
        add(&mut self.failures, &other.failures);
        add(&mut self.statuses, &other.statuses);
        add(&mut self.checks, &other.checks);
        self.latency += &other.latency;
        self.service += &other.service;
        self.connect += &other.connect;
        self.tls += &other.tls;
        self.first_byte += &other.first_byte;
        self.body += &other.body;
        self.sent += other.sent;
        self.received += other.received;
    }
}

/// Adds counts to counts of the same keys.
pub(crate) fn add<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *to.entry(key.clone()).or_default() += count;
    }
}

impl Default for Second {
    fn default() -> Self {
        Self {
            meant: 0,
            done: 0,
            failures: BTreeMap::new(),
            in_flight: 0,
            late: 0,
            latency: times(),
        }
    }
}

impl Second {
    /// Requests of this second that failed, of whatever kind.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of the sample: requests per second, and seconds.
    const RATE: u64 = 100;
    const SECONDS: u64 = 10;
    const MILLISECOND: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MILLISECOND;

    /// An open run of 10 s at 100/s on one kept connection, against a server that freezes from 4 s to
    /// 6 s, answers some with an error, and never answers two. Worked out, not measured: always the
    /// same.
    pub(crate) fn sample() -> Results {
        let mut total = Series::default();
        let mut steps = [Series::default(), Series::default()];
        let mut seconds = vec![Second::default(); usize::try_from(SECONDS).unwrap()];
        let mut own = Own {
            lag: times(),
            late: 0,
            dropped: 0,
            cpu: Duration::from_millis(840),
            cores: 2,
            unanswered: 2,
        };
        for index in 0..RATE * SECONDS {
            let meant = index * SECOND / RATE;
            let step = &mut steps[usize::from(index % 4 == 3)];
            own.lag
                .record(20_000 + index % 17 * 3_000 + u64::from(index == 700) * 1_900_000)
                .unwrap();
            own.late += u64::from(index == 700);
            answer(index, meant, step, &mut seconds);
        }
        for step in &steps {
            total.add(step);
        }
        total.connect.record(310_000).unwrap();
        total.tls.record(2_400_000).unwrap();
        Results {
            began: "2026-11-21T19:00:00Z".parse().unwrap(),
            took: Duration::from_millis(10_004),
            planned: Duration::from_secs(SECONDS),
            interrupted: false,
            seed: 7,
            mode: Mode::Open,
            targets: vec!["https://127.0.0.1:8443/".to_owned()],
            total,
            steps: ["shop/home", "shop/buy"].map(str::to_owned).into_iter().zip(steps).collect(),
            seconds,
            own,
            verdicts: Vec::new(),
        }
    }

    /// One threshold reached, one missed, and one of which nothing is known.
    pub(crate) fn verdicts() -> Vec<Verdict> {
        let sample = Verdict {
            threshold: "p99 < 2s".to_owned(),
            met: true,
            found: "1.914699s".to_owned(),
            measured: Some(1.914_699),
            bound: 2.0,
            unit: Unit::Seconds,
        };
        let missed = Verdict {
            threshold: "error rate < 1%".to_owned(),
            met: false,
            found: "2.700%".to_owned(),
            measured: Some(0.027),
            bound: 0.01,
            unit: Unit::Share,
        };
        let unknown = Verdict {
            threshold: "shop/buy: tls p50 < 1s".to_owned(),
            met: false,
            found: "nothing was measured".to_owned(),
            measured: None,
            bound: 1.0,
            unit: Unit::Seconds,
        };
        vec![sample, missed, unknown]
    }

    /// One request of the sample.
    fn answer(index: u64, meant: u64, step: &mut Series, seconds: &mut [Second]) {
        let frozen = 4 * SECOND..6 * SECOND;
        let service = 2 * MILLISECOND
            + index * 7919 % 31 * 100_000
            + u64::from(index.is_multiple_of(97)) * 20 * MILLISECOND;
        let start = if frozen.contains(&meant) { frozen.end } else { meant };
        let end = start + service;
        let at = |time: u64| usize::try_from(time / SECOND).unwrap().min(seconds.len() - 1);
        let (from, to) = (at(meant), at(end));
        step.meant += 1;
        step.started += 1;
        step.done += 1;
        step.sent += 80;
        seconds[from].meant += 1;
        seconds[from].late += u64::from(index == 700);
        seconds[to].done += 1;
        for second in &mut seconds[from..to] {
            second.in_flight += 1;
        }
        let failure = match index {
            300 | 301 => Some(FailureKind::Timeout),
            _ if index % 50 == 49 => Some(FailureKind::Status),
            _ if index % 200 == 3 => Some(FailureKind::Check),
            _ => None,
        };
        if let Some(kind) = failure {
            *step.failures.entry(kind).or_default() += 1;
            *seconds[to].failures.entry(kind).or_default() += 1;
        }
        step.succeeded += u64::from(failure.is_none());
        if failure == Some(FailureKind::Timeout) {
            return;
        }
        if failure == Some(FailureKind::Check) {
            *step.checks.entry("has a token".to_owned()).or_default() += 1;
        }
        *step
            .statuses
            .entry(if failure == Some(FailureKind::Status) { 503 } else { 200 })
            .or_default() += 1;
        step.received += 1_500;
        step.latency.record(end - meant).unwrap();
        step.service.record(service).unwrap();
        step.first_byte.record(service * 9 / 10).unwrap();
        step.body.record(service / 10).unwrap();
        seconds[to].latency.record(end - meant).unwrap();
    }

    #[test]
    fn the_sample_may_be_believed() {
        assert_eq!(sample().doubts(), []);
    }

    #[test]
    fn late_starts_are_doubted_above_their_share_only() {
        let mut results = sample();
        results.own.late = 10;
        assert_eq!(results.doubts(), []);
        results.own.late = 11;
        assert_eq!(results.doubts(), [Doubt::Late { share: 0.011 }]);
    }

    #[test]
    fn every_limit_is_doubted() {
        let mut results = sample();
        results.own.dropped = 3;
        results.total.failures.insert(FailureKind::Ports, 5);
        results.total.succeeded = 0;
        let ports = Doubt::Limit { kind: FailureKind::Ports, times: 5 };
        assert_eq!(results.doubts(), [Doubt::Dropped(3), ports, Doubt::NoSuccess]);
    }
}
