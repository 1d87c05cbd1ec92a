//! Plain lines of a run under way, for logs and pipes.

use crate::{
    report::{QUANTILES, numbers},
    results::{LATE_AFTER, Mode, Progress},
};

use super::{
    history::{History, Point},
    screen::doubt,
};

/// Runs up to this many seconds print every second …
const EVERY_SECOND_UP_TO: u64 = 60;
/// … and longer ones after this many.
const EVERY: u64 = 5;

/// A line about the second that ended last, if it is its turn. `next` is how many seconds must have
/// ended for the next one.
pub(crate) fn line(progress: &Progress<'_>, history: &History, next: &mut u64) -> Option<String> {
    let ended = progress.seconds.len() as u64;
    if ended < *next {
        return None;
    }
    let every = if progress.planned.as_secs() <= EVERY_SECOND_UP_TO { 1 } else { EVERY };
    *next = (ended / every + 1) * every;
    let Point { meant, done, latency, .. } = history.points().last()?;
    let mut parts = vec![format!("{ended:>4} s")];
    if progress.mode == Mode::Open {
        parts.push(format!("meant {}/s", numbers::count(*meant)));
    }
    parts.push(format!("done {}/s", numbers::count(*done)));
    parts.push(format!("in flight {}", numbers::count(progress.in_flight)));
    match (doubt(progress), latency) {
        (Some(doubt), _) => parts.push(doubt),
        (None, None) => parts.push("no answer".to_owned()),
        (None, Some(latency)) => {
            let names = QUANTILES.map(|(name, _)| name).into_iter().chain(["max"]);
            parts.extend(
                names.zip(latency).map(|(name, it)| format!("{name} {}", numbers::time(*it))),
            );
        }
    }
    let failed: u64 = progress.failures.values().sum();
    parts.push(format!("errors {}", numbers::count(failed)));
    if progress.late > 0 {
        let late = numbers::count(progress.late);
        parts.push(format!("late by more than {} ms {late}", LATE_AFTER.as_millis()));
    }
    Some(parts.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::live::screen::tests::progress, results::tests::sample};
    use expect_test::expect;
    use std::time::Duration;

    /// What is printed while the sample runs.
    fn lines(planned: Duration, late: u64) -> String {
        let results = sample();
        let mut history = History::default();
        let (mut lines, mut next) = (Vec::new(), 1);
        for ended in 0..=results.seconds.len() {
            let mut progress = progress(&results, ended);
            progress.planned = planned;
            progress.late = late;
            history.update(progress.seconds);
            // The bar keeps the indentation, which the expected text would lose.
            lines.extend(line(&progress, &history, &mut next).map(|it| format!("|{it}")));
        }
        lines.join("\n")
    }

    #[test]
    fn every_second() {
        expect![[r#"
            |   1 s  meant 100/s  done 100/s  in flight 0  p50 3.50 ms  p90 4.80 ms  p99 22.0 ms  p99.9 24.5 ms  max 24.5 ms  errors 27
            |   2 s  meant 100/s  done 100/s  in flight 0  p50 3.50 ms  p90 4.80 ms  p99 5.00 ms  p99.9 23.9 ms  max 23.9 ms  errors 27
            |   3 s  meant 100/s  done 100/s  in flight 0  p50 3.50 ms  p90 4.70 ms  p99 5.00 ms  p99.9 23.3 ms  max 23.3 ms  errors 27
            |   4 s  meant 100/s  done 100/s  in flight 0  p50 3.50 ms  p90 4.80 ms  p99 22.7 ms  p99.9 22.7 ms  max 22.7 ms  errors 27
            |   5 s  meant 100/s  done 0/s  in flight 100  no answer  errors 27
            |   6 s  meant 100/s  done 0/s  in flight 200  no answer  errors 27
            |   7 s  meant 100/s  done 300/s  in flight 0  p50 503 ms  p90 1.70 s  p99 1.97 s  p99.9 2.00 s  max 2.00 s  errors 27
            |   8 s  meant 100/s  done 100/s  in flight 0  p50 3.50 ms  p90 4.80 ms  p99 5.00 ms  p99.9 23.4 ms  max 23.4 ms  errors 27
            |   9 s  meant 100/s  done 100/s  in flight 0  p50 3.50 ms  p90 4.70 ms  p99 5.00 ms  p99.9 22.8 ms  max 22.8 ms  errors 27
            |  10 s  meant 100/s  done 100/s  in flight 0  p50 3.50 ms  p90 4.80 ms  p99 5.00 ms  p99.9 22.2 ms  max 22.2 ms  errors 27"#]].assert_eq(&lines(Duration::from_secs(10), 0));
    }

    #[test]
    fn now_and_then_in_a_long_run_and_withheld() {
        expect![[r#"
            |   1 s  meant 100/s  done 100/s  in flight 0  percentiles withheld so far: 50.0 % of the starts were late  errors 27  late by more than 1 ms 500
            |   5 s  meant 100/s  done 0/s  in flight 100  percentiles withheld so far: 50.0 % of the starts were late  errors 27  late by more than 1 ms 500
            |  10 s  meant 100/s  done 100/s  in flight 0  percentiles withheld so far: 50.0 % of the starts were late  errors 27  late by more than 1 ms 500"#]].assert_eq(&lines(Duration::from_secs(3600), 500));
    }
}
