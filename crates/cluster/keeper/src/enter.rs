//! The namespaces as a value, and how a process of the cluster goes into them.
//!
//! Does not make them: that is `make`.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{Mode, OFlags},
    thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType},
};

/// The namespaces of one cluster, held open.
#[derive(Debug)]
pub struct Namespaces {
    /// Only without root: the user namespace that owns the others.
    pub user: Option<OwnedFd>,
    /// Mount namespace.
    pub mount: OwnedFd,
    /// Network namespace.
    pub net: OwnedFd,
}

impl Namespaces {
    /// Opens the namespaces a process is in.
    ///
    /// # Errors
    /// `NotFound` if there is no such process, `PermissionDenied` if it is another user's.
    pub fn of(pid: u32) -> io::Result<Self> {
        let open = |name: &str| -> io::Result<OwnedFd> {
            let path = PathBuf::from(format!("/proc/{pid}/ns/{name}"));
            Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
        };
        let user = open("user")?;
        let own = rustix::fs::stat("/proc/self/ns/user")?.st_ino;
        let user = if rustix::fs::fstat(&user)?.st_ino == own { None } else { Some(user) };
        Ok(Self { user, mount: open("mnt")?, net: open("net")? })
    }

    /// Whether both name the same network and mount namespace.
    ///
    /// # Errors
    /// Those of `fstat`.
    pub fn same(&self, other: &Self) -> io::Result<bool> {
        let number = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|it| it.st_ino);
        Ok(number(&self.net)? == number(&other.net)?
            && number(&self.mount)? == number(&other.mount)?)
    }

    /// Whether the calling process is in none of them.
    pub(crate) fn are_foreign(&self) -> io::Result<bool> {
        let mount = rustix::fs::stat("/proc/self/ns/mnt")?.st_ino;
        let net = rustix::fs::stat("/proc/self/ns/net")?.st_ino;
        Ok(rustix::fs::fstat(&self.mount)?.st_ino != mount
            && rustix::fs::fstat(&self.net)?.st_ino != net)
    }

    /// Copies of the descriptors.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let user = self.user.as_ref().map(OwnedFd::try_clone).transpose()?;
        Ok(Self { user, mount: self.mount.try_clone()?, net: self.net.try_clone()? })
    }

    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.user.iter().chain([&self.mount, &self.net]).map(AsFd::as_fd)
    }

    pub(crate) fn from_fds(rootless: bool, fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let user = if rootless { Some(fds.next()?) } else { None };
        Some(Self { user, mount: fds.next()?, net: fds.next()? })
    }
}

/// Why a process could not go into the namespaces.
#[derive(Debug, thiserror::Error)]
#[error("cannot enter the cluster's namespaces: {step}")]
pub struct EnterError {
    step: &'static str,
    #[source]
    source: io::Error,
}

/// Moves the calling process into the namespaces: it must have one thread only, and what it starts
/// later keeps the capabilities it has in there (they become inheritable and ambient, see
/// capabilities(7)). The working directory stays, by name; the process stays dumpable, so that
/// another of the same user can find the namespaces through `/proc/PID/ns`.
///
/// # Errors
/// The step that failed; the process may then be in some namespaces and not in others, and should
/// end.
pub fn enter(namespaces: &Namespaces) -> Result<(), EnterError> {
    move_into(namespaces, Some(&namespaces.net))
}

/// The same, but for the network, which stays the one that the process is in. Without root that can
/// be the host's only for a process that never left it.
pub(crate) fn enter_but_network(namespaces: &Namespaces) -> Result<(), EnterError> {
    move_into(namespaces, None)
}

fn move_into(namespaces: &Namespaces, net: Option<&OwnedFd>) -> Result<(), EnterError> {
    let failed = |step| move |source: io::Error| EnterError { step, source };
    let here = std::env::current_dir().map_err(failed("find the working directory"))?;
    let join = |fd: &OwnedFd, kind, step| {
        rustix::thread::move_into_link_name_space(fd.as_fd(), Some(kind))
            .map_err(|it| failed(step)(it.into()))
    };
    if let Some(user) = &namespaces.user {
        join(user, LinkNameSpaceType::User, "user namespace")?;
    }
    join(&namespaces.mount, LinkNameSpaceType::Mount, "mount namespace")?;
    if let Some(net) = net {
        join(net, LinkNameSpaceType::Network, "network namespace")?;
    }
    std::env::set_current_dir(here).map_err(failed("go back to the working directory"))?;
    keep_capabilities().map_err(|it| failed("keep the capabilities")(it.into()))
}

/// Makes every permitted capability inheritable and ambient.
fn keep_capabilities() -> rustix::io::Result<()> {
    let sets = rustix::thread::capabilities(None)?;
    let permitted = sets.permitted;
    let sets = CapabilitySets {
        effective: permitted,
        permitted,
        inheritable: sets.inheritable | permitted,
    };
    rustix::thread::set_capabilities(None, sets)?;
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if permitted.contains(capability) {
            rustix::thread::configure_capability_in_ambient_set(capability, true)?;
        }
    }
    Ok(())
}
