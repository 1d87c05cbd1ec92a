//! How a keeper is started: the command line and the control socket it gets as standard input.
//!
//! The command line is private to this crate: this file writes it, `Arguments` reads it.

use std::{
    ffi::{OsStr, OsString},
    fs::OpenOptions,
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    client::{self, Client, Error},
    wire,
};

/// What a keeper is started with.
#[derive(Debug, Clone, Copy)]
pub struct Spawn<'a> {
    /// The binary whose `keeper` subcommand is [`crate::main`]: `/proc/self/exe` inside it.
    pub executable: &'a Path,
    /// The cluster's name, for people who read `ps`.
    pub name: &'a str,
    /// The run folder: it exists, is the user's own and has mode 0700.
    pub run_dir: &'a Path,
    /// Where the keeper's standard error goes (appended); `None` is /dev/null.
    pub log: Option<&'a Path>,
    /// A process whose namespaces are taken instead of making new ones: a live shim, or the
    /// cluster process.
    pub adopt: Option<Process>,
}

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, see proc(5): clock ticks after boot.
    pub start_time: u64,
    /// Its descriptor of the cluster's network namespace, if it is on the host's network itself.
    pub cluster_net: Option<i32>,
}

/// Why no keeper was started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The process could not be started.
    #[error("cannot start `{}` as keeper", executable.display())]
    Start {
        /// The binary.
        executable: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It started and said why it cannot be the keeper.
    #[error(transparent)]
    Keeper(#[from] Error),
}

/// Starts a keeper, detached from the caller, and awaits that it holds the namespaces and serves.
///
/// # Errors
/// `AnotherKeeper` in the failure: one is active already, connect to it. `NamespacesForbidden`: the
/// message says what to do.
pub fn spawn(spawn: &Spawn<'_>) -> Result<Client, SpawnError> {
    let (ours, theirs) = wire::pair().map_err(|it| failed(spawn, it))?;
    start(spawn, theirs).map_err(|it| failed(spawn, it))?;
    let mut client = Client::from_socket(ours).map_err(Error::from)?;
    client::await_ready(&mut client)?;
    Ok(client)
}

fn failed(spawn: &Spawn<'_>, source: io::Error) -> SpawnError {
    SpawnError::Start { executable: spawn.executable.to_owned(), source }
}

/// Starts `coracle keeper NAME …` with the control socket as its standard input.
fn start(spawn: &Spawn<'_>, control: OwnedFd) -> io::Result<()> {
    let mut command = Command::new(spawn.executable);
    command.arg0("coracle").args(["keeper", spawn.name]);
    command.arg("--run-dir").arg(spawn.run_dir);
    if let Some(Process { pid, start_time, cluster_net }) = spawn.adopt {
        let net = cluster_net.map(|it| format!(":{it}")).unwrap_or_default();
        command.arg("--adopt").arg(format!("{pid}:{start_time}{net}"));
    }
    let log = match spawn.log {
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            Stdio::from(file)
        }
        None => Stdio::null(),
    };
    // It looks for programs that map further users.
    let path = std::env::var_os("PATH").map(|it| ("PATH", it));
    command.env_clear().envs(path).stdin(control).stdout(Stdio::null()).stderr(log);
    // Not waited for: it outlives the caller, and a caller that lives on ignores or reaps it.
    drop(command.spawn()?);
    Ok(())
}

/// The command line of a keeper, without `coracle keeper` and the cluster's name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) run_dir: PathBuf,
    pub(crate) adopt: Option<Process>,
}

impl Arguments {
    /// Reads what [`start`] wrote.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let (mut name, mut run_dir, mut adopt) = (None, None, None);
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("no value for {argument:?}"));
            match argument.to_str() {
                Some("--run-dir") => run_dir = Some(PathBuf::from(value()?)),
                Some("--adopt") => adopt = Some(process(&value()?)?),
                Some(it) if !it.starts_with('-') && name.is_none() => name = Some(argument),
                _ => return Err(format!("unexpected argument {argument:?}")),
            }
        }
        name.ok_or("no cluster name")?;
        Ok(Self { run_dir: run_dir.ok_or("no --run-dir")?, adopt })
    }
}

fn process(text: &OsStr) -> Result<Process, String> {
    let parsed = || {
        let mut parts = text.to_str()?.split(':');
        let (pid, start_time) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let cluster_net = parts.next().map(str::parse).transpose().ok()?;
        parts.next().is_none().then_some(Process { pid, start_time, cluster_net })
    };
    parsed().ok_or(format!("{text:?} is not PID:START or PID:START:DESCRIPTOR"))
}

impl Process {
    /// The process that has this id now; `None` if there is none.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_time: start_time(pid)?, cluster_net: None })
    }

    /// Whether the process that has the id now is this one.
    pub(crate) fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

/// When the process with this id started; `None` if there is none.
fn start_time(pid: u32) -> Option<u64> {
    // The name in field 2 may contain anything: count after its closing parenthesis.
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = stat.iter().rposition(|it| *it == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 2..)?).ok()?;
    rest.split(' ').nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn arguments_are_read_back() {
        for (text, cluster_net) in [("7:9", None), ("7:9:4", Some(4))] {
            let adopt = Some(Process { pid: 7, start_time: 9, cluster_net });
            let parsed = parse(&["default", "--run-dir", "/run/x", "--adopt", text]);
            assert_eq!(parsed, Ok(Arguments { run_dir: "/run/x".into(), adopt }));
        }
    }

    #[test]
    fn bad_arguments_are_named() {
        let cases: [(&[&str], &str); 5] = [
            (&["--run-dir", "/x"], "no cluster name"),
            (&["a"], "no --run-dir"),
            (&["a", "--run-dir"], "no value for \"--run-dir\""),
            (&["a", "--adopt", "7"], "\"7\" is not PID:START or PID:START:DESCRIPTOR"),
            (&["a", "--adopt", "7:9:x"], "\"7:9:x\" is not PID:START or PID:START:DESCRIPTOR"),
        ];
        for (arguments, message) in cases {
            assert_eq!(parse(arguments).unwrap_err(), message);
        }
    }

    #[test]
    fn own_process_is_alive_and_a_later_one_is_not() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!Process { start_time: own.start_time + 1, ..own }.is_alive());
    }
}
