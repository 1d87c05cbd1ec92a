//! Control groups, as far as a shim has to do with them: it is told folders, in which a container's
//! processes begin, and reads and empties them at the container's end.
//!
//! Makes, limits and removes none: that is the node's business.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, PidfdFlags, Signal},
};

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const VERSION_2: i64 = 0x6367_7270;

/// The file that lists a group's processes.
const PROCESSES: &str = "cgroup.procs";

/// The file by which a thread joins a group of version 1: the calling one at once. Whoever moves a whole
/// process, by `cgroup.procs`, first waits until no processor is in the midst of a fork or an exit, which
/// takes the kernel 5 to 30 ms after a quiet time.
const THREADS: &str = "tasks";

/// The file that, written, kills everything in a group and below: version 2, Linux 5.14.
const KILL: &str = "cgroup.kill";

/// How often what is found in a group is killed: a process may fork while it is looked at, but what
/// forks without end is bounded by the group's limit, and killed with its PID namespace.
const KILLS_MAX: usize = 100;

/// Groups that processes can be put into, one of each hierarchy. They may be renamed meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Cgroups(Vec<Group>);

#[derive(Debug)]
struct Group {
    folder: File,
    /// By which a process joins; it is forked into one of version 2.
    threads: Option<File>,
}

impl Cgroups {
    /// Opens the groups with these folders.
    pub(crate) fn open(folders: &[PathBuf]) -> io::Result<Self> {
        folders.iter().map(|it| Group::open(it)).collect::<io::Result<_>>().map(Self)
    }

    /// The group into which a process can be forked, which spares it joining.
    pub(crate) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.0.iter().find(|it| it.threads.is_none()).map(|it| it.folder.as_fd())
    }

    /// Puts this process, which has one thread, into those it was not forked into.
    pub(crate) fn join(&self) -> io::Result<()> {
        // The thread that writes it. By a number of its own it would have to wait as well.
        const SELF: &[u8] = b"0";
        self.0.iter().filter_map(|it| it.threads.as_ref()).try_for_each(|mut it| it.write_all(SELF))
    }

    /// Whether these are the groups with these folders.
    pub(crate) fn are(&self, folders: &[PathBuf]) -> bool {
        let same = |(group, folder): (&Group, &PathBuf)| -> io::Result<bool> {
            let (ours, there) = (group.folder.metadata()?, fs::metadata(folder)?);
            Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        };
        self.0.len() == folders.len()
            && self.0.iter().zip(folders).all(|it| same(it).unwrap_or(false))
    }
}

impl Group {
    fn open(path: &Path) -> io::Result<Self> {
        let named = |it: rustix::io::Errno| {
            let it = io::Error::from(it);
            io::Error::new(it.kind(), format!("`{}`: {it}", path.display()))
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(named)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let threads = if rustix::fs::fstatfs(&folder)?.f_type == VERSION_2 {
            None
        } else {
            Some(rustix::fs::openat(&folder, THREADS, flags, Mode::empty()).map_err(named)?.into())
        };
        Ok(Self { folder: folder.into(), threads })
    }
}

/// Whether a group with this folder is one of version 2.
pub(crate) fn is_version_2(folder: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(folder)?.f_type == VERSION_2)
}

/// Whether the kernel killed a process of the groups for want of memory; `None` if none of them
/// counts that.
pub(crate) fn oom_killed(folders: &[PathBuf]) -> Option<bool> {
    // Version 2, and 1.
    let files = ["memory.events", "memory.oom_control"];
    let paths = folders.iter().flat_map(|folder| files.map(|file| folder.join(file)));
    paths
        .filter_map(|it| fs::read_to_string(it).ok())
        .find_map(|it| oom_kills(&it))
        .map(|it| 0 < it)
}

fn oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|it| it.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Kills what is still in the groups: processes that are not in the container's PID namespace.
pub(crate) fn kill(folders: &[PathBuf]) {
    for folder in folders {
        // Not there in version 1.
        if fs::write(folder.join(KILL), "1").is_ok() {
            return;
        }
    }
    // Those that joined one have joined all.
    let Some(procs) = folders.first().map(|it| it.join(PROCESSES)) else { return };
    for _ in 0..KILLS_MAX {
        let found = processes(&procs);
        if found.is_empty() {
            return;
        }
        let open = |pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        let held: Vec<_> = found.into_iter().filter_map(|it| Some((it, open(it)?))).collect();
        // Whoever is still listed is the one that is held.
        let still = processes(&procs);
        for (_, process) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            // It fails only if the process has ended already.
            rustix::process::pidfd_send_signal(process, Signal::KILL).ok();
        }
    }
}

fn processes(procs: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(procs).unwrap_or_default();
    text.lines().filter_map(|it| Pid::from_raw(it.parse().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, text: &str, expected: Option<bool>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(file), text).unwrap();
        assert_eq!(oom_killed(&["/nowhere".into(), dir.path().to_owned()]), expected);
    }

    #[test]
    fn oom_kills_are_read_of_both_versions() {
        let events = "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n";
        check("memory.events", events, Some(true));
        check("memory.events", &events.replace("kill 1", "kill 0"), Some(false));
        let control = "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n";
        check("memory.oom_control", control, Some(false));
        check("memory.oom_control", &control.replace("kill 0", "kill 12"), Some(true));
        // Before Linux 4.13.
        check("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", None);
        check("cpu.stat", "nr_periods 0\n", None);
    }

    #[test]
    fn groups_are_known_again_after_renaming() {
        let dir = tempfile::tempdir().unwrap();
        let (spare, other) = (dir.path().join("spare"), dir.path().join("other"));
        for folder in [&spare, &other] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(THREADS), "").unwrap();
        }
        let groups = Cgroups::open(std::slice::from_ref(&spare)).unwrap();
        let renamed = dir.path().join("renamed");
        fs::rename(&spare, &renamed).unwrap();
        assert!(groups.are(std::slice::from_ref(&renamed)));
        assert!(!groups.are(&[spare]) && !groups.are(&[other]) && !groups.are(&[]));
        groups.join().unwrap();
        assert_eq!(fs::read_to_string(renamed.join(THREADS)).unwrap(), "0");
        assert!(Cgroups::default().are(&[]));
    }
}
