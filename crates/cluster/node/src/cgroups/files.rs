//! The files of control groups: what is written to limit one, and how one is emptied and removed.

use std::{fs, io, path::Path, time::Duration};

use rustix::process::{Pid, Signal};

use super::{
    Error,
    amounts::{Amounts, PERIOD},
    detect::{Controller, Hierarchy, Version},
};

/// A file of a group and what is written to it.
pub(super) type Setting = (&'static str, String);

/// The file that says which controllers the groups in a group of version 2 have.
const SUBTREE: &str = "cgroup.subtree_control";

/// How often, and how long between, a group is tried to be removed whose processes were killed: the
/// kernel lets go of them some moments later.
const REMOVES_MAX: u32 = 200;
const REMOVE_RETRY: Duration = Duration::from_millis(5);

/// How a group gets these amounts in this hierarchy, in the order in which the kernel takes it.
#[must_use]
pub(super) fn settings(hierarchy: &Hierarchy, amounts: &Amounts) -> Vec<Setting> {
    let mut list = Vec::new();
    let has = |it| hierarchy.controllers.contains(&it);
    match hierarchy.version {
        Version::One => {
            if has(Controller::Cpu) {
                list.push(("cpu.shares", amounts.shares().to_string()));
                list.push(("cpu.cfs_period_us", PERIOD.to_string()));
                let quota = amounts.quota().map_or_else(|| "-1".to_owned(), |it| it.to_string());
                list.push(("cpu.cfs_quota_us", quota));
            }
            if let Some(bytes) = amounts.memory().filter(|_| has(Controller::Memory)) {
                list.push(("memory.limit_in_bytes", bytes.to_string()));
                // With swap: a kubelet gives pods none.
                list.push(("memory.memsw.limit_in_bytes", bytes.to_string()));
            }
        }
        Version::Two => {
            if has(Controller::Cpu) {
                list.push(("cpu.weight", amounts.weight().to_string()));
                let quota = amounts.quota().map_or_else(|| "max".to_owned(), |it| it.to_string());
                list.push(("cpu.max", format!("{quota} {PERIOD}")));
            }
            if let Some(bytes) = amounts.memory().filter(|_| has(Controller::Memory)) {
                list.push(("memory.max", bytes.to_string()));
                list.push(("memory.swap.max", "0".to_owned()));
            }
        }
    }
    list
}

/// Of these settings, those that the hierarchy's controller of processes has.
pub(super) fn only_pids(
    hierarchy: &Hierarchy,
    settings: impl IntoIterator<Item = Setting>,
) -> Vec<Setting> {
    let has = hierarchy.controllers.contains(&Controller::Pids);
    settings.into_iter().filter(|_| has).collect()
}

/// Writes settings of a group.
pub(super) fn limit(folder: &Path, settings: &[Setting]) -> Result<(), Error> {
    for (file, value) in settings {
        let path = folder.join(file);
        match fs::write(&path, value) {
            // Kernels without accounting of swap lack its files.
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_of_swap(file) => {}
            Err(error) => return Err(Error::of(&path)(error)),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn is_of_swap(file: &str) -> bool {
    file.contains("swap") || file.contains("memsw")
}

/// Lets the kernel, when it kills one process of a container for want of memory, kill all: half a
/// container is of no use. As a kubelet does.
pub(super) fn kill_together(folder: &Path) -> Result<(), Error> {
    let path = folder.join("memory.oom.group");
    match fs::write(&path, "1") {
        // No controller of memory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::of(&path)),
    }
}

/// Gives the groups in a group of version 2 these controllers.
pub(super) fn enable(folder: &Path, controllers: &[Controller]) -> io::Result<()> {
    let missing = missing(folder, controllers)?;
    if missing.is_empty() { Ok(()) } else { fs::write(folder.join(SUBTREE), missing.join(" ")) }
}

/// Whether they have them.
pub(super) fn has_enabled(folder: &Path, controllers: &[Controller]) -> bool {
    missing(folder, controllers).is_ok_and(|it| it.is_empty())
}

/// What there is to write to enable these.
fn missing(folder: &Path, controllers: &[Controller]) -> io::Result<Vec<String>> {
    let enabled = fs::read_to_string(folder.join(SUBTREE))?;
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    let missing = controllers
        .iter()
        .filter(|it| **it != Controller::Cpuacct && !enabled.contains(&it.name()))
        .map(|it| format!("+{}", it.name()));
    Ok(missing.collect())
}

/// Takes all controllers from the groups in a group of version 2.
pub(super) fn disable(folder: &Path) -> io::Result<()> {
    let path = folder.join(SUBTREE);
    let enabled = fs::read_to_string(&path)?;
    let all: Vec<String> = enabled.split_whitespace().map(|it| format!("-{it}")).collect();
    if all.is_empty() { Ok(()) } else { fs::write(path, all.join(" ")) }
}

/// Kills what is in a group and in those below, and removes them. Blocks until the kernel has let go,
/// for a second at most.
pub(super) fn remove(folder: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::of(folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::of(folder))?;
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            remove(&entry.path())?;
        }
    }
    let mut result = fs::remove_dir(folder);
    for _ in 0..REMOVES_MAX {
        match &result {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            _ => break,
        }
        kill(folder);
        std::thread::sleep(REMOVE_RETRY);
        result = fs::remove_dir(folder);
    }
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::of(folder)(error)),
        _ => Ok(()),
    }
}

fn kill(folder: &Path) {
    // Not there in version 1.
    if fs::write(folder.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|it| Pid::from_raw(it.parse().ok()?)) {
        // It fails only if the process has ended already.
        rustix::process::kill_process(pid, Signal::KILL).ok();
    }
}
