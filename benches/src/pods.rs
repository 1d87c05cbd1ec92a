//! From the request that creates a pod of linked source to the event that says it runs; and what
//! a pod that does nothing costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{Method, StatusCode, body::Incoming};
use runtime::Tasks;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    cluster::Cluster,
    http::{Connection, Endpoint},
    processes::{self, Memory, Process, Role},
    report::{Aim, Figure, Samples},
};

pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
const LINKS: &str = "/api/v1/namespaces/kube-system/configmaps";
const IMAGE: &str = "bench/idle";

/// In place of a phase.
const GONE: &str = "gone";

/// Longest wait for one pod.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `count` pods, one after another, and looks at them when all are there.
pub(crate) async fn measure(
    cluster: &Cluster,
    endpoint: &Endpoint,
    count: usize,
    tasks: &Tasks,
) -> anyhow::Result<Vec<Figure>> {
    let mut connection = endpoint.connect(tasks).await?;
    link(&mut connection).await.context("link the image")?;
    service_account(&mut connection).await?;
    let before = processes::memory(&cluster.processes()?)?;
    let mut events = Events::open(endpoint, tasks).await?;
    let mut samples = Vec::new();
    for number in 0..count {
        let name = format!("idle-{number}");
        let start = Instant::now();
        connection.succeed(Method::POST, PODS, pod(&name)).await?;
        let runs = tokio::time::timeout(PATIENCE, events.running(&name)).await;
        runs.with_context(|| format!("pod `{name}` does not run"))??;
        samples.push(start.elapsed());
    }
    let samples = Samples::new(samples);
    let mut figures = vec![
        Figure::time("created to running, p50", samples.percentile(50)).aim(Aim::AtMost(5.0)),
        Figure::time("created to running, p99", samples.percentile(99)),
    ];
    figures.extend(memory(&cluster.processes()?, before, count)?);
    Ok(figures)
}

fn memory(processes: &[Process], before: Memory, pods: usize) -> anyhow::Result<Vec<Figure>> {
    let shims: Vec<_> = processes.iter().filter(|it| it.role == Role::Shim).collect();
    ensure!(shims.len() >= pods, "{} shims for {pods} pods", shims.len());
    let each = |sum: u64| sum as f64 / pods.max(1) as f64;
    let after = processes::memory(processes)?;
    let shims = processes::memory(shims)?;
    let grown = after.private_dirty.saturating_sub(before.private_dirty);
    Ok(vec![
        Figure::new("private dirty of a shim", each(shims.private_dirty), "KiB"),
        Figure::new("private dirty of all processes, a pod", each(grown), "KiB"),
        Figure::new("proportional of a shim", each(shims.proportional), "KiB"),
    ])
}

/// Lets a program of the machine stand in for the image.
async fn link(connection: &mut Connection) -> anyhow::Result<()> {
    let link = json!({ "image": IMAGE, "directory": "/", "run": ["sleep", "infinity"] });
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "coracle-links", "namespace": "kube-system" },
        "data": { "bench-idle": link.to_string() },
    });
    let body = Bytes::from(object.to_string());
    let (status, _) = connection.call(Method::POST, LINKS, body.clone()).await?;
    if status == StatusCode::CONFLICT {
        let path = format!("{LINKS}/coracle-links");
        connection.succeed(Method::PATCH, &path, body).await?;
        return Ok(());
    }
    ensure!(status.is_success(), "{status}");
    Ok(())
}

/// Waits until pods can be created at all: they need the account of their namespace.
pub(crate) async fn service_account(connection: &mut Connection) -> anyhow::Result<()> {
    let path = "/api/v1/namespaces/default/serviceaccounts/default";
    let there = async {
        while connection.get(path).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.context("there is no default service account")
}

fn pod(name: &str) -> Bytes {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "idle", "image": IMAGE }],
        },
    });
    Bytes::from(object.to_string())
}

/// A watch of the pods: one JSON document a line.
pub(crate) struct Events {
    body: Incoming,
    buffer: BytesMut,
    /// The last phase of each pod.
    phases: BTreeMap<String, String>,
    /// Those whose condition says so.
    ready: BTreeSet<String>,
}

impl Events {
    pub(crate) async fn open(endpoint: &Endpoint, tasks: &Tasks) -> anyhow::Result<Self> {
        let mut connection = endpoint.connect(tasks).await?;
        let answer = connection
            .send(
                Method::GET,
                &format!("{PODS}?watch=1"),
                ("application/json", "application/json"),
                Bytes::new(),
            )
            .await?;
        ensure!(answer.status().is_success(), "watch of pods: {}", answer.status());
        let (buffer, phases, ready) = Default::default();
        Ok(Self { body: answer.into_body(), buffer, phases, ready })
    }

    /// Waits until a pod runs.
    pub(crate) async fn running(&mut self, name: &str) -> anyhow::Result<()> {
        self.until(|it| it.is_in(name, "Running")).await
    }

    /// Waits until a pod is ready.
    pub(crate) async fn ready(&mut self, name: &str) -> anyhow::Result<()> {
        self.until(|it| it.ready.contains(name)).await
    }

    /// Waits until a pod is gone.
    pub(crate) async fn gone(&mut self, name: &str) -> anyhow::Result<()> {
        self.until(|it| it.is_in(name, GONE)).await
    }

    fn is_in(&self, name: &str, phase: &str) -> bool {
        self.phases.get(name).map(String::as_str) == Some(phase)
    }

    async fn until(&mut self, is_so: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        while !is_so(self) {
            let frame = self.body.frame().await.context("the watch has ended")??;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
            while let Some(end) = self.buffer.iter().position(|it| *it == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                self.note(&serde_json::from_slice(&line)?);
            }
        }
        Ok(())
    }

    fn note(&mut self, event: &Value) {
        let text = |path| event.pointer(path).and_then(Value::as_str).map(str::to_owned);
        if let (Some(name), Some(phase)) =
            (text("/object/metadata/name"), text("/object/status/phase"))
        {
            let gone = text("/type").as_deref() == Some("DELETED");
            let conditions = event.pointer("/object/status/conditions").and_then(Value::as_array);
            if conditions
                .into_iter()
                .flatten()
                .any(|it| it["type"] == "Ready" && it["status"] == "True")
            {
                self.ready.insert(name.clone());
            } else {
                self.ready.remove(&name);
            }
            self.phases.insert(name, if gone { GONE.to_owned() } else { phase });
        }
    }
}
