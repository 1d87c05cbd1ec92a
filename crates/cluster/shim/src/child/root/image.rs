//! A container's root from an image: its layers below a folder that takes the changes, or a copy of its
//! files; and what every container has in `/proc`, `/sys`, `/dev` and `/etc`.
//!
//! Whatever the image has in these places, a symbolic link for instance, nothing of the host is reached
//! through it: `/proc`, `/sys` and `/dev` must be folders of the image itself, and all else is found with
//! the image as the root. No file system of the image lets a device file be used, unless the container is
//! privileged: where there are no control groups, that is all that keeps root in a container from the
//! machine's disks.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Gid, Mode, Uid},
    io::Errno,
    mount::{MountAttrFlags, MountFlags},
};

use super::{
    super::{failed, mounts, open_path, refused},
    EMPTY, HOSTNAME, Root, SysAccess,
    points::{clone_entries, fill},
};
use crate::{
    users::PodUsers,
    wire::{self, ContainerSpec, IdMap, Stage, StartError},
};

/// As many as Docker and containerd allow. The names of twice as many fit the page that the kernel
/// takes.
const LAYERS_MAX: usize = 127;

/// Devices that every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links in `/dev` that programs count on.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Entries of the host's `/dev` that a container has its own of.
const OWN_DEVICES: [&str; 8] = ["pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "ptmx"];

/// Size of /dev itself, as in container runtimes.
const DEV_SIZE: &str = "65536k";

/// The group `tty`, which has the same number everywhere.
const TTY: u32 = 5;

/// Whether device files in the root can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Devices {
    Usable,
    Forbidden,
}

impl Devices {
    const fn of(spec: &ContainerSpec) -> Self {
        if spec.privileged { Self::Usable } else { Self::Forbidden }
    }
}

impl Root<'_> {
    /// Makes the root of an image, but for its mounts.
    pub(super) fn make_image(
        &mut self,
        hostname: &str,
        spec: &ContainerSpec,
    ) -> Result<(), StartError> {
        self.root = match &spec.root {
            wire::Root::Layers { layers, writable, .. } => {
                self.layers(layers, writable, Devices::of(spec))?
            }
            wire::Root::Folder { path, .. } => self
                .folder(path, Devices::of(spec))
                .map_err(failed(Stage::Root, format!("cannot use `{}`", path.display())))?,
            wire::Root::Host => return Err(refused(Stage::Spec, "no image".to_owned())),
        };
        let id = mounts::mount_id(&self.root)
            .map_err(failed(Stage::Root, "cannot look at the image"))?;
        self.ours = vec![id];
        for name in ["proc", "sys", "dev"] {
            self.own_folder(name)
                .map_err(failed(Stage::Root, format!("cannot use `/{name}` of the image")))?;
        }
        let access = if spec.privileged { SysAccess::Full } else { SysAccess::ReadOnly };
        self.proc_and_sys(access, spec.pid)?;
        self.image_dev(spec)?;
        self.host_name(hostname)
            .map_err(failed(Stage::Root, "cannot make the host name's file"))
            .and_then(|it| self.mount(it, &Path::new("/etc").join(HOSTNAME)))
    }

    /// Mounts layers, and what takes the changes, as one.
    fn layers(
        &self,
        layers: &[PathBuf],
        writable: &Path,
        devices: Devices,
    ) -> Result<OwnedFd, StartError> {
        if LAYERS_MAX < layers.len() {
            let count = layers.len();
            let message = format!("an image of {count} layers: there may be {LAYERS_MAX}");
            return Err(refused(Stage::Spec, message));
        }
        let lower = if layers.is_empty() {
            vec![
                mounts::find(&self.scratch, EMPTY)
                    .map_err(failed(Stage::Root, "cannot use an empty folder"))?,
            ]
        } else {
            let open = |it: &PathBuf| {
                let what = format!("cannot use layer `{}`", it.display());
                open_path(it).map_err(failed(Stage::Root, what))
            };
            match &self.ground.users {
                None => layers.iter().map(open).collect::<Result<Vec<OwnedFd>, StartError>>()?,
                Some(users) => self
                    .mapped(layers, users)
                    .map_err(failed(Stage::Root, "cannot use the image's layers"))?,
            }
        };
        let (upper, work) = upper_and_work(writable, lower.first())
            .map_err(failed(Stage::Root, format!("cannot use `{}`", writable.display())))?;
        self.overlay(&lower, (&upper, &work), devices)
            .map_err(failed(Stage::Root, "cannot mount the image's layers"))
    }

    /// Layers whose files belong to a pod's own users: in copies of the folders that they are in, mounted
    /// where nobody sees them any more once the root is made.
    fn mapped(&self, layers: &[PathBuf], users: &PodUsers) -> io::Result<Vec<OwnedFd>> {
        let mut folders: Vec<(&Path, OwnedFd)> = Vec::new();
        let mut mapped = Vec::new();
        for layer in layers {
            let (Some(above), Some(name)) = (layer.parent(), layer.file_name()) else {
                return Err(io::Error::other(format!("`{}` is no layer", layer.display())));
            };
            let known = folders.iter().position(|(folder, _)| *folder == above);
            let index = known.map_or_else(
                || -> io::Result<usize> {
                    let tree = mounts::clone(rustix::fs::CWD, above)?;
                    mounts::keep_to_itself(&tree)?;
                    mounts::map_owners(&tree, users).map_err(|error| {
                        io::Error::new(error.kind(), format!("`{}`: {error}", above.display()))
                    })?;
                    let place = format!("layers-{}", folders.len());
                    mounts::attach(&tree, mounts::folder(&self.scratch, OsStr::new(&place))?)?;
                    folders.push((above, tree));
                    Ok(folders.len() - 1)
                },
                Ok,
            )?;
            let folder = folders.get(index).map(|(_, it)| it).ok_or(Errno::NOENT)?;
            mapped.push(mounts::entry(folder, name)?);
        }
        Ok(mapped)
    }

    /// An overlay mount, whose folder for changes was in none before. The names in its options are those
    /// of descriptors: short, so that as many as are allowed fit into a page, and with no character that
    /// is special there.
    fn overlay(
        &self,
        lower: &[OwnedFd],
        (upper, work): (&OwnedFd, &OwnedFd),
        devices: Devices,
    ) -> io::Result<OwnedFd> {
        let place = mounts::folder(&self.scratch, OsStr::new("image"))?;
        let lower: Vec<String> = lower.iter().map(|it| it.as_raw_fd().to_string()).collect();
        // Volatile: nobody reads a container's changes after a crash of the machine, and without it
        // the kernel flushes all of the disk's file system whenever a container ends.
        let mut options = format!(
            "volatile,lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            upper.as_raw_fd(),
            work.as_raw_fd()
        );
        if !self.ground.initial_user_namespace {
            options.push_str(",userxattr");
        }
        rustix::process::chdir("/proc/self/fd")?;
        let options = std::ffi::CString::new(options)?;
        let point = place.as_raw_fd().to_string();
        let flags = match devices {
            Devices::Usable => MountFlags::empty(),
            Devices::Forbidden => MountFlags::NODEV,
        };
        rustix::mount::mount("overlay", point, "overlay", flags, &*options)?;
        rustix::process::chdir("/")?;
        mounts::entry(&self.scratch, OsStr::new("image"))
    }

    /// The copy of an image's files, as a mount of its own.
    fn folder(&self, path: &Path, devices: Devices) -> io::Result<OwnedFd> {
        let place = mounts::folder(&self.scratch, OsStr::new("image"))?;
        let tree = mounts::clone(rustix::fs::CWD, path)?;
        mounts::keep_to_itself(&tree)?;
        self.ground.users.as_ref().map_or(Ok(()), |it| mounts::map_owners(&tree, it))?;
        if devices == Devices::Forbidden {
            mounts::forbid_devices(&tree)?;
        }
        mounts::attach(&tree, place)?;
        Ok(tree)
    }

    /// A folder of the image itself, made if it is missing.
    fn own_folder(&self, name: &str) -> io::Result<()> {
        let name = OsStr::new(name);
        match mounts::entry(&self.root, name) {
            Ok(entry) if mounts::is_folder(&entry)? => Ok(()),
            Ok(_) => Err(io::Error::other("it is no folder")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                mounts::folder(&self.root, name).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// The devices of a container, with terminals, message queues and memory of its own.
    fn image_dev(&mut self, spec: &ContainerSpec) -> Result<(), StartError> {
        let what = "cannot make `/dev`";
        self.bare_dev(spec).map_err(failed(Stage::Root, what))?;
        let of_pod = self.ground.users.as_ref().map(PodUsers::map);
        let map = of_pod.or(spec.user_namespace.as_ref());
        let group = tty_group(self.ground.initial_user_namespace, map);
        let group = group.map(|it| it.to_string());
        let mut terminals = vec![("ptmxmode", "666"), ("mode", "620")];
        terminals.extend(group.as_deref().map(|it| ("gid", it)));
        self.device("devpts", "/dev/pts", &terminals)?;
        if self.ground.host_ipc {
            return ["/dev/mqueue", "/dev/shm"].into_iter().try_for_each(|it| self.machines(it));
        }
        self.device("mqueue", "/dev/mqueue", &[])?;
        self.shared_memory(spec.shm_bytes)
    }

    /// Mounts what the machine has at a path below `/dev`, if it has it.
    fn machines(&mut self, target: &str) -> Result<(), StartError> {
        let tree = mounts::clone(rustix::fs::CWD, target).and_then(|tree| {
            mounts::keep_to_itself(&tree)?;
            mounts::forbid_devices(&tree)?;
            Ok(tree)
        });
        match tree {
            Ok(tree) => self.mount(tree, Path::new(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(Stage::Root, format!("cannot share `{target}`"))(error)),
        }
    }

    fn bare_dev(&mut self, spec: &ContainerSpec) -> io::Result<()> {
        let entries = if spec.privileged {
            clone_entries(&open_path(Path::new("/dev"))?, &OWN_DEVICES.map(OsStr::new))?
        } else {
            Vec::new()
        };
        let options = [("mode", "755"), ("size", DEV_SIZE)];
        let dev = mounts::new_with("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
        mounts::attach(&dev, mounts::entry(&self.root, OsStr::new("dev"))?)?;
        self.ours.push(mounts::mount_id(&dev)?);
        if spec.privileged {
            fill(&dev, entries)?;
        } else {
            for name in DEVICES {
                match mounts::clone(rustix::fs::CWD, Path::new("/dev").join(name)) {
                    Ok(tree) => mounts::attach(tree, mounts::file(&dev, OsStr::new(name))?)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            // Device files that root makes here are of no more use than elsewhere.
            mounts::forbid_devices(&dev)?;
        }
        for (name, target) in LINKS {
            rustix::fs::symlinkat(target, &dev, name)?;
        }
        Ok(())
    }

    /// A file with the host name.
    fn host_name(&self, hostname: &str) -> io::Result<OwnedFd> {
        let name = OsStr::new(HOSTNAME);
        let file = mounts::file(&self.scratch, name)?;
        rustix::io::write(file, format!("{hostname}\n").as_bytes())?;
        mounts::clone(&self.scratch, HOSTNAME)
    }
}

/// Where an overlay's changes go: the folder stands for the root of the topmost layer.
fn upper_and_work(writable: &Path, top: Option<&OwnedFd>) -> io::Result<(OwnedFd, OwnedFd)> {
    let writable = open_path(writable)?;
    let make = |name: &str, mode: Mode| -> io::Result<OwnedFd> {
        match rustix::fs::mkdirat(&writable, name, mode) {
            Ok(()) | Err(Errno::EXIST) => mounts::entry(&writable, OsStr::new(name)),
            Err(error) => Err(error.into()),
        }
    };
    let top = top.map(rustix::fs::fstat).transpose()?;
    let mode = top.map_or(Mode::from_bits_retain(0o755), |it| Mode::from_raw_mode(it.st_mode));
    let upper = make("upper", mode)?;
    if let Some(top) = top {
        let (uid, gid) = (Uid::from_raw(top.st_uid), Gid::from_raw(top.st_gid));
        match rustix::fs::chownat(
            &writable,
            "upper",
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            // Where there is one user only, it is the user's already.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((upper, make("work", Mode::RWXU)?))
}

/// Who owns terminals, by its number in the cluster's user namespace.
fn tty_group(initial: bool, map: Option<&IdMap>) -> Option<u32> {
    match map {
        None => initial.then_some(TTY),
        Some(map) => map.gids.iter().find_map(|it| {
            let offset = TTY.checked_sub(it.inside).filter(|offset| *offset < it.count)?;
            it.outside.checked_add(offset)
        }),
    }
}
