//! Nothing stays behind on the host, and nothing of the host is touched.

use std::fs;

use anyhow::{Context as _, ensure};

use crate::{
    cluster::{Cluster, eventually},
    host::{Snapshot, kill, processes},
    run::{pod, server},
};

/// Everything that belongs to a cluster: its own processes, and the probes in its pods.
pub(crate) fn belongings(cluster: &Cluster) -> anyhow::Result<Vec<i32>> {
    let program = std::env::current_exe()?.display().to_string();
    let mut found = processes(&["coracle", &cluster.name])?;
    found.extend(processes(&["coracle shim", &cluster.run_folder().display().to_string()])?);
    found.extend(processes(&[&program, " probe "])?);
    Ok(found.into_iter().map(|it| it.pid).collect())
}

pub(crate) fn unchanged(before: &Snapshot) -> anyhow::Result<()> {
    // The kernel takes namespaces down in its own time.
    eventually("the host is as before", || Ok(Snapshot::take()? == *before))
        .with_context(|| format!("before: {before:#?}\nafter: {:#?}", Snapshot::take().ok()))
}

pub(crate) fn nothing_is_left_after_down() -> anyhow::Result<()> {
    let before = Snapshot::take()?;
    let cluster = Cluster::running("clean", &server("web", 2))?;
    let data = cluster.data();
    cluster.coracle(&["down", "--delete"])?;
    // The standby keeper ends when it hears of the end of the cluster process.
    eventually("all processes are gone", || Ok(belongings(&cluster)?.is_empty()))?;
    let folders = [cluster.state(), cluster.run_folder(), cluster.commands()];
    ensure!(folders.iter().all(|it| !it.exists()), "folders are left");
    ensure!(fs::read_dir(data)?.count() == 0, "something is left in the data folder");
    unchanged(&before)
}

pub(crate) fn nothing_is_left_after_killing_everything() -> anyhow::Result<()> {
    let before = Snapshot::take()?;
    let cluster = Cluster::running("killed", &server("web", 2))?;
    // Shims and keepers first would only be replaced: the cluster process goes before them.
    kill(cluster.pid()?)?;
    for pid in belongings(&cluster)? {
        // One may take another with it.
        drop(kill(pid));
    }
    eventually("all processes are gone", || Ok(belongings(&cluster)?.is_empty()))?;
    cluster.coracle(&["down", "--delete"])?;
    let folders = [cluster.state(), cluster.run_folder(), cluster.commands()];
    ensure!(folders.iter().all(|it| !it.exists()), "folders are left");
    unchanged(&before)
}

/// Its object goes at once, and nobody is left to say that the containers are gone.
pub(crate) fn nothing_is_left_of_a_pod_deleted_by_force() -> anyhow::Result<()> {
    let cluster = Cluster::running("forced", &pod("web", &["serve", "8080"]))?;
    let running = belongings(&cluster)?.len();
    cluster.kubectl(&["delete", "pod", "web", "--grace-period=0", "--force"])?;
    let folders = cluster.run_folder().join("pods");
    eventually("its processes and folders are gone", || {
        Ok(fs::read_dir(&folders)?.count() == 0 && belongings(&cluster)?.len() < running)
    })
}

/// On a bridge, service addresses work only with this switch on; here there is no bridge. Only root
/// can turn it from outside; as an ordinary user the network's own tests do it from inside.
pub(crate) fn routing_needs_no_bridge_netfilter() -> anyhow::Result<()> {
    let cluster = Cluster::running("bridge", &server("web", 1))?;
    let folder = cluster.run_folder().display().to_string();
    let shims = processes(&["coracle shim default/web-", &folder])?;
    let shim = shims.first().context("a shim, which lives in the cluster's network")?;
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if fs::exists(switch)? && rustix::process::getuid().is_root() {
        let mut enter = std::process::Command::new("nsenter");
        enter.arg(format!("--target={}", shim.pid)).arg("--net");
        enter.args(["sh", "-c", &format!("echo 0 > {switch}; cat {switch}")]);
        ensure!(crate::run::must(&mut enter)?.trim() == "0", "the switch did not move");
    }
    cluster.apply(&pod("client", &["ask", "http://web/"]))?;
    eventually("requests succeed", || Ok(cluster.logs("pod/client")?.contains("good 100\n")))
}
