//! Faults on purpose, as a pod sees them that asks another one.

use std::process::Stdio;

use anyhow::{Context as _, ensure};

use crate::{
    cluster::{Cluster, eventually},
    host::kill,
    run::{pod, server},
};

const WEB: &str = "http://web.default.svc.cluster.local/";

/// Waits until the last that the client has said is this.
fn until(cluster: &Cluster, said: &str) -> anyhow::Result<()> {
    eventually(&format!("the client says {said}"), || {
        let log = cluster.kubectl(&["logs", "client"])?;
        Ok(log.lines().last().is_some_and(|it| it.starts_with(said)))
    })
}

pub(crate) fn faults_come_and_go() -> anyhow::Result<()> {
    let cluster = Cluster::running("chaos", &server("web", 1))?;
    cluster.apply(&pod("client", &["watch", WEB]))?;
    until(&cluster, "reached")?;
    // A fault outlives the cluster process, and is undone by the next one.
    cluster.coracle(&["chaos", "pause", "deployment/web", "--as", "freeze", "--detach"])?;
    until(&cluster, "missed")?;
    kill(cluster.pid()?)?;
    eventually("the cluster process is gone", || {
        Ok(cluster.status()?.get("running") == Some(&false.into()))
    })?;
    cluster.up()?;
    let listed = cluster.coracle(&["chaos", "list"])?;
    ensure!(listed.contains("freeze") && listed.contains("Active"), "{listed}");
    until(&cluster, "missed")?;
    cluster.coracle(&["chaos", "stop", "freeze"])?;
    until(&cluster, "reached")?;
    // It does not outlive who asked for it.
    let mut asker = cluster
        .command(&["chaos", "pause", "deployment/web", "--as", "held"])?
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start `coracle chaos`")?;
    until(&cluster, "missed")?;
    asker.kill()?;
    asker.wait()?;
    until(&cluster, "reached")?;
    let partition = ["chaos", "partition", "deployment/web", "--from", "pod/client"];
    cluster.coracle(&[&partition[..], &["--as", "split", "--detach"]].concat())?;
    until(&cluster, "missed")?;
    cluster.kubectl(&["delete", "fault", "split"])?;
    until(&cluster, "reached")?;
    cluster.coracle(&["chaos", "kill", "deployment/web"])?;
    eventually("the container was started again", || {
        let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
        Ok(cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", restarts])? == "1")
    })?;
    until(&cluster, "reached")
}
