//! Drives one pod: observe, decide, act, over and over, from the first sight of the pod until
//! nothing of it is left. One task per pod, so one writer of its facts and of its status.
//!
//! Decides nothing: see [`super::decide`]. It wakes when the pod, an object it refers to, its shim,
//! a probe or a time that was decided on says so, and at no other time.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use shim::wire::{self, Reply};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    decide::{Decision, End, decide},
    events::Teller,
    facts::{self, Containers, Records},
    imaging::Imaging,
    last_words::{self, read_exits},
    probing::{self, Probing},
    report::{self, Report, Written},
    seen::{ContainerSeen, Routing, RunState, Sandbox, Seen},
    shim::Connection,
    stage::{Parts, Place, StageError},
    status::status,
};
use crate::{context::Context, probe::Outcome};

/// How often a shim that does not answer is asked before the pod is taken for lost; over ten
/// seconds with the waits between.
const LOOKS_MAX: u32 = 5;

/// What the agent tells a worker.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// The pod as last heard of.
    pub(crate) pod: Arc<Pod>,
    /// Its API object is gone.
    pub(crate) vanished: bool,
}

/// A worker's way to hear and be heard.
pub(crate) struct Wires {
    pub(crate) input: watch::Receiver<Input>,
    /// An object that the pod refers to may have changed.
    pub(crate) nudge: Arc<Notify>,
    /// Set when the whole node stops: the longest grace period.
    pub(crate) node_stops: watch::Receiver<Option<Duration>>,
    /// The status as it is, before it is written.
    pub(crate) status: watch::Sender<PodStatus>,
}

/// One pod's worker.
pub(crate) struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) wires: Wires,
    pub(super) place: Place,
    pub(super) pod: Arc<Pod>,
    pub(super) vanished: bool,
    pub(super) sandbox: Sandbox,
    /// In a row.
    pub(super) prepare_failures: u32,
    pub(super) parts: Arc<Parts>,
    /// The shim, if it is a child of this process.
    pub(super) process: Option<shim::Process>,
    pub(super) routing: Routing,
    pub(super) containers: Containers,
    pub(super) imaging: Imaging,
    pub(super) probing: Probing,
    pub(super) report: Report,
    pub(super) teller: Teller,
    /// Notices of exits; its end is the end of the shim.
    pub(super) notices: Option<Connection>,
    /// Actions that take time.
    pub(super) pending: FuturesUnordered<BoxFuture<'static, Done>>,
    /// The API object is being deleted for good.
    pub(super) deleting: bool,
}

/// What an action that takes time has come to.
pub(super) enum Done {
    Prepared {
        parts: Parts,
        notices: Option<Connection>,
        result: Result<(), StageError>,
    },
    Started(Started),
    Unrouted,
    Stopped {
        result: Result<(), StageError>,
        cleaned: bool,
    },
    Signalled {
        container: String,
        result: Result<(), shim::Error>,
    },
    Probed {
        due: probing::Due,
        outcome: Outcome,
    },
    Written(Written),
    /// The API object is gone.
    Deleted,
    /// Nobody waits for it.
    Nothing,
}

/// What a start has come to.
pub(super) struct Started {
    pub(super) container: String,
    pub(super) attempt: u32,
    pub(super) image_id: String,
    pub(super) result: Result<Timestamp, StageError>,
}

/// What has woken the worker.
enum Heard {
    Input,
    /// An object that the pod refers to may have changed.
    Nudge,
    /// It is time to look again.
    Time,
    Done(Box<Done>),
    Notice(Result<Reply, shim::Error>),
    /// The agent is gone.
    Orphaned,
}

impl Worker {
    /// A worker for the pod at `place`, with what the machine knows of it.
    pub(crate) fn new(context: Arc<Context>, place: Place, wires: Wires) -> Self {
        let Input { pod, vanished } = wires.input.borrow().clone();
        let exits = read_exits(&place.folders, &pod);
        let records = Records { exits, ..Records::default() };
        let containers = facts::recover(&pod, &records, context.clock.now());
        let teller = Teller::new(context.events.clone());
        Self {
            context,
            wires,
            place,
            pod,
            vanished,
            sandbox: Sandbox::Absent,
            prepare_failures: 0,
            parts: Arc::default(),
            process: None,
            routing: Routing::Routed,
            containers,
            imaging: Imaging::default(),
            probing: Probing::default(),
            report: Report::default(),
            teller,
            notices: None,
            pending: FuturesUnordered::new(),
            deleting: false,
        }
    }

    /// Runs until the pod is gone, the node has stopped it, or `stop` (which leaves it running).
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = self.look() => {}
        }
        loop {
            self.observe();
            let decision = decide(&self.seen());
            let reported = self.tell(&decision);
            match decision.end {
                Some(End::Forget) if reported => return Ok(()),
                Some(End::Delete) if reported => self.delete(),
                _ => {}
            }
            let wake_at = self.act(decision);
            if !self.report.is_writing() {
                self.teller.flush();
            }
            let heard = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                heard = self.hear(wake_at) => heard,
            };
            match heard {
                Heard::Orphaned => return Ok(()),
                Heard::Input => self.take_input(),
                Heard::Nudge => self.take_nudge(),
                Heard::Time => {}
                Heard::Notice(notice) => self.take_notice(notice),
                Heard::Done(done) => match *done {
                    Done::Deleted => return Ok(()),
                    done => self.take(done),
                },
            }
        }
    }

    /// If a shim lives, looks at what it has before anything is decided or told: until then a
    /// container that runs would count as lost.
    async fn look(&mut self) {
        for _ in 0..LOOKS_MAX {
            if Connection::open(&self.place.folders.run).is_err() {
                return;
            }
            self.prepare();
            if let Some(done) = self.pending.next().await {
                self.take(done);
            }
            let Sandbox::Failed { retry, .. } = self.sandbox else { return };
            tokio::time::sleep_until(self.context.instant(retry)).await;
        }
    }

    async fn hear(&mut self, wake_at: Option<Duration>) -> Heard {
        let wake_at = wake_at.map(|it| self.context.instant(it));
        let notices = async {
            match &mut self.notices {
                Some(connection) => connection.answer().await,
                None => std::future::pending().await,
            }
        };
        let time = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(done) = self.pending.next() => Heard::Done(Box::new(done)),
            notice = notices => Heard::Notice(notice),
            // Of a pod that has vanished there will be no more news, and the agent has let go of it:
            // its containers are still to be ended.
            changed = self.wires.input.changed(), if !self.vanished => match changed {
                Ok(()) => Heard::Input,
                Err(_) => Heard::Orphaned,
            },
            Ok(()) = self.wires.node_stops.changed() => Heard::Time,
            () = self.wires.nudge.notified() => Heard::Nudge,
            () = time => Heard::Time,
        }
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            now: self.context.clock.now(),
            uptime: self.context.uptime(),
            pod: &self.pod,
            vanished: self.vanished,
            node_stops: *self.wires.node_stops.borrow(),
            sandbox: &self.sandbox,
            routing: self.routing,
            owners_lost: self.imaging.owners_lost(),
            containers: &self.containers,
        }
    }

    /// Tells the API, and everybody who looks, how the pod is. Returns whether the API knows it all.
    fn tell(&mut self, decision: &Decision) -> bool {
        self.teller.tell_waits(&self.pod, decision);
        self.teller.tell_refusal(&self.pod);
        let status = status(&self.seen(), decision, self.context.address);
        self.wires.status.send_if_modified(|it| {
            let changed = *it != status;
            it.clone_from(&status);
            changed
        });
        if self.vanished {
            return true;
        }
        let starting = |it: &ContainerSeen| {
            matches!(it.run.as_ref().map(|it| &it.state), Some(RunState::Starting))
        };
        let moving = self.sandbox == Sandbox::Preparing
            || decision.starts()
            || self.containers.values().any(starting);
        match self.report.due(&self.pod, &status, moving, self.context.uptime()) {
            report::Due::Nothing => true,
            report::Due::Busy | report::Due::At(_) => false,
            report::Due::Now => {
                self.report.begin();
                let write = report::write(&self.context.client, &self.pod, &status);
                self.pending.push(Box::pin(async { Done::Written(write.await) }));
                false
            }
        }
    }

    fn delete(&mut self) {
        if !self.deleting {
            self.deleting = true;
            let delete = report::delete(&self.context.client, &self.pod);
            self.pending.push(Box::pin(async {
                delete.await;
                Done::Deleted
            }));
        }
    }

    fn take_input(&mut self) {
        let Input { pod, vanished } = self.wires.input.borrow_and_update().clone();
        self.vanished |= vanished;
        self.take_pod(pod);
    }

    /// Takes over a state of the pod unless a newer one is known, from a write of its own.
    pub(super) fn take_pod(&mut self, pod: Arc<Pod>) {
        if report::is_newer(&pod, &self.pod) {
            self.place.pod = Some(Arc::clone(&pod));
            self.pod = pod;
        }
    }

    fn take_notice(&mut self, notice: Result<Reply, shim::Error>) {
        match notice {
            Ok(Reply::Exited(exit)) => self.take_exit(&exit),
            Ok(other) => tracing::warn!(pod = self.place.folders.uid, ?other, "unexpected notice"),
            Err(error) => self.lose_sandbox(&error),
        }
    }

    /// A container has ended.
    pub(super) fn take_exit(&mut self, exit: &wire::Exit) {
        let Some((name, attempt)) = facts::parse_run_id(&exit.id) else { return };
        let Some(facts) = self.containers.get_mut(name) else { return };
        let words = last_words::read(&self.place.folders, &self.pod, (name, attempt), exit.code);
        if facts.exited(facts::exit_of(attempt, exit, words)) {
            self.probing.forget(name);
        }
    }
}
