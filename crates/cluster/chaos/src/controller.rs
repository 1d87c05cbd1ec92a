//! The loop around [`decide`]: one run looks at all faults, as they meet in the same pods.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use client::{
    Api, Cache, Caches, Client, DeleteParams, EventType, Events, Key, Loop, Next, Patch,
    PatchParams, Preconditions, Resource as _,
};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    discovery::v1::EndpointSlice,
};
use runtime::{Clock, Tasks};
use serde_json::json;

use crate::{
    Disturbance, Loss, Machine, Signal,
    decide::{Decision, Seen, decide},
    fault::{Action, Fault, Phase, PodId, Status, TargetKind},
    target::World,
};

/// The one key of the loop.
const ALL: &str = "all";
/// Keeps a fault until it is undone; the API puts it there.
const FINALIZER: &str = "coracle.dev/undo";
/// Label of an EndpointSlice: the Service it is of.
const SERVICE: &str = "kubernetes.io/service-name";

pub(crate) fn start(
    machine: Arc<dyn Machine>,
    caches: &Caches,
    client: &Client,
    clock: Clock,
    tasks: &Tasks,
) {
    let faults = caches.of::<Fault>();
    let (pods, nodes) = (caches.of::<Pod>(), caches.of::<Node>());
    let slices = caches.of::<EndpointSlice>();
    let events = Events::new(client.clone(), "chaos", "", clock.clone(), tasks);
    let controller = Arc::new(Controller {
        machine,
        client: client.clone(),
        clock,
        events,
        faults: faults.clone(),
        pods: pods.clone(),
        nodes: nodes.clone(),
        slices: slices.clone(),
        done: Mutex::default(),
    });
    // What happens in a cluster without faults wakes nobody.
    let key = |faults: &Cache<Fault>| {
        let faults = faults.clone();
        move || if faults.list().is_empty() { Vec::new() } else { vec![Key::cluster(ALL)] }
    };
    let (of_pods, of_nodes, of_slices) = (key(&faults), key(&faults), key(&faults));
    Loop::new("chaos")
        .triggered_by(&faults, |_| vec![Key::cluster(ALL)])
        .triggered_by(&pods, move |_| of_pods())
        .triggered_by(&nodes, move |_| of_nodes())
        .triggered_by(&slices, move |_| of_slices())
        .run(tasks, move |_| {
            let controller = Arc::clone(&controller);
            async move { controller.reconcile().await }
        });
}

/// What was done last and need not be done again.
#[derive(Debug, Default)]
struct Done {
    disturbed: Vec<Disturbance>,
    lost: BTreeMap<String, Loss>,
}

/// Something that could not be done.
struct Failure {
    /// To whom; it concerns all faults if it was done to no pod.
    pod: Option<PodId>,
    error: anyhow::Error,
}

impl Failure {
    fn concerns(&self, status: &Status) -> bool {
        self.pod.as_ref().is_none_or(|it| status.pods.contains(it))
    }
}

struct Controller {
    machine: Arc<dyn Machine>,
    client: Client,
    clock: Clock,
    events: Events,
    faults: Cache<Fault>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
    done: Mutex<Done>,
}

impl Controller {
    async fn reconcile(&self) -> anyhow::Result<Next> {
        let decision = decide(&self.observe());
        for (fault, status) in &decision.before {
            self.write(fault, status).await?;
        }
        let failures = self.act(&decision).await;
        for (fault, status) in &decision.after {
            match failures.iter().find(|it| it.concerns(status)) {
                Some(failure) => self.fail(fault, status, &failure.error).await?,
                None => self.write(fault, status).await?,
            }
        }
        for fault in &decision.release {
            self.release(fault).await?;
        }
        for fault in &decision.forget {
            self.forget(fault).await?;
        }
        match failures.into_iter().next() {
            Some(failure) => Err(failure.error),
            None => Ok(decision.wake.map_or(Next::AwaitChange, Next::RequeueAfter)),
        }
    }

    fn observe(&self) -> Seen {
        let faults = self.faults.list();
        let mut world = World::default();
        if !faults.is_empty() {
            world.pods = self.pods.list();
            world.nodes = self.nodes.list();
            for slice in self.slices.list() {
                let namespace = slice.metadata.namespace.clone().unwrap_or_default();
                let service = slice.metadata.labels.as_ref().and_then(|it| it.get(SERVICE));
                let Some(service) = service.cloned() else { continue };
                let targets =
                    slice.endpoints.iter().flatten().filter_map(|it| it.target_ref.as_ref());
                let pods = targets.filter(|it| it.kind.as_deref() == Some("Pod"));
                let behind = world.backends.entry((namespace, service)).or_default();
                behind.extend(pods.filter_map(|it| it.name.clone()));
            }
        }
        Seen { now: self.clock.now(), faults, world }
    }

    /// Carries the decision out, whatever of it fails.
    async fn act(&self, decision: &Decision) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut note = |pod: Option<&PodId>, done: anyhow::Result<()>| {
            if let Err(error) = done {
                failures.push(Failure { pod: pod.cloned(), error });
            }
        };
        for (pods, signal) in [
            (&decision.kill, Signal::Kill),
            (&decision.pause, Signal::Pause),
            (&decision.resume, Signal::Resume),
        ] {
            for pod in pods {
                let done = self.machine.signal(pod, signal).await;
                let what = || format!("{} pod {}/{}", signal.verb(), pod.namespace, pod.name);
                note(Some(pod), done.with_context(what));
            }
        }
        if self.done().disturbed != decision.disturb {
            let done = self.machine.disturb(decision.disturb.clone()).await;
            if done.is_ok() {
                self.done().disturbed.clone_from(&decision.disturb);
            }
            note(None, done.context("disturb the network"));
        }
        if self.done().lost != decision.lose {
            let done = self.machine.lose(decision.lose.clone()).await;
            if done.is_ok() {
                self.done().lost.clone_from(&decision.lose);
            }
            note(None, done.context("lose nodes"));
        }
        let what = |verb, volume: &str, pod: &PodId| {
            format!("{verb} volume `{volume}` of pod {}/{}", pod.namespace, pod.name)
        };
        for ((pod, volume), bytes) in &decision.fill {
            let done = self.machine.fill(pod, volume, *bytes).await;
            note(Some(pod), done.with_context(|| what("fill", volume, pod)));
        }
        for (pod, volume) in &decision.empty {
            let done = self.machine.empty(pod, volume).await;
            note(Some(pod), done.with_context(|| what("empty", volume, pod)));
        }
        failures
    }

    /// Writes and tells why a fault is not what it is to be.
    async fn fail(
        &self,
        fault: &Fault,
        status: &Status,
        error: &anyhow::Error,
    ) -> anyhow::Result<()> {
        let why = format!("cannot {error:#}");
        let phase = fault.status.as_ref().and_then(|it| it.phase).unwrap_or(Phase::Beginning);
        let known = fault.status.as_ref().and_then(|it| it.message.as_ref()) == Some(&why);
        if !known {
            self.events.record(fault.object_ref(&()), EventType::Warning, "FaultFailed", &*why);
        }
        let status = Status { phase: Some(phase), message: Some(why), ..status.clone() };
        self.write(fault, &status).await
    }

    fn done(&self) -> std::sync::MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a status, and tells of what changed.
    async fn write(&self, fault: &Fault, status: &Status) -> anyhow::Result<()> {
        let name = fault.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Fault> = Api::all(self.client.clone());
        // Without the version of what was seen: nobody else writes here, and what was done was done.
        let patch = json!({"status": cleared(status)?});
        let written = api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        match written {
            Err(error) if client::is_not_found(&error) => return Ok(()),
            other => other.with_context(|| format!("write the status of fault `{name}`"))?,
        };
        self.tell(fault, status);
        Ok(())
    }

    fn tell(&self, fault: &Fault, status: &Status) {
        let old = fault.status.as_ref().and_then(|it| it.phase);
        let message = status.message.as_deref().unwrap_or_default();
        let (reason, began) = match (old, status.phase) {
            (None | Some(Phase::Beginning), Some(Phase::Active)) => ("FaultBegan", true),
            // Killing is over as soon as it began.
            (None | Some(Phase::Beginning), Some(Phase::Ended)) if is_kill(fault) => {
                ("FaultBegan", true)
            }
            (Some(Phase::Active), Some(Phase::Ended)) => ("FaultEnded", false),
            _ => return,
        };
        tracing::info!(fault = fault.metadata.name, action = ?fault.spec.action, message, reason);
        self.events.record(fault.object_ref(&()), EventType::Normal, reason, message);
        let name = fault.metadata.name.as_deref().unwrap_or_default();
        for pod in &status.pods {
            let Some(pod) = self.pods.get(&Key::namespaced(&pod.namespace, &pod.name)) else {
                continue;
            };
            let text = if began {
                format!("{} on purpose by fault {name}", fault.spec.action.done())
            } else {
                format!("fault {name} is over")
            };
            self.events.record(pod.object_ref(&()), EventType::Warning, reason, text);
        }
    }

    async fn release(&self, fault: &Fault) -> anyhow::Result<()> {
        let name = fault.metadata.name.as_deref().unwrap_or_default();
        let others = fault.metadata.finalizers.iter().flatten().filter(|it| *it != FINALIZER);
        let patch = json!({"metadata": {"finalizers": others.collect::<Vec<_>>()}});
        let api: Api<Fault> = Api::all(self.client.clone());
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            other => other.map(drop).with_context(|| format!("let fault `{name}` go")),
        }
    }

    async fn forget(&self, fault: &Fault) -> anyhow::Result<()> {
        let name = fault.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Fault> = Api::all(self.client.clone());
        let uid = fault.metadata.uid.clone();
        let only_this = Preconditions { uid, resource_version: None };
        let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
        match api.delete(name, &params).await {
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            other => other.map(drop).with_context(|| format!("remove fault `{name}`")),
        }
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").finish_non_exhaustive()
    }
}

/// A status in which what is not there takes away what was.
fn cleared(status: &Status) -> anyhow::Result<serde_json::Value> {
    let mut value = serde_json::to_value(status).context("write a status")?;
    if let Some(members) = value.as_object_mut() {
        for name in ["endTime", "pods", "nodes", "message"] {
            members.entry(name).or_insert(serde_json::Value::Null);
        }
    }
    Ok(value)
}

/// Whether a fault that ends before it was active has done what it was for.
fn is_kill(fault: &Fault) -> bool {
    let (action, target) = (fault.spec.action, fault.spec.target.kind);
    let taken_back = fault.metadata.deletion_timestamp.is_some();
    action == Action::Kill && target != TargetKind::Node && !taken_back
}
