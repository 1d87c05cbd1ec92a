//! The generator graded by the judge: servers that misbehave by a law, and what `coracle load`
//! reports of them beside what it must have seen. Runs the built binary (`CORACLE`) for both.
//!
//! A run that the generator withholds, or the judge gives no verdict on, because the machine was too
//! busy, is repeated a few times; a wrong figure fails at once.
#![expect(clippy::print_stdout, reason = "a test program")]

mod cases;
mod run;

use std::sync::{Condvar, Mutex};

use anyhow::bail;
use libtest_mimic::{Arguments, Trial};
use load::judge::grade::Verdict;

use crate::cases::{CASES, Case};

/// How often a run is tried that was withheld.
const TRIES: u32 = 5;
/// How many runs of a low rate go beside each other.
const BESIDE: usize = 4;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(BESIDE);
    let trials = CASES.iter().map(|case| {
        Trial::test(case.name, move || attempt(case).map_err(|error| format!("{error:#}").into()))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// Runs a case until it has a verdict.
fn attempt(case: &Case) -> anyhow::Result<()> {
    let mut withheld = Vec::new();
    for attempt in 1..=TRIES {
        let share = if case.alone || attempt > 1 { BESIDE } else { 1 };
        let graded = MACHINE.with(share, || run::once(case))?;
        match graded.grade.verdict {
            Verdict::Right => {
                println!("{}: {}", case.name, graded.summary());
                return (case.also)(&graded);
            }
            Verdict::Wrong => bail!("wrong:\n{}", graded.grade.text()),
            Verdict::Withheld | Verdict::NoVerdict => {
                println!("{}, try {attempt}: {}", case.name, graded.grade.reasons.join("; "));
                withheld.push(graded.grade.reasons.join("; "));
            }
        }
    }
    bail!("no verdict in {TRIES} tries: {}", withheld.join(" / "))
}

/// The machine, as shares: those of a low rate take one each, others all.
static MACHINE: Machine = Machine { free: Mutex::new(BESIDE), freed: Condvar::new() };

struct Machine {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Machine {
    /// Waits until so many shares are free, and keeps them while `work` lasts.
    fn with<T>(
        &self,
        shares: usize,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let poisoned = || anyhow::anyhow!("another test panicked");
        let mut free = self.free.lock().map_err(|_| poisoned())?;
        while *free < shares {
            free = self.freed.wait(free).map_err(|_| poisoned())?;
        }
        *free -= shares;
        drop(free);
        let done = work();
        *self.free.lock().map_err(|_| poisoned())? += shares;
        self.freed.notify_all();
        done
    }
}
