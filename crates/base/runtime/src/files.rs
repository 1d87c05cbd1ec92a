//! How many files, sockets above all, the process may have open.

use std::{
    fs::File,
    io,
    sync::{Arc, OnceLock},
};

use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    process::{Resource, getrlimit, setrlimit},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Descriptors that the process keeps for itself: links to pods, files of the store, watched folders, and what
/// it opens for a moment. What strangers do must not take the last of them.
const OWN: u64 = 2_048;
/// More room than this is of no use: a connection takes some 10 KB of memory besides.
const ROOM_MAX: u64 = 1 << 20;

/// Room for the connections of strangers: the descriptors that all who accept connections may have together.
///
/// Without it each of them would have a limit of its own, and the sum of these would be more than the process
/// may open. Then the kernel refuses whoever comes next, and that may be the store.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

/// Some of the room, until it is dropped.
#[derive(Debug)]
pub struct Taken {
    _permits: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// That of this process, as large as the limit on open files was when this was first called.
    #[must_use]
    pub fn of_process() -> Self {
        static ROOM: OnceLock<Room> = OnceLock::new();
        let allowed = || getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        ROOM.get_or_init(|| Self::of(allowed())).clone()
    }

    fn of(allowed: u64) -> Self {
        // Half, where there is little.
        let room = allowed.saturating_sub(OWN).max(allowed / 2).min(ROOM_MAX);
        Self(Arc::new(Semaphore::new(usize::try_from(room).unwrap_or(usize::MAX))))
    }

    /// Waits until there is room for `descriptors` more, and takes it. Who waits longest comes first.
    pub async fn take(&self, descriptors: u32) -> Taken {
        // Nobody closes it.
        Taken { _permits: Arc::clone(&self.0).acquire_many_owned(descriptors).await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

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

    #[tokio::test(start_paused = true)]
    async fn room_is_shared_and_some_of_it_is_kept() {
        for (allowed, room) in [(20_000, 17_952), (1_024, 512), (u64::MAX, 1 << 20)] {
            assert_eq!(Room::of(allowed).0.available_permits(), room);
        }
        let room = Room::of(8);
        let (one, other) = (room.clone().take(2).await, room.take(2).await);
        let third = || tokio::time::timeout(Duration::from_secs(1), room.take(1));
        third().await.unwrap_err();
        drop(one);
        third().await.unwrap();
        drop(other);
    }
}
