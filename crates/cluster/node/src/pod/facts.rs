//! The facts of a pod's containers as they change: what happened to a run, and what an earlier
//! process has left to be known. Plain state changes; no IO.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use shim::wire;

use super::{
    crash_loop,
    seen::{ContainerSeen, Exit, Health, Run, RunState, Stopping, containers},
    status::attempt_of,
};

/// Exit code of a run whose end nobody saw, as with the kubelet: that of SIGKILL.
const LOST_CODE: i32 = 137;
/// The kubelet's reason for it.
const LOST_REASON: &str = "ContainerStatusUnknown";
/// Exit code of a run that could not be started, as container runtimes report it.
const START_CODE: i32 = 128;

/// Facts of each container of a pod, by name.
pub(crate) type Containers = BTreeMap<String, ContainerSeen>;

/// The id by which the shim knows a run.
#[must_use]
pub(crate) fn run_id(container: &str, attempt: u32) -> String {
    format!("{container}.{attempt}")
}

/// Container and attempt of a shim's id.
#[must_use]
pub(crate) fn parse_run_id(id: &str) -> Option<(&str, u32)> {
    let (container, attempt) = id.rsplit_once('.')?;
    Some((container, attempt.parse().ok()?))
}

/// A run's end in the API's words. `message` is its termination message.
#[must_use]
pub(crate) fn exit_of(attempt: u32, exit: &wire::Exit, message: Option<String>) -> Exit {
    let finished_at: Timestamp = exit.finished_at.parse().unwrap_or_default();
    let started_at = exit.started_at.as_deref().and_then(|it| it.parse().ok());
    let reason = match (exit.oom_killed, exit.code) {
        (Some(true), _) => "OOMKilled",
        (_, 0) => "Completed",
        (_, _) => "Error",
    };
    Exit {
        attempt,
        code: exit.code,
        reason: reason.to_owned(),
        message: message.filter(|it| !it.is_empty()),
        started_at: started_at.unwrap_or(finished_at),
        finished_at,
    }
}

impl ContainerSeen {
    /// A run was asked for.
    pub(crate) fn starting(&mut self, attempt: u32) {
        if let Some(exit) = self.exit().cloned() {
            self.last = Some(exit);
        }
        self.run = Some(Run { attempt, in_sandbox: true, state: RunState::Starting });
        self.health = Health::default();
    }

    /// Its process runs; `health` is what is known without any probe.
    pub(crate) fn started(&mut self, attempt: u32, started_at: Timestamp, health: Health) {
        let state = RunState::Running { started_at, stopping: None };
        self.run = Some(Run { attempt, in_sandbox: true, state });
        self.health = health;
    }

    /// It could not be started.
    pub(crate) fn start_failed(&mut self, attempt: u32, message: String, now: Timestamp) {
        self.exited(Exit {
            attempt,
            code: START_CODE,
            reason: "StartError".to_owned(),
            message: Some(message),
            started_at: now,
            finished_at: now,
        });
    }

    /// The newest run has ended. An end that is known already, or of an older run, changes nothing.
    pub(crate) fn exited(&mut self, exit: Exit) -> bool {
        let Some(run) = &mut self.run else { return false };
        if run.attempt != exit.attempt || matches!(run.state, RunState::Exited(_)) {
            return false;
        }
        self.failures = crash_loop::level_after(self.failures, &exit);
        self.health = Health::default();
        run.state = RunState::Exited(exit);
        true
    }

    /// It was told to stop.
    pub(crate) fn stopping(&mut self, deadline: Duration, killed: bool) {
        if let Some(Run { state: RunState::Running { stopping, .. }, .. }) = &mut self.run {
            *stopping = Some(Stopping { deadline, killed });
        }
    }

    /// Its sandbox is gone, and the process with it: nobody's fault, so it runs again at once.
    pub(crate) fn lost(&mut self, now: Timestamp) {
        let Some(run) = &mut self.run else { return };
        run.in_sandbox = false;
        let started_at = match &run.state {
            RunState::Running { started_at, .. } => *started_at,
            RunState::Starting => now,
            RunState::Exited(_) => return,
        };
        run.state = RunState::Exited(lost_exit(run.attempt, started_at, now));
        self.failures = 0;
        self.health = Health::default();
    }
}

fn lost_exit(attempt: u32, started_at: Timestamp, now: Timestamp) -> Exit {
    Exit {
        attempt,
        code: LOST_CODE,
        reason: LOST_REASON.to_owned(),
        message: Some(
            "The container could not be located when the pod was looked at again.  \
             The container used to be Running"
                .to_owned(),
        ),
        started_at,
        finished_at: now,
    }
}

/// What the machine still knows of a pod.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Whether its shim lives.
    pub(crate) shim_lives: bool,
    /// Runs that go on, with their start.
    pub(crate) running: Vec<(String, u32, Timestamp)>,
    /// Ends, of whatever run.
    pub(crate) exits: Vec<(String, Exit)>,
}

/// The facts of a pod that an earlier process has driven: from the machine's records and from the
/// status that was last written. A run is never counted twice and never forgotten.
#[must_use]
pub(crate) fn recover(pod: &Pod, records: &Records, now: Timestamp) -> Containers {
    let status = pod.status.as_ref();
    let init = status.and_then(|it| it.init_container_statuses.as_deref()).unwrap_or_default();
    let main = status.and_then(|it| it.container_statuses.as_deref()).unwrap_or_default();
    let mut result = Containers::new();
    for (_, container) in containers(pod) {
        let name = container.name.as_str();
        let written = init.iter().chain(main).find(|it| it.name == name);
        let facts = recover_one(name, written, records, now);
        result.insert(name.to_owned(), facts);
    }
    result
}

fn recover_one(
    name: &str,
    written: Option<&ContainerStatus>,
    records: &Records,
    now: Timestamp,
) -> ContainerSeen {
    let mut facts = ContainerSeen {
        failures: written.map(crash_loop::recover).unwrap_or_default(),
        image_id: written.map(|it| it.image_id.clone()).unwrap_or_default(),
        ..ContainerSeen::default()
    };
    let mut exits: Vec<Exit> =
        records.exits.iter().filter(|(it, _)| it == name).map(|(_, exit)| exit.clone()).collect();
    let told = written.map(told_exits).unwrap_or_default();
    exits.extend(told.iter().cloned());
    exits.sort_by_key(|it| it.attempt);
    // The machine's own records are exact; the API's are cut to seconds.
    exits.dedup_by(|later, kept| later.attempt == kept.attempt);
    let running = records.running.iter().find(|(it, ..)| it == name);
    let told_running = written.and_then(told_running);
    let newest = exits.last().map(|it| it.attempt);

    if let Some((_, attempt, started_at)) = running {
        facts.last = exits.into_iter().rev().find(|it| it.attempt < *attempt);
        let told = written.filter(|_| told_running.is_some_and(|(it, _)| it == *attempt));
        let health = Health {
            started: told.is_some_and(|it| it.started == Some(true)),
            ready: told.is_some_and(|it| it.ready),
            failed: None,
        };
        facts.started(*attempt, *started_at, health);
        return facts;
    }
    match told_running {
        Some((attempt, started_at)) if newest.is_none_or(|it| it < attempt) => {
            facts.last = exits.pop();
            let state = RunState::Exited(lost_exit(attempt, started_at, now));
            facts.run = Some(Run { attempt, in_sandbox: false, state });
            facts.failures = 0;
        }
        _ => {
            let Some(exit) = exits.pop() else { return facts };
            facts.last = exits.pop();
            let waits = written.and_then(|it| it.state.as_ref()).and_then(|it| it.waiting.as_ref());
            let counted = waits.is_some() && told.iter().any(|it| it.attempt == exit.attempt);
            if !counted {
                // Ended by the node's own stop or unseen, in a sandbox that is gone: starts afresh.
                facts.failures = if records.shim_lives {
                    crash_loop::level_after(facts.failures, &exit)
                } else {
                    0
                };
            }
            let attempt = exit.attempt;
            let state = RunState::Exited(exit);
            facts.run = Some(Run { attempt, in_sandbox: records.shim_lives, state });
        }
    }
    facts
}

fn told_running(status: &ContainerStatus) -> Option<(u32, Timestamp)> {
    let running = status.state.as_ref()?.running.as_ref()?;
    let attempt = attempt_of(status.container_id.as_deref()?)?;
    Some((attempt, running.started_at.as_ref()?.0))
}

fn told_exits(status: &ContainerStatus) -> Vec<Exit> {
    let states = [status.last_state.as_ref(), status.state.as_ref()];
    states.into_iter().flatten().filter_map(told_exit).collect()
}

fn told_exit(state: &ContainerState) -> Option<Exit> {
    let ended = state.terminated.as_ref()?;
    Some(Exit {
        attempt: attempt_of(ended.container_id.as_deref()?)?,
        code: ended.exit_code,
        reason: ended.reason.clone().unwrap_or_default(),
        message: ended.message.clone(),
        started_at: ended.started_at.as_ref()?.0,
        finished_at: ended.finished_at.as_ref()?.0,
    })
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
