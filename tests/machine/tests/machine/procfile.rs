//! A Procfile's processes, and pods on the host's network.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use anyhow::{Context as _, ensure};

use crate::{
    cluster::{Cluster, IMAGE, eventually},
    host::{Snapshot, kill, processes},
    run::pod,
};

/// What lies between the ports of two processes.
const PORT_STEP: u16 = 100;

/// Where a search for free ports begins and ends: below those that the kernel gives to clients.
const PORTS: std::ops::Range<u16> = 21_000..21_900;

/// A port that is free, as is the one of the second process when the first has this one.
fn free_ports() -> anyhow::Result<u16> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut ports = PORTS.filter(|it| free(*it) && free(it + PORT_STEP));
    ports.next().context("no two ports are free")
}

/// What listens on a port of this machine answers.
fn ask(port: u16) -> anyhow::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    write!(connection, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A web server and a client of it, as a user writes them down.
fn application(cluster: &Cluster, port: u16) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let program = program.display();
    cluster.write(".env", &format!("# all of us\nPORT={port}\nGREETING='a $HOME b'\n"))?;
    let procfile = format!(
        "# A comment.\n\nweb: {program} probe serve $PORT\r\nAsk_er: echo \"$GREETING $PORT $PS $(echo x) $$\"; \
         coracle --version; pwd; exec {program} probe ask http://localhost:{port}/ # and on\n"
    );
    cluster.write("Procfile", &procfile)
}

/// The processes that a Procfile has started: this test's own program.
fn running() -> anyhow::Result<Vec<i32>> {
    started_with(" probe ")
}

fn started_with(words: &str) -> anyhow::Result<Vec<i32>> {
    let program = std::env::current_exe()?.display().to_string();
    // Not the shells that have not become it yet.
    let found = processes(&[&program, words])?.into_iter();
    Ok(found.filter(|it| it.command.starts_with(&program)).map(|it| it.pid).collect())
}

fn json_path(cluster: &Cluster, object: &[&str], path: &str) -> anyhow::Result<String> {
    let output = format!("jsonpath={path}");
    cluster.kubectl(&[&["get"], object, &["-o", &output]].concat())
}

pub(crate) fn processes_share_the_network_of_the_host() -> anyhow::Result<()> {
    let before = Snapshot::take()?;
    let (cluster, port) = (Cluster::new("procfile")?, free_ports()?);
    application(&cluster, port)?;
    let work = cluster.work().display().to_string();
    cluster.coracle(&["up", "--detach", &work])?;
    eventually("the server answers on the host", || {
        Ok(ask(port).is_ok_and(|it| it.starts_with("HTTP/1.1 200")))
    })?;
    eventually("the client has answers", || {
        Ok(cluster.logs("deployment/ask-er")?.contains("good 100\n"))
    })?;
    let log = cluster.logs("deployment/ask-er")?;
    let lines: Vec<&str> = log.lines().collect();
    // The shell was the container's first process, and its place has been taken.
    let first = format!("a $HOME b {} Ask_er.1 x 1", port + PORT_STEP);
    let folder = cluster.work().canonicalize()?.display().to_string();
    ensure!(lines.first() == Some(&first.as_str()), "{log}");
    ensure!(lines.get(1).is_some_and(|it| it.starts_with("coracle ")), "{log}");
    ensure!(lines.get(2) == Some(&folder.as_str()), "{log}");

    let own = std::fs::read_link("/proc/self/ns/net")?;
    let pids = running()?;
    ensure!(pids.len() == 2, "{pids:?}");
    for pid in &pids {
        let net = std::fs::read_link(format!("/proc/{pid}/ns/net"))?;
        ensure!(net == own, "{pid} is on {net:?}, and the host is {own:?}");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let ids = status.lines().find(|it| it.starts_with("NSpid:")).context("process ids")?;
        ensure!(ids.ends_with("\t1"), "{pid} is not the first process of its container: {ids}");
        let mounts = std::fs::read_link(format!("/proc/{pid}/ns/mnt"))?;
        ensure!(mounts != std::fs::read_link("/proc/self/ns/mnt")?, "{pid} has the host's mounts");
    }
    let addresses = "{.items[*].status.podIP} {.items[*].status.hostIP}";
    let addresses = json_path(&cluster, &["pods"], addresses)?;
    ensure!(addresses == "10.244.0.1 10.244.0.1 10.244.0.1 10.244.0.1", "{addresses}");

    // Again changes nothing, and a changed line only its own process.
    let said = cluster.coracle(&["up", "--detach", &work])?;
    ensure!(said.matches("unchanged").count() == 2, "{said}");
    ensure!(running()? == pids, "started anew: {:?} instead of {pids:?}", running()?);
    // One that ends is started again, and has its port again.
    let answer = ask(port)?;
    let server = *started_with(" probe serve ")?.first().context("a server")?;
    kill(server)?;
    eventually("another answers on the same port", || {
        Ok(!running()?.contains(&server) && ask(port).is_ok_and(|it| it == answer))
    })?;
    cluster.coracle(&["down"])?;
    ensure!(running()?.is_empty(), "left: {:?}", running()?);
    ensure!(ask(port).is_err(), "something listens on {port}");
    cluster.coracle(&["down", "--delete"])?;
    eventually("the host is as before", || Ok(Snapshot::take()? == before))
        .with_context(|| format!("before: {before:#?}\nafter: {:#?}", Snapshot::take().ok()))
}

pub(crate) fn processes_outlive_everything_but_shims() -> anyhow::Result<()> {
    let (cluster, port) = (Cluster::new("procfiles")?, free_ports()?);
    application(&cluster, port)?;
    let file = cluster.work().join("Procfile").display().to_string();
    cluster.coracle(&["up", "--detach", &file])?;
    eventually("both run", || Ok(running()?.len() == 2 && ask(port).is_ok()))?;
    let before = running()?;
    kill(cluster.pid()?)?;
    eventually("no keeper is left", || {
        let all = processes(&["coracle keeper", &cluster.name])?;
        all.iter().for_each(|it| drop(kill(it.pid)));
        Ok(all.is_empty())
    })?;
    ensure!(running()? == before && ask(port).is_ok(), "{:?}", running()?);
    // Only shims on the host's network know the cluster's namespaces now.
    cluster.coracle(&["up", "--detach", &file])?;
    ensure!(running()? == before, "not adopted: {:?} instead of {before:?}", running()?);
    let restarts = "{.items[*].status.containerStatuses[*].restartCount}";
    let restarts = json_path(&cluster, &["pods"], restarts)?;
    ensure!(restarts == "0 0", "restarts: {restarts}");
    // And they are still ours to steer.
    cluster.kubectl(&["scale", "deployment/web", "--replicas=0"])?;
    eventually("the server is gone", || Ok(ask(port).is_err() && running()?.len() == 1))?;
    // New ones come as before.
    cluster.kubectl(&["scale", "deployment/web", "--replicas=1"])?;
    eventually("the server is back", || Ok(ask(port).is_ok()))
}

/// A server on the host's network, which listens a while after it has started.
fn server_on_host(port: u16, probe: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: server, labels: {{app: server}}}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: {IMAGE}
    args: [serve, '{port}']
    readinessProbe: {{{probe}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: server}}
spec:
  selector: {{app: server}}
  ports: [{{port: 80, targetPort: {port}}}]
---
"
    )
}

pub(crate) fn pods_on_the_host_are_probed_and_routed_to() -> anyhow::Result<()> {
    let port = free_ports()?;
    let probe = format!("httpGet: {{path: /, port: {port}}}");
    let publish =
        format!("publish:\n- {{service: server, port: 80, hostPort: {}}}\n", port + PORT_STEP);
    let cluster = Cluster::new("onhost")?;
    let program = std::env::current_exe()?;
    let link =
        format!("links:\n  probe: {{image: {IMAGE}, run: [{}, probe]}}\n", program.display());
    cluster.write("coracle.yaml", &(link + &publish))?;
    cluster.write("app.yaml", &server_on_host(port, &probe))?;
    let work = cluster.work().display().to_string();
    cluster.coracle(&["up", "--detach", &work])?;
    // From pods by name, and from the host through the Service.
    cluster.apply(&pod("client", &["ask", "http://server/"]))?;
    eventually("the Service leads to it", || {
        Ok(cluster.logs("pod/client")?.contains("good 100\n"))
    })?;
    let answer = ask(port + PORT_STEP)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The machine's names: its host name, its resolver.
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    ensure!(answer.ends_with(&name), "{answer} does not end with {name}");
    // Nobody listens where this one is asked.
    let closed = pod("closed", &["serve", &(port + 1).to_string()]);
    let on_host = format!(
        "hostNetwork: true\n  containers:\n  - readinessProbe: {{tcpSocket: {{port: {}}}, periodSeconds: 1}}\n    name: probe",
        port + 2
    );
    cluster.apply(&closed.replace("containers:\n  - name: probe", &on_host))?;
    eventually("the probe is refused", || {
        let events =
            cluster.kubectl(&["get", "events", "--field-selector=involvedObject.name=closed"])?;
        Ok(events.contains("Readiness probe failed: dial tcp 10.244.0.1")
            && events.contains("connection refused"))
    })?;
    // What cannot be had is said.
    let cluster_dns = pod("dns", &["show"])
        .replace("spec:", "spec:\n  hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet");
    cluster.apply(&cluster_dns)?;
    eventually("the policy is refused", || {
        let events =
            cluster.kubectl(&["get", "events", "--field-selector=involvedObject.name=dns"])?;
        Ok(events.contains("dnsPolicy ClusterFirstWithHostNet cannot be had"))
    })?;
    // Its files are the machine's, and it is told of no Service that it cannot reach.
    let script = "cat /etc/resolv.conf /etc/hosts; env | grep -c SERVICE_HOST; exec sleep 1000";
    let shown =
        pod("shown", &[]).replace("args: []", &format!("command: [/bin/sh, -c, '{script}']"));
    cluster.apply(&shown.replace("spec:", "spec:\n  hostNetwork: true"))?;
    let file = |name: &str| std::fs::read_to_string(name).unwrap_or_default();
    let expected = file("/etc/resolv.conf") + &file("/etc/hosts") + "0\n";
    eventually("it sees the machine's files", || Ok(cluster.logs("pod/shown")?.ends_with("0\n")))?;
    let seen = cluster.logs("pod/shown")?;
    ensure!(seen == expected, "{seen}\ninstead of\n{expected}");
    Ok(())
}

pub(crate) fn bad_procfiles_are_named() -> anyhow::Result<()> {
    let cluster = Cluster::new("badproc")?;
    let work = cluster.work().display().to_string();
    for (name, text, expected) in [
        ("Procfile", "web: a\nworker\n", "Procfile:2: `worker` is not `NAME: COMMAND`"),
        ("Procfile", "web: a\nWeb: b\n", "Procfile:2: process `Web` would be called `web`"),
        (".env", "A\n", ".env:1: `A` is not `NAME=VALUE`"),
    ] {
        cluster.write("Procfile", "web: a\n")?;
        cluster.write(name, text)?;
        let said = cluster.refused(&["up", "--detach", &work])?;
        ensure!(said.contains(expected), "{said}");
    }
    let said = cluster.refused(&["up", "--isolated", &work])?;
    ensure!(said.contains("--isolated"), "{said}");
    ensure!(!cluster.state().exists(), "something was started");
    Ok(())
}
