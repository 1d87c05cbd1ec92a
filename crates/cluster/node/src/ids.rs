//! Ids of the machine for pods with users of their own (`hostUsers: false`, clusters of root's): each
//! has a range of 65536, which no other pod of any cluster on the machine has.
//!
//! Who has a range holds a lock on a file that is named after it. The pod's shim holds it as long as it
//! lives, so nothing has to be remembered: whoever else is killed, the pod keeps its range, and when the
//! shim ends, its containers do, and the range is free.
//!
//! What others were given in `/etc/subuid` and `/etc/subgid` is left to them. Where the user `kubelet` has
//! ranges there, pods have those, as with the kubelet.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::Path,
};

use rustix::fs::{FlockOperation, Mode, OFlags};
use shim::wire::{IdMap, IdRange};

/// The folder of the locks. In memory: what it says is of no use after a reboot.
const FOLDER: &str = "/run/coracle-ids";

/// How many ids a pod has, and what its first one is a multiple of: the kubelet's default.
const COUNT: u32 = 1 << 16;

/// The first id that no pod has. Greater ones are negative numbers to some programs.
const END: u32 = 1 << 31;

/// Whose ranges, if it has any, are those of pods.
const KUBELET: &str = "kubelet";

/// How often a lock is tried whose file is removed at the same moment.
const TRIES_MAX: usize = 100;

/// A range that nobody else has, as long as the lock is open.
#[derive(Debug)]
pub(crate) struct Claim {
    start: u32,
    pub(crate) lock: OwnedFd,
}

/// Why there is no range for a pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// All are in use.
    #[error(
        "no {COUNT} ids are free for `hostUsers: false`: {pods} pods of this machine have all that may \
         be used"
    )]
    Exhausted {
        /// How many ranges there are.
        pods: usize,
    },
    /// Others have all there are.
    #[error(
        "`/etc/subuid` and `/etc/subgid` leave no {COUNT} ids that begin at a multiple of {COUNT} for \
         `hostUsers: false`"
    )]
    NoRanges,
    /// What others have cannot be read.
    #[error("cannot read `{file}`")]
    Read {
        /// The file.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The locks cannot be used.
    #[error("cannot lock a range of ids in `{FOLDER}`")]
    Lock(#[source] io::Error),
}

impl Claim {
    /// Takes a range that is free.
    pub(crate) fn new() -> Result<Self, ClaimError> {
        let starts = starts(&read("/etc/subuid")?, &read("/etc/subgid")?);
        if starts.is_empty() {
            return Err(ClaimError::NoRanges);
        }
        for start in &starts {
            if let Some(lock) = lock(Path::new(FOLDER), *start).map_err(ClaimError::Lock)? {
                return Ok(Self { start: *start, lock });
            }
        }
        Err(ClaimError::Exhausted { pods: starts.len() })
    }

    /// What a user namespace maps that has the range.
    pub(crate) fn map(&self) -> IdMap {
        let range = vec![IdRange { inside: 0, outside: self.start, count: COUNT }];
        IdMap { uids: range.clone(), gids: range }
    }
}

/// Removes what those have left who hold no range any more.
///
/// # Errors
/// If the folder of the locks cannot be read or changed.
pub fn sweep() -> io::Result<()> {
    sweep_in(Path::new(FOLDER))
}

fn sweep_in(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let path = entry?.path();
        let file = match rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            // Another process was quicker.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        // Locked, so that nobody takes a range whose file is gone.
        if is_locked(&file)? && is_there(&file)? {
            fs::remove_file(&path)?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error)
            if [ErrorKind::DirectoryNotEmpty, ErrorKind::NotFound].contains(&error.kind()) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Locks a range; `None` if somebody has it.
fn lock(folder: &Path, start: u32) -> io::Result<Option<OwnedFd>> {
    let path = folder.join(start.to_string());
    for _ in 0..TRIES_MAX {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => {
                fs::DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if !is_locked(&file)? {
            return Ok(None);
        }
        if is_there(&file)? {
            return Ok(Some(file));
        }
    }
    Err(io::Error::other(format!("`{}` is removed again and again", path.display())))
}

/// Locks a file, unless somebody else has.
fn is_locked(file: &OwnedFd) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file still has a name.
fn is_there(file: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::fs::fstat(file)?.st_nlink != 0)
}

fn read(file: &'static str) -> Result<String, ClaimError> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|source| ClaimError::Read { file, source }),
    }
}

/// The first ids of all ranges that pods may have, by what is in `/etc/subuid` and `/etc/subgid`.
fn starts(users: &str, groups: &str) -> Vec<u32> {
    let given = [subordinate(users), subordinate(groups)];
    let for_pods = given.iter().flatten().any(|it| it.owner == KUBELET);
    let begins = (COUNT..END).step_by(1 << 16).map(u64::from);
    let free = begins.filter(|start| {
        let range = *start..start + u64::from(COUNT);
        given.iter().all(|list| {
            if for_pods {
                let mut own = list.iter().filter(|it| it.owner == KUBELET);
                own.any(|it| it.start <= range.start && range.end <= it.end)
            } else {
                list.iter().all(|it| it.end <= range.start || range.end <= it.start)
            }
        })
    });
    free.filter_map(|it| u32::try_from(it).ok()).collect()
}

/// Ids that somebody was given.
struct Given<'a> {
    owner: &'a str,
    start: u64,
    /// The first one behind them.
    end: u64,
}

/// What is in a file such as subuid(5): lines of `OWNER:START:COUNT`.
fn subordinate(text: &str) -> Vec<Given<'_>> {
    let line = |it: &str| -> Option<(u64, u64)> {
        let (start, count) = it.split_once(':')?;
        let (start, count): (u64, u64) = (start.parse().ok()?, count.parse().ok()?);
        Some((start, start.checked_add(count)?))
    };
    let given = text.lines().filter_map(|it| {
        let (owner, rest) = it.trim().split_once(':')?;
        let (start, end) = line(rest)?;
        Some(Given { owner, start, end })
    });
    given.collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(users: &str, groups: &str, expected: Expect) {
        let found = starts(users, groups);
        let first: Vec<u32> = found.iter().map(|it| it >> 16).take(4).collect();
        let last = found.last().map(|it| it >> 16);
        expected.assert_eq(&format!("{}: {first:?} … {last:?}", found.len()));
    }

    #[test]
    fn ranges_are_nobody_elses() {
        check("", "", expect!["32767: [1, 2, 3, 4] … Some(32767)"]);
        check("me:100000:65536\n", "", expect!["32765: [3, 4, 5, 6] … Some(32767)"]);
        check(
            "# none\nbroken:x:1\n",
            "you:131072:65536",
            expect!["32766: [1, 3, 4, 5] … Some(32767)"],
        );
        check("all:65536:4294901760", "", expect!["0: [] … None"]);
    }

    #[test]
    fn ranges_of_the_kubelet_are_for_pods() {
        let own = "kubelet:196608:131072\nme:100000:65536";
        check(own, own, expect!["2: [3, 4] … Some(4)"]);
        check(own, "kubelet:262144:65536", expect!["1: [4] … Some(4)"]);
        // Only half of it.
        check(own, "", expect!["0: [] … None"]);
        check("kubelet:65537:131071", "kubelet:65537:131071", expect!["1: [2] … Some(2)"]);
    }

    #[test]
    fn a_range_is_had_once_and_given_back() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("ids");
        let first = lock(&folder, 65_536).unwrap().unwrap();
        assert!(lock(&folder, 65_536).unwrap().is_none());
        let second = lock(&folder, 131_072).unwrap().unwrap();
        // As a shim has it.
        let held = first.try_clone().unwrap();
        drop((first, second));
        sweep_in(&folder).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(lock(&folder, 65_536).unwrap().is_none());
        drop(held);
        sweep_in(&folder).unwrap();
        assert!(!folder.exists());
        sweep_in(&folder).unwrap();
        assert!(lock(&folder, 65_536).unwrap().is_some());
    }
}
