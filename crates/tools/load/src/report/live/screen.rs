//! The view on a terminal: numbers, and latency and rate over time. Pure: what is drawn follows from
//! the progress, the history and the size.

use crate::{
    exchange::FailureKind,
    report::{
        QUANTILES,
        numbers::{self, as_f64, as_u64, part},
        per_second,
    },
    results::{LATE_SHARE_MAX, Mode, Progress},
};

use super::{
    Style,
    history::History,
    plot::{self, Chart, LABEL},
};

/// Columns before the numbers.
const NAME: usize = 11;
/// Lines beside those of the charts, and the one on which the cursor stands.
const LINES_FIXED: usize = 11;
/// Rows of both charts together: below the first there is no chart, above the last nothing is won.
const CHART_ROWS: std::ops::RangeInclusive<usize> = 6..=24;
/// Columns of the bar that shows how far the run is.
const BAR: usize = 20;

/// What colours say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Strong,
    Faint,
    Good,
    Bad,
    Data,
}

/// Draws the view.
#[derive(Debug)]
pub(crate) struct Screen {
    title: String,
    style: Style,
}

impl Screen {
    /// A view under a title.
    pub(crate) fn new(title: String, style: Style) -> Self {
        Self { title, style }
    }

    /// Its lines, none wider than `columns`, and one fewer than `rows` at most.
    pub(crate) fn lines(
        &self,
        progress: &Progress<'_>,
        history: &History,
        (columns, rows): (usize, usize),
    ) -> Vec<String> {
        let mut lines = vec![self.headline(progress, columns)];
        if columns > 2 * NAME {
            lines.extend(self.numbers(progress, history, columns));
        }
        let charts = rows.saturating_sub(LINES_FIXED).min(*CHART_ROWS.end());
        if charts >= *CHART_ROWS.start() && columns > 2 * LABEL {
            let columns = columns - LABEL - 1;
            let window = plot::window(progress, columns);
            let chart = |rows| Chart { progress, history, window: &window, columns, rows };
            lines.push(String::new());
            lines.extend(self.latency(&chart(charts.div_ceil(2))));
            lines.extend(self.rate(&chart(charts / 2)));
            lines.push(self.ink(Ink::Faint, &plot::axis(&window, columns)));
        }
        lines.truncate(rows.saturating_sub(1));
        lines
    }

    /// What runs, and how far it is.
    fn headline(&self, progress: &Progress<'_>, columns: usize) -> String {
        let mode = match progress.mode {
            Mode::Open => "open loop",
            Mode::Closed => "CLOSED LOOP",
        };
        let (elapsed, planned) = (progress.elapsed.as_secs(), progress.planned.as_secs());
        let share = (progress.elapsed.as_secs_f64() / progress.planned.as_secs_f64()).min(1.0);
        let full = usize::try_from(as_u64(share * as_f64(BAR as u64))).unwrap_or(BAR).min(BAR);
        let bar = "━".repeat(full) + &"─".repeat(BAR - full);
        let waiting =
            if progress.elapsed > progress.planned { ", waiting for answers" } else { "" };
        let right = format!("{mode}  {elapsed} s of {planned} s{waiting} {bar}");
        let right = cut(&right, columns);
        // The target is what the user knows already: it yields.
        let space = columns.saturating_sub(right.chars().count() + 2);
        let title = cut(&self.title, space);
        let gap = columns - right.chars().count() - title.chars().count();
        format!("{}{}{right}", self.ink(Ink::Strong, &title), " ".repeat(gap))
    }

    /// The numbers.
    fn numbers(&self, progress: &Progress<'_>, history: &History, columns: usize) -> Vec<String> {
        let line = |name: &str, ink: Ink, text: &str| {
            let text = cut(text, columns.saturating_sub(NAME + 1));
            format!(" {}{}", self.ink(Ink::Faint, &format!("{name:<NAME$}")), self.ink(ink, &text))
        };
        let mut rates = Vec::new();
        let (meant, done) = match history.points().last() {
            Some(it) => (as_f64(it.meant), as_f64(it.done)),
            None => (
                per_second(progress.meant, progress.elapsed),
                per_second(progress.done, progress.elapsed),
            ),
        };
        if progress.mode == Mode::Open {
            rates.push(format!("meant {}/s", numbers::rate(meant)));
        }
        rates.push(format!("done {}/s", numbers::rate(done)));
        rates.push(format!("in flight {}", numbers::count(progress.in_flight)));
        rates.push(format!("{} done", numbers::count(progress.done)));
        // While a server is frozen nothing else on this screen is bad yet: what waits has no latency.
        let behind = progress.mode == Mode::Open && done * 2.0 < meant;
        let ink = if behind { Ink::Bad } else { Ink::Strong };
        let mut lines = vec![line("rate", ink, &rates.join("   "))];
        let recent = format!("last {} s", history.recent_seconds().max(1));
        lines.push(match (doubt(progress), history.recent()) {
            (Some(doubt), _) => line(&recent, Ink::Bad, &doubt),
            (None, None) => line(&recent, Ink::Faint, "no answer"),
            (None, Some(latency)) => {
                let names = QUANTILES.map(|(name, _)| name).into_iter().chain(["max"]);
                let named =
                    names.zip(latency).map(|(name, it)| format!("{name} {}", numbers::time(it)));
                line(&recent, Ink::Strong, &named.collect::<Vec<_>>().join("  "))
            }
        });
        lines.push(match errors(progress) {
            None => line("errors", Ink::Good, "none"),
            Some(errors) => line("errors", Ink::Bad, &errors),
        });
        let lag = progress.lag.value_at_quantile(0.999);
        let late = part(progress.late, progress.lag.len());
        let ink = if late > LATE_SHARE_MAX || progress.dropped > 0 { Ink::Bad } else { Ink::Faint };
        let own = format!(
            "lag p99.9 {}   late {}   dropped {}",
            numbers::time(lag),
            numbers::share(late),
            numbers::count(progress.dropped)
        );
        lines.push(line("generator", ink, &own));
        lines
    }

    /// Text in a colour, if there are colours.
    pub(super) fn ink(&self, ink: Ink, text: &str) -> String {
        if self.style == Style::Plain || text.is_empty() {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Strong => 1,
            Ink::Faint => 2,
            Ink::Good => 32,
            Ink::Bad => 31,
            Ink::Data => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Why percentiles are withheld so far, if they are.
pub(crate) fn doubt(progress: &Progress<'_>) -> Option<String> {
    let late = part(progress.late, progress.lag.len());
    let limits = progress.failures.iter().filter(|(kind, _)| kind.is_own_limit());
    let limits: u64 = limits.map(|(_, times)| times).sum();
    let why = if late > LATE_SHARE_MAX {
        format!("{} of the starts were late", numbers::share(late))
    } else if progress.dropped > 0 {
        format!("{} starts were dropped", numbers::count(progress.dropped))
    } else if limits > 0 {
        format!("{} times at a limit of the generator", numbers::count(limits))
    } else {
        return None;
    };
    Some(format!("percentiles withheld so far: {why}"))
}

/// Errors by kind, the most frequent first.
fn errors(progress: &Progress<'_>) -> Option<String> {
    let mut failures: Vec<(&FailureKind, &u64)> = progress.failures.iter().collect();
    failures.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
    let total: u64 = failures.iter().map(|(_, times)| **times).sum();
    let kinds: Vec<_> = failures
        .iter()
        .map(|(kind, times)| format!("{kind} {}", numbers::count(**times)))
        .collect();
    let share = numbers::share(part(total, progress.done));
    (total > 0).then(|| format!("{} ({share})   {}", numbers::count(total), kinds.join(", ")))
}

/// So many letters of a text at most; one that is cut ends in `…`.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(columns.saturating_sub(1)).collect();
    if columns > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::results::{Results, tests::sample};
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use std::time::Duration;

    /// The sample while it runs, after so many seconds.
    pub(crate) fn progress(results: &Results, ended: usize) -> Progress<'_> {
        let seconds = &results.seconds[..ended];
        Progress {
            elapsed: Duration::from_secs(ended as u64),
            planned: results.planned,
            mode: results.mode,
            seconds,
            meant: seconds.iter().map(|it| it.meant).sum(),
            done: seconds.iter().map(|it| it.done).sum(),
            failures: &results.total.failures,
            in_flight: seconds.last().map_or(0, |it| it.in_flight),
            lag: &results.own.lag,
            late: results.own.late,
            dropped: results.own.dropped,
        }
    }

    fn lines(results: &Results, ended: usize, style: Style, size: (usize, usize)) -> Vec<String> {
        let progress = progress(results, ended);
        let mut history = History::default();
        history.update(progress.seconds);
        Screen::new(results.targets.join(", "), style).lines(&progress, &history, size)
    }

    fn check(results: &Results, ended: usize, size: (usize, usize), expected: Expect) {
        expected.assert_eq(&lines(results, ended, Style::Plain, size).join("\n"));
    }

    #[test]
    fn during_the_stall() {
        check(
            &sample(),
            6,
            (80, 24),
            expect![[r#"
                https://127.0.0.1:8443/              open loop  6 s of 10 s ━━━━━━━━━━━━────────
                 rate       meant 100.0/s   done 0.00/s   in flight 200   400 done
                 last 6 s   p50 3.50 ms  p90 4.80 ms  p99 22.7 ms  p99.9 24.5 ms  max 24.5 ms
                 errors     27 (6.75 %)   status 20, check 5, timeout 2
                 generator  lag p99.9 68.0 µs   late 0.10 %   dropped 0

                 latency of each second: median to p99, and the maximum as a dot
                  50.0 ms ┤
                          │⣤⣤⣤⣤⣤⣤⡤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⢄⣀⣀⣀⣀⣀⣀
                  17.1 ms ┤⣿⣿⣿⣿⣿⣿⡇            ⢸⣿⣿⣿⣿⣿⣿
                          │⣿⣿⣿⣿⣿⣿⡇            ⢸⣿⣿⣿⣿⣿⣿
                  5.85 ms ┤⣿⣿⣿⣿⣿⣿⣇⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣸⣿⣿⣿⣿⣿⣿
                          │⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿⠿
                  2.00 ms ┤
                 requests per second: done filled, meant as a line
                      100 ┤⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉
                          │⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
                          │⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
                          │⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
                          │⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
                        0 ┤⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
                           0 s                                                          10 s"#]],
        );
    }

    #[test]
    fn before_the_first_second_has_ended() {
        let mut results = sample();
        results.total.failures.clear();
        check(
            &results,
            0,
            (80, 24),
            expect![[r#"
                https://127.0.0.1:8443/              open loop  0 s of 10 s ────────────────────
                 rate       meant 0.00/s   done 0.00/s   in flight 0   0 done
                 last 1 s   no answer
                 errors     none
                 generator  lag p99.9 68.0 µs   late 0.10 %   dropped 0

                 latency of each second: median to p99, and the maximum as a dot
                          │
                          │
                          │
                          │
                          │
                          │
                          │
                 requests per second: done filled, meant as a line
                        1 ┤
                          │
                          │
                          │
                          │
                        0 ┤
                           0 s                                                          10 s"#]],
        );
    }

    #[test]
    fn in_a_low_window_without_charts() {
        check(
            &sample(),
            10,
            (60, 12),
            expect![[r#"
            https://127.0…  open loop  10 s of 10 s ━━━━━━━━━━━━━━━━━━━━
             rate       meant 100.0/s   done 100.0/s   in flight 0   1 …
             last 10 s  p50 3.90 ms  p90 1.01 s  p99 1.91 s  p99.9 2.00…
             errors     27 (2.70 %)   status 20, check 5, timeout 2
             generator  lag p99.9 68.0 µs   late 0.10 %   dropped 0"#]],
        );
    }

    #[test]
    fn withheld() {
        let mut results = sample();
        results.own.late = 50;
        results.mode = Mode::Closed;
        check(
            &results,
            8,
            (70, 18),
            expect![[r#"
                https://127.0.0.1:8443/  CLOSED LOOP  8 s of 10 s ━━━━━━━━━━━━━━━━────
                 rate       done 100.0/s   in flight 0   800 done
                 last 8 s   percentiles withheld so far: 5.00 % of the starts were la…
                 errors     27 (3.38 %)   status 20, check 5, timeout 2
                 generator  lag p99.9 68.0 µs   late 5.00 %   dropped 0

                 latency of each second: median to p99, and the maximum as a dot
                          │
                          │
                          │
                          │
                 requests per second
                      300 ┤                                 ⣿⣿⣿⣿⣿⡇
                          │                                 ⣿⣿⣿⣿⣿⡇
                        0 ┤⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿           ⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
                           0 s                                                10 s"#]],
        );
    }

    #[test]
    fn colours_are_asked_for() {
        let coloured = lines(&sample(), 6, Style::Colour, (80, 24)).join("\n");
        let plain = lines(&sample(), 6, Style::Plain, (80, 24)).join("\n");
        assert!(coloured.contains('\x1b') && !plain.contains('\x1b'));
        let mut parts = coloured.split("\x1b[");
        let mut stripped = parts.next().unwrap().to_owned();
        parts.for_each(|it| stripped.push_str(it.split_once('m').unwrap().1));
        assert_eq!(stripped, plain);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_fits(columns in 1..200_usize, rows in 1..80_usize, ended in 0..=10_usize, planned in 0..5000_u64) {
            let mut results = sample();
            results.planned = Duration::from_secs(planned);
            let lines = lines(&results, ended, Style::Plain, (columns, rows));
            prop_assert!(lines.len() < rows.max(2), "{} of {}", lines.len(), rows);
            for line in lines {
                prop_assert!(line.chars().count() <= columns, "{}: {}", columns, line);
            }
        }
    }
}
