//! One pod as its worker sees it at one moment: the API object, and the facts of the machine.
//!
//! Plain data; [`super::decide`] and [`super::status`] read it, the worker fills it.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};

use crate::context::PodAddress;

/// Everything a decision is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// Time of day, for time stamps and for back-off, which must outlive the process.
    pub now: Timestamp,
    /// Time on a clock that never jumps, for grace periods.
    pub uptime: Duration,
    /// The pod, with its status as last written.
    pub pod: &'a Pod,
    /// Whether the API object is gone, so that nobody is left to report to.
    pub vanished: bool,
    /// The whole node is being stopped: at most this long for each pod's containers.
    pub node_stops: Option<Duration>,
    /// The pod's own place on the machine.
    pub sandbox: &'a Sandbox,
    /// Whether traffic may still arrive.
    pub routing: Routing,
    /// Files of the containers' images whose owners this machine could not give them.
    pub owners_lost: u64,
    /// Facts of each container by name. A name that is missing has no facts yet.
    pub containers: &'a BTreeMap<String, ContainerSeen>,
}

/// Namespaces, shim, network and volumes of a pod, taken as one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sandbox {
    /// Not there; folders may be.
    Absent,
    /// Being made.
    Preparing,
    /// Ready for containers.
    Up {
        /// The pod's addresses.
        address: PodAddress,
    },
    /// Could not be made; to be tried again at `retry`.
    Failed {
        /// Why, for the user.
        message: String,
        /// When to try again, on the clock of [`Seen::uptime`].
        retry: Duration,
    },
    /// Being taken down or cleaned.
    Stopping,
    /// Nothing of the pod is left on the machine.
    Cleaned,
}

/// Where the wait for routing stands, once a pod is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routing {
    /// The pod may be routed to; nobody waits for the contrary.
    Routed,
    /// Waiting for every service to drop the address.
    Waiting,
    /// No new connection arrives since then (on the clock of [`Seen::uptime`]).
    Unrouted(Duration),
}

/// Facts of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerSeen {
    /// The newest run.
    pub run: Option<Run>,
    /// How the run before it ended.
    pub last: Option<Exit>,
    /// Runs in a row that ended soon: the level of the back-off.
    pub failures: u32,
    /// Why no run can be started now.
    pub blocked: Option<Waiting>,
    /// What probes say of the running one.
    pub health: Health,
    /// `imageID` of the newest run.
    pub image_id: String,
}

/// What probes have found out of the newest run. Without a probe of a kind, the best.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// The startup probe has succeeded.
    pub started: bool,
    /// The readiness probe succeeds.
    pub ready: bool,
    /// A startup or liveness probe gave up on it.
    pub failed: Option<Verdict>,
}

/// Why a probe gave up on a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// For the `Killing` event.
    pub message: String,
    /// The probe's own grace period, if it has one.
    pub grace: Option<Duration>,
}

/// A reason not to run, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: Option<String>,
}

/// One run of a container, from start to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// 0 for the first; the API's `restartCount`.
    pub attempt: u32,
    /// Whether it belongs to the present sandbox: init containers run once in each.
    pub in_sandbox: bool,
    /// Where it stands.
    pub state: RunState,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunState {
    /// Asked for.
    Starting,
    /// Its process runs.
    Running {
        /// Since when.
        started_at: Timestamp,
        /// Set once it was told to stop.
        stopping: Option<Stopping>,
    },
    /// It has ended.
    Exited(Exit),
}

/// A container that was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopping {
    /// When it is killed, on the clock of [`Seen::uptime`].
    pub deadline: Duration,
    /// It was killed; only its end has not been seen yet.
    pub killed: bool,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Which run.
    pub attempt: u32,
    /// Exit code; 128 + signal for one that was killed.
    pub code: i32,
    /// `Completed`, `Error`, …
    pub reason: String,
    /// Termination message.
    pub message: Option<String>,
    /// Its start.
    pub started_at: Timestamp,
    /// Its end.
    pub finished_at: Timestamp,
}

/// What part a container has in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order, then stays.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

/// The pod's `restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// If the exit code is not 0.
    OnFailure,
    /// Never.
    Never,
}

impl Seen<'_> {
    /// Init containers and sidecars, then main containers, as declared.
    pub(crate) fn containers(&self) -> impl DoubleEndedIterator<Item = (Role, &Container)> {
        containers(self.pod)
    }

    /// Facts of the container.
    #[must_use]
    pub(crate) fn of(&self, name: &str) -> &ContainerSeen {
        const NONE: &ContainerSeen = &ContainerSeen {
            run: None,
            last: None,
            failures: 0,
            blocked: None,
            health: Health { started: false, ready: false, failed: None },
            image_id: String::new(),
        };
        self.containers.get(name).unwrap_or(NONE)
    }

    /// The pod's restart policy.
    #[must_use]
    pub(crate) fn restart_policy(&self) -> RestartPolicy {
        match spec(self.pod).and_then(|it| it.restart_policy.as_deref()) {
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some("Never") => RestartPolicy::Never,
            _ => RestartPolicy::Always,
        }
    }

    /// The status as last written.
    #[must_use]
    pub(crate) fn status(&self) -> Option<&PodStatus> {
        self.pod.status.as_ref()
    }

    /// Whether the last written phase is final: such a pod never runs again.
    #[must_use]
    pub(crate) fn is_final(&self) -> bool {
        let phase = self.status().and_then(|it| it.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }
}

impl ContainerSeen {
    /// Whether a process of it runs, or is about to.
    #[must_use]
    pub(crate) fn is_alive(&self) -> bool {
        match self.run.as_ref().map(|it| &it.state) {
            Some(RunState::Starting | RunState::Running { .. }) => true,
            Some(RunState::Exited(_)) | None => false,
        }
    }

    /// The end of the newest run, if it has ended.
    #[must_use]
    pub(crate) fn exit(&self) -> Option<&Exit> {
        match &self.run.as_ref()?.state {
            RunState::Exited(exit) => Some(exit),
            RunState::Starting | RunState::Running { .. } => None,
        }
    }
}

/// Init containers and sidecars of `pod`, then main containers, as declared.
pub(crate) fn containers(pod: &Pod) -> impl DoubleEndedIterator<Item = (Role, &Container)> {
    let init = spec(pod).and_then(|it| it.init_containers.as_deref()).unwrap_or_default();
    let main = spec(pod).map(|it| it.containers.as_slice()).unwrap_or_default();
    init.iter().map(|it| (init_role(it), it)).chain(main.iter().map(|it| (Role::Main, it)))
}

fn init_role(container: &Container) -> Role {
    match container.restart_policy.as_deref() {
        Some("Always") => Role::Sidecar,
        _ => Role::Init,
    }
}

fn spec(pod: &Pod) -> Option<&PodSpec> {
    pod.spec.as_ref()
}
