//! The probes of a pod's containers: which there are, when each is due, and what a result changes.
//!
//! Holds state machines of [`crate::probe`]; the worker runs the tries.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{Container, Pod, Probe};

use super::seen::{ContainerSeen, Health, Verdict, containers};
use crate::probe::{Effect, Kind, Outcome, ProbeState};

/// Every probe of a pod's running containers.
#[derive(Debug, Default)]
pub(crate) struct Probing {
    probes: BTreeMap<(String, Kind), Prober>,
}

#[derive(Debug)]
struct Prober {
    attempt: u32,
    probe: Probe,
    state: ProbeState,
}

/// A try that is due.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    pub(crate) container: String,
    pub(crate) attempt: u32,
    pub(crate) kind: Kind,
    pub(crate) probe: Probe,
}

/// What a result brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing to tell.
    Nothing,
    /// An `Unhealthy` event.
    Unhealthy(String),
}

const KINDS: [Kind; 3] = [Kind::Startup, Kind::Readiness, Kind::Liveness];

fn probe_of(container: &Container, kind: Kind) -> Option<&Probe> {
    match kind {
        Kind::Startup => container.startup_probe.as_ref(),
        Kind::Readiness => container.readiness_probe.as_ref(),
        Kind::Liveness => container.liveness_probe.as_ref(),
    }
}

/// What is known of a container's health the moment it starts, before any probe.
pub(crate) fn initial(container: &Container) -> Health {
    let started = container.startup_probe.is_none();
    Health { started, ready: container.readiness_probe.is_none(), failed: None }
}

impl Probing {
    /// A run has started.
    pub(crate) fn started(&mut self, container: &Container, attempt: u32, now: Duration) {
        self.forget(&container.name);
        for kind in KINDS {
            if let Some(probe) = probe_of(container, kind) {
                let state = ProbeState::new(kind, probe, now);
                self.insert(container, kind, Prober { attempt, probe: probe.clone(), state });
            }
        }
    }

    /// A run was found that an earlier process had started.
    pub(crate) fn adopted(
        &mut self,
        container: &Container,
        attempt: u32,
        health: &mut Health,
        now: Duration,
    ) {
        self.forget(&container.name);
        health.started |= container.startup_probe.is_none();
        health.ready |= container.readiness_probe.is_none();
        for kind in KINDS {
            let value = match kind {
                Kind::Startup => health.started,
                Kind::Readiness => health.ready,
                Kind::Liveness => true,
            };
            if let Some(probe) = probe_of(container, kind) {
                let state = ProbeState::adopted(kind, probe, now, value);
                self.insert(container, kind, Prober { attempt, probe: probe.clone(), state });
            }
        }
    }

    fn insert(&mut self, container: &Container, kind: Kind, prober: Prober) {
        self.probes.insert((container.name.clone(), kind), prober);
    }

    /// The container's run has ended.
    pub(crate) fn forget(&mut self, container: &str) {
        self.probes.retain(|(name, _), _| name != container);
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.probes.clear();
    }

    /// When the next try is due.
    pub(crate) fn next(&self, containers: &BTreeMap<String, ContainerSeen>) -> Option<Duration> {
        self.awake(containers).filter_map(|(_, it)| it.state.due()).min()
    }

    /// Begins the tries that are due.
    pub(crate) fn begin(
        &mut self,
        facts: &BTreeMap<String, ContainerSeen>,
        now: Duration,
    ) -> Vec<Due> {
        let ripe = |it: &Prober| it.state.due().is_some_and(|at| at <= now);
        let keys: Vec<(String, Kind)> =
            self.awake(facts).filter(|(_, it)| ripe(it)).map(|(key, _)| key.clone()).collect();
        let mut result = Vec::new();
        for key in keys {
            let Some(prober) = self.probes.get_mut(&key) else { continue };
            prober.state.begin(now);
            let (container, kind) = key;
            let (attempt, probe) = (prober.attempt, prober.probe.clone());
            result.push(Due { container, attempt, kind, probe });
        }
        result
    }

    /// Probes that are not held back by a startup probe, nor by the container's end.
    fn awake<'a>(
        &'a self,
        facts: &'a BTreeMap<String, ContainerSeen>,
    ) -> impl Iterator<Item = (&'a (String, Kind), &'a Prober)> {
        self.probes.iter().filter(|((name, kind), _)| {
            facts.get(name).is_some_and(|it| {
                let held = *kind != Kind::Startup && !it.health.started;
                !held && it.health.failed.is_none()
            })
        })
    }

    /// Takes the result of a try into the facts of its container.
    pub(crate) fn handle(
        &mut self,
        pod: &Pod,
        due: &Due,
        outcome: &Outcome,
        facts: &mut ContainerSeen,
        now: Duration,
    ) -> Told {
        let key = (due.container.clone(), due.kind);
        let Some(prober) = self.probes.get_mut(&key).filter(|it| it.attempt == due.attempt) else {
            return Told::Nothing;
        };
        let quick = prober.state.is_quick(now);
        let effect = prober.state.handle(outcome, now);
        self.apply(pod, due, effect, facts, now);
        let title = due.kind.title();
        match outcome {
            Outcome::Success => Told::Nothing,
            _ if quick => Told::Nothing,
            Outcome::Failure(output) => Told::Unhealthy(format!("{title} probe failed: {output}")),
            Outcome::Unknown(reason) => Told::Unhealthy(format!("{title} probe errored: {reason}")),
        }
    }

    fn apply(
        &mut self,
        pod: &Pod,
        due: &Due,
        effect: Effect,
        facts: &mut ContainerSeen,
        now: Duration,
    ) {
        let Effect::Becomes(value) = effect else { return };
        let name = &due.container;
        match (due.kind, value) {
            (Kind::Startup, true) => {
                facts.health.started = true;
                let found = containers(pod).find(|(_, it)| it.name == *name);
                for kind in [Kind::Readiness, Kind::Liveness] {
                    let probe = found.and_then(|(_, it)| probe_of(it, kind));
                    if let (Some((_, container)), Some(probe)) = (found, probe) {
                        let state = ProbeState::new(kind, probe, now);
                        let (attempt, probe) = (due.attempt, probe.clone());
                        self.insert(container, kind, Prober { attempt, probe, state });
                    }
                }
            }
            (Kind::Readiness, value) => facts.health.ready = value,
            (Kind::Liveness, true) => {}
            (Kind::Startup | Kind::Liveness, false) => {
                let word = due.kind.word();
                let message = format!("Container {name} failed {word} probe, will be restarted");
                let grace = due.probe.termination_grace_period_seconds;
                let grace = grace.and_then(|it| u64::try_from(it).ok()).map(Duration::from_secs);
                facts.health.failed = Some(Verdict { message, grace });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::seen::RunState, *};

    struct World {
        pod: Pod,
        facts: BTreeMap<String, ContainerSeen>,
        probing: Probing,
    }

    impl World {
        fn new(mut container: Value) -> Self {
            container["name"] = json!("a");
            let pod = json!({ "spec": { "containers": [container] } });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let mut facts = ContainerSeen::default();
            let container = containers(&pod).next().unwrap().1.clone();
            facts.started(0, jiff::Timestamp::UNIX_EPOCH, initial(&container));
            let mut probing = Probing::default();
            probing.started(&container, 0, Duration::ZERO);
            Self { pod, facts: [("a".to_owned(), facts)].into(), probing }
        }

        /// Runs everything that is due next with `outcome`. Returns what was tried, and told.
        fn turn(&mut self, outcome: &Outcome) -> String {
            let Some(now) = self.probing.next(&self.facts) else { return "nothing".to_owned() };
            let mut words = Vec::new();
            for due in self.probing.begin(&self.facts, now) {
                let facts = self.facts.get_mut("a").unwrap();
                let told = self.probing.handle(&self.pod, &due, outcome, facts, now);
                words.push(format!("{} {told:?}", due.kind.word()));
            }
            words.join(", ")
        }

        fn health(&self) -> &Health {
            &self.facts["a"].health
        }
    }

    fn no() -> Outcome {
        Outcome::Failure("no".to_owned())
    }

    #[test]
    fn others_wait_for_the_startup_probe() {
        let probe = json!({ "exec": {}, "periodSeconds": 1, "failureThreshold": 1 });
        let mut world = World::new(json!({ "startupProbe": probe, "readinessProbe": probe,
            "livenessProbe": probe }));
        assert_eq!(world.turn(&no()), "startup Nothing", "a quick try");
        assert_eq!(world.turn(&Outcome::Success), "startup Nothing");
        assert!(world.health().started && !world.health().ready);
        assert_eq!(world.turn(&Outcome::Success), "readiness Nothing, liveness Nothing");
        assert!(world.health().ready);
        let told = world.turn(&no());
        assert_eq!(
            told,
            r#"readiness Unhealthy("Readiness probe failed: no"), liveness Unhealthy("Liveness probe failed: no")"#
        );
        let verdict = world.health().failed.clone().unwrap();
        assert_eq!(verdict.message, "Container a failed liveness probe, will be restarted");
        assert_eq!(world.turn(&no()), "nothing", "it is about to be stopped");
    }

    #[test]
    fn results_of_an_older_run_are_dropped() {
        let probe = json!({ "exec": {} });
        let mut world = World::new(json!({ "readinessProbe": probe }));
        let due = world.probing.begin(&world.facts, Duration::ZERO).remove(0);
        let container = containers(&world.pod).next().unwrap().1.clone();
        world.probing.started(&container, 1, Duration::from_secs(1));
        let facts = world.facts.get_mut("a").unwrap();
        let now = Duration::from_secs(1);
        let told = world.probing.handle(&world.pod, &due, &Outcome::Success, facts, now);
        assert_eq!(told, Told::Nothing);
        assert!(!facts.health.ready);
    }

    #[test]
    fn adopted_containers_stay_ready() {
        let mut world = World::new(json!({ "readinessProbe": { "exec": {} } }));
        let container = containers(&world.pod).next().unwrap().1.clone();
        let mut health = Health { started: false, ready: true, failed: None };
        world.probing.adopted(&container, 0, &mut health, Duration::ZERO);
        assert!(health.started && health.ready);
        assert!(matches!(world.facts["a"].run.as_ref().unwrap().state, RunState::Running { .. }));
    }
}
