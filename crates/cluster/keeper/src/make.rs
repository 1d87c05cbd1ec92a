//! Makes the namespaces of a cluster, in a short-lived child, or takes those of a live process.
//!
//! Does not hold them (`server`) nor configure what is inside (the network crate does).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    mount::MountPropagationFlags,
    process::Pid,
    thread::{CapabilitySet, UnshareFlags},
};
use serde::{Deserialize, Serialize};

use crate::{
    enter::Namespaces,
    explain::{self, Step},
    spawn::Process,
    subordinate::{self, Subordinate},
    sys,
    wire::{self, Failure, FailureKind},
};

/// What the child says: the namespaces come beside it, or the step that failed.
#[derive(Debug, Serialize, Deserialize)]
enum Made {
    /// It is in a user namespace, and awaits to be mapped.
    Unmapped,
    Namespaces,
    Failed {
        step: Step,
        errno: i32,
    },
}

/// Who is mapped into the user namespace.
#[derive(Debug)]
enum Users {
    /// There is none: the machine's own users.
    All,
    /// The user, to itself.
    Own,
    /// The same, and further ones.
    More(Subordinate),
}

/// New namespaces. Without `CAP_SYS_ADMIN` a user namespace is made first, which maps the user to
/// itself, and further ones if there are some, and owns the others.
pub(crate) fn make() -> Result<Namespaces, Failure> {
    if has_capability(CapabilitySet::SYS_ADMIN) {
        return make_for(&Users::All).map_err(|it| it.failure());
    }
    let subordinate = Subordinate::of_user().map(Users::More);
    let made = subordinate.map_err(Unmade::Unmapped).and_then(|it| make_for(&it));
    let made = match made {
        Err(Unmade::Unmapped(why)) => {
            subordinate::log_missing(&why);
            make_for(&Users::Own)
        }
        made => made,
    };
    made.map_err(|it| it.failure())
}

/// Why there are no namespaces.
enum Unmade {
    Failed {
        step: Step,
        errno: i32,
    },
    /// Further users could not be mapped.
    Unmapped(String),
}

impl Unmade {
    fn failed(step: Step) -> impl Fn(io::Error) -> Self {
        move |error| Self::Failed { step, errno: error.raw_os_error().unwrap_or(0) }
    }

    fn failure(self) -> Failure {
        match self {
            Self::Failed { step, errno } => explain::failure(step, errno),
            Self::Unmapped(_) => explain::failure(Step::Map, 0),
        }
    }
}

fn make_for(users: &Users) -> Result<Namespaces, Unmade> {
    let (ours, theirs) = wire::pair().map_err(Unmade::failed(Step::Fork))?;
    let Some(child) = sys::fork().map_err(Unmade::failed(Step::Fork))? else {
        drop(ours);
        sys::exit(i32::from(make_in_child(&theirs, users).is_err()));
    };
    drop(theirs);
    loop {
        match wire::receive::<Made>(&ours).map_err(Unmade::failed(Step::Fork))? {
            Some((Made::Unmapped, _)) => {
                if let Users::More(subordinate) = users {
                    // A child whose other end is closed ends.
                    map(subordinate, child).map_err(Unmade::Unmapped)?;
                }
                wire::send(&ours, &Mapped, &[]).map_err(Unmade::failed(Step::Fork))?;
            }
            Some((Made::Namespaces, fds)) => {
                let rootless = !matches!(users, Users::All);
                let namespaces = Namespaces::from_fds(rootless, fds);
                return namespaces.ok_or(Unmade::Failed { step: Step::Open, errno: 0 });
            }
            Some((Made::Failed { step, errno }, _)) => return Err(Unmade::Failed { step, errno }),
            None => return Err(Unmade::Failed { step: Step::Fork, errno: 0 }),
        }
    }
}

/// Has the child's users mapped. Programs are waited for, which is not done otherwise.
fn map(subordinate: &Subordinate, child: Pid) -> Result<(), String> {
    sys::heed_children();
    let mapped = subordinate.map(child);
    sys::ignore_children();
    mapped
}

/// What the child is told when it is mapped.
#[derive(Debug, Serialize, Deserialize)]
struct Mapped;

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

fn make_in_child(parent: &OwnedFd, users: &Users) -> io::Result<()> {
    match unshare_and_open(parent, users) {
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

fn unshare_and_open(parent: &OwnedFd, users: &Users) -> Result<Namespaces, (Step, io::Error)> {
    let rootless = !matches!(users, Users::All);
    if rootless {
        // Read before: in a user namespace without a map, every id is the overflow id.
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        sys::unshare(UnshareFlags::NEWUSER).map_err(|it| (Step::User, it.into()))?;
        match users {
            Users::All => {}
            Users::Own => map_own(uid.as_raw(), gid.as_raw()).map_err(|it| (Step::Map, it))?,
            Users::More(_) => await_map(parent).map_err(|it| (Step::Map, it))?,
        }
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

/// Maps the user to itself.
fn map_own(uid: u32, gid: u32) -> io::Result<()> {
    let write = |file: &str, text: String| std::fs::write(format!("/proc/self/{file}"), text);
    // Without CAP_SETGID outside, the kernel accepts a group map only after this.
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))
}

/// Lets the parent map the users.
fn await_map(parent: &OwnedFd) -> io::Result<()> {
    wire::send(parent, &Made::Unmapped, &[])?;
    match wire::receive::<Mapped>(parent)? {
        Some(_) => Ok(()),
        // It makes other namespaces.
        None => sys::exit(1),
    }
}
