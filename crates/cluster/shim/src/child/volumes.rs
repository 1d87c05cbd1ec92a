//! What a container's mounts are taken from: sources on the cluster's side, opened there, so that no
//! path leads to what a container's root is made of.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    mount::MountAttrFlags,
    thread::LinkNameSpaceType,
};

use super::{Ground, failed, mounts, open_namespace};
use crate::{
    users::PodUsers,
    wire::{ContainerSpec, Root, Source, Stage, StartError},
};

/// The sources of a container's mounts, not yet mounted anywhere.
pub(super) struct Volumes {
    /// In the order of the container's mounts.
    pub(super) mounts: Vec<OwnedFd>,
    pub(super) resolv_conf: Option<OwnedFd>,
    pub(super) hosts: Option<OwnedFd>,
}

/// Opens them in the cluster's mount namespace, and comes back: this process's own is a copy of an
/// earlier moment, in which a root is in the making.
pub(super) fn open(ground: &Ground, spec: &ContainerSpec) -> Result<Volumes, StartError> {
    let failed = failed(Stage::Namespaces, "cannot visit the cluster's mount namespace");
    let own = open_namespace("mnt").map_err(&failed)?;
    let kind = Some(LinkNameSpaceType::Mount);
    let go = |to: &OwnedFd| -> io::Result<()> {
        Ok(rustix::thread::move_into_link_name_space(to.as_fd(), kind)?)
    };
    go(&ground.mounts).map_err(&failed)?;
    let volumes = open_here(ground.users.as_ref(), spec);
    go(&own).map_err(&failed)?;
    volumes
}

fn open_here(users: Option<&PodUsers>, spec: &ContainerSpec) -> Result<Volumes, StartError> {
    let open = |path: &Path, attributes| open_bind(path, View { attributes, users });
    let file =
        |path: &Option<PathBuf>| path.as_deref().map(|it| open(it, restrictions(spec))).transpose();
    let mounts = spec.mounts.iter().map(|mount| {
        let mut attributes = restrictions(spec);
        if mount.read_only {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        match &mount.source {
            Source::Bind { path } => open(path, attributes),
            Source::BindBelow { folder, path } => {
                open_below(folder, path, View { attributes, users })
            }
            Source::Tmpfs { size_bytes } => {
                let options = [("mode", "1777"), ("size", &*size_bytes.to_string())];
                let what = format!("cannot make a tmpfs for `{}`", mount.target.display());
                mounts::new_with("tmpfs", &options, attributes).map_err(failed(Stage::Mount, what))
            }
        }
    });
    let mounts = mounts.collect::<Result<_, _>>()?;
    let (resolv_conf, hosts) = (file(&spec.resolv_conf)?, file(&spec.hosts)?);
    Ok(Volumes { mounts, resolv_conf, hosts })
}

/// How a container sees what is mounted.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    attributes: MountAttrFlags,
    /// The users that its owners are shown as.
    users: Option<&'a PodUsers>,
}

/// What no mount of a container may be used for. Root in a container of an image could otherwise make
/// device files in a volume, and so reach the machine's disks.
fn restrictions(spec: &ContainerSpec) -> MountAttrFlags {
    if spec.root == Root::Host || spec.privileged {
        MountAttrFlags::empty()
    } else {
        MountAttrFlags::MOUNT_ATTR_NODEV
    }
}

/// Opens what is below a folder that programs of a container may be changing at this moment.
fn open_below(folder: &Path, path: &Path, view: View<'_>) -> Result<OwnedFd, StartError> {
    let open = || -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let below = rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve)?;
        prepared(mounts::clone_of(below)?, view)
    };
    let shown = folder.join(path);
    open().map_err(failed(Stage::Mount, format!("cannot mount `{}`", shown.display())))
}

fn prepared(tree: OwnedFd, View { attributes, users }: View<'_>) -> io::Result<OwnedFd> {
    mounts::keep_to_itself(&tree)?;
    users.map_or(Ok(()), |it| mounts::map_owners(&tree, it))?;
    if !attributes.is_empty() {
        mounts::restrict(&tree, attributes)?;
    }
    Ok(tree)
}

fn open_bind(path: &Path, view: View<'_>) -> Result<OwnedFd, StartError> {
    let open = || prepared(mounts::clone(rustix::fs::CWD, path)?, view);
    open().map_err(failed(Stage::Mount, format!("cannot mount `{}`", path.display())))
}
