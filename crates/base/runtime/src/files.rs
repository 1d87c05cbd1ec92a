//! How many files, sockets above all, the process may have open.

use std::{fs::File, io};

use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    process::{Resource, getrlimit, setrlimit},
};

/// Up to here the table is made at once: 512 KiB of the kernel's memory, and more connections than
/// there are local ports to one address.
const RESERVED_MAX: u64 = 64 << 10;

/// Raises the limit on open files, which is 1 024 on most machines, to `most` of them or as far as is
/// allowed; never lowers it. Returns what it is then, `u64::MAX` for none.
///
/// Other processes inherit it; some go through all numbers that a file may have, so programs that
/// start others ask for no more than they need.
pub fn raise_files(most: u64) -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    let allowed = limit.maximum.unwrap_or(u64::MAX).min(most);
    if before.is_some_and(|it| it < allowed) {
        limit.current = Some(allowed);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, files = allowed, "may not have as many files open as is allowed");
            limit.current = before;
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

/// Has the kernel make the process's table of open files as large as it will be, `count` files at
/// most and no more than 65 536.
///
/// It doubles the table whenever a file has no place in it. With more than one thread it waits for a
/// grace period of RCU each time (`expand_fdtable` of Linux), during which no thread can open
/// anything: 15 to 30 ms, at the 257th, the 513th, the 1 025th connection and so on. Called while
/// there is one thread, or before the first connection, this costs nothing that anybody sees.
///
/// # Errors
///
/// The process has as many files open as it may.
pub fn reserve_files(count: u64) -> io::Result<()> {
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let last = count.min(allowed).min(RESERVED_MAX).saturating_sub(1);
    let file = File::open("/")?;
    match fcntl_dupfd_cloexec(&file, i32::try_from(last).unwrap_or(i32::MAX)) {
        // A file that has the last place says that the table is as large already.
        Ok(_) | Err(Errno::MFILE) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Places in this process's table of files.
    fn places() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|it| it.strip_prefix("FDSize:")).unwrap();
        line.trim().parse().unwrap()
    }

    #[test]
    fn makes_room_for_files_that_are_not_there_yet() {
        // One test: the limit is the process's.
        let allowed = raise_files(3000);
        assert!(allowed >= 3000.min(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)));
        assert_eq!(raise_files(1), allowed, "it is not lowered");
        let wanted = allowed.min(3000);
        reserve_files(wanted).unwrap();
        assert!(places() >= wanted, "{} places", places());
        reserve_files(0).unwrap();
        assert!(places() >= wanted, "it does not shrink");
    }
}
