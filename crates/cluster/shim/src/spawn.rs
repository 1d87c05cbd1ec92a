//! How a shim is started: its command line, and the control socket it gets as standard input.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{
    client::{Client, Error},
    files,
    wire::{PodSpec, Reply, Request},
};

/// What a shim is started with.
#[derive(Debug, Clone, Copy)]
pub struct Spawn<'a> {
    /// The binary whose `shim` subcommand is [`crate::main`]: `/proc/self/exe` inside it.
    pub executable: &'a Path,
    /// The pod's run folder: it exists, is the user's own and has mode 0700.
    pub dir: &'a Path,
    /// `NAMESPACE/NAME` of the pod, for people who read `ps`.
    pub pod: &'a str,
    /// The rest.
    pub spec: &'a PodSpec,
}

/// A started shim.
#[derive(Debug)]
pub struct Spawned {
    /// A connection to it.
    pub client: Client,
    /// The pod's network namespace; its loopback device is down.
    pub netns: OwnedFd,
    /// The process. Whoever lives longer than the shim waits for it when the connection ends, or
    /// it stays as a zombie.
    pub process: Child,
}

/// Why no shim was started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The process could not be started.
    #[error("cannot start `{}` as shim", executable.display())]
    Start {
        /// The binary.
        executable: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It started and said why it cannot be the pod's shim. `AnotherShim` in `Failed`: connect to
    /// that one.
    #[error(transparent)]
    Shim(#[from] Error),
}

/// Starts a pod's shim, detached from the caller but in its namespaces, and awaits that the pod's
/// own namespaces are there.
///
/// # Errors
/// See [`SpawnError`].
pub fn spawn(spawn: &Spawn<'_>) -> Result<Spawned, SpawnError> {
    let failed = |source| SpawnError::Start { executable: spawn.executable.to_owned(), source };
    let (process, socket) = start(spawn).map_err(failed)?;
    match await_ready(socket, spawn.spec) {
        Ok((client, netns)) => Ok(Spawned { client, netns, process }),
        Err(error) => {
            reap(process).map_err(failed)?;
            Err(error.into())
        }
    }
}

fn start(spawn: &Spawn<'_>) -> io::Result<(Child, OwnedFd)> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut options = OpenOptions::new();
    let diagnostics = options.append(true).create(true).mode(0o600);
    let diagnostics = diagnostics.open(spawn.dir.join(files::DIAGNOSTICS))?;
    let mut command = Command::new(spawn.executable);
    command.arg0("coracle").args(["shim", spawn.pod]).arg("--dir").arg(spawn.dir);
    command.env_clear().stdin(theirs).stdout(Stdio::null()).stderr(diagnostics);
    Ok((command.spawn()?, ours))
}

fn await_ready(socket: OwnedFd, spec: &PodSpec) -> Result<(Client, OwnedFd), Error> {
    let mut client = Client::from_socket(socket);
    client.send(&Request::Pod(spec.clone()), &[])?;
    match (client.answer()?, client.take_fd()) {
        (Reply::Ready { .. }, Some(netns)) => Ok((client, netns)),
        (got, _) => Err(Error::Protocol { asked: "pod", got: Box::new(got) }),
    }
}

/// A shim that has given up is gone in a moment; one that has gone mad is helped.
fn reap(mut process: Child) -> io::Result<()> {
    process.kill()?;
    process.wait()?;
    Ok(())
}
