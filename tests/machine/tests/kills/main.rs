//! The queue as a real process on a real disk, killed at random moments under load. Runs the built
//! binary (`CORACLE`) as whoever runs the test.
//!
//! Twenty kills, half of them with each durability that survives one; `QUEUE_KILLS` asks for more. A
//! history is named by its seed: run it alone by its name. What is done follows from the seed; the
//! moment of a kill is as exact as the machine. The history checker judges: nothing acknowledged is
//! lost, nothing that a consumer had is forgotten, attempts that were written down are kept.
//!
//! Beside them ten thousand clients and, when many kills are asked for, a hundred thousand channels.
#![expect(clippy::print_stdout, reason = "a test program")]

mod book;
mod crowd;
mod history;
mod load;
mod nsqd;
mod wire;

use std::{num::NonZeroU32, process::ExitCode};

use libtest_mimic::{Arguments, Trial};

use crate::history::{End, Plan};

/// Kills in one history: enough for what one leaves to meet the next one.
const KILLS_PER_HISTORY: u32 = 10;
/// Kills if nothing else is asked for.
const KILLS: u32 = 2 * KILLS_PER_HISTORY;
/// From so many kills on, the tests that take minutes are there as well.
const KILLS_OF_A_SOAK: u32 = 1_000;
/// Orderly ends of an nsqd that keeps messages in memory, for each so many kills.
const ENDS_PER_KILLS: u32 = 10;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A history keeps two cores busy.
    arguments.test_threads.get_or_insert(1);
    let kills = match kills() {
        Ok(kills) => kills,
        Err(error) => {
            println!("{error:#}");
            return ExitCode::from(2);
        }
    };
    libtest_mimic::run(&arguments, trials(kills)).exit_code()
}

#[expect(clippy::disallowed_methods, reason = "a test asks how long it may take")]
fn kills() -> anyhow::Result<u32> {
    let Ok(kills) = std::env::var("QUEUE_KILLS") else { return Ok(KILLS) };
    let kills: NonZeroU32 = kills.parse().map_err(|error| {
        anyhow::anyhow!("QUEUE_KILLS is a number of kills, not `{kills}`: {error}")
    })?;
    Ok(kills.get())
}

fn trials(kills: u32) -> Vec<Trial> {
    let histories = kills.div_ceil(KILLS_PER_HISTORY);
    let killed = (0..u64::from(histories)).map(|seed| {
        let durability = if seed.is_multiple_of(2) { "disk" } else { "process" };
        Plan { seed, durability, end: End::Killed, ends: KILLS_PER_HISTORY }
    });
    let ends = kills.div_ceil(ENDS_PER_KILLS);
    let asked = Plan { seed: u64::from(histories), durability: "memory", end: End::Asked, ends };
    let mut trials: Vec<Trial> = killed.chain([asked]).map(history).collect();
    trials.push(trial("ten_thousand_clients".to_owned(), crowd::clients));
    if KILLS_OF_A_SOAK <= kills {
        trials.push(trial("a_hundred_thousand_channels".to_owned(), crowd::channels));
    }
    trials
}

fn history(plan: Plan) -> Trial {
    let end = if plan.end == End::Killed { "killed" } else { "asked_to_end" };
    let name = format!("{end}_{}_{}", plan.durability, plan.seed);
    trial(name, move || history::run(plan))
}

/// A test that tells what it has seen.
fn trial(name: String, test: impl FnOnce() -> anyhow::Result<String> + Send + 'static) -> Trial {
    Trial::test(name.clone(), move || match test() {
        Ok(summary) => {
            println!("{name}: {summary}");
            Ok(())
        }
        Err(error) => Err(format!("{error:#}").into()),
    })
}
