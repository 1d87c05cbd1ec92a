//! NetworkPolicies, as somebody applies them who has pods that run.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use anyhow::ensure;

use crate::{
    cluster::{Cluster, eventually},
    run::{pod, server},
};

const WEB: &str = "http://web.default.svc.cluster.local/";

/// A policy of the default namespace.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}}}, \
         spec: {spec}}}\n---\n"
    )
}

/// A pod that says what it reaches and what not.
fn client(name: &str, namespace: &str, labels: &str, urls: &[&str]) -> String {
    let arguments: Vec<&str> = ["watch"].iter().chain(urls).copied().collect();
    pod(name, &arguments).replace(
        &format!("{{name: {name}}}"),
        &format!("{{name: {name}, namespace: {namespace}, labels: {labels}}}"),
    )
}

/// Waits until the last that a client has said of an address is this.
fn until(cluster: &Cluster, (pod, namespace): (&str, &str), said: &str) -> anyhow::Result<()> {
    let url = said.split_once(' ').map_or(said, |it| it.1);
    eventually(&format!("{pod} says {said}"), || {
        let log = cluster.kubectl(&["logs", pod, "-n", namespace])?;
        let last = log.lines().rfind(|it| it.split(' ').nth(1) == Some(&*format!("{url}:")));
        Ok(last.is_some_and(|it| it.starts_with(said)))
    })
}

/// Answers on the host for ever; returns the port.
fn host_server() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            drop(connection.read(&mut [0; 1024]));
            drop(connection.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhost"));
        }
    });
    Ok(port)
}

pub(crate) fn policies_are_enforced() -> anyhow::Result<()> {
    let host = format!("http://10.244.0.1:{}/", host_server()?);
    let (a, b, other) = (("a", "default"), ("b", "default"), ("c", "tools"));
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: tools, labels: {team: x}}}";
    let web = server("web", 1).replace(
        "args: [serve, '8080', web]",
        "args: [serve, '8080', web]\n        ports: [{name: http, containerPort: 8080}]",
    );
    let cluster = Cluster::running("policies", &format!("{web}{namespace}\n---\n"))?;
    cluster.apply(&format!(
        "{}{}{}",
        client("a", "default", "{role: client}", &[WEB, &host]),
        client("b", "default", "{}", &[WEB, &host]),
        client("c", "tools", "{}", &[WEB]),
    ))?;
    let (reached, missed) = (format!("reached {WEB}"), format!("missed {WEB}"));
    for it in [a, b, other] {
        until(&cluster, it, &reached)?;
    }
    let of_web = "podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]";
    let applied = cluster.apply(&policy("web", &format!("{{{of_web}}}")))?;
    ensure!(!applied.contains("Warning"), "{applied}");
    for it in [a, b, other] {
        until(&cluster, it, &missed)?;
    }
    until(&cluster, a, &format!("reached {host}"))?;
    let allow = |rule: &str| policy("web", &format!("{{{of_web}, ingress: [{rule}]}}"));
    // By label, at a port that has a name.
    cluster.apply(&allow(
        "{from: [{podSelector: {matchLabels: {role: client}}}], ports: [{port: http}]}",
    ))?;
    until(&cluster, a, &reached)?;
    cluster.kubectl(&["label", "pod", "b", "role=client"])?;
    until(&cluster, b, &reached)?;
    until(&cluster, other, &missed)?;
    // By namespace, at a range of ports.
    cluster.apply(&allow(
        "{from: [{namespaceSelector: {matchLabels: {team: x}}}], ports: [{port: 8000, endPort: 8099}]}",
    ))?;
    until(&cluster, other, &reached)?;
    until(&cluster, a, &missed)?;
    // A pod that begins is restricted from its first packet.
    let once = pod("late", &["once", WEB]).replace("spec:", "spec:\n  restartPolicy: Never");
    cluster.apply(&once)?;
    eventually("the late pod has asked", || Ok(!cluster.logs("pod/late")?.is_empty()))?;
    let log = cluster.logs("pod/late")?;
    ensure!(log.starts_with("failed") && log.contains("refused"), "{log}");
    // The node's probes pass.
    let ready =
        cluster.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"])?;
    ensure!(ready == "1", "{ready} are ready");
    egress(&cluster, a, &host)?;
    until(&cluster, b, &format!("reached {host}"))?;
    Ok(())
}

/// What the pod `a` may send, and nobody else is concerned.
fn egress(cluster: &Cluster, a: (&str, &str), host: &str) -> anyhow::Result<()> {
    let (reached, missed) = (format!("reached {WEB}"), format!("missed {WEB}"));
    cluster.kubectl(&["delete", "networkpolicy", "web"])?;
    cluster.kubectl(&["label", "pod", "a", "only=this"])?;
    until(cluster, a, &reached)?;
    let of_a = |rules: &str| {
        let spec = "podSelector: {matchLabels: {only: this}}, policyTypes: [Egress]";
        policy("a", &format!("{{{spec}, egress: [{rules}]}}"))
    };
    cluster.apply(&of_a(""))?;
    until(cluster, a, &missed)?;
    until(cluster, a, &format!("missed {host}"))?;
    cluster.apply(&of_a("{to: [{ipBlock: {cidr: 10.244.0.1/32}}]}"))?;
    until(cluster, a, &format!("reached {host}"))?;
    let log = cluster.kubectl(&["logs", a.0])?;
    let last = log.lines().rfind(|it| it.starts_with(&missed)).unwrap_or_default();
    // Its name is not resolved.
    ensure!(last.contains("lookup") || last.contains("resolution"), "{last}");
    let dns = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, \
               podSelector: {matchLabels: {k8s-app: kube-dns}}}], \
               ports: [{port: 53, protocol: UDP}, {port: 53}]}";
    cluster.apply(&of_a(&format!(
        "{dns}, {{to: [{{podSelector: {{matchLabels: {{app: web}}}}}}]}}"
    )))?;
    until(cluster, a, &reached)?;
    until(cluster, a, &format!("missed {host}"))
}
