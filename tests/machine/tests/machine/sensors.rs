//! The examples from images: what their Dockerfiles build runs by the manifests that are linked otherwise.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    cluster::{Cluster, debian_systems, eventually, examples, program},
    programs::ask,
    run::free_port,
};

/// The services of each example.
const SERVICES: [&str; 3] = ["sensor", "worker", "app"];

/// The image that stands for a base that a registry has.
const BASE: &str = "localhost/alpine:3";

/// Builds the three images of an example, as its README does.
fn build(
    cluster: &Cluster,
    example: &str,
    project: &str,
    arguments: &[&str],
) -> anyhow::Result<PathBuf> {
    let folder = examples()?.join(example);
    let context = folder.display().to_string();
    for service in SERVICES {
        let program = format!("PROGRAM={service}");
        let tag = format!("{project}/{service}:1.0.0");
        let build = ["image", "build", "--build-arg", &program, "--tag", &tag, &context];
        cluster.coracle(&[&build, arguments].concat())?;
    }
    Ok(folder)
}

/// The manifests of an example with its links, which nothing builds here, and a port that is published
/// elsewhere.
fn copy(cluster: &Cluster, folder: &Path, from: u16, to: u16) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "yaml") {
            let text = fs::read_to_string(&path)?;
            let name = path.file_name().and_then(|it| it.to_str()).context("the name of a file")?;
            let (from, to) = (format!("hostPort: {from} "), format!("hostPort: {to} "));
            cluster.write(name, &text.replace(&from, &to))?;
        }
    }
    Ok(())
}

/// Every container runs an image.
fn images_run(cluster: &Cluster, pods: usize) -> anyhow::Result<()> {
    let listed = cluster.kubectl(&["get", "pods", "--output", "json"])?;
    let listed: Value = serde_json::from_str(&listed).context("pods as JSON")?;
    let items = listed.get("items").and_then(Value::as_array).context("a list of pods")?;
    ensure!(items.len() == pods, "{} pods in place of {pods}", items.len());
    for pod in items {
        let id = pod.pointer("/status/containerStatuses/0/imageID").and_then(Value::as_str);
        ensure!(id.is_some_and(|it| it.starts_with("sha256:")), "no image: {pod:#}");
    }
    Ok(())
}

/// The JSON that a port of this machine answers with.
fn value(port: u16, path: &str) -> anyhow::Result<Value> {
    let answer = ask(port, path)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, text) = answer.split_once("\r\n\r\n").context("an answer")?;
    serde_json::from_str(text).with_context(|| format!("JSON in {answer}"))
}

/// Images that have nothing but their program.
pub(crate) fn sensors_run_from_images() -> anyhow::Result<()> {
    let cluster = Cluster::new("sensor-images")?;
    let folder = build(&cluster, "1-http", "sensors", &[])?;
    let port = free_port()?;
    copy(&cluster, &folder, 9001, port)?;
    let work = cluster.work().display().to_string();
    cluster.coracle(&["up", "--detach", "--no-links", &work])?;
    let values = value(port, "/")?;
    ensure!(values.as_array().is_some_and(|it| it.len() == 3), "{values}");
    eventually("the app has a result", || {
        Ok(cluster.logs("deployment/app")?.contains("Cycle result"))
    })?;
    images_run(&cluster, 3)
}

/// Images on a base with a shell; the queue is this very `coracle`.
pub(crate) fn sensors_run_from_images_by_a_queue() -> anyhow::Result<()> {
    let cluster = Cluster::new("queue-images")?;
    let base = cluster.work().join("base/bin");
    fs::create_dir_all(&base)?;
    let busybox = debian_systems()?.join("busybox/bin/busybox");
    fs::copy(&busybox, base.join("busybox")).context("copy busybox")?;
    symlink("busybox", base.join("sh"))?;
    let root = cluster.work().join("base").display().to_string();
    cluster.coracle(&["image", "pack", &root, "--tag", BASE, "--cmd", "/bin/sh"])?;
    let argument = format!("BASE={BASE}");
    let folder = build(&cluster, "2-queue", "sensors-queue", &["--build-arg", &argument])?;
    let coracle = program("CORACLE")?.display().to_string();
    let pack = ["image", "pack", &coracle, "--tag", "nsqio/nsq:v1.3.0"];
    let entry = ["--entrypoint", "/bin/coracle", "--entrypoint", "queue"];
    cluster.coracle(&[&pack[..], &entry].concat())?;

    let port = free_port()?;
    copy(&cluster, &folder, 4151, port)?;
    fs::remove_dir_all(cluster.work().join("base"))?;
    let work = cluster.work().display().to_string();
    cluster.coracle(&["up", "--detach", "--no-links", &work])?;
    let said = |deployment: &str, prefix: &str| -> anyhow::Result<Vec<Vec<u64>>> {
        let log = cluster.logs(&format!("deployment/{deployment}"))?;
        let values = log.lines().filter_map(|it| it.strip_prefix(prefix));
        values.map(|it| serde_json::from_str(it).with_context(|| it.to_owned())).collect()
    };
    eventually("the squares of what was sent have arrived", || {
        let sent = said("sensor", "Sent values ")?;
        let arrived = said("app", "Got worker result ")?;
        let squares = |it: &Vec<u64>| it.iter().map(|it| it * it).collect::<Vec<_>>();
        Ok(!sent.is_empty() && sent.iter().all(|it| arrived.contains(&squares(it))))
    })?;
    images_run(&cluster, 6)?;
    let stats = value(port, "/stats?format=json&topic=worker_result")?;
    let channel = |field: &str| stats.pointer(&format!("/topics/0/channels/0/{field}"));
    ensure!(channel("channel_name").is_some_and(|it| it == "app"), "{stats:#}");
    ensure!(channel("client_count").is_some_and(|it| it == 1), "{stats:#}");
    // Besides its program an image has what its base has.
    let look = ["run", "look", "--image=sensors-queue/worker:1.0.0", "--restart=Never"];
    let shell = ["--command", "--", "sh", "-c", "test -x /bin/service && echo it is"];
    cluster.kubectl(&[&look[..], &shell].concat())?;
    eventually("the base's shell has run", || Ok(cluster.logs("pod/look")?.trim() == "it is"))
}
