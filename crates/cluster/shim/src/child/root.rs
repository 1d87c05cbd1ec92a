//! A container's root for linked source: the machine's own, with what a container has for itself.
//!
//! The root is a small file system in memory ("scratch") with the entries of the host's `/` mounted
//! into it one by one. A mount point that the host lacks is made by *shadowing* the deepest folder
//! there is: a folder on scratch takes its place, into which its entries are mounted one by one
//! again, so that programs go on writing through to the host in everything that existed, and no
//! mount point ever appears on the host.
//!
//! `/etc` is different: an overlay, whose changes stay in the container. There, host programs
//! replace files by renaming (`resolv.conf` with every change of network), which would drop a mount
//! on the old file and let the container see the host's; and it has many entries. Where an overlay
//! is impossible, it is shadowed like others.
//!
//! It is made in two steps: what all containers have, which may be done ahead, and the rest. `/proc`
//! and `/sys` are mounted while the host's are still visible, which the kernel demands without root.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid},
    io::Errno,
    mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags},
};

use super::{Ground, Net, failed, mounts, open_path, refused, volumes};
use crate::wire::{ContainerSpec, Mount, Source, Stage, StartError};

/// What programs may write to places that are the container's own, such as /etc; then they get
/// ENOSPC.
const SCRATCH_SIZE: &str = "67108864";

/// A folder with more entries is not shadowed, since each becomes a mount.
const SHADOW_ENTRIES_MAX: usize = 4096;

/// Entries of `/` that a container has its own of.
const OWN: [&str; 3] = ["etc", "proc", "sys"];

/// Files that a container has its own of.
const RESOLV_CONF: &str = "resolv.conf";
const HOSTS: &str = "hosts";
const HOSTNAME: &str = "hostname";

/// Where root in a container must not write by mistake: what containerd makes read-only.
const PROC_READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// A root in the making.
pub(super) struct Root<'a> {
    ground: &'a Ground,
    /// The file system in memory that holds everything that is the container's own.
    scratch: OwnedFd,
    /// What will be `/`.
    root: OwnedFd,
    /// Mounts in which mount points may be made: scratch, `/etc`, volumes of our own.
    ours: Vec<u64>,
    shadows: usize,
    /// Names below /etc where something of the host is mounted.
    mounted_in_etc: Vec<String>,
}

impl<'a> Root<'a> {
    /// Makes what the roots of all containers have.
    pub(super) fn begin(ground: &'a Ground) -> Result<Self, StartError> {
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slave)
            .map_err(failed(Stage::Root, "cannot keep mounts to the container"))?;
        // Before scratch is mounted below one of them.
        let entries = open_path(Path::new("/"))
            .and_then(|host| clone_entries(&host, &OWN.map(OsStr::new)))
            .map_err(failed(Stage::Root, "cannot copy the folder `/`"))?;
        let mounted_in_etc =
            mounts_in("/etc/").map_err(failed(Stage::Root, "cannot read the table of mounts"))?;
        let mut root = Self::scratch(ground, mounted_in_etc)
            .map_err(failed(Stage::Root, "cannot make the container's file system"))?;
        fill(&root.root, entries).map_err(failed(Stage::Root, "cannot fill the root"))?;
        for name in OWN {
            mounts::folder(&root.root, OsStr::new(name))
                .map_err(failed(Stage::Root, format!("cannot make `/{name}`")))?;
        }
        root.proc_and_sys()?;
        root.dev()?;
        for path in &ground.masked {
            let what = format!("cannot mask `{}`", path.display());
            root.mask(path).map_err(failed(Stage::Root, what))?;
        }
        Ok(root)
    }

    /// Makes the rest of it, for one container, and goes into it.
    pub(super) fn enter(mut self, hostname: &str, spec: &ContainerSpec) -> Result<(), StartError> {
        let volumes = volumes::open(self.ground, spec)?;
        self.etc(hostname, spec).map_err(failed(Stage::Root, "cannot make `/etc`"))?;
        self.shared_memory(spec.shm_bytes)?;
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
        self.pivot().map_err(failed(Stage::Pivot, "cannot go into the container's root"))
    }

    fn scratch(ground: &'a Ground, mounted_in_etc: Vec<String>) -> io::Result<Self> {
        let scratch = mounts::new("tmpfs", &[("mode", "755"), ("size", SCRATCH_SIZE)])?;
        mounts::attach(&scratch, open_path(&ground.place)?)?;
        let place = mounts::folder(&scratch, OsStr::new("root"))?;
        rustix::fs::mkdirat(&scratch, "empty", Mode::from_bits_retain(0o555))?;
        let root = mounts::clone(&scratch, "root")?;
        mounts::attach(&root, place)?;
        let ours = vec![mounts::mount_id(&root)?];
        Ok(Self { ground, scratch, root, ours, shadows: 0, mounted_in_etc })
    }

    fn proc_and_sys(&self) -> Result<(), StartError> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = |kind: &str, name: &str, attributes| -> io::Result<()> {
            let tree = mounts::new_with(kind, &[], attributes)?;
            mounts::attach(tree, mounts::entry(&self.root, OsStr::new(name))?)
        };
        mount("proc", "proc", attributes).map_err(failed(Stage::Root, "cannot mount `/proc`"))?;
        let sys = match self.ground.net {
            Net::Own(_) => {
                let read_only = attributes | MountAttrFlags::MOUNT_ATTR_RDONLY;
                mount("sysfs", "sys", read_only)
            }
            // It shows the network, so that only who owns that can mount it.
            Net::Host(_) => mounts::clone_read_only(rustix::fs::CWD, "/sys").and_then(|tree| {
                mounts::attach(tree, mounts::entry(&self.root, OsStr::new("sys"))?)
            }),
        };
        sys.map_err(failed(Stage::Root, "cannot mount `/sys`"))?;
        if !self.ground.initial_user_namespace {
            // The kernel itself keeps everybody but real root from writing there.
            return Ok(());
        }
        let proc = mounts::find(&self.root, "proc");
        let protect = |proc: &OwnedFd, name: &str| -> io::Result<()> {
            match mounts::clone_read_only(proc, name) {
                Ok(tree) => mounts::attach(tree, mounts::entry(proc, OsStr::new(name))?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        };
        proc.and_then(|proc| PROC_READ_ONLY.iter().try_for_each(|it| protect(&proc, it)))
            .map_err(failed(Stage::Root, "cannot protect `/proc`"))
    }

    /// Gives the container an `/etc` of its own, with its files in it.
    fn etc(&mut self, hostname: &str, spec: &ContainerSpec) -> io::Result<()> {
        let mut own = vec![HOSTNAME];
        own.extend(spec.resolv_conf.is_some().then_some(RESOLV_CONF));
        own.extend(spec.hosts.is_some().then_some(HOSTS));
        let place = mounts::find(&self.root, "etc")?;
        let is_own = |it: &String| own.contains(&it.as_str());
        let alone = self.mounted_in_etc.iter().all(is_own);
        if alone && self.etc_overlay(&place, &own, hostname).is_ok() {
            return Ok(());
        }
        let skipped: Vec<&OsStr> = own.iter().map(OsStr::new).collect();
        let entries = match open_path(Path::new("/etc")) {
            Ok(host) => clone_entries(&host, &skipped)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        fill(&place, entries)?;
        etc_files(&place, &own, hostname)
    }

    fn etc_overlay(&mut self, place: &OwnedFd, own: &[&str], hostname: &str) -> io::Result<()> {
        let upper = mounts::folder(&self.scratch, OsStr::new("etc"))?;
        rustix::fs::mkdirat(&self.scratch, "work", Mode::from_bits_retain(0o700))?;
        etc_files(&upper, own, hostname)?;
        // Names below scratch hold none of the characters that are special in mount options.
        rustix::process::fchdir(&self.scratch)?;
        let mut options = vec![("lowerdir", "/etc"), ("upperdir", "etc"), ("workdir", "work")];
        if !self.ground.initial_user_namespace {
            options.push(("userxattr", ""));
        }
        let overlay = mounts::new("overlay", &options)?;
        mounts::attach(&overlay, place)?;
        self.ours.push(mounts::mount_id(overlay)?);
        Ok(())
    }

    /// The host's devices, with terminals and message queues of the container's own.
    fn dev(&mut self) -> Result<(), StartError> {
        // Nearly every container has a mount point here that the host lacks, for its last words.
        mounts::find(&self.root, "/dev")
            .and_then(|dev| self.shadow(&dev))
            .map_err(failed(Stage::Root, "cannot copy the folder `/dev`"))?;
        let mut terminals = vec![("ptmxmode", "666"), ("mode", "620")];
        if self.ground.initial_user_namespace {
            // The group `tty`, which has the same number everywhere.
            terminals.push(("gid", "5"));
        }
        self.device("devpts", "/dev/pts", &terminals)?;
        if mounts::find(&self.root, "/dev/mqueue").is_ok() {
            self.device("mqueue", "/dev/mqueue", &[])?;
        }
        Ok(())
    }

    fn shared_memory(&mut self, bytes: u64) -> Result<(), StartError> {
        self.device("tmpfs", "/dev/shm", &[("mode", "1777"), ("size", &*bytes.to_string())])
    }

    fn device(
        &mut self,
        kind: &str,
        target: &str,
        options: &[(&str, &str)],
    ) -> Result<(), StartError> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let tree = mounts::new_with(kind, options, attributes)
            .map_err(failed(Stage::Root, format!("cannot mount `{target}`")))?;
        self.mount(tree, Path::new(target))
    }

    /// Puts an empty folder that cannot be written in place of a folder that must not be seen.
    fn mask(&self, path: &Path) -> io::Result<()> {
        let place = match mounts::find(&self.root, path) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        mounts::attach(mounts::clone_read_only(&self.scratch, "empty")?, place)
    }

    /// Mounts a tree at a path in the container.
    fn mount(&mut self, tree: OwnedFd, target: &Path) -> Result<(), StartError> {
        let what = format!("cannot mount at `{}`", target.display());
        let names = names(target)?;
        let failed = failed(Stage::Mount, what);
        let folder = mounts::is_folder(&tree).map_err(&failed)?;
        let point = match mounts::find(&self.root, target) {
            Ok(point) => point,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_point(&names, folder).map_err(&failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        if mounts::is_folder(&point).map_err(&failed)? != folder {
            let (is, needed) = if folder { ("file", "folder") } else { ("folder", "file") };
            let target = target.display();
            let message = format!("cannot mount a {needed} at `{target}`: it is a {is}");
            return Err(refused(Stage::Mount, message));
        }
        mounts::attach(tree, point).map_err(failed)
    }

    /// Makes a missing mount point.
    fn make_point(&mut self, names: &[&OsStr], folder: bool) -> io::Result<OwnedFd> {
        let (mut dir, missing) = self.deepest(names)?;
        if !self.ours.contains(&mounts::mount_id(&dir)?) {
            dir = self.shadow(&dir)?;
        }
        let (last, between) = missing.split_last().ok_or(Errno::NOENT)?;
        for name in between {
            dir = mounts::folder(&dir, name)?;
        }
        if folder { mounts::folder(dir, last) } else { mounts::file(dir, last) }
    }

    /// The deepest folder that is there on the way to a path, and the names that are missing.
    fn deepest<'n>(&self, names: &'n [&'n OsStr]) -> io::Result<(OwnedFd, &'n [&'n OsStr])> {
        for length in (0..names.len()).rev() {
            let (there, missing) = names.split_at_checked(length).unwrap_or_default();
            let path: PathBuf =
                [OsStr::new("/")].into_iter().chain(there.iter().copied()).collect();
            match mounts::find(&self.root, path) {
                Ok(dir) if mounts::is_folder(&dir)? => return Ok((dir, missing)),
                Ok(_) => return Err(Errno::NOTDIR.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::NOENT.into())
    }

    /// Puts a folder of our own in place of one of the host, with the same entries.
    fn shadow(&mut self, host: &OwnedFd) -> io::Result<OwnedFd> {
        let entries = clone_entries(host, &[])?;
        let stat = rustix::fs::fstat(host)?;
        let name = format!("shadow-{}", self.shadows);
        self.shadows += 1;
        rustix::fs::mkdirat(&self.scratch, &*name, Mode::from_raw_mode(stat.st_mode))?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        match rustix::fs::chownat(&self.scratch, &*name, Some(uid), Some(gid), AtFlags::empty()) {
            // Without root there is one user only, to whom the folder already belongs.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        let shadow = mounts::clone(&self.scratch, name)?;
        mounts::attach(&shadow, host)?;
        self.ours.push(mounts::mount_id(&shadow)?);
        fill(&shadow, entries)?;
        Ok(shadow)
    }

    /// Whether mount points may be made in a volume: it is ours if it lies where containers cannot
    /// look, in the state folder.
    fn is_ours(&self, mount: &Mount) -> bool {
        let ours = match &mount.source {
            Source::Bind { path } => self.ground.masked.iter().any(|it| path.starts_with(it)),
            Source::Tmpfs { .. } => true,
        };
        ours && !mount.read_only
    }

    fn remember(&mut self, target: &Path) -> io::Result<()> {
        self.ours.push(mounts::mount_id(mounts::find(&self.root, target)?)?);
        Ok(())
    }

    fn pivot(self) -> io::Result<()> {
        rustix::process::fchdir(&self.root)?;
        // The old root comes to lie on the new one, see pivot_root(2), and is taken away.
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        Ok(rustix::process::chdir("/")?)
    }
}

/// An entry of a folder, copied.
struct Entry {
    name: OsString,
    content: Content,
}

enum Content {
    Link(OsString),
    Folder(OwnedFd),
    File(OwnedFd),
}

/// Copies the entries of a folder of the host, except some.
fn clone_entries(host: &OwnedFd, skipped: &[&OsStr]) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    // `host` is there to name entries, and cannot itself be read (O_PATH).
    let read = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for entry in Dir::new(rustix::fs::openat(host, ".", read, Mode::empty())?)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if [".", ".."].map(OsStr::new).contains(&name) || skipped.contains(&name) {
            continue;
        }
        match clone_entry(host, name, entry.file_type()) {
            Ok(content) => entries.push(Entry { name: name.to_owned(), content }),
            // It went away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if SHADOW_ENTRIES_MAX < entries.len() {
            let text = format!(
                "its parent has more than {SHADOW_ENTRIES_MAX} entries; make the folder first"
            );
            return Err(io::Error::other(text));
        }
    }
    Ok(entries)
}

fn clone_entry(host: &OwnedFd, name: &OsStr, kind: FileType) -> io::Result<Content> {
    let kind = match kind {
        // Some file systems do not tell.
        FileType::Unknown => {
            let stat = rustix::fs::statat(host, name, AtFlags::SYMLINK_NOFOLLOW)?;
            FileType::from_raw_mode(stat.st_mode)
        }
        kind => kind,
    };
    Ok(match kind {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(host, name, Vec::new())?;
            Content::Link(OsStr::from_bytes(target.to_bytes()).to_owned())
        }
        FileType::Directory => Content::Folder(mounts::clone(host, name)?),
        _ => Content::File(mounts::clone(host, name)?),
    })
}

/// Mounts copied entries into a folder of our own.
fn fill(dir: &OwnedFd, entries: Vec<Entry>) -> io::Result<()> {
    for Entry { name, content } in entries {
        match content {
            Content::Link(target) => rustix::fs::symlinkat(target, dir, name)?,
            Content::Folder(tree) => mounts::attach(tree, mounts::folder(dir, &name)?)?,
            Content::File(tree) => mounts::attach(tree, mounts::file(dir, &name)?)?,
        }
    }
    Ok(())
}

/// Where below a folder (`/etc/`) something of the host is mounted.
fn mounts_in(dir: &str) -> io::Result<Vec<String>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|it| it.split(' ').nth(4));
    Ok(points.filter_map(|it| it.strip_prefix(dir)).map(str::to_owned).collect())
}

/// The container's own files of `/etc`: the host name, and places for those that are mounted.
fn etc_files(etc: &OwnedFd, own: &[&str], hostname: &str) -> io::Result<()> {
    for name in own {
        let file = mounts::file(etc, OsStr::new(name))?;
        if *name == HOSTNAME {
            rustix::io::write(file, format!("{hostname}\n").as_bytes())?;
        }
    }
    Ok(())
}

/// The names on the way to a mount point.
fn names(target: &Path) -> Result<Vec<&OsStr>, StartError> {
    let shown = target.display();
    let mut names = Vec::new();
    for component in target.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(refused(Stage::Spec, format!("mount point `{shown}` contains `..`")));
            }
        }
    }
    if !target.is_absolute() || names.is_empty() {
        let message = format!("mount point `{shown}` is not an absolute path below `/`");
        return Err(refused(Stage::Spec, message));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check_names(target: &str, expected: Expect) {
        let shown = match names(Path::new(target)) {
            Ok(names) => format!("{names:?}"),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn mount_points_are_absolute_and_straight() {
        check_names("/data", expect![[r#"["data"]"#]]);
        check_names("/opt/./x//y/", expect![[r#"["opt", "x", "y"]"#]]);
        check_names("/", expect!["mount point `/` is not an absolute path below `/`"]);
        check_names("data", expect!["mount point `data` is not an absolute path below `/`"]);
        check_names("/data/../etc", expect!["mount point `/data/../etc` contains `..`"]);
    }
}
