//! What a worker does: each action begun here, its result taken in here.

use std::{sync::Arc, time::Duration};

use client::EventType::{Normal, Warning};
use jiff::Timestamp;
use runtime::Backoff;
use shim::wire::{self, Request};

use super::{
    decide::{Action, Decision},
    facts::run_id,
    imaging,
    launch::{self, Program},
    probing::{self, Told},
    report::Written,
    seen::{Routing, RunState, Sandbox, containers},
    shim::Connection,
    stage::{self, Launch, Parts, Place, StageError},
    stop_signal::stop_signal,
    tries,
    worker::{Done, Started, Worker},
};
use crate::{context::is_on_host, spares::reap, volumes};

/// Longest wait for services to drop a pod's address before it gets SIGTERM. Dropping takes
/// milliseconds; a network that does not answer must not keep pods from ending.
const UNROUTED_MAX: Duration = Duration::from_secs(5);
/// Waits after a sandbox that could not be made; a changed ConfigMap or Secret ends them early.
const PREPARE_RETRY: Backoff =
    Backoff { base: Duration::from_millis(500), max: Duration::from_secs(60) };
/// Wait after a sandbox that could not be taken down.
const STOP_RETRY: Duration = Duration::from_secs(1);
/// Wait after a signal that could not be sent.
const SIGNAL_RETRY: Duration = Duration::from_secs(1);

impl Worker {
    /// Looks at what decides whether a container can be configured.
    pub(super) fn observe(&mut self) {
        let Sandbox::Up { address } = self.sandbox else { return };
        let links = self.context.links();
        let pod = Arc::clone(&self.pod);
        let credentials = self.context.objects.pull_secrets(&pod);
        for (_, container) in containers(&pod) {
            let facts = self.containers.entry(container.name.clone()).or_default();
            if facts.is_alive() {
                continue;
            }
            let attempt = facts.run.as_ref().map_or(0, |it| it.attempt.saturating_add(1));
            let image = container.image.as_deref().unwrap_or_default();
            let program = match links.find(image) {
                Some(link) => Ok(Program::Link(link)),
                None => {
                    let (credentials, nudge) = (&credentials, &self.wires.nudge);
                    let run = imaging::Run { pod: &pod, container, attempt, credentials, nudge };
                    let present = self.imaging.next(&self.context.images, &run, &self.teller);
                    present.map(Program::Image)
                }
            };
            let folders = &self.place.folders;
            let of = launch::Of { pod: &pod, folders, container, attempt, address };
            let recipe = program.and_then(|it| launch::recipe(&self.context, of, it));
            facts.blocked = recipe.err();
        }
    }

    /// Begins every action. Returns when to decide again at the latest.
    pub(super) fn act(&mut self, decision: Decision) -> Option<Duration> {
        for action in decision.actions {
            match action {
                Action::Prepare => self.prepare(),
                Action::Start { container, attempt } => self.start(&container, attempt),
                Action::AwaitUnrouted => self.await_unrouted(),
                Action::Terminate { container, deadline, why } => {
                    self.terminate(&container, deadline, why);
                }
                Action::Kill { container } => {
                    self.signal(&container, libc::SIGKILL, Duration::ZERO);
                }
                Action::Stop => self.take_down(false),
                Action::Clean => self.take_down(true),
            }
        }
        let now = self.context.uptime();
        for due in self.probing.begin(&self.containers, now) {
            self.probe(due);
        }
        let report = if self.vanished { None } else { self.report.wake_at() };
        let wakes = [decision.wake_at, self.probing.next(&self.containers), report];
        wakes.into_iter().flatten().min()
    }

    /// Takes in what an action has come to.
    pub(super) fn take(&mut self, done: Done) {
        match done {
            Done::Prepared { parts, notices, result } => {
                self.notices = notices;
                self.take_prepared(parts, result);
            }
            Done::Started(started) => self.take_started(started),
            Done::Unrouted => self.routing = Routing::Unrouted(self.context.uptime()),
            Done::Stopped { result, cleaned } => self.take_stopped(result, cleaned),
            Done::Signalled { container, result } => {
                if let Err(error) = result {
                    // Mostly because it has ended, which will be noticed; else SIGKILL comes next.
                    tracing::debug!(pod = self.place.folders.uid, container, %error, "not signalled");
                    let retry = self.context.uptime() + SIGNAL_RETRY;
                    let facts = self.containers.get_mut(&container);
                    facts.into_iter().for_each(|it| it.stopping(retry, false));
                }
            }
            Done::Probed { due, outcome } => {
                let now = self.context.uptime();
                let Some(facts) = self.containers.get_mut(&due.container) else { return };
                let told = self.probing.handle(&self.pod, &due, &outcome, facts, now);
                if let Told::Unhealthy(note) = told {
                    let (pod, name) = (&self.pod, Some(due.container.as_str()));
                    self.teller.tell(pod, name, (Warning, "Unhealthy"), note);
                }
            }
            Done::Written(written) => {
                self.report.end(&written, self.context.uptime());
                self.take_written(written);
            }
            Done::Deleted | Done::Nothing => {}
        }
    }

    fn take_written(&mut self, written: Written) {
        match written {
            Written::Pod(pod) => self.take_pod(pod),
            Written::Vanished => self.vanished = true,
            Written::Failed(error) => {
                tracing::warn!(pod = self.place.folders.uid, error, "status not written");
            }
        }
    }

    // The sandbox.

    /// Makes the pod's place, or adopts the one that is there.
    pub(super) fn prepare(&mut self) {
        self.sandbox = Sandbox::Preparing;
        let place = self.place.clone();
        self.pending.push(Box::pin(async move {
            let mut parts = Parts::default();
            // The semaphore is never closed.
            let permit = place.context.starts.acquire().await;
            let mut result = stage::prepare(&place, &mut parts).await;
            drop(permit);
            let mut notices = None;
            if result.is_ok() {
                match subscribe(&place, parts.connection.take()).await {
                    Ok(connection) => notices = Some(connection),
                    Err(error) => result = Err(StageError::sandbox(error)),
                }
            }
            Done::Prepared { parts, notices, result }
        }));
    }

    fn take_prepared(&mut self, mut parts: Parts, result: Result<(), StageError>) {
        self.process = parts.process.take().or(self.process.take());
        let found = std::mem::take(&mut parts.found);
        let address = parts.address;
        self.parts = Arc::new(parts);
        let result = result.and_then(|()| address.ok_or_else(|| StageError::sandbox("no address")));
        match result {
            Ok(address) => {
                self.prepare_failures = 0;
                self.sandbox = Sandbox::Up { address };
                self.adopt(found);
            }
            Err(error) => {
                self.context.spares.refill();
                self.prepare_failures = self.prepare_failures.saturating_add(1);
                let retry = self.context.uptime() + PREPARE_RETRY.delay(self.prepare_failures);
                let message = error.to_string();
                let reason = match &error {
                    StageError::Reported { reason, .. } => reason,
                    StageError::Start(_) => "FailedCreatePodSandBox",
                };
                self.teller.tell(&self.pod, None, (Warning, reason), message.clone());
                self.sandbox = Sandbox::Failed { message, retry };
            }
        }
    }

    /// Takes over the runs that the shim has: they are as if this process had started them.
    fn adopt(&mut self, found: Vec<wire::ContainerStatus>) {
        if found.is_empty() {
            return;
        }
        let exits = super::last_words::read_exits(&self.place.folders, &self.pod);
        let running = found.iter().filter_map(|it| {
            let wire::State::Running { started_at, .. } = &it.state else { return None };
            let (container, attempt) = super::facts::parse_run_id(&it.id)?;
            let started_at: Timestamp = started_at.parse().unwrap_or_default();
            Some((container.to_owned(), attempt, started_at))
        });
        let records = super::facts::Records { shim_lives: true, running: running.collect(), exits };
        let now = self.context.clock.now();
        self.containers = super::facts::recover(&self.pod, &records, now);
        let uptime = self.context.uptime();
        let pod = Arc::clone(&self.pod);
        for (_, container) in containers(&pod) {
            let Some(facts) = self.containers.get_mut(&container.name) else { continue };
            let Some(run) = facts.run.as_ref().filter(|_| facts.is_alive()) else { continue };
            let attempt = run.attempt;
            self.probing.adopted(container, attempt, &mut facts.health, uptime);
            tracing::info!(
                pod = self.place.folders.uid,
                container = container.name,
                attempt,
                "adopted"
            );
        }
    }

    /// The shim is gone, and its containers with it.
    pub(super) fn lose_sandbox(&mut self, error: &shim::Error) {
        self.notices = None;
        if !matches!(self.sandbox, Sandbox::Up { .. }) {
            return;
        }
        tracing::warn!(pod = self.place.folders.uid, %error, "the pod's shim is gone");
        let note = "Pod sandbox changed, it will be killed and re-created.";
        self.teller.tell(&self.pod, None, (Normal, "SandboxChanged"), note);
        self.sandbox = Sandbox::Absent;
        // What ended before the shim did has a record.
        for (name, exit) in super::last_words::read_exits(&self.place.folders, &self.pod) {
            if let Some(facts) = self.containers.get_mut(&name) {
                facts.exited(exit);
            }
        }
        let now = self.context.clock.now();
        self.containers.values_mut().for_each(|it| it.lost(now));
        self.probing.clear();
        if let Some(process) = self.process.take() {
            self.pending.push(Box::pin(async {
                reap(process).await;
                Done::Nothing
            }));
        }
    }

    fn take_down(&mut self, clean: bool) {
        self.sandbox = Sandbox::Stopping;
        self.notices = None;
        self.probing.clear();
        let place = self.place.clone();
        let mut parts = Parts { process: self.process.take(), ..Parts::default() };
        self.pending.push(Box::pin(async move {
            let result = if clean {
                stage::clean(&place, &mut parts).await
            } else {
                stage::stop(&place, &mut parts).await
            };
            if result.is_err() {
                tokio::time::sleep(STOP_RETRY).await;
            }
            Done::Stopped { result, cleaned: clean }
        }));
    }

    fn take_stopped(&mut self, result: Result<(), StageError>, cleaned: bool) {
        let message = match result {
            Ok(()) if cleaned => {
                self.sandbox = Sandbox::Cleaned;
                return;
            }
            Ok(()) => {
                self.sandbox = Sandbox::Absent;
                return;
            }
            Err(error) => error.to_string(),
        };
        self.teller.tell(&self.pod, None, (Warning, "FailedKillPod"), message.clone());
        self.sandbox = Sandbox::Failed { message, retry: self.context.uptime() };
    }

    /// An object that the pod refers to may have changed: brings volumes up to date, and tries at
    /// once what may have failed for want of it.
    pub(super) fn take_nudge(&mut self) {
        if let Sandbox::Failed { retry, .. } = &mut self.sandbox {
            *retry = Duration::ZERO;
        }
        if !matches!(self.sandbox, Sandbox::Up { .. }) || self.parts.volumes.is_empty() {
            return;
        }
        let means = self.context.means(&self.pod, &self.place.folders);
        if let Err(error) = volumes::set_up(&self.pod, means) {
            // What is mounted stays as it was, as with the kubelet.
            self.teller.tell(&self.pod, None, (Warning, "FailedMount"), error.to_string());
        }
    }

    // Containers.

    fn start(&mut self, name: &str, attempt: u32) {
        let Sandbox::Up { address } = self.sandbox else { return };
        let pod = Arc::clone(&self.pod);
        let Some((_, container)) = containers(&pod).find(|(_, it)| it.name == name) else { return };
        let folders = &self.place.folders;
        let of = launch::Of { pod: &pod, folders, container, attempt, address };
        let links = self.context.links();
        let image = container.image.as_deref().unwrap_or_default();
        let linked = links.find(image).map(Program::Link);
        // Observed a moment ago; what changed since is observed anew.
        let program = linked.or_else(|| self.imaging.of(name).map(Program::Image));
        let Some(program) = program else { return };
        let recipe = launch::recipe(&self.context, of, program);
        let facts = self.containers.entry(name.to_owned()).or_default();
        let launch::Recipe { launch, image_id } = match recipe {
            Ok(recipe) => recipe,
            Err(blocked) => {
                facts.blocked = Some(blocked);
                return;
            }
        };
        facts.starting(attempt);
        let (place, parts) = (self.place.clone(), Arc::clone(&self.parts));
        let container = name.to_owned();
        self.pending.push(Box::pin(async move {
            let result = run(&place, &parts, launch).await;
            Done::Started(Started { container, attempt, image_id, result })
        }));
    }

    fn take_started(&mut self, started: Started) {
        self.context.spares.refill();
        let Started { container: name, attempt, image_id, result } = started;
        let pod = Arc::clone(&self.pod);
        let Some((_, container)) = containers(&pod).find(|(_, it)| it.name == name) else { return };
        let Some(facts) = self.containers.get_mut(&name) else { return };
        let Some(run) = facts.run.as_ref().filter(|it| it.attempt == attempt) else { return };
        // It may have ended already, or its sandbox may have been lost.
        let waits = run.state == RunState::Starting;
        facts.image_id = image_id;
        match result {
            Ok(started_at) => {
                if waits {
                    facts.started(attempt, started_at, probing::initial(container));
                    self.probing.started(container, attempt, self.context.uptime());
                }
                let tell = |reason, note| {
                    self.teller.tell(&pod, Some(&name), (Normal, reason), note);
                };
                tell("Created", format!("Created container: {name}"));
                tell("Started", format!("Started container {name}"));
                self.tell_unsupported(container);
            }
            Err(_) if !waits => {}
            Err(error) => {
                let message = error.to_string();
                self.teller.tell(
                    &pod,
                    Some(&name),
                    (Warning, "Failed"),
                    format!("Error: {message}"),
                );
                facts.start_failed(attempt, message, self.context.clock.now());
            }
        }
    }

    fn terminate(&mut self, name: &str, deadline: Duration, why: String) {
        self.teller.tell(&self.pod, Some(name), (Normal, "Killing"), why);
        let grace = deadline.saturating_sub(self.context.uptime());
        let signal = self.stop_signal(name);
        self.signal(name, signal, grace);
        if let Some(facts) = self.containers.get_mut(name) {
            facts.stopping(deadline, false);
        }
    }

    fn stop_signal(&self, name: &str) -> i32 {
        let found = containers(&self.pod).find(|(_, it)| it.name == name);
        let Some((_, container)) = found else { return libc::SIGTERM };
        let image = container.image.as_deref().unwrap_or_default();
        let linked = self.context.links().find(image).is_some();
        let present = if linked { None } else { self.context.images.present(image) };
        let of_image = present.map(|it| it.image.config.config.stop_signal);
        stop_signal(container, &of_image.unwrap_or_default())
    }

    /// Sends a signal; the shim follows it with SIGKILL after `grace`, even if this process dies.
    fn signal(&mut self, name: &str, signal: i32, grace: Duration) {
        let Some(facts) = self.containers.get_mut(name) else { return };
        let Some(attempt) = facts.run.as_ref().map(|it| it.attempt) else { return };
        if signal == libc::SIGKILL {
            facts.stopping(self.context.uptime(), true);
        }
        let (run, id) = (self.place.folders.run.clone(), run_id(name, attempt));
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let container = name.to_owned();
        self.pending.push(Box::pin(async move {
            let stop = Request::Stop { id, signal, grace_ms };
            let result = async { Connection::open(&run)?.call(&stop).await.map(drop) }.await;
            Done::Signalled { container, result }
        }));
    }

    fn await_unrouted(&mut self) {
        self.routing = Routing::Waiting;
        // The node's address is that of many: it is never without them all.
        let address = self.parts.address.filter(|_| !is_on_host(&self.pod));
        let network = Arc::clone(&self.context.network);
        let pod = self.place.folders.uid.clone();
        self.pending.push(Box::pin(async move {
            if let Some(address) = address {
                let unrouted = network.unrouted(address);
                if tokio::time::timeout(UNROUTED_MAX, unrouted).await.is_err() {
                    tracing::warn!(pod, address = %address.v4, "services still route to a pod that stops");
                }
            }
            Done::Unrouted
        }));
    }

    fn probe(&mut self, due: probing::Due) {
        let Sandbox::Up { address } = self.sandbox else { return };
        let (context, folders) = (Arc::clone(&self.context), self.place.folders.clone());
        let pod = Arc::clone(&self.pod);
        self.pending.push(Box::pin(async move {
            let outcome = tries::attempt(&context, (&pod, &folders), &due, address).await;
            Done::Probed { due, outcome }
        }));
    }
}

async fn subscribe(place: &Place, unused: Option<Connection>) -> Result<Connection, shim::Error> {
    let mut connection = match unused {
        Some(connection) => connection,
        None => Connection::open(&place.folders.run)?,
    };
    connection.send(&Request::Subscribe).await?;
    Ok(connection)
}

async fn run(place: &Place, parts: &Parts, mut launch: Launch) -> Result<Timestamp, StageError> {
    // The semaphore is never closed.
    let permit = place.context.starts.acquire().await;
    let result = stage::start(place, parts, &mut launch).await;
    drop(permit);
    result?;
    Ok(launch.started_at.unwrap_or_else(|| place.context.clock.now()))
}
