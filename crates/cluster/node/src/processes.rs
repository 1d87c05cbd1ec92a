//! Signals to all processes of a pod: to stop it as it stands, to let it go on, to end it as a crash would.
//!
//! A container has a PID namespace of its own, or shares the pod's; its processes are those in there.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::{handle::Handle, site::Site, usage};

/// How often the processes are looked for again, as some may have been made meanwhile. Those that are
/// stopped make none, so two looks are usual; a pod that makes them faster than they are stopped for so
/// long is a fork bomb.
const LOOKS_MAX: usize = 16;

/// What happens to the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// They end (SIGKILL).
    Killed,
    /// They stop (SIGSTOP).
    Paused,
    /// They go on (SIGCONT).
    Resumed,
}

/// Why processes got no signal.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The pod's processes cannot be told from the machine's.
    #[error("the pod shares the machine's processes (`hostPID`), which are left alone")]
    HostPid,
    /// It cannot be told which processes the pod has.
    #[error("find the pod's processes")]
    Shims(#[source] io::Error),
    /// The kernel refused.
    #[error("signal process {pid}")]
    Refused {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Handle {
    /// Does that to every process of the containers of the pod `uid`. Nothing happens if it has none, or
    /// is no pod of this node.
    pub async fn signal(&self, uid: &str, signalled: Signalled) -> Result<(), SignalError> {
        let first = usage::first_processes(&self.registry, uid);
        let done = tokio::task::spawn_blocking(move || signal_all(&first, signalled)).await;
        done.unwrap_or_else(|panic| {
            Err(SignalError::Refused { pid: 0, source: io::Error::other(panic) })
        })
    }
}

impl Site {
    /// The same for a pod of whichever node, also while nobody works on that: its shim's children tell where
    /// its processes are. A pod that shares the machine's is left alone.
    pub async fn signal(&self, uid: &str, signalled: Signalled) -> Result<(), SignalError> {
        let (run_dir, uid) = (self.run_dir().to_owned(), uid.to_owned());
        let done = tokio::task::spawn_blocking(move || {
            let live = shim::live(&run_dir).map_err(SignalError::Shims)?;
            let shims: BTreeSet<u32> =
                live.into_iter().filter(|it| it.uid == uid).map(|it| it.pid).collect();
            let of_pod = |it: &u32| parent(*it).is_some_and(|it| shims.contains(&it));
            let own = namespace(std::process::id());
            let outside = |it: &u32| namespace(*it) != own;
            signal_all(&processes().filter(of_pod).filter(outside).collect::<Vec<_>>(), signalled)
        });
        done.await.unwrap_or_else(|panic| {
            Err(SignalError::Refused { pid: 0, source: io::Error::other(panic) })
        })
    }
}

fn signal_all(first: &[u32], signalled: Signalled) -> Result<(), SignalError> {
    let namespaces: BTreeSet<PathBuf> = first.iter().filter_map(|it| namespace(*it)).collect();
    if namespace(std::process::id()).is_some_and(|it| namespaces.contains(&it)) {
        return Err(SignalError::HostPid);
    }
    let signal = match signalled {
        Signalled::Killed => Signal::KILL,
        Signalled::Paused => Signal::STOP,
        Signalled::Resumed => Signal::CONT,
    };
    let mut told = BTreeSet::new();
    for _ in 0..LOOKS_MAX {
        let mut new = false;
        for pid in processes().filter(|it| !told.contains(it)).collect::<Vec<_>>() {
            let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let process =
                raw.and_then(|it| rustix::process::pidfd_open(it, PidfdFlags::empty()).ok());
            // The descriptor cannot change its process any more: what is true now stays true.
            let inside = namespace(pid).is_some_and(|it| namespaces.contains(&it));
            let Some(process) = process.filter(|_| inside) else { continue };
            match rustix::process::pidfd_send_signal(&process, signal) {
                // It has ended by itself.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(SignalError::Refused { pid, source: error.into() }),
            }
            told.insert(pid);
            new = true;
        }
        if !new {
            return Ok(());
        }
    }
    Ok(())
}

/// The parent of a process: the second field behind the name in proc(5), which may have anything in it.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The PID namespace of a process, if it is there and may be looked at.
fn namespace(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// The processes that this one sees.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|it| it.file_name().to_str()?.parse().ok())
}
