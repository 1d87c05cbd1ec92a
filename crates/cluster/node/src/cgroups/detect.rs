//! Finds out which control groups this process may make groups in: of version 2, of version 1 with
//! each controller somewhere else, both beside each other, or none.
//!
//! Changes nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::Access;

/// What of a group can be limited or counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Cpu,
    /// Counts CPU time; in version 2 every group does.
    Cpuacct,
    Memory,
    Pids,
}

impl Controller {
    pub(crate) const ALL: [Self; 4] = [Self::Cpu, Self::Cpuacct, Self::Memory, Self::Pids];

    /// The kernel's name.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// Of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

/// A tree of groups in which groups can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) version: Version,
    pub(crate) controllers: Vec<Controller>,
    /// The group in which groups are made.
    pub(crate) folder: PathBuf,
}

/// Why no control group limits something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    pub(crate) controller: Controller,
    pub(crate) reason: String,
}

/// What there is, and what is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) hierarchies: Vec<Hierarchy>,
    pub(crate) lacks: Vec<Lack>,
}

/// Looks at this machine.
pub(crate) fn detect() -> io::Result<Found> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(find(&mounts, &fs::read_to_string("/proc/self/cgroup")?))
}

/// From the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`, see proc(5) and cgroups(7), and
/// the folders that they name.
pub(super) fn find(mounts: &str, own: &str) -> Found {
    let mut found = Found::default();
    let mut seen = Vec::new();
    for mount in mounts.lines().filter_map(Mount::parse) {
        let controllers = mount.controllers();
        let new: Vec<Controller> =
            controllers.into_iter().filter(|it| !seen.contains(it)).collect();
        if new.is_empty() {
            continue;
        }
        seen.extend(&new);
        match mount.place(own) {
            Ok(folder) => {
                let version = mount.version;
                let (controllers, kept) = mount.delegated(&folder, new);
                let reason = |it: Controller| {
                    format!("`{}` is not delegated to `{}`", it.name(), folder.display())
                };
                let lack = |it| Lack { controller: it, reason: reason(it) };
                found.lacks.extend(kept.into_iter().map(lack));
                found.hierarchies.push(Hierarchy { version, controllers, folder });
            }
            Err(reason) => found
                .lacks
                .extend(new.into_iter().map(|it| Lack { controller: it, reason: reason.clone() })),
        }
    }
    let missing = Controller::ALL.into_iter().filter(|it| !seen.contains(it));
    found.lacks.extend(missing.map(|controller| Lack {
        controller,
        reason: format!("there is no `{}` controller", controller.name()),
    }));
    found.lacks.sort_by_key(|it| it.controller);
    found
}

/// A mounted hierarchy.
struct Mount<'a> {
    version: Version,
    /// The group that is mounted.
    root: &'a str,
    point: PathBuf,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, unescape(place.next()?));
        let mut kind = kind.split(' ');
        let version = match kind.next()? {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        Some(Self { version, root, point, options: kind.nth(1)? })
    }

    fn controllers(&self) -> Vec<Controller> {
        match self.version {
            Version::One => self.options.split(',').filter_map(Controller::parse).collect(),
            Version::Two => {
                let mut all = given(&self.point);
                if !all.is_empty() {
                    all.push(Controller::Cpuacct);
                }
                all
            }
        }
    }

    /// Of these controllers, those that the group has, and the others: whoever hands a group of version
    /// 2 over says which come with it.
    fn delegated(
        &self,
        folder: &Path,
        controllers: Vec<Controller>,
    ) -> (Vec<Controller>, Vec<Controller>) {
        let has = match self.version {
            Version::One => return (controllers, Vec::new()),
            Version::Two => given(folder),
        };
        controllers.into_iter().partition(|it| *it == Controller::Cpuacct || has.contains(it))
    }

    /// The highest group, of those that this process is in, in which it may make groups and move
    /// processes.
    fn place(&self, own: &str) -> Result<PathBuf, String> {
        let own = own.lines().find_map(|it| self.own(it)).unwrap_or_default();
        let inside = own.strip_prefix(self.root).unwrap_or(own);
        let mut folder = self.point.clone();
        let mut parts = inside.split('/').filter(|it| !it.is_empty() && *it != "..");
        loop {
            if self.is_writable(&folder) {
                return Ok(folder);
            }
            match parts.next() {
                Some(part) => folder.push(part),
                None => {
                    return Err(format!(
                        "control groups below `{}` may not be written",
                        self.point.display()
                    ));
                }
            }
        }
    }

    /// The group of this process in a line of `/proc/self/cgroup`, if it is about this hierarchy.
    fn own<'b>(&self, line: &'b str) -> Option<&'b str> {
        let (id, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        let is_it = match self.version {
            Version::Two => id == "0",
            Version::One => names.split(',').any(|it| {
                Controller::parse(it).is_some() && self.options.split(',').any(|own| own == it)
            }),
        };
        is_it.then_some(path)
    }

    fn is_writable(&self, folder: &Path) -> bool {
        let files: &[&str] = match self.version {
            Version::One => &["", "cgroup.procs", "tasks"],
            Version::Two => &["", "cgroup.procs", "cgroup.subtree_control"],
        };
        files.iter().all(|it| rustix::fs::access(folder.join(it), Access::WRITE_OK).is_ok())
    }
}

/// The controllers of a group of version 2.
fn given(folder: &Path) -> Vec<Controller> {
    let text = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().filter_map(Controller::parse).collect()
}

/// A path of mountinfo, in which blanks are written in octal.
fn unescape(path: &str) -> PathBuf {
    let blanks = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    blanks.iter().fold(path.to_owned(), |path, (from, to)| path.replace(from, to)).into()
}
