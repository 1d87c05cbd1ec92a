//! A worker: a thread with a runtime, connections and a recorder of its own. Takes starts from its
//! queue and does for each user what the user wants next.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    record::{Recorder, Started, Verdict},
    scheduler::Start,
    timer::Timer,
};
use crate::{
    drivers::{Driver, connect::Connector},
    exchange::{Exchange, FailureKind},
    plan::{Arrival, Next, Plan, User},
    results::Series,
    schedule::derive,
};

/// Starts that are taken from the queue at once.
const BATCH: usize = 64;
/// How often what was measured is told: for a chart that moves, and cheap.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// How much longer than the plan's grace answers are waited for. A request that is given up just when
/// the grace ends, as every one of a plain URL may be, is to be written down as that, however busy the
/// machine is.
const SETTLE: Duration = Duration::from_millis(100);

/// What a worker begins with.
pub(super) struct Setup {
    pub(super) plan: Arc<Plan>,
    pub(super) connector: Arc<Connector>,
    /// Which worker of how many.
    pub(super) number: usize,
    pub(super) workers: usize,
    pub(super) epoch: Instant,
    /// How long starts are meant for.
    pub(super) planned: Duration,
    /// Whether nothing new is to be started.
    pub(super) stopping: Arc<AtomicBool>,
    /// Until when answers are waited for, once somebody ended the run.
    pub(super) ended: watch::Receiver<Option<Instant>>,
}

/// What a worker ends with.
#[derive(Debug)]
pub(super) struct Part {
    /// Per flow and step.
    pub(super) steps: Vec<Vec<Series>>,
    /// Requests that got no answer in time.
    pub(super) unanswered: u64,
}

/// Runs a worker until its users are gone, or the time for that is over.
///
/// # Errors
///
/// The runtime cannot be made.
pub(super) fn run<D: Driver>(
    setup: Setup,
    recorder: Recorder,
    starts: mpsc::Receiver<Start>,
) -> io::Result<Part> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let worker = runtime.block_on(async {
        let worker = Rc::new(Worker::<D> {
            driver: D::new(Arc::clone(&setup.connector)),
            recorder: RefCell::new(recorder),
            timer: Timer::new()?,
            users: Cell::new(0),
            gone: Notify::new(),
            last: Cell::new(setup.epoch + setup.planned),
            setup,
        });
        worker.all(starts).await;
        Ok::<_, io::Error>(worker)
    });
    let worker = worker?;
    let (steps, unanswered) = worker.recorder.borrow_mut().finish(Instant::now());
    // Users that are still there end here, in the middle of whatever they do.
    drop(runtime);
    Ok(Part { steps, unanswered })
}

struct Worker<D> {
    setup: Setup,
    driver: D,
    recorder: RefCell<Recorder>,
    timer: Timer,
    /// Users under way.
    users: Cell<usize>,
    /// The last of them has left.
    gone: Notify,
    /// The last arrival: as it is meant, or when it came, if that was later.
    last: Cell<Instant>,
}

impl<D: Driver> Worker<D> {
    /// Does all that there is to do.
    async fn all(self: &Rc<Self>, mut starts: mpsc::Receiver<Start>) {
        let timer = Rc::clone(self);
        drop(tokio::task::spawn_local(async move { timer.timer.run().await }));
        drop(tokio::task::spawn_local(Rc::clone(self).tell()));
        self.begin_closed();
        let mut batch = Vec::with_capacity(BATCH);
        while starts.recv_many(&mut batch, BATCH).await > 0 {
            for start in batch.drain(..) {
                let meant = self.setup.epoch + start.meant;
                self.begin(Rc::clone(self).open(start.flow, start.number, meant));
            }
        }
        tokio::select! {
            () = self.all_gone() => {}
            () = self.time_over() => {}
        }
    }

    /// Users of closed flows: each worker has those whose place is its number, in its turn.
    fn begin_closed(self: &Rc<Self>) {
        for (flow, it) in self.setup.plan.flows.iter().enumerate() {
            if let Arrival::Closed { users, duration } = it.arrival {
                for place in (self.setup.number..users).step_by(self.setup.workers) {
                    let end = self.setup.epoch + duration;
                    self.begin(Rc::clone(self).closed(flow, place as u64, users as u64, end));
                }
            }
        }
    }

    /// A task of the worker's own runtime, with which it ends.
    fn begin(self: &Rc<Self>, user: impl Future<Output = ()> + 'static) {
        self.users.set(self.users.get() + 1);
        let guard = Guard(Rc::clone(self));
        drop(tokio::task::spawn_local(async move {
            user.await;
            drop(guard);
        }));
    }

    async fn tell(self: Rc<Self>) {
        let mut next = self.setup.epoch + TELL_EVERY;
        loop {
            sleep_until(next).await;
            self.recorder.borrow_mut().tell(Instant::now());
            next += TELL_EVERY;
        }
    }

    async fn all_gone(&self) {
        while self.users.get() > 0 {
            self.gone.notified().await;
        }
    }

    /// Until nobody waits for answers any more.
    async fn time_over(&self) {
        let mut ended = self.setup.ended.clone();
        let early = async {
            match ended.wait_for(Option::is_some).await.map(|it| *it) {
                Ok(Some(until)) => sleep_until(until).await,
                // Nobody can end the run any more.
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.grace_over() => {}
            () = early => {}
        }
    }

    async fn grace_over(&self) {
        let grace = self.setup.plan.grace + SETTLE;
        let mut last = self.last.get();
        loop {
            sleep_until(last + grace).await;
            if last == self.last.get() {
                return;
            }
            last = self.last.get();
        }
    }

    fn is_stopping(&self) -> bool {
        self.setup.stopping.load(Ordering::Relaxed)
    }

    /// A user whom the schedule meant to arrive.
    async fn open(self: Rc<Self>, flow: usize, number: u64, meant: Instant) {
        if let Some(user) = self.arrive(flow, number) {
            self.user(flow, user, Some(meant)).await;
        }
    }

    /// A place that is always taken by some user, until the end.
    async fn closed(self: Rc<Self>, flow: usize, place: u64, places: u64, end: Instant) {
        self.timer.sleep_until(self.setup.epoch).await;
        let mut number = place;
        while Instant::now() < end && !self.is_stopping() {
            let Some(user) = self.arrive(flow, number) else { return };
            self.user(flow, user, None).await;
            number += places;
        }
    }

    fn arrive(&self, flow: usize, number: u64) -> Option<Box<dyn User>> {
        let seed = derive(derive(self.setup.plan.seed, !(flow as u64)), number);
        Some(self.setup.plan.flows.get(flow)?.behaviour.arrive(number, seed))
    }

    /// Does what a user wants until it leaves. Without a meant start, a step is meant when it starts.
    async fn user(&self, flow: usize, mut user: Box<dyn User>, arrival: Option<Instant>) {
        let mut meant = arrival;
        let mut is_later = arrival.is_none();
        loop {
            match user.next() {
                Next::Leave => return,
                Next::Think(time) => {
                    let until = meant.unwrap_or_else(Instant::now) + time;
                    self.timer.sleep_until(until).await;
                    meant = Some(until);
                }
                Next::Send(step, request) => {
                    if is_later && self.is_stopping() {
                        return;
                    }
                    let start = Instant::now();
                    if !is_later {
                        self.last.set(self.last.get().max(start));
                    }
                    let meant_now = meant.unwrap_or(start);
                    let started = Started { flow, step, is_later, meant: meant_now, start };
                    self.recorder.borrow_mut().started(started);
                    let exchange = self.driver.exchange(&request).await;
                    let end = exchange.ended.unwrap_or_else(Instant::now);
                    let verdict = verdict(&mut *user, &exchange);
                    self.recorder.borrow_mut().ended(started, end, &exchange, verdict);
                    // A closed loop means nothing: it waits until it gets round to it.
                    meant = arrival.map(|_| end);
                    is_later = true;
                }
            }
        }
    }
}

/// What became of an exchange: its own failure, else an unexpected status, else a failed check.
fn verdict(user: &mut dyn User, exchange: &Exchange) -> Verdict {
    let expected = match &exchange.outcome {
        Err(failure) => Some(failure.kind),
        Ok(response) if !user.expects(response.status) => Some(FailureKind::Status),
        Ok(_) => None,
    };
    let received = user.receive(exchange);
    match (expected, received) {
        (Some(kind), _) => Verdict::Failed(kind),
        (None, Err(check)) => Verdict::Check(check),
        (None, Ok(())) => Verdict::Good,
    }
}

/// Counts a user until it is gone, however it goes.
struct Guard<D>(Rc<Worker<D>>);

impl<D> Drop for Guard<D> {
    fn drop(&mut self) {
        let left = self.0.users.get().saturating_sub(1);
        self.0.users.set(left);
        if left == 0 {
            self.0.gone.notify_one();
        }
    }
}
