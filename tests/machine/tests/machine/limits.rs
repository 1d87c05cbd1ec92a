//! What pods are limited to, and what they use: enforced where the kernel lets us, said where not.

use std::fs;

use anyhow::{Context as _, bail, ensure};

use crate::cluster::{Cluster, IMAGE, eventually};

/// A pod that runs a shell script within limits.
fn pod(name: &str, memory: &str, script: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: sh
    image: {IMAGE}
    command: [/bin/sh, -c, '{script}']
    resources: {{limits: {{cpu: 500m, memory: {memory}}}}}
---
"
    )
}

/// A pod that does nothing.
pub(crate) fn still() -> String {
    pod("still", "64Mi", "exec sleep 1000")
}

/// What the node says of its control groups.
pub(crate) fn told(cluster: &Cluster) -> anyhow::Result<String> {
    let path = r"jsonpath={.items[0].metadata.annotations.coracle\.dev/cgroups}";
    let told = cluster.kubectl(&["get", "nodes", "-o", path])?;
    ensure!(told.contains("version ") || told.contains("not limited"), "{told}");
    Ok(told)
}

/// More than a container may have is asked for by a child of its first process.
const GREEDY: &str = "dd if=/dev/zero of=/dev/null bs=190M count=1; exit 3";

pub(crate) fn limits_are_enforced_or_said_not_to_be() -> anyhow::Result<()> {
    let cluster = Cluster::running("limits", &(still() + &pod("sees", "48Mi", SEE)))?;
    let enforced = !told(&cluster)?.contains("not limited");
    if rustix::process::getuid().is_root() {
        // As root, only a machine without control groups has none.
        let writable = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].iter().any(|it| {
            let file = format!("{it}/cgroup.procs");
            rustix::fs::access(file, rustix::fs::Access::WRITE_OK).is_ok()
        });
        ensure!(enforced == writable, "enforced: {enforced}, writable: {writable}");
    }
    if !enforced {
        eventually("an event says so", || {
            let events =
                cluster.kubectl(&["get", "events", "--field-selector=reason=LimitsNotEnforced"])?;
            Ok(events.contains("pod/still") && events.contains("cpu and memory limits"))
        })?;
        let status = cluster.coracle(&["status"])?;
        ensure!(status.contains("2 pods have limits; not limited: "), "{status}");
        return Ok(());
    }
    are_written(&cluster)?;
    are_seen(&cluster)?;
    end_what_wants_more(&cluster)
}

/// What programs and their runtimes read to find out how much is theirs.
const SEE: &str = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null; \
                   cat cpu.max cpu/cpu.cfs_quota_us 2>/dev/null; \
                   grep -E \"::|:memory:\" /proc/self/cgroup; \
                   grep -c /sys/fs/cgroup.ro /proc/mounts; echo seen; exec sleep 1000";

/// A container sees its own limits, and no groups but its own.
fn are_seen(cluster: &Cluster) -> anyhow::Result<()> {
    let mut log = String::new();
    eventually("the pod has seen its limits", || {
        log = cluster.logs("pod/sees")?;
        Ok(log.contains("seen"))
    })?;
    let lines: Vec<&str> = log.lines().collect();
    ensure!(lines.first() == Some(&(48 << 20).to_string().as_str()), "{log}");
    ensure!(lines.get(1).is_some_and(|it| *it == "50000" || *it == "50000 100000"), "{log}");
    let own = lines.iter().filter(|it| it.contains(":memory:") || it.starts_with("0::"));
    let own: Vec<&&str> = own.collect();
    ensure!(!own.is_empty() && own.iter().all(|it| it.ends_with(":/")), "{log}");
    Ok(())
}

/// The limits of the pod `still` are in the kernel's files.
pub(crate) fn are_written(cluster: &Cluster) -> anyhow::Result<()> {
    let record = fs::read_to_string(cluster.run_folder().join("cgroups"))?;
    let path = "jsonpath={.metadata.uid}";
    let uid = cluster.kubectl(&["get", "pod/still", "-o", path])?;
    let read = |names: [&str; 2]| -> anyhow::Result<String> {
        let files = record.lines().flat_map(|folder| {
            let pod = format!("{folder}/pod{uid}");
            names.map(|name| format!("{pod}/{name}"))
        });
        let mut found = files.filter_map(|it| fs::read_to_string(it).ok());
        Ok(found.next().with_context(|| format!("{names:?}"))?.trim().to_owned())
    };
    let quota = read(["sh.0/cpu.cfs_quota_us", "sh.0/cpu.max"])?;
    ensure!(quota == "50000" || quota == "50000 100000", "quota {quota}");
    let memory = read(["sh.0/memory.limit_in_bytes", "sh.0/memory.max"])?;
    ensure!(memory == (64 << 20).to_string(), "memory {memory}");
    ensure!(read(["pids.max", "pids.max"])? == "4096", "processes");
    Ok(())
}

/// A pod that takes more memory than it may have is killed, and the API says why.
pub(crate) fn end_what_wants_more(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&pod("greedy", "32Mi", GREEDY))?;
    let path = "jsonpath={.status.containerStatuses[0].state.terminated.reason}";
    eventually("it is killed for want of memory", || {
        Ok(cluster.kubectl(&["get", "pod/greedy", "-o", path])? == "OOMKilled")
    })
}

pub(crate) fn usage_is_told() -> anyhow::Result<()> {
    let busy = "while :; do :; done";
    let cluster = Cluster::running("usage", &pod("busy", "64Mi", busy))?;
    eventually("a pod's usage is known", || {
        let pods = cluster.kubectl(&["top", "pods", "-A", "--containers", "--no-headers"])?;
        let words: Vec<&str> = pods.split_whitespace().collect();
        let [_, "busy", "sh", cpu, memory] = words[..] else { return Ok(false) };
        // It is limited to half a CPU where limits are enforced; and it has one, if nobody else does.
        let cpu: u32 = cpu.strip_suffix('m').context("no CPU")?.parse()?;
        ensure!((1..=1100).contains(&cpu) && memory.ends_with("Mi"), "{pods}");
        Ok(true)
    })?;
    let nodes = cluster.kubectl(&["top", "nodes", "--no-headers"])?;
    let words: Vec<&str> = nodes.split_whitespace().collect();
    let [_, _, _, memory, share] = words[..] else { bail!("{nodes}") };
    ensure!(memory.ends_with("Mi") && share.ends_with('%'), "{nodes}");
    let one =
        cluster.kubectl(&["get", "podmetrics", "busy", "-o", "jsonpath={.containers[0].name}"])?;
    ensure!(one == "sh", "{one}");
    Ok(())
}
