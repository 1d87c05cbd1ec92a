//! Room for groups in a group of version 2 that has processes: but for the root of all, a group has
//! processes or gives controllers to the groups in it, never both. So those of a service that was started
//! with a group of its own, or of a container, go into a group beside the cluster's.
//!
//! Knows neither pods nor controllers.

use std::{fs, io, path::Path};

use super::files;

/// The group for the processes. No cluster's is called so: theirs begin with `coracle-`.
const BESIDE: &str = "coracle.processes";

/// The file that lists a group's processes, and by which one joins.
const PROCESSES: &str = "cgroup.procs";

/// How often what is in a group is moved: what is moved may have forked meanwhile, and its child was left.
const MOVES_MAX: usize = 100;

/// Moves the processes of a group into a new one in it, if there are any and it is not the root of all.
pub(super) fn make_room(folder: &Path) -> io::Result<()> {
    // Only the root of all has no such file, and it may have processes.
    if !folder.join("cgroup.type").exists() || is_empty(folder)? {
        return Ok(());
    }
    let beside = folder.join(BESIDE);
    match fs::create_dir(&beside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let moved = move_all(folder, &beside);
    if moved.is_err() {
        put_back(folder);
    }
    moved
}

/// Undoes it when no other group is left in the group. As it changes nothing for anybody, what fails here
/// stays as it is, for the next cluster to use.
pub(super) fn put_back(folder: &Path) {
    let beside = folder.join(BESIDE);
    let undo = || -> io::Result<()> {
        if !beside.is_dir() || has_others(folder)? {
            return Ok(());
        }
        files::disable(folder)?;
        move_all(&beside, folder)?;
        fs::remove_dir(&beside)
    };
    if let Err(error) = undo() {
        tracing::debug!(folder = %beside.display(), %error, "processes stay in a control group");
    }
}

fn has_others(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != BESIDE {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    Ok(fs::read_to_string(folder.join(PROCESSES))?.trim().is_empty())
}

fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    let procs = to.join(PROCESSES);
    for _ in 0..MOVES_MAX {
        let text = fs::read_to_string(from.join(PROCESSES))?;
        if text.trim().is_empty() {
            return Ok(());
        }
        for pid in text.lines() {
            // What the kernel shows of processes outside of this PID namespace; written, it is this one.
            if pid == "0" {
                return Err(io::Error::other("it has processes of another PID namespace"));
            }
            match fs::write(&procs, pid) {
                Err(error) if is_gone(&error) => {}
                other => other?,
            }
        }
    }
    Err(io::Error::other("it gets processes faster than they can be moved"))
}

/// Whether a process has ended meanwhile.
fn is_gone(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::SRCH)
}
