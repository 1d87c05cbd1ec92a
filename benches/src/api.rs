//! What clients of a full cluster wait for: lists, tables, events, applies, snapshots, and its end while
//! somebody watches. Over TLS, HTTP/1.1, the clients in this process.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Method, body::Incoming};
use runtime::Tasks;
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    cluster::Cluster,
    http::{Connection, Endpoint},
    processes::Process,
    report::{Aim, Figure, Samples},
};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Objects when a snapshot is taken, and when they are listed.
const SNAPSHOT_OBJECTS: usize = 10_000;
const LIST_OBJECTS: usize = 14_000;
/// Pods of a table.
const TABLE_PODS: usize = 10_000;
/// Objects that are applied, one after the other.
const APPLIED: usize = 1_000;
/// Connections that fill the cluster.
const WRITERS: usize = 16;
/// How often a thing is done that takes milliseconds.
const ROUNDS: usize = 30;
/// Writes whose event is waited for: by one watcher, and by many.
const WRITES: usize = 500;
const WRITES_TO_MANY: usize = 50;
const WATCHERS: usize = 1_000;
const WATCHERS_AT_THE_END: usize = 100;
/// Longest wait for an event.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a cluster, fills it, and stops it.
pub(crate) async fn measure(coracle: &Path, tasks: &Tasks) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::new(coracle)?;
    cluster.up(tasks).await?;
    let figures = filled(&cluster, tasks).await?;
    cluster.delete().await?;
    Ok(figures)
}

async fn filled(cluster: &Cluster, tasks: &Tasks) -> anyhow::Result<Vec<Figure>> {
    let endpoint = Endpoint::new(&cluster.kubeconfig())?;
    let servers = cluster.servers()?;
    let mut connection = endpoint.connect(tasks).await?;
    let mut figures = Vec::new();

    let before = resident(&servers)?;
    fill(&endpoint, tasks, CONFIG_MAPS, 0..SNAPSHOT_OBJECTS, config_map).await?;
    let grown = resident(&servers)?.saturating_sub(before) * 1024;
    let listed = connection.succeed(Method::GET, CONFIG_MAPS, Bytes::new()).await?;
    let more =
        grown as f64 / SNAPSHOT_OBJECTS as f64 - listed.len() as f64 / SNAPSHOT_OBJECTS as f64;
    figures.push(
        Figure::new("memory of an object over its JSON", more / 1e3, "kB").aim(Aim::AtMost(3.0)),
    );
    let took = timed(&mut connection, "/snapshot", JSON).await?;
    figures.push(p50("snapshot of 10 000 objects", &took, 10.0));

    fill(&endpoint, tasks, CONFIG_MAPS, SNAPSHOT_OBJECTS..LIST_OBJECTS, config_map).await?;
    let took = timed(&mut connection, CONFIG_MAPS, JSON).await?;
    figures.push(p50("list of 14 000 ConfigMaps", &took, 15.0));
    fill(&endpoint, tasks, PODS, 0..TABLE_PODS, pod).await?;
    let took = timed(&mut connection, PODS, TABLE).await?;
    figures.push(p50("10 000 pods as a Table", &took, 25.0));

    figures.extend(applies(&mut connection).await?);
    figures.extend(events(&endpoint, tasks, &mut connection).await?);
    figures.push(end(cluster, &endpoint, tasks, &mut connection).await?);
    Ok(figures)
}

fn p50(what: &str, took: &Samples, aim: f64) -> Figure {
    Figure::time(format!("{what}, p50 of {ROUNDS}"), took.percentile(50)).aim(Aim::AtMost(aim))
}

fn resident(servers: &[Process]) -> anyhow::Result<u64> {
    servers.iter().map(|it| Ok(it.memory()?.resident)).sum()
}

fn config_map(number: usize) -> String {
    let name = format!("api-{number:06}");
    json!({"metadata": {"name": name}, "data": {"text": "x".repeat(100)}}).to_string()
}

/// A pod that nobody schedules.
fn pod(number: usize) -> String {
    json!({
        "metadata": {"name": format!("api-{number:06}"), "labels": {"app": "api"}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [{"name": "main", "image": "example/main:1", "env": [{"name": "A", "value": "b"}]}],
        },
    })
    .to_string()
}

/// Creates objects, several at once.
async fn fill(
    endpoint: &Endpoint,
    tasks: &Tasks,
    path: &str,
    numbers: std::ops::Range<usize>,
    object: fn(usize) -> String,
) -> anyhow::Result<()> {
    let writers = (0..WRITERS).map(|writer| {
        let own = numbers.clone().skip(writer).step_by(WRITERS);
        async move {
            let mut connection = endpoint.connect(tasks).await?;
            for number in own {
                connection.succeed(Method::POST, path, object(number).into()).await?;
            }
            anyhow::Ok(())
        }
    });
    futures_util::future::try_join_all(writers).await.context("fill the cluster").map(drop)
}

/// How long a whole answer takes, again and again.
async fn timed(connection: &mut Connection, path: &str, accept: &str) -> anyhow::Result<Samples> {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let answer = connection.send(Method::GET, path, (JSON, accept), Bytes::new()).await?;
        if !answer.status().is_success() {
            bail!("GET {path}: {}", answer.status());
        }
        answer.into_body().collect().await?;
        took.push(begun.elapsed());
    }
    Ok(Samples::new(took))
}

/// Server-side apply of new objects, and of the same again.
async fn applies(connection: &mut Connection) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for what in ["apply of 1 000 new objects", "the same again, unchanged"] {
        let begun = Instant::now();
        for number in 0..APPLIED {
            let name = format!("applied-{number:04}");
            let body = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "labels": {"app": "api"}},
                "data": {"one": "1", "two": "2"},
            });
            let path = format!("{CONFIG_MAPS}/{name}?fieldManager=bench");
            let types = (APPLY, JSON);
            let answer =
                connection.send(Method::PATCH, &path, types, body.to_string().into()).await?;
            if !answer.status().is_success() {
                bail!("apply {name}: {}", answer.status());
            }
            answer.into_body().collect().await?;
        }
        figures.push(Figure::time(what, begun.elapsed()));
    }
    Ok(figures)
}

/// From the answer to a write to its event at the watchers.
async fn events(
    endpoint: &Endpoint,
    tasks: &Tasks,
    connection: &mut Connection,
) -> anyhow::Result<Vec<Figure>> {
    let one = delays(endpoint, tasks, connection, 1, WRITES).await?;
    let many = delays(endpoint, tasks, connection, WATCHERS, WRITES_TO_MANY).await?;
    Ok(vec![
        Figure::time("write answered to its event, p50", one.percentile(50)).aim(Aim::AtMost(0.1)),
        Figure::time("write answered to its event, p99", one.percentile(99)).aim(Aim::AtMost(0.5)),
        Figure::time("write answered to its event at the last of 1 000, p50", many.percentile(50))
            .aim(Aim::AtMost(5.0)),
        Figure::time("write answered to its event at the last of 1 000, p99", many.percentile(99)),
    ])
}

/// Writes one after the other; how long after the answer to each the last watcher has its event. One
/// that comes before the answer counts as none.
async fn delays(
    endpoint: &Endpoint,
    tasks: &Tasks,
    connection: &mut Connection,
    watchers: usize,
    writes: usize,
) -> anyhow::Result<Samples> {
    let path = format!("{CONFIG_MAPS}/watched");
    let (status, answer) = connection
        .call(
            Method::POST,
            CONFIG_MAPS,
            json!({"metadata": {"name": "watched"}}).to_string().into(),
        )
        .await?;
    if !status.is_success() && status != hyper::StatusCode::CONFLICT {
        bail!("create `watched`: {}", String::from_utf8_lossy(&answer));
    }
    let watched = watch_from_now(connection).await?;
    let (seen, mut events) = mpsc::channel(watchers);
    let watching = tasks.component();
    let mut open = Vec::new();
    for _ in 0..watchers {
        open.push(watch(endpoint, &watching, &watched, seen.clone()).await?);
    }
    let mut took = Vec::new();
    for number in 0..writes {
        let body = json!({"data": {"number": number.to_string()}}).to_string();
        let answer = connection.send(Method::PATCH, &path, (MERGE, JSON), body.into()).await?;
        let answered = Instant::now();
        answer.into_body().collect().await?;
        let mut last = answered;
        for _ in 0..watchers {
            let at = tokio::time::timeout(PATIENCE, events.recv()).await.context("no event")?;
            last = last.max(at.context("the watchers have ended")?);
        }
        took.push(last.duration_since(answered));
    }
    watching.shutdown(PATIENCE).await;
    Ok(Samples::new(took))
}

/// The path of a watch of the object that is written, from what it is now.
async fn watch_from_now(connection: &mut Connection) -> anyhow::Result<String> {
    let object = connection.get(&format!("{CONFIG_MAPS}/watched")).await?;
    let version = object.pointer("/metadata/resourceVersion").and_then(|it| it.as_str());
    let version = version.context("no resourceVersion")?;
    Ok(format!(
        "{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name=watched&resourceVersion={version}"
    ))
}

/// Begins a watch, which is read from here on.
async fn watch(
    endpoint: &Endpoint,
    tasks: &Tasks,
    path: &str,
    seen: mpsc::Sender<Instant>,
) -> anyhow::Result<Connection> {
    let mut own = endpoint.connect(tasks).await?;
    let answer = own.send(Method::GET, path, (JSON, JSON), Bytes::new()).await?;
    tasks.spawn("watcher", runtime::OnExit::Log, |stop| async move {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            done = follow(answer.into_body(), seen) => done,
        }
    });
    Ok(own)
}

/// Says when each event of a watch came.
async fn follow(mut body: Incoming, seen: mpsc::Sender<Instant>) -> anyhow::Result<()> {
    while let Some(frame) = body.frame().await {
        let at = Instant::now();
        let frame = frame?;
        for _ in frame.data_ref().into_iter().flatten().filter(|it| **it == b'\n') {
            if seen.send(at).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// `down` while a hundred watch, and read what comes.
async fn end(
    cluster: &Cluster,
    endpoint: &Endpoint,
    tasks: &Tasks,
    connection: &mut Connection,
) -> anyhow::Result<Figure> {
    let path = watch_from_now(connection).await?;
    let (seen, _nobody) = mpsc::channel(1);
    let mut open = Vec::new();
    for _ in 0..WATCHERS_AT_THE_END {
        open.push(watch(endpoint, tasks, &path, seen.clone()).await?);
    }
    let begun = Instant::now();
    cluster.down().await?;
    let took = begun.elapsed();
    drop(open);
    Ok(Figure::time("down with 100 watches open", took).aim(Aim::AtMost(50.0)))
}
