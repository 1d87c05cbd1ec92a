//! The thread that knows when starts are meant: sleeps until the next one and hands it to a worker.
//! Does nothing else, so that nothing makes it late.

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::Instant,
};

use super::record::Message;
use crate::{
    plan::{Arrival, Plan},
    schedule::{Schedule, derive},
};

/// Before whatever else runs, the server on the same machine included: a start that waits for the
/// server is what an open loop must not have. Workers have no such privilege.
const PRIORITY: i32 = -10;

/// One user is meant to arrive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Which flow, by its place in the plan.
    pub(super) flow: usize,
    /// Which of the flow's arrivals.
    pub(super) number: u64,
    /// When, counted from the beginning of the run.
    pub(super) meant: Duration,
}

/// The flows with a schedule, and who carries out their starts.
pub(super) struct Scheduler {
    flows: Vec<Flow>,
    epoch: Instant,
    queues: Vec<mpsc::Sender<Start>>,
    /// The worker whose turn it is.
    turn: usize,
    stopping: Arc<AtomicBool>,
    messages: mpsc::Sender<Message>,
    /// What has not been told yet.
    second: u64,
    meant: u64,
    dropped: u64,
}

struct Flow {
    index: usize,
    next: Option<Duration>,
    number: u64,
    schedule: Schedule,
}

impl Scheduler {
    pub(super) fn new(
        plan: &Plan,
        epoch: Instant,
        queues: Vec<mpsc::Sender<Start>>,
        stopping: Arc<AtomicBool>,
        messages: mpsc::Sender<Message>,
    ) -> Self {
        let flow = |(index, arrival): (usize, &Arrival)| match arrival {
            Arrival::Closed { .. } => None,
            Arrival::Open(stages) => {
                let mut schedule = Schedule::new(stages.clone(), derive(plan.seed, index as u64));
                let next = schedule.next();
                Some(Flow { index, next, number: 0, schedule })
            }
        };
        let flows = plan.flows.iter().map(|it| &it.arrival).enumerate().filter_map(flow).collect();
        Self { flows, epoch, queues, turn: 0, stopping, messages, second: 0, meant: 0, dropped: 0 }
    }

    /// Hands out all starts, each when it is meant, or until told to stop.
    pub(super) fn run(mut self) {
        // The kernel may otherwise wake a thread 50 µs late to save power. Where it refuses, the
        // lag shows it.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        // Of this thread only, and only root may: it hardly runs, but must not wait when it has to.
        let _ = rustix::process::setpriority_process(None, PRIORITY);
        while !self.stopping.load(Ordering::Relaxed)
            && let Some(moment) = self.flows.iter().filter_map(|it| it.next).min()
        {
            let left = (self.epoch + moment).saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.start(moment);
            } else {
                // May return early, also without a reason.
                thread::park_timeout(left);
            }
        }
        self.tell();
    }

    /// Hands out the start that is meant at this moment.
    fn start(&mut self, moment: Duration) {
        let second = moment.as_secs();
        if second != self.second {
            self.tell();
            self.second = second;
        }
        let Some(flow) = self.flows.iter_mut().find(|it| it.next == Some(moment)) else {
            return;
        };
        let start = Start { flow: flow.index, number: flow.number, meant: moment };
        flow.number += 1;
        flow.next = flow.schedule.next();
        self.meant += 1;
        self.turn = (self.turn + 1) % self.queues.len().max(1);
        match self.queues.get(self.turn).map(|it| it.try_send(start)) {
            Some(Ok(())) => {}
            // A worker that is so far behind, or died, loses starts; that is counted.
            Some(Err(TrySendError::Full(_) | TrySendError::Closed(_))) | None => self.dropped += 1,
        }
    }

    /// Tells how many starts were meant in the second that ends. Who gathers is never that far
    /// behind: there is one such message a second.
    fn tell(&mut self) {
        let message = Message::Meant {
            second: self.second,
            meant: std::mem::take(&mut self.meant),
            dropped: std::mem::take(&mut self.dropped),
        };
        drop(self.messages.blocking_send(message));
    }
}
