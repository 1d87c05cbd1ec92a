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
//! It is made in two steps: what all containers have, which may be done ahead, and the rest.

use std::{ffi::OsStr, io, os::fd::OwnedFd, path::Path};

use rustix::fs::Mode;

use super::{
    super::{Ground, failed, mounts, open_path},
    HOSTNAME, HOSTS, RESOLV_CONF, Root, SysAccess, keep_to_itself,
    points::{clone_entries, fill},
};
use crate::wire::{ContainerSpec, PidNamespace, Stage, StartError};

/// Entries of `/` that a container has its own of.
const OWN: [&str; 3] = ["etc", "proc", "sys"];

/// Where root in a container must not write by mistake: what containerd makes read-only.
const PROC_READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

impl<'a> Root<'a> {
    /// Makes what the roots of all linked containers have.
    pub(in super::super) fn begin_host(
        ground: &'a Ground,
        pid: PidNamespace,
    ) -> Result<Self, StartError> {
        keep_to_itself()?;
        // Before scratch is mounted below one of them.
        let entries = open_path(Path::new("/"))
            .and_then(|host| clone_entries(&host, &OWN.map(OsStr::new)))
            .map_err(failed(Stage::Root, "cannot copy the folder `/`"))?;
        let mounted_in_etc =
            mounts_in("/etc/").map_err(failed(Stage::Root, "cannot read the table of mounts"))?;
        let mut root = Self { mounted_in_etc, ..Self::scratch(ground)? };
        fill(&root.root, entries).map_err(failed(Stage::Root, "cannot fill the root"))?;
        for name in OWN {
            mounts::folder(&root.root, OsStr::new(name))
                .map_err(failed(Stage::Root, format!("cannot make `/{name}`")))?;
        }
        root.proc_and_sys(SysAccess::ReadOnly, pid)?;
        if ground.initial_user_namespace {
            // Elsewhere the kernel itself keeps everybody but real root from writing there.
            let protect = |it: &&str| root.make_read_only(&Path::new("/proc").join(it));
            PROC_READ_ONLY
                .iter()
                .try_for_each(protect)
                .map_err(failed(Stage::Root, "cannot protect `/proc`"))?;
        }
        root.dev()?;
        for path in &ground.masked {
            let what = format!("cannot mask `{}`", path.display());
            root.mask(path).map_err(failed(Stage::Root, what))?;
        }
        Ok(root)
    }

    /// Makes the rest that the root of one linked container has, but for its mounts.
    pub(super) fn finish_host(
        &mut self,
        hostname: &str,
        spec: &ContainerSpec,
    ) -> Result<(), StartError> {
        self.etc(hostname, spec).map_err(failed(Stage::Root, "cannot make `/etc`"))?;
        if self.ground.host_ipc {
            // The machine's is there.
            return Ok(());
        }
        self.shared_memory(spec.shm_bytes)
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
        if !self.ground.host_ipc && mounts::find(&self.root, "/dev/mqueue").is_ok() {
            self.device("mqueue", "/dev/mqueue", &[])?;
        }
        Ok(())
    }
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
