//! Pods that run images: what a container sees, images from a registry, and what remains.
//!
//! The image is this program with the libraries that it needs, packed by `coracle image pack`.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    clean::{belongings, unchanged},
    cluster::{Cluster, eventually},
    host::{Snapshot, kill},
    run::free_port,
};

/// The image of this program.
pub(crate) const PACKED: &str = "test/packed:1";

/// Packs this program as an image of the cluster's user.
pub(crate) fn pack(cluster: &Cluster) -> anyhow::Result<()> {
    let program = std::env::current_exe()?.display().to_string();
    cluster.coracle(&["image", "pack", &program, "--tag", PACKED, "--env", "FROM=image"])?;
    Ok(())
}

/// A pod that runs the probe from an image. `fields` are further ones of the container.
pub(crate) fn pod(name: &str, image: &str, arguments: &[&str], fields: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {{fsGroup: 2000}}
  containers:
  - name: probe
    image: {image}
    args: {arguments:?}
    volumeMounts: [{{name: scratch, mountPath: /scratch, subPath: a/b}}]
    {fields}
  volumes: [{{name: scratch, emptyDir: {{}}}}]
---
"
    )
}

pub(crate) fn field(cluster: &Cluster, name: &str, path: &str) -> anyhow::Result<String> {
    let path = format!("jsonpath={{.status.containerStatuses[0].{path}}}");
    cluster.kubectl(&["get", "pod", name, "--output", &path])
}

pub(crate) fn shown(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let mut log = String::new();
    eventually("the pod has shown all", || {
        log = cluster.logs(&format!("pod/{name}"))?;
        Ok(log.contains("shown"))
    })?;
    Ok(log)
}

pub(crate) fn has(log: &str, line: &str) -> anyhow::Result<()> {
    ensure!(log.lines().any(|it| it.starts_with(line)), "no `{line}` in:\n{log}");
    Ok(())
}

/// As root of the image, and as another user with a root that it cannot write.
pub(crate) fn image_containers_see_their_image_only() -> anyhow::Result<()> {
    let cluster = Cluster::new("images")?;
    pack(&cluster)?;
    let state = cluster.state().display().to_string();
    let see = format!("env: [{{name: MASKED_STATE, value: '{state}'}}]");
    let other = "securityContext: {runAsUser: 4321, readOnlyRootFilesystem: true, \
                 capabilities: {drop: [ALL]}, allowPrivilegeEscalation: false}";
    let show: &[&str] = &["probe", "show"];
    let text = pod("plain", PACKED, show, &see) + &pod("other", PACKED, show, other);
    cluster.write("app.yaml", &text)?;
    cluster.up()?;
    let log = shown(&cluster, "plain")?;
    for line in [
        "env FROM=image",
        "env HOME=/",
        "env KUBERNETES_SERVICE_HOST=10.96.0.1",
        "directory /",
        "user 0",
        "pid 1",
        "host plain",
        "/etc/resolv.conf nameserver 10.96.0.10",
        "scratch ok",
        "MASKED_STATE Some(Err(",
        "status Seccomp:\t2",
        "status NoNewPrivs:\t0",
        "root written",
    ] {
        has(&log, line)?;
    }
    ensure!(!log.contains("env USER="), "the invoking user shows:\n{log}");
    let log = shown(&cluster, "other")?;
    for line in [
        "user 4321",
        "scratch ok",
        "status Seccomp:\t2",
        "status NoNewPrivs:\t1",
        "status CapBnd:\t0000000000000000",
        "status CapEff:\t0000000000000000",
        "root Read-only file system",
    ] {
        has(&log, line)?;
    }
    let id = field(&cluster, "plain", "imageID")?;
    ensure!(id.starts_with("sha256:"), "{id}");
    cluster.coracle(&["down", "--delete"])?;
    let store = cluster.data().join("coracle/images");
    fs::remove_dir_all(&store).with_context(|| format!("remove {}", store.display()))
}

/// The built-in registry, until it is dropped.
pub(crate) struct Registry(Child);

impl Registry {
    pub(crate) fn start(cluster: &Cluster, port: u16) -> anyhow::Result<Self> {
        let folder = cluster.data().join("registry").display().to_string();
        let listen = format!("127.0.0.1:{port}");
        let mut command =
            cluster.command(&["registry", "--listen", &listen, "--folder", &folder])?;
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let registry = Self(child);
        eventually("the registry listens", || Ok(std::net::TcpStream::connect(&listen).is_ok()))?;
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Pushed, forgotten here, and pulled by a pod; then missing, and there again.
pub(crate) fn images_come_from_a_registry_on_loopback() -> anyhow::Result<()> {
    let cluster = Cluster::new("pulls")?;
    let port = free_port()?;
    let name = format!("localhost:{port}/team/probe:1");
    pack(&cluster)?;
    cluster.coracle(&["image", "tag", PACKED, &name])?;
    let registry = Registry::start(&cluster, port)?;
    cluster.coracle(&["image", "push", &name])?;
    cluster.coracle(&["image", "rm", &name, PACKED])?;
    cluster.write("app.yaml", &pod("pulled", &name, &["probe", "show"], ""))?;
    cluster.up()?;
    shown(&cluster, "pulled")?;
    let id = field(&cluster, "pulled", "imageID")?;
    let expected = format!("localhost:{port}/team/probe@sha256:");
    ensure!(id.starts_with(&expected), "{id} does not begin with {expected}");
    let events = cluster.kubectl(&["events", "--for", "pod/pulled"])?;
    ensure!(events.contains("Successfully pulled image"), "{events}");

    drop(registry);
    let missing = format!("localhost:{port}/team/other:1");
    cluster.apply(&pod("missing", &missing, &["probe", "show"], ""))?;
    eventually("the pod says that its image does not come", || {
        let reason = field(&cluster, "missing", "state.waiting.reason")?;
        Ok(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()))
    })?;
    // Made here meanwhile: the next try finds it.
    pack(&cluster)?;
    cluster.coracle(&["image", "tag", PACKED, &missing])?;
    shown(&cluster, "missing").map(drop)
}

/// Killed without a warning, with files in containers' roots that belong to whoever made them.
pub(crate) fn nothing_of_images_is_left_after_killing_everything() -> anyhow::Result<()> {
    let before = Snapshot::take()?;
    let cluster = Cluster::new("killed-images")?;
    pack(&cluster)?;
    cluster.write("app.yaml", &pod("plain", PACKED, &["probe", "show"], ""))?;
    cluster.up()?;
    shown(&cluster, "plain")?;
    let claims = || -> anyhow::Result<usize> {
        Ok(fs::read_dir(cluster.data().join("coracle/images/claims"))?.count())
    };
    ensure!(claims()? == 1, "the pod's image is not claimed");
    kill(cluster.pid()?)?;
    for pid in belongings(&cluster)? {
        // One may take another with it.
        drop(kill(pid));
    }
    eventually("all processes are gone", || Ok(belongings(&cluster)?.is_empty()))?;
    cluster.coracle(&["down", "--delete"])?;
    ensure!(!cluster.state().exists() && !cluster.run_folder().exists(), "folders are left");
    ensure!(claims()? == 0, "an image is claimed by nobody");
    unchanged(&before)
}

/// The image stays as long as a pod needs it, whatever becomes of its name and of the cluster process.
pub(crate) fn image_of_a_pod_outlives_its_name() -> anyhow::Result<()> {
    let cluster = Cluster::new("outlives")?;
    pack(&cluster)?;
    cluster.write("app.yaml", &pod("plain", PACKED, &["probe", "show"], ""))?;
    cluster.up()?;
    shown(&cluster, "plain")?;
    kill(cluster.pid()?)?;
    cluster.coracle(&["image", "rm", PACKED])?;
    cluster.coracle(&["image", "prune", "--all"])?;
    cluster.coracle(&["up", "--detach"])?;
    let listed: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "pod", "plain", "--output", "json"])?)
            .context("a pod as JSON")?;
    let restarts = listed.pointer("/status/containerStatuses/0/restartCount");
    ensure!(restarts.and_then(Value::as_i64) == Some(0), "it was not adopted: {listed:#}");
    let upper = Command::new("ls").arg(cluster.data().join("coracle/images/layers")).output()?;
    ensure!(!upper.stdout.is_empty(), "the layers of a running container are gone");
    Ok(())
}
