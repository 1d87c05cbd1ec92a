//! Processes that cannot be mistaken for later ones with the same id.

use std::{fs, io};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    process::{Pid, PidfdFlags, Signal},
};
use serde::{Deserialize, Serialize};

/// Number of the field of `/proc/PID/stat` that says when the process started.
const START_TIME: usize = 22;

/// A process: its id, when it started, and in which boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Field 22 of `/proc/PID/stat`, see proc(5): clock ticks after boot.
    pub(crate) start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub(crate) boot: String,
}

impl Process {
    /// The process that has the id now, also if it has ended and nobody has awaited it: a child that
    /// fails at once is still somebody, whose reason is to be heard.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub(crate) fn of(pid: u32, boot: &str) -> io::Result<Self> {
        let stat = stat(pid).ok_or(io::ErrorKind::NotFound)?;
        let start_time = field(&stat, START_TIME).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid, start_time, boot: boot.to_owned() })
    }

    /// Whether the process is there, and has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        let is_same = |stat: &str| {
            // Ended, and waiting for its parent.
            !stat.starts_with(['Z', 'X']) && field(stat, START_TIME) == Some(self.start_time)
        };
        stat(self.pid).is_some_and(|it| is_same(&it)) && boot().is_ok_and(|it| it == self.boot)
    }

    /// Kills the process and awaits its end, which for the first process of a PID namespace is the
    /// end of all in it. `false` if it was gone already.
    ///
    /// # Errors
    /// `TimedOut` if it does not end (a process in an uninterruptible wait).
    pub(crate) fn kill(&self, timeout: Timespec) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(false);
        };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(it) => it,
            Err(Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // The descriptor cannot change its process any more: what is true now stays true.
        if !self.is_alive() {
            return Ok(false);
        }
        match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) => {}
            Err(Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(true),
        }
    }
}

/// Which boot of the machine this is.
pub(crate) fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// `/proc/PID/stat` from its third field on, see proc(5).
pub(crate) fn stat(pid: u32) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in field 2 may contain anything: count after its closing parenthesis.
    let end = stat.iter().rposition(|it| *it == b')')?;
    Some(std::str::from_utf8(stat.get(end + 2..)?).ok()?.to_owned())
}

/// A number of [`stat`] by the number of its field.
pub(crate) fn field(stat: &str, number: usize) -> Option<u64> {
    stat.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rustix::process::{WaitId, WaitIdOptions};

    use super::*;

    #[test]
    fn own_process_is_alive_and_another_with_its_id_is_not() {
        let process = Process::of(std::process::id(), &boot().unwrap()).unwrap();
        assert!(process.is_alive());
        assert!(!Process { start_time: process.start_time + 1, ..process.clone() }.is_alive());
        assert!(!Process { boot: "another".to_owned(), ..process }.is_alive());
    }

    #[test]
    fn a_process_that_has_ended_is_known_until_it_is_awaited() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::Pid(pid), options).unwrap();
        let process = Process::of(child.id(), &boot().unwrap()).unwrap();
        assert!(!process.is_alive());
        assert!(child.wait().unwrap().success());
        assert_eq!(Process::of(child.id(), "").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_the_very_process_is_killed() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let process = Process::of(child.id(), &boot().unwrap()).unwrap();
        let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
        let other = Process { start_time: process.start_time + 1, ..process.clone() };
        assert!(!other.kill(timeout).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        assert!(process.kill(timeout).unwrap());
        assert!(!child.wait().unwrap().success());
        assert!(!process.kill(timeout).unwrap());
    }
}
