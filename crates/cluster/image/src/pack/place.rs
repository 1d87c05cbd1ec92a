//! Where a path of a plan leads, through the symbolic links that are planned.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use crate::{
    assemble::{Plan, Source},
    tarball::Kind,
};

/// Most links on the way, as in the kernel.
const LINKS_MAX: usize = 40;

/// The path of the image without its first slash.
pub(super) fn relative(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_prefix(b"/").unwrap_or(bytes)
}

/// What `path` is called when every planned link on the way is followed, whether something is there or
/// not. A link above the root stays at the root, and one that leads in circles leads nowhere.
pub(super) fn resolved(plan: &Plan, path: &Path) -> Option<PathBuf> {
    let mut at = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(&part);
        let Some(item) = plan.get(relative(&at)) else { continue };
        let Kind::SymbolicLink(target) = &item.entry.kind else { continue };
        links += 1;
        if LINKS_MAX < links {
            return None;
        }
        let target = Path::new(OsStr::from_bytes(target));
        at.pop();
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for part in parts(target).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(part);
        }
    }
    Some(at)
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|it| match it {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// The file that is planned at `path`: what it is on the machine, and where it is in the image.
pub(super) fn planned(plan: &Plan, path: &Path) -> Option<(PathBuf, PathBuf)> {
    let to = resolved(plan, path)?;
    let item = plan.get(relative(&to))?;
    match (&item.source, &item.entry.kind) {
        (Source::Path(from), Kind::File { .. }) => Some((from.clone(), to)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{assemble::Item, tarball::Time};

    #[test]
    fn links_are_followed_within_the_image() {
        let time = Time { seconds: 0, nanoseconds: 0 };
        let mut plan = Plan::default();
        let links = [
            ("lib", "usr/lib"),
            ("usr/lib/libx.so.1", "libx.so.1.2"),
            ("usr/lib/up", "../../../../opt/./x"),
            ("opt/x", "/lib"),
            ("round", "/round"),
        ];
        for (path, target) in links {
            plan.put(Item::link(path.into(), target.into(), time));
        }
        let file =
            Item::file(b"usr/lib/libx.so.1.2".to_vec(), Path::new("/from/x"), 1, 0o644, time);
        plan.put(file);
        let leads =
            |path: &str| resolved(&plan, Path::new(path)).map(|it| it.display().to_string());
        assert_eq!(leads("/lib/libx.so.1").unwrap(), "/usr/lib/libx.so.1.2");
        assert_eq!(leads("/lib/up/missing").unwrap(), "/usr/lib/missing");
        assert_eq!(leads("/round/x"), None);
        let found = planned(&plan, Path::new("/opt/x/libx.so.1")).unwrap();
        assert_eq!(found, (PathBuf::from("/from/x"), PathBuf::from("/usr/lib/libx.so.1.2")));
        assert_eq!(planned(&plan, Path::new("/lib")), None);
    }
}
