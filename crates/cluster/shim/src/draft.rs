//! A container's first process before it knows which container it is of: it makes the root as far as
//! all of them have the same, and then awaits the rest.
//!
//! Making that takes most of a container's start. So a shim without a pod has one already, of use
//! only as long as the machine is as it was when its root was made.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{Mode, OFlags},
};

use crate::{
    cgroups::Cgroups,
    channel::Channel,
    child::{self, Begin, Ground, Stdio},
    inside::{self, Place},
    streams,
    sys::{self, New},
    wire::ContainerSpec,
};

/// Folders whose entries a root is made of.
const COPIED: [&str; 3] = ["/", "/dev", "/etc"];

/// A process that awaits its container. It ends when the channel is closed.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) channel: Channel,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// The control groups that it is in, or on its way to.
    pub(crate) cgroups: Cgroups,
    /// Where it awaits its root from, in the pod's own user namespace.
    maker: Option<OwnedFd>,
}

impl Draft {
    /// One that begins in these control groups, and in this PID namespace.
    pub(crate) fn fork(
        ground: &Ground,
        begin: Begin<'_>,
        cgroups: Cgroups,
        processes: Processes<'_>,
    ) -> io::Result<Self> {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let (stdout, stdout_writer) = streams::pipe()?;
        let (stderr, stderr_writer) = streams::pipe()?;
        let (channel, child_end) = Channel::new()?;
        let users = ground.users.as_ref();
        let mut maker = None;
        if let Some(users) = users {
            users.give(&stdout_writer)?;
            users.give(&stderr_writer)?;
            maker = Some(UnixStream::pair()?);
        }
        let (maker, of_maker) = maker.map(|(ours, its)| (ours.into(), OwnedFd::from(its))).unzip();
        let begin = of_maker.as_ref().map_or(begin, Begin::Inside);
        let beside = |first, new| inside::fork(Place { first, users }, new, &cgroups, None);
        let forked = match processes {
            Processes::Own if users.is_some() => beside(None, New::ContainerApart),
            Processes::Own => sys::fork(New::Container, cgroups.birthplace()),
            Processes::Of(first) => beside(Some(first), New::ContainerBeside),
            Processes::Here => sys::fork(New::ContainerHere, cgroups.birthplace()),
        };
        let Some(process) = forked? else {
            let stdio = Stdio {
                stdin: null.as_fd(),
                stdout: stdout_writer.as_fd(),
                stderr: stderr_writer.as_fd(),
            };
            child::container(ground, begin, &cgroups, &child_end, stdio);
        };
        let pid = process.pid.as_raw_nonzero().get().cast_unsigned();
        Ok(Self { pid, pidfd: process.pidfd, channel, stdout, stderr, cgroups, maker })
    }

    /// Begins the process that makes the root, where the first one has no right to.
    pub(crate) fn make_root(
        &mut self,
        ground: &Ground,
        hostname: &str,
        spec: &ContainerSpec,
    ) -> io::Result<()> {
        let Some(channel) = self.maker.take() else { return Ok(()) };
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let place = Place { first: Some(&self.pidfd), users: None };
        if inside::fork(place, New::Sibling, &self.cgroups, None)?.is_none() {
            let stdio = Stdio { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
            child::maker(ground, &self.pidfd, (hostname, spec), &channel, stdio);
        }
        Ok(())
    }
}

/// Which PID namespace a container's first process is in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Processes<'a> {
    /// A new one.
    Own,
    /// That of this process.
    Of(&'a OwnedFd),
    /// That of the shim, the machine's.
    Here,
}

/// A draft that was forked ahead of need.
#[derive(Debug)]
pub(crate) struct Ahead {
    draft: Draft,
    copied: Copied,
}

impl Ahead {
    pub(crate) fn fork(ground: &Ground, cgroups: Cgroups) -> io::Result<Self> {
        // First: what changes from here on is noticed.
        let copied = Copied::now()?;
        Ok(Self { draft: Draft::fork(ground, Begin::Early, cgroups, Processes::Own)?, copied })
    }

    /// The draft, if a root that is made now would be the same, and it is in these control groups.
    pub(crate) fn if_current(self, cgroups: &[PathBuf]) -> Option<Draft> {
        let Self { draft, copied } = self;
        let fits = draft.cgroups.are(cgroups) && copied.is_current().unwrap_or(false);
        fits.then_some(draft)
    }
}

/// What of the machine is copied into a root.
#[derive(Debug)]
struct Copied {
    folders: [(i64, i64); COPIED.len()],
    /// The kernel tells who has it open that the table has changed, see proc(5).
    mounts: File,
}

impl Copied {
    fn now() -> io::Result<Self> {
        Ok(Self { folders: changes()?, mounts: File::open("/proc/self/mountinfo")? })
    }

    fn is_current(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.mounts, PollFlags::PRI)];
        let mounted = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(mounted == 0 && self.folders == changes()?)
    }
}

/// When the entries of the folders changed last.
fn changes() -> io::Result<[(i64, i64); COPIED.len()]> {
    let mut times = [(0, 0); COPIED.len()];
    for (time, path) in times.iter_mut().zip(COPIED) {
        let stat = rustix::fs::stat(path)?;
        *time = (stat.st_mtime, stat.st_mtime_nsec.cast_signed());
    }
    Ok(times)
}
