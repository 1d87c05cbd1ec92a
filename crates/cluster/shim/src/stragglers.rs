//! Ends what a container leaves behind whose PID namespace is not its own: its other processes do not end
//! with the first one. They are those of its mount namespace, which they cannot leave without rights that
//! only privileged containers have.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
};

use rustix::process::{Pid, PidfdFlags, Signal};

/// How often what is found is killed: a process may fork while it is looked at. What forks faster than
/// this is bounded by control groups and limits, and is left to them.
const ROUNDS_MAX: usize = 100;

/// The mount namespace of a process. As long as it is open, no other one has its number.
pub(crate) fn open_mounts(pid: u32) -> io::Result<File> {
    File::open(path(pid))
}

fn mounts_of(pid: u32) -> Option<u64> {
    Some(fs::metadata(path(pid)).ok()?.ino())
}

fn path(pid: u32) -> String {
    format!("/proc/{pid}/ns/mnt")
}

/// Kills all processes of a mount namespace.
pub(crate) fn kill(mounts: &File) {
    let Ok(mounts) = mounts.metadata().map(|it| it.ino()) else { return };
    for _ in 0..ROUNDS_MAX {
        let mut any = false;
        for pid in processes() {
            if mounts_of(pid) != Some(mounts) {
                continue;
            }
            let process = Pid::from_raw(pid.cast_signed())
                .and_then(|it| rustix::process::pidfd_open(it, PidfdFlags::empty()).ok());
            // The descriptor cannot change its process any more: what is true now stays true.
            if let Some(process) = process.filter(|_| mounts_of(pid) == Some(mounts)) {
                any = true;
                // It fails only if the process has ended already.
                rustix::process::pidfd_send_signal(&process, Signal::KILL).ok();
            }
        }
        if !any {
            return;
        }
    }
}

/// The processes that this one sees.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|it| it.file_name().to_str()?.parse().ok())
}
