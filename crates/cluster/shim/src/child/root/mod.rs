//! A container's root in the making: what every root has, the mounts that were asked for, and the way
//! in.
//!
//! What is below it comes from the machine (`host`) or from an image (`image`); where something is to
//! be mounted, and what is done if there is nothing, is in `points`. What was made before it was known
//! which container it is for is of use to linked ones; an image's begins anew.
//!
//! `/proc` and `/sys` are mounted while the host's are still visible, which the kernel demands without
//! root.

mod groups;
mod host;
mod image;
mod points;

use std::{ffi::OsStr, io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::Mode,
    mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags},
    thread::UnshareFlags,
};

use super::{Ground, Net, failed, has_namespace, mounts, open_path, volumes};
use crate::{
    sys,
    wire::{self, ContainerSpec, PidNamespace, Stage, StartError},
};

/// What programs may write to places that are the container's own, such as /etc; then they get
/// ENOSPC.
const SCRATCH_SIZE: &str = "67108864";

/// Files that a container has its own of.
const RESOLV_CONF: &str = "resolv.conf";
const HOSTS: &str = "hosts";
const HOSTNAME: &str = "hostname";

/// An empty folder on scratch that cannot be written.
const EMPTY: &str = "empty";

/// A root in the making.
pub(super) struct Root<'a> {
    ground: &'a Ground,
    /// The file system in memory that holds everything that is the container's own.
    scratch: OwnedFd,
    /// What will be `/`.
    root: OwnedFd,
    /// Mounts in which mount points may be made: scratch, `/etc`, an image, volumes of our own.
    ours: Vec<u64>,
    /// The mount that is `/proc`: nothing may be mounted in it.
    proc: Option<u64>,
    shadows: usize,
    /// Names below /etc where something of the host is mounted.
    mounted_in_etc: Vec<String>,
}

impl<'a> Root<'a> {
    /// Begins the root of a container that is known: of [`wire::Root::Host`] or of an image.
    pub(super) fn begin(ground: &'a Ground, spec: &ContainerSpec) -> Result<Self, StartError> {
        match spec.root {
            wire::Root::Host => Self::begin_host(ground, spec.pid),
            wire::Root::Layers { .. } | wire::Root::Folder { .. } => {
                keep_to_itself()?;
                Self::scratch(ground)
            }
        }
    }

    /// Makes the rest of it, for one container: what is to be its `/`.
    pub(super) fn make(
        mut self,
        hostname: &str,
        spec: &ContainerSpec,
    ) -> Result<OwnedFd, StartError> {
        let volumes = volumes::open(self.ground, spec)?;
        match &spec.root {
            wire::Root::Host => self.finish_host(hostname, spec)?,
            wire::Root::Layers { .. } | wire::Root::Folder { .. } => {
                if self.proc.is_some() {
                    // What was begun ahead for a linked container has some 150 inodes of the kernel's,
                    // the copy of `/dev` above all.
                    self = Self::scratch(self.ground)?;
                }
                self.make_image(hostname, spec)?;
            }
        }
        self.control_groups(spec)?;
        for (mount, tree) in spec.mounts.iter().zip(volumes.mounts) {
            self.mount(tree, &mount.target)?;
            if self.is_ours(mount) {
                let what = "cannot look at a mount";
                self.remember(&mount.target).map_err(failed(Stage::Mount, what))?;
            }
        }
        for (tree, name) in [(volumes.resolv_conf, RESOLV_CONF), (volumes.hosts, HOSTS)] {
            if let Some(tree) = tree {
                self.mount(tree, &Path::new("/etc").join(name))?;
            }
        }
        self.protect(spec)?;
        Ok(self.root)
    }

    fn scratch(ground: &'a Ground) -> Result<Self, StartError> {
        let made = || -> io::Result<Self> {
            let scratch = mounts::new("tmpfs", &[("mode", "755"), ("size", SCRATCH_SIZE)])?;
            mounts::attach(&scratch, open_path(&ground.place)?)?;
            let place = mounts::folder(&scratch, OsStr::new("root"))?;
            rustix::fs::mkdirat(&scratch, EMPTY, Mode::from_bits_retain(0o555))?;
            let root = mounts::clone(&scratch, "root")?;
            mounts::attach(&root, place)?;
            let ours = vec![mounts::mount_id(&root)?];
            let (proc, shadows, mounted_in_etc) = (None, 0, Vec::new());
            Ok(Self { ground, scratch, root, ours, proc, shadows, mounted_in_etc })
        };
        made().map_err(failed(Stage::Root, "cannot make the container's file system"))
    }

    /// Mounts `/proc` and `/sys` on folders that are there.
    fn proc_and_sys(&mut self, access: SysAccess, pid: PidNamespace) -> Result<(), StartError> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = |kind: &str, name: &str, attributes| -> io::Result<u64> {
            let tree = mounts::new_with(kind, &[], attributes)?;
            mounts::attach(&tree, mounts::entry(&self.root, OsStr::new(name))?)?;
            mounts::mount_id(tree)
        };
        let proc = match pid {
            PidNamespace::Own | PidNamespace::Pod => mount("proc", "proc", attributes),
            // Without root only who owns the PID namespace can mount it.
            PidNamespace::Host => mounts::clone(rustix::fs::CWD, "/proc").and_then(|tree| {
                mounts::keep_to_itself(&tree)?;
                mounts::attach(&tree, mounts::entry(&self.root, OsStr::new("proc"))?)?;
                mounts::mount_id(tree)
            }),
        };
        let proc = proc.map_err(failed(Stage::Root, "cannot mount `/proc`"))?;
        let sys = match (&self.ground.net, access) {
            (Net::Own(_), SysAccess::ReadOnly) => {
                mount("sysfs", "sys", attributes | MountAttrFlags::MOUNT_ATTR_RDONLY).map(drop)
            }
            (Net::Own(_), SysAccess::Full) => mount("sysfs", "sys", attributes).map(drop),
            // It shows the network, so that only who owns that can mount it.
            (Net::Host(_), access) => mounts::clone(rustix::fs::CWD, "/sys").and_then(|tree| {
                if access == SysAccess::ReadOnly {
                    mounts::make_read_only(&tree)?;
                }
                mounts::attach(tree, mounts::entry(&self.root, OsStr::new("sys"))?)
            }),
        };
        sys.map_err(failed(Stage::Root, "cannot mount `/sys`"))?;
        self.proc = Some(proc);
        Ok(())
    }

    fn shared_memory(&mut self, bytes: u64) -> Result<(), StartError> {
        self.device("tmpfs", "/dev/shm", &[("mode", "1777"), ("size", &*bytes.to_string())])
    }

    /// Mounts a file system of the container's own below `/dev`.
    fn device(
        &mut self,
        kind: &str,
        target: &str,
        options: &[(&str, &str)],
    ) -> Result<(), StartError> {
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        if kind != "devpts" {
            attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
        }
        let tree = mounts::new_with(kind, options, attributes)
            .map_err(failed(Stage::Root, format!("cannot mount `{target}`")))?;
        self.mount(tree, Path::new(target))
    }

    /// Hides and protects what programs must not see or write: last, so that nothing is mounted over
    /// it.
    fn protect(&self, spec: &ContainerSpec) -> Result<(), StartError> {
        for path in &spec.masked_paths {
            let what = format!("cannot mask `{}`", path.display());
            self.mask(path).map_err(failed(Stage::Root, what))?;
        }
        for path in &spec.read_only_paths {
            let what = format!("cannot protect `{}`", path.display());
            self.make_read_only(path).map_err(failed(Stage::Root, what))?;
        }
        match spec.root {
            wire::Root::Layers { read_only: true, .. }
            | wire::Root::Folder { read_only: true, .. } => mounts::make_this_read_only(&self.root)
                .map_err(failed(Stage::Root, "cannot make the root read-only")),
            _ => Ok(()),
        }
    }

    /// Puts something empty that cannot be written in place of what must not be seen.
    fn mask(&self, path: &Path) -> io::Result<()> {
        let Some(place) = self.there(path)? else { return Ok(()) };
        let nothing = if mounts::is_folder(&place)? {
            mounts::clone_read_only(&self.scratch, EMPTY)?
        } else {
            // The machine's, whatever the image has there.
            mounts::clone_read_only(rustix::fs::CWD, "/dev/null")?
        };
        mounts::attach(nothing, place)
    }

    fn make_read_only(&self, path: &Path) -> io::Result<()> {
        let Some(place) = self.there(path)? else { return Ok(()) };
        let tree = mounts::clone_of(&place)?;
        mounts::make_read_only(&tree)?;
        mounts::attach(tree, place)
    }
}

/// Goes into a root.
pub(super) fn enter(root: OwnedFd) -> Result<(), StartError> {
    let pivot = || -> io::Result<()> {
        rustix::process::fchdir(root)?;
        // The old root comes to lie on the new one, see pivot_root(2), and is taken away.
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        Ok(rustix::process::chdir("/")?)
    };
    pivot().map_err(failed(Stage::Pivot, "cannot go into the container's root"))
}

/// Lets this process take its control groups for the only ones.
pub(super) fn own_cgroups() -> Result<(), StartError> {
    if has_namespace("cgroup") {
        sys::unshare(UnshareFlags::NEWCGROUP)
            .map_err(failed(Stage::Namespaces, "cannot make a control group namespace"))?;
    }
    Ok(())
}

/// What may be done with `/sys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SysAccess {
    ReadOnly,
    Full,
}

/// Lets nothing that is mounted here show elsewhere.
fn keep_to_itself() -> Result<(), StartError> {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave)
        .map_err(failed(Stage::Root, "cannot keep mounts to the container"))
}
