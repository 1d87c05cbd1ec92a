//! What one worker writes down: per step for the end, per second for whoever watches. Owned by the
//! worker, so nothing is locked on the way of a request.
//!
//! A second's slice is sent when the second is over, and a few times before. When the queue to the
//! gathering thread is full, slices wait here and are sent with the next: nothing is lost.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use crate::{
    exchange::{Exchange, FailureKind},
    plan::{Plan, StepId},
    results::{LATE_AFTER, Series, Times, times},
};

/// What the gathering thread is told.
#[derive(Debug)]
pub(super) enum Message {
    /// From the scheduler: first steps meant in a second, and those that no worker took.
    Meant { second: u64, meant: u64, dropped: u64 },
    /// From a worker: what happened in a second, or a part of it.
    Slice(Box<Slice>),
}

/// A second, or a part of it, as one worker saw it.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) worker: usize,
    /// Which second of the run.
    pub(super) second: u64,
    /// Later steps, by the second in which they were meant.
    pub(super) meant: Tally,
    /// Late starts, by the second in which they were meant.
    pub(super) late: Tally,
    pub(super) done: u64,
    pub(super) failures: BTreeMap<FailureKind, u64>,
    /// At the end of the slice.
    pub(super) in_flight: u64,
    pub(super) latency: Times,
    pub(super) lag: Times,
}

impl Slice {
    fn new(worker: usize, second: u64, in_flight: u64) -> Self {
        Self {
            worker,
            second,
            meant: Tally::default(),
            late: Tally::default(),
            done: 0,
            failures: BTreeMap::new(),
            in_flight,
            latency: times(),
            lag: times(),
        }
    }
}

/// A few counts by second. What comes belongs to the same second as what came before, mostly.
#[derive(Debug, Default)]
pub(super) struct Tally(pub(super) Vec<(u64, u64)>);

impl Tally {
    fn add(&mut self, second: u64) {
        match self.0.iter_mut().rev().find(|(it, _)| *it == second) {
            Some((_, count)) => *count += 1,
            None => self.0.push((second, 1)),
        }
    }
}

/// What is known of a request when it starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    pub(super) flow: usize,
    pub(super) step: StepId,
    /// Whether it follows from an answer of the same user, instead of from the schedule.
    pub(super) is_later: bool,
    pub(super) meant: Instant,
    pub(super) start: Instant,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Verdict {
    Good,
    Failed(FailureKind),
    /// The check of this name failed.
    Check(String),
}

/// Writes down.
#[derive(Debug)]
pub(super) struct Recorder {
    epoch: Instant,
    /// End of the second under way.
    boundary: Instant,
    slice: Slice,
    steps: Vec<Vec<Series>>,
    waiting: VecDeque<Box<Slice>>,
    messages: mpsc::Sender<Message>,
}

const SECOND: Duration = Duration::from_secs(1);

impl Recorder {
    pub(super) fn new(
        worker: usize,
        plan: &Plan,
        epoch: Instant,
        messages: mpsc::Sender<Message>,
    ) -> Self {
        let series = |it: &crate::plan::Flow| {
            it.behaviour.steps().iter().map(|_| Series::default()).collect()
        };
        Self {
            epoch,
            boundary: epoch + SECOND,
            slice: Slice::new(worker, 0, 0),
            steps: plan.flows.iter().map(series).collect(),
            waiting: VecDeque::new(),
            messages,
        }
    }

    /// A request starts.
    pub(super) fn started(&mut self, it: Started) {
        self.turn(it.start);
        let second = it.meant.saturating_duration_since(self.epoch).as_secs();
        let lag = it.start.saturating_duration_since(it.meant);
        put(&mut self.slice.lag, lag);
        if lag > LATE_AFTER {
            self.slice.late.add(second);
        }
        if it.is_later {
            self.slice.meant.add(second);
        }
        self.slice.in_flight += 1;
        if let Some(series) = self.series(it) {
            series.meant += 1;
            series.started += 1;
        }
    }

    /// A request ended.
    pub(super) fn ended(
        &mut self,
        it: Started,
        end: Instant,
        exchange: &Exchange,
        verdict: Verdict,
    ) {
        self.turn(end);
        let latency = end.saturating_duration_since(it.meant);
        let slice = &mut self.slice;
        slice.in_flight = slice.in_flight.saturating_sub(1);
        slice.done += 1;
        let kind = match &verdict {
            Verdict::Good => None,
            Verdict::Failed(kind) => Some(*kind),
            Verdict::Check(_) => Some(FailureKind::Check),
        };
        if let Some(kind) = kind {
            *slice.failures.entry(kind).or_default() += 1;
        }
        if exchange.outcome.is_ok() {
            put(&mut slice.latency, latency);
        }
        let Some(series) = self.series(it) else { return };
        series.done += 1;
        series.sent += exchange.sent;
        series.received += exchange.received;
        series.again += u64::from(exchange.again);
        match kind {
            None => series.succeeded += 1,
            Some(kind) => *series.failures.entry(kind).or_default() += 1,
        }
        if let Verdict::Check(name) = verdict {
            *series.checks.entry(name).or_default() += 1;
        }
        let phases = &exchange.phases;
        put_some(&mut series.connect, phases.connect);
        put_some(&mut series.tls, phases.tls);
        if let Ok(response) = &exchange.outcome {
            *series.statuses.entry(response.status).or_default() += 1;
            put(&mut series.latency, latency);
            put(&mut series.service, end.saturating_duration_since(it.start));
            put_some(&mut series.first_byte, phases.first_byte);
            put_some(&mut series.body, phases.body);
        }
    }

    /// Sends what there is of the second under way.
    pub(super) fn tell(&mut self, now: Instant) {
        self.turn(now);
        let second = self.slice.second;
        self.cut(second);
    }

    /// Sends all that is left, outside of any runtime: what was measured per step, and how many
    /// requests have no answer.
    pub(super) fn finish(&mut self, now: Instant) -> (Vec<Vec<Series>>, u64) {
        self.tell(now);
        for slice in self.waiting.drain(..) {
            // Whoever gathers is gone only when the process is ending.
            drop(self.messages.blocking_send(Message::Slice(slice)));
        }
        (std::mem::take(&mut self.steps), self.slice.in_flight)
    }

    /// A series of the plan. A behaviour that names a step it does not have is not measured there.
    fn series(&mut self, it: Started) -> Option<&mut Series> {
        self.steps.get_mut(it.flow)?.get_mut(it.step.0)
    }

    /// Goes on to the second in which `now` is.
    fn turn(&mut self, now: Instant) {
        while now >= self.boundary {
            self.boundary += SECOND;
            self.cut(self.slice.second + 1);
        }
    }

    /// Sends the slice and begins another.
    fn cut(&mut self, second: u64) {
        let next = Slice::new(self.slice.worker, second, self.slice.in_flight);
        self.waiting.push_back(Box::new(std::mem::replace(&mut self.slice, next)));
        while let Some(slice) = self.waiting.pop_front() {
            match self.messages.try_send(Message::Slice(slice)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(Message::Slice(slice))) => {
                    self.waiting.push_front(slice);
                    return;
                }
                Err(_) => return,
            }
        }
    }
}

/// Any 64-bit number fits a histogram that grows, so recording does not fail.
fn put(times: &mut Times, value: Duration) {
    let _ = times.record(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
}

fn put_some(times: &mut Times, value: Option<Duration>) {
    if let Some(value) = value {
        put(times, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, Method};

    use super::*;
    use crate::{
        exchange::{Keep, Origin, Phases, Request, Response},
        plan::{Arrival, Flow, Transport},
        scenario,
    };

    fn plan() -> Plan {
        let origin = Origin { tls: false, host: "127.0.0.1".to_owned(), port: 80 };
        let request = Request {
            origin: Arc::new(origin),
            method: Method::GET,
            path: "/".into(),
            headers: Arc::new(HeaderMap::new()),
            body: "".into(),
            keep: Keep::default(),
            timeout: SECOND,
        };
        let flow = Flow {
            name: "url".to_owned(),
            arrival: Arrival::Open(Vec::new()),
            behaviour: scenario::single("request", request),
        };
        Plan {
            seed: 1,
            flows: vec![flow],
            grace: SECOND,
            connections_max: None,
            targets: Vec::new(),
            transport: Transport::default(),
        }
    }

    /// To the three digits of a histogram.
    fn milliseconds(times: &Times) -> Vec<u64> {
        times.iter_recorded().map(|it| (it.value_iterated_to() + 500_000) / 1_000_000).collect()
    }

    #[test]
    fn latency_counts_from_the_meant_start_and_lag_beside_it() {
        let ms = Duration::from_millis;
        let (sender, mut messages) = mpsc::channel(16);
        let epoch = Instant::now();
        let mut recorder = Recorder::new(0, &plan(), epoch, sender);
        // The generator stood still for 300 ms, the server takes 20.
        let meant = epoch + ms(900);
        let started =
            Started { flow: 0, step: StepId(0), is_later: false, meant, start: meant + ms(300) };
        let exchange = Exchange {
            phases: Phases::default(),
            sent: 0,
            received: 0,
            again: false,
            ended: Some(meant + ms(320)),
            outcome: Ok(Response::default()),
        };
        recorder.started(started);
        recorder.ended(started, meant + ms(320), &exchange, Verdict::Good);
        let (steps, unanswered) = recorder.finish(epoch + ms(1_300));
        drop(recorder);
        let series = &steps[0][0];
        assert_eq!((series.started, series.succeeded, unanswered), (1, 1, 0));
        assert_eq!(milliseconds(&series.latency), [320]);
        assert_eq!(milliseconds(&series.service), [20]);
        let (mut late, mut lag, mut done) = (Vec::new(), Vec::new(), Vec::new());
        while let Ok(Message::Slice(slice)) = messages.try_recv() {
            late.extend(slice.late.0.clone());
            lag.extend(milliseconds(&slice.lag));
            done.push((slice.second, slice.done, milliseconds(&slice.latency)));
        }
        assert_eq!(late, [(0, 1)], "in the second in which it was meant");
        assert_eq!(lag, [300]);
        assert_eq!(done, [(0, 0, vec![]), (1, 1, vec![320])]);
    }
}
