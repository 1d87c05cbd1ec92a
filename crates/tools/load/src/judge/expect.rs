//! What an open-loop client must have seen of a server: from the server's record if the client sent
//! what it was meant to send, else from the law at the moments when it should have sent.

use std::time::Duration;

use crate::judge::{
    law::Outcome,
    record::{PAUSE_MIN, Record},
};

/// An arrival this much after it was meant is late. Wider than what a decent generator does, so that
/// a coarse timer is not taken for waiting.
pub const LATE_AFTER: Duration = Duration::from_millis(10);
/// Share of late, missing or surplus arrivals above which the schedule was not kept.
pub const ASTRAY_SHARE_MAX: f64 = 0.01;
/// Of the arrivals meant during stalls, the share that an open-loop client makes at least.
pub const STALLED_SHARE_MIN: f64 = 0.9;

/// When requests are meant to arrive: pieces of linearly changing rate, evenly spaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Course(pub Vec<Piece>);

/// A piece of a [`Course`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    /// How long, in seconds.
    pub seconds: f64,
    /// Arrivals per second at its beginning.
    pub from: f64,
    /// Arrivals per second at its end.
    pub to: f64,
}

impl Piece {
    fn count(&self) -> f64 {
        self.seconds * f64::midpoint(self.from, self.to)
    }

    /// When so many have arrived, in seconds from its beginning.
    fn when(&self, count: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        // slope/2 t² + from t = count, in the form that also holds without a slope.
        let root = (self.from * self.from + 2.0 * slope * count).max(0.0).sqrt();
        if self.from + root <= 0.0 { 0.0 } else { 2.0 * count / (self.from + root) }
    }
}

impl Course {
    /// A constant rate.
    #[must_use]
    pub fn even(rate: f64, duration: Duration) -> Self {
        Self(vec![Piece { seconds: duration.as_secs_f64(), from: rate, to: rate }])
    }

    /// When each request is meant to arrive, from the beginning of the course.
    #[must_use]
    pub fn starts(&self) -> Vec<Duration> {
        let (mut starts, mut begin, mut before) = (Vec::new(), 0.0, 0.0);
        for piece in &self.0 {
            let upto = before + piece.count();
            // What rounding leaves of a whole number is none.
            while (starts.len() as f64) < upto - 1e-6 {
                let when = begin + piece.when(starts.len() as f64 - before);
                starts.push(Duration::try_from_secs_f64(when).unwrap_or_default());
            }
            before = upto;
            begin += piece.seconds;
        }
        starts
    }
}

/// What the generator's schedule is taken from.
#[derive(Clone, Debug, PartialEq)]
pub enum Meant {
    /// This was asked of it.
    Course(Course),
    /// At these moments, ascending and from any moment on: for a schedule that is random and known.
    Moments(Vec<Duration>),
    /// What arrived is what was meant: for schedules that only the generator knows. Does not see a
    /// generator that waited.
    Arrivals,
}

/// What an open-loop client must have seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// Where it comes from.
    pub source: Source,
    /// Latency of every answer, counted from when its request was meant to start; sorted.
    pub latencies: Vec<Duration>,
    /// The same, had each answer that was given while the machine stood still been seen only when it
    /// went on; sorted. Between the two is what a client on this machine saw.
    pub latest: Vec<Duration>,
    /// How the arrivals kept the schedule.
    pub arrivals: Arrivals,
}

/// Where an expectation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From what the server did.
    Record,
    /// From what the server would have done, had the requests come when they were meant to.
    Law,
}

/// How arrivals kept the schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// How many were meant.
    pub meant: u64,
    /// How many came.
    pub arrived: u64,
    /// How many of those came more than [`LATE_AFTER`] after they were meant to.
    pub late: u64,
    /// How many were meant to come while the server was frozen.
    pub stalled_meant: u64,
    /// How many did.
    pub stalled_arrived: u64,
}

impl Arrivals {
    /// Whether the schedule was kept, but for [`ASTRAY_SHARE_MAX`].
    #[must_use]
    pub fn kept(&self) -> bool {
        let astray = self.meant.abs_diff(self.arrived) + self.late;
        astray as f64 <= self.meant as f64 * ASTRAY_SHARE_MAX
    }

    /// Whether the generator waited for the frozen server: coordinated omission.
    #[must_use]
    pub fn omitted(&self) -> bool {
        (self.stalled_arrived as f64) < self.stalled_meant as f64 * STALLED_SHARE_MIN
    }
}

impl Expectation {
    /// The latency that a share of the answers, 0 to 1, do not exceed; zero if there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        quantile(&self.latencies, share)
    }

    /// The same of [`Self::latest`].
    #[must_use]
    pub fn quantile_latest(&self, share: f64) -> Duration {
        quantile(&self.latest, share)
    }
}

fn quantile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of answers"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Computes what an open-loop client must have seen.
#[must_use]
pub fn expect(record: &Record, meant: &Meant) -> Expectation {
    let arrivals: Vec<Duration> =
        record.entries.iter().map(|it| Duration::from_nanos(it.arrival - record.began())).collect();
    let starts = match meant {
        Meant::Course(course) => course.starts(),
        Meant::Moments(moments) => from_first(moments),
        Meant::Arrivals => arrivals.clone(),
    };
    let lead = lead(&starts, &arrivals);
    let stalled = |moment: &Duration| record.law.stalls.iter().any(|it| it.contains(*moment));
    let late = starts
        .iter()
        .zip(&arrivals)
        .filter(|(start, arrival)| **arrival + lead > **start + LATE_AFTER);
    let count = |it: usize| it as u64;
    let kept = Arrivals {
        meant: count(starts.len()),
        arrived: count(arrivals.len()),
        late: count(late.count()),
        stalled_meant: count(starts.iter().filter(|it| stalled(it)).count()),
        stalled_arrived: count(arrivals.iter().filter(|it| stalled(it)).count()),
    };
    let source = if kept.kept() { Source::Record } else { Source::Law };
    let (mut latencies, mut latest) = match source {
        Source::Record => {
            let there = |answer| record.pause(answer).map_or(answer, |it| it.to);
            let earliest = match meant {
                Meant::Course(_) | Meant::Moments(_) => starts.clone(),
                Meant::Arrivals => sent(record),
            };
            (recorded(record, &starts, lead, |it| it), recorded(record, &earliest, lead, there))
        }
        Source::Law => (lawful(record, &starts), lawful(record, &starts)),
    };
    latencies.sort_unstable();
    latest.sort_unstable();
    Expectation { source, latencies, latest, arrivals: kept }
}

/// Moments, counted from the first of them.
fn from_first(moments: &[Duration]) -> Vec<Duration> {
    let first = moments.first().copied().unwrap_or_default();
    moments.iter().map(|it| it.saturating_sub(first)).collect()
}

/// How long before the first arrival the schedule began, at least: no request arrives before it was
/// meant to, so the earliest, relative to the schedule, came in time. Bounded, because a generator
/// that sends more than it should is ever earlier.
fn lead(starts: &[Duration], arrivals: &[Duration]) -> Duration {
    let leads = starts.iter().zip(arrivals).map(|(start, arrival)| start.saturating_sub(*arrival));
    leads.max().unwrap_or_default().min(LATE_AFTER)
}

/// When requests were sent at the earliest: what was read when the machine went on may have come when
/// it stood still.
fn sent(record: &Record) -> Vec<Duration> {
    let sent = |arrival: u64| {
        let pause = [arrival, arrival - PAUSE_MIN.min(arrival)].map(|it| record.pause(it));
        let [pause, just_over] = pause;
        pause.or(just_over).map_or(arrival, |it| it.from.max(record.began()))
    };
    record
        .entries
        .iter()
        .map(|it| Duration::from_nanos(sent(it.arrival) - record.began()))
        .collect()
}

/// What was seen of the server as it was, if an answer given at one moment was there at another.
fn recorded(
    record: &Record,
    starts: &[Duration],
    lead: Duration,
    there: impl Fn(u64) -> u64,
) -> Vec<Duration> {
    let seen = record.entries.iter().zip(starts).filter(|(it, _)| it.outcome != Outcome::Reset);
    let latency = |answer: u64, start: Duration| {
        (Duration::from_nanos(answer - record.began()) + lead).saturating_sub(start)
    };
    seen.filter_map(|(entry, start)| Some(latency(there(entry.answer?), *start))).collect()
}

/// What would have been seen of it.
fn lawful(record: &Record, starts: &[Duration]) -> Vec<Duration> {
    let fates = starts.iter().zip(0..).map(|(start, index)| {
        let fate = record.law.fate(record.seed, index);
        (fate.outcome, record.law.due(*start, fate.delay).last - *start)
    });
    fates.filter(|(outcome, _)| *outcome != Outcome::Reset).map(|(_, latency)| latency).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{
        law::Law,
        record::{Entry, Own, Pause},
    };

    const SEED: u64 = 3;

    /// What a perfect server records of these arrivals, in seconds.
    fn record(law: &str, arrivals: impl IntoIterator<Item = f64>) -> Record {
        let law: Law = law.parse().unwrap();
        let nanoseconds = |it: Duration| u64::try_from(it.as_nanos()).unwrap();
        let entry = |(index, arrival): (u64, f64)| {
            let fate = law.fate(SEED, index);
            let arrival = Duration::from_secs_f64(arrival);
            let due = nanoseconds(law.due(arrival, fate.delay).last);
            let (arrival, outcome) = (nanoseconds(arrival), fate.outcome);
            Entry { arrival, due, answer: Some(due), connection: 0, outcome }
        };
        let entries = (0..).zip(arrivals).map(entry).collect();
        Record { law, seed: SEED, entries, own: Own::default(), pauses: Vec::new() }
    }

    fn even(rate: f64, seconds: u64) -> Meant {
        Meant::Course(Course::even(rate, Duration::from_secs(seconds)))
    }

    fn milliseconds(expectation: &Expectation) -> [u128; 3] {
        [0.5, 0.9, 0.99].map(|it| expectation.quantile(it).as_millis())
    }

    const FROZEN: &str = "constant:10ms,stall:2s@5s";

    #[test]
    fn client_that_keeps_the_schedule() {
        let record = record(FROZEN, (0..10_000).map(|it| f64::from(it) / 1e3));
        let seen = expect(&record, &even(1e3, 10));
        assert_eq!(seen.source, Source::Record);
        let all = Arrivals {
            meant: 10_000,
            arrived: 10_000,
            stalled_meant: 2_000,
            stalled_arrived: 2_000,
            ..Arrivals::default()
        };
        assert_eq!(seen.arrivals, all);
        assert!(!seen.arrivals.omitted());
        // Ten more are held because their answers were due in the stall.
        assert_eq!(milliseconds(&seen), [10, 1_020, 1_920]);
    }

    #[test]
    fn client_that_waits() {
        // Ten connections, each of which asks again when it was answered.
        let mut free = [0.0_f64; 10];
        let (mut arrivals, law) = (Vec::new(), FROZEN.parse::<Law>().unwrap());
        for turn in 0.. {
            let connection = &mut free[turn % 10];
            if *connection > 10.0 {
                break;
            }
            let arrival = *connection;
            let due = law.due(Duration::from_secs_f64(arrival), Duration::from_millis(10));
            arrivals.push(arrival);
            *connection = due.last.as_secs_f64();
        }
        let seen = expect(&record(FROZEN, arrivals), &even(1e3, 10));
        assert_eq!(seen.source, Source::Law);
        assert!(seen.arrivals.omitted(), "{seen:?}");
        assert!(seen.arrivals.stalled_arrived <= 20, "{seen:?}");
        assert_eq!(milliseconds(&seen), [10, 1_020, 1_920], "as if it had not waited");
    }

    #[test]
    fn latency_counts_from_the_schedule() {
        let seconds = |it: u32| f64::from(it) / 1e2;
        // From the eleventh on they came 5 ms late.
        let late = (0..1_000).map(|it| seconds(it) + if it < 10 { 0.0 } else { 5e-3 });
        let seen = expect(&record("constant:20ms", late.clone()), &even(1e2, 10));
        assert_eq!(seen.source, Source::Record);
        assert_eq!(milliseconds(&seen), [25, 25, 25]);
        // Moments that are told say the same, whenever they begin.
        let moments = (0..1_000).map(|it| Duration::from_secs_f64(7.0 + seconds(it))).collect();
        let same = expect(&record("constant:20ms", late.clone()), &Meant::Moments(moments));
        assert_eq!(same, expect(&record("constant:20ms", late), &even(1e2, 10)));
        // Only the first did, so that the others seem to come early.
        let late = (0..1_000).map(|it| if it == 0 { 0.0 } else { seconds(it) - 5e-3 });
        let seen = expect(&record("constant:20ms", late), &even(1e2, 10));
        assert_eq!(milliseconds(&seen), [20, 20, 20]);
        assert_eq!(seen.quantile(1.0), Duration::from_millis(25));
    }

    #[test]
    fn requests_without_an_answer_have_no_latency() {
        let arrivals = (0..1_000).map(|it| f64::from(it) / 100.0);
        let mut record = record("constant:10ms,resets:20%", arrivals);
        let resets = record.entries.iter().filter(|it| it.outcome == Outcome::Reset).count();
        assert!(resets > 100);
        assert_eq!(expect(&record, &even(1e2, 10)).latencies.len(), 1_000 - resets);
        let good = record.entries.iter().position(|it| it.outcome == Outcome::Good).unwrap();
        record.entries[good].answer = None;
        assert_eq!(expect(&record, &even(1e2, 10)).latencies.len(), 999 - resets);
        assert_eq!(
            expect(&record, &even(2e2, 10)).latencies.len(),
            2_000 - {
                (0..2_000).filter(|it| record.law.fate(SEED, *it).outcome == Outcome::Reset).count()
            }
        );
    }

    #[test]
    fn answers_are_seen_when_the_machine_goes_on() {
        let mut record = record("constant:20ms", (0..1_000).map(|it| f64::from(it) / 1e2));
        let moment = |milliseconds: u64| record.began() + milliseconds * 1_000_000;
        // Answers are given 20 ms after each 10 ms: three of them in the first, none in the second.
        let pauses = [(1_000, 1_025), (2_001, 2_009), (90_000, 90_001)]
            .map(|(from, to)| Pause { from: moment(from), to: moment(to) });
        record.paused(&pauses);
        assert_eq!(record.pauses, pauses[..2]);
        assert!((record.paused_share() - 0.033 / 10.01).abs() < 1e-9);
        let seen = expect(&record, &even(1e2, 10));
        assert_eq!(seen.quantile(1.0), Duration::from_millis(20));
        let later = seen.latest.iter().filter(|it| **it > Duration::from_millis(20)).count();
        assert_eq!(later, 3, "given at 1.00, 1.01 and 1.02 s");
        assert_eq!(seen.quantile_latest(1.0), Duration::from_millis(45));
        assert_eq!(seen.quantile_latest(0.99), Duration::from_millis(20));
        // Who alone knows when its requests are meant may also have meant them before they were read.
        let seen = expect(&record, &Meant::Arrivals);
        assert_eq!(seen.quantile(1.0), Duration::from_millis(20));
        assert_eq!(seen.quantile_latest(1.0), Duration::from_millis(45));
        assert_eq!(seen.latest.iter().filter(|it| it.as_millis() > 20).count(), 5);
    }

    #[test]
    fn arrivals_as_meant() {
        let record = record(FROZEN, (0..8_000_u32).map(|it| f64::from(it * it) / 6.4e6));
        let seen = expect(&record, &Meant::Arrivals);
        assert_eq!(seen.source, Source::Record);
        assert_eq!(seen.quantile(0.1), Duration::from_millis(10));
        assert!(seen.quantile(1.0) > Duration::from_millis(2_005));
    }

    #[test]
    fn courses() {
        let piece = |seconds, from, to| Piece { seconds, from, to };
        let check = |pieces: &[Piece]| {
            let starts = Course(pieces.to_vec()).starts();
            let show = |it: &Duration| (it.as_secs_f64() * 1e3).round() / 1e3;
            (starts.len(), starts.iter().take(4).map(show).collect::<Vec<_>>())
        };
        assert_eq!(check(&[piece(2.0, 5.0, 5.0)]), (10, vec![0.0, 0.2, 0.4, 0.6]));
        // t² = count.
        assert_eq!(check(&[piece(10.0, 0.0, 20.0)]), (100, vec![0.0, 1.0, 1.414, 1.732]));
        assert_eq!(check(&[piece(10.0, 20.0, 0.0)]).0, 100);
        let steps = [piece(1.0, 2.0, 2.0), piece(1.0, 0.0, 0.0), piece(1.0, 4.0, 4.0)];
        assert_eq!(check(&steps), (6, vec![0.0, 0.5, 2.0, 2.25]));
    }
}
