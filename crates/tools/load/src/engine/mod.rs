//! Carries out a plan. One thread knows when starts are meant and hands them out; workers, each with
//! a thread, a runtime and connections of its own, do what users do and write down what came of it;
//! the thread that called gathers that and tells whoever watches.
//!
//! Nothing is shared on the way of a request: queues between the threads are bounded, and what does
//! not fit is counted as dropped.

mod gather;
pub mod limits;
mod record;
mod scheduler;
mod timer;
mod worker;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use self::{gather::Gathered, record::Recorder, scheduler::Scheduler, worker::Setup};
use crate::{
    drivers::{Driver, connect::Connector, http1::Http1, http2::Http2, tls},
    exchange::{Failure, FailureKind, Origin},
    plan::{Arrival, Plan, Protocol},
    results::{Mode, Progress, Results},
};

/// Starts that wait for one worker. At 10 000/s that is over a second of a worker that does nothing;
/// more than that would be no measurement any more, so further ones are dropped.
const QUEUE_MAX: usize = 16 * 1024;
/// Messages that wait for the gathering thread; see [`record`] for what happens at the limit.
const MESSAGES_MAX: usize = 256;
/// How long the threads have to come up before the first start is meant.
const HEAD_START: Duration = Duration::from_millis(50);
/// How long a target may take to accept the first connection.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// How long answers are waited for after somebody ended the run.
const BRIEF: Duration = Duration::from_secs(2);
/// Workers are at most this many; each costs a thread and connections of its own.
const WORKERS_MAX: usize = 64;

/// Why a run did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A target does not answer.
    #[error("cannot reach {target}: {failure}")]
    Unreachable {
        /// Which.
        target: Origin,
        /// Why.
        failure: Failure,
    },
    /// A target is not this machine's.
    #[error(
        "{target}: {detail}; load is harm to whoever did not ask for it: --i-may says that you may"
    )]
    Foreign {
        /// Which.
        target: Origin,
        /// Which address.
        detail: String,
    },
    /// Certificates cannot be used.
    #[error("prepare TLS")]
    Tls(#[from] tls::Error),
    /// More connections are wanted than this process can have.
    #[error(transparent)]
    Limits(#[from] limits::Error),
    /// A thread or a runtime cannot be made.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    /// The process has as many files open as it may.
    #[error("make room for connections")]
    Files(#[source] std::io::Error),
    /// A worker died of a bug.
    #[error("a worker died; what it measured is lost")]
    Died,
}

impl Error {
    /// Whether it is what was asked for that cannot be, whatever the target does.
    #[must_use]
    pub const fn is_unusable(&self) -> bool {
        match self {
            Self::Foreign { .. } | Self::Tls(_) | Self::Limits(_) => true,
            Self::Unreachable { .. } | Self::Thread(_) | Self::Files(_) | Self::Died => false,
        }
    }
}

/// Carries out a plan; `stop` ends it early, `watch` is told how it goes. Blocks until it is over.
///
/// # Errors
///
/// Nothing was measured: see [`Error`]. What goes wrong later is in the results.
pub fn run(
    plan: Plan,
    stop: impl Future<Output = ()>,
    watch: impl FnMut(&Progress<'_>),
) -> Result<Results, Error> {
    let open_max = limits::connections(plan.connections_max)?;
    if plan.transport.protocol == Protocol::Http1 {
        limits::connections(Some(closed_users(&plan)))?;
    }
    // While one thread runs: with several, each growth would make requests late.
    runtime::reserve_files(open_max as u64).map_err(Error::Files)?;
    let connector = Arc::new(Connector::new(plan.transport.clone(), open_max)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    for target in &plan.targets {
        runtime.block_on(probe(&connector, target))?;
    }
    let run = Run::new(plan, connector);
    match run.plan.transport.protocol {
        Protocol::Http1 => run.measure::<Http1>(&runtime, stop, watch),
        Protocol::Http2 => run.measure::<Http2>(&runtime, stop, watch),
    }
}

/// Users of closed loops, each of whom holds a connection.
fn closed_users(plan: &Plan) -> usize {
    let users = |arrival: &Arrival| match arrival {
        Arrival::Closed { users, .. } => *users,
        Arrival::Open(_) => 0,
    };
    plan.flows.iter().map(|it| users(&it.arrival)).sum()
}

/// Connects once, so that what cannot work is said at once and once.
async fn probe(connector: &Arc<Connector>, target: &Origin) -> Result<(), Error> {
    let late = || {
        let detail = format!("no connection within {PROBE_MAX:?}");
        Failure { kind: FailureKind::Connect, detail }
    };
    let connected = timeout(PROBE_MAX, connector.connect(target)).await;
    match connected.unwrap_or_else(|_| Err(late())) {
        Ok(_) => Ok(()),
        Err(Failure { kind: FailureKind::Foreign, detail }) => {
            Err(Error::Foreign { target: target.clone(), detail })
        }
        Err(failure) => Err(Error::Unreachable { target: target.clone(), failure }),
    }
}

/// A run about to begin.
struct Run {
    plan: Arc<Plan>,
    connector: Arc<Connector>,
    workers: usize,
    planned: Duration,
}

impl Run {
    fn new(plan: Plan, connector: Arc<Connector>) -> Self {
        let length = |arrival: &Arrival| match arrival {
            Arrival::Open(stages) => stages.iter().map(|it| it.duration).sum(),
            Arrival::Closed { duration, .. } => *duration,
        };
        let planned = plan.flows.iter().map(|it| length(&it.arrival)).max().unwrap_or_default();
        let workers = limits::cores().clamp(1, WORKERS_MAX);
        Self { plan: Arc::new(plan), connector, workers, planned }
    }

    fn mode(&self) -> Mode {
        let is_closed = |it: &crate::plan::Flow| matches!(it.arrival, Arrival::Closed { .. });
        if self.plan.flows.iter().any(is_closed) { Mode::Closed } else { Mode::Open }
    }

    fn measure<D: Driver>(
        &self,
        runtime: &tokio::runtime::Runtime,
        stop: impl Future<Output = ()>,
        watch_run: impl FnMut(&Progress<'_>),
    ) -> Result<Results, Error> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (messages, received) = mpsc::channel(MESSAGES_MAX);
        let (ending, ended) = watch::channel(None);
        let cpu = limits::cpu();
        let epoch = Instant::now() + HEAD_START;
        let began = Timestamp::now() + HEAD_START;
        let mut queues = Vec::new();
        let mut workers = Vec::new();
        for number in 0..self.workers {
            let (queue, starts) = mpsc::channel(QUEUE_MAX);
            queues.push(queue);
            let recorder = Recorder::new(number, &self.plan, epoch, messages.clone());
            let setup = Setup {
                plan: Arc::clone(&self.plan),
                connector: Arc::clone(&self.connector),
                number,
                workers: self.workers,
                epoch,
                planned: self.planned,
                stopping: Arc::clone(&stopping),
                ended: ended.clone(),
            };
            let thread = thread::Builder::new().name(format!("load-worker-{number}"));
            let run = move || worker::run::<D>(setup, recorder, starts);
            workers.push(thread.spawn(run).map_err(Error::Thread)?);
        }
        let scheduler = Scheduler::new(&self.plan, epoch, queues, Arc::clone(&stopping), messages);
        let thread = thread::Builder::new().name("load-scheduler".to_owned());
        let scheduler = thread.spawn(move || scheduler.run()).map_err(Error::Thread)?;

        let mut gathered = Gathered::new(self.mode(), self.planned, self.workers);
        let interrupted = runtime.block_on(gathered.all(received, epoch, watch_run, async {
            stop.await;
            stopping.store(true, Ordering::Relaxed);
            scheduler.thread().unpark();
            // Workers that have ended already do not mind.
            ending.send_replace(Some(Instant::now() + BRIEF));
        }));
        let took = epoch.elapsed();
        scheduler.join().map_err(|_| Error::Died)?;
        let mut parts = Vec::new();
        for worker in workers {
            parts.push(worker.join().map_err(|_| Error::Died)?.map_err(Error::Thread)?);
        }
        let mut results = gathered.results(parts, &self.plan);
        results.began = began;
        results.took = took;
        results.own.cpu = limits::cpu().saturating_sub(cpu);
        if interrupted {
            results.interrupted = true;
            results.planned = took.min(self.planned);
        }
        Ok(results)
    }
}
