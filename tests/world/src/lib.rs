//! A whole cluster in one thread and on a paused clock: the real store, API server, controllers
//! and scheduler; only the machine is fake.
//!
//! Everything that happens depends on the seed alone, so the same seed gives the same [`Diary`],
//! to the byte. Faults are injected between the controllers and the API; the scenario itself and
//! the diary talk to the API without any.

mod diary;
mod faults;
mod machine;

use std::time::Duration;

use anyhow::Context as _;
use client::{Api, Caches, Client, ListParams, PostParams};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use runtime::{Clock, Tasks};
use serde_json::Value;

pub use diary::{Diary, Entry};
pub use faults::{Faults, Kind};
pub use machine::NODE;

/// The time of day at which every world begins.
const BEGINNING: Timestamp = Timestamp::constant(1_700_000_000, 0);

/// Longest wait for a state of the world, in its own time.
const WAIT_MAX: Duration = Duration::from_secs(30 * 60);

/// How often a state is looked for meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long the parts of the world get to stop.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// A cluster that runs.
#[derive(Debug)]
pub struct World {
    server: apiserver::Server,
    faults: Faults,
    clock: Clock,
    diary: Diary,
    machine: machine::Machine,
    /// Server, diary and machine.
    base: Tasks,
    /// What a restart of the cluster process would restart: caches, controllers, scheduler.
    parts: Tasks,
    _directory: tempfile::TempDir,
}

/// Runs `scenario` in a world made from `seed`, and gives back what happened in it.
///
/// # Errors
/// The world could not be made, or the scenario failed.
pub fn run(
    seed: u64,
    scenario: impl AsyncFnOnce(&mut World) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Entry>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .context("make the runtime")?;
    runtime.block_on(async {
        let mut world = World::start(seed).await?;
        let result = scenario(&mut world).await;
        let entries = world.diary.entries();
        world.stop().await;
        result.map(|()| entries)
    })
}

impl World {
    async fn start(seed: u64) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("make a folder")?;
        let clock = Clock::following_tokio(BEGINNING);
        let mut config = store::Config::new(directory.path().join("store"));
        config.durability = store::Durability::Process;
        let store = store::Store::open(&config).context("open the store")?;
        let base = Tasks::default();
        let mut config = apiserver::Config::new(directory.path().join("pki"), seed);
        config.clock = clock.clone();
        let server = apiserver::Server::build(config, store, &base).await?;
        let faults = Faults::new(seed);
        let diary = Diary::default();
        let client = client::in_process(server.service());
        diary.follow(&client, &clock, &base);
        let machine = machine::start(&client, seed, &clock, &base).await?;
        let parts = base.component();
        let world =
            Self { server, faults, clock, diary, machine, base, parts, _directory: directory };
        world.start_parts();
        Ok(world)
    }

    fn start_parts(&self) {
        let client = client::in_process(self.faults.before(self.server.service()));
        let caches = Caches::new(client.clone(), &self.parts);
        let (clock, root_ca) = (self.clock.clone(), "a certificate".to_owned());
        let config = controllers::Config { root_ca, clock: clock.clone() };
        controllers::run(config, &caches, &client, &self.parts);
        scheduler::run(scheduler::Config { clock }, &caches, &client, &self.parts);
    }

    async fn stop(self) {
        self.parts.shutdown(SHUTDOWN_MAX).await;
        self.base.shutdown(SHUTDOWN_MAX).await;
    }

    /// Stops controllers and scheduler in the middle of whatever they do, and starts new ones that
    /// know nothing.
    pub async fn restart_parts(&mut self) {
        self.parts.shutdown(SHUTDOWN_MAX).await;
        self.parts = self.base.component();
        self.start_parts();
    }

    /// Has `count` Nodes from here on.
    ///
    /// # Errors
    /// The server refuses them.
    pub async fn grow(&self, count: usize) -> anyhow::Result<()> {
        self.machine.grow(count, &self.base).await
    }

    /// Loses a Node: it is not heard of any more, and does nothing.
    pub fn lose(&self, node: &str) {
        self.machine.lose(node);
    }

    /// Brings a lost Node back.
    ///
    /// # Errors
    /// The server does not take its word.
    pub async fn find(&self, node: &str) -> anyhow::Result<()> {
        self.machine.find(node).await
    }

    /// What goes wrong from here on.
    #[must_use]
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What has happened so far.
    #[must_use]
    pub const fn diary(&self) -> &Diary {
        &self.diary
    }

    /// A client without faults.
    #[must_use]
    pub fn client(&self) -> Client {
        client::in_process(self.server.service())
    }

    /// The time of day in the world.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Creates an object of any kind, in `default` if it names no namespace.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn create(&self, object: Value) -> anyhow::Result<()> {
        let object: DynamicObject = serde_json::from_value(object)?;
        let api = self.api_for(&object)?;
        api.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Changes a Deployment in `default` until the change is accepted.
    ///
    /// # Errors
    /// The Deployment is not there, or the server refuses the change.
    pub async fn edit_deployment(
        &self,
        name: &str,
        change: impl Fn(&mut Deployment),
    ) -> anyhow::Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.client(), "default");
        loop {
            let mut deployment = deployments.get(name).await?;
            change(&mut deployment);
            match deployments.replace(name, &PostParams::default(), &deployment).await {
                Err(error) if client::is_conflict(&error) => {}
                answer => return Ok(answer.map(drop)?),
            }
        }
    }

    /// The pods of a namespace, by name.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn pods(&self, namespace: &str) -> anyhow::Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        Ok(pods.list(&ListParams::default()).await?.items)
    }

    /// Waits until `holds`, for half an hour of the world's time.
    ///
    /// # Errors
    /// It did not hold in time, or looking failed.
    pub async fn until(
        &self,
        what: &str,
        mut holds: impl AsyncFnMut(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + WAIT_MAX;
        while !holds(self).await? {
            if deadline < tokio::time::Instant::now() {
                let lines: Vec<String> =
                    self.diary.entries().iter().map(Entry::to_string).collect();
                let last = lines.len().saturating_sub(40);
                let last = lines.get(last..).unwrap_or_default().join("\n");
                anyhow::bail!("never saw that {what}; at last:\n{last}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Waits until a Deployment in `default` has rolled out completely, as `kubectl rollout status`
    /// sees it.
    ///
    /// # Errors
    /// It did not in time.
    pub async fn until_rolled_out(&self, name: &str) -> anyhow::Result<()> {
        self.until(&format!("{name} is rolled out"), async |world| {
            let deployments: Api<Deployment> = Api::namespaced(world.client(), "default");
            let deployment = deployments.get(name).await?;
            let wanted = deployment.spec.and_then(|it| it.replicas);
            let Some(status) = deployment.status else { return Ok(false) };
            let count = |it: Option<i32>| Some(it.unwrap_or(0));
            Ok(status.observed_generation == deployment.metadata.generation
                && count(status.updated_replicas) == wanted
                && count(status.replicas) == wanted
                && count(status.available_replicas) == wanted)
        })
        .await
    }

    fn api_for(&self, object: &DynamicObject) -> anyhow::Result<Api<DynamicObject>> {
        let types = object.types.as_ref().context("object without apiVersion and kind")?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        if types.kind == "Namespace" {
            return Ok(Api::all_with(self.client(), &resource));
        }
        let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
        Ok(Api::namespaced_with(self.client(), namespace, &resource))
    }
}
