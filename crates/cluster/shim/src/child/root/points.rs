//! Where something is mounted in a root, and what is done where there is no such place.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid},
    io::Errno,
};

use super::{
    super::{failed, mounts, refused},
    Root,
};
use crate::wire::{Mount, Source, Stage, StartError};

/// A folder with more entries is not shadowed, since each becomes a mount.
const SHADOW_ENTRIES_MAX: usize = 4096;

/// Symbolic links that lead nowhere on the way to a mount point: as many as the kernel follows.
const LINKS_MAX: usize = 40;

impl Root<'_> {
    /// Mounts a tree at a path in the container.
    pub(super) fn mount(&mut self, tree: OwnedFd, target: &Path) -> Result<(), StartError> {
        let what = format!("cannot mount at `{}`", target.display());
        let names = names(target)?;
        let failed = failed(Stage::Mount, what);
        let folder = mounts::is_folder(&tree).map_err(&failed)?;
        let point = self.point(target, folder).map_err(&failed)?;
        if mounts::is_folder(&point).map_err(&failed)? != folder {
            let (is, needed) = if folder { ("file", "folder") } else { ("folder", "file") };
            let target = target.display();
            let message = format!("cannot mount a {needed} at `{target}`: it is a {is}");
            return Err(refused(Stage::Mount, message));
        }
        // What is asked for is written there: only the user may ask for /proc itself.
        if self.is_proc(&point).map_err(&failed)? && names != [OsStr::new("proc")] {
            let message = format!("cannot mount at `{}`: it leads into `/proc`", target.display());
            return Err(refused(Stage::Mount, message));
        }
        mounts::attach(tree, point).map_err(failed)
    }

    /// What is at a path in the container, if there is anything.
    pub(super) fn there(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        match mounts::find(&self.root, path) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The mount point at a path, made if it is missing: where a symbolic link leads that leads
    /// nowhere.
    fn point(&mut self, target: &Path, folder: bool) -> io::Result<OwnedFd> {
        let mut target = target.to_owned();
        for _ in 0..LINKS_MAX {
            if let Some(point) = self.there(&target)? {
                return Ok(point);
            }
            match self.make_point(&target, folder)? {
                Made::Point(point) => return Ok(point),
                Made::Link(path) => target = path,
            }
        }
        Err(Errno::LOOP.into())
    }

    /// Makes a missing mount point.
    fn make_point(&mut self, target: &Path, folder: bool) -> io::Result<Made> {
        let names: Vec<&OsStr> = target
            .components()
            .filter(|it| !matches!(it, Component::RootDir | Component::CurDir))
            .map(Component::as_os_str)
            .collect();
        let (mut dir, missing) = self.deepest(&names)?;
        let there = names.len() - missing.len();
        if self.is_proc(&dir)? {
            return Err(io::Error::other("it leads into `/proc`"));
        }
        if !self.ours.contains(&mounts::mount_id(&dir)?) {
            dir = self.shadow(&dir)?;
        }
        let (last, between) = missing.split_last().ok_or(Errno::NOENT)?;
        if let Some(first) = missing.first()
            && let Some(link) = mounts::link(&dir, first)?
        {
            let before = names.get(..there).unwrap_or_default();
            let after = missing.get(1..).unwrap_or_default();
            let path: PathBuf =
                [OsStr::new("/")].into_iter().chain(before.iter().copied()).collect();
            // An absolute one takes the place of what is before it.
            let path = path.join(link);
            return Ok(Made::Link(after.iter().fold(path, |path, name| path.join(name))));
        }
        for name in between {
            dir = mounts::folder(&dir, name)?;
        }
        let point = if folder { mounts::folder(dir, last)? } else { mounts::file(dir, last)? };
        Ok(Made::Point(point))
    }

    fn is_proc(&self, point: &OwnedFd) -> io::Result<bool> {
        Ok(self.proc == Some(mounts::mount_id(point)?))
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
    pub(super) fn shadow(&mut self, host: &OwnedFd) -> io::Result<OwnedFd> {
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
    pub(super) fn is_ours(&self, mount: &Mount) -> bool {
        let ours = match &mount.source {
            Source::Bind { path } | Source::BindBelow { folder: path, .. } => {
                self.ground.masked.iter().any(|it| path.starts_with(it))
            }
            Source::Tmpfs { .. } => true,
        };
        ours && !mount.read_only
    }

    pub(super) fn remember(&mut self, target: &Path) -> io::Result<()> {
        self.ours.push(mounts::mount_id(mounts::find(&self.root, target)?)?);
        Ok(())
    }
}

/// What came of making a mount point.
enum Made {
    Point(OwnedFd),
    /// There is a symbolic link that leads nowhere: this is where.
    Link(PathBuf),
}

/// An entry of a folder, copied.
pub(super) struct Entry {
    name: OsString,
    content: Content,
}

enum Content {
    Link(OsString),
    Folder(OwnedFd),
    File(OwnedFd),
}

/// Copies the entries of a folder of the host, except some.
pub(super) fn clone_entries(host: &OwnedFd, skipped: &[&OsStr]) -> io::Result<Vec<Entry>> {
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
pub(super) fn fill(dir: &OwnedFd, entries: Vec<Entry>) -> io::Result<()> {
    for Entry { name, content } in entries {
        match content {
            Content::Link(target) => rustix::fs::symlinkat(target, dir, name)?,
            Content::Folder(tree) => mounts::attach(tree, mounts::folder(dir, &name)?)?,
            Content::File(tree) => mounts::attach(tree, mounts::file(dir, &name)?)?,
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
