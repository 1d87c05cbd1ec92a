//! The user namespace that a pod has for itself (`hostUsers: false` of root's clusters): all its
//! containers are in it, and it owns the pod's other namespaces.
//!
//! The shim stays outside: it opens what roots are made of, with rights that nobody inside has. The
//! containers of an ordinary user's cluster are in namespaces of their own instead, see
//! [`crate::wire::ContainerSpec::user_namespace`].

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    fs::{Gid, Mode, OFlags, Uid},
    process::{DumpableBehavior, Pid, Signal, WaitOptions},
    thread::{CapabilitySets, LinkNameSpaceType, UnshareFlags},
};

use crate::{
    sys::{self, New},
    wire::{IdMap, IdRange},
};

/// A pod's user namespace.
#[derive(Debug)]
pub(crate) struct PodUsers {
    namespace: OwnedFd,
    map: IdMap,
    /// What its root is called outside: user and group.
    root: (u32, u32),
    /// Held, not used: as long as it is open, nobody else is given these ids.
    _claim: Option<OwnedFd>,
}

/// Namespaces that a pod's user namespace owns.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) net: OwnedFd,
    pub(crate) ipc: OwnedFd,
    pub(crate) uts: OwnedFd,
}

impl PodUsers {
    /// Makes a user namespace with this map, and what it owns.
    pub(crate) fn make(map: IdMap, claim: Option<OwnedFd>) -> io::Result<(Self, Owned)> {
        let root = (root_of(&map.uids)?, root_of(&map.gids)?);
        let (mut ours, theirs) = UnixStream::pair()?;
        let Some(helper) = sys::fork(New::Child, None)? else {
            drop(ours);
            sys::exit(hold(theirs))
        };
        drop(theirs);
        let made = open_of(&mut ours, helper.pid, &map);
        // The helper ends with it.
        drop(ours);
        let waited = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(helper.pid), WaitOptions::empty())
        });
        let (namespace, owned) = made.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot make the pod's user namespace: {error}"))
        })?;
        waited?;
        Ok((Self { namespace, map, root, _claim: claim }, owned))
    }

    pub(crate) const fn map(&self) -> &IdMap {
        &self.map
    }

    /// Takes this process into the namespace, of which it has every right then. Its user is still one
    /// from outside.
    pub(crate) fn join(&self) -> io::Result<()> {
        let kind = Some(LinkNameSpaceType::User);
        Ok(rustix::thread::move_into_link_name_space(self.namespace.as_fd(), kind)?)
    }

    /// Lets what this process makes from now on belong to root of the namespace, and keeps all its rights
    /// outside.
    pub(crate) fn own_new_files(&self) -> io::Result<()> {
        let (uid, gid) = self.root;
        sys::set_fs_ids(uid, gid)?;
        // The kernel has taken those that concern files.
        let sets = rustix::thread::capabilities(None)?;
        let sets = CapabilitySets { effective: sets.permitted, ..sets };
        Ok(rustix::thread::set_capabilities(None, sets)?)
    }

    /// Gives a pipe of the shim's to root of the namespace, so that it can be opened by its name there.
    pub(crate) fn give(&self, pipe: impl AsFd) -> io::Result<()> {
        let (uid, gid) = self.root;
        Ok(rustix::fs::fchown(pipe, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    /// Does something in the namespace, as its root, in a process of its own.
    pub(crate) fn within(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let Some(child) = sys::fork(New::Child, None)? else {
            let done = self.join().and_then(|()| become_root()).and_then(|()| work());
            sys::exit(done.err().map_or(0, |it| it.raw_os_error().unwrap_or(libc::EIO)))
        };
        let status = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(child.pid), WaitOptions::empty())
        })?;
        match status.and_then(|(_, it)| it.exit_status()) {
            Some(0) => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Err(io::Error::other("the process that should do it was killed")),
        }
    }
}

impl AsFd for PodUsers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// Makes this process, which has joined a pod's user namespace, run as its root. As a copy of the shim
/// it cannot be looked into by anybody there.
pub(crate) fn become_root() -> io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Changing the user made the kernel forget it.
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// What root is called outside, which must be somebody: it is who makes roots.
fn root_of(ranges: &[IdRange]) -> io::Result<u32> {
    let root = ranges.iter().find(|it| it.inside == 0).map(|it| it.outside);
    let text = "the users of a pod have no root";
    root.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// The helper: goes into new namespaces, says so, and stays until they are opened.
fn hold(mut shim: UnixStream) -> i32 {
    let new =
        UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    let errno = sys::unshare(new).err().map_or(0, rustix::io::Errno::raw_os_error);
    let stayed = shim.write_all(&errno.to_ne_bytes()).and_then(|()| shim.read(&mut [0; 1]));
    i32::from(stayed.is_err())
}

/// Maps the helper's users, and opens its namespaces.
fn open_of(helper: &mut UnixStream, pid: Pid, map: &IdMap) -> io::Result<(OwnedFd, Owned)> {
    let mut errno = [0; size_of::<i32>()];
    helper.read_exact(&mut errno)?;
    match i32::from_ne_bytes(errno) {
        0 => {}
        errno => return Err(refused(errno)),
    }
    let own = format!("/proc/{}", pid.as_raw_nonzero());
    fs::write(format!("{own}/gid_map"), lines(&map.gids))?;
    fs::write(format!("{own}/uid_map"), lines(&map.uids))?;
    let open = |name: &str| -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(format!("{own}/ns/{name}"), flags, Mode::empty())?)
    };
    let owned = Owned { net: open("net")?, ipc: open("ipc")?, uts: open("uts")? };
    Ok((open("user")?, owned))
}

/// What is written to `uid_map` or `gid_map`.
fn lines(ranges: &[IdRange]) -> String {
    let line = |it: &IdRange| format!("{} {} {}\n", it.inside, it.outside, it.count);
    ranges.iter().map(line).collect()
}

/// Why the kernel makes no namespaces, in words that help.
fn refused(errno: i32) -> io::Error {
    let error = io::Error::from_raw_os_error(errno);
    let why = match errno {
        libc::ENOSPC => {
            "the machine's limit of namespaces is reached (sysctl user.max_user_namespaces)"
        }
        libc::EINVAL => "this kernel has no user namespaces",
        libc::EPERM => "this machine forbids user namespaces",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{why}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_written_as_the_kernel_reads_them() {
        let ranges = [
            IdRange { inside: 0, outside: 131_072, count: 65_536 },
            IdRange { inside: 65_536, outside: 7, count: 1 },
        ];
        assert_eq!(lines(&ranges), "0 131072 65536\n65536 7 1\n");
    }

    #[test]
    fn nobody_is_no_root() {
        let range = IdRange { inside: 1, outside: 131_072, count: 65_535 };
        assert_eq!(root_of(&[range]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(root_of(&[range, IdRange { inside: 0, outside: 7, count: 1 }]).unwrap(), 7);
    }

    #[test]
    fn a_limit_of_namespaces_is_named() {
        assert!(refused(libc::ENOSPC).to_string().contains("user.max_user_namespaces"));
        assert_eq!(refused(libc::ENOMEM).raw_os_error(), Some(libc::ENOMEM));
    }
}
