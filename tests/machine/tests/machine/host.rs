//! What can be seen of the host: processes, links, routes, mounts, namespaces.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

/// A process, by its id and what it was called with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) command: String,
}

/// The processes whose command line has every one of `words`.
pub(crate) fn processes(words: &[&str]) -> anyhow::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse::<i32>().ok()) else {
            continue;
        };
        // Ended between the listing and the look, or a kernel thread.
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
        if !command.is_empty() && words.iter().all(|it| command.contains(it)) {
            found.push(Process { pid, command });
        }
    }
    found.sort();
    Ok(found)
}

/// kill -9.
pub(crate) fn kill(pid: i32) -> anyhow::Result<()> {
    let id = Pid::from_raw(pid).context("a process id")?;
    rustix::process::kill_process(id, Signal::KILL).with_context(|| format!("kill {pid}"))
}

/// Whether a process lives; a zombie does not.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|it| it != 'Z' && it != 'X')
}

/// Everything on the host that a cluster could leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    links: BTreeSet<String>,
    routes: BTreeSet<String>,
    rules: String,
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    resolver: String,
}

impl Snapshot {
    pub(crate) fn take() -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self {
            links: names("/sys/class/net")?,
            routes: fs::read_to_string("/proc/net/route")?.lines().map(str::to_owned).collect(),
            rules: rules(),
            mounts: mounts.lines().map(str::to_owned).collect(),
            cgroups: cgroups(),
            namespaces: namespaces()?,
            resolver: fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        })
    }
}

/// The host's nftables rules, where the tool is installed and we may look.
fn rules() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output();
    output.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default()
}

fn names(folder: &str) -> anyhow::Result<BTreeSet<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {folder}"))?;
    entries.map(|it| Ok(it?.file_name().to_string_lossy().into_owned())).collect()
}

/// Control groups as we call ours, with all in them: the machine makes and removes others at any time.
fn cgroups() -> BTreeSet<String> {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|it| it.is_dir()) {
                found.insert(entry.path().display().to_string());
                walk(&entry.path(), found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), &mut found);
    found.retain(|it| it.contains("/coracle"));
    found
}

/// Every namespace that a process of ours is in.
fn namespaces() -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for process in processes(&[])? {
        for kind in ["net", "mnt", "user", "ipc", "uts", "pid"] {
            let path = format!("/proc/{}/ns/{kind}", process.pid);
            // Not ours to look at, or gone.
            if let Ok(target) = fs::read_link(path) {
                found.insert(target.display().to_string());
            }
        }
    }
    Ok(found)
}
