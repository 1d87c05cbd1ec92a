//! The generator graded by the judge: servers that misbehave by a law, and what `coracle load`
//! reports of them beside what it must have seen. Runs the built binary (`CORACLE`) for both.
//!
//! A wrong figure fails at once, as does one that is withheld without a reason. Only what the machine
//! did is excused, and only by the judge's own witness of it: a run during which a core stood still for
//! long is repeated a few times, whatever came of it but right figures. Figures that are wrong twice
//! are wrong all the same. A case that never gets a verdict says nothing about the generator: it is
//! named, and the others must do; all but a few of them may be so only if the kernel says that the
//! hypervisor kept the cores for somebody else.
#![expect(clippy::print_stdout, reason = "a test program")]

mod cases;
mod run;

use std::{
    process::ExitCode,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use coracle_graded::stolen;
use libtest_mimic::{Arguments, Trial};
use load::judge::grade::Verdict;

use crate::{
    cases::{CASES, Case},
    run::Graded,
};

/// How often a run is tried that the machine disturbed.
const TRIES: u32 = 4;
/// How long such runs are tried again at all, so that the whole ends on a machine that is never quiet.
const TRY_AGAIN_FOR: Duration = Duration::from_secs(240);
/// How often figures may be wrong while the machine was disturbed: an accident does not come twice.
const WRONG_MAX: u32 = 1;
/// Share of the cases, one in so many, that must have a verdict: with fewer, nothing is held to
/// anything.
const DECIDED_MIN: usize = 4;
/// Share of the cores' time, kept by the hypervisor, with which fewer may have one: twice what excuses a
/// run.
const STOLEN_MIN: f64 = 2.0 * run::DISTURBED;
/// How many runs of a low rate go beside each other.
const BESIDE: usize = 4;

/// Cases that got no verdict.
static UNDECIDED: AtomicUsize = AtomicUsize::new(0);

#[expect(clippy::disallowed_methods, reason = "times tests, where no test sets the clock")]
fn main() -> ExitCode {
    let begun = Instant::now();
    let before = stolen::Account::now();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(BESIDE);
    let trials = CASES.iter().map(|case| {
        Trial::test(case.name, move || {
            attempt(case, begun).map_err(|error| format!("{error:#}").into())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let undecided = UNDECIDED.load(Ordering::Relaxed);
    let stolen = stolen::Account::now().share_since(before);
    if undecided > 0 {
        println!(
            "{undecided} without a verdict: the machine was too busy to tell; {:.1} % of its cores' \
             time went to others of its host",
            stolen * 100.0
        );
    }
    let ran = usize::try_from(conclusion.num_passed).unwrap_or(usize::MAX);
    let few = (ran - undecided) * DECIDED_MIN < ran;
    if conclusion.has_failed() || (few && stolen < STOLEN_MIN) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs a case until it has a verdict.
fn attempt(case: &Case, begun: Instant) -> anyhow::Result<()> {
    let mut wrong = 0;
    for attempt in 1..=TRIES {
        let share = if case.alone || attempt > 1 { BESIDE } else { 1 };
        let graded = MACHINE.with(share, || run::once(case))?;
        let Err(error) = hold(case, &graded) else {
            println!("{}: {}; {}", case.name, graded.summary(), graded.disturbance());
            return Ok(());
        };
        wrong += u32::from(is_proof(case, &graded));
        // On a machine that ran all the time, nothing excuses it.
        if !graded.is_disturbed() || wrong > WRONG_MAX {
            return Err(error);
        }
        println!("{}, try {attempt}: {}; {error:#}", case.name, graded.disturbance());
        if begun.elapsed() > TRY_AGAIN_FOR {
            break;
        }
    }
    println!("{}: NO VERDICT", case.name);
    UNDECIDED.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Holds a run to what its case wants.
fn hold(case: &Case, graded: &Graded) -> anyhow::Result<()> {
    let grade = &graded.grade;
    match case.verdict {
        // Whatever the judge can say of its figures, it must not have any.
        Verdict::Withheld => ensure!(!graded.report.withheld.is_empty(), "{}", graded.said),
        verdict => ensure!(grade.verdict == verdict, "{}", grade.text()),
    }
    (case.also)(graded)
}

/// Whether a run that is not as its case wants says so of the generator: there is a verdict, or none is
/// needed, because it waited for the frozen server or had to withhold.
fn is_proof(case: &Case, graded: &Graded) -> bool {
    let is_judged = matches!(graded.grade.verdict, Verdict::Right | Verdict::Wrong);
    is_judged || graded.grade.arrivals.omitted() || case.verdict == Verdict::Withheld
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
