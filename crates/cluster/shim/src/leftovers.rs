//! Ends what a dead shim left behind.
//!
//! A container dies with its shim (PR_SET_PDEATHSIG), except where the kernel forgets that, such as
//! after a set-user-ID program. So the records on disk are gone through before a pod is started
//! anew.

use std::{io, path::Path};

use rustix::event::Timespec;

use crate::files;

/// How long a killed container may take to be gone. It is the kernel that ends it, in
/// milliseconds; longer takes only a process that waits for a device or a dead file server.
const END_MAX: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A container that a dead shim left running and that is ended now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The container.
    pub id: String,
    /// Process id of its first process.
    pub pid: u32,
}

/// Why leftovers could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum LeftoversError {
    /// The shim lives: connect to it.
    #[error("the pod's shim is running")]
    ShimAlive,
    /// A container does not end.
    #[error("cannot end container `{id}`, process {pid}")]
    Kill {
        /// The container.
        id: String,
        /// Process id of its first process.
        pid: u32,
        /// Why: `TimedOut` if it hangs in the kernel.
        source: io::Error,
    },
    /// The pod's run folder cannot be read or written.
    #[error("cannot use the pod's run folder")]
    Io(#[from] io::Error),
}

/// Kills what still runs of the containers that the pod's dead shim recorded in `dir`, after making
/// sure that it is them, and removes what the shim left except exits. What died unseen has no exit.
///
/// # Errors
/// See [`LeftoversError`].
pub fn leftovers(dir: &Path) -> Result<Vec<Leftover>, LeftoversError> {
    let lock = match files::lock(dir) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Err(LeftoversError::ShimAlive),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut killed = Vec::new();
    for (id, process) in files::recorded(dir)? {
        let pid = process.pid;
        match process.kill(END_MAX) {
            Ok(true) => killed.push(Leftover { id: id.clone(), pid }),
            Ok(false) => {}
            Err(source) => return Err(LeftoversError::Kill { id, pid, source }),
        }
        files::remove_process(dir, &id)?;
    }
    files::remove_own(dir)?;
    drop(lock);
    Ok(killed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{self, Process};

    #[test]
    fn recorded_process_is_killed_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let process = Process::of(child.id(), &process::boot().unwrap()).unwrap();
        files::write_process(dir.path(), "web.0", &process).unwrap();
        // A process that has the id of a recorded one and began before it: this one. Both may have
        // begun within one tick of the clock.
        let start_time = process.start_time + 1;
        let later = Process { pid: std::process::id(), start_time, ..process };
        files::write_process(dir.path(), "web.1", &later).unwrap();
        let expected = Leftover { id: "web.0".to_owned(), pid: child.id() };
        assert_eq!(leftovers(dir.path()).unwrap(), [expected]);
        child.wait().unwrap();
        assert_eq!(leftovers(dir.path()).unwrap(), []);
    }

    #[test]
    fn live_shim_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = files::lock(dir.path()).unwrap().unwrap();
        assert!(matches!(leftovers(dir.path()), Err(LeftoversError::ShimAlive)));
    }

    #[test]
    fn no_folder_no_leftovers() {
        assert_eq!(leftovers(Path::new("/nowhere/at/all")).unwrap(), []);
    }
}
