//! Keeps the table of policies as NetworkPolicies, pods and namespaces say: observe, decide, act, as
//! soon as something changes.
//!
//! A pod's address is known here before the API has it, and a pod begins only when it is restricted.

mod attached;
mod decide;
mod draft;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use client::{Caches, Change, Subscription};
use k8s_openapi::api::{
    core::v1::{Container, Namespace, Pod},
    networking::v1::NetworkPolicy,
};
use kube::Resource as _;
use runtime::{Backoff, OnExit, Tasks};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    netlink::Error,
    nft::policy::PolicyTable,
    services::{blocking, describe},
};
pub(crate) use attached::Attached;
use decide::Model;
use rules::Policy;

type Labels = BTreeMap<String, String>;

/// Waits after the kernel refused a change, as for services.
const RETRY: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(5) };

/// How long a pod that begins waits for policies. It was made in the API, so this process hears of it
/// within milliseconds; beyond this time its start fails, and is tried again.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(5);

/// What stands in place of the uid of the name server, which is no pod.
const NAME_SERVER: &str = "name server";

/// Which pods are restricted as policies say, for whoever waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Enforced(watch::Receiver<State>);

#[derive(Debug, Default)]
struct State {
    /// The table shows what the API said at least once since this process began.
    synced: bool,
    /// There is no policy: nobody has to wait.
    idle: bool,
    /// The pods about which the table is right: uid and address.
    pods: BTreeMap<String, Ipv4Addr>,
}

/// A pod is not restricted yet: it is not known, or the kernel refuses, which the log says.
#[derive(Debug, thiserror::Error)]
#[error("NetworkPolicies are not in force at the pod within {} s", IN_FORCE_WITHIN.as_secs())]
pub(crate) struct NotInForce;

impl Enforced {
    /// Waits until whatever policies say of the pod is in force at its address.
    pub(crate) async fn at(&self, uid: &str, address: Ipv4Addr) -> Result<(), NotInForce> {
        let is_right = |it: &State| it.synced && (it.idle || it.pods.get(uid) == Some(&address));
        let mut state = self.0.clone();
        let right = async { state.wait_for(is_right).await.is_ok() };
        match tokio::time::timeout(IN_FORCE_WITHIN, right).await {
            Ok(true) => Ok(()),
            // The loop has ended: the process is stopping.
            Ok(false) => std::future::pending().await,
            Err(_) => Err(NotInForce),
        }
    }

    /// Waits until the table shows what the API said.
    pub(crate) async fn synced(&self) {
        if self.0.clone().wait_for(|it| it.synced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The loop and all that it knows.
#[derive(Debug)]
struct Policies {
    table: Arc<PolicyTable>,
    model: Model,
    attached: Attached,
    /// By uid: the pods of the API.
    pods: BTreeMap<String, Arc<Pod>>,
    /// Uids of pods to look at.
    dirty: BTreeSet<String>,
    state: watch::Sender<State>,
    /// Whether the table is as the model says, but for the next changes.
    is_current: bool,
    /// Whether there may be a table, if only one of an earlier process.
    is_there: bool,
}

#[derive(Debug)]
struct Sources {
    policies: Subscription<NetworkPolicy>,
    namespaces: Subscription<Namespace>,
    pods: Subscription<Pod>,
}

/// Starts the loop.
pub(crate) fn start(
    table: PolicyTable,
    dns: Ipv4Addr,
    attached: Attached,
    caches: &Caches,
    tasks: &Tasks,
) -> Enforced {
    let state = watch::Sender::new(State::default());
    let enforced = Enforced(state.subscribe());
    let mut model = Model::default();
    model.pod_changed(NAME_SERVER, Some(name_server(dns)));
    let (pods, dirty) = (BTreeMap::new(), BTreeSet::new());
    let table = Arc::new(table);
    let (is_current, is_there) = (false, true);
    let policies = Policies { table, model, attached, pods, dirty, state, is_current, is_there };
    let (policy_cache, namespace_cache) = (caches.of::<NetworkPolicy>(), caches.of::<Namespace>());
    let pod_cache = caches.of::<Pod>();
    let sources = Sources {
        policies: policy_cache.subscribe_to(|old, new| match (old, new) {
            (Some(old), Some(new)) => old.spec != new.spec,
            _ => true,
        }),
        namespaces: namespace_cache.subscribe_to(|old, new| match (old, new) {
            (Some(old), Some(new)) => old.metadata.labels != new.metadata.labels,
            _ => true,
        }),
        pods: pod_cache.subscribe_to(|old, new| match (old, new) {
            (Some(old), Some(new)) => {
                old.metadata.uid != new.metadata.uid || old.metadata.labels != new.metadata.labels
            }
            _ => true,
        }),
    };
    tasks.spawn("policies", OnExit::StopProcess, |stop| async move {
        let synced = async {
            tokio::join!(policy_cache.synced(), namespace_cache.synced(), pod_cache.synced())
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            ((), (), ()) = synced => {}
        }
        policies.run(sources, stop).await
    });
    enforced
}

impl Policies {
    async fn run(mut self, mut sources: Sources, stop: CancellationToken) -> anyhow::Result<()> {
        let mut failures = 0_u32;
        let attached = self.attached.clone();
        loop {
            self.drain(&mut sources);
            match self.reconcile().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let error = describe(&error);
                    tracing::warn!(error, "network policies not in force; trying again");
                }
            }
            let retry = tokio::time::sleep(RETRY.delay(failures));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = retry, if failures > 0 => {}
                change = sources.policies.next(), if failures == 0 => self.policy_changed(&change),
                change = sources.namespaces.next(), if failures == 0 => {
                    self.namespace_changed(&change);
                }
                change = sources.pods.next(), if failures == 0 => self.pod_changed(change),
                () = attached.changed(), if failures == 0 => {}
            }
        }
    }

    /// Takes in what is there already, so that a burst becomes one transaction.
    fn drain(&mut self, sources: &mut Sources) {
        while let Some(change) = sources.namespaces.try_next() {
            self.namespace_changed(&change);
        }
        while let Some(change) = sources.policies.try_next() {
            self.policy_changed(&change);
        }
        while let Some(change) = sources.pods.try_next() {
            self.pod_changed(change);
        }
        // From here on who connects a pod waits for it. Who did before is in `attached` already.
        let idle = self.model.is_idle();
        self.state.send_if_modified(|it| {
            it.idle &= idle;
            false
        });
        self.dirty.extend(self.attached.take_changed());
        let dirty = std::mem::take(&mut self.dirty);
        let known = dirty.into_iter().map(|uid| {
            let pod = self
                .attached
                .address(&uid)
                .and_then(|address| Some(facts(self.pods.get(&uid)?, address)));
            (uid, pod)
        });
        let (here, gone): (Vec<_>, Vec<_>) = known.partition(|(_, it)| it.is_some());
        // What goes before what comes: an address may pass from one to the other.
        for (uid, pod) in gone.into_iter().chain(here) {
            self.model.pod_changed(&uid, pod);
        }
    }

    fn policy_changed(&mut self, change: &Change<NetworkPolicy>) {
        let policy = change.new.as_deref().and_then(Policy::read);
        self.model.policy_changed(&change.key, policy);
    }

    fn namespace_changed(&mut self, change: &Change<Namespace>) {
        let labels = change.new.as_deref();
        let labels = labels.map(|it| it.metadata.labels.clone().unwrap_or_default());
        self.model.namespace_changed(&change.key.name, labels.as_ref());
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        let uid = |it: &Pod| it.meta().uid.clone();
        if let Some(uid) = change.old.as_deref().and_then(uid) {
            self.pods.remove(&uid);
            self.dirty.insert(uid);
        }
        let Some(pod) = change.new else { return };
        if let Some(uid) = uid(&pod) {
            self.pods.insert(uid.clone(), pod);
            self.dirty.insert(uid);
        }
    }

    async fn reconcile(&mut self) -> Result<(), Error> {
        let changes = self.model.decide();
        let table = Arc::clone(&self.table);
        let idle = self.model.is_idle();
        if idle {
            self.is_current = false;
            if self.is_there {
                blocking(move || table.remove()).await?;
                self.is_there = false;
            }
        } else if !self.is_current || !changes.is_empty() {
            let was_current = std::mem::take(&mut self.is_current);
            self.is_there = true;
            let is_done = was_current && blocking(move || table.apply(&changes)).await?;
            if !is_done {
                let (table, whole) = (Arc::clone(&self.table), self.model.contents().changes());
                blocking(move || table.replace(&whole)).await?;
            }
            self.is_current = true;
        }
        // Without policies nobody asks for pods.
        let pods = if idle { BTreeMap::new() } else { self.model.addresses() };
        self.state.send_modify(|it| *it = State { synced: true, idle, pods });
        Ok(())
    }
}

/// What policies ask of a pod.
fn facts(pod: &Pod, address: Ipv4Addr) -> decide::Pod {
    let metadata = &pod.metadata;
    let mut ports = BTreeMap::new();
    if let Some(spec) = &pod.spec {
        // Containers that run beside the others, and those.
        let beside = |it: &&Container| it.restart_policy.as_deref() == Some("Always");
        let beside = spec.init_containers.iter().flatten().filter(beside);
        for port in beside.chain(&spec.containers).flat_map(|it| it.ports.iter().flatten()) {
            let protocol = rules::protocol(port.protocol.as_deref());
            let number = u16::try_from(port.container_port);
            if let (Some(name), Some(protocol), Ok(number)) = (&port.name, protocol, number) {
                ports.insert((protocol, name.clone()), number);
            }
        }
    }
    decide::Pod {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        labels: metadata.labels.clone().unwrap_or_default(),
        ports,
        address,
        is_subject: true,
    }
}

/// The name server, as policies know it from other clusters, where it is a pod.
fn name_server(address: Ipv4Addr) -> decide::Pod {
    let port = |protocol, name: &str| ((protocol, name.to_owned()), crate::dns::PORT);
    decide::Pod {
        namespace: "kube-system".to_owned(),
        labels: Labels::from([("k8s-app".to_owned(), "kube-dns".to_owned())]),
        ports: BTreeMap::from([port(17, "dns"), port(6, "dns-tcp")]),
        address,
        is_subject: false,
    }
}
