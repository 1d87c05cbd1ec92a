//! Keeps the nftables table as Services and EndpointSlices say: observe, decide, act, as soon as
//! something changes.

mod decide;
mod slots;
mod stale;
mod target;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use client::{Caches, Subscription};
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use runtime::{Backoff, OnExit, Tasks};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    directory,
    family::IpFamily,
    host_ports,
    netlink::Error,
    nft::{Contents, Frontend, Layout, Table},
};
pub(crate) use decide::Place;
use decide::{Decision, Installed, Seen, decide};
use stale::StaleFlows;
pub(crate) use target::outside;

/// Waits after the kernel refused a change. It does so only if somebody else changed the table or
/// memory is short, and both may pass soon.
const RETRY: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(5) };

/// What is routed, of all families, for whoever waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Routed(Vec<watch::Receiver<State>>);

#[derive(Debug)]
struct State {
    /// The table shows what the API said at least once since this process began.
    synced: bool,
    installed: Installed,
    /// Endpoints that will be ready, in changes that are on their way to the kernel.
    coming: BTreeSet<Ipv4Addr>,
}

impl State {
    fn leads_to(&self, address: Ipv4Addr) -> bool {
        self.installed.is_ready(address) || self.coming.contains(&address)
    }
}

impl Routed {
    /// Waits until no service port leads to `address`, other than for want of better.
    pub(crate) async fn without(&mut self, address: Ipv4Addr) {
        self.wait_for(|state| !state.leads_to(address)).await;
    }

    /// Waits until the table shows what the API said.
    pub(crate) async fn synced(&mut self) {
        self.wait_for(|state| state.synced).await;
    }

    /// What is routed of these families.
    fn all(families: &[Services]) -> Self {
        Self(families.iter().map(|it| it.state.subscribe()).collect())
    }

    /// One family after the other.
    async fn wait_for(&mut self, mut reached: impl FnMut(&State) -> bool) {
        for state in &mut self.0 {
            if state.wait_for(&mut reached).await.is_err() {
                // The loop has ended, and nothing will ever be routed again: the process is stopping.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// What the loop follows.
#[derive(Debug)]
struct Changes {
    services: Subscription<Service>,
    slices: Subscription<EndpointSlice>,
    /// Those with ports of the host.
    pods: Subscription<Pod>,
    nodes: Subscription<Node>,
}

/// Starts to route what Services say, for each of these families.
pub(crate) fn start(families: Vec<Services>, caches: &Caches, tasks: &Tasks) -> Routed {
    let routed = Routed::all(&families);
    for services in families {
        services.start(caches, tasks);
    }
    routed
}

impl Changes {
    /// What matters to one family. That of IPv4 is the first, and told of everything: its directory is read
    /// by the name server, too, and pods have ports of the host at its addresses alone.
    fn of(family: IpFamily, caches: &Caches) -> Self {
        let nodes = caches.of::<Node>().subscribe_to(|old, new| {
            let what = |it: &Node| {
                let part = it.spec.as_ref().and_then(|it| it.pod_cidr.clone());
                (part, it.metadata.labels.clone())
            };
            old.map(what) != new.map(what)
        });
        let (services, slices) = (caches.of::<Service>(), caches.of::<EndpointSlice>());
        if family == IpFamily::V4 {
            let (services, slices) = (services.subscribe(), slices.subscribe());
            return Self { services, slices, pods: host_ports::asking(caches), nodes };
        }
        let has = move |it: Option<&Service>| it.is_some_and(|it| family.cluster_ip(it).is_some());
        let is = move |it: Option<&EndpointSlice>| it.is_some_and(|it| family.is_of(it));
        Self {
            services: services.subscribe_to(move |old, new| has(old) || has(new)),
            slices: slices.subscribe_to(move |old, new| is(old) || is(new)),
            pods: caches.of::<Pod>().subscribe_to(|_, _| false),
            nodes,
        }
    }
}

/// The loop of a family, and all that it knows.
#[derive(Debug)]
pub(crate) struct Services {
    table: Arc<Table>,
    stale: Arc<StaleFlows>,
    directory: directory::Shared,
    state: watch::Sender<State>,
    /// Places to decide about.
    dirty: BTreeSet<Frontend>,
    api: SocketAddrV4,
    layout: Arc<Layout>,
}

impl Services {
    /// `contents` is what the table has, `api` where the API is served in this network.
    pub(crate) fn new(
        (table, contents): (Table, Contents),
        directory: directory::Shared,
        (api, layout): (SocketAddrV4, Arc<Layout>),
        tasks: &Tasks,
    ) -> Self {
        let installed = Installed::found(contents);
        // Whatever was found and has no Service any more goes with the first decision.
        let dirty = installed.frontends().collect();
        let state = watch::Sender::new(State { synced: false, installed, coming: BTreeSet::new() });
        let stale = Arc::new(StaleFlows::default());
        let (forgetting, family) = (Arc::clone(&stale), layout.family);
        tasks.spawn("stale-udp-flows", OnExit::StopProcess, move |stop| {
            forgetting.run(family, stop)
        });
        Self { table: Arc::new(table), stale, directory, state, dirty, api, layout }
    }

    fn start(self, caches: &Caches, tasks: &Tasks) {
        let changes = Changes::of(self.layout.family, caches);
        let (services, slices) = (caches.of::<Service>(), caches.of::<EndpointSlice>());
        let (pods, nodes) = (caches.of::<Pod>(), caches.of::<Node>());
        tasks.spawn("services", OnExit::StopProcess, |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = async {
                    let services = (services.synced(), slices.synced());
                    tokio::join!(services.0, services.1, pods.synced(), nodes.synced());
                } => {}
            }
            self.run(changes, stop).await
        });
    }

    /// Runs until `stop`. The caches must have been read once: what they do not name is removed.
    async fn run(mut self, mut changes: Changes, stop: CancellationToken) -> anyhow::Result<()> {
        let mut failures = 0_u32;
        loop {
            self.drain(&mut changes);
            match self.reconcile().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(error = describe(&error), "services not routed; trying again");
                }
            }
            let retry = tokio::time::sleep(RETRY.delay(failures));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = retry, if failures > 0 => {}
                change = changes.services.next(), if failures == 0 => {
                    self.directory.write().service_changed(change, &mut self.dirty);
                }
                change = changes.slices.next(), if failures == 0 => {
                    self.directory.write().slice_changed(&change, &mut self.dirty);
                }
                change = changes.nodes.next(), if failures == 0 => {
                    self.directory.write().node_changed(&change, &mut self.dirty);
                }
                change = changes.pods.next(), if failures == 0 => {
                    self.directory.write().pod_changed(&change, &mut self.dirty);
                }
            }
        }
    }

    /// Takes in what is there already, so that a burst becomes one transaction.
    fn drain(&mut self, changes: &mut Changes) {
        let Changes { services, slices, pods, nodes } = changes;
        let mut directory = self.directory.write();
        while let Some(change) = services.try_next() {
            directory.service_changed(change, &mut self.dirty);
        }
        while let Some(change) = slices.try_next() {
            directory.slice_changed(&change, &mut self.dirty);
        }
        while let Some(change) = nodes.try_next() {
            directory.node_changed(&change, &mut self.dirty);
        }
        while let Some(change) = pods.try_next() {
            directory.pod_changed(&change, &mut self.dirty);
        }
    }

    async fn reconcile(&mut self) -> Result<(), Error> {
        let decision = self.decide();
        if !decision.units.is_empty() {
            self.state.send_modify(|state| state.coming = decision.coming(&state.installed));
            let (table, units) = (Arc::clone(&self.table), decision.units.clone());
            if let Err(error) = blocking(move || table.apply(units)).await {
                self.start_over().await?;
                return Err(error);
            }
        }
        self.dirty.clear();
        self.stale.add(&decision.stale);
        self.state.send_modify(|state| {
            state.synced = true;
            state.installed.done(decision);
            state.coming.clear();
        });
        Ok(())
    }

    fn decide(&self) -> Decision {
        let directory = self.directory.read();
        let places = self.dirty.iter().map(|&at| Place::of(&directory, at));
        let state = self.state.borrow();
        decide(&Seen {
            installed: &state.installed,
            places: places.collect(),
            api: self.api,
            layout: &self.layout,
        })
    }

    /// Looks at what the kernel really has, and decides about all of it again.
    async fn start_over(&mut self) -> Result<(), Error> {
        let table = Arc::clone(&self.table);
        let found = Installed::found(blocking(move || table.load()).await?);
        self.dirty.extend(found.frontends());
        self.dirty.extend(self.directory.read().frontends());
        self.state.send_modify(|state| {
            state.installed = found;
            state.coming.clear();
        });
        Ok(())
    }
}

/// Netlink calls block, mostly for a fraction of a millisecond.
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(panic) => Err(Error::new("ask the kernel", std::io::Error::other(panic))),
    }
}

/// An error with its causes.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |it| it.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
