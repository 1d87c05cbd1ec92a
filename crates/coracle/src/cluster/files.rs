//! How many files the cluster process may have open: sockets above all.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What is asked for, if the machine lets: both ends of all connections of the API's clients, with as
/// many again for pods and the store. No more, as pods inherit it, and some programs go through all
/// numbers that a file may have.
const WANTED: u64 = 32 << 10;

/// Raises the limit, which is 1 024 on most machines, as far as is wanted and allowed; what it is then.
pub(super) fn raise() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX).min(WANTED);
    if limit.current.is_some_and(|it| it < allowed) {
        let before = limit.current.replace(allowed);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, files = allowed, "may not have as many files open as is allowed");
            limit.current = before;
        }
    }
    limit.current.and_then(|it| usize::try_from(it).ok()).unwrap_or(usize::MAX)
}
