//! kill -9 is a normal way to stop.

use std::io::Write as _;

use anyhow::{Context as _, ensure};

use crate::{
    cluster::{Cluster, at_once, eventually},
    host::{self, kill, lives, processes},
    run::{good, none_failed, pod, server},
};

/// A server, and a client that asks it for ever by the service's address, as DNS is the cluster
/// process's own.
fn busy(name: &str) -> anyhow::Result<Cluster> {
    let cluster = Cluster::running(name, &server("web", 2))?;
    let address =
        cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    cluster.apply(&pod("client", &["ask", &format!("http://{address}/")]))?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=30s"])?;
    eventually("requests succeed", || Ok(cluster.logs("pod/client")?.contains("good 100\n")))?;
    Ok(cluster)
}

/// The processes of the pods, all of them `probe`s of this test's own program.
fn probes() -> anyhow::Result<Vec<host::Process>> {
    let program = std::env::current_exe()?.display().to_string();
    processes(&[&program, " probe "])
}

/// The client's log file, which needs no API.
fn client_log(cluster: &Cluster) -> anyhow::Result<String> {
    let logs = cluster.state().join("logs");
    for entry in std::fs::read_dir(&logs).with_context(|| format!("{}", logs.display()))? {
        let folder = entry?.path();
        if folder.display().to_string().contains("default_client_") {
            let files = std::fs::read_dir(folder.join("probe"))?;
            let mut text = String::new();
            for file in files {
                text.push_str(&std::fs::read_to_string(file?.path())?);
            }
            let lines = text.lines().filter_map(|it| it.splitn(4, ' ').nth(3));
            return Ok(lines.map(|it| format!("{it}\n")).collect());
        }
    }
    anyhow::bail!("no log of the client in {}", logs.display())
}

fn goes_on(cluster: &Cluster) -> anyhow::Result<()> {
    let asked = good(&client_log(cluster)?);
    eventually("requests go on", || Ok(good(&client_log(cluster)?) >= asked + 300))
}

pub(crate) fn pods_outlive_the_cluster_process() -> anyhow::Result<()> {
    let cluster = busy("outlive")?;
    let before = probes()?;
    ensure!(before.len() == 3, "{before:?}");
    kill(cluster.pid()?)?;
    eventually("the cluster process is gone", || {
        Ok(cluster.status()?.get("running") == Some(&false.into()))
    })?;
    goes_on(&cluster)?;
    ensure!(probes()? == before, "other processes: {:?}", probes()?);
    cluster.up()?;
    goes_on(&cluster)?;
    ensure!(probes()? == before, "not adopted: {:?} instead of {before:?}", probes()?);
    let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let restarts = cluster.kubectl(&["get", "pods", "-o", restarts])?;
    ensure!(restarts == "0 0 0", "restarts: {restarts}");
    // And the adopted pods are still ours to steer.
    cluster.kubectl(&["rollout", "restart", "deployment/web"])?;
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    none_failed(&client_log(&cluster)?)
}

/// How often the cluster process is killed, and started before it has vanished.
const CLUSTERS_KILLED: u32 = 20;

pub(crate) fn killed_clusters_start_at_once() -> anyhow::Result<()> {
    let cluster = Cluster::running("again", &server("web", 1))?;
    let before = probes()?;
    let mut killed = cluster.pid()?;
    for _ in 0..CLUSTERS_KILLED {
        kill(killed)?;
        cluster.coracle(&["up", "--detach"])?;
        let next = cluster.pid()?;
        ensure!(next != killed, "process {killed} was taken for one that runs");
        killed = next;
    }
    ensure!(probes()? == before, "other processes: {:?} instead of {before:?}", probes()?);
    Ok(())
}

/// How many keepers are killed in a row, each as soon as it is one.
const KEEPERS_KILLED: u32 = 20;

/// The keeper that serves now.
fn keeper(cluster: &Cluster) -> anyhow::Result<i32> {
    let mut client = keeper::Client::connect(&cluster.run_folder())?;
    Ok(i32::try_from(client.ping()?)?)
}

/// The keeper and its standbys, in this order.
fn keepers(cluster: &Cluster) -> anyhow::Result<Vec<i32>> {
    let all = processes(&["coracle keeper", &cluster.name])?;
    let mut all: Vec<i32> = all.into_iter().map(|it| it.pid).filter(|it| lives(*it)).collect();
    if let Ok(first) = keeper(cluster) {
        all.sort_by_key(|it| *it != first);
    }
    Ok(all)
}

/// How often the cluster process has said that it is prepared for the next death.
fn prepared(cluster: &Cluster) -> anyhow::Result<usize> {
    let log = std::fs::read_to_string(cluster.state().join("cluster.log"))?;
    Ok(log.matches("standby keepers are ready").count())
}

fn kill_all_keepers(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("no keeper is left", || {
        let all = keepers(cluster)?;
        // One may have been copied meanwhile, another have ended with whom it was copied from.
        all.iter().for_each(|it| drop(kill(*it)));
        Ok(all.is_empty())
    })
}

pub(crate) fn pods_outlive_the_keeper() -> anyhow::Result<()> {
    let cluster = busy("mend")?;
    let before = probes()?;
    // Two at the same moment, in every order.
    for (first, second) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        let all = keepers(&cluster)?;
        let active = keeper(&cluster)?;
        ensure!(all.len() == 3 && all.first() == Some(&active), "{active} of {all:?}");
        let said = prepared(&cluster)?;
        let dead: Vec<i32> =
            [first, second].iter().filter_map(|it| all.get(*it)).copied().collect();
        dead.iter().try_for_each(|it| kill(*it))?;
        eventually("there are three again", || {
            let now = keepers(&cluster)?;
            let fresh = now.len() == 3 && now.iter().all(|it| !dead.contains(it));
            Ok(fresh && keeper(&cluster).is_ok() && prepared(&cluster)? > said)
        })
        .with_context(|| format!("{first} and {second} of {all:?} were killed"))?;
    }
    // One after the other, without any pause.
    let mut last = 0;
    for round in 0..KEEPERS_KILLED {
        at_once("the next keeper serves", || match keeper(&cluster) {
            Ok(next) if next != last => {
                last = next;
                Ok(true)
            }
            _ => Ok(false),
        })
        .with_context(|| format!("round {round}"))?;
        kill(last)?;
    }
    eventually("there are three again", || Ok(keepers(&cluster)?.len() == 3))?;
    goes_on(&cluster)?;
    ensure!(probes()? == before, "other processes: {:?}", probes()?);
    none_failed(&client_log(&cluster)?)
}

/// Only from outside can the next keeper come then.
pub(crate) fn up_replaces_keepers_that_all_died() -> anyhow::Result<()> {
    let cluster = busy("keepers")?;
    let before = probes()?;
    let outside = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    outside.set_nonblocking(true)?;
    let url = format!("http://10.244.0.1:{}/", outside.local_addr()?.port());
    for round in ["with the cluster process alive", "with the cluster process"] {
        if round == "with the cluster process" {
            kill(cluster.pid()?)?;
        }
        kill_all_keepers(&cluster)?;
        goes_on(&cluster)?;
        cluster.up()?;
        eventually("there are three again", || Ok(keepers(&cluster)?.len() == 3)).context(round)?;
        ensure!(probes()? == before, "{round}: other processes: {:?}", probes()?);
        // And the host is in reach again.
        cluster.apply(&pod("host", &["once", &url]))?;
        eventually("a pod reaches the host", || {
            let (mut connection, _) = outside.accept()?;
            Ok(connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").is_ok())
        })?;
        cluster.kubectl(&["delete", "pod", "host"])?;
    }
    none_failed(&client_log(&cluster)?)
}

pub(crate) fn killed_container_is_restarted() -> anyhow::Result<()> {
    let cluster = Cluster::running("container", &pod("client", &["ask", "http://10.96.0.1:1/"]))?;
    let before = probes()?;
    let victim = before.first().context("the pod's process")?;
    kill(victim.pid)?;
    eventually("it runs again", || {
        let now = probes()?;
        Ok(now.len() == 1 && now.first().is_some_and(|it| it.pid != victim.pid))
    })?;
    eventually("the API says so", || {
        let state = "jsonpath={.status.containerStatuses[0].restartCount} \
                     {.status.containerStatuses[0].lastState.terminated.exitCode}";
        Ok(cluster.kubectl(&["get", "pod", "client", "-o", state])? == "1 137")
    })
}

pub(crate) fn killed_shim_is_replaced() -> anyhow::Result<()> {
    let cluster = Cluster::running("shim", &server("web", 1))?;
    let before = probes()?;
    let folder = cluster.run_folder().display().to_string();
    let shims = processes(&["coracle shim default/web-", &folder])?;
    let shim = shims.first().context("the pod's shim")?;
    kill(shim.pid)?;
    eventually("the container is replaced", || {
        let now = probes()?;
        let fresh = now.iter().all(|it| before.iter().all(|old| old.pid != it.pid));
        Ok(now.len() == 1 && fresh)
    })?;
    ensure!(before.iter().all(|it| !lives(it.pid)), "the old container runs on");
    cluster.kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"])?;
    Ok(())
}

pub(crate) fn down_keeps_state_and_up_brings_it_back() -> anyhow::Result<()> {
    let cluster = Cluster::running("down", &server("web", 2))?;
    let kept = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}\n";
    cluster.apply(kept)?;
    cluster.coracle(&["down"])?;
    ensure!(probes()?.is_empty(), "pods run on: {:?}", probes()?);
    ensure!(processes(&["coracle", &cluster.name])?.is_empty(), "processes are left");
    cluster.up()?;
    ensure!(probes()?.len() == 2, "{:?}", probes()?);
    let kept = cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"])?;
    ensure!(kept == "b", "{kept}");
    Ok(())
}
