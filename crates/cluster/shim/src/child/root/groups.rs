//! What a container sees of its control groups, where programs and their runtimes look for how much of the
//! machine is theirs: in `/sys/fs/cgroup` its own ones, as if there were no others.
//!
//! Where groups of version 1 are among them, there is a folder for each hierarchy, called as on the
//! machine. Without groups of its own a container sees nothing there.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{io::Errno, mount::MountAttrFlags};

use super::{super::failed, Root, mounts, own_cgroups};
use crate::{
    cgroups,
    wire::{ContainerSpec, Stage, StartError},
};

/// Where they are looked for.
const PLACE: &str = "/sys/fs/cgroup";

/// The controller of which a container has no group of its own. Java heeds no limit of version 1 where it is
/// not mounted; so the group is shown that the cluster is in, and can only be read.
const CPUSET: &str = "cpuset";

impl Root<'_> {
    /// Shows the container its groups, and lets it take them for the only ones.
    pub(super) fn control_groups(&mut self, spec: &ContainerSpec) -> Result<(), StartError> {
        own_cgroups()?;
        let place = match self.there(Path::new(PLACE)) {
            Ok(Some(place)) if !spec.cgroups.is_empty() => place,
            Ok(_) => return Ok(()),
            Err(error) => return Err(failed(Stage::Root, format!("cannot use `{PLACE}`"))(error)),
        };
        show(spec, place).map_err(failed(Stage::Root, format!("cannot mount `{PLACE}`")))
    }
}

fn show(spec: &ContainerSpec, place: OwnedFd) -> io::Result<()> {
    let mut access = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if !spec.privileged {
        access |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let tree = |folder: &PathBuf| -> io::Result<OwnedFd> {
        let tree = mounts::clone(rustix::fs::CWD, folder)?;
        mounts::keep_to_itself(&tree)?;
        mounts::restrict(&tree, access)?;
        Ok(tree)
    };
    if let [folder] = spec.cgroups.as_slice()
        && cgroups::is_version_2(folder)?
    {
        return mounts::attach(tree(folder)?, place);
    }
    let all =
        mounts::new_with("tmpfs", &[("mode", "755")], access & !MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    mounts::attach(&all, place)?;
    for folder in &spec.cgroups {
        let name = name(folder)?;
        mounts::attach(tree(folder)?, mounts::folder(&all, &name)?)?;
        for alias in aliases(&name) {
            match rustix::fs::symlinkat(&name, &all, alias) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    if has_cpuset()? {
        let access = access | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let tree = mounts::new_with("cgroup", &[(CPUSET, "")], access)?;
        mounts::attach(tree, mounts::folder(&all, OsStr::new(CPUSET))?)?;
    }
    if !spec.privileged {
        mounts::make_this_read_only(&all)?;
    }
    Ok(())
}

/// Whether there is a hierarchy of version 1 for this controller alone.
fn has_cpuset() -> io::Result<bool> {
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    Ok(own.lines().any(|it| it.split(':').nth(1) == Some(CPUSET)))
}

/// What a group's hierarchy is called: the last name of the folder where it is mounted.
fn name(folder: &Path) -> io::Result<OsString> {
    let device = rustix::fs::stat(folder)?.st_dev;
    let mut top = folder;
    while let Some(above) = top.parent()
        && rustix::fs::stat(above)?.st_dev == device
    {
        top = above;
    }
    let unknown = || io::Error::other(format!("`{}` is in no hierarchy", folder.display()));
    top.file_name().map(OsStr::to_owned).ok_or_else(unknown)
}

/// What else it is called: a hierarchy of several controllers, by the name of each.
fn aliases(name: &OsStr) -> Vec<&str> {
    let parts: Vec<&str> = name.to_str().unwrap_or_default().split(',').collect();
    if parts.len() < 2 { Vec::new() } else { parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_called_as_on_the_machine() {
        // Another file system with folders in it.
        assert_eq!(name(Path::new("/proc/self/task")).unwrap(), "proc");
        assert!(name(Path::new("/")).is_err());
        assert_eq!(aliases(OsStr::new("cpu,cpuacct")), ["cpu", "cpuacct"]);
        assert!(aliases(OsStr::new("memory")).is_empty());
    }
}
