//! The lock that the cluster process holds, and what it says in it: who runs here, and where.

use std::{
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
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
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
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
pub(crate) fn running(run: &Path) -> anyhow::Result<Option<Running>> {
    let path = run.join(CLUSTER);
    let mut file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open `{}`", path.display())),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        // Nobody holds it: what it says is of a process that is gone.
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            file.read_to_string(&mut text).with_context(|| format!("read `{}`", path.display()))?;
            // Empty while the process starts: it is not there for callers yet.
            Ok(serde_json::from_str(&text).ok())
        }
        Err(error) => Err(error).with_context(|| format!("lock `{}`", path.display())),
    }
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
        let me = Running { pid: 7, port: 6443, version: "1".to_owned() };
        lock.announce(&me).unwrap();
        assert_eq!(running(run.path()).unwrap(), Some(me));
        drop(lock);
        assert_eq!(running(run.path()).unwrap(), None);
    }
}
