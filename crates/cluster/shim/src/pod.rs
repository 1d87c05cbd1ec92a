//! The pod's namespaces: network, IPC and UTS, made once and held as long as the shim lives.
//!
//! The shim moves into the new IPC and UTS namespaces, where its children begin; without root it
//! could not go back to the host's. It stays in the cluster's network namespace, so that others
//! find that one through it, and holds the pod's open. Only the shim of a pod that shares the host's
//! network is in that one from its beginning, and holds the cluster's open.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    thread::{LinkNameSpaceType, UnshareFlags},
};

use crate::{
    child::{Ground, Net, open_namespace},
    sys,
    wire::SpareSpec,
};

/// Inode of the machine's first user namespace: PROC_USER_INIT_INO of linux/proc_ns.h.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Longest host name: __NEW_UTS_LEN of linux/utsname.h.
const HOSTNAME_MAX: usize = 64;

/// A pod, to its shim.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its run folder.
    pub(crate) dir: PathBuf,
    pub(crate) hostname: String,
    pub(crate) ground: Ground,
}

/// Makes the namespaces of a pod. `cluster` is the cluster's network namespace if this process is in
/// the host's, and so will be the pod.
pub(crate) fn prepare(spec: SpareSpec, cluster: Option<OwnedFd>) -> io::Result<Ground> {
    let SpareSpec { masked, place, cgroups: _ } = spec;
    let mounts = open_namespace("mnt")?;
    let net = if let Some(cluster) = cluster {
        sys::unshare(UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)?;
        Net::Host(cluster)
    } else {
        let cluster = open_namespace("net")?;
        sys::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)?;
        open_ports()?;
        let net = open_namespace("net")?;
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(cluster.as_fd(), kind)?;
        Net::Own(net)
    };
    let user = rustix::fs::stat("/proc/self/ns/user")?;
    let initial_user_namespace = user.st_ino == INITIAL_USER_NAMESPACE;
    Ok(Ground { masked, place, net, mounts, initial_user_namespace })
}

impl Pod {
    /// The pod that has these namespaces from now on.
    pub(crate) fn new(dir: PathBuf, hostname: String, ground: Ground) -> io::Result<Self> {
        if HOSTNAME_MAX < hostname.len() {
            let text = format!("host name `{hostname}` is longer than {HOSTNAME_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        rustix::system::sethostname(hostname.as_bytes())?;
        Ok(Self { dir, hostname, ground })
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
