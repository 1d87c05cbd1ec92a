//! The pod's namespaces: network, IPC and UTS, made once and held as long as the shim lives.
//!
//! Those of a pod with users of its own are made in its user namespace, and owned by it.
//!
//! The shim moves into the new IPC and UTS namespaces, where its children begin; without root it
//! could not go back to the host's, so the shim of a pod that shares the machine's IPC never leaves it. It stays in the cluster's network namespace, so that others
//! find that one through it, and holds the pod's open. Only the shim of a pod that shares the host's
//! network is in that one from its beginning, and holds the cluster's open.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{Mode, OFlags},
    io::Errno,
    thread::{LinkNameSpaceType, UnshareFlags},
};

use crate::{
    child::{Ground, Net, open_namespace},
    inside, sys,
    users::{Owned, PodUsers},
    wire::{IdMap, SpareSpec, Sysctl},
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
    /// The first process of the PID namespace that containers share, once one wants to.
    pub(crate) init: Option<OwnedFd>,
}

/// Makes the namespaces of a pod. What is `beside` is the claim to the ids of a pod with users of its own;
/// else it is the cluster's network namespace if this process is in the host's, and so will be the pod.
pub(crate) fn prepare(spec: SpareSpec, beside: Option<OwnedFd>) -> io::Result<Ground> {
    let SpareSpec { masked, place, host_ipc, users, cgroups: _ } = spec;
    let mounts = open_namespace("mnt")?;
    let (net, users) = match (users, beside) {
        (Some(map), claim) => {
            let (net, users) = own_users(map, claim, host_ipc)?;
            (Net::Own(net), Some(users))
        }
        (None, Some(cluster)) => {
            sys::unshare(apart(host_ipc))?;
            (Net::Host(cluster), None)
        }
        (None, None) => {
            let cluster = open_namespace("net")?;
            sys::unshare(apart(host_ipc) | UnshareFlags::NEWNET)?;
            open_ports()?;
            let net = open_namespace("net")?;
            join(&cluster, LinkNameSpaceType::Network)?;
            (Net::Own(net), None)
        }
    };
    let user = rustix::fs::stat("/proc/self/ns/user")?;
    let initial_user_namespace = user.st_ino == INITIAL_USER_NAMESPACE;
    Ok(Ground { masked, place, net, host_ipc, mounts, initial_user_namespace, users })
}

/// What a pod always has of its own.
fn apart(host_ipc: bool) -> UnshareFlags {
    let own = UnshareFlags::NEWUTS;
    if host_ipc { own } else { own | UnshareFlags::NEWIPC }
}

/// Makes the namespaces of a pod with users of its own, and moves into those that the shim is in.
fn own_users(
    map: IdMap,
    claim: Option<OwnedFd>,
    host_ipc: bool,
) -> io::Result<(OwnedFd, PodUsers)> {
    if host_ipc {
        let text = "a pod with users of its own cannot share the machine's IPC";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let (users, Owned { net, ipc, uts }) = PodUsers::make(map, claim)?;
    join(&ipc, LinkNameSpaceType::InterProcessCommunication)?;
    join(&uts, LinkNameSpaceType::HostNameAndNISDomainName)?;
    let cluster = open_namespace("net")?;
    join(&net, LinkNameSpaceType::Network)?;
    open_ports()?;
    join(&cluster, LinkNameSpaceType::Network)?;
    Ok((net, users))
}

fn join(namespace: &OwnedFd, kind: LinkNameSpaceType) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))?)
}

impl Pod {
    /// The pod that has these namespaces from now on.
    pub(crate) fn new(
        dir: PathBuf,
        hostname: String,
        sysctls: &[Sysctl],
        ground: Ground,
    ) -> io::Result<Self> {
        if HOSTNAME_MAX < hostname.len() {
            let text = format!("host name `{hostname}` is longer than {HOSTNAME_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        rustix::system::sethostname(hostname.as_bytes())?;
        if !sysctls.is_empty() {
            set_all(sysctls, &ground)?;
        }
        Ok(Self { dir, hostname, ground, init: None })
    }

    /// Sees to it that there is a PID namespace for containers to share.
    pub(crate) fn share_processes(&mut self) -> io::Result<()> {
        let ended = |it: &OwnedFd| -> io::Result<bool> {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            Ok(rustix::event::poll(&mut [PollFd::new(it, PollFlags::IN)], Some(&now))? != 0)
        };
        if self.init.as_ref().map_or(Ok(true), ended)? {
            self.init = Some(inside::init(self.ground.users.as_ref())?);
        }
        Ok(())
    }
}

/// Sets kernel parameters of the pod's namespaces: this process is in that of IPC, and visits that of
/// the network.
fn set_all(sysctls: &[Sysctl], ground: &Ground) -> io::Result<()> {
    let own = match &ground.net {
        Net::Own(net) => {
            let own = open_namespace("net")?;
            join(net, LinkNameSpaceType::Network)?;
            Some(own)
        }
        Net::Host(_) => None,
    };
    let set = sysctls.iter().try_for_each(|it| {
        let set = || set(it, own.is_some());
        // Only root of the namespace may set those of IPC.
        let done = ground.users.as_ref().map_or_else(set, |users| users.within(set));
        done.map_err(|error| {
            let text = format!("cannot set the sysctl `{}` to `{}`: {error}", it.name, it.value);
            io::Error::new(error.kind(), text)
        })
    });
    if let Some(own) = own {
        join(&own, LinkNameSpaceType::Network)?;
    }
    set
}

fn set(sysctl: &Sysctl, own_net: bool) -> io::Result<()> {
    let Some((path, scope)) = sysctl_path(&sysctl.name) else {
        return Err(io::Error::other("it is not one that a pod has for itself"));
    };
    if scope == SysctlScope::Net && !own_net {
        return Err(io::Error::other("the pod shares the network of the host"));
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
        if errno == Errno::ACCESS && scope == SysctlScope::Ipc {
            // Linux gives those of IPC to the root of the user namespace, and there is none.
            return io::Error::other("only a cluster of root's may set it");
        }
        errno.into()
    })?;
    rustix::io::write(file, sysctl.value.as_bytes())?;
    Ok(())
}

/// Which namespace of a pod a kernel parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysctlScope {
    /// That of the network.
    Net,
    /// That of inter-process communication.
    Ipc,
}

/// The namespace of the kernel parameter of this name; `None` if it is the whole machine's.
#[must_use]
pub fn sysctl_scope(name: &str) -> Option<SysctlScope> {
    sysctl_path(name).map(|(_, scope)| scope)
}

/// The file of a kernel parameter that is of a namespace, by a name with dots or slashes: whichever
/// comes first separates, as sysctl(8) has it.
fn sysctl_path(name: &str) -> Option<(PathBuf, SysctlScope)> {
    /// Those of IPC that are no group of their own.
    const IPC: [&str; 10] = [
        "kernel/auto_msgmni",
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
        "kernel/sem_next_id",
    ];
    let swapped = match name.find(['.', '/']).map(|it| name.as_bytes().get(it)) {
        Some(Some(b'.')) => true,
        Some(Some(b'/')) => false,
        _ => return None,
    };
    let path: String = name
        .chars()
        .map(|it| match it {
            '.' if swapped => '/',
            '/' if swapped => '.',
            it => it,
        })
        .collect();
    let plain = path.split('/').all(|it| !matches!(it, "" | "." | ".."));
    let scope = if path.starts_with("net/") {
        SysctlScope::Net
    } else if path.starts_with("fs/mqueue/") || IPC.contains(&path.as_str()) {
        SysctlScope::Ipc
    } else {
        return None;
    };
    plain.then(|| (PathBuf::from("/proc/sys").join(path), scope))
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

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(name: &str, expected: Expect) {
        let shown = sysctl_path(name).map(|(path, of)| format!("{} {of:?}", path.display()));
        expected.assert_eq(&shown.unwrap_or_default());
    }

    #[test]
    fn only_what_is_of_a_namespace_is_set() {
        check("net.core.somaxconn", expect!["/proc/sys/net/core/somaxconn Net"]);
        check(
            "net/ipv4/conf/eth0.1/forwarding",
            expect!["/proc/sys/net/ipv4/conf/eth0.1/forwarding Net"],
        );
        check(
            "net.ipv4.conf.eth0/1.forwarding",
            expect!["/proc/sys/net/ipv4/conf/eth0.1/forwarding Net"],
        );
        check("kernel.shmmax", expect!["/proc/sys/kernel/shmmax Ipc"]);
        check("fs.mqueue.msg_max", expect!["/proc/sys/fs/mqueue/msg_max Ipc"]);
        check("kernel.core_pattern", expect![""]);
        check("net/../kernel/core_pattern", expect![""]);
        check("net./.kernel", expect![""]);
        check("vm.swappiness", expect![""]);
    }
}
