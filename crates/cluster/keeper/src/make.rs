//! Makes the namespaces of a cluster, in a short-lived child, or takes those of a live process.
//!
//! Does not hold them (`server`) nor configure what is inside (the network crate does).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    mount::MountPropagationFlags,
    thread::{CapabilitySet, UnshareFlags},
};
use serde::{Deserialize, Serialize};

use crate::{
    enter::Namespaces,
    explain::{self, Step},
    spawn::Process,
    sys,
    wire::{self, Failure, FailureKind},
};

/// What the child says: the namespaces come beside it, or the step that failed.
#[derive(Debug, Serialize, Deserialize)]
enum Made {
    Namespaces,
    Failed { step: Step, errno: i32 },
}

/// New namespaces. Without `CAP_SYS_ADMIN` a user namespace is made first, which maps the user to
/// itself and owns the others.
pub(crate) fn make() -> Result<Namespaces, Failure> {
    let rootless = !has_capability(CapabilitySet::SYS_ADMIN);
    let failed = |step, error: io::Error| explain::failure(step, error.raw_os_error().unwrap_or(0));
    let (ours, theirs) = wire::pair().map_err(|it| failed(Step::Fork, it))?;
    if sys::fork().map_err(|it| failed(Step::Fork, it))?.is_none() {
        drop(ours);
        sys::exit(i32::from(make_in_child(&theirs, rootless).is_err()));
    }
    drop(theirs);
    match wire::receive::<Made>(&ours).map_err(|it| failed(Step::Fork, it))? {
        Some((Made::Namespaces, fds)) => {
            Namespaces::from_fds(rootless, fds).ok_or_else(|| explain::failure(Step::Open, 0))
        }
        Some((Made::Failed { step, errno }, _)) => Err(explain::failure(step, errno)),
        None => Err(explain::failure(Step::Fork, 0)),
    }
}

/// The namespaces of `process`, which must not be those of the keeper itself.
pub(crate) fn adopt(process: Process) -> Result<Namespaces, Failure> {
    let failed = |kind, errno, cause: &str| Failure {
        kind,
        errno,
        message: format!("cannot take the namespaces of process {}: {cause}", process.pid),
    };
    let system =
        |it: io::Error| failed(FailureKind::Other, it.raw_os_error().unwrap_or(0), &it.to_string());
    let mut namespaces = Namespaces::of(process.pid).map_err(system)?;
    if let Some(descriptor) = process.cluster_net {
        let path = format!("/proc/{}/fd/{descriptor}", process.pid);
        namespaces.net = std::fs::File::open(path).map_err(system)?.into();
    }
    // Only now: had the process ended before, the id could have gone to another one.
    if !process.is_alive() {
        return Err(failed(FailureKind::BadRequest, 0, "it has ended"));
    }
    if !namespaces.are_foreign().map_err(system)? {
        return Err(failed(FailureKind::BadRequest, 0, "it is not inside a cluster"));
    }
    Ok(namespaces)
}

fn has_capability(capability: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|it| it.effective.contains(capability))
}

fn make_in_child(parent: &OwnedFd, rootless: bool) -> io::Result<()> {
    match unshare_and_open(rootless) {
        Ok(namespaces) => {
            let fds: Vec<BorrowedFd<'_>> = namespaces.fds().collect();
            wire::send(parent, &Made::Namespaces, &fds)
        }
        Err((step, error)) => {
            let errno = error.raw_os_error().unwrap_or(0);
            wire::send(parent.as_fd(), &Made::Failed { step, errno }, &[])
        }
    }
}

fn unshare_and_open(rootless: bool) -> Result<Namespaces, (Step, io::Error)> {
    // Read before: in a user namespace without a map, every id is the overflow id.
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if rootless {
        sys::unshare(UnshareFlags::NEWUSER).map_err(|it| (Step::User, it.into()))?;
        // Without CAP_SETGID outside, the kernel accepts a group map only after this.
        let write = |file: &str, text: String| {
            std::fs::write(format!("/proc/self/{file}"), text).map_err(|it| (Step::Map, it))
        };
        write("setgroups", "deny".to_owned())?;
        let (uid, gid) = (uid.as_raw(), gid.as_raw());
        write("uid_map", format!("{uid} {uid} 1"))?;
        write("gid_map", format!("{gid} {gid} 1"))?;
    }
    sys::unshare(UnshareFlags::NEWNS).map_err(|it| (Step::Mount, it.into()))?;
    // Mounts inside never show outside, but what the host unmounts is unmounted inside as well:
    // otherwise a cluster would keep every USB stick of the machine busy.
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).map_err(|it| (Step::Propagation, it.into()))?;
    sys::unshare(UnshareFlags::NEWNET).map_err(|it| (Step::Net, it.into()))?;
    let mut namespaces = Namespaces::of(std::process::id()).map_err(|it| (Step::Open, it))?;
    if rootless {
        let user = std::fs::File::open("/proc/self/ns/user").map_err(|it| (Step::Open, it))?;
        namespaces.user = Some(user.into());
    }
    Ok(namespaces)
}
