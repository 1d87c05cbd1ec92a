//! Puts together what workers and scheduler tell: seconds while the run goes on, series at its end.

use std::{collections::BTreeMap, future::Future, pin::pin, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    time::{Instant, interval},
};

use super::{
    record::{Message, Slice},
    worker::Part,
};
use crate::{
    exchange::FailureKind,
    plan::Plan,
    results::{Mode, Own, Progress, Results, Second, Series, Times, add, times},
};

/// How often a watcher is told: often enough for numbers that move.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// What is known so far.
#[derive(Debug)]
pub(super) struct Gathered {
    mode: Mode,
    planned: Duration,
    seconds: Vec<Second>,
    /// The second that each worker is in, and how many requests it has under way.
    workers: Vec<(u64, u64)>,
    meant: u64,
    done: u64,
    failures: BTreeMap<FailureKind, u64>,
    lag: Times,
    late: u64,
    dropped: u64,
}

impl Gathered {
    pub(super) fn new(mode: Mode, planned: Duration, workers: usize) -> Self {
        Self {
            mode,
            planned,
            seconds: Vec::new(),
            workers: vec![(0, 0); workers],
            meant: 0,
            done: 0,
            failures: BTreeMap::new(),
            lag: times(),
            late: 0,
            dropped: 0,
        }
    }

    /// Gathers until everybody has told everything. `stop` may end the run early; says whether it
    /// did.
    pub(super) async fn all(
        &mut self,
        mut messages: mpsc::Receiver<Message>,
        epoch: Instant,
        mut watch: impl FnMut(&Progress<'_>),
        stop: impl Future<Output = ()>,
    ) -> bool {
        let mut stop = pin!(stop);
        let mut is_stopped = false;
        let mut tick = interval(WATCH_EVERY);
        loop {
            tokio::select! {
                biased;
                () = &mut stop, if !is_stopped => is_stopped = true,
                _ = tick.tick() => watch(&self.progress(epoch.elapsed())),
                message = messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return is_stopped,
                },
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Meant { second, meant, dropped } => {
                self.second(second).meant += meant;
                self.meant += meant;
                self.dropped += dropped;
            }
            Message::Slice(slice) => self.slice(&slice),
        }
    }

    fn slice(&mut self, slice: &Slice) {
        for (second, meant) in &slice.meant.0 {
            self.second(*second).meant += meant;
            self.meant += meant;
        }
        for (second, late) in &slice.late.0 {
            self.second(*second).late += late;
            self.late += late;
        }
        self.done += slice.done;
        add(&mut self.failures, &slice.failures);
        merge(&mut self.lag, &slice.lag);
        let second = self.second(slice.second);
        second.done += slice.done;
        add(&mut second.failures, &slice.failures);
        merge(&mut second.latency, &slice.latency);
        // A worker's slices come in order, so its last word about a second is that of its end.
        if let Some(worker) = self.workers.get_mut(slice.worker) {
            let before = if worker.0 == slice.second { worker.1 } else { 0 };
            *worker = (slice.second, slice.in_flight);
            let second = self.second(slice.second);
            second.in_flight = second.in_flight.saturating_sub(before) + slice.in_flight;
        }
    }

    /// A second of the run; those before it are there, too.
    fn second(&mut self, second: u64) -> &mut Second {
        let index = usize::try_from(second).unwrap_or(usize::MAX);
        if self.seconds.len() <= index {
            self.seconds.resize_with(index + 1, Second::default);
        }
        #[expect(clippy::indexing_slicing, reason = "made to be long enough just before")]
        &mut self.seconds[index]
    }

    fn progress(&self, elapsed: Duration) -> Progress<'_> {
        // A second has ended when every worker is in a later one.
        let ended = self.workers.iter().map(|it| it.0).min().unwrap_or_default();
        let ended = usize::try_from(ended).unwrap_or(usize::MAX).min(self.seconds.len());
        Progress {
            elapsed,
            planned: self.planned,
            mode: self.mode,
            seconds: self.seconds.get(..ended).unwrap_or_default(),
            meant: self.meant,
            done: self.done,
            failures: &self.failures,
            in_flight: self.workers.iter().map(|it| it.1).sum(),
            lag: &self.lag,
            late: self.late,
            dropped: self.dropped,
        }
    }

    /// What came out of it all. When it began, how long it took and what it cost are the caller's.
    pub(super) fn results(self, parts: Vec<Part>, plan: &Plan) -> Results {
        let unanswered = parts.iter().map(|it| it.unanswered).sum();
        let mut steps = Vec::new();
        for (flow, it) in plan.flows.iter().enumerate() {
            for (step, name) in it.behaviour.steps().iter().enumerate() {
                let mut series = Series::default();
                let of_step = |part: &Part| -> Option<Series> {
                    Some(part.steps.get(flow)?.get(step)?.clone())
                };
                parts.iter().filter_map(of_step).for_each(|it| series.add(&it));
                steps.push((format!("{}/{name}", it.name), series));
            }
        }
        let mut total = Series::default();
        steps.iter().for_each(|(_, it)| total.add(it));
        // Which step a start would have been that never happened, nobody knows.
        total.meant += self.dropped;
        Results {
            began: Timestamp::UNIX_EPOCH,
            took: Duration::ZERO,
            planned: self.planned,
            interrupted: false,
            seed: plan.seed,
            mode: self.mode,
            targets: plan.targets.iter().map(ToString::to_string).collect(),
            total,
            steps,
            seconds: self.seconds,
            own: Own {
                lag: self.lag,
                late: self.late,
                dropped: self.dropped,
                cpu: Duration::ZERO,
                cores: super::limits::cores(),
                unanswered,
            },
            verdicts: Vec::new(),
        }
    }
}

/// A histogram that grows takes any other.
fn merge(to: &mut Times, from: &Times) {
    if !from.is_empty() {
        let _ = to.add(from);
    }
}
