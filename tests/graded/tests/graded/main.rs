//! The generator graded by the judge: servers that misbehave by a law, and what `coracle load`
//! reports of them beside what it must have seen. Runs the built binary (`CORACLE`) for both.
//!
//! A run that the generator withholds, or the judge gives no verdict on, because the machine was too
//! busy, is repeated a few times; a wrong figure fails at once, or, where it is a percentile that a
//! handful of answers decide, when it is wrong every time. A case that never gets a verdict says
//! nothing about the generator, only that the machine is too busy to tell: it is named, and fails
//! the whole only together with too many others.
#![expect(clippy::print_stdout, reason = "a test program")]

mod cases;
mod run;

use std::{
    process::ExitCode,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::bail;
use libtest_mimic::{Arguments, Trial};
use load::judge::grade::Verdict;

use crate::cases::{CASES, Case};

/// How often a run is tried that was withheld.
const TRIES: u32 = 4;
/// Share of the cases, one in so many, that may stay without a verdict: with more of them it is not
/// the machine, or nothing is held to anything.
const UNDECIDED_MAX: usize = 2;
/// How many runs of a low rate go beside each other.
const BESIDE: usize = 4;

/// Cases that got no verdict.
static UNDECIDED: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(BESIDE);
    let trials = CASES.iter().map(|case| {
        Trial::test(case.name, move || attempt(case).map_err(|error| format!("{error:#}").into()))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let undecided = UNDECIDED.load(Ordering::Relaxed);
    if undecided > 0 {
        println!("{undecided} without a verdict: the machine was too busy to tell");
    }
    let ran = usize::try_from(conclusion.num_passed).unwrap_or(usize::MAX);
    if conclusion.has_failed() || undecided * UNDECIDED_MAX > ran {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
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
            Verdict::Wrong if attempt < TRIES && graded.is_thin() => {
                println!("{}, try {attempt}: wrong by few answers", case.name);
            }
            Verdict::Wrong => bail!("wrong:\n{}", graded.grade.text()),
            Verdict::Withheld | Verdict::NoVerdict => {
                println!("{}, try {attempt}: {}", case.name, graded.grade.reasons.join("; "));
                withheld.push(graded.grade.reasons.join("; "));
            }
        }
    }
    println!("{}: NO VERDICT in {TRIES} tries: {}", case.name, withheld.join(" / "));
    UNDECIDED.fetch_add(1, Ordering::Relaxed);
    Ok(())
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
