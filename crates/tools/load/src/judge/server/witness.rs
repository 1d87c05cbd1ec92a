//! Whether the machine itself stood still: a thread on each core that looks at the clock every
//! millisecond. When its look comes late, neither server nor client could run there either.

use std::{
    io,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::{
    thread::{
        CpuSet, clock_nanosleep_absolute, sched_getaffinity, sched_setaffinity,
        set_current_timer_slack,
    },
    time::{ClockId, Timespec},
};

use super::alarm::{NANOSECONDS, now};
use crate::judge::record::{PAUSE_MIN, Pause};

/// Between two looks at the clock: short beside anything that is judged, long beside what a look
/// costs.
const BEAT: u64 = 1_000_000;
/// Pauses that one core keeps; later ones are added to the last, which then is so long that nobody is
/// judged.
const PAUSES_MAX: usize = 100_000;

/// Looks at the clock until it is stopped.
#[derive(Debug)]
pub(super) struct Witness {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Pause>>>,
}

impl Witness {
    /// Starts a thread on each core that this process may use.
    pub(super) fn start() -> io::Result<Self> {
        let cores = sched_getaffinity(None)?;
        let mut witness = Self { stop: Arc::default(), threads: Vec::new() };
        for core in (0..CpuSet::MAX_CPU).filter(|it| cores.is_set(*it)) {
            let stop = Arc::clone(&witness.stop);
            let thread = thread::Builder::new().name("judge-witness".to_owned());
            witness.threads.push(thread.spawn(move || watch(core, &stop))?);
        }
        Ok(witness)
    }

    /// What all cores saw, by time and not overlapping.
    pub(super) fn stop(mut self) -> Vec<Pause> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        // A thread that panicked saw nothing.
        let pauses = threads.into_iter().flat_map(|it| it.join().unwrap_or_default()).collect();
        merged(pauses)
    }
}

impl Drop for Witness {
    /// They end within a beat.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Watches one core.
fn watch(core: usize, stop: &AtomicBool) -> Vec<Pause> {
    let mut only = CpuSet::new();
    only.set(core);
    // Where the kernel refuses, some core is watched all the same, and a little late.
    let _ = sched_setaffinity(None, &only);
    let _ = set_current_timer_slack(NonZeroU64::new(1));
    let mut pauses: Vec<Pause> = Vec::new();
    let mut before = now();
    while !stop.load(Ordering::Relaxed) {
        let due = before + BEAT;
        // Sleeping can only be cut short by a signal: then the look comes early, and sees nothing.
        let _ = clock_nanosleep_absolute(ClockId::Monotonic, &timespec(due));
        let woke = now();
        if woke.saturating_sub(due) > PAUSE_MIN {
            let is_full = pauses.len() == PAUSES_MAX;
            match pauses.last_mut() {
                Some(last) if is_full => last.to = woke,
                Some(_) | None => pauses.push(Pause { from: before, to: woke }),
            }
        }
        before = woke;
    }
    pauses
}

fn timespec(moment: u64) -> Timespec {
    let part = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
    Timespec { tv_sec: part(moment / NANOSECONDS), tv_nsec: part(moment % NANOSECONDS) }
}

/// Sorted, and those that touch made one.
fn merged(mut pauses: Vec<Pause>) -> Vec<Pause> {
    pauses.sort_unstable_by_key(|it| it.from);
    let mut merged: Vec<Pause> = Vec::new();
    for pause in pauses {
        match merged.last_mut() {
            Some(last) if pause.from <= last.to => last.to = last.to.max(pause.to),
            _ => merged.push(pause),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_of_several_cores_are_made_one() {
        let pause = |(from, to)| Pause { from, to };
        let check = |pauses: &[(u64, u64)]| {
            let merged = merged(pauses.iter().copied().map(pause).collect());
            merged.iter().map(|it| (it.from, it.to)).collect::<Vec<_>>()
        };
        assert_eq!(check(&[(5, 9), (1, 2), (8, 12), (6, 7)]), [(1, 2), (5, 12)]);
        assert_eq!(check(&[]), []);
    }

    #[test]
    fn what_is_witnessed_is_in_order_and_long_enough() {
        let begin = now();
        let witness = Witness::start().unwrap();
        while now() < begin + 20 * BEAT {
            thread::yield_now();
        }
        let pauses = witness.stop();
        let end = now();
        assert!(pauses.iter().all(|it| begin <= it.from && it.to <= end), "{pauses:?}");
        assert!(pauses.iter().all(|it| it.to - it.from > PAUSE_MIN), "{pauses:?}");
        assert!(pauses.windows(2).all(|it| it[0].to < it[1].from), "{pauses:?}");
    }
}
