//! How shims come about: the nursery is started once, and each shim is forked from it.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType},
    process::{Pid, PidfdFlags, WaitId, WaitIdOptions},
};

use crate::{
    child::open_namespace,
    files,
    wire::{self, Request, SpareSpec},
};

/// Room for the longest name of a pod, `NAMESPACE/NAME`, and its uid: a shim shows both in place of
/// the nursery's arguments.
const NAME_MAX: usize = "/pods/".len() + 63 + 1 + 253 + 36;

/// A process that forks shims. When it is dropped it ends; the shims go on.
#[derive(Debug)]
pub struct Nursery {
    requests: OwnedFd,
    /// If it is a child of this process.
    process: Option<Child>,
    /// The network namespace of the cluster, if its shims are to be elsewhere.
    cluster: Option<OwnedFd>,
}

/// What a nursery is started with, for whoever can start it where it has to be. It gets no
/// environment, and /dev/null as standard output.
#[derive(Debug)]
pub struct NurseryCommand {
    /// The command line, the name first.
    pub arguments: Vec<OsString>,
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

impl Nursery {
    /// Starts one, detached from the caller but in its namespaces. `executable` is the binary whose
    /// `shim` subcommand is [`crate::main`], `/proc/self/exe` inside it; `dir` is the cluster's run
    /// folder, where it leaves a file that is empty unless something goes very wrong.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start(executable: &Path, dir: &Path) -> io::Result<Self> {
        let (requests, NurseryCommand { arguments, stdin, stderr }) = prepare(dir)?;
        let mut command = Command::new(executable);
        if let Some((name, arguments)) = arguments.split_first() {
            command.arg0(name).args(arguments);
        }
        command.env_clear().stdin(stdin).stdout(Stdio::null()).stderr(stderr);
        Ok(Self { requests, process: Some(command.spawn()?), cluster: None })
    }

    /// One whose shims' pods share the host's network. `start` runs the command in the host's network
    /// namespace and in the caller's user and mount namespaces, `dir` is as in [`Nursery::start`], and
    /// the caller is in the cluster's network namespace.
    ///
    /// # Errors
    /// Those of `start`, and if its parts cannot be made.
    pub fn start_on_host(
        dir: &Path,
        start: impl FnOnce(NurseryCommand) -> io::Result<()>,
    ) -> io::Result<Self> {
        let cluster = open_namespace("net")?;
        let (requests, command) = prepare(dir)?;
        start(command)?;
        Ok(Self { requests, process: None, cluster: Some(cluster) })
    }

    /// Asks for a shim. Its first message on the connection that is returned is [`wire::Reply::Ready`];
    /// it then waits for [`Request::Pod`], and ends when the connection is closed before. It holds
    /// `claim`, what keeps the ids of a pod with users of its own from others, open as long as it lives.
    ///
    /// # Errors
    /// If the nursery is gone.
    pub fn spare(&self, spec: &SpareSpec, claim: Option<&OwnedFd>) -> io::Result<OwnedFd> {
        let (ours, theirs) = pair()?;
        let beside: Vec<BorrowedFd<'_>> = std::iter::once(&theirs)
            .chain(&self.cluster)
            .chain(claim)
            .map(OwnedFd::as_fd)
            .collect();
        wire::send(&self.requests, &Request::Spare(spec.clone()), &beside)?;
        Ok(ours)
    }

    /// Ends the nursery, and waits until it is gone if it is a child of this process.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn end(self) -> io::Result<()> {
        let Self { requests, process, .. } = self;
        drop(requests);
        process.map_or(Ok(()), |mut it| it.wait().map(drop))
    }
}

/// A shim that was forked for this process, and is its child.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// The shim that said [`wire::Reply::Ready`] with this process id.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn open(pid: u32) -> io::Result<Self> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let id = id.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { pid, pidfd: rustix::process::pidfd_open(id, PidfdFlags::empty())? })
    }

    /// Its process id.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.pid
    }

    /// A descriptor that is readable once it has ended.
    #[must_use]
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for its end and returns its exit code, if no signal ended it. Whoever lives longer than
    /// the shim does so when the connection ends, or it stays as a zombie.
    ///
    /// # Errors
    /// `ECHILD` if it was waited for before.
    pub fn wait(&self) -> io::Result<Option<i32>> {
        loop {
            let id = WaitId::PidFd(self.pidfd.as_fd());
            match rustix::process::waitid(id, WaitIdOptions::EXITED) {
                Ok(status) => return Ok(status.and_then(|it| it.exit_status())),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The end of the control socket that stays here, and the command.
fn prepare(dir: &Path) -> io::Result<(OwnedFd, NurseryCommand)> {
    let (requests, stdin) = pair()?;
    let words = ["coracle", "shim", "nursery", "--dir"].map(OsString::from);
    let rest = [dir.into(), OsString::from(" ".repeat(NAME_MAX))];
    let arguments = words.into_iter().chain(rest).collect();
    let stderr = files::diagnostics_of_nursery(dir)?.into();
    Ok((requests, NurseryCommand { arguments, stdin, stderr }))
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (domain, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    Ok(rustix::net::socketpair(domain, kind, SocketFlags::CLOEXEC, None)?)
}
