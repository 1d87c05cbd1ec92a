//! Shims that are ready before there is a pod for them: with their namespaces, and connected to the
//! pods' network. A pod that begins takes one, and the next is made meanwhile.
//!
//! There are none until the first pod wants one, and none when the last pod is gone. They are never
//! found again: a shim without a pod ends with this process, and so do its namespaces.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use runtime::{OnExit, Tasks};
use shim::{
    Nursery, Process,
    wire::{Reply, SpareSpec},
};
use tokio::sync::{Notify, oneshot};

use crate::{
    cgroups::Cgroups,
    context::{HostProcesses, PodAddress, PodNetwork},
    ids::Claim,
    pod::shim::Connection,
};

/// Shims that wait for a pod. Each costs some 100 kB and the kernel some 300 kB; the next is ready
/// about when the pod that took the last one runs.
const SPARES: usize = 1;

/// What spare shims are made with.
pub(crate) struct Recipe {
    /// The binary whose `shim` subcommand is `shim::main`.
    pub(crate) executable: PathBuf,
    /// The cluster's run folder.
    pub(crate) run_dir: PathBuf,
    pub(crate) spec: SpareSpec,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) host: Arc<dyn HostProcesses>,
    pub(crate) cgroups: Arc<Cgroups>,
}

/// A shim without a pod. Who has no use for it calls [`Spare::discard`].
pub(crate) struct Spare {
    /// Awaits the message that says which pod it is for. Closing it ends the shim.
    pub(crate) connection: Connection,
    /// If it is a child of this process.
    pub(crate) process: Option<Process>,
    /// What stands in place of a uid in the pods' network, and the address; none on the host's network.
    pub(crate) attached: Option<(String, PodAddress)>,
    /// The name of the control group that its first container is in, or comes to be.
    pub(crate) cgroup: Option<String>,
}

/// The spare shims of the node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Spares(Arc<Shared>);

struct Shared {
    recipe: Recipe,
    tasks: Tasks,
    state: Mutex<State>,
    /// Told when none is being made in the background any more.
    settled: Notify,
}

#[derive(Default)]
struct State {
    nursery: Option<Arc<Nursery>>,
    /// The one on the host's network, as soon as a pod was to be there.
    nursery_on_host: Option<Arc<Nursery>>,
    ready: Vec<Spare>,
    /// Being made in the background.
    making: usize,
    /// Pods that wait for those, at most as many.
    waiting: VecDeque<oneshot::Sender<Spare>>,
    /// Whether there are pods.
    wanted: bool,
}

impl std::fmt::Debug for Spares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spares").finish_non_exhaustive()
    }
}

impl Spares {
    /// None yet; those that will be made ahead are made in `tasks`.
    pub(crate) fn new(recipe: Recipe, tasks: &Tasks) -> Self {
        let (state, settled) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared { recipe, tasks: tasks.clone(), state, settled }))
    }

    /// A shim for a pod: one that is there, or about to be, else a new one. If one was there, the next is
    /// made when [`Self::refill`] says so.
    pub(crate) async fn take(&self) -> anyhow::Result<Spare> {
        let (ready, coming) = {
            let mut state = self.state();
            state.wanted = true;
            let ready = state.ready.pop();
            let coming = (ready.is_none() && state.waiting.len() < state.making).then(|| {
                let (sender, receiver) = oneshot::channel();
                state.waiting.push_back(sender);
                receiver
            });
            (ready, coming)
        };
        let was_ready = ready.is_some();
        let spare = match (ready, coming) {
            (Some(spare), _) => Some(spare),
            (None, Some(coming)) => coming.await.ok(),
            (None, None) => None,
        };
        // One whose making failed is made again here, where somebody is told why.
        let spare = match spare {
            Some(spare) => Ok(spare),
            None => self.0.recipe.make(self).await,
        };
        if !was_ready {
            self.refill();
        }
        spare
    }

    /// A new shim for a pod on the host's network. None is made ahead: there is little to make.
    pub(crate) async fn take_on_host(&self, host_ipc: bool) -> anyhow::Result<Spare> {
        self.state().wanted = true;
        let spec = SpareSpec { host_ipc, ..self.0.recipe.spec.clone() };
        let mut connection = self.0.recipe.fork(self, Where::Host, (spec, None)).await?;
        match connection.answer().await.context("cannot start a shim")? {
            Reply::Ready { .. } => {
                Ok(Spare { connection, process: None, attached: None, cgroup: None })
            }
            _ => anyhow::bail!("a new shim does not say that it is one"),
        }
    }

    /// A new shim for a pod that shares the machine's IPC. None is made ahead: there are few.
    pub(crate) async fn take_with_host_ipc(&self) -> anyhow::Result<Spare> {
        self.state().wanted = true;
        let spec = SpareSpec { host_ipc: true, ..self.0.recipe.spec.clone() };
        self.0.recipe.make_in(self, (spec, None)).await
    }

    /// A new shim for a pod with users of its own. None is made ahead: there are few.
    pub(crate) async fn take_with_users(&self, claim: Claim) -> anyhow::Result<Spare> {
        self.state().wanted = true;
        let spec = SpareSpec { users: Some(claim.map()), ..self.0.recipe.spec.clone() };
        self.0.recipe.make_in(self, (spec, Some(claim.lock))).await
    }

    /// Ends those that are there. The next pod brings them back.
    pub(crate) async fn clear(&self) {
        let (nursery, ready) = {
            let mut state = self.state();
            state.wanted = false;
            // Nobody's child here, so nobody waits for it.
            state.nursery_on_host = None;
            (state.nursery.take(), std::mem::take(&mut state.ready))
        };
        for spare in ready {
            spare.discard(self).await;
        }
        loop {
            let settled = self.0.settled.notified();
            tokio::pin!(settled);
            // Registered before looking, so that nothing falls between.
            settled.as_mut().enable();
            if self.state().making == 0 {
                break;
            }
            settled.await;
        }
        if let Some(nursery) = nursery.and_then(Arc::into_inner) {
            let ended = tokio::task::spawn_blocking(move || nursery.end()).await;
            if let Ok(Err(error)) = ended {
                tracing::debug!(%error, "nursery not waited for");
            }
        }
    }

    /// Makes a shim for the next pod, in the background. Best when the pod that took the last one runs:
    /// making one takes the processors as long as a start.
    pub(crate) fn refill(&self) {
        let mut state = self.state();
        if !state.wanted {
            return;
        }
        let missing = SPARES.saturating_sub(state.ready.len() + state.making);
        state.making += missing;
        drop(state);
        for _ in 0..missing {
            let (making, spares) = (Making(self.clone()), self.clone());
            self.0.tasks.spawn("spare", OnExit::Log, |stop| async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    made = spares.0.recipe.make(&spares) => match made {
                        Ok(spare) => spares.put(spare).await,
                        Err(error) => {
                            tracing::warn!(error = format!("{error:#}"), "no shim ready for the next pod");
                        }
                    }
                }
                drop(making);
                Ok(())
            });
        }
    }

    /// Gives a spare to whoever waits for one longest.
    async fn put(&self, mut spare: Spare) {
        loop {
            let waiting = {
                let mut state = self.state();
                match state.waiting.pop_front() {
                    Some(waiting) => waiting,
                    None if state.wanted => return state.ready.push(spare),
                    None => break,
                }
            };
            match waiting.send(spare) {
                Ok(()) => return,
                // Its pod does not begin any more.
                Err(unwanted) => spare = unwanted,
            }
        }
        spare.discard(self).await;
    }

    fn nursery(&self, where_: Where) -> anyhow::Result<Arc<Nursery>> {
        let Recipe { executable, run_dir, host, .. } = &self.0.recipe;
        let mut state = self.state();
        let place = state.nursery_of(where_);
        if let Some(nursery) = place {
            return Ok(Arc::clone(nursery));
        }
        let nursery = match where_ {
            Where::Inside => Nursery::start(executable, run_dir),
            Where::Host => Nursery::start_on_host(run_dir, |it| host.start(it)),
        };
        let nursery = Arc::new(nursery.context("cannot start the process that forks shims")?);
        *place = Some(Arc::clone(&nursery));
        Ok(nursery)
    }

    fn forget(&self, where_: Where, nursery: &Arc<Nursery>) {
        self.state().nursery_of(where_).take_if(|it| Arc::ptr_eq(it, nursery));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a shim is made with, and what it holds as long as it lives.
type Wanted = (SpareSpec, Option<OwnedFd>);

/// On which network a shim begins.
#[derive(Clone, Copy, Debug)]
enum Where {
    Inside,
    Host,
}

impl State {
    fn nursery_of(&mut self, where_: Where) -> &mut Option<Arc<Nursery>> {
        match where_ {
            Where::Inside => &mut self.nursery,
            Where::Host => &mut self.nursery_on_host,
        }
    }
}

/// One that is being made in the background, until this is dropped.
struct Making(Spares);

impl Drop for Making {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.making -= 1;
        // Whoever waits for what did not come makes one.
        let coming = state.making;
        state.waiting.truncate(coming);
        drop(state);
        self.0.0.settled.notify_waiters();
    }
}

impl Recipe {
    async fn make(&self, spares: &Spares) -> anyhow::Result<Spare> {
        let cgroups = Arc::clone(&self.cgroups);
        let made = tokio::task::spawn_blocking(move || cgroups.spare()).await?;
        // The pod's groups are made later, where somebody is told why they cannot be.
        let (cgroup, folders) = made.ok().flatten().unzip();
        let spec = SpareSpec { cgroups: folders.unwrap_or_default(), ..self.spec.clone() };
        let made = self.make_in(spares, (spec, None)).await;
        match made {
            Ok(spare) => Ok(Spare { cgroup, ..spare }),
            Err(error) => {
                self.remove(cgroup).await;
                Err(error)
            }
        }
    }

    async fn make_in(&self, spares: &Spares, spec: Wanted) -> anyhow::Result<Spare> {
        let mut connection = self.fork(spares, Where::Inside, spec).await?;
        let reply = connection.answer().await.context("cannot start a shim")?;
        let (Reply::Ready { pid }, Some(netns)) = (reply, connection.take_fd()) else {
            anyhow::bail!("a new shim does not say that it is one");
        };
        let process = Process::open(pid).context("cannot open a new shim")?;
        match self.network.attach_spare(netns).await {
            Ok(attached) => {
                let (process, attached) = (Some(process), Some(attached));
                Ok(Spare { connection, process, attached, cgroup: None })
            }
            Err(error) => {
                drop(connection);
                reap(process).await;
                Err(error)
            }
        }
    }

    /// A new shim, from a new nursery if the old one was killed.
    async fn fork(
        &self,
        spares: &Spares,
        where_: Where,
        (spec, claim): Wanted,
    ) -> anyhow::Result<Connection> {
        let of = spares.clone();
        let forked = tokio::task::spawn_blocking(move || {
            let nursery = of.nursery(where_)?;
            nursery.spare(&spec, claim.as_ref()).or_else(|_| {
                of.forget(where_, &nursery);
                let nursery = of.nursery(where_)?;
                nursery.spare(&spec, claim.as_ref()).context("cannot ask for a shim")
            })
        });
        Ok(Connection::over(forked.await.context("cannot ask for a shim")??)?)
    }

    /// Removes a control group that no pod has taken.
    async fn remove(&self, cgroup: Option<String>) {
        let Some(name) = cgroup else { return };
        let cgroups = Arc::clone(&self.cgroups);
        let removed = tokio::task::spawn_blocking(move || cgroups.remove_spare(&name)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "a spare control group stays");
        }
    }
}

impl Spare {
    /// Ends it, and gives back its address and control group.
    pub(crate) async fn discard(self, spares: &Spares) {
        let recipe = &spares.0.recipe;
        drop(self.connection);
        if let Some(process) = self.process {
            reap(process).await;
        }
        recipe.remove(self.cgroup).await;
        let Some((attached, _)) = self.attached else { return };
        if let Err(error) = recipe.network.detach(&attached).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "a spare network namespace stays connected"
            );
        }
    }
}

/// Waits for a shim that has ended, so that it does not stay as a zombie.
pub(crate) async fn reap(process: Process) {
    let waited = tokio::task::spawn_blocking(move || process.wait()).await;
    if let Ok(Err(error)) = waited {
        tracing::debug!(%error, "shim not waited for");
    }
}
