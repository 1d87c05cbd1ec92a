//! What happens by itself: faults that begin and end at given times.

use std::time::Duration;

use tokio::time::Instant;

use crate::{effect::Fault, proxy::Handle, route::Mode};

/// Entries of a schedule. Each is a line that somebody wrote.
pub const ENTRIES_MAX: usize = 10_000;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When, from the start of the proxy.
    pub at: Duration,
    /// For how long; without it, to the end.
    pub duration: Option<Duration>,
    /// Where.
    pub route: String,
    /// What.
    pub change: Change,
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Sets these faults, and takes them away when its time is over.
    Faults(Vec<Fault>),
    /// Sets the mode, and goes back to forwarding when its time is over.
    Mode(Mode),
    /// Ends all connections.
    End(crate::connection::How),
}

/// A moment of a schedule: something begins or ends.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Moment<'a> {
    at: Duration,
    begins: bool,
    entry: &'a Entry,
}

/// All moments in order. What ends at a time does so before what begins then.
fn moments(entries: &[Entry]) -> Vec<Moment<'_>> {
    let mut moments = Vec::new();
    for entry in entries {
        moments.push(Moment { at: entry.at, begins: true, entry });
        let end = entry.duration.map(|it| entry.at.saturating_add(it));
        moments.extend(end.map(|at| Moment { at, begins: false, entry }));
    }
    moments.sort_by_key(|it| (it.at, it.begins));
    moments
}

/// Carries `entries` out, from now on.
pub(crate) async fn run(entries: &[Entry], handle: &Handle) {
    let start = Instant::now();
    for moment in moments(entries) {
        tokio::time::sleep_until(start + moment.at).await;
        let Entry { route, change, .. } = moment.entry;
        tracing::info!(route, begins = moment.begins, ?change, "by schedule");
        // A route may have been removed meanwhile, by whoever uses the API.
        if let Err(error) = act(handle, route, change, moment.begins) {
            tracing::warn!(route, %error, "the schedule could not be followed");
        }
    }
}

fn act(
    handle: &Handle,
    route: &str,
    change: &Change,
    begins: bool,
) -> Result<(), crate::RouteError> {
    match change {
        Change::Faults(faults) => faults.iter().try_for_each(|fault| {
            if begins {
                handle.set_fault(route, fault.clone())
            } else {
                handle.clear_fault(route, &fault.name).map(drop)
            }
        }),
        Change::Mode(mode) => handle.set_mode(route, if begins { *mode } else { Mode::Forward }),
        Change::End(how) if begins => handle.end_connections(route, None, *how).map(drop),
        Change::End(_) => Ok(()),
    }
}
