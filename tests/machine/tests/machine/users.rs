//! Pods with users of their own (`hostUsers: false`): only root needs them, as an ordinary user's containers
//! have a user namespace anyhow.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
};

use anyhow::{Context as _, ensure};

use crate::{
    clean::{belongings, unchanged},
    cluster::{Cluster, IMAGE, eventually, said},
    host::{Snapshot, kill, processes},
};

/// What `busybox-static` installs.
const BUSYBOX: &str = "/bin/busybox";

/// The image that is built.
const BUILT: &str = "test/users:1";
const DOCKERFILE: &str = r#"FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY --chown=1000:1001 given /srv/given
RUN mkdir /etc /tmp; chmod 1777 /tmp; echo root:x:0:0:root:/:/bin/sh > /etc/passwd; \
    echo web:x:1000:1001:web:/srv:/bin/sh >> /etc/passwd
"#;

/// The locks of the ranges that pods have.
const IDS: &str = "/run/coracle-ids";

/// What all kinds of volumes and containers come to; `HOST` is a folder of the host.
const PODS: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {word: hello}
---
apiVersion: v1
kind: Secret
metadata: {name: words}
stringData: {word: hush}
---
apiVersion: v1
kind: Pod
metadata: {name: one}
spec:
  hostUsers: false
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000, supplementalGroups: [3000]}
  initContainers:
  - name: first
    image: test/users:1
    command: [/bin/sh, -c]
    args: ['readlink /proc/self/ns/user > /disk/first; readlink /proc/self/ns/net >> /disk/first']
    volumeMounts: [{name: disk, mountPath: /disk}]
  containers:
  - name: root
    image: test/users:1
    command: [/bin/sh, -c]
    args:
    - |
      set -- $(cat /proc/self/uid_map) $(cat /proc/self/gid_map); echo map $1 $3 $4 $6, $(( $2 == $5 ))
      cd /; stat -c '%n %u:%g %a' srv/given disk memory config/..data/word secret/..data/word
      stat -c '%n %u:%g' host/own host/web host/stranger
      [ "$(cat /disk/first)" = "$(readlink /proc/self/ns/user; readlink /proc/self/ns/net)" ] && echo one namespace
      cat host/own; cat host/stranger || echo stranger is shut
      echo from root > host/made; touch disk/root memory/root; echo changed > srv/given
      chown 1000:1001 host/made && mkdir shut && chmod 700 shut && chown 500 shut && stat -c '%n %u' shut
      ip link set lo mtu 9000 && ip link | grep -q 'mtu 9000' && echo network is own
      echo ping $(cat /proc/sys/net/ipv4/ping_group_range)
      mknod /tmp/disk b 8 0 || echo no devices
      echo last words > /dev/termination-log
      echo shown > /dev/stdout; exec sleep 1000
    securityContext: {capabilities: {add: [NET_ADMIN]}}
    volumeMounts: &mounts
    - {name: disk, mountPath: /disk}
    - {name: memory, mountPath: /memory}
    - {name: config, mountPath: /config}
    - {name: secret, mountPath: /secret}
    - {name: host, mountPath: /host}
  - name: web
    image: test/users:1
    securityContext: {runAsUser: 1000}
    command: [/bin/sh, -c]
    args:
    - |
      id; echo mine > /srv/given && echo given is mine; cat /config/word; echo; cat /secret/word; echo
      until [ -e /memory/root ]; do sleep 0.1; done; touch /disk/web
      stat -c '%n %u:%g' /disk/web /disk/root /memory/root; cat /host/web; cat /host/own || echo own is shut
      echo shown; exec sleep 1000
    livenessProbe:
      exec: {command: [/bin/sh, -c, 'stat -c %u /proc/self/ > /disk/probe; id -u >> /disk/probe']}
      periodSeconds: 1
    volumeMounts: *mounts
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: config, configMap: {name: words}}
  - {name: secret, secret: {secretName: words, defaultMode: 0400}}
  - {name: host, hostPath: {path: HOST}}
---
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 1
  securityContext: {sysctls: [{name: kernel.msgmax, value: '4321'}, {name: net.core.somaxconn, value: '77'}]}
  containers:
  - name: root
    image: test/users:1
    command: [/bin/sh, -c]
    args:
    - |
      cat /proc/sys/kernel/msgmax /proc/sys/net/core/somaxconn
      mkdir /m; mount -t tmpfs none /m && echo mounted; mount -t proc proc /m && echo processes mounted
      (echo 1 > /proc/sys/kernel/printk) || echo machine is shut; cat /dev/kmsg || echo log is shut
      hostname other && hostname; echo 5 > /proc/sys/net/core/somaxconn && cat /proc/sys/net/core/somaxconn
      echo shown; exec sleep 1000
    securityContext: {privileged: true}
"#;

fn write(path: &Path, text: &str, owner: u32) -> anyhow::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(chown(path, Some(owner), Some(owner))?)
}

fn lines(cluster: &Cluster, pod: &str, container: &str, expected: &[&str]) -> anyhow::Result<()> {
    let mut log = String::new();
    eventually("the container has shown all", || {
        log = cluster.kubectl(&["logs", pod, "--container", container])?;
        Ok(log.contains("shown"))
    })
    .with_context(|| format!("{pod}, {container}: {log}"))?;
    for line in expected {
        ensure!(log.lines().any(|it| it == *line), "{container} says no `{line}`:\n{log}");
    }
    Ok(())
}

/// The first id, outside, of each user namespace that the pods' programs are in.
fn ranges() -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for process in processes(&["sleep 1000"])? {
        let map = fs::read_to_string(format!("/proc/{}/uid_map", process.pid))?;
        let mut numbers = map.split_ascii_whitespace().map(str::parse::<u32>);
        let (Some(Ok(0)), Some(Ok(start)), Some(Ok(65_536)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            continue;
        };
        let owner = fs::metadata(format!("/proc/{}", process.pid))?.uid();
        ensure!([start, start + 1000].contains(&owner), "{process:?} is run by {owner}");
        found.push(start);
    }
    found.sort_unstable();
    Ok(found)
}

/// Owners and users in and outside, of all kinds of volumes; then killed, adopted, and gone.
pub(crate) fn pods_have_users_of_their_own() -> anyhow::Result<()> {
    let before = Snapshot::take()?;
    let cluster = Cluster::new("users")?;
    build(&cluster)?;
    let host = cluster.data().join("host");
    fs::create_dir(&host)?;
    fs::set_permissions(&host, fs::Permissions::from_mode(0o777))?;
    for (name, owner) in [("own", 0), ("web", 1000), ("stranger", 70_000)] {
        write(&host.join(name), &format!("file of {name}\n"), owner)?;
    }
    cluster.write("app.yaml", &PODS.replace("HOST", &host.display().to_string()))?;
    cluster.up()?;
    seen_inside(&cluster)?;
    let made = fs::metadata(host.join("made"))?;
    ensure!((made.uid(), made.gid()) == (1000, 1001), "{made:?}");
    let disk = pod_folder(&cluster, "one")?.join("volumes/disk");
    eventually("the probe has run", || Ok(disk.join("probe").exists()))?;
    let mut probe = String::new();
    eventually("it is a user of the pod", || {
        probe = fs::read_to_string(disk.join("probe"))?;
        Ok(probe == "1000\n1000\n")
    })
    .with_context(|| probe)?;
    let found = ranges()?;
    let [one, again, two] = found.as_slice() else { anyhow::bail!("{found:?}") };
    ensure!(one == again && again != two || one != again && again == two, "{found:?}");
    ensure!(fs::read_dir(IDS)?.count() == 2, "not two ranges are taken");

    killed_and_adopted(&cluster)?;
    cluster.kubectl(&["delete", "pod", "two", "--grace-period=0", "--force"])?;
    eventually("its range is given back", || Ok(fs::read_dir(IDS)?.count() == 1))?;
    cluster.coracle(&["down", "--delete"])?;
    eventually("all processes are gone", || Ok(belongings(&cluster)?.is_empty()))?;
    ensure!(!cluster.state().exists() && !cluster.run_folder().exists(), "folders are left");
    ensure!(!Path::new(IDS).exists(), "ranges are left");
    unchanged(&before)
}

/// What the containers have found, in the pods and on the volumes.
fn seen_inside(cluster: &Cluster) -> anyhow::Result<()> {
    lines(
        cluster,
        "one",
        "root",
        &[
            "map 0 65536 0 65536, 1",
            "srv/given 1000:1001 644",
            "disk 0:2000 2777",
            "memory 0:2000 2777",
            "config/..data/word 0:2000 644",
            "secret/..data/word 0:2000 440",
            "host/own 0:0",
            "host/web 1000:1000",
            "host/stranger 65534:65534",
            "one namespace",
            "file of own",
            "stranger is shut",
            "shut 500",
            "network is own",
            "ping 0 0",
            "no devices",
        ],
    )?;
    lines(
        cluster,
        "one",
        "web",
        &[
            "uid=1000(web) gid=1001 groups=1001,2000,3000",
            "given is mine",
            "hello",
            "hush",
            "/disk/web 1000:2000",
            "/disk/root 0:2000",
            "/memory/root 0:2000",
            "file of web",
            "own is shut",
        ],
    )?;
    let shut = ["machine is shut", "log is shut"];
    let own = ["4321", "77", "mounted", "processes mounted", "other", "5"];
    lines(cluster, "two", "root", &[&own[..], &shut].concat())
}

pub(crate) fn build(cluster: &Cluster) -> anyhow::Result<()> {
    let context = cluster.data().join("context");
    fs::create_dir(&context)?;
    fs::copy(BUSYBOX, context.join("busybox")).context("copy busybox (busybox-static)")?;
    fs::write(context.join("given"), "")?;
    fs::write(context.join("Dockerfile"), DOCKERFILE)?;
    cluster.coracle(&["image", "build", "-t", BUILT, &context.display().to_string()]).map(drop)
}

fn pod_folder(cluster: &Cluster, name: &str) -> anyhow::Result<std::path::PathBuf> {
    let uid = cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.metadata.uid}"])?;
    Ok(cluster.state().join("pods").join(uid))
}

/// The cluster process is killed: the pods keep their ranges, and others get none of them. A killed
/// container is started again in the same.
fn killed_and_adopted(cluster: &Cluster) -> anyhow::Result<()> {
    let before = (processes(&["sleep 1000"])?, ranges()?);
    kill(cluster.pid()?)?;
    eventually("the cluster process is gone", || {
        Ok(cluster.status()?.get("running") == Some(&false.into()))
    })?;
    cluster.coracle(&["up", "--detach"])?;
    let after = (processes(&["sleep 1000"])?, ranges()?);
    ensure!(before == after, "not adopted: {after:?} in place of {before:?}");
    let third = "apiVersion: v1\nkind: Pod\nmetadata: {name: three}\nspec:\n  hostUsers: false\n  \
                 terminationGracePeriodSeconds: 1\n  containers:\n  - name: root\n    image: test/users:1\n    \
                 command: [/bin/sleep, '1000']\n";
    cluster.apply(third)?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/three", "--timeout=30s"])?;
    let mut distinct = ranges()?;
    distinct.dedup();
    ensure!(distinct.len() == 3, "{distinct:?}");
    let pid = processes(&["sleep 1000"])?
        .into_iter()
        .find(|it| before.0.iter().all(|old| old.pid != it.pid))
        .context("the third pod's process")?
        .pid;
    let own = fs::read_link(format!("/proc/{pid}/ns/user"))?;
    kill(pid)?;
    let mut now = None;
    eventually("it runs again", || {
        let all = processes(&["sleep 1000"])?;
        now = all
            .into_iter()
            .map(|it| it.pid)
            .find(|it| *it != pid && before.0.iter().all(|old| old.pid != *it));
        Ok(now.is_some())
    })?;
    let pid = now.context("the process that runs again")?;
    ensure!(fs::read_link(format!("/proc/{pid}/ns/user"))? == own, "it has another namespace");
    cluster.kubectl(&["delete", "pod", "three"]).map(drop)
}

/// What cannot be had is said in words that name it.
pub(crate) fn users_that_cannot_be_had_are_refused() -> anyhow::Result<()> {
    let cluster = Cluster::new("refused-users")?;
    build(&cluster)?;
    // Only what is linked.
    cluster.write("app.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none}\n")?;
    cluster.up()?;
    let pod = |name: &str, image: &str, fields: &str, mounts: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  hostUsers: false
  {fields}
  containers:
  - name: root
    image: {image}
    command: [/bin/sleep, '1000']
    {mounts}
"
        )
    };
    let mut command = cluster.kubectl_command(&["apply", "-f", "-"])?;
    let file = cluster.work().join("network.yaml");
    fs::write(&file, pod("network", BUILT, "hostNetwork: true", ""))?;
    let output = command.stdin(fs::File::open(file)?).output()?;
    let words = "spec.hostNetwork: Forbidden: when `hostUsers` is false";
    ensure!(!output.status.success() && said(&output).contains(words), "{}", said(&output));

    cluster.apply(&pod("linked", IMAGE, "", ""))?;
    event(&cluster, "linked", "linked source runs as the invoking user")?;
    // Of the kernel, which knows no owners on it.
    let volumes = "volumes: [{name: kernel, hostPath: {path: /sys/kernel}}]";
    let mounts = "volumeMounts: [{name: kernel, mountPath: /kernel}]";
    cluster.apply(&pod("volume", BUILT, volumes, mounts))?;
    event(&cluster, "volume", "cannot mount `/sys/kernel`")?;
    event(&cluster, "volume", "`hostUsers: false`")
}

/// How many user namespaces there may be: of the whole machine, which nobody else uses.
const NAMESPACES_MAX: &str = "/proc/sys/user/max_user_namespaces";

/// A machine that has no user namespaces says so; when it has, the pod starts.
pub(crate) fn users_that_the_kernel_forbids_are_named() -> anyhow::Result<()> {
    let cluster = Cluster::new("forbidden-users")?;
    build(&cluster)?;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: one}\nspec:\n  hostUsers: false\n  \
               terminationGracePeriodSeconds: 1\n  containers:\n  - name: root\n    image: test/users:1\n    \
               command: [/bin/sleep, '1000']\n";
    cluster.write("app.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none}\n")?;
    cluster.up()?;
    let before = fs::read_to_string(NAMESPACES_MAX)?;
    fs::write(NAMESPACES_MAX, "0")?;
    cluster.apply(pod)?;
    event(&cluster, "one", "FailedCreatePodSandBox")?;
    event(&cluster, "one", "user.max_user_namespaces")?;
    fs::write(NAMESPACES_MAX, before)?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/one", "--timeout=60s"]).map(drop)
}

pub(crate) fn event(cluster: &Cluster, pod: &str, words: &str) -> anyhow::Result<()> {
    let mut events = String::new();
    eventually("an event says why", || {
        events = cluster.kubectl(&["events", "--for", &format!("pod/{pod}")])?;
        Ok(events.contains(words))
    })
    .with_context(|| format!("no `{words}` in {events}"))
}
