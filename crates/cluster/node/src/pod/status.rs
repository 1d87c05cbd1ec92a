//! The pod's status as a kubelet reports it, from facts and the decision's waiting reasons.
//!
//! Pure. What others wrote into the status (conditions of theirs, the scheduler's) is kept.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
        ContainerStateWaiting, ContainerStatus, HostIP, PodCondition, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    admission,
    decide::{Decision, is_leaving, is_over},
    qos,
    seen::{ContainerSeen, Exit, RestartPolicy, Role, RunState, Sandbox, Seen, Waiting},
};

/// Scheme of `containerID`.
const RUNTIME: &str = "coracle";

/// The `containerID` of a run: unique on the machine, and readable.
#[must_use]
pub(crate) fn container_id(uid: &str, container: &str, attempt: u32) -> String {
    format!("{RUNTIME}://{uid}.{container}.{attempt}")
}

/// The attempt a `containerID` names, if it is one of ours.
#[must_use]
pub(crate) fn attempt_of(container_id: &str) -> Option<u32> {
    container_id.strip_prefix(RUNTIME)?.rsplit_once('.')?.1.parse().ok()
}

/// The status to show now.
#[must_use]
pub(crate) fn status(seen: &Seen<'_>, decision: &Decision, host_ip: Ipv4Addr) -> PodStatus {
    let mut status = seen.status().cloned().unwrap_or_default();
    let statuses = |init: bool| -> Vec<ContainerStatus> {
        let containers = seen.containers().filter(|(role, _)| (*role != Role::Main) == init);
        containers.map(|(role, it)| container_status(seen, decision, role, it)).collect()
    };
    let init = statuses(true);
    status.container_statuses = Some(statuses(false));
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.observed_generation = seen.pod.metadata.generation.or(status.observed_generation);
    status.host_ip = Some(host_ip.to_string());
    status.host_ips = Some(vec![HostIP { ip: host_ip.to_string() }]);
    status.start_time = status.start_time.or(Some(Time(seen.now)));
    status.qos_class = status.qos_class.or_else(|| Some(qos::class(seen.pod).to_owned()));
    if let Sandbox::Up { address } = seen.sandbox {
        status.pod_ip = Some(address.v4.to_string());
        status.pod_ips = Some(address.all().map(|it| PodIP { ip: it.to_string() }).collect());
    }
    if let Some(admission::Refusal { reason, message }) = admission::refusal(seen.pod) {
        status.phase = Some("Failed".to_owned());
        status.reason = Some(reason.to_owned());
        status.message = Some(format!("Pod was rejected: {message}"));
        // Nothing of them ever was.
        status.container_statuses = None;
        status.init_container_statuses = None;
    } else if !seen.is_final() {
        status.phase = Some(phase(seen, &status).to_owned());
    }
    conditions(seen, &mut status);
    status
}

fn container_status(
    seen: &Seen<'_>,
    decision: &Decision,
    role: Role,
    container: &Container,
) -> ContainerStatus {
    let name = &container.name;
    let facts = seen.of(name);
    let previous = previous_status(seen, role, name);
    let uid = seen.pod.metadata.uid.as_deref().unwrap_or_default();
    let waiting = decision.waiting.get(name);
    // A pod that is over and was adopted has no facts any more, only its last status.
    if let (None, Some(previous)) = (&facts.run, previous)
        && (seen.is_final() || is_leaving(seen))
    {
        return previous.clone();
    }
    let (state, last_state) = states(facts, waiting, uid, name);
    let running = state.running.is_some();
    let started = running && facts.health.started;
    let ready = match role {
        Role::Init => state.terminated.as_ref().is_some_and(|it| it.exit_code == 0),
        Role::Sidecar | Role::Main => started && facts.health.ready,
    };
    let attempt = facts.run.as_ref().map(|it| it.attempt);
    let started_once = match facts.run.as_ref().map(|it| &it.state) {
        Some(RunState::Running { .. } | RunState::Exited(_)) => attempt,
        Some(RunState::Starting) => attempt.and_then(|it| it.checked_sub(1)),
        None => None,
    };
    ContainerStatus {
        name: name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: facts.image_id.clone(),
        container_id: started_once.map(|it| container_id(uid, name, it)),
        restart_count: started_once.map_or(0, |it| i32::try_from(it).unwrap_or(i32::MAX)),
        started: Some(started),
        ready,
        state: Some(state),
        last_state,
        ..ContainerStatus::default()
    }
}

fn previous_status<'a>(seen: &Seen<'a>, role: Role, name: &str) -> Option<&'a ContainerStatus> {
    let status = seen.pod.status.as_ref()?;
    let list = match role {
        Role::Init | Role::Sidecar => &status.init_container_statuses,
        Role::Main => &status.container_statuses,
    };
    list.as_ref()?.iter().find(|it| it.name == name)
}

/// `state` and `lastState`: a run that ended moves to `lastState` once the container waits for the
/// next one.
fn states(
    facts: &ContainerSeen,
    waiting: Option<&Waiting>,
    uid: &str,
    name: &str,
) -> (ContainerState, Option<ContainerState>) {
    let ended = |exit: &Exit| terminated(exit, container_id(uid, name, exit.attempt));
    let last = facts.last.as_ref().map(&ended);
    let wait = || {
        let default = Waiting { reason: "ContainerCreating".to_owned(), message: None };
        waiting_state(waiting.unwrap_or(&default))
    };
    match facts.run.as_ref().map(|it| &it.state) {
        None | Some(RunState::Starting) => (wait(), last),
        Some(RunState::Running { started_at, .. }) => (running_state(*started_at), last),
        Some(RunState::Exited(exit)) if waiting.is_some() => (wait(), Some(ended(exit))),
        Some(RunState::Exited(exit)) => (ended(exit), last),
    }
}

fn waiting_state(waiting: &Waiting) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some(waiting.reason.clone()),
        message: waiting.message.clone(),
    };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn running_state(started_at: Timestamp) -> ContainerState {
    let running = ContainerStateRunning { started_at: Some(Time(started_at)) };
    ContainerState { running: Some(running), ..ContainerState::default() }
}

fn terminated(exit: &Exit, container_id: String) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: Some(container_id),
        exit_code: exit.code,
        reason: Some(exit.reason.clone()),
        message: exit.message.clone(),
        started_at: Some(Time(exit.started_at)),
        finished_at: Some(Time(exit.finished_at)),
        signal: None,
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// The kubelet's `getPhase`.
fn phase(seen: &Seen<'_>, status: &PodStatus) -> &'static str {
    let policy = seen.restart_policy();
    let mut initializing = false;
    for (role, container) in seen.containers() {
        let facts = seen.of(&container.name);
        match role {
            Role::Init => match facts.exit() {
                Some(exit) if exit.code == 0 => {}
                Some(_) if policy == RestartPolicy::Never => return "Failed",
                Some(_) | None => initializing = true,
            },
            Role::Sidecar => initializing |= facts.run.is_none(),
            Role::Main => {}
        }
    }
    let mut tally = Tally::default();
    status.container_statuses.iter().flatten().for_each(|it| tally.add(it));
    // Init containers may run again in a new sandbox while main containers have run before.
    if initializing && tally.running == 0 && tally.stopped == 0 {
        return "Pending";
    }
    let over = is_over(seen) || is_leaving(seen);
    match tally {
        Tally { waiting: 1.., .. } => "Pending",
        Tally { running: 1.., .. } => "Running",
        Tally { stopped, succeeded, .. } if over && stopped == succeeded && stopped != 0 => {
            "Succeeded"
        }
        Tally { stopped: 1.., .. } if over => "Failed",
        Tally { stopped: 1.., .. } => "Running",
        Tally { .. } => "Pending",
    }
}

#[derive(Default)]
struct Tally {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
}

impl Tally {
    fn add(&mut self, status: &ContainerStatus) {
        let state = status.state.as_ref();
        let ended = |it: &ContainerState| it.terminated.as_ref().map(|it| it.exit_code);
        let last = status.last_state.as_ref().and_then(ended);
        if state.is_some_and(|it| it.running.is_some()) {
            self.running += 1;
        } else if let Some(code) = state.and_then(ended) {
            self.stopped += 1;
            self.succeeded += usize::from(code == 0);
        } else if last.is_some() {
            self.stopped += 1;
        } else {
            self.waiting += 1;
        }
    }
}

fn conditions(seen: &Seen<'_>, status: &mut PodStatus) {
    let phase = status.phase.clone().unwrap_or_default();
    let up = matches!(seen.sandbox, Sandbox::Up { .. });
    let initialized = initialized(seen, &phase);
    let containers_ready = containers_ready(status, &phase);
    let ready = gates(seen, status, &containers_ready);
    let scheduled = Verdict::yes();
    for (kind, verdict) in [
        ("PodReadyToStartContainers", Verdict { value: up, reason: None, message: None }),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", scheduled),
    ] {
        set_condition(seen, status, kind, verdict);
    }
    if seen.owners_lost != 0 {
        let message = format!(
            "{} files of the images belong to another user or group than the images say: without root that \
             needs newuidmap, and ranges for the user in /etc/subuid and /etc/subgid",
            seen.owners_lost
        );
        let verdict = Verdict::no("NoSubordinateIDs", Some(message));
        set_condition(seen, status, IMAGE_OWNERS, verdict);
    }
}

/// Whether the files of images have the owners that the images say. It is there only if they have not.
const IMAGE_OWNERS: &str = "coracle.dev/ImageOwners";

#[derive(Clone)]
struct Verdict {
    value: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    const fn yes() -> Self {
        Self { value: true, reason: None, message: None }
    }

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self { value: false, reason: Some(reason), message }
    }
}

fn initialized(seen: &Seen<'_>, phase: &str) -> Verdict {
    let incomplete: Vec<&str> = seen
        .containers()
        .filter(|(role, container)| {
            let facts = seen.of(&container.name);
            match role {
                Role::Init => facts.exit().is_none_or(|exit| exit.code != 0),
                Role::Sidecar => !facts.health.started,
                Role::Main => false,
            }
        })
        .map(|(_, it)| it.name.as_str())
        .collect();
    match phase {
        "Succeeded" => Verdict { reason: Some("PodCompleted"), ..Verdict::yes() },
        _ if incomplete.is_empty() || seen.is_final() => Verdict::yes(),
        _ => {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            Verdict::no("ContainersNotInitialized", Some(message))
        }
    }
}

fn containers_ready(status: &PodStatus, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no("PodCompleted", None),
        "Failed" => return Verdict::no("PodFailed", None),
        _ => {}
    }
    let all = status.container_statuses.iter().flatten();
    let unready: Vec<&str> = all.filter(|it| !it.ready).map(|it| it.name.as_str()).collect();
    if unready.is_empty() {
        return Verdict::yes();
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict::no("ContainersNotReady", Some(message))
}

/// `Ready`: every container, and every condition that `readinessGates` names.
fn gates(seen: &Seen<'_>, status: &PodStatus, containers: &Verdict) -> Verdict {
    if !containers.value {
        return containers.clone();
    }
    let gates = seen.pod.spec.as_ref().and_then(|it| it.readiness_gates.as_deref());
    let mut missing = Vec::new();
    for gate in gates.unwrap_or_default() {
        let kind = &gate.condition_type;
        let found = status.conditions.iter().flatten().find(|it| it.type_ == *kind);
        match found.map(|it| it.status.as_str()) {
            Some("True") => {}
            Some(other) => missing.push(format!(
                "the status of pod readiness gate \"{kind}\" is not \"True\", but {other}"
            )),
            None => missing.push(format!(
                "corresponding condition of pod readiness gate \"{kind}\" does not exist."
            )),
        }
    }
    if missing.is_empty() {
        return Verdict::yes();
    }
    Verdict::no("ReadinessGatesNotReady", Some(missing.join(", ")))
}

/// Sets one condition; the time of its last transition moves only when its value does.
fn set_condition(seen: &Seen<'_>, status: &mut PodStatus, kind: &str, verdict: Verdict) {
    let list = status.conditions.get_or_insert_default();
    let old = list.iter().position(|it| it.type_ == kind);
    let value = if verdict.value { "True" } else { "False" };
    let mut condition = PodCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: Some(Time(seen.now)),
        observed_generation: seen.pod.metadata.generation,
        last_probe_time: None,
    };
    match old.and_then(|it| list.get_mut(it)) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time.clone_from(&old.last_transition_time);
            }
            *old = condition;
        }
        None => list.push(condition),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
