//! The lock that the cluster process holds, and what it says in it: who runs here, and where.

use std::{
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags},
    fs::{FlockOperation, flock},
    io::{Errno, retry_on_intr},
    process::{Pid, PidfdFlags, Signal, pidfd_open},
};
use serde::{Deserialize, Serialize};

/// What the running cluster process says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Its process id.
    pub(crate) pid: i32,
    /// The port of 127.0.0.1 that its API listens on.
    pub(crate) port: u16,
    /// The version of the program.
    pub(crate) version: String,
}

/// The lock, held for as long as this value lives. The kernel lets go of it however we end.
#[derive(Debug)]
pub(crate) struct Lock(fs::File);

impl Lock {
    /// Takes the lock in runtime folder `run`; `None` if another process holds it.
    pub(crate) fn take(run: &Path, name: &str) -> anyhow::Result<Option<Self>> {
        let path = run.join(name);
        let file = open(&path).with_context(|| format!("open lock `{}`", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("lock `{}`", path.display())),
        }
    }

    /// Takes the lock, waiting for as long as another process holds it.
    pub(crate) fn wait(run: &Path, name: &str) -> anyhow::Result<Self> {
        let path = run.join(name);
        let file = open(&path).with_context(|| format!("open lock `{}`", path.display()))?;
        flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("wait for lock `{}`", path.display()))?;
        Ok(Self(file))
    }

    /// Says who runs here.
    pub(crate) fn announce(&mut self, running: &Running) -> io::Result<()> {
        let text = serde_json::to_vec(running)?;
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(&text)
    }
}

/// Name of the lock of the cluster process.
pub(crate) const CLUSTER: &str = "cluster.lock";
/// Name of the lock that commands which start or stop the cluster hold meanwhile.
pub(crate) const LIFECYCLE: &str = "lifecycle.lock";

/// The cluster that runs on runtime folder `run`, if one does.
///
/// A process that was killed holds its lock until the kernel has closed all of its files, for some
/// tens of milliseconds, and serves nobody meanwhile: the end of such a one is waited for.
pub(crate) fn running(run: &Path) -> anyhow::Result<Option<Running>> {
    let Some(said) = announced(run)? else { return Ok(None) };
    let pid = Pid::from_raw(said.pid).with_context(|| format!("{} is no process id", said.pid))?;
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return announced(run),
        Err(error) => return Err(error).with_context(|| format!("open process {}", said.pid)),
    };
    if !ends(said.pid).with_context(|| format!("look at process {}", said.pid))? {
        return Ok(Some(said));
    }
    let mut end = [PollFd::new(&process, PollFlags::IN)];
    retry_on_intr(|| rustix::event::poll(&mut end, None))
        .with_context(|| format!("wait for the end of process {}", said.pid))?;
    announced(run)
}

/// What the holder of the lock says of itself.
fn announced(run: &Path) -> anyhow::Result<Option<Running>> {
    let path = run.join(CLUSTER);
    let mut file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open `{}`", path.display())),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        // Nobody holds it: what it says is of a process that is gone.
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            file.read_to_string(&mut text).with_context(|| format!("read `{}`", path.display()))?;
            // Empty while the process starts: it is not there for callers yet.
            Ok(serde_json::from_str(&text).ok())
        }
        Err(error) => Err(error).with_context(|| format!("lock `{}`", path.display())),
    }
}

/// Whether a process was killed or is on its way out, though its files may still be open.
fn ends(pid: i32) -> io::Result<bool> {
    let read = |file: &str| match fs::read_to_string(format!("/proc/{pid}/{file}")) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // Read while the process vanishes.
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    };
    // In this order: the signal stops being pending when the flags begin to say so.
    let (Some(status), Some(stat)) = (read("status")?, read("stat")?) else { return Ok(true) };
    Ok(is_killed(&status) || is_exiting(&stat))
}

/// Whether SIGKILL is pending in the text of `/proc/PID/status`, for the thread or the process.
fn is_killed(status: &str) -> bool {
    let kill = 1_u64 << (Signal::KILL.as_raw() - 1);
    let masks = status.lines().filter_map(|it| {
        it.strip_prefix("SigPnd:").or_else(|| it.strip_prefix("ShdPnd:")).map(str::trim)
    });
    masks.filter_map(|it| u64::from_str_radix(it, 16).ok()).any(|it| it & kill != 0)
}

/// Whether the text of `/proc/PID/stat` says so in the kernel's flags, the ninth field (proc(5)).
fn is_exiting(stat: &str) -> bool {
    /// `PF_EXITING` and `PF_SIGNALED` of the kernel's `sched.h`.
    const ENDING: u64 = 0x4 | 0x400;
    // After the name, which may hold anything but ends at the last parenthesis.
    let flags = stat.rsplit_once(')').and_then(|(_, it)| it.split_ascii_whitespace().nth(6));
    flags.and_then(|it| it.parse::<u64>().ok()).is_some_and(|it| it & ENDING != 0)
}

fn open(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_who_holds_it() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(running(run.path()).unwrap(), None);
        let mut lock = Lock::take(run.path(), CLUSTER).unwrap().unwrap();
        assert!(Lock::take(run.path(), CLUSTER).unwrap().is_none());
        assert_eq!(running(run.path()).unwrap(), None);
        let me = Running {
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            port: 6443,
            version: "1".to_owned(),
        };
        lock.announce(&me).unwrap();
        assert_eq!(running(run.path()).unwrap(), Some(me));
        drop(lock);
        assert_eq!(running(run.path()).unwrap(), None);
    }

    #[test]
    fn killed_processes_do_not_run() {
        let run = tempfile::tempdir().unwrap();
        let mut process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let mut lock = Lock::take(run.path(), CLUSTER).unwrap().unwrap();
        let of_process =
            Running { pid: process.id().cast_signed(), port: 6443, version: "1".to_owned() };
        lock.announce(&of_process).unwrap();
        assert_eq!(running(run.path()).unwrap().as_ref(), Some(&of_process));
        assert!(!ends(of_process.pid).unwrap());
        process.kill().unwrap();
        assert!(ends(of_process.pid).unwrap());
        process.wait().unwrap();
        assert!(ends(of_process.pid).unwrap());
    }

    #[test]
    fn kernel_flags_are_read_behind_any_name() {
        assert!(!is_exiting("7 (a) b) S 1 7 7 0 -1 4194560 1 2"));
        assert!(is_exiting("7 (a) b) S 1 7 7 0 -1 4194564 1 2"));
        assert!(is_exiting("7 (coracle) R 1 7 7 0 -1 4195584 1 2"));
        assert!(is_killed("Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n"));
        assert!(!is_killed("SigPnd:\t0000000000000002\nShdPnd:\t0000000000000200\n"));
    }
}
