//! What runs, and what it sees.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::cluster::{Cluster, IMAGE, eventually, said};

/// A deployment of the probe and a service in front of it.
pub(crate) fn server(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: server
        image: {IMAGE}
        args: [serve, '8080', {name}]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: 8080}}]
---
"
    )
}

/// A pod that runs the probe with these arguments.
pub(crate) fn pod(name: &str, arguments: &[&str]) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: probe
    image: {IMAGE}
    args: {arguments:?}
---
"
    )
}

/// The example as a user runs it, on both sides of the host's border.
pub(crate) fn sensors_run_and_answer_on_the_host() -> anyhow::Result<()> {
    let cluster = Cluster::new("sensors")?;
    let programs = crate::cluster::example_programs()?;
    // Built in place, or copied side by side for a user who may not look into the work tree.
    let beside = programs.join("sensor.yaml").exists();
    let source = if beside { programs.clone() } else { programs.join("../..") };
    for file in ["sensor.yaml", "worker.yaml", "app.yaml"] {
        let text = std::fs::read_to_string(source.join(file))?;
        cluster.write(file, &text)?;
    }
    let link = |name: &str| {
        let program = programs.join(name);
        format!("  {name}: {{image: sensors/{name}, run: [{}]}}\n", program.display())
    };
    let port = free_port()?;
    cluster.write(
        "coracle.yaml",
        &format!(
            "links:\n{}{}{}publish:\n- {{service: sensor, port: 9001, hostPort: {port}}}\n",
            link("sensor"),
            link("worker"),
            link("app")
        ),
    )?;
    cluster.coracle(&["up", "--detach", &cluster.work().display().to_string()])?;
    eventually("the app has a result", || Ok(cluster.logs("deployment/app")?.contains("esult")))?;
    let mut answer = String::new();
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    write!(connection, "GET / HTTP/1.1\r\nHost: sensor\r\nConnection: close\r\n\r\n")?;
    connection.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.trim_end().ends_with(']'), "{answer}");
    // EX1-4: without the worker the app goes on, and with it again it recovers.
    cluster.kubectl(&["scale", "deployment/worker", "--replicas=0"])?;
    eventually("the app says that the worker is gone", || {
        let log = cluster.kubectl(&["logs", "--tail=3", "deployment/app"])?;
        Ok(log.contains("failed") || log.contains("error"))
    })?;
    cluster.kubectl(&["scale", "deployment/worker", "--replicas=1"])?;
    eventually("the app has results again", || {
        Ok(cluster.kubectl(&["logs", "--tail=1", "deployment/app"])?.contains("esult"))
    })?;
    let restarts = cluster.kubectl(&[
        "get",
        "pods",
        "-o",
        "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
    ])?;
    ensure!(restarts.split_whitespace().all(|it| it == "0"), "restarts: {restarts}");
    Ok(())
}

pub(crate) fn pods_reach_services_dns_and_the_host() -> anyhow::Result<()> {
    let outside = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let outside_port = outside.local_addr()?.port();
    let answering = std::thread::spawn(move || {
        if let Ok((mut connection, _)) = outside.accept() {
            drop(connection.read(&mut [0; 1024]));
            drop(connection.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhost"));
        }
    });
    let (datagrams, nobody) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let (datagrams_port, nobody_port) =
        (datagrams.local_addr()?.port(), nobody.local_addr()?.port());
    drop(nobody);
    std::thread::spawn(move || {
        let mut question = [0; 64];
        while let Ok((_, client)) = datagrams.recv_from(&mut question) {
            drop(datagrams.send_to(b"host by UDP", client));
        }
    });
    let cluster = Cluster::running("reach", &server("web", 3))?;
    let mut text = String::new();
    let wanted = [
        ("short", "http://web/".to_owned(), "ok web-"),
        ("long", "http://web.default.svc.cluster.local:80/".to_owned(), "ok web-"),
        ("missing", "http://nothing.default/".to_owned(), "failed"),
        ("host", format!("http://10.244.0.1:{outside_port}/"), "ok host"),
    ];
    for (name, url, _) in &wanted {
        text.push_str(&pod(name, &["once", url]).replace("spec:", "spec:\n  restartPolicy: Never"));
    }
    let by_udp = [
        ("answered", format!("host.coracle.internal:{datagrams_port}"), "ok host by UDP"),
        ("refused", format!("host.coracle.internal:{nobody_port}"), "failed"),
    ];
    for (name, address, _) in &by_udp {
        let once = pod(name, &["datagram", address]);
        text.push_str(&once.replace("spec:", "spec:\n  restartPolicy: Never"));
    }
    cluster.apply(&text)?;
    for (name, url, expected) in wanted.iter().chain(&by_udp) {
        eventually(&format!("{url} gives {expected}"), || {
            let log = cluster.logs(&format!("pod/{name}"))?;
            Ok(log.lines().any(|it| it.starts_with(expected)))
        })?;
    }
    let refused = cluster.logs("pod/refused")?;
    ensure!(refused.contains("Connection refused"), "{refused}");
    // All three pods get their share of a service.
    cluster.apply(&pod("client", &["ask", "http://web/"]))?;
    eventually("requests succeed", || Ok(cluster.logs("pod/client")?.contains("good 100")))?;
    answering.join().map_err(|_| anyhow::anyhow!("host server panicked"))?;
    Ok(())
}

/// A pod with every way to hand something to a container.
fn everything(cluster: &Cluster) -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{key: from-config, OTHER: other}}
---
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
stringData: {{password: hush}}
---
apiVersion: v1
kind: Pod
metadata: {{name: show, labels: {{app: show}}}}
spec:
  hostname: given
  containers:
  - name: probe
    image: {IMAGE}
    args: [show]
    workingDir: /scratch
    readinessProbe: {{exec: {{command: [cat, /config/key]}}, periodSeconds: 1}}
    env:
    - {{name: PLAIN, value: 'a'}}
    - {{name: COMPOSED, value: '$(PLAIN)-$(MISSING)-$$(PLAIN)'}}
    - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
    - {{name: ADDRESS, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
    - {{name: KEY, valueFrom: {{configMapKeyRef: {{name: settings, key: key}}}}}}
    - {{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: keys, key: password}}}}}}
    - {{name: MASKED_STATE, value: '{}'}}
    - {{name: MASKED_RUN, value: '{}'}}
    envFrom: [{{prefix: ALL_, configMapRef: {{name: settings}}}}]
    volumeMounts:
    - {{name: config, mountPath: /config}}
    - {{name: secret, mountPath: /secret}}
    - {{name: scratch, mountPath: /scratch}}
  volumes:
  - {{name: config, configMap: {{name: settings}}}}
  - {{name: secret, secret: {{secretName: keys}}}}
  - {{name: scratch, emptyDir: {{}}}}
",
        cluster.state().display(),
        cluster.run_folder().display(),
    )
}

pub(crate) fn container_sees_what_it_should() -> anyhow::Result<()> {
    let cluster = Cluster::new("sees")?;
    cluster.write("app.yaml", &everything(&cluster))?;
    cluster.up()?;
    let mut log = String::new();
    eventually("the pod has shown all", || {
        log = cluster.logs("pod/show")?;
        Ok(log.contains("shown"))
    })?;
    let user = rustix::process::getuid().as_raw();
    for line in [
        "env PLAIN=a",
        "env COMPOSED=a-$(MISSING)-$(PLAIN)",
        "env POD=show",
        "env ADDRESS=10.244.",
        "env KEY=from-config",
        "env PASSWORD=hush",
        "env ALL_OTHER=other",
        "env KUBERNETES_SERVICE_HOST=10.96.0.1",
        "directory /scratch",
        &format!("env PATH={}:", cluster.commands().display()),
        &format!("user {user}"),
        "pid 1",
        "host given",
        "/etc/resolv.conf nameserver 10.96.0.10",
        "/etc/resolv.conf search default.svc.cluster.local svc.cluster.local cluster.local",
        "/config/key from-config",
        "/secret/password hush",
        "scratch ok",
        "MASKED_STATE Some(Ok(0))",
        "MASKED_RUN Some(Ok(0))",
    ] {
        ensure!(log.lines().any(|it| it.starts_with(line)), "no `{line}` in:\n{log}");
    }
    for folder in ["/config", "/secret", "/scratch"] {
        ensure!(!Path::new(folder).exists(), "{folder} appeared on the host");
    }
    Ok(())
}

pub(crate) fn unlinked_image_says_so() -> anyhow::Result<()> {
    let cluster = Cluster::new("unlinked")?;
    cluster.coracle(&["up", "--detach"])?;
    cluster.kubectl(&["run", "web", "--image=nginx:1.27", "--image-pull-policy=Never"])?;
    let reason = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    eventually("the pod says why it waits", || {
        Ok(cluster.kubectl(&["get", "pod", "web", "-o", reason])? == "ErrImageNeverPull")
    })?;
    let message = "jsonpath={.status.containerStatuses[0].state.waiting.message}";
    let message = cluster.kubectl(&["get", "pod", "web", "-o", message])?;
    ensure!(message.contains("is not present") && message.contains("links: "), "{message}");
    Ok(())
}

/// A rolling restart under a client that never stops asking through the service.
pub(crate) fn rolling_restart_fails_no_request() -> anyhow::Result<()> {
    let cluster =
        Cluster::running("rolling", &(server("web", 2) + &pod("client", &["ask", "http://web/"])))?;
    eventually("requests succeed", || Ok(cluster.logs("pod/client")?.contains("good 100\n")))?;
    // kubectl refuses a second restart within a second; any change of the template rolls as well.
    for change in [
        ["rollout", "restart", "deployment/web"].as_slice(),
        &["set", "env", "deployment/web", "ROUND=2"],
    ] {
        cluster.kubectl(change)?;
        cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    }
    // What the old pods leave behind when they go shows in requests after them.
    let asked = good(&cluster.logs("pod/client")?);
    eventually("requests go on", || Ok(good(&cluster.logs("pod/client")?) >= asked + 300))?;
    let log = cluster.logs("pod/client")?;
    none_failed(&log)
}

/// Since its first success no request of the asking probe has failed. Before, the service may not
/// have had an endpoint yet.
pub(crate) fn none_failed(log: &str) -> anyhow::Result<()> {
    let since = log.lines().skip_while(|it| !it.starts_with("good "));
    let failed: Vec<&str> = since.filter(|it| it.starts_with("failed")).collect();
    ensure!(failed.is_empty(), "{} failed requests: {failed:?}", failed.len());
    Ok(())
}

pub(crate) fn two_clusters_live_side_by_side() -> anyhow::Result<()> {
    let first = Cluster::running("one", &server("web", 1))?;
    let second = Cluster::running("two", &server("web", 1))?;
    let server = |cluster: &Cluster| -> anyhow::Result<String> {
        Ok(cluster.status()?.get("server").context("server")?.to_string())
    };
    ensure!(server(&first)? != server(&second)?, "both have one address");
    let routes = |cluster: &Cluster| -> anyhow::Result<String> {
        Ok(cluster.status()?.get("hostRoutes").context("hostRoutes")?.to_string())
    };
    // As root both are routed from the host, so what the one has the other has not.
    let expected = if rustix::process::geteuid().is_root() { "\"routed" } else { "only root" };
    for cluster in [&first, &second] {
        eventually("it is said whether there are routes", || {
            Ok(routes(cluster)?.contains(expected))
        })
        .with_context(|| format!("{:?}", routes(cluster)))?;
    }
    first.coracle(&["down"])?;
    second.kubectl(&["rollout", "status", "deployment/web", "--timeout=30s"])?;
    Ok(())
}

/// How many requests the asking probe says it had answered.
pub(crate) fn good(log: &str) -> u64 {
    let counts = log.lines().filter_map(|it| it.strip_prefix("good ")?.parse().ok());
    counts.max().unwrap_or(0)
}

/// A port of 127.0.0.1 that nobody uses now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Runs a command, which must succeed.
pub(crate) fn must(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", said(&output));
    Ok(said(&output))
}
