//! A pod's machine in memory, for tests: takes a decision's actions for done, and ends containers
//! when a test says so.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{
    crash_loop,
    decide::{Action, Decision, End, decide},
    seen::{ContainerSeen, Exit, Health, Routing, Run, RunState, Sandbox, Seen, Stopping},
    status::status,
};

pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 9);

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) pod: Pod,
    pub(super) vanished: bool,
    pub(super) node_stops: Option<Duration>,
    pub(super) uptime: Duration,
    pub(super) sandbox: Sandbox,
    pub(super) routing: Routing,
    pub(super) owners_lost: u64,
    pub(super) containers: BTreeMap<String, ContainerSeen>,
    pub(super) end: Option<End>,
    /// What was done, in words.
    pub(super) log: Vec<String>,
}

impl Model {
    pub(super) fn new(spec: Value) -> Self {
        let pod = json!({
            "metadata": { "namespace": "shop", "name": "web", "uid": "1234", "generation": 1 },
            "spec": spec,
            "status": { "phase": "Pending", "qosClass": "BestEffort" },
        });
        Self {
            pod: serde_json::from_value(pod).unwrap(),
            vanished: false,
            node_stops: None,
            uptime: Duration::ZERO,
            sandbox: Sandbox::Absent,
            routing: Routing::Routed,
            owners_lost: 0,
            containers: BTreeMap::new(),
            end: None,
            log: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        start + SignedDuration::try_from(self.uptime).unwrap()
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            now: self.now(),
            uptime: self.uptime,
            pod: &self.pod,
            vanished: self.vanished,
            node_stops: self.node_stops,
            sandbox: &self.sandbox,
            routing: self.routing,
            owners_lost: self.owners_lost,
            containers: &self.containers,
        }
    }

    /// Decides, writes the status, does everything at once. Returns the decision.
    pub(super) fn turn(&mut self) -> Decision {
        let decision = decide(&self.seen());
        let status = status(&self.seen(), &decision, HOST);
        self.pod.status = Some(status);
        for action in &decision.actions {
            self.act(action);
        }
        self.end = self.end.or(decision.end);
        decision
    }

    /// Turns until nothing is to be done now.
    pub(super) fn settle(&mut self) -> Decision {
        for _ in 0..64 {
            let decision = self.turn();
            if decision.actions.is_empty() {
                return decision;
            }
        }
        panic!("does not settle: {:#?}", self.log);
    }

    /// Lets the time pass until the next wake-up, if there is one.
    pub(super) fn sleep(&mut self) -> bool {
        let wake_at = decide(&self.seen()).wake_at;
        self.uptime = self.uptime.max(wake_at.unwrap_or_default());
        wake_at.is_some()
    }

    pub(super) fn facts(&mut self, container: &str) -> &mut ContainerSeen {
        self.containers.entry(container.to_owned()).or_default()
    }

    fn act(&mut self, action: &Action) {
        self.log.push(words(action));
        match action {
            Action::Prepare => {
                assert!(matches!(self.sandbox, Sandbox::Absent | Sandbox::Failed { .. }));
                self.sandbox = Sandbox::Up { address: ADDRESS.into() };
            }
            Action::Start { container, attempt } => self.start(container, *attempt),
            Action::AwaitUnrouted => self.routing = Routing::Unrouted(self.uptime),
            Action::Terminate { container, deadline, .. } => {
                let deadline = *deadline;
                let stopping = Stopping { deadline, killed: false };
                match &mut self.facts(container).run {
                    Some(Run { state: RunState::Running { stopping: it, .. }, .. }) => {
                        assert_eq!(*it, None, "told twice to stop");
                        *it = Some(stopping);
                    }
                    other => panic!("cannot terminate {other:?}"),
                }
            }
            Action::Kill { container } => self.exit(&container.clone(), 137),
            Action::Stop => {
                assert!(!self.containers.values().any(ContainerSeen::is_alive));
                self.sandbox = Sandbox::Absent;
            }
            Action::Clean => {
                assert!(!self.containers.values().any(ContainerSeen::is_alive));
                self.sandbox = Sandbox::Cleaned;
            }
        }
    }

    fn start(&mut self, container: &str, attempt: u32) {
        assert!(matches!(self.sandbox, Sandbox::Up { .. }), "started without a sandbox");
        let started_at = self.now();
        let facts = self.facts(container);
        assert!(!facts.is_alive(), "{container} started twice");
        facts.last = facts.exit().cloned().or(facts.last.take());
        let state = RunState::Running { started_at, stopping: None };
        facts.run = Some(Run { attempt, in_sandbox: true, state });
        facts.health = Health { started: true, ready: true, failed: None };
        facts.image_id = "linked:///src".to_owned();
    }

    /// Ends the container's process.
    pub(super) fn exit(&mut self, container: &str, code: i32) {
        let finished_at = self.now();
        let facts = self.facts(container);
        let Some(run) = &mut facts.run else { return };
        let RunState::Running { started_at, .. } = run.state else { return };
        let reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
        let attempt = run.attempt;
        let exit = Exit { attempt, code, reason, message: None, started_at, finished_at };
        facts.failures = crash_loop::level_after(facts.failures, &exit);
        run.state = RunState::Exited(exit);
    }

    /// The shim was killed: every container with it.
    pub(super) fn lose_sandbox(&mut self) {
        let names: Vec<String> = self.containers.keys().cloned().collect();
        for name in names {
            let alive = self.facts(&name).is_alive();
            self.exit(&name, 137);
            let facts = self.facts(&name);
            if alive {
                facts.failures = 0;
            }
            if let Some(run) = &mut facts.run {
                run.in_sandbox = false;
            }
        }
        if matches!(self.sandbox, Sandbox::Up { .. }) {
            self.sandbox = Sandbox::Absent;
        }
    }

    pub(super) fn delete(&mut self, grace: i64) {
        let deadline = self.now() + SignedDuration::from_secs(grace);
        self.pod.metadata.deletion_timestamp = Some(deadline.into());
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
    }

    /// What was done since the last call.
    pub(super) fn take_log(&mut self) -> String {
        self.log.drain(..).map(|it| it + "\n").collect()
    }
}

fn words(action: &Action) -> String {
    match action {
        Action::Prepare => "prepare".to_owned(),
        Action::Start { container, attempt } => format!("start {container} {attempt}"),
        Action::AwaitUnrouted => "await unrouted".to_owned(),
        Action::Terminate { container, deadline, why } => {
            format!("terminate {container} until {} s: {why}", deadline.as_secs())
        }
        Action::Kill { container } => format!("kill {container}"),
        Action::Stop => "stop".to_owned(),
        Action::Clean => "clean".to_owned(),
    }
}
