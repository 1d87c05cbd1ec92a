//! Who owns what an image holds, on this machine: how the ids of a layer become ids on the disk,
//! and what a container's own user namespace maps.
//!
//! It is read from the maps of the process that asks, so whoever unpacks must be in the same user
//! namespace as whoever mounts.

use std::{fmt, io};

/// How ids of images are kept on the disk. All numbers are those that the calling process sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// As they are: the machine's root.
    Root,
    /// Id 0 is `own`; ids from 1 on are those of the range; higher ones cannot be kept.
    Range {
        /// The process's user.
        uid: u32,
        /// The process's group.
        gid: u32,
        /// Users that it may give files to.
        uids: Range,
        /// Groups that it may give files to.
        gids: Range,
    },
    /// All is the process's own; what was asked for is only counted.
    Single {
        /// The process's user.
        uid: u32,
        /// The process's group.
        gid: u32,
    },
}

/// Consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u32,
    /// How many, at least one.
    pub count: u32,
}

/// One line of `/proc/PID/uid_map` or `gid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// First id in the new user namespace.
    pub inside: u32,
    /// First id in the one that the calling process is in.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.inside, self.outside, self.count)
    }
}

/// What the user namespace of a container maps: users, then groups.
pub type Nested = (Vec<IdMap>, Vec<IdMap>);

impl Owners {
    /// Those of the calling process.
    ///
    /// # Errors
    /// Those of reading `/proc/self/uid_map` and `gid_map`; `InvalidData` for what is no map.
    pub fn of_process() -> io::Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}"));
        Self::of_maps((uid, &read("uid_map")?), (gid, &read("gid_map")?)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "/proc/self/uid_map is not a map of ids")
        })
    }

    fn of_maps((uid, uid_map): (u32, &str), (gid, gid_map): (u32, &str)) -> Option<Self> {
        let (uids, gids) = (parse(uid_map)?, parse(gid_map)?);
        let is_whole =
            |maps: &[IdMap]| matches!(maps, [IdMap { inside: 0, outside: 0, count: u32::MAX }]);
        if is_whole(&uids) && is_whole(&gids) {
            // An ordinary user outside of any user namespace gives files to nobody.
            return Some(if uid == 0 { Self::Root } else { Self::Single { uid, gid } });
        }
        let range = |own, maps: &[IdMap]| {
            let besides = maps.iter().flat_map(|it| besides(own, it));
            besides.max_by_key(|it| (it.count, std::cmp::Reverse(it.start)))
        };
        Some(match (range(uid, &uids), range(gid, &gids)) {
            (Some(uids), Some(gids)) => Self::Range { uid, gid, uids, gids },
            _ => Self::Single { uid, gid },
        })
    }

    /// Owner and group on the disk of what the image gives to `uid` and `gid`, and whether both are
    /// what was asked for.
    #[must_use]
    pub fn on_disk(&self, uid: u64, gid: u64) -> (u32, u32, bool) {
        let ranged = |id: u64, own: u32, range: &Range| match u32::try_from(id) {
            Ok(0) => (own, true),
            Ok(id) if id <= range.count => (range.start + (id - 1), true),
            _ => (own, false),
        };
        match self {
            Self::Root => {
                // The highest number means "leave it" to the kernel.
                let kept = |id: u64| u32::try_from(id).ok().filter(|it| *it != u32::MAX);
                let (owner, group) = (kept(uid), kept(gid));
                let all = owner.is_some() && group.is_some();
                (owner.unwrap_or(0), group.unwrap_or(0), all)
            }
            Self::Range { uid: own, gid: own_group, uids, gids } => {
                let (owner, is_owner) = ranged(uid, *own, uids);
                let (group, is_group) = ranged(gid, *own_group, gids);
                (owner, group, is_owner && is_group)
            }
            Self::Single { uid: own, gid: own_group } => (*own, *own_group, uid == 0 && gid == 0),
        }
    }

    /// What the image calls the owner and group that the disk has: the reverse of
    /// [`Owners::on_disk`], with 0 for what was not kept.
    #[must_use]
    pub fn in_image(&self, uid: u32, gid: u32) -> (u64, u64) {
        let ranged = |id: u32, range: &Range| match id.checked_sub(range.start) {
            Some(above) if above < range.count => u64::from(above) + 1,
            _ => 0,
        };
        match self {
            Self::Root => (uid.into(), gid.into()),
            Self::Range { uids, gids, .. } => (ranged(uid, uids), ranged(gid, gids)),
            Self::Single { .. } => (0, 0),
        }
    }

    /// The process's own user and group: what image id 0 is on the disk.
    #[must_use]
    pub fn own(&self) -> (u32, u32) {
        match self {
            Self::Root => (0, 0),
            Self::Range { uid, gid, .. } | Self::Single { uid, gid } => (*uid, *gid),
        }
    }

    /// What the user namespace of a container maps that runs as `uid` and `gid`; `None` if it needs
    /// none. With a range the container has its whole map, without it has the one identity only.
    #[must_use]
    pub fn nested(&self, uid: u32, gid: u32) -> Option<Nested> {
        let whole = |own, range: &Range| {
            let rest = IdMap { inside: 1, outside: range.start, count: range.count };
            vec![IdMap { inside: 0, outside: own, count: 1 }, rest]
        };
        match self {
            Self::Root => None,
            Self::Range { uid: own, gid: own_group, uids, gids } => {
                Some((whole(*own, uids), whole(*own_group, gids)))
            }
            Self::Single { uid: own, gid: own_group } => {
                let one = |inside, outside| vec![IdMap { inside, outside, count: 1 }];
                Some((one(uid, *own), one(gid, *own_group)))
            }
        }
    }

    /// Whether overlays of these layers are mounted with `userxattr`: what marks a folder as opaque
    /// is `user.overlay.opaque` then, else `trusted.overlay.opaque`.
    #[must_use]
    pub fn userxattr(&self) -> bool {
        !matches!(self, Self::Root)
    }

    /// A name for a folder: files unpacked for one kind are not another kind's.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Root => "root".to_owned(),
            Self::Range { uid, gid, uids, gids } => format!(
                "range-{uid}-{gid}-{}-{}-{}-{}",
                uids.start, uids.count, gids.start, gids.count
            ),
            Self::Single { uid, gid } => format!("single-{uid}-{gid}"),
        }
    }
}

/// The ids of one line that are not `own`: the longer side of it.
fn besides(own: u32, map: &IdMap) -> Option<Range> {
    let end = map.inside.checked_add(map.count)?;
    let range = |start: u32, end: u32| {
        end.checked_sub(start).filter(|it| *it != 0).map(|count| Range { start, count })
    };
    if own < map.inside || end <= own {
        return range(map.inside, end);
    }
    let (before, after) = (range(map.inside, own), range(own + 1, end));
    [after, before].into_iter().flatten().max_by_key(|it| it.count)
}

fn parse(text: &str) -> Option<Vec<IdMap>> {
    let line = |it: &str| {
        let numbers: Vec<u32> =
            it.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        match numbers.as_slice() {
            [inside, outside, count] => {
                Some(IdMap { inside: *inside, outside: *outside, count: *count })
            }
            _ => None,
        }
    };
    let maps: Vec<IdMap> = text.lines().map(line).collect::<Option<_>>()?;
    Some(maps).filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: u32, map: &str) -> Owners {
        Owners::of_maps((id, map), (id, map)).unwrap()
    }

    #[test]
    fn what_maps_say() {
        let whole = "         0          0 4294967295\n";
        assert_eq!(of(0, whole), Owners::Root);
        assert_eq!(of(7, whole), Owners::Single { uid: 7, gid: 7 });
        assert_eq!(of(7, "7 7 1"), Owners::Single { uid: 7, gid: 7 });
        // Root of a user namespace that is not the machine's, as in another's container.
        let range = Range { start: 1, count: 65_535 };
        let owners = Owners::Range { uid: 0, gid: 0, uids: range, gids: range };
        assert_eq!(of(0, "0 100000 65536"), owners);
        let range = Range { start: 100_000, count: 65_536 };
        let owners = Owners::Range { uid: 7, gid: 7, uids: range, gids: range };
        assert_eq!(of(7, "7 7 1\n100000 100000 65536"), owners);
        assert_eq!(Owners::of_maps((0, ""), (0, whole)), None);
        assert_eq!(Owners::of_maps((0, "a b c"), (0, whole)), None);
    }

    #[test]
    fn ids_on_disk_and_back() {
        let owners = of(7, "7 7 1\n100000 100000 65536");
        assert_eq!(owners.on_disk(0, 1), (7, 100_000, true));
        assert_eq!(owners.on_disk(65_536, 0), (165_535, 7, true));
        assert_eq!(owners.on_disk(65_537, 0), (7, 7, false));
        for id in [0, 1, 42, 65_536] {
            let (uid, gid, _) = owners.on_disk(id, id);
            assert_eq!(owners.in_image(uid, gid), (id, id));
        }
        assert_eq!(of(7, "7 7 1").on_disk(0, 0), (7, 7, true));
        assert_eq!(of(7, "7 7 1").on_disk(0, 5), (7, 7, false));
        assert_eq!(Owners::Root.on_disk(1 << 40, 5), (0, 5, false));
    }

    #[test]
    fn the_namespace_of_a_container() {
        let text =
            |maps: Vec<IdMap>| maps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (uids, _) = of(7, "7 7 1\n100000 100000 65536").nested(5, 5).unwrap();
        assert_eq!(text(uids), "0 7 1, 1 100000 65536");
        let (uids, _) = of(7, "7 7 1").nested(5, 5).unwrap();
        assert_eq!(text(uids), "5 7 1");
        assert_eq!(Owners::Root.nested(5, 5), None);
    }
}
