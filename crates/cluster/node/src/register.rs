//! The Node object and its Lease: what this node says of itself, and that it lives.
//! <https://kubernetes.io/docs/reference/node/node-status/>

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use client::{Api, Cache, Client, Key, Patch, PatchParams, PostParams};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use runtime::Clock;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    images::Images,
    machine::{Left, Machine},
    site::Division,
};

/// How long the Lease holds: a kubelet's time. Who has not renewed it then is taken for lost.
const LEASE: Duration = Duration::from_secs(40);
/// The same for the only node of a machine. The API dies with it, so nobody could notice earlier; every
/// renewal is a wake-up and a write to disk, of which an idle laptop should see few.
const LEASE_ALONE: Duration = Duration::from_secs(20 * 60);
/// Renewals in the time that the Lease holds, as with a kubelet.
const RENEWALS: u32 = 4;
/// How often the status is written although nothing in it has changed but the time: a kubelet's
/// `nodeStatusReportFrequency`.
const REPORT_EVERY: Duration = Duration::from_secs(5 * 60);
/// Namespace of node leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Wait after a failed registration.
const RETRY: Duration = Duration::from_secs(1);

/// Zones that nodes are in, in turn: as many as regions of clouds mostly have.
const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
/// The one region.
const REGION: &str = "local";

/// Pods a node takes. On a small machine memory ends before: an idle pod costs up to 2 MB, most of it
/// the kernel's. So many run, and are started and deleted in seconds (docs/benchmarks.md).
const PODS_MAX: u32 = 1000;
/// Less memory than this is pressure: the kubelet's `memory.available<100Mi`.
const MEMORY_LEFT_MIN: u64 = 100 << 20;
/// Less room than this is pressure. A kubelet says 10 %, which on a laptop's large, well-filled disk
/// would be always; nothing is evicted here, so what counts is whether pods can still write.
const STORAGE_LEFT_MIN: u64 = 1 << 30;
/// Fewer free process ids than this are pressure.
const PROCESSES_LEFT_MIN: u64 = 1000;

/// What the node says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    /// The machine, by the name of the node.
    pub machine: Machine,
    /// Which node of the machine it is.
    pub index: u32,
    /// The ranges of its pods' addresses, one of each family.
    pub pod_cidrs: Vec<String>,
    /// How many there are in it for pods.
    pub addresses: u32,
    /// Among how many nodes the machine is divided.
    pub division: watch::Receiver<Division>,
    /// Address of the node for pods.
    pub address: Ipv4Addr,
    /// Version of the program.
    pub version: String,
    /// The Kubernetes version whose kubelet this behaves as, like `v1.36.0`.
    pub kubelet_version: String,
    /// The state folder, for room left on its disk.
    pub state: PathBuf,
    /// What pods are limited to and what not.
    pub cgroups: String,
    /// What the roots of containers of images are.
    pub roots: String,
}

/// Registers the node, and keeps its Lease and conditions until told to stop.
pub(crate) async fn run(
    mut registration: Registration,
    images: Images,
    (client, nodes, clock): (Client, Cache<Node>, Clock),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut coming = images.coming();
    let mut reported = None;
    let mut changed = true;
    loop {
        let listed = match &reported {
            Some(_) if !changed => None,
            _ => listed(&images).await,
        };
        let result =
            registration.tell((&client, &nodes), (clock.now(), listed), &mut reported).await;
        let wait = match result {
            Ok(()) => registration.lease() / RENEWALS,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "node not registered");
                RETRY
            }
        };
        changed = false;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            Ok(()) = coming.changed(), if wait != RETRY => changed = true,
            Ok(()) = registration.division.changed() => changed = true,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn listed(images: &Images) -> Option<Value> {
    let listed = images.listed().await.inspect_err(|error| {
        tracing::warn!(error = format!("{error:#}"), "images not listed");
    });
    listed.ok()
}

/// What was written last, and when.
#[derive(Debug)]
struct Reported {
    node: Node,
    at: Instant,
}

impl Registration {
    /// How long the Lease holds.
    fn lease(&self) -> Duration {
        let Division { nodes, lease } = *self.division.borrow();
        lease.unwrap_or(if nodes <= 1 { LEASE_ALONE } else { LEASE })
    }

    /// Says that the node lives; and how it is, if that has changed, it was long ago, or `images` are told.
    async fn tell(
        &self,
        (client, nodes): (&Client, &Cache<Node>),
        (now, images): (Timestamp, Option<Value>),
        reported: &mut Option<Reported>,
    ) -> anyhow::Result<()> {
        let left = Left::read(&self.state).context("look at the machine")?;
        // Somebody may have taken the node for lost, or deleted it.
        let told = nodes.get(&Key::cluster(&*self.machine.name));
        let told = told.is_some_and(|it| says(&it, left));
        let known = reported.take().filter(|it| {
            told && images.is_none() && it.at.elapsed() < REPORT_EVERY && says(&it.node, left)
        });
        let nodes: Api<Node> = Api::all(client.clone());
        let old = match &known {
            Some(known) => known.node.clone(),
            None => self.create(&nodes).await.context("create node")?,
        };
        // First, or a node that was lost and says that it is ready would be found lost once more.
        self.renew(client, now, &old).await.context("renew lease")?;
        *reported = Some(match known {
            Some(known) => known,
            None => self.report(&nodes, &old, (now, left, images)).await?,
        });
        Ok(())
    }

    async fn report(
        &self,
        nodes: &Api<Node>,
        old: &Node,
        (now, left, images): (Timestamp, Left, Option<Value>),
    ) -> anyhow::Result<Reported> {
        let mut status = self.status(old, left, now);
        if let (Some(status), Some(images)) = (status.as_object_mut(), images) {
            status.insert("images".to_owned(), images);
        }
        let patch = Patch::Merge(json!({ "status": status }));
        let name = &self.machine.name;
        let node = nodes.patch_status(name, &PatchParams::default(), &patch).await;
        Ok(Reported { node: node.context("write node status")?, at: Instant::now() })
    }

    async fn create(&self, nodes: &Api<Node>) -> client_result::Result<Node> {
        let node: Node = serde_json::from_value(self.object()).map_err(client_result::malformed)?;
        match nodes.create(&PostParams::default(), &node).await {
            Err(error) if client::is_already_exists(&error) => {
                let old = nodes.get(&self.machine.name).await?;
                let own = json!({ "labels": self.labels(), "annotations": self.annotations() });
                // Once set, ranges stay: a Node that an older version made has none of IPv6 there.
                let has = old.spec.is_some_and(|it| it.pod_cidrs.is_some());
                let spec = if has { json!({}) } else { self.spec() };
                let own = json!({ "metadata": own, "spec": spec });
                let params = PatchParams::default();
                nodes.patch(&self.machine.name, &params, &Patch::Merge(own)).await
            }
            other => other,
        }
    }

    fn labels(&self) -> Value {
        let architecture = self.machine.architecture;
        json!({
            "beta.kubernetes.io/arch": architecture,
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture,
            "kubernetes.io/hostname": self.machine.name,
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/region": REGION,
            "topology.kubernetes.io/zone": zone(self.index),
        })
    }

    fn spec(&self) -> Value {
        json!({ "podCIDR": self.pod_cidrs.first(), "podCIDRs": self.pod_cidrs })
    }

    fn annotations(&self) -> Value {
        json!({ api::annotation::CGROUPS: self.cgroups, api::annotation::ROOTS: self.roots })
    }

    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.machine.name,
                "labels": self.labels(),
                "annotations": self.annotations(),
            },
            "spec": self.spec(),
        })
    }

    fn status(&self, old: &Node, left: Left, now: Timestamp) -> Value {
        let machine = self.machine.share(self.division.borrow().nodes);
        let resources = json!({
            "cpu": quantity_of_cpu(machine.cpu_millis),
            "memory": format!("{}Ki", machine.memory_bytes / 1024),
            "ephemeral-storage": format!("{}Ki", machine.storage_bytes / 1024),
            "pods": PODS_MAX.min(self.addresses).to_string(),
        });
        json!({
            "addresses": [
                { "type": "InternalIP", "address": self.address.to_string() },
                { "type": "Hostname", "address": machine.name },
            ],
            "capacity": resources,
            "allocatable": resources,
            "conditions": conditions(old, left, now),
            "nodeInfo": {
                "architecture": machine.architecture,
                "bootID": machine.boot_id,
                "containerRuntimeVersion": format!("coracle://{}", self.version),
                "kernelVersion": machine.kernel,
                "kubeProxyVersion": "",
                "kubeletVersion": self.kubelet_version,
                "machineID": machine.machine_id,
                "operatingSystem": "linux",
                "osImage": machine.os_image,
                "systemUUID": machine.machine_id,
            },
        })
    }

    async fn renew(
        &self,
        client: &Client,
        now: Timestamp,
        node: &Node,
    ) -> client_result::Result<()> {
        let leases: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
        let name = &self.machine.name;
        let spec = json!({
            "holderIdentity": name,
            "leaseDurationSeconds": self.lease().as_secs().max(1),
            "renewTime": MicroTime(now),
        });
        let patch = Patch::Merge(json!({ "spec": spec }));
        match leases.patch(name, &PatchParams::default(), &patch).await {
            Err(error) if client::is_not_found(&error) => {}
            other => return other.map(drop),
        }
        let uid = node.metadata.uid.as_deref().unwrap_or_default();
        let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": name, "uid": uid });
        let lease = serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner] },
            "spec": spec,
        }));
        let lease: Lease = lease.map_err(client_result::malformed)?;
        leases.create(&PostParams::default(), &lease).await.map(drop)
    }
}

/// The client's results, and an object of ours that its types do not take.
mod client_result {
    pub(super) type Result<T> = std::result::Result<T, client::Error>;

    pub(super) fn malformed(error: serde_json::Error) -> client::Error {
        client::Error::SerdeError(error)
    }
}

fn quantity_of_cpu(millis: u64) -> String {
    if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

/// Where a node is.
fn zone(index: u32) -> &'static str {
    let place = usize::try_from(index).unwrap_or_default().checked_rem(ZONES.len());
    place.and_then(|it| ZONES.get(it)).copied().unwrap_or_default()
}

/// Whether the conditions that a node was said to have are still true.
fn says(node: &Node, left: Left) -> bool {
    let said = node.status.as_ref().and_then(|it| it.conditions.as_deref()).unwrap_or_default();
    let holds = |it: &NodeCondition| {
        said.iter().any(|said| said.type_ == it.type_ && said.status == it.status)
    };
    present(left).iter().all(holds)
}

fn conditions(old: &Node, left: Left, now: Timestamp) -> [NodeCondition; 4] {
    let before = old.status.as_ref().and_then(|it| it.conditions.as_deref()).unwrap_or_default();
    present(left).map(|it| {
        let same = before.iter().find(|old| old.type_ == it.type_ && old.status == it.status);
        let since = same.and_then(|it| it.last_transition_time.clone()).unwrap_or(Time(now));
        let (beat, since) = (Some(Time(now)), Some(since));
        NodeCondition { last_heartbeat_time: beat, last_transition_time: since, ..it }
    })
}

/// The conditions, without times.
fn present(left: Left) -> [NodeCondition; 4] {
    [
        condition(
            "MemoryPressure",
            left.memory_bytes < MEMORY_LEFT_MIN,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        condition(
            "DiskPressure",
            left.storage_bytes < STORAGE_LEFT_MIN,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        condition(
            "PIDPressure",
            left.processes < PROCESSES_LEFT_MIN,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        condition("Ready", true, ("KubeletReady", "kubelet is posting ready status"), ("", "")),
    ]
}

fn condition(kind: &str, holds: bool, yes: (&str, &str), no: (&str, &str)) -> NodeCondition {
    let (reason, message) = if holds { yes } else { no };
    NodeCondition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..NodeCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(node: &Node) -> String {
        let conditions = node.status.as_ref().unwrap().conditions.as_ref().unwrap().iter();
        let line = |time: &Option<Time>| time.as_ref().unwrap().0.as_second();
        conditions
            .map(|it| {
                let (beat, since) = (line(&it.last_heartbeat_time), line(&it.last_transition_time));
                format!(
                    "{}={} {} {beat} {since}\n",
                    it.type_,
                    it.status,
                    it.reason.clone().unwrap()
                )
            })
            .collect()
    }

    #[test]
    fn status_tells_the_machine_and_keeps_transitions() {
        let registration = Registration {
            machine: Machine {
                name: "ship".to_owned(),
                cpu_millis: 2000,
                memory_bytes: 8 << 30,
                storage_bytes: 100 << 30,
                kernel: "6.18.0".to_owned(),
                os_image: "Debian".to_owned(),
                architecture: "amd64",
                machine_id: "m".to_owned(),
                boot_id: "b".to_owned(),
            },
            index: 1,
            pod_cidrs: ["10.244.16.0/20", "fd12:3456:789a::af4:1000/116"].map(str::to_owned).into(),
            addresses: 4092,
            division: watch::Sender::new(Division { nodes: 2, lease: None }).subscribe(),
            address: Ipv4Addr::new(10, 244, 16, 1),
            version: "0.1.0".to_owned(),
            kubelet_version: "v1.36.0".to_owned(),
            state: PathBuf::new(),
            cgroups: String::new(),
            roots: String::new(),
        };
        let left = |memory_bytes| Left { memory_bytes, storage_bytes: 50 << 30, processes: 9999 };
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let of = |old: &Node, left, now| -> Node {
            let mut object = registration.object();
            object["status"] = registration.status(old, left, at(now));
            serde_json::from_value(object).unwrap()
        };
        let first = of(&Node::default(), left(1 << 30), 1);
        let second = of(&first, left(1), 300);
        expect_test::expect![[r#"
            MemoryPressure=True KubeletHasInsufficientMemory 300 300
            DiskPressure=False KubeletHasNoDiskPressure 300 1
            PIDPressure=False KubeletHasSufficientPID 300 1
            Ready=True KubeletReady 300 1
        "#]]
        .assert_eq(&seen(&second));
        let capacity = first.status.unwrap().capacity.unwrap();
        let capacity: Vec<String> =
            capacity.iter().map(|(name, it)| format!("{name}={}", it.0)).collect();
        assert_eq!(
            capacity,
            ["cpu=1", "ephemeral-storage=52428800Ki", "memory=4194304Ki", "pods=1000"]
        );
        assert_eq!(first.metadata.labels.unwrap()["topology.kubernetes.io/zone"], "zone-b");
        let spec = first.spec.unwrap();
        assert_eq!(spec.pod_cidr.unwrap(), "10.244.16.0/20");
        assert_eq!(spec.pod_cidrs.unwrap(), ["10.244.16.0/20", "fd12:3456:789a::af4:1000/116"]);
    }
}
