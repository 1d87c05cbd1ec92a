//! What to do next for one pod: pure, and the whole of the pod's life.
//!
//! The order of a life: sandbox, init containers one by one, main containers at once; restarts by
//! policy; at the end routing first, then SIGTERM, SIGKILL, cleaning, the last status, and the API
//! object. <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Container;

use super::{
    admission, crash_loop,
    seen::{Exit, RestartPolicy, Role, Routing, Run, RunState, Sandbox, Seen, Waiting},
};

/// What a sidecar gets to stop when the pod's grace period is used up, as with the kubelet.
const SIDECAR_GRACE_MIN: Duration = Duration::from_secs(2);
/// Grace period of a pod that names none: the API's default.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// One step, each safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make the sandbox.
    Prepare,
    /// Start a container's run number `attempt`.
    Start {
        /// Its name.
        container: String,
        /// 0 for the first.
        attempt: u32,
    },
    /// Begin to wait until no service routes to the pod.
    AwaitUnrouted,
    /// SIGTERM now, SIGKILL at the deadline.
    Terminate {
        /// Its name.
        container: String,
        /// On the clock of [`Seen::uptime`].
        deadline: Duration,
        /// For the `Killing` event.
        why: String,
    },
    /// SIGKILL.
    Kill {
        /// Its name.
        container: String,
    },
    /// Take the sandbox down; volumes and logs stay.
    Stop,
    /// Take the sandbox down and remove everything of the pod from the machine.
    Clean,
}

/// How a worker's life ends, once every action is done and the status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Delete the API object for good.
    Delete,
    /// Nobody to tell.
    Forget,
}

/// What to do, and why nothing more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// What to do now, in this order.
    pub actions: Vec<Action>,
    /// Why a container does not run, by its name.
    pub waiting: BTreeMap<String, Waiting>,
    /// When to decide again at the latest, on the clock of [`Seen::uptime`].
    pub wake_at: Option<Duration>,
    /// Set when nothing is left to do.
    pub end: Option<End>,
    /// What the pod waits for, for the log.
    pub waiting_on: &'static str,
}

/// Decides.
#[must_use]
pub(crate) fn decide(seen: &Seen<'_>) -> Decision {
    let mut out = Decision::default();
    match goal(seen) {
        Goal::Run => run(seen, &mut out),
        Goal::Stop(stop) => halt(seen, stop, &mut out),
    }
    out
}

enum Goal {
    Run,
    Stop(Stop),
}

/// Why and how the whole pod stops.
#[derive(Clone, Copy)]
struct Stop {
    grace: Duration,
    after: After,
}

/// What becomes of the pod once its containers have stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// The API object is deleted.
    Delete,
    /// The API object is gone already.
    Forget,
    /// The pod runs again when the node does.
    Keep,
}

/// Whether the pod is on its way out for good, so that its phase is final once its containers end.
#[must_use]
pub(crate) fn is_leaving(seen: &Seen<'_>) -> bool {
    seen.vanished || seen.pod.metadata.deletion_timestamp.is_some()
}

fn goal(seen: &Seen<'_>) -> Goal {
    let metadata = &seen.pod.metadata;
    if seen.vanished {
        Goal::Stop(Stop { grace: Duration::ZERO, after: After::Forget })
    } else if metadata.deletion_timestamp.is_some() {
        let grace = metadata.deletion_grace_period_seconds.map_or(GRACE_DEFAULT, seconds);
        Goal::Stop(Stop { grace, after: After::Delete })
    } else if let Some(limit) = seen.node_stops {
        Goal::Stop(Stop { grace: spec_grace(seen).min(limit), after: After::Keep })
    } else {
        Goal::Run
    }
}

fn spec_grace(seen: &Seen<'_>) -> Duration {
    let spec = seen.pod.spec.as_ref();
    spec.and_then(|it| it.termination_grace_period_seconds).map_or(GRACE_DEFAULT, seconds)
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

impl Decision {
    /// Whether something is about to start, so that the status will change in a moment.
    #[must_use]
    pub(crate) fn starts(&self) -> bool {
        self.actions.iter().any(|it| matches!(it, Action::Prepare | Action::Start { .. }))
    }

    fn wake(&mut self, at: Duration) {
        self.wake_at = Some(self.wake_at.map_or(at, |it| it.min(at)));
    }

    fn wait(&mut self, container: &Container, reason: &str) {
        let waiting = Waiting { reason: reason.to_owned(), message: None };
        self.waiting.insert(container.name.clone(), waiting);
    }
}

// Running.

fn run(seen: &Seen<'_>, out: &mut Decision) {
    let has_init = seen.containers().any(|(role, _)| role != Role::Main);
    for (_, container) in seen.containers() {
        let waits = seen.of(&container.name).run.is_none();
        if waits {
            out.wait(container, if has_init { "PodInitializing" } else { "ContainerCreating" });
        }
    }
    if is_over(seen) {
        wind_up(seen, out);
        return;
    }
    match seen.sandbox {
        Sandbox::Absent => {
            out.actions.push(Action::Prepare);
            out.waiting_on = "its sandbox";
        }
        Sandbox::Preparing => out.waiting_on = "its sandbox",
        Sandbox::Stopping | Sandbox::Cleaned => out.waiting_on = "the old sandbox to go",
        Sandbox::Failed { retry, .. } => {
            if *retry <= seen.uptime {
                out.actions.push(Action::Prepare);
            } else {
                out.wake(*retry);
            }
            out.waiting_on = "its sandbox, to be tried again";
        }
        Sandbox::Up { .. } => containers(seen, out),
    }
}

/// Whether no container will ever run again: the pod has succeeded or failed.
#[must_use]
pub(crate) fn is_over(seen: &Seen<'_>) -> bool {
    if seen.is_final() || admission::refusal(seen.pod).is_some() {
        return true;
    }
    let failed_init = seen
        .containers()
        .filter(|(role, _)| *role == Role::Init)
        .any(|(role, it)| ended(seen, role, it).is_some_and(|exit| exit.code != 0));
    let mut main = seen.containers().filter(|(role, _)| *role == Role::Main);
    failed_init || main.all(|(role, it)| ended(seen, role, it).is_some())
}

/// The container's end, if it is its last.
fn ended<'a>(seen: &Seen<'a>, role: Role, container: &Container) -> Option<&'a Exit> {
    let exit = seen.containers.get(&container.name)?.exit()?;
    let again = restarts(seen.restart_policy(), role, exit);
    (!again).then_some(exit)
}

fn restarts(policy: RestartPolicy, role: Role, exit: &Exit) -> bool {
    match (role, policy) {
        (Role::Sidecar, _) => true,
        (Role::Init, RestartPolicy::Always | RestartPolicy::OnFailure)
        | (Role::Main, RestartPolicy::OnFailure) => exit.code != 0,
        (Role::Main, RestartPolicy::Always) => true,
        (Role::Init | Role::Main, RestartPolicy::Never) => false,
    }
}

/// The pod is over: stops what still runs (sidecars), then the sandbox.
fn wind_up(seen: &Seen<'_>, out: &mut Decision) {
    let deadline = seen.uptime + spec_grace(seen);
    if stop_containers(seen, deadline, "Stopping container", out) {
        out.waiting_on = "its sidecars to stop";
        return;
    }
    out.waiting_on = "its deletion";
    match seen.sandbox {
        Sandbox::Up { .. } | Sandbox::Failed { .. } => out.actions.push(Action::Stop),
        Sandbox::Absent | Sandbox::Preparing | Sandbox::Stopping | Sandbox::Cleaned => {}
    }
}

fn containers(seen: &Seen<'_>, out: &mut Decision) {
    for (role, container) in seen.containers() {
        match role {
            Role::Init => {
                if !init_done(seen, container) {
                    step(seen, role, container, out);
                    out.waiting_on = "an init container";
                    return;
                }
            }
            Role::Sidecar => {
                step(seen, role, container, out);
                if !is_started(seen, container) {
                    out.waiting_on = "a sidecar to start";
                    return;
                }
            }
            Role::Main => step(seen, role, container, out),
        }
    }
}

fn init_done(seen: &Seen<'_>, container: &Container) -> bool {
    let facts = seen.of(&container.name);
    let in_sandbox = facts.run.as_ref().is_some_and(|it| it.in_sandbox);
    in_sandbox && facts.exit().is_some_and(|exit| exit.code == 0)
}

fn is_started(seen: &Seen<'_>, container: &Container) -> bool {
    let facts = seen.of(&container.name);
    let running = facts.run.as_ref().map(|it| &it.state);
    facts.health.started && matches!(running, Some(RunState::Running { .. }))
}

/// One container's next step while its pod runs.
fn step(seen: &Seen<'_>, role: Role, container: &Container, out: &mut Decision) {
    let facts = seen.of(&container.name);
    match &facts.run {
        None => start(seen, container, 0, out),
        Some(Run { state: RunState::Starting, .. }) => out.wait(container, "ContainerCreating"),
        Some(Run { state: RunState::Running { stopping: Some(stopping), .. }, .. }) => {
            if stopping.killed {
                return;
            }
            if stopping.deadline <= seen.uptime {
                out.actions.push(Action::Kill { container: container.name.clone() });
            } else {
                out.wake(stopping.deadline);
            }
        }
        Some(Run { state: RunState::Running { stopping: None, .. }, .. }) => {
            if let Some(verdict) = &facts.health.failed {
                let grace = verdict.grace.unwrap_or_else(|| spec_grace(seen));
                out.actions.push(Action::Terminate {
                    container: container.name.clone(),
                    deadline: seen.uptime + grace,
                    why: verdict.message.clone(),
                });
            }
        }
        Some(Run { state: RunState::Exited(exit), in_sandbox, attempt }) => {
            // In a new sandbox init containers run again, even those that had succeeded.
            let again = restarts(seen.restart_policy(), role, exit)
                || (role == Role::Init && exit.code == 0 && !in_sandbox);
            if again {
                restart(seen, container, exit, *attempt, out);
            }
        }
    }
}

fn restart(seen: &Seen<'_>, container: &Container, exit: &Exit, attempt: u32, out: &mut Decision) {
    let failures = seen.of(&container.name).failures;
    let wait = crash_loop::remaining(failures, exit.finished_at, seen.now);
    if wait.is_zero() {
        start(seen, container, attempt.saturating_add(1), out);
        return;
    }
    out.wake(seen.uptime + wait);
    out.waiting_on = "the back-off of a container";
    let pod = pod_words(seen);
    let message = Some(crash_loop::message(failures, &container.name, &pod));
    let waiting = Waiting { reason: "CrashLoopBackOff".to_owned(), message };
    out.waiting.insert(container.name.clone(), waiting);
}

/// `name_namespace(uid)`, as the kubelet names pods in messages.
fn pod_words(seen: &Seen<'_>) -> String {
    let metadata = &seen.pod.metadata;
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    format!("{}_{}({})", text(&metadata.name), text(&metadata.namespace), text(&metadata.uid))
}

fn start(seen: &Seen<'_>, container: &Container, attempt: u32, out: &mut Decision) {
    if let Some(blocked) = &seen.of(&container.name).blocked {
        out.waiting_on = "a container that cannot be configured";
        out.waiting.insert(container.name.clone(), blocked.clone());
        return;
    }
    out.wait(container, "ContainerCreating");
    out.actions.push(Action::Start { container: container.name.clone(), attempt });
}

// Stopping.

fn halt(seen: &Seen<'_>, stop: Stop, out: &mut Decision) {
    let alive = seen.containers.values().any(super::seen::ContainerSeen::is_alive);
    if !alive {
        finish(seen, stop.after, out);
        return;
    }
    let since = match seen.routing {
        // Nobody waits for a forced deletion; and when the node stops all pods go, which no Service
        // is told of, as their objects stay.
        _ if stop.grace.is_zero() || seen.node_stops.is_some() => seen.uptime,
        Routing::Unrouted(since) => since,
        Routing::Waiting => {
            out.waiting_on = "services to stop routing to it";
            return;
        }
        Routing::Routed => {
            out.actions.push(Action::AwaitUnrouted);
            out.waiting_on = "services to stop routing to it";
            return;
        }
    };
    stop_containers(seen, since + stop.grace, "Stopping container", out);
    out.waiting_on = "its containers to stop";
}

/// Tells what runs to stop: init and main containers at once, then sidecars, the last one first.
/// Returns whether anything is still alive.
fn stop_containers(seen: &Seen<'_>, deadline: Duration, why: &str, out: &mut Decision) -> bool {
    let alive = |it: &(Role, &Container)| seen.of(&it.1.name).is_alive();
    let mut plain =
        seen.containers().filter(alive).filter(|(it, _)| *it != Role::Sidecar).peekable();
    if plain.peek().is_some() {
        plain.for_each(|(_, it)| stop_container(seen, it, deadline, why, out));
        return true;
    }
    let last = seen.containers().rev().filter(alive).find(|(it, _)| *it == Role::Sidecar);
    if let Some((_, container)) = last {
        let forced = deadline <= seen.uptime && seen.routing == Routing::Routed;
        let least = if forced { deadline } else { seen.uptime + SIDECAR_GRACE_MIN };
        stop_container(seen, container, deadline.max(least), why, out);
    }
    last.is_some()
}

fn stop_container(
    seen: &Seen<'_>,
    container: &Container,
    deadline: Duration,
    why: &str,
    out: &mut Decision,
) {
    let name = &container.name;
    let Some(run) = &seen.of(name).run else { return };
    let stopping = match &run.state {
        RunState::Running { stopping, .. } => stopping,
        // The answer to the start, or to the end, is on its way.
        RunState::Starting | RunState::Exited(_) => return,
    };
    let deadline = stopping.map_or(deadline, |it| it.deadline.min(deadline));
    match stopping {
        Some(it) if it.killed => {}
        _ if deadline <= seen.uptime => {
            out.actions.push(Action::Kill { container: name.clone() });
        }
        Some(_) => out.wake(deadline),
        None => {
            let why = format!("{why} {name}");
            out.actions.push(Action::Terminate { container: name.clone(), deadline, why });
            out.wake(deadline);
        }
    }
}

/// No container runs: takes the rest down.
fn finish(seen: &Seen<'_>, after: After, out: &mut Decision) {
    match (seen.sandbox, after) {
        (Sandbox::Preparing | Sandbox::Stopping, _) => out.waiting_on = "its sandbox to go",
        (Sandbox::Cleaned, After::Delete) => out.end = Some(End::Delete),
        (Sandbox::Cleaned, After::Forget) | (Sandbox::Absent, After::Keep) => {
            out.end = Some(End::Forget);
        }
        (Sandbox::Cleaned, After::Keep) => out.end = Some(End::Forget),
        (
            Sandbox::Absent | Sandbox::Up { .. } | Sandbox::Failed { .. },
            After::Delete | After::Forget,
        ) => {
            out.actions.push(Action::Clean);
            out.waiting_on = "its sandbox to go";
        }
        (Sandbox::Up { .. } | Sandbox::Failed { .. }, After::Keep) => {
            out.actions.push(Action::Stop);
            out.waiting_on = "its sandbox to go";
        }
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
