//! Containers under profiles of AppArmor: where the kernel has it, and the profile of this test, which
//! `cargo xtask soak v2` loads into a machine of its own.

use std::fs;

use anyhow::{Context as _, ensure};

use crate::{
    clean::unchanged,
    cluster::{Cluster, eventually},
    host::Snapshot,
    users::{build, event},
};

/// What the kernel has loaded, one profile a line.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// The profile of `tests/machine/apparmor`, as the kernel tells of it.
const CONFINED: &str = "coracle-test (enforce)";

/// Its use, in a pod or a container.
const OWN: &str = "appArmorProfile: {type: Localhost, localhostProfile: coracle-test}";

/// What a container finds.
const FIND: &str = "echo under $(cat /proc/self/attr/current)
      echo > /allowed && echo allowed
      echo > /forbidden && echo not refused || echo refused
      echo shown; exec sleep 1000";

/// Finds a profile if it runs under one.
const PROBE: &str = "
    readinessProbe:
      periodSeconds: 1
      exec: {command: [/bin/grep, coracle-test, /proc/self/attr/current]}";

/// What would be told of the profile in place of the kernel.
const FOOLED: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: fooled}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: fake
    image: test/users:1
    command: [/bin/sh, -c, 'mkdir -p /fake/self/attr/apparmor; touch /fake/self/attr/apparmor/exec']
    volumeMounts: [{name: fake, mountPath: /fake}]
  containers:
  - name: root
    image: test/users:1
    command: [/bin/sleep, '1000']
    securityContext: {OWN}
    volumeMounts: [{name: fake, mountPath: /proc}]
  volumes: [{name: fake, emptyDir: {}}]
";

fn pod(name: &str, security: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {{{security}}}
  containers:
"
    )
}

fn container(name: &str, security: &str, more: &str) -> String {
    format!(
        "  - name: {name}
    image: test/users:1
    command:
    - /bin/sh
    - -c
    - |
      {FIND}
    securityContext: {{{security}}}{more}
"
    )
}

/// Every way to come by a profile or by none.
fn pods() -> String {
    let kept = "allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}";
    [
        pod("confined", OWN),
        container("of-pod", "", PROBE),
        container("kept", kept, PROBE),
        container("free", "appArmorProfile: {type: Unconfined}", ""),
        container("default", "appArmorProfile: {type: RuntimeDefault}", ""),
        container("privileged", "privileged: true", ""),
        pod("alone", ""),
        container("own", OWN, PROBE),
        container("other", "", ""),
        pod("not-loaded", ""),
        container("root", &OWN.replace("coracle-test", "nobody-has-it"), ""),
        FOOLED.replace("OWN", OWN),
    ]
    .concat()
}

/// Whether the profile of this test is loaded, which only root can see.
pub(crate) fn can_be() -> bool {
    fs::read_to_string(LOADED).is_ok_and(|it| it.lines().any(|line| line == CONFINED))
}

/// Containers and their probes.
pub(crate) fn profiles_confine_containers() -> anyhow::Result<()> {
    let before = Snapshot::take()?;
    let cluster = Cluster::new("apparmor")?;
    build(&cluster)?;
    // Not by `up`, which waits until all of them are ready.
    cluster.write("app.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none}\n")?;
    cluster.up()?;
    cluster.apply(&pods())?;
    // By their probes, which look for the profile.
    for pod in ["pod/confined", "pod/alone"] {
        cluster.kubectl(&["wait", "--for=condition=Ready", pod, "--timeout=60s"])?;
    }
    let confined = [("confined", "of-pod"), ("confined", "kept"), ("alone", "own")];
    let free = [
        ("confined", "free"),
        ("confined", "default"),
        ("confined", "privileged"),
        ("alone", "other"),
    ];
    for (list, profile, write) in
        [(&confined[..], CONFINED, "refused"), (&free[..], "unconfined", "not refused")]
    {
        for (pod, container) in list {
            let mut log = String::new();
            eventually("the container has shown all", || {
                log = cluster.kubectl(&["logs", pod, "--container", container])?;
                Ok(log.contains("shown"))
            })
            .with_context(|| format!("{pod}, {container}: {log}"))?;
            for line in [&format!("under {profile}"), "allowed", write] {
                ensure!(log.lines().any(|it| it == line), "{pod}, {container}: {log}");
            }
        }
    }
    event(&cluster, "not-loaded", "cannot use the AppArmor profile `nobody-has-it`: the kernel")?;
    event(&cluster, "fooled", "cannot use the AppArmor profile `coracle-test`")?;
    event(&cluster, "fooled", "in the container is not the kernel's")?;
    let started = "jsonpath={.items[*].status.containerStatuses[*].state.running}";
    for pod in ["not-loaded", "fooled"] {
        let of_pod = format!("--field-selector=metadata.name={pod}");
        let started = cluster.kubectl(&["get", "pods", &of_pod, "--output", started])?;
        ensure!(started.is_empty(), "{pod} runs: {started}");
    }
    drop(cluster);
    unchanged(&before)
}
