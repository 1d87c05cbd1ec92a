//! New processes in a PID namespace that is there already: of a container, or of the pod's containers.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::{
    pipe::PipeFlags,
    process::{DumpableBehavior, Pid, PidfdFlags, Signal},
    thread::ThreadNameSpaceType,
};

use crate::{
    cgroups::Cgroups,
    child,
    sys::{self, Child, New},
    users::{self, PodUsers},
};

/// In which namespaces a process begins; without any, in the shim's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place<'a> {
    /// A process in whose PID namespace it is.
    pub(crate) first: Option<&'a OwnedFd>,
    /// The user namespace, which then owns whatever namespaces are made for it. Its user is one from
    /// outside until it becomes another.
    pub(crate) users: Option<&'a PodUsers>,
}

/// A child at this place, and in control groups: `None` in the child.
///
/// A process that goes into a PID namespace only has its children there, and without root it
/// cannot go back, as from no user namespace; so a helper goes, and has a child for the shim. The
/// shim reaps the helper like any child.
pub(crate) fn fork(
    Place { first, users }: Place<'_>,
    new: New,
    cgroups: &Cgroups,
    oom_score_adj: Option<i32>,
) -> io::Result<Option<Child>> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    if sys::fork(New::Child, None)?.is_some() {
        drop(writer);
        return read_child(&reader).map(Some);
    }
    let forked = || -> io::Result<Option<Child>> {
        cgroups.join()?;
        // Here, as the child has no right to: its files in /proc are nobody's.
        oom_score_adj.map_or(Ok(()), |it| child::set_oom_score_adj("self", it))?;
        if new == New::Sibling || users.is_some() {
            // From its first moment in the container nobody there can look into the child, which is
            // a copy of the shim until it runs its program, and has its privileges. One that makes a
            // container has more of them than others there have until it gives them up, and does
            // this then.
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        }
        if let Some(first) = first {
            let kind = ThreadNameSpaceType::PROCESS_ID;
            rustix::thread::move_into_thread_name_spaces(first.as_fd(), kind)?;
        }
        users.map_or(Ok(()), PodUsers::join)?;
        sys::fork(new, cgroups.birthplace())
    };
    // A process id, or an error number below zero.
    let number = match forked() {
        Ok(None) => return Ok(None),
        Ok(Some(child)) => child.pid.as_raw_nonzero().get(),
        Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
    };
    // A shim that is gone needs no answer.
    rustix::io::write(&writer, &number.to_ne_bytes()).ok();
    sys::exit(0)
}

/// What the helper says of the new child.
fn read_child(reader: &OwnedFd) -> io::Result<Child> {
    let mut bytes = [0; size_of::<i32>()];
    if rustix::io::retry_on_intr(|| rustix::io::read(reader, &mut bytes))? != bytes.len() {
        return Err(io::Error::other("the process that should start it was killed"));
    }
    let number = i32::from_ne_bytes(bytes);
    let pid = if 0 < number { Pid::from_raw(number) } else { None };
    let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(number.wrapping_neg()))?;
    // It is our child: as long as we have not waited for it, the id is its own.
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Child { pid, pidfd })
}

/// The first process of a PID namespace that containers of a pod share. It does nothing but to be there:
/// the kernel buries those whose parents have ended, and ends all with it. It ends with the shim.
pub(crate) fn init(users: Option<&PodUsers>) -> io::Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let forked = match users {
        None => sys::fork(New::Container, None),
        Some(_) => {
            let place = Place { users, ..Place::default() };
            fork(place, New::ContainerApart, &Cgroups::default(), None)
        }
    };
    let Some(child) = forked? else {
        drop(reader);
        let begun = || -> io::Result<()> {
            if users.is_some() {
                users::become_root()?;
            }
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
            rustix::process::setsid()?;
            rustix::thread::set_name(c"coracle pause")?;
            sys::close_others(&[writer.as_fd()])?;
            sys::ignore_children()?;
            Ok(rustix::io::write(&writer, &[1]).map(drop)?)
        };
        if begun().is_err() {
            sys::exit(1);
        }
        drop(writer);
        loop {
            // It returns only for signals, of which none is for this process.
            rustix::event::pause();
        }
    };
    drop(writer);
    // Until then it is a copy of the shim, and nobody may be where it can be looked into.
    match rustix::io::retry_on_intr(|| rustix::io::read(&reader, &mut [0; 1]))? {
        0 => Err(io::Error::other("the first process of the pod's containers has ended at once")),
        _ => Ok(child.pidfd),
    }
}
