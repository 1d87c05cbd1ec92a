//! The pod's namespaces: network, IPC and UTS, made once and held as long as the shim lives.
//!
//! The shim moves into the new IPC and UTS namespaces, where its children begin; without root it
//! could not go back to the host's. It stays in the cluster's network namespace, so that others
//! find that one through it, and holds the pod's open.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    thread::{LinkNameSpaceType, UnshareFlags},
};

use crate::{child::Pod, sys, wire::SpareSpec};

/// Inode of the machine's first user namespace: PROC_USER_INIT_INO of linux/proc_ns.h.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Longest host name: __NEW_UTS_LEN of linux/utsname.h.
const HOSTNAME_MAX: usize = 64;

/// The namespaces, before it is known for which pod they are.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pub(crate) net: OwnedFd,
    masked: Vec<PathBuf>,
    initial_user_namespace: bool,
}

impl Namespaces {
    /// Makes the namespaces of a pod.
    pub(crate) fn make(spec: SpareSpec) -> io::Result<Self> {
        let cluster = open("net")?;
        sys::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)?;
        open_ports()?;
        let net = open("net")?;
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(cluster.as_fd(), kind)?;
        let user = rustix::fs::stat("/proc/self/ns/user")?;
        let initial_user_namespace = user.st_ino == INITIAL_USER_NAMESPACE;
        Ok(Self { net, masked: spec.masked, initial_user_namespace })
    }

    /// Makes them those of a pod.
    pub(crate) fn give(self, dir: &Path, hostname: String) -> io::Result<Pod> {
        if HOSTNAME_MAX < hostname.len() {
            let text = format!("host name `{hostname}` is longer than {HOSTNAME_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        rustix::system::sethostname(hostname.as_bytes())?;
        let Self { net, masked, initial_user_namespace } = self;
        Ok(Pod { dir: dir.to_owned(), hostname, masked, net, initial_user_namespace })
    }
}

/// Lets every user of the pod listen on every port, as containerd does: the ports are the pod's.
fn open_ports() -> io::Result<()> {
    let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let file = match rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => file,
        // A read-only /proc/sys, as in some containers: low ports then need root.
        Err(Errno::ROFS | Errno::ACCESS | Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    rustix::io::write(file, b"0")?;
    Ok(())
}

/// A namespace of this process.
fn open(name: &str) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/ns/{name}");
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
