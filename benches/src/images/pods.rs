//! Ours: from the request that creates a pod to the event that says it runs, from the request that deletes
//! it to nothing of it being left, a hundred at once, and what two hundred cost.

use bytes::Bytes;
use hyper::Method;
use runtime::Tasks;
use serde_json::Value;
use tokio::time::Instant;

use anyhow::Context as _;

use super::{CROWD, HEEDS, IDLE, pod, traces::Traces, within};
use crate::{
    cluster::Cluster,
    http::{Connection, Endpoint},
    pods::{Events, PODS},
    processes::{self, KernelMemory, Role},
    report::{Aim, Figure, Samples},
};

/// A pod that ends at once when SIGTERM comes has Kubernetes' default; one that would not, none.
struct Kind {
    what: &'static str,
    image: &'static str,
    grace: Option<u32>,
    /// With its shim. When the last of them is there, the program is ready for SIGTERM.
    processes: usize,
}

const KINDS: [Kind; 2] = [
    Kind { what: "without a grace period", image: IDLE, grace: Some(0), processes: 2 },
    Kind { what: "heeding SIGTERM", image: HEEDS, grace: None, processes: 3 },
];

pub(super) async fn measure(
    cluster: &Cluster,
    connection: &mut Connection,
    endpoint: &Endpoint,
    count: usize,
    tasks: &Tasks,
) -> anyhow::Result<Vec<Figure>> {
    let mut events = Events::open(endpoint, tasks).await?;
    let mut figures = Vec::new();
    for kind in KINDS {
        figures.extend(one_by_one(cluster, connection, &mut events, &kind, count).await?);
    }
    let before = Memory::now(cluster)?;
    let start = Instant::now();
    create(connection, 0..CROWD).await?;
    ready(&mut events, 0..CROWD).await?;
    let label = format!("{CROWD} created to all ready");
    figures.push(Figure::time(label, start.elapsed()).aim(Aim::AtMost(1500.0)));
    create(connection, CROWD..2 * CROWD).await?;
    ready(&mut events, CROWD..2 * CROWD).await?;
    figures.extend(Memory::now(cluster)?.since(&before, 2 * CROWD));
    let start = Instant::now();
    for number in 0..2 * CROWD {
        delete(connection, &crowd(number)).await?;
    }
    for number in 0..2 * CROWD {
        within(events.gone(&crowd(number))).await?;
    }
    let label = format!("{} deleted to all objects gone", 2 * CROWD);
    figures.push(Figure::time(label, start.elapsed()));
    Ok(figures)
}

async fn one_by_one(
    cluster: &Cluster,
    connection: &mut Connection,
    events: &mut Events,
    kind: &Kind,
    count: usize,
) -> anyhow::Result<Vec<Figure>> {
    let Kind { what, image, grace, processes } = kind;
    let stem = image.split(['/', ':']).nth(2).unwrap_or_default();
    let folders = cluster.folders();
    let folders: Vec<_> = folders.iter().map(std::path::PathBuf::as_path).collect();
    let servers = cluster.servers()?;
    let server = servers.first().context("no cluster process is found")?.id();
    let (mut started, mut objects, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..=count {
        let name = format!("{stem}-{number}");
        let start = Instant::now();
        connection.succeed(Method::POST, PODS, pod(&name, image, *grace)).await?;
        within(events.running(&name)).await?;
        let running = start.elapsed();
        let found = connection.get(&format!("{PODS}/{name}")).await?;
        let uid = found.pointer("/metadata/uid").and_then(Value::as_str).context("a uid")?;
        let traces = within(Traces::find(uid, *processes, &folders, server)).await?;
        let start = Instant::now();
        delete(connection, &name).await?;
        within(events.gone(&name)).await?;
        let object = start.elapsed();
        within(traces.gone()).await?;
        let all = start.elapsed();
        // The first has the image unpacked.
        if number != 0 {
            started.push(running);
            objects.push(object);
            gone.push(all);
        }
    }
    let [started, objects, gone] = [started, objects, gone].map(Samples::new);
    let figure = |it: &str, samples: &Samples, percent| {
        let label = format!("{it}, p{percent}");
        Figure::time(label, samples.percentile(percent))
    };
    let running = format!("created to running, {stem}");
    let object = format!("deleted to object gone, {what}");
    let all = format!("deleted to all of it gone, {what}");
    Ok(vec![
        figure(&running, &started, 50).aim(Aim::AtMost(20.0)),
        figure(&running, &started, 99),
        figure(&object, &objects, 50),
        figure(&object, &objects, 99),
        figure(&all, &gone, 50).aim(Aim::AtMost(10.0)),
        figure(&all, &gone, 99),
    ])
}

/// The name of a pod of the crowd.
pub(super) fn crowd(number: usize) -> String {
    format!("crowd-{number}")
}

pub(super) async fn create(
    connection: &mut Connection,
    numbers: std::ops::Range<usize>,
) -> anyhow::Result<()> {
    for number in numbers {
        connection.succeed(Method::POST, PODS, pod(&crowd(number), IDLE, Some(0))).await?;
    }
    Ok(())
}

pub(super) async fn ready(
    events: &mut Events,
    numbers: std::ops::Range<usize>,
) -> anyhow::Result<()> {
    for number in numbers {
        let name = crowd(number);
        within(events.ready(&name)).await.with_context(|| format!("pod `{name}`"))?;
    }
    Ok(())
}

pub(super) async fn delete(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    connection.succeed(Method::DELETE, &format!("{PODS}/{name}"), Bytes::new()).await.map(drop)
}

/// What pods take, of processes and of the kernel.
pub(super) struct Memory {
    /// The cluster's own processes, without shims.
    own: u64,
    /// Shims and what they run.
    pods: u64,
    kernel: KernelMemory,
}

impl Memory {
    pub(super) fn now(cluster: &Cluster) -> anyhow::Result<Self> {
        let all = cluster.processes()?;
        let (shims, own): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.role == Role::Shim);
        let programs = processes::children(&shims);
        let pods = processes::memory(shims.iter().chain(&programs))?.proportional;
        let own = processes::memory(&own)?.proportional;
        Ok(Self { own, pods, kernel: KernelMemory::now()? })
    }

    pub(super) fn since(&self, before: &Self, count: usize) -> Vec<Figure> {
        let each = |now: u64, before: u64| (now as f64 - before as f64) / count as f64;
        let own = each(self.own, before.own);
        let mut figures = vec![
            Figure::new("idle pod: shim and program, PSS", each(self.pods, before.pods), "KiB"),
            Figure::new("idle pod: the cluster's own processes, PSS", own, "KiB"),
        ];
        figures.extend(self.kernel.since(&before.kernel, "idle pod", count));
        figures
    }
}
