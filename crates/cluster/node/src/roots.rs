//! What the roots of containers of images are: overlays of the layers, or copies of them where overlays
//! cannot be mounted: on an overlay, on some network file systems, without root on old kernels.
//!
//! What a kernel can is not asked of its version but tried, once, in the folder where the roots will be.

use std::{
    fmt, fs, io,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::Path,
};

use image::Owners;
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

/// The folder of the trial. No pod's uid is called so.
const TRIAL: &str = "overlay-trial";

/// How the roots are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Roots {
    /// Layers below a folder that takes the changes.
    Overlay,
    /// A copy of the layers for each container: why.
    Copy(String),
}

impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlay => f.write_str("overlay"),
            Self::Copy(why) => write!(f, "copy: {why}"),
        }
    }
}

impl Roots {
    /// Tries an overlay in `folder`, which is there and on the disk where the roots will be.
    pub(crate) fn find(folder: &Path, owners: &Owners) -> Self {
        let place = folder.join(TRIAL);
        let tried = try_overlay(&place, owners);
        let removed = remove(&place);
        match (tried, removed) {
            (Ok(()), Ok(())) => Self::Overlay,
            (Err(error), _) | (_, Err(error)) => {
                let folder = folder.display();
                Self::Copy(format!("overlays cannot be used in `{folder}`: {error}"))
            }
        }
    }
}

/// Why overlays cannot be used in `folder`, in words; `None` if they can.
///
/// # Errors
/// If the process's own identity cannot be read.
pub fn no_overlays(folder: &Path) -> io::Result<Option<String>> {
    match Roots::find(folder, &Owners::of_process()?) {
        Roots::Overlay => Ok(None),
        Roots::Copy(why) => Ok(Some(why)),
    }
}

/// All that containers do with their roots: a file of a layer is changed, another and a folder removed,
/// and the folder made anew.
fn try_overlay(place: &Path, owners: &Owners) -> io::Result<()> {
    // A process that was killed may have left it.
    remove(place)?;
    fs::DirBuilder::new().mode(0o700).create(place)?;
    for name in ["lower/folder", "upper", "work"] {
        fs::create_dir_all(place.join(name))?;
    }
    for name in ["lower/changed", "lower/removed", "lower/folder/hidden"] {
        fs::write(place.join(name), name)?;
    }
    let root = mount(place, owners)?;
    let write = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
    let changed = rustix::fs::openat(&root, "changed", write, Mode::empty())?;
    rustix::io::write(&changed, b"more")?;
    rustix::fs::unlinkat(&root, "removed", AtFlags::empty())?;
    rustix::fs::unlinkat(&root, "folder/hidden", AtFlags::empty())?;
    rustix::fs::unlinkat(&root, "folder", AtFlags::REMOVEDIR)?;
    rustix::fs::mkdirat(&root, "folder", Mode::RWXU)?;
    for gone in ["removed", "folder/hidden"] {
        if rustix::fs::accessat(&root, gone, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok() {
            return Err(io::Error::other("what was removed is there again"));
        }
    }
    Ok(())
}

/// The overlay, mounted nowhere: it is gone when it is closed.
fn mount(place: &Path, owners: &Owners) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let mut open = Vec::new();
    for (option, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        let folder = open_folder(&place.join(name))?;
        // Not by path, in which some characters are special.
        let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
        rustix::mount::fsconfig_set_string(&context, option, path)?;
        open.push(folder);
    }
    rustix::mount::fsconfig_set_flag(&context, "volatile")?;
    if owners.userxattr() {
        rustix::mount::fsconfig_set_flag(&context, "userxattr")?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let nodev = MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, nodev)?)
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn remove(place: &Path) -> io::Result<()> {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_holds_no_overlay() {
        let folder = tempfile::tempdir().unwrap();
        let owners = Owners::of_process().unwrap();
        if !rustix::process::geteuid().is_root() {
            // Mounts need privileges, which a cluster of this user has in its own namespaces.
            let found = Roots::find(folder.path(), &owners);
            assert!(matches!(found, Roots::Copy(_)), "{found}");
            return;
        }
        let place = folder.path().join("outer");
        for name in ["lower", "upper", "work"] {
            fs::create_dir_all(place.join(name)).unwrap();
        }
        let outer = mount(&place, &owners).unwrap();
        let inside = format!("/proc/self/fd/{}", outer.as_raw_fd());
        let found = Roots::find(Path::new(&inside), &owners);
        let wanted = format!("copy: overlays cannot be used in `{inside}`: ");
        assert!(found.to_string().starts_with(&wanted), "{found}");
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
        drop(outer);
        // The folder itself may be on anything; the next trial finds what the last one found.
        assert_eq!(Roots::find(folder.path(), &owners), Roots::find(folder.path(), &owners));
        assert!(!folder.path().join(TRIAL).exists());
    }
}
