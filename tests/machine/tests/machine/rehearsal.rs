//! Three nodes under load: one is cut off and heals, another is lost, and users notice nothing of it.

use std::{
    env::current_exe,
    path::PathBuf,
    process::{Child, Stdio},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    cluster::{Cluster, IMAGE, eventually, program},
    nodes::{self, LEASE, endpoints, on, places},
    run::pod,
};

/// Few enough for a machine that starts pods at the same time.
const RATE: &str = "50/s";

/// The image that is linked to `coracle load`.
const LOAD: &str = "test/load";

/// Requests from outside of the cluster, through its proxy.
struct Users(Child);

/// Requests of a pod on the first node.
struct Peer(String);

/// What the report of `coracle load` says.
#[derive(Debug)]
struct Outcome {
    succeeded: u64,
    failures: serde_json::Map<String, Value>,
}

impl Users {
    /// They ask until they are stopped.
    fn start(cluster: &Cluster, url: &str) -> anyhow::Result<Self> {
        let run = ["load", url, "--rate", RATE, "--for", "10m", "--quiet", "--output", "json"];
        let mut command = cluster.command(&run)?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(command.spawn().context("start `coracle load`")?))
    }

    fn stop(self) -> anyhow::Result<Outcome> {
        kill_process(Pid::from_child(&self.0), Signal::INT).context("interrupt `coracle load`")?;
        let output = self.0.wait_with_output()?;
        outcome(&String::from_utf8_lossy(&output.stdout))
            .with_context(|| format!("it said {}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Peer {
    fn start(cluster: &Cluster, name: &str, node: &str, time: &str) -> anyhow::Result<Self> {
        let how = ["--rate", RATE, "--for", time, "--timeout", "1s", "--quiet", "-o", "json"];
        let selector = format!(
            "spec:\n  restartPolicy: Never\n  nodeSelector: {{kubernetes.io/hostname: {node}}}\n"
        );
        let pod = pod(name, &[&["http://web/", "--i-may"][..], &how].concat());
        cluster.apply(&pod.replacen("spec:\n", &selector, 1).replacen(IMAGE, LOAD, 1))?;
        Ok(Self(name.to_owned()))
    }

    fn outcome(self, cluster: &Cluster) -> anyhow::Result<Outcome> {
        let pod = format!("pod/{}", self.0);
        let ended = "--for=jsonpath={.status.phase}=Succeeded";
        cluster.kubectl(&["wait", ended, &pod, "--timeout=30s"])?;
        let outcome = outcome(&cluster.logs(&pod)?)?;
        cluster.kubectl(&["delete", &pod])?;
        Ok(outcome)
    }
}

fn outcome(report: &str) -> anyhow::Result<Outcome> {
    let parsed: Value = serde_json::from_str(report)
        .with_context(|| format!("`coracle load` reported `{report}`"))?;
    let succeeded = parsed.pointer("/total/succeeded").and_then(Value::as_u64);
    let failures = parsed.pointer("/total/failures").and_then(Value::as_object);
    Ok(Outcome {
        succeeded: succeeded.with_context(|| format!("no successes in `{report}`"))?,
        failures: failures.with_context(|| format!("no failures in `{report}`"))?.clone(),
    })
}

/// Nothing fails between pods.
fn all_is_well(cluster: &Cluster) -> anyhow::Result<()> {
    let [first, ..] = &nodes::names(cluster)?;
    let outcome = Peer::start(cluster, "once", first, "2s")?.outcome(cluster)?;
    ensure!(outcome.failures.is_empty() && outcome.succeeded == 100, "{outcome:?}");
    Ok(())
}

/// Until others have the pods of a node, and the node is back with none of them.
fn replaced(cluster: &Cluster, fault: &str, node: &str) -> anyhow::Result<()> {
    eventually("others have its pods", || {
        Ok(places(cluster)?.len() > 6 && endpoints(cluster)? == 6)
    })?;
    all_is_well(cluster)?;
    cluster.coracle(&["chaos", "stop", fault])?;
    cluster.kubectl(&["wait", "--for=condition=Ready", node, "--timeout=30s"])?;
    eventually("it has ended what it had", || Ok(places(cluster)?.len() == 6))?;
    all_is_well(cluster)
}

/// The cluster with its servers, and where users find them.
fn ready() -> anyhow::Result<(Cluster, String)> {
    let cluster = Cluster::new("rehearsal")?;
    cluster.coracle(&["up", "--detach", "--nodes", "3", "--node-lease", LEASE])?;
    cluster.write("app.yaml", &nodes::servers())?;
    let programs = [(IMAGE, current_exe()?, ", probe"), (LOAD, program("CORACLE")?, ", load")];
    let link = |(image, program, word): &(&str, PathBuf, &str)| {
        let name = image.replace('/', "-");
        format!("  {name}: {{image: {image}, run: [{}{word}]}}\n", program.display())
    };
    let links: String = programs.iter().map(link).collect();
    cluster.write("coracle.yaml", &format!("links:\n{links}"))?;
    cluster.coracle(&["up", "--detach", &cluster.work().display().to_string()])?;
    let status = cluster.status()?;
    let url = status.pointer("/urls/0/url").and_then(Value::as_str);
    let url = url.with_context(|| format!("no URL: {status:#}"))?.to_owned();
    Ok((cluster, url))
}

pub(crate) fn nodes_are_lost_under_load() -> anyhow::Result<()> {
    let (cluster, url) = ready()?;
    let [first, second, third] = &nodes::names(&cluster)?;
    let users = Users::start(&cluster, &url)?;
    all_is_well(&cluster)?;

    // Who asks a pod that is cut off waits; nobody is told of anything else.
    let during = Peer::start(&cluster, "during", first, "8s")?;
    let node = format!("node/{third}");
    cluster.coracle(&["chaos", "partition", &node, "--as", "split", "--detach"])?;
    eventually("traffic goes elsewhere", || Ok(endpoints(&cluster)? == 4))?;
    let during = during.outcome(&cluster)?;
    let missed: Vec<&String> = during.failures.keys().collect();
    ensure!(missed == ["timeout"] && during.succeeded > 0, "{during:?}");
    replaced(&cluster, "split", &node)?;

    let node = format!("node/{second}");
    ensure!(on(&places(&cluster)?, second) == 3, "{:?}", places(&cluster)?);
    cluster.coracle(&["chaos", "kill", &node, "--as", "lost", "--detach"])?;
    replaced(&cluster, "lost", &node)?;

    // The proxy asks another pod when one cannot be reached, so users have seen nothing.
    let users = users.stop()?;
    ensure!(users.failures.is_empty() && users.succeeded > 500, "{users:?}");
    Ok(())
}
