//! Clusters of an ordinary user in a control group of version 2 that somebody gave him, as systemd does it for
//! sessions and for services with `Delegate=yes`.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context as _, ensure};

use crate::{
    cluster::{Cluster, eventually},
    limits,
};

/// Where control groups of version 2 are, if there are no others.
const ALL: &str = "/sys/fs/cgroup";

/// Who runs the clusters. No entry in /etc/passwd is needed.
const USER: u32 = 1234;

/// Whether this machine has what these tests need, and lets us.
pub(crate) fn can_be() -> bool {
    let file = format!("{ALL}/cgroup.subtree_control");
    rustix::process::getuid().is_root()
        && rustix::fs::access(file, rustix::fs::Access::WRITE_OK).is_ok()
}

/// A group, gone when dropped, with those in it.
struct Group(PathBuf);

impl Group {
    fn new(parent: &Path, name: &str) -> anyhow::Result<Self> {
        let folder = parent.join(name);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }

    /// Gives the groups in it these controllers.
    fn enable(folder: &Path, controllers: &str) -> anyhow::Result<()> {
        let file = folder.join("cgroup.subtree_control");
        fs::write(&file, controllers).with_context(|| file.display().to_string())
    }

    /// Gives it to the user, as systemd does.
    fn delegate(&self) -> anyhow::Result<()> {
        chown(&self.0, Some(USER), Some(USER))?;
        for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(self.0.join(file), Some(USER), Some(USER)).context(file)?;
        }
        Ok(())
    }

    fn groups(&self) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(found)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let removed = eventually("a control group is empty", || {
            for name in self.groups()? {
                fs::remove_dir(self.0.join(name))?;
            }
            Ok(fs::remove_dir(&self.0).map(|()| true)?)
        });
        if let Err(error) = removed {
            println!("remove {}: {error:#}", self.0.display());
        }
    }
}

/// Another program of the service.
struct Beside(Child);

impl Beside {
    fn start(group: &Group) -> anyhow::Result<Self> {
        let folder = group.0.display().to_string();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["within", &folder, &USER.to_string(), "sleep", "1000"]);
        let beside = Self(command.spawn()?);
        eventually("another program runs in the group", || beside.is_in(group))?;
        Ok(beside)
    }

    fn is_in(&self, group: &Group) -> anyhow::Result<bool> {
        let own = fs::read_to_string(format!("/proc/{}/cgroup", self.0.id()))?;
        let path = own.trim().strip_prefix("0::").context("no group of version 2")?;
        Ok(Path::new(&format!("{ALL}{path}")) == group.0)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A service with a group of its own, in which there are processes: the kernel wants them elsewhere.
pub(crate) fn processes_make_room_for_groups_of_pods() -> anyhow::Result<()> {
    Group::enable(Path::new(ALL), "+cpu +memory +pids")?;
    let service = Group::new(Path::new(ALL), &format!("test-{}.service", std::process::id()))?;
    service.delegate()?;
    let beside = Beside::start(&service)?;
    let cluster = Cluster::new("room")?.within(&service.0, USER)?;
    cluster.write("app.yaml", &limits::still())?;
    cluster.up()?;
    let told = limits::told(&cluster)?;
    ensure!(told.starts_with("version 2: cpu, cpuacct, memory, pids"), "{told}");
    ensure!(!told.contains("not limited"), "{told}");
    limits::are_written(&cluster)?;
    limits::end_what_wants_more(&cluster)?;
    ensure!(!beside.is_in(&service)?, "processes are where groups with controllers are");
    cluster.coracle(&["down"])?;
    ensure!(beside.is_in(&service)?, "the other program was not put back");
    let left = service.groups()?;
    ensure!(left.is_empty(), "{left:?} are left");
    Ok(())
}

/// A session of a user who was given some controllers and not others.
pub(crate) fn only_delegated_controllers_are_used() -> anyhow::Result<()> {
    Group::enable(Path::new(ALL), "+cpu +memory +pids")?;
    let slice = Group::new(Path::new(ALL), &format!("test-{}.slice", std::process::id()))?;
    Group::enable(&slice.0, "+memory +pids")?;
    let manager = Group::new(&slice.0, "manager.service")?;
    manager.delegate()?;
    let scope = Group::new(&manager.0, "it.scope")?;
    scope.delegate()?;
    let cluster = Cluster::new("given")?.within(&scope.0, USER)?;
    cluster.write("app.yaml", &limits::still())?;
    cluster.up()?;
    let told = limits::told(&cluster)?;
    let manager = manager.0.display();
    let expected = format!(
        "version 2: cpuacct, memory, pids; not limited: cpu (`cpu` is not delegated to `{manager}`)"
    );
    ensure!(told.starts_with(&expected), "{told}");
    limits::end_what_wants_more(&cluster)?;
    eventually("an event says so", || {
        let events =
            cluster.kubectl(&["get", "events", "--field-selector=reason=LimitsNotEnforced"])?;
        Ok(events.contains("the cpu limits of container sh are not enforced"))
    })
}
