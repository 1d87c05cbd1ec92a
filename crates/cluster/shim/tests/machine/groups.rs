//! Control groups: what is in them, what they tell, and that nothing is left in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use coracle_shim::wire::{ContainerSpec, ProcessSpec, Stage};

use crate::place::{Place, sh};

/// Where this machine has controllers, version 1 or 2, if this user may make groups there.
const ROOTS: [&str; 3] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup"];

/// Where version 2 is beside version 1.
const BESIDE: &str = "/sys/fs/cgroup/unified";

/// Groups of a test, removed in the end.
pub(crate) struct Groups(pub(crate) Vec<PathBuf>);

impl Groups {
    fn new(name: &str) -> Self {
        Self::of(name, &ROOTS)
    }

    /// Of all hierarchies that a process may be forked into, or join.
    pub(crate) fn of_all(name: &str) -> Self {
        Self::of(name, &[&ROOTS[..], &[BESIDE]].concat())
    }

    fn of(name: &str, roots: &[&str]) -> Self {
        let has = |it: &Path| it.join("cgroup.procs").exists() && !it.join("cgroup.type").exists();
        let roots = roots.iter().map(Path::new).filter(|it| has(it));
        let folders: Vec<PathBuf> =
            roots.map(|it| it.join(format!("shim-{name}-{}", std::process::id()))).collect();
        folders.iter().for_each(|it| fs::create_dir(it).unwrap());
        Self(folders)
    }

    fn set(&self, file: &str, value: &str) -> bool {
        self.0.iter().any(|it| it.join(file).exists() && fs::write(it.join(file), value).is_ok())
    }

    pub(crate) fn members(&self) -> Vec<String> {
        self.0.iter().map(|it| fs::read_to_string(it.join("cgroup.procs")).unwrap()).collect()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for folder in &self.0 {
            fs::remove_dir(folder).unwrap();
        }
    }
}

pub(crate) fn members(place: &Place) {
    if !rustix::process::geteuid().is_root() {
        return missing(place);
    }
    let groups = Groups::new("members");
    let mut pod = place.cluster_with_pod();
    let spec = ContainerSpec { cgroups: groups.0.clone(), ..pod.container("web.0") };
    let pid =
        pod.start(spec, sh("while [ ! -e /dev/shm/go ]; do sleep 0.01; done; exit 3")).unwrap();
    for members in groups.members() {
        assert!(members.lines().any(|it| it == pid.to_string()), "{members}");
    }
    // What is run in it later is in them as well; and sees them as if there were no others.
    let files = "/sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs";
    let look = format!(
        "grep -lx $$ {files} 2>/dev/null | grep -vc cpuset; cat /proc/self/cgroup; touch /dev/shm/go"
    );
    let lines = pod.exec("web.0", &look).output.unwrap();
    let (count, own) = lines.split_once('\n').unwrap();
    assert!(groups.0.len() <= count.parse().unwrap(), "{lines}");
    let name = groups.0[0].file_name().unwrap().to_str().unwrap();
    assert!(!own.contains(name) && own.contains(":/\n"), "{lines}");
    let exit = pod.await_exit("web.0");
    assert_eq!((exit.code, exit.oom_killed), (3, Some(false)));
    assert!(groups.members().iter().all(String::is_empty));
}

/// What is not there is named, also where there is nothing of the kind.
fn missing(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let cgroups = vec![PathBuf::from("/sys/fs/cgroup/no/such")];
    let error = pod.start(ContainerSpec { cgroups, ..pod.container("web.0") }, sh("")).unwrap_err();
    assert_eq!(error.stage, Stage::Cgroups);
    assert!(error.message.contains("/sys/fs/cgroup/no/such"), "{error}");
    let (exit, _) = pod.run(pod.container("web.1"), "exit 5");
    assert_eq!((exit.code, exit.oom_killed), (5, None));
}

pub(crate) fn ahead(place: &Place) {
    place.enter();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut groups = Groups::new("spare");
    let nursery = place.nursery();
    let shim = place.spare_in(&nursery, groups.0.clone());
    nursery.end().unwrap();
    let mut pod = place.give(shim);
    if groups.0.len() == 2 {
        // Version 1 lets groups be renamed, with whoever is in them or on the way.
        for folder in &mut groups.0 {
            let renamed = folder.with_file_name(format!("shim-pod-{}", std::process::id()));
            fs::rename(&*folder, &renamed).unwrap();
            *folder = renamed;
        }
    }
    let spec = ContainerSpec { cgroups: groups.0.clone(), ..pod.container("web.0") };
    pod.start(spec, sh("sleep 1000")).unwrap();
    assert!(groups.members().iter().all(|it| it.lines().count() != 0));
    // The next one joins when it is begun.
    let other = Groups::new("other");
    let spec = ContainerSpec { cgroups: other.0.clone(), ..pod.container("web.1") };
    let pid = pod.start(spec, sh("sleep 1000")).unwrap();
    assert!(other.members().iter().all(|it| it.lines().any(|it| it == pid.to_string())));
    for id in ["web.0", "web.1"] {
        pod.shim.client.signal(id, 9).unwrap();
        pod.await_exit(id);
    }
}

pub(crate) fn memory(place: &Place) {
    if !rustix::process::geteuid().is_root() {
        return missing(place);
    }
    let groups = Groups::new("memory");
    assert!(
        groups.set("memory.limit_in_bytes", "33554432") || groups.set("memory.max", "33554432"),
        "no memory controller"
    );
    let mut pod = place.cluster_with_pod();
    let spec = |id: &str, pod: &crate::place::Pod| ContainerSpec {
        cgroups: groups.0.clone(),
        ..pod.container(id)
    };
    // A child of the first process is the victim.
    let script = "head -c 100000000 /dev/zero | tail -c 90000000 > /dev/null; exit 0";
    let process =
        ProcessSpec { argv: vec!["/bin/sh".into(), "-c".into(), script.into()], ..sh("") };
    let web = spec("web.0", &pod);
    pod.start(web, process).unwrap();
    let exit = pod.await_exit("web.0");
    assert_eq!((exit.code, exit.oom_killed), (0, Some(true)));
}

pub(crate) fn processes(place: &Place) {
    if !rustix::process::geteuid().is_root() {
        return missing(place);
    }
    let groups = Groups::new("pids");
    assert!(groups.set("pids.max", "20"), "no pids controller");
    let mut pod = place.cluster_with_pod();
    let spec = ContainerSpec { cgroups: groups.0.clone(), ..pod.container("web.0") };
    // Goes on until it is refused, which ends the inner shell; what it began stays.
    let bomb = "(while :; do sleep 1000 & done) 2>/dev/null; sleep 1000";
    pod.start(spec, sh(bomb)).unwrap();
    let full = || groups.members().iter().any(|it| 15 < it.lines().count());
    while !full() {
        std::thread::yield_now();
    }
    assert!(groups.members().iter().all(|it| it.lines().count() <= 20));
    pod.shim.client.signal("web.0", 9).unwrap();
    assert_eq!(pod.await_exit("web.0").code, 137);
    assert!(groups.members().iter().all(String::is_empty));
}
