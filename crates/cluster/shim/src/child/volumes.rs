//! What a container's mounts are taken from: sources on the cluster's side, opened there, so that no
//! path leads to what a container's root is made of.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use rustix::{mount::MountAttrFlags, thread::LinkNameSpaceType};

use super::{Ground, failed, mounts, open_namespace};
use crate::wire::{ContainerSpec, Source, Stage, StartError};

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
    let volumes = open_here(spec);
    go(&own).map_err(&failed)?;
    volumes
}

fn open_here(spec: &ContainerSpec) -> Result<Volumes, StartError> {
    let file = |path: &Option<_>| path.as_deref().map(|it| open_bind(it, false)).transpose();
    let mounts = spec.mounts.iter().map(|mount| match &mount.source {
        Source::Bind { path } => open_bind(path, mount.read_only),
        Source::Tmpfs { size_bytes } => {
            let attributes = if mount.read_only {
                MountAttrFlags::MOUNT_ATTR_RDONLY
            } else {
                MountAttrFlags::empty()
            };
            let options = [("mode", "1777"), ("size", &*size_bytes.to_string())];
            let what = format!("cannot make a tmpfs for `{}`", mount.target.display());
            mounts::new_with("tmpfs", &options, attributes).map_err(failed(Stage::Mount, what))
        }
    });
    let mounts = mounts.collect::<Result<_, _>>()?;
    Ok(Volumes { mounts, resolv_conf: file(&spec.resolv_conf)?, hosts: file(&spec.hosts)? })
}

fn open_bind(path: &Path, read_only: bool) -> Result<OwnedFd, StartError> {
    let open = || -> io::Result<OwnedFd> {
        let tree = mounts::clone(rustix::fs::CWD, path)?;
        mounts::keep_to_itself(&tree)?;
        if read_only {
            mounts::make_read_only(&tree)?;
        }
        Ok(tree)
    };
    open().map_err(failed(Stage::Mount, format!("cannot mount `{}`", path.display())))
}
