//! Control groups of the node's pods: `coracle-NAME/podUID/CONTAINER.ATTEMPT`, in each hierarchy.
//!
//! All that is known of groups is their names, so a new process finds what an old one made. A
//! kubelet has one more level, a group per class of service; it limits nothing that the shares of
//! pods do not, and without it groups of version 1 can be made ahead of their pod and then be
//! renamed, with the first member in them.
//!
//! Which processes are in a group is up to the shims.

pub(crate) mod amounts;
pub(crate) mod detect;
pub(crate) mod oom;

mod beside;
mod files;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use k8s_openapi::api::core::v1::Container;

use self::{
    amounts::Amounts,
    detect::{Controller, Found, Hierarchy, Lack, Version},
};

/// Most processes and threads of a pod. A kubelet sets none, so that a fork bomb takes the machine,
/// which here is somebody's own. Large Java and database servers have some hundreds to a thousand.
pub(crate) const POD_PIDS_MAX: u64 = 4096;

/// What the pods together leave of the machine's process ids: one in so many.
const PIDS_LEFT: u64 = 8;

/// Beginning of the name of a pod's group.
const POD: &str = "pod";
/// Beginning of the name of a group that has no pod yet.
const SPARE: &str = "spare-";
/// The group in it, for the first container.
const DRAFT: &str = "draft";

/// The file in the run folder with the paths of the cluster's groups.
const RECORD: &str = "cgroups";

/// The control groups of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    /// With the cluster's own groups as folders.
    hierarchies: Vec<Hierarchy>,
    lacks: Vec<Lack>,
    spares: AtomicU64,
    /// Held while a group is made or renamed: several containers of a pod may begin at once.
    making: Mutex<()>,
}

/// Why groups could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the control group `{path}`")]
pub(crate) struct Error {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Error {
    fn of(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self { path, source }
    }
}

impl Cgroups {
    /// The groups of the cluster with this run folder, made if possible. `cpu_millis` is what the
    /// pods may use.
    pub(crate) fn open(run_dir: &Path, cpu_millis: u64) -> Self {
        let found = match detect::detect() {
            Ok(found) => found,
            Err(error) => {
                let reason = format!("control groups cannot be found: {error}");
                let lacks = Controller::ALL
                    .map(|controller| Lack { controller, reason: reason.clone() })
                    .to_vec();
                Found { hierarchies: Vec::new(), lacks }
            }
        };
        Self::make(found, run_dir, cpu_millis)
    }

    fn make(found: Found, run_dir: &Path, cpu_millis: u64) -> Self {
        let name = name(run_dir);
        let mut own = Self { lacks: found.lacks, ..Self::default() };
        // First: what is made can be found, whatever happens.
        let folders = found.hierarchies.iter().map(|it| it.folder.join(&name));
        let recorded = record(run_dir, &folders.collect::<Vec<_>>());
        for mut hierarchy in found.hierarchies {
            let made = match &recorded {
                Ok(()) => begin(&mut hierarchy, &name, cpu_millis),
                Err(error) => Err(format!("cannot write to `{}`: {error}", run_dir.display())),
            };
            match made {
                Ok(lacks) => {
                    own.lacks.extend(lacks);
                    own.hierarchies.push(hierarchy);
                }
                Err(reason) => {
                    let lack = |controller| Lack { controller, reason: reason.clone() };
                    own.lacks.extend(hierarchy.controllers.into_iter().map(lack));
                }
            }
        }
        own.lacks.sort_by_key(|it| it.controller);
        own
    }

    /// Why this is not limited or counted; `None` if it is.
    #[must_use]
    pub(crate) fn lacks(&self, controller: Controller) -> Option<&str> {
        self.lacks.iter().find(|it| it.controller == controller).map(|it| it.reason.as_str())
    }

    /// What the container asks to be limited and is not, in words; requests only weigh, and are not
    /// spoken of.
    #[must_use]
    pub(crate) fn unlimited(&self, container: &Container) -> Option<String> {
        let amounts = Amounts::of(container);
        let asked = [
            (Controller::Cpu, amounts.quota().is_some()),
            (Controller::Memory, amounts.memory().is_some()),
        ];
        let missing = asked.into_iter().filter(|(_, asked)| *asked);
        let missing: Vec<(&str, &str)> =
            missing.filter_map(|(it, _)| Some((it.name(), self.lacks(it)?))).collect();
        let (_, reason) = missing.first()?;
        let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
        let (names, name) = (names.join(" and "), &container.name);
        Some(format!("the {names} limits of container {name} are not enforced: {reason}"))
    }

    /// What is limited and what is not, in words.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        let mut words = Vec::new();
        for (version, number) in [(Version::One, 1), (Version::Two, 2)] {
            let of = self.hierarchies.iter().filter(|it| it.version == version);
            let mut names: Vec<&str> =
                of.flat_map(|it| &it.controllers).map(|it| it.name()).collect();
            names.sort_unstable();
            if !names.is_empty() {
                words.push(format!("version {number}: {}", names.join(", ")));
            }
        }
        let mut lacks: Vec<(&str, Vec<&str>)> = Vec::new();
        // Without it nothing is limited less.
        for lack in self.lacks.iter().filter(|it| it.controller != Controller::Cpuacct) {
            match lacks.iter_mut().find(|(reason, _)| *reason == lack.reason) {
                Some((_, names)) => names.push(lack.controller.name()),
                None => lacks.push((&lack.reason, vec![lack.controller.name()])),
            }
        }
        for (reason, names) in lacks {
            words.push(format!("not limited: {} ({reason})", names.join(", ")));
        }
        words.join("; ")
    }

    /// The folders that count the usage of what `path` names below the cluster's groups.
    pub(crate) fn folders(&self, path: &str) -> Vec<(Version, &[Controller], PathBuf)> {
        let of = |it: &Hierarchy| it.folder.join(path);
        self.hierarchies.iter().map(|it| (it.version, it.controllers.as_slice(), of(it))).collect()
    }

    /// The cluster's group in the hierarchy that counts processes, if there is one.
    pub(crate) fn of_processes(&self) -> Option<PathBuf> {
        let counts = |it: &&Hierarchy| it.controllers.contains(&Controller::Pids);
        Some(self.hierarchies.iter().find(counts)?.folder.clone())
    }

    /// The pod's group in the cluster's of a hierarchy.
    pub(crate) fn pod_in(groups: &Path, uid: &str) -> PathBuf {
        groups.join(pod_name(uid))
    }

    /// Makes a group for a pod that is not known yet, and in it the group of its first container,
    /// whose folders are returned beside its name. `None` where groups cannot be renamed: there a
    /// process can be forked into its group, which needs no time.
    pub(crate) fn spare(&self) -> Result<Option<(String, Vec<PathBuf>)>, Error> {
        if self.hierarchies.is_empty()
            || self.hierarchies.iter().any(|it| it.version == Version::Two)
        {
            return Ok(None);
        }
        let number = self.spares.fetch_add(1, Ordering::Relaxed);
        let name = format!("{SPARE}{}-{number}", std::process::id());
        let mut folders = Vec::new();
        for hierarchy in &self.hierarchies {
            let folder = hierarchy.folder.join(&name).join(DRAFT);
            fs::create_dir_all(&folder).map_err(Error::of(&folder))?;
            // Made ready behind everybody's back: it must not slow down a pod that begins.
            let pod = hierarchy.folder.join(&name);
            files::limit(&pod, &files::settings(hierarchy, &Amounts::default()))?;
            folders.push(folder);
        }
        Ok(Some((name, folders)))
    }

    /// Makes a spare group the pod's.
    pub(crate) fn take_over(&self, spare: &str, uid: &str) -> Result<(), Error> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        for hierarchy in &self.hierarchies {
            let spare = hierarchy.folder.join(spare);
            adopt_or_make(Some(&spare), &hierarchy.folder.join(pod_name(uid)))?;
        }
        // Of a pod that had one already.
        self.remove(spare)
    }

    /// Makes the group of a pod's container, and that of the pod, and limits both. Returns the
    /// container's folders.
    pub(crate) fn begin(
        &self,
        (uid, run): (&str, &str),
        of_pod: &Amounts,
        of_container: &Amounts,
    ) -> Result<Vec<PathBuf>, Error> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let mut folders = Vec::new();
        for hierarchy in &self.hierarchies {
            let pod = hierarchy.folder.join(pod_name(uid));
            adopt_or_make(None, &pod)?;
            if hierarchy.version == Version::Two {
                files::enable(&pod, &hierarchy.controllers).map_err(Error::of(&pod))?;
            }
            let pids = [("pids.max", POD_PIDS_MAX.to_string())];
            files::limit(&pod, &files::settings(hierarchy, of_pod))?;
            files::limit(&pod, &files::only_pids(hierarchy, pids))?;
            let container = pod.join(run);
            adopt_or_make(Some(&pod.join(DRAFT)), &container)?;
            files::limit(&container, &files::settings(hierarchy, of_container))?;
            if hierarchy.version == Version::Two {
                files::kill_together(&container)?;
            }
            folders.push(container);
        }
        Ok(folders)
    }

    /// Removes the group of a container that has ended. What is still busy goes with the pod.
    pub(crate) fn end(&self, uid: &str, run: &str) {
        for hierarchy in &self.hierarchies {
            let folder = hierarchy.folder.join(pod_name(uid)).join(run);
            match fs::remove_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(folder = %folder.display(), %error, "control group not removed");
                }
                _ => {}
            }
        }
    }

    /// Kills what is in a pod's groups and removes them. Those that are not there are removed.
    pub(crate) fn remove_pod(&self, uid: &str) -> Result<(), Error> {
        self.remove(&pod_name(uid))
    }

    /// The same of a spare one.
    pub(crate) fn remove_spare(&self, name: &str) -> Result<(), Error> {
        self.remove(name)
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let folders = self.hierarchies.iter().map(|it| it.folder.join(name));
        folders.map(|it| files::remove(&it)).fold(Ok(()), Result::and)
    }

    /// The uids of pods that have groups, and the names of spare ones that this process did not make.
    pub(crate) fn found(&self) -> (Vec<String>, Vec<String>) {
        let (mut pods, mut spares) = (Vec::new(), Vec::new());
        let own = format!("{SPARE}{}-", std::process::id());
        for hierarchy in &self.hierarchies {
            for entry in fs::read_dir(&hierarchy.folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if !entry.file_type().is_ok_and(|it| it.is_dir()) {
                    continue;
                }
                if let Some(uid) = name.strip_prefix(POD) {
                    pods.push(uid.to_owned());
                } else if name.starts_with(SPARE) && !name.starts_with(&own) {
                    spares.push(name);
                }
            }
        }
        for list in [&mut pods, &mut spares] {
            list.sort();
            list.dedup();
        }
        (pods, spares)
    }
}

/// Removes the control groups of the cluster with this run folder, whatever process made them, and
/// kills what is in them. Nothing to remove is no error.
///
/// # Errors
/// If a group stays: the kernel does not let go of a process in it.
pub fn remove_cgroups(run_dir: &Path) -> io::Result<()> {
    let record = run_dir.join(RECORD);
    let text = match fs::read_to_string(&record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for folder in text.lines().map(Path::new) {
        files::remove(folder).map_err(|it| io::Error::other(format!("{it}: {}", it.source)))?;
        if let Some(parent) = folder.parent() {
            beside::put_back(parent);
        }
    }
    fs::remove_file(record)
}

/// Adds to the record what is not in it.
fn record(run_dir: &Path, folders: &[PathBuf]) -> io::Result<()> {
    let path = run_dir.join(RECORD);
    let known = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let lines = folders.iter().map(|it| it.display().to_string());
    let new: Vec<String> = lines.filter(|it| !known.lines().any(|line| line == it)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let beside = run_dir.join(format!(".{RECORD}"));
    fs::write(&beside, known + &new.join("\n") + "\n")?;
    fs::rename(beside, path)
}

/// The name of a cluster's group. Two clusters of the same name can only be in different run folders.
fn name(run_dir: &Path) -> String {
    let name = run_dir.file_name().unwrap_or_default().to_string_lossy();
    let usual = run_dir.parent().is_some_and(|it| {
        it == Path::new("/run/coracle")
            || it.starts_with("/run/user") && it.components().count() == USUAL_PARTS
    });
    if usual { format!("coracle-{name}") } else { format!("coracle-{name}-{:08x}", hash(run_dir)) }
}

/// Parts of `/run/user/UID/coracle`.
const USUAL_PARTS: usize = 5;

/// FNV-1a.
fn hash(path: &Path) -> u32 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0x811c_9dc5, |hash, it| (hash ^ u32::from(*it)).wrapping_mul(0x0100_0193))
}

fn pod_name(uid: &str) -> String {
    format!("{POD}{uid}")
}

/// Makes the cluster's group, which then stands for the hierarchy, and enables controllers in it.
/// Returns what cannot be had, or why there is nothing.
fn begin(hierarchy: &mut Hierarchy, name: &str, cpu_millis: u64) -> Result<Vec<Lack>, String> {
    let parent = hierarchy.folder.clone();
    let folder = parent.join(name);
    let mut lacks = Vec::new();
    if hierarchy.version == Version::Two {
        if !files::has_enabled(&parent, &hierarchy.controllers) {
            beside::make_room(&parent).map_err(|it| explain(&parent, &it))?;
        }
        lacks.extend(enable(&parent, &mut hierarchy.controllers)?);
    }
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(explain(&folder, &error));
        }
        _ => {}
    }
    if hierarchy.version == Version::Two {
        lacks.extend(enable(&folder, &mut hierarchy.controllers)?);
    }
    hierarchy.folder = folder;
    let all = Amounts { cpu_request: cpu_millis, ..Amounts::default() };
    let mut settings = files::settings(hierarchy, &all);
    settings.retain(|(file, _)| file.starts_with("cpu"));
    settings
        .extend(files::only_pids(hierarchy, pids_of_all().map(|it| ("pids.max", it.to_string()))));
    if let Err(error) = files::limit(&hierarchy.folder, &settings) {
        let reason = explain(&hierarchy.folder, &error.source);
        lacks.push(Lack { controller: Controller::Pids, reason });
    }
    Ok(lacks)
}

/// Gives the groups in a group of version 2 these controllers, each by itself: one that cannot be had, as
/// the one of CPUs cannot beside processes of real-time classes, keeps no other away. It is taken off the
/// list. If none can be had, the error says why.
fn enable(folder: &Path, controllers: &mut Vec<Controller>) -> Result<Vec<Lack>, String> {
    let mut lacks = Vec::new();
    controllers.retain(|it| match files::enable(folder, &[*it]) {
        Ok(()) => true,
        Err(error) => {
            lacks.push(Lack { controller: *it, reason: explain(folder, &error) });
            false
        }
    });
    match lacks.pop() {
        Some(last) if controllers.iter().all(|it| *it == Controller::Cpuacct) => Err(last.reason),
        last => {
            lacks.extend(last);
            Ok(lacks)
        }
    }
}

fn explain(folder: &Path, error: &io::Error) -> String {
    format!("control group `{}` cannot be used: {error}", folder.display())
}

/// Most processes and threads of all pods together.
fn pids_of_all() -> Option<u64> {
    let read = |path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let machine = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let least = machine.into_iter().filter_map(read).min()?;
    Some(least - least / PIDS_LEFT)
}

/// Renames a group, if it is there, or makes one. One that is there stays.
fn adopt_or_make(spare: Option<&Path>, folder: &Path) -> Result<(), Error> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(spare) = spare
        && fs::rename(spare, folder).is_ok()
    {
        return Ok(());
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::of(folder)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
