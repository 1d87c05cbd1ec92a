//! What happens by itself: faults that begin and end at given times.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::{RouteError, effect::Fault, proxy::Handle, route::Mode};

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
    /// Sets these faults. When its time is over, what was there of their names before is there again.
    Faults(Vec<Fault>),
    /// Sets the mode, and goes back to the one before when its time is over.
    Mode(Mode),
    /// Ends all connections.
    End(crate::connection::How),
}

/// A moment of a schedule: something begins or ends.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Moment<'a> {
    at: Duration,
    begins: bool,
    /// Which entry, counted from 0.
    number: usize,
    entry: &'a Entry,
}

/// All moments in order. What ends at a time does so before what begins then.
fn moments(entries: &[Entry]) -> Vec<Moment<'_>> {
    let mut moments = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        moments.push(Moment { at: entry.at, begins: true, number, entry });
        let end = entry.duration.map(|it| entry.at.saturating_add(it));
        moments.extend(end.map(|at| Moment { at, begins: false, number, entry }));
    }
    moments.sort_by_key(|it| (it.at, it.begins));
    moments
}

/// Carries `entries` out, from now on.
pub(crate) async fn run(entries: &[Entry], handle: &Handle) {
    let start = Instant::now();
    let mut following = Following { handle, faults: BTreeMap::new(), modes: BTreeMap::new() };
    for moment in moments(entries) {
        tokio::time::sleep_until(start + moment.at).await;
        let Entry { route, change, .. } = moment.entry;
        tracing::info!(route, begins = moment.begins, ?change, "by schedule");
        // A route may have been removed meanwhile, by whoever uses the API.
        if let Err(error) = following.act(&moment) {
            tracing::warn!(route, %error, "the schedule could not be followed");
        }
    }
}

/// A schedule that is carried out.
struct Following<'a> {
    handle: &'a Handle,
    /// By route and name.
    faults: BTreeMap<(&'a str, &'a str), Layers<Option<Fault>>>,
    /// By route.
    modes: BTreeMap<&'a str, Layers<Mode>>,
}

impl<'a> Following<'a> {
    fn act(&mut self, moment: &Moment<'a>) -> Result<(), RouteError> {
        let (handle, number, route) = (self.handle, moment.number, moment.entry.route.as_str());
        let now = handle.get(route)?;
        match &moment.entry.change {
            Change::Faults(faults) => faults.iter().try_for_each(|fault| {
                let now = now.faults.iter().find(|it| it.name == fault.name).cloned();
                let layers = self.faults.entry((route, &fault.name)).or_default();
                let next = if moment.begins {
                    layers.begin(number, Some(fault.clone()), now)
                } else {
                    layers.end(number, &now)
                };
                match next {
                    None => Ok(()),
                    Some(Some(fault)) => handle.set_fault(route, fault),
                    Some(None) => handle.clear_fault(route, &fault.name).map(drop),
                }
            }),
            Change::Mode(mode) => {
                let layers = self.modes.entry(route).or_default();
                let next = if moment.begins {
                    layers.begin(number, *mode, now.mode)
                } else {
                    layers.end(number, &now.mode)
                };
                next.map_or(Ok(()), |mode| handle.set_mode(route, mode))
            }
            Change::End(how) if moment.begins => {
                handle.end_connections(route, None, *how).map(drop)
            }
            Change::End(_) => Ok(()),
        }
    }
}

/// What stands in one place: what was there before, and what entries that are not over have put there,
/// the last on top.
#[derive(Debug, Default)]
struct Layers<T> {
    before: T,
    entries: Vec<(usize, T)>,
}

impl<T: Clone + PartialEq> Layers<T> {
    /// An entry begins, where `now` stands. Returns what is to stand there.
    fn begin(&mut self, number: usize, value: T, now: T) -> Option<T> {
        if self.entries.is_empty() {
            self.before = now;
        }
        self.entries.push((number, value.clone()));
        Some(value)
    }

    /// An entry is over, where `now` stands. Returns what is to stand there, if that is another thing:
    /// not if a later entry covers it, or somebody else has changed what it had put there.
    fn end(&mut self, number: usize, now: &T) -> Option<T> {
        let at = self.entries.iter().position(|it| it.0 == number)?;
        let (_, value) = self.entries.remove(at);
        if at < self.entries.len() || value != *now {
            return None;
        }
        Some(self.entries.last().map_or_else(|| self.before.clone(), |it| it.1.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays begins (`+NUMBER`) and ends (`-NUMBER`), or what somebody else puts there (`=NUMBER`); says
    /// what stands there after each. What was there before is 0.
    fn check(moments: &str, expected: &str) {
        let mut layers = Layers::default();
        let mut now = 0;
        let mut seen = Vec::new();
        for moment in moments.split(' ') {
            let (what, number) = moment.split_at(1);
            let number: usize = number.parse().unwrap();
            now = match what {
                "+" => layers.begin(number, number, now).unwrap_or(now),
                "-" => layers.end(number, &now).unwrap_or(now),
                _ => number,
            };
            seen.push(now.to_string());
        }
        assert_eq!(seen.join(" "), expected, "{moments}");
    }

    #[test]
    fn what_was_before_is_there_again() {
        check("+1 -1", "1 0");
        check("=5 +1 -1 +1 -1", "5 1 5 1 5");
    }

    #[test]
    fn entries_cover_each_other() {
        check("+1 +2 -2 -1", "1 2 1 0");
        check("+1 +2 -1 -2", "1 2 2 0");
        check("+1 +2 +3 -2 -3 -1", "1 2 3 3 1 0");
    }

    #[test]
    fn what_others_change_stays() {
        check("+1 =7 -1", "1 7 7");
        check("+1 =7 +2 -2 -1 +3 -3", "1 7 2 1 0 3 0");
        check("+1 =7 -1 +2 -2", "1 7 7 2 7");
    }

    #[test]
    fn ends_come_before_beginnings_of_the_same_time() {
        let entry = |at, duration| Entry {
            at: Duration::from_secs(at),
            duration: Some(Duration::from_secs(duration)),
            route: "a".to_owned(),
            change: Change::Mode(Mode::Hold),
        };
        let entries = [entry(1, 2), entry(3, 1)];
        let order: Vec<_> = moments(&entries).iter().map(|it| (it.number, it.begins)).collect();
        assert_eq!(order, [(0, true), (0, false), (1, true), (1, false)]);
    }
}
