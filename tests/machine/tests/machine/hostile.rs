//! Containers that mean ill: what they may, what they find of others, and what they can take.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{
    clean::unchanged,
    cluster::{Cluster, eventually, said},
    host::Snapshot,
    images::{PACKED, field, has, pack, pod, shown},
    limits,
    run::must,
};

/// Most processes and threads of a pod, or without control groups of a container.
const PIDS_MAX: u64 = 4096;

/// Most bytes of a log: five files of 10 MiB.
const LOG_BYTES_MAX: u64 = 5 * (10 << 20);

/// A profile under which nobody changes modes.
const PROFILE: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    {"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}"#;

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A pod that shows its rights, with further fields of the container and of the pod.
fn rights(name: &str, word: &str, of_container: &str, of_pod: &str) -> String {
    pod(name, PACKED, &["probe", "rights", word], of_container)
        .replace("spec:\n", &format!("spec:\n{of_pod}"))
}

/// Everything that goes beyond a plain container, and what is refused.
pub(crate) fn what_pods_may_is_what_they_ask_for() -> anyhow::Result<()> {
    let cluster = Cluster::new("rights")?;
    pack(&cluster)?;
    let profiles = cluster.state().join("seccomp/team");
    fs::create_dir_all(&profiles)?;
    fs::write(profiles.join("still.json"), PROFILE)?;
    let profile = |name: &str| {
        format!(
            "securityContext: {{seccompProfile: {{type: Localhost, localhostProfile: {name}}}}}"
        )
    };
    let sysctl = |name: &str, value: &str| format!("{{name: {name}, value: '{value}'}}");
    // `pod` has the field already.
    let sysctls = |list: &[String], text: String| {
        let all = format!("{{fsGroup: 2000, sysctls: [{}]}}", list.join(", "));
        text.replace("{fsGroup: 2000}", &all)
    };
    let net =
        [sysctl("net.ipv4.ip_local_port_range", "20000 30000"), sysctl("net.core.somaxconn", "77")];
    let ipc = sysctl("kernel.shm_rmid_forced", "1");
    let text = [
        rights("privileged", "-", "securityContext: {privileged: true}", ""),
        rights("profile", "-", &profile("team/still.json"), ""),
        rights("no-profile", "-", &profile("team/none.json"), ""),
        rights("terminal", "-", "tty: true\n    stdin: true", ""),
        rights("processes", "coracle keeper", "", "  hostPID: true\n"),
        rights("ipc", "-", "", "  hostIPC: true\n"),
        rights("ipc-and-network", "-", "", "  hostIPC: true\n  hostNetwork: true\n"),
        rights("shared", "coracle pause", "", "  shareProcessNamespace: true\n"),
        sysctls(&net, rights("sysctls", "-", "", "")),
        sysctls(&[ipc], rights("of-ipc", "-", "", "")),
        sysctls(&[sysctl("vm.swappiness", "1")], rights("of-all", "-", "", "")),
    ];
    cluster.coracle(&["up", "--detach"])?;
    cluster.apply(&text.concat())?;
    let log = shown(&cluster, "privileged")?;
    has(&log, "status Seccomp:\t0")?;
    // Without root the kernel makes nobody a device file.
    has(&log, if is_root() { "device ok" } else { "device Operation not permitted" })?;
    has(&log, "chmod ok")?;
    let log = shown(&cluster, "profile")?;
    has(&log, "chmod Operation not permitted")?;
    has(
        &log,
        if is_root() { "device Permission denied" } else { "device Operation not permitted" },
    )?;
    has(&shown(&cluster, "terminal")?, "terminal true true")?;
    let log = shown(&cluster, "processes")?;
    ensure!(!log.contains("others 0\n"), "it does not see the machine's processes:\n{log}");
    has(&shown(&cluster, "shared")?, "others 1")?;
    let ipc = fs::read_link("/proc/self/ns/ipc")?.display().to_string();
    let shared = Path::new("/dev/shm").exists();
    for name in ["ipc", "ipc-and-network"] {
        has(&shown(&cluster, name)?, &format!("ipc {ipc} {shared}"))?;
    }
    ensure!(!shown(&cluster, "shared")?.contains(&ipc), "a pod shares IPC unasked");
    let proc = rustix::fs::statvfs("/proc/sys")?.f_flag;
    // In some containers the kernel's parameters can only be read.
    if !proc.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        let log = shown(&cluster, "sysctls")?;
        has(&log, "sysctl net/ipv4/ip_local_port_range 20000 30000")?;
        has(&log, "sysctl net/core/somaxconn 77")?;
        if is_root() {
            has(&shown(&cluster, "of-ipc")?, "sysctl kernel/shm_rmid_forced 1")?;
        } else {
            told(&cluster, "of-ipc", "only a cluster of root's may set it")?;
        }
    }
    let status = ["get", "pod", "of-all", "-o", "jsonpath={.status.phase} {.status.reason}"];
    eventually("it is refused", || Ok(cluster.kubectl(&status)? == "Failed SysctlForbidden"))?;
    told(&cluster, "of-all", "forbidden sysctl: \"vm.swappiness\" not allowlisted")?;
    told(&cluster, "no-profile", "seccomp/team/none.json")
}

/// An event of the pod says this.
fn told(cluster: &Cluster, name: &str, words: &str) -> anyhow::Result<()> {
    let mut events = String::new();
    eventually("an event says it", || {
        events = cluster.kubectl(&["events", "--for", &format!("pod/{name}")])?;
        Ok(events.contains(words))
    })
    .with_context(|| format!("no `{words}` in:\n{events}"))
}

/// As root of the image, beside a pod with a secret.
pub(crate) fn image_pods_find_nothing_of_others() -> anyhow::Result<()> {
    let cluster = Cluster::new("spies")?;
    pack(&cluster)?;
    // In no program.
    let halves = [fastrand::u64(..), fastrand::u64(..)].map(|it| format!("{it:016x}"));
    let [one, two] = &halves;
    let secret = format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: words}}
stringData: {{words: w{one}{two}}}
---
"
    );
    let from = "{secretKeyRef: {name: words, key: words}}";
    let owner = pod(
        "owner",
        PACKED,
        &["probe", "show"],
        &format!("env: [{{name: WORDS, valueFrom: {from}}}]"),
    )
    .replace("volumeMounts: [", "volumeMounts: [{name: words, mountPath: /words}, ")
    .replace("volumes: [", "volumes: [{name: words, secret: {secretName: words}}, ");
    let program = std::env::current_exe()?;
    let paths = [
        cluster.data(),
        cluster.state(),
        cluster.run_folder(),
        cluster.commands(),
        program,
        PathBuf::from("/etc/shadow"),
        PathBuf::from("/usr/bin/env"),
        PathBuf::from("/var/lib/dpkg"),
    ];
    let paths: Vec<String> = paths.iter().map(|it| it.display().to_string()).collect();
    let mut arguments = vec!["probe", "spy", one, two];
    arguments.extend(paths.iter().map(String::as_str));
    let spy = pod("spy", PACKED, &arguments, "");
    let shared = pod("shared", PACKED, &arguments, "")
        .replace("spec:\n", "spec:\n  shareProcessNamespace: true\n");
    cluster.write("app.yaml", &(secret + &owner))?;
    cluster.up()?;
    has(&shown(&cluster, "owner")?, &format!("env WORDS=w{one}{two}"))?;
    cluster.apply(&(spy + &shared))?;
    for name in ["spy", "shared"] {
        let mut log = String::new();
        eventually("it has looked everywhere", || {
            log = cluster.logs(&format!("pod/{name}"))?;
            Ok(log.contains("spied"))
        })?;
        ensure!(log == "spied\n", "{name} has found:\n{log}");
    }
    Ok(())
}

/// Entries of a folder.
fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// The folder with the logs of a pod's container.
fn logs(cluster: &Cluster, name: &str) -> anyhow::Result<PathBuf> {
    let uid = cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.metadata.uid}"])?;
    Ok(cluster.state().join(format!("logs/default_{name}_{uid}/probe")))
}

fn bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        // Renamed since.
        sum += entry?.metadata().map_or(0, |it| it.len());
    }
    Ok(sum)
}

/// CPU time that a process has used, in hundredths of a second.
fn ticks(pid: i32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("a process")?;
    let fields = rest.split(' ').skip(11).take(2).map(str::parse::<u64>);
    fields.sum::<Result<u64, _>>().context("CPU times")
}

/// Each takes one thing without end; a further pod is as well as ever, and all of them go.
pub(crate) fn containers_that_take_all_are_bounded() -> anyhow::Result<()> {
    let before = Snapshot::take()?;
    let cluster = Cluster::new("takers")?;
    pack(&cluster)?;
    cluster.coracle(&["up", "--detach"])?;
    let takers = ["shout", "fork", "mute", "fail"];
    let text: String = takers.iter().map(|it| pod(it, PACKED, &["probe", it], "")).collect();
    cluster.apply(&text)?;

    let shouted = logs(&cluster, "shout")?;
    let first = shouted.join("0.log.4");
    eventually("its log is rotated", || Ok(first.exists()))?;
    let (pid, again) = (cluster.pid()?, fs::metadata(&first)?);
    let used = ticks(pid)?;
    eventually("it goes on", || Ok(fs::metadata(&first)?.modified()? != again.modified()?))?;
    // One tick is a hundredth of a second; whatever the container does, nothing of it comes to this process.
    let used = ticks(pid)? - used;
    ensure!(used < 50, "the cluster process used {used} ticks while a log was written");
    let size = bytes(&shouted)?;
    ensure!(size <= LOG_BYTES_MAX, "its log has {size} bytes");
    told(&cluster, "shout", "the newest 50 MiB are kept")?;
    let tail = cluster.kubectl(&["logs", "shout", "--tail=5000"])?;
    ensure!(tail.lines().count() == 5000, "{} lines", tail.lines().count());

    let mut refused = String::new();
    eventually("no more processes begin", || {
        refused = cluster.kubectl(&["logs", "fork", "--tail=1"])?;
        Ok(refused.starts_with("refused after "))
    })?;
    let number =
        refused.split_whitespace().nth(2).and_then(|it| it.trim_end_matches(':').parse().ok());
    ensure!(number.is_some_and(|it: u64| it <= PIDS_MAX), "{refused}");
    // Only control groups tell who was refused.
    if limits::told(&cluster)?.split("not limited").next().is_some_and(|it| it.contains("pids")) {
        told(
            &cluster,
            "fork",
            "limit of 4096 processes and threads; container probe has the most",
        )?;
    }

    let path = "jsonpath={range .status.containerStatuses[*]}{.state.waiting.reason} \
                {.lastState.terminated.exitCode} {.state.waiting.message}{end}";
    eventually("it waits to be run again", || {
        let state = cluster.kubectl(&["get", "pod", "fail", "-o", path])?;
        Ok(state.starts_with("CrashLoopBackOff 3 back-off "))
    })?;
    ensure!(count(&logs(&cluster, "fail")?) <= 2, "the logs of old runs are kept");
    told(&cluster, "fail", "Back-off restarting failed container")?;
    let muted = cluster.kubectl(&["logs", "mute"])?;
    ensure!(
        muted == "mute from now on\n" && field(&cluster, "mute", "restartCount")? == "0",
        "{muted}"
    );

    cluster.apply(&pod("calm", PACKED, &["probe", "show"], ""))?;
    shown(&cluster, "calm")?;
    // All but one of them heed no SIGTERM: a first process without a handler does not get it.
    cluster.kubectl(&["delete", "pods", "--all", "--timeout=30s"])?;
    let folders = [
        cluster.state().join("logs"),
        cluster.state().join("pods"),
        cluster.run_folder().join("pods"),
    ];
    eventually("nothing of them is left", || Ok(folders.iter().all(|it| count(it) == 0)))?;
    drop(cluster);
    unchanged(&before)
}

/// A file system of its own for the images, as small as is good; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path, megabytes: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let size = format!("size={megabytes}m,mode=700");
        must(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder))?;
        Ok(Self(folder.to_owned()))
    }

    /// Bytes that may still be written, of so many.
    fn room(&self) -> anyhow::Result<(u64, u64)> {
        let found = rustix::fs::statvfs(&self.0)?;
        Ok((found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Dropped before the cluster, whose pods have it: it goes with the last of them.
        match Command::new("umount").arg("--lazy").arg(&self.0).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => println!("umount {}: {}", self.0.display(), said(&output)),
            Err(error) => println!("umount {}: {error}", self.0.display()),
        }
    }
}

/// Megabytes of the disk for images: this program packed and unpacked, thrice.
const DISK_MEGABYTES: u64 = 160;

/// What an image has beside this program: less than a tenth of the disk, packed and unpacked.
const BALLAST_BYTES: usize = 4 << 20;

/// Above 85 % unused images go and used ones stay; when nothing helps, it is said, and all else goes on.
/// Only root can mount a disk where another process sees it.
pub(crate) fn full_disk_is_named_and_survived() -> anyhow::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let cluster = Cluster::new("disk")?;
    let port = crate::run::free_port()?;
    let images = cluster.data().join("coracle/images");
    let disk = Disk::mount(&images, DISK_MEGABYTES)?;
    pack(&cluster)?;
    let _registry = crate::images::Registry::start(&cluster, port)?;
    let name = |it: &str| format!("localhost:{port}/team/{it}:1");
    let work = cluster.work();
    let build = |tag: &str, from: &str| {
        let ballast: Vec<u8> =
            std::iter::repeat_with(|| fastrand::u8(..)).take(BALLAST_BYTES).collect();
        fs::write(work.join("ballast"), ballast)?;
        fs::write(work.join("Dockerfile"), format!("FROM {from}\nCOPY ballast /\n"))?;
        cluster.coracle(&["image", "build", "-t", tag, &work.display().to_string()])
    };
    for it in ["one", "two"] {
        build(&name(it), PACKED)?;
        cluster.coracle(&["image", "push", &name(it)])?;
        if it == "two" {
            // The same under another name, whose first try waits for no other's failure.
            cluster.coracle(&["image", "push", &name(it), &name("three")])?;
        }
        cluster.coracle(&["image", "rm", &name(it)])?;
    }
    cluster.write("app.yaml", &pod("used", PACKED, &["probe", "show"], ""))?;
    cluster.up()?;
    shown(&cluster, "used")?;
    // An image that nobody runs, last used long ago.
    build("test/old:1", "scratch")?;
    let listed = || cluster.coracle(&["image", "ls"]);
    ensure!(listed()?.contains("test/old"), "no old image");
    for entry in fs::read_dir(images.join("blobs/sha256"))? {
        let blob = fs::File::options().write(true).open(entry?.path())?;
        let hour = std::time::Duration::from_secs(3600);
        blob.set_modified(blob.metadata()?.modified()? - hour)?;
    }
    // Nine tenths full.
    let (room, all) = disk.room()?;
    let filler = images.join("filler");
    fs::File::create(&filler)?;
    must(Command::new("fallocate").arg("-l").arg((room - all / 10).to_string()).arg(&filler))?;
    cluster.apply(&pod("pulled", &name("one"), &["probe", "show"], ""))?;
    shown(&cluster, "pulled")?;
    let left = listed()?;
    ensure!(!left.contains("test/old"), "it is still there:\n{left}");
    ensure!(left.contains("test/packed") && left.contains("team/one"), "{left}");

    let (room, _) = disk.room()?;
    let last = images.join("last");
    fs::File::create(&last)?;
    must(Command::new("fallocate").arg("-l").arg(room.to_string()).arg(&last))?;
    cluster.coracle(&["image", "ls"])?;
    cluster.apply(&pod("late", &name("two"), &["probe", "show"], ""))?;
    let mut message = String::new();
    eventually("it says that the disk is full", || {
        message = field(&cluster, "late", "state.waiting.message")?;
        Ok(message.contains("No space left on device"))
    })
    .with_context(|| message.clone())?;
    fs::remove_file(&last)?;
    fs::remove_file(&filler)?;
    cluster.apply(&pod("later", &name("three"), &["probe", "show"], ""))?;
    shown(&cluster, "later")?;
    for it in ["used", "pulled"] {
        ensure!(field(&cluster, it, "restartCount")? == "0", "{it} was restarted");
    }
    Ok(())
}
