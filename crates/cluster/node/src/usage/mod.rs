//! What containers, pods and the machine use of CPU and memory, for `kubectl top`.
//!
//! Looked at only when somebody asks: rates need two looks, so who asks after a long time waits for
//! the second one. In between nothing runs.

mod counters;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use client::Key;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use runtime::Clock;
use tokio::{sync::Mutex, time::Instant};

use self::counters::Counters;
use crate::{
    cgroups::{Cgroups, detect::Controller},
    handle::Registry,
    pod::{facts::run_id, status::attempt_of},
};

/// Between two looks at the least. CPU time is told in steps of 10 ms where there are no control
/// groups, so that a rate is good to 1 % of a CPU.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// A rate is over about so long while somebody goes on asking: metrics-server's default resolution.
const WINDOW: Duration = Duration::from_secs(15);
/// A look that is older says nothing of now: a new one is taken, and the one who asks waits.
const WINDOW_MAX: Duration = Duration::from_secs(60);

/// What was used on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its name.
    pub node: String,
    /// All of it: its pods, and an equal share of what else the machine does.
    pub all: Used,
    /// Pods with a container that runs and of which rates are known, by namespace and name.
    pub pods: Vec<PodUsage>,
}

/// What was used on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    machine: Used,
    /// Those of all nodes.
    pods: Vec<PodUsage>,
}

/// What was used on each of `nodes`, of which the names and pods are given.
pub(crate) fn divide(whole: &Whole, nodes: Vec<(String, BTreeSet<Key>)>) -> Vec<Usage> {
    let used = |pods: &[PodUsage]| {
        let all = pods.iter().flat_map(|it| &it.containers);
        all.fold((0_u64, 0_u64), |(cpu, memory), (_, it)| {
            (cpu.saturating_add(it.cpu_nanos), memory.saturating_add(it.memory_bytes))
        })
    };
    let (cpu, memory) = used(&whole.pods);
    let count = u64::try_from(nodes.len()).unwrap_or(u64::MAX).max(1);
    // Counters of pods and machine are not of the very same moment.
    let other_cpu = whole.machine.cpu_nanos.saturating_sub(cpu) / count;
    let other_memory = whole.machine.memory_bytes.saturating_sub(memory) / count;
    let of_node = |(node, keys): (String, BTreeSet<Key>)| {
        let is_own = |it: &&PodUsage| keys.contains(&Key::namespaced(&it.namespace, &it.name));
        let pods: Vec<PodUsage> = whole.pods.iter().filter(is_own).cloned().collect();
        let (cpu, memory) = used(&pods);
        let (cpu_nanos, memory_bytes) =
            (cpu.saturating_add(other_cpu), memory.saturating_add(other_memory));
        Usage { node, all: Used { cpu_nanos, memory_bytes, ..whole.machine }, pods }
    };
    nodes.into_iter().map(of_node).collect()
}

/// What a pod used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its containers that run, by name.
    pub containers: Vec<(String, Used)>,
}

/// What was used over some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The end of that time.
    pub at: Timestamp,
    /// How long it was.
    pub window: Duration,
    /// Nanoseconds of CPU time a second.
    pub cpu_nanos: u64,
    /// The working set at its end, in bytes.
    pub memory_bytes: u64,
}

/// Looks at what is used.
#[derive(Debug)]
pub(crate) struct Sampler {
    cgroups: Arc<Cgroups>,
    clock: Clock,
    looks: Mutex<Looks>,
}

#[derive(Debug, Default)]
struct Looks {
    /// What rates count from.
    base: Option<Arc<Look>>,
    /// What was answered last, and when.
    answered: Option<(Instant, Whole)>,
}

/// Everything at one moment.
#[derive(Debug)]
struct Look {
    instant: Instant,
    at: Timestamp,
    machine: Counters,
    containers: BTreeMap<Run, Counters>,
}

/// A run of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    attempt: u32,
}

/// A run that goes on.
#[derive(Clone, Debug)]
struct Running {
    run: Run,
    /// The pod's run folder.
    folder: PathBuf,
    since: Timestamp,
}

impl Sampler {
    pub(crate) fn new(cgroups: Arc<Cgroups>, clock: Clock) -> Self {
        Self { cgroups, clock, looks: Mutex::default() }
    }

    /// What is used now. May take [`WINDOW_MIN`].
    pub(crate) async fn usage(&self, registries: &[&Registry]) -> io::Result<Whole> {
        let mut looks = self.looks.lock().await;
        if let Some((at, usage)) = &looks.answered
            && at.elapsed() < WINDOW_MIN
        {
            return Ok(usage.clone());
        }
        let base = match looks.base.take().filter(|it| it.instant.elapsed() < WINDOW_MAX) {
            Some(base) => base,
            None => Arc::new(self.look(running(registries)).await?),
        };
        looks.base = Some(Arc::clone(&base));
        tokio::time::sleep_until(base.instant + WINDOW_MIN).await;
        let running = running(registries);
        let now = Arc::new(self.look(running.clone()).await?);
        let usage = rates(&base, &now, &running);
        if WINDOW <= now.instant - base.instant {
            looks.base = Some(now);
        }
        looks.answered = Some((Instant::now(), usage.clone()));
        Ok(usage)
    }

    async fn look(&self, running: Vec<Running>) -> io::Result<Look> {
        let (instant, at) = (Instant::now(), self.clock.now());
        let cgroups = Arc::clone(&self.cgroups);
        let read = tokio::task::spawn_blocking(move || {
            Ok::<_, io::Error>((counters::of_machine()?, read(&cgroups, &running)))
        });
        let (machine, containers) = read.await.map_err(io::Error::other)??;
        Ok(Look { instant, at, machine, containers })
    }
}

/// The containers of the nodes that run.
fn running(registries: &[&Registry]) -> Vec<Running> {
    let mut found = Vec::new();
    for (key, pod) in registries.iter().flat_map(|it| it.list()) {
        let status = pod.status.borrow().clone();
        found.extend(all_statuses(&status).filter_map(|it| {
            let since = it.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0;
            let run = Run {
                namespace: key.namespace.clone().unwrap_or_default(),
                pod: key.name.clone(),
                uid: pod.folders.uid.clone(),
                container: it.name.clone(),
                attempt: attempt_of(it.container_id.as_deref()?)?,
            };
            Some(Running { run, folder: pod.folders.run.clone(), since })
        }));
    }
    found
}

/// The first processes of the containers of a pod that run.
pub(crate) fn first_processes(registry: &Registry, uid: &str) -> Vec<u32> {
    let running = running(&[registry]).into_iter().filter(|it| it.run.uid == uid);
    let id = |it: &Running| run_id(&it.run.container, it.run.attempt);
    running.filter_map(|it| shim::first_process(&it.folder, &id(&it)).ok().flatten()).collect()
}

fn all_statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
}

/// Those that end meanwhile are left out.
fn read(cgroups: &Cgroups, running: &[Running]) -> BTreeMap<Run, Counters> {
    let counted = [Controller::Cpuacct, Controller::Memory];
    if counted.iter().all(|it| cgroups.lacks(*it).is_none()) {
        let of = |it: &Running| {
            let path = format!("pod{}/{}", it.run.uid, run_id(&it.run.container, it.run.attempt));
            counters::of_groups(&cgroups.folders(&path)).ok()
        };
        return running.iter().filter_map(|it| Some((it.run.clone(), of(it)?))).collect();
    }
    let mut first = BTreeMap::new();
    for it in running {
        let id = run_id(&it.run.container, it.run.attempt);
        if let Ok(Some(pid)) = shim::first_process(&it.folder, &id) {
            first.insert(pid, it.run.clone());
        }
    }
    let pids: Vec<u32> = first.keys().copied().collect();
    let counters = counters::of_namespaces(Path::new("/proc"), &pids);
    first.into_iter().filter_map(|(pid, run)| Some((run, *counters.get(&pid)?))).collect()
}

/// What was used between two looks. A run that began after the first one counts from its beginning; one
/// that is not that old yet has no rate.
fn rates(base: &Look, now: &Look, running: &[Running]) -> Whole {
    let window = now.instant - base.instant;
    let machine = used((base.machine, window), now.machine, now.at);
    let mut pods: BTreeMap<(String, String), PodUsage> = BTreeMap::new();
    for it in running {
        let Some(counters) = now.containers.get(&it.run) else { continue };
        let used = match base.containers.get(&it.run) {
            Some(before) => used((*before, window), *counters, now.at),
            None if base.at <= it.since => {
                let age = Duration::try_from(now.at.duration_since(it.since)).unwrap_or_default();
                if age < WINDOW_MIN {
                    continue;
                }
                used((Counters::default(), age), *counters, now.at)
            }
            None => continue,
        };
        let (namespace, name) = (it.run.namespace.clone(), it.run.pod.clone());
        let pod = pods.entry((namespace.clone(), name.clone())).or_insert_with(|| PodUsage {
            namespace,
            name,
            containers: Vec::new(),
        });
        pod.containers.push((it.run.container.clone(), used));
    }
    let mut pods: Vec<PodUsage> = pods.into_values().collect();
    pods.iter_mut().for_each(|it| it.containers.sort_by(|left, right| left.0.cmp(&right.0)));
    Whole { machine, pods }
}

fn used((before, window): (Counters, Duration), now: Counters, at: Timestamp) -> Used {
    let nanos = u128::from(now.cpu_nanos.saturating_sub(before.cpu_nanos));
    let rate = nanos.saturating_mul(NANOS_PER_SECOND).checked_div(window.as_nanos());
    let cpu_nanos = u64::try_from(rate.unwrap_or_default()).unwrap_or(u64::MAX);
    Used { at, window, cpu_nanos, memory_bytes: now.memory_bytes }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::*;

    fn run(container: &str, attempt: u32) -> Run {
        let [namespace, pod, uid] = ["default", "web", "u1"].map(str::to_owned);
        Run { namespace, pod, uid, container: container.to_owned(), attempt }
    }

    fn running(container: &str, attempt: u32, since: i64) -> Running {
        let since = Timestamp::from_second(since).unwrap();
        Running { run: run(container, attempt), folder: PathBuf::new(), since }
    }

    fn look(start: Instant, second: u64, containers: &[(Run, u64, u64)]) -> Look {
        let counters = |cpu_millis: u64, memory_bytes| Counters {
            cpu_nanos: cpu_millis * 1_000_000,
            memory_bytes,
        };
        Look {
            instant: start + Duration::from_secs(second),
            at: Timestamp::from_second(i64::try_from(second).unwrap()).unwrap(),
            machine: counters(second * 500, 1000 + second),
            containers: containers.iter().map(|it| (it.0.clone(), counters(it.1, it.2))).collect(),
        }
    }

    fn check(base: &Look, now: &Look, running: &[Running], expected: Expect) {
        let usage = rates(base, now, running);
        let show = |it: &Used| {
            format!("{}m {} over {:?}", it.cpu_nanos / 1_000_000, it.memory_bytes, it.window)
        };
        let mut text = format!("machine {}\n", show(&usage.machine));
        for pod in &usage.pods {
            for (container, used) in &pod.containers {
                writeln!(text, "{}/{} {container} {}", pod.namespace, pod.name, show(used))
                    .unwrap();
            }
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn rates_are_between_two_looks() {
        let start = Instant::now();
        let (web, side) = (run("web", 0), run("side", 3));
        let base = look(start, 100, &[(web.clone(), 5000, 10), (side.clone(), 0, 1)]);
        let now = look(start, 110, &[(web, 7500, 20), (side, 0, 2)]);
        check(
            &base,
            &now,
            &[running("web", 0, 3), running("side", 3, 4)],
            expect![[r#"
                machine 500m 1110 over 10s
                default/web side 0m 2 over 10s
                default/web web 250m 20 over 10s
            "#]],
        );
    }

    #[test]
    fn new_runs_count_from_their_beginning() {
        let start = Instant::now();
        let base = look(start, 100, &[(run("web", 0), 5000, 10)]);
        let now = look(start, 110, &[(run("web", 1), 500, 7), (run("young", 0), 500, 7)]);
        let all = [running("web", 1, 105), running("young", 0, 110), running("gone", 0, 1)];
        check(
            &base,
            &now,
            &all,
            expect![[r#"
                machine 500m 1110 over 10s
                default/web web 100m 7 over 5s
            "#]],
        );
        // Older, but not seen at the first look: no rate is known.
        check(
            &base,
            &now,
            &[running("web", 1, 50)],
            expect![[r#"
                machine 500m 1110 over 10s
            "#]],
        );
    }

    #[test]
    fn nodes_share_what_no_pod_uses() {
        let start = Instant::now();
        let (base, now) = (look(start, 100, &[]), look(start, 110, &[(run("web", 0), 2500, 20)]));
        let whole = rates(&base, &now, &[running("web", 0, 105)]);
        let nodes = [("a", vec![Key::namespaced("default", "web")]), ("b", Vec::new())];
        let nodes = nodes.map(|(name, keys)| (name.to_owned(), keys.into_iter().collect()));
        let mut text = String::new();
        for it in divide(&whole, nodes.into()) {
            let (cpu, memory) = (it.all.cpu_nanos / 1_000_000, it.all.memory_bytes);
            writeln!(text, "{} {cpu}m {memory}, {} pods", it.node, it.pods.len()).unwrap();
        }
        expect![[r#"
            a 500m 565, 1 pods
            b 0m 545, 0 pods
        "#]]
        .assert_eq(&text);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_first_waits_for_a_second_look() {
        let sampler = Sampler::new(Arc::default(), Clock::system());
        let registry = Registry::default();
        let begin = Instant::now();
        let registries = [&registry];
        let first = sampler.usage(&registries).await.unwrap();
        assert!(WINDOW_MIN <= begin.elapsed() && first.pods.is_empty());
        assert!(WINDOW_MIN <= first.machine.window);
        // Soon after, the same is told; later there is a first look already.
        assert_eq!(sampler.usage(&registries).await.unwrap(), first);
        tokio::time::advance(WINDOW_MIN * 3).await;
        let again = Instant::now();
        let second = sampler.usage(&registries).await.unwrap();
        assert!(again.elapsed() < WINDOW_MIN && first.machine.window < second.machine.window);
        tokio::time::advance(WINDOW_MAX).await;
        let third = sampler.usage(&registries).await.unwrap();
        assert!(third.machine.window < second.machine.window);
    }
}
