//! A node as a component: registers it, gives every pod bound to it a worker, and cleans up after
//! pods that nobody knows any more. What happens to one pod is its worker's business.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use client::{Cache, Change};
use k8s_openapi::api::core::v1::{Node, Pod};
use runtime::{OnExit, Tasks};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, Folders},
    floods::Floods,
    forks::Forks,
    handle::{Handle, Registered},
    pod::{
        stage::{self, Parts, Place},
        worker::{Input, Wires, Worker},
    },
    register::{self, Registration},
    site::{Orphans, Site},
};

/// Wait before cleaning up after an unknown pod is tried again.
const ORPHAN_RETRY: Duration = Duration::from_secs(10);

/// A node that does not run yet.
pub struct Agent {
    site: Site,
    context: Arc<Context>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    registration: Registration,
    handle: Handle,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Agent {
    pub(crate) fn new(
        site: Site,
        (context, (pods, nodes)): (Arc<Context>, (Cache<Pod>, Cache<Node>)),
        registration: Registration,
        handle: Handle,
    ) -> Self {
        Self { site, context, pods, nodes, registration, handle }
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.context.machine.name
    }

    /// What others may ask of the node.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts the node's tasks. When they are stopped, pods run on.
    pub fn run(self, tasks: &Tasks) {
        let Self { site, context, pods, nodes, registration, handle } = self;
        let (client, clock) = (context.client.clone(), context.clock.clone());
        let images = context.images.clone();
        tasks.spawn("node-registration", OnExit::StopProcess, |stop| {
            register::run(registration, images, (client, nodes, clock), stop)
        });
        let registry = Arc::clone(&handle.registry);
        let (cgroups, events) = (Arc::clone(&context.cgroups), context.events.clone());
        Floods { registry: Arc::clone(&registry), events: events.clone() }.start(tasks);
        Forks { registry, cgroups, events }.start(tasks);
        let (tasks_, workers) = (tasks.clone(), BTreeMap::new());
        let dispatcher = Dispatcher { site, context, pods, handle, tasks: tasks_, workers };
        tasks.spawn("node", OnExit::StopProcess, |stop| dispatcher.run(stop));
    }
}

/// Gives pods to workers.
struct Dispatcher {
    site: Site,
    context: Arc<Context>,
    pods: Cache<Pod>,
    handle: Handle,
    tasks: Tasks,
    /// By uid.
    workers: BTreeMap<String, Running>,
}

struct Running {
    input: watch::Sender<Input>,
    nudge: Arc<Notify>,
}

impl Dispatcher {
    async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let links = self.context.objects.hold_links();
        let synced = async {
            self.pods.synced().await;
            links.synced().await;
            self.context.objects.services.synced().await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = synced => {}
        }
        let mut pods = self.pods.subscribe();
        let mut links = links.subscribe();
        self.clean_orphans();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                change = pods.next() => self.take_pod(change),
                _ = links.next() => self.nudge_all(),
            }
        }
    }

    fn is_own(&self, pod: &Pod) -> bool {
        let node = pod.spec.as_ref().and_then(|it| it.node_name.as_deref());
        node == Some(self.context.machine.name.as_str())
    }

    fn take_pod(&mut self, change: Change<Pod>) {
        let Change { old, new, .. } = change;
        if let Some(old) = old
            && new.as_ref().is_none_or(|it| it.metadata.uid != old.metadata.uid)
        {
            let uid = old.metadata.uid.clone().unwrap_or_default();
            if let Some(worker) = self.workers.remove(&uid) {
                // The worker cleans up and ends; a closed channel means that it has.
                worker.input.send_modify(|it| it.vanished = true);
            }
            if self.workers.is_empty() {
                let spares = self.context.spares.clone();
                self.tasks.spawn("spares", OnExit::Log, |_| async move {
                    spares.clear().await;
                    Ok(())
                });
            }
        }
        let Some(pod) = new.filter(|it| self.is_own(it)) else { return };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        match self.workers.get(&uid).filter(|it| !it.input.is_closed()) {
            Some(worker) => worker.input.send_modify(|it| it.pod = pod),
            None => self.start_worker(uid, pod),
        }
    }

    fn start_worker(&mut self, uid: String, pod: Arc<Pod>) {
        if self.handle.node_stops.borrow().is_some() {
            return;
        }
        let folders = Folders::of(&self.context, &pod);
        let place = Place {
            context: Arc::clone(&self.context),
            folders: folders.clone(),
            pod: Some(Arc::clone(&pod)),
        };
        let status = watch::Sender::new(pod.status.clone().unwrap_or_default());
        let registered = Registered { pod: Arc::clone(&pod), folders, status: status.subscribe() };
        let registration = self.handle.registry.register(registered);
        let referred = self.context.objects.hold(&pod);
        let input = watch::Sender::new(Input { pod, vanished: false });
        let nudge = Arc::new(Notify::new());
        let wires = Wires {
            input: input.subscribe(),
            nudge: Arc::clone(&nudge),
            node_stops: self.handle.node_stops.subscribe(),
            status,
        };
        let worker = Worker::new(Arc::clone(&self.context), place, wires);
        let changed = Arc::clone(&nudge);
        self.tasks.spawn("pod", OnExit::Log, |stop| async move {
            let run = async {
                // What is not known yet would count as missing.
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = referred.synced() => {}
                }
                worker.run(stop.clone()).await
            };
            let result = tokio::select! {
                result = run => result,
                () = referred.tell(&changed) => Ok(()),
            };
            drop(registration);
            result
        });
        self.workers.insert(uid, Running { input, nudge });
    }

    fn nudge_all(&self) {
        for worker in self.workers.values() {
            worker.nudge.notify_one();
        }
    }

    /// Removes control groups that an earlier process made for pods that never were.
    fn clean_spares(&self, names: Vec<String>) {
        for name in names {
            let cgroups = Arc::clone(&self.context.cgroups);
            self.tasks.spawn("orphan", OnExit::Log, |_| async move {
                Ok(tokio::task::spawn_blocking(move || cgroups.remove_spare(&name)).await??)
            });
        }
    }

    /// Ends and removes what is left of pods whose API objects went while no node ran.
    fn clean_orphans(&self) {
        let Orphans { uids, spares } = self.site.orphans(&self.pods.list());
        self.clean_spares(spares);
        for uid in uids {
            tracing::info!(pod = uid, "cleaning up after an unknown pod");
            let site = self.site.clone();
            let folders = Folders::of_orphan(&self.context, uid);
            let place = Place { context: Arc::clone(&self.context), folders, pod: None };
            self.tasks.spawn("orphan", OnExit::Log, |stop| async move {
                while stage::clean(&place, &mut Parts::default()).await.is_err() {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(ORPHAN_RETRY) => {}
                    }
                }
                site.cleaned(&place.folders.uid);
                Ok(())
            });
        }
    }
}
