//! The report for people, in plain text of at most 80 columns where names allow it.

use std::iter;

use crate::{
    report::{
        QUANTILES,
        doubts::{self, WITHHELD},
        numbers::{self, part},
        per_second, quantiles,
    },
    results::{LATE_AFTER, Mode, Results, Series, Times, Verdict},
};

/// Columns of the text, where names allow it.
const WIDTH: usize = 80;
/// Service time is shown beside latency when a percentile of the two differs by more than this
/// factor …
const DELAYED_FACTOR: f64 = 1.25;
/// … and by more than this, in nanoseconds. Below that a person cares for neither.
const DELAYED_MIN: u64 = 1_000_000;

/// The whole report. It ends with a line feed.
#[must_use]
pub fn text(results: &Results) -> String {
    let mut blocks = vec![headline(results), requests(results)];
    let doubts = results.doubts();
    if doubts.is_empty() {
        blocks.push(latencies(results));
    } else {
        let mut lines = vec![format!("{}:", WITHHELD.to_uppercase())];
        for words in doubts.iter().map(doubts::words) {
            lines.extend(wrap("  * ", &format!("{}.", words.what)));
            lines.extend(wrap("    ", &format!("{}.", capital(words.remedy))));
        }
        blocks.push(lines);
    }
    blocks.push(errors(&results.total));
    if results.steps.len() > 1 {
        blocks.push(steps(results));
    }
    blocks.push(own(results));
    blocks.push(judged(&results.verdicts));
    blocks.retain(|it| !it.is_empty());
    let blocks: Vec<_> = blocks.iter().map(|it| it.join("\n") + "\n").collect();
    blocks.join("\n")
}

/// What was run.
fn headline(results: &Results) -> Vec<String> {
    let mut lines = wrap("", &results.targets.join(", "));
    lines.extend(wrap("", mode(results.mode)));
    let ended = if results.interrupted { ", ended early by the user" } else { "" };
    lines.extend(wrap(
        "",
        &format!(
            "began {:.0}, took {} of {} planned{ended}, seed {}",
            results.began,
            numbers::seconds(results.took.as_secs_f64()),
            numbers::seconds(results.planned.as_secs_f64()),
            results.seed,
        ),
    ));
    lines
}

/// The mode in words: what latency means depends on it.
pub(crate) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Open => {
            "open loop: a schedule said when each request was meant to start; latency counts from then"
        }
        Mode::Closed => {
            "CLOSED LOOP: each user waited for its answer before it sent more; latency counts from the \
             actual start, and hides what the server did to those who would have come meanwhile"
        }
    }
}

/// How many were meant, done, succeeded, failed.
fn requests(results: &Results) -> Vec<String> {
    let total = &results.total;
    let failed = total.failed();
    let mut rows = vec![["", "meant", "done", "succeeded", "failed"].map(str::to_owned).to_vec()];
    let numbers = [total.meant, total.done, total.succeeded, failed].map(numbers::count);
    rows.push(iter::once("requests".to_owned()).chain(numbers).collect());
    let meant = per_second(total.meant, results.planned);
    let [done, succeeded, failing] =
        [total.done, total.succeeded, failed].map(|it| per_second(it, results.took));
    let rates = [meant, done, succeeded, failing].map(numbers::rate);
    rows.push(iter::once("per second".to_owned()).chain(rates).collect());
    let mut lines = table(&rows);
    if results.mode == Mode::Closed {
        lines
            .push("meant is what was sent: in a closed loop nothing else says how much".to_owned());
    }
    lines.push(format!(
        "sent {} ({}/s), received {} ({}/s)",
        numbers::bytes(numbers::as_f64(total.sent)),
        numbers::bytes(per_second(total.sent, results.took)),
        numbers::bytes(numbers::as_f64(total.received)),
        numbers::bytes(per_second(total.received, results.took)),
    ));
    if total.again > 0 {
        lines.extend(wrap(
            "",
            &format!(
                "sent again, after the server closed the connection or refused: {}, counted once",
                numbers::counted(total.again, "request")
            ),
        ));
    }
    lines
}

/// Latency, and what it is made of.
fn latencies(results: &Results) -> Vec<String> {
    let total = &results.total;
    let is_late = is_delayed(total);
    let header = iter::once("").chain(QUANTILES.map(|(name, _)| name)).chain(["max", "count"]);
    let mut rows = vec![header.map(str::to_owned).collect()];
    rows.push(row("latency", &total.latency));
    if is_late {
        rows.push(row("service", &total.service));
    }
    for (name, times) in phases(total) {
        rows.push(row(&format!("  {name}"), times));
    }
    rows.retain(|it: &Vec<String>| it.len() > 1);
    let mut lines = table(&rows);
    if is_late {
        lines.extend(wrap(
            "",
            "service counts from the actual start; what latency has more was spent before the \
             request was sent, in the generator or waiting for a connection",
        ));
    }
    let without = total.done.saturating_sub(total.latency.len());
    if without > 0 {
        let without = numbers::count(without);
        lines.push(format!("requests without an answer, in no percentile: {without}"));
    }
    if let Some((name, _)) = QUANTILES.iter().find(|(_, it)| is_maximum(&total.latency, *it)) {
        let answers = numbers::counted(total.latency.len(), "answer");
        lines.push(format!("{answers}: too few to tell {name} from the maximum"));
    }
    lines
}

/// Parts of a request that happened at all.
pub(crate) fn phases(series: &Series) -> impl Iterator<Item = (&'static str, &Times)> {
    let phases = [
        ("connect", &series.connect),
        ("TLS", &series.tls),
        ("first byte", &series.first_byte),
        ("body", &series.body),
    ];
    phases.into_iter().filter(|(_, times)| !times.is_empty())
}

/// Whether so much time passed before requests were sent that latency from the actual start would
/// have said something else.
pub(crate) fn is_delayed(series: &Series) -> bool {
    QUANTILES.iter().any(|(_, quantile)| {
        let latency = series.latency.value_at_quantile(*quantile);
        let service = series.service.value_at_quantile(*quantile);
        latency.saturating_sub(service) > DELAYED_MIN
            && numbers::as_f64(latency) > numbers::as_f64(service) * DELAYED_FACTOR
    })
}

/// Whether so few values are above a quantile that it is the maximum under another name.
fn is_maximum(times: &Times, quantile: f64) -> bool {
    // Ten values and p90 give 0.999 999 …: one is above.
    numbers::as_f64(times.len()) * (1.0 - quantile) < 1.0 - 1e-9
}

/// A row of durations; the name alone if there are none.
fn row(name: &str, times: &Times) -> Vec<String> {
    let mut row = vec![name.to_owned()];
    if let Some(values) = quantiles(times) {
        row.extend(values.map(numbers::time));
        row.push(numbers::count(times.len()));
    }
    row
}

/// What went wrong, and what was answered.
fn errors(total: &Series) -> Vec<String> {
    let mut lines = Vec::new();
    if total.failures.is_empty() {
        lines.push("no errors".to_owned());
    } else {
        let share = numbers::share(part(total.failed(), total.done));
        lines.push(format!("errors: {} of those done", share));
        let mut failures: Vec<_> = total.failures.iter().collect();
        failures.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        for (kind, times) in failures {
            let meaning = doubts::meaning(*kind);
            lines.push(format!("{:>12}  {kind}: {meaning}", numbers::count(*times)));
        }
    }
    for (check, times) in &total.checks {
        lines.push(format!("{:>12}  times the check `{check}` failed", numbers::count(*times)));
    }
    let statuses = total.statuses.iter();
    let statuses: Vec<_> =
        statuses.map(|(it, times)| format!("{it}: {}", numbers::count(*times))).collect();
    if !statuses.is_empty() {
        lines.extend(wrap("", &format!("statuses  {}", statuses.join(", "))));
    }
    lines
}

/// A line per step. Percentiles are left out where they are withheld.
fn steps(results: &Results) -> Vec<String> {
    let believed = results.doubts().is_empty();
    let mut header = vec!["step", "done", "per second", "failed"];
    if believed {
        header.extend(["p50", "p99", "p99.9", "max"]);
    }
    let mut rows = vec![header.into_iter().map(str::to_owned).collect()];
    for (name, series) in &results.steps {
        let mut row = vec![
            name.clone(),
            numbers::count(series.done),
            numbers::rate(per_second(series.done, results.took)),
            numbers::count(series.failed()),
        ];
        match quantiles(&series.latency) {
            Some([p50, _, p99, p999, max]) if believed => {
                row.extend([p50, p99, p999, max].map(numbers::time));
            }
            Some(_) | None => {}
        }
        rows.push(row);
    }
    table(&rows)
}

/// How the generator itself did.
fn own(results: &Results) -> Vec<String> {
    let own = &results.own;
    let mut lines = vec!["the generator itself".to_owned()];
    if let Some([p50, _, p99, p999, max]) = quantiles(&own.lag) {
        lines.push(format!(
            "  starts behind schedule: p50 {}, p99 {}, p99.9 {}, max {}",
            numbers::time(p50),
            numbers::time(p99),
            numbers::time(p999),
            numbers::time(max),
        ));
    }
    lines.push(format!(
        "  {} of {} late by more than {} ms ({}), {} dropped",
        numbers::count(own.late),
        numbers::counted(own.lag.len(), "start"),
        LATE_AFTER.as_millis(),
        numbers::share(part(own.late, own.lag.len())),
        numbers::count(own.dropped),
    ));
    if own.unanswered > 0 {
        let unanswered = numbers::counted(own.unanswered, "request");
        lines.push(format!("  {unanswered} had no answer when waiting ended"));
    }
    lines.push(format!("  {} used", processor(results)));
    lines
}

/// How much processor the generator took.
pub(crate) fn processor(results: &Results) -> String {
    let took = results.took.as_secs_f64();
    let used = if took > 0.0 { results.own.cpu.as_secs_f64() / took } else { 0.0 };
    format!("{used:.2} of {} cores", results.own.cores)
}

/// What came of the thresholds, as the last lines of [`text`] say it; nothing if there were none.
#[must_use]
pub fn verdicts(verdicts: &[Verdict]) -> String {
    judged(verdicts).iter().map(|it| format!("{it}\n")).collect()
}

fn judged(verdicts: &[Verdict]) -> Vec<String> {
    let Some(headline) = reached(verdicts) else { return Vec::new() };
    let line = |it: &Verdict| {
        let word = if it.met { "reached" } else { "MISSED " };
        format!("  {word}  {} ({})", it.threshold, it.found)
    };
    iter::once(format!("thresholds: {headline}")).chain(verdicts.iter().map(line)).collect()
}

/// How many thresholds were reached, in words; none if there were none.
pub(crate) fn reached(verdicts: &[Verdict]) -> Option<String> {
    let count = |it: usize| numbers::count(it as u64);
    let missed = verdicts.iter().filter(|it| !it.met).count();
    match (missed, verdicts.len()) {
        (_, 0) => None,
        (0, 1) => Some("reached".to_owned()),
        (_, 1) => Some("MISSED".to_owned()),
        (0, all) => Some(format!("all {} reached", count(all))),
        (missed, all) => Some(format!("{} of {} MISSED", count(missed), count(all))),
    }
}

/// Rows as aligned columns: the first to the left, numbers to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|it| it.get(column)).map(|it| it.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells: Vec<_> = cells
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Words in lines of [`WIDTH`], the first after `indent`, the others below it. A number stays in one
/// piece, also where its thousands are apart.
pub(crate) fn wrap(indent: &str, words: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = indent.to_owned();
    let mut is_empty = true;
    let is_digit = |it: Option<char>| it.is_some_and(|it| it.is_ascii_digit());
    let mut pieces: Vec<String> = Vec::new();
    for piece in words.split(' ') {
        match pieces.last_mut() {
            Some(last) if is_digit(last.chars().last()) && is_digit(piece.chars().next()) => {
                last.push(' ');
                last.push_str(piece);
            }
            _ => pieces.push(piece.to_owned()),
        }
    }
    for word in pieces {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent.chars().count())));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(&word);
        is_empty = false;
    }
    lines.push(line);
    lines
}

/// With its first letter in upper case.
pub(crate) fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map(|it| it.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exchange::FailureKind,
        results::tests::{sample, verdicts},
    };
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(results: &Results, expected: Expect) {
        expected.assert_eq(&text(results));
    }

    #[test]
    fn open_with_a_stall() {
        check(
            &sample(),
            expect![[r#"
                https://127.0.0.1:8443/
                open loop: a schedule said when each request was meant to start; latency counts
                from then
                began 2026-11-21T19:00:00Z, took 10.0 s of 10.0 s planned, seed 7

                            meant   done  succeeded  failed
                requests    1 000  1 000        973      27
                per second  100.0  100.0       97.3    2.70
                sent 80.0 kB (8.00 kB/s), received 1.50 MB (150 kB/s)

                                  p50      p90      p99    p99.9      max  count
                latency       3.90 ms   1.01 s   1.91 s   2.00 s   2.00 s    998
                service       3.50 ms  4.80 ms  22.1 ms  24.6 ms  24.6 ms    998
                  connect      310 µs   310 µs   310 µs   310 µs   310 µs      1
                  TLS         2.40 ms  2.40 ms  2.40 ms  2.40 ms  2.40 ms      1
                  first byte  3.15 ms  4.32 ms  19.9 ms  22.2 ms  22.2 ms    998
                  body         350 µs   480 µs  2.21 ms  2.46 ms  2.46 ms    998
                service counts from the actual start; what latency has more was spent before the
                request was sent, in the generator or waiting for a connection
                requests without an answer, in no percentile: 2
                998 answers: too few to tell p99.9 from the maximum

                errors: 2.70 % of those done
                          20  status: answered with status 400 or above
                           5  check: answered, but a check says that the answer is wrong
                           2  timeout: no whole answer in time
                           5  times the check `has a token` failed
                statuses  200: 978, 503: 20

                step       done  per second  failed      p50     p99   p99.9     max
                shop/home   750        75.0      12  3.90 ms  1.91 s  2.00 s  2.00 s
                shop/buy    250        25.0      15  3.90 ms  1.89 s  1.97 s  1.97 s

                the generator itself
                  starts behind schedule: p50 44.0 µs, p99 68.0 µs, p99.9 68.0 µs, max 1.93 ms
                  1 of 1 000 starts late by more than 1 ms (0.10 %), 0 dropped
                  2 requests had no answer when waiting ended
                  0.08 of 2 cores used
            "#]],
        );
    }

    #[test]
    fn closed_without_a_fault() {
        let mut results = sample();
        let steps = results.steps.split_off(1);
        results.mode = Mode::Closed;
        results.interrupted = true;
        results.total = steps.into_iter().next().unwrap().1;
        results.total.latency = results.total.service.clone();
        results.total.failures.clear();
        results.total.succeeded = results.total.done;
        results.own.unanswered = 0;
        check(
            &results,
            expect![[r#"
                https://127.0.0.1:8443/
                CLOSED LOOP: each user waited for its answer before it sent more; latency counts
                from the actual start, and hides what the server did to those who would have
                come meanwhile
                began 2026-11-21T19:00:00Z, took 10.0 s of 10.0 s planned, ended early by the
                user, seed 7

                            meant  done  succeeded  failed
                requests      250   250        250       0
                per second   25.0  25.0       25.0    0.00
                meant is what was sent: in a closed loop nothing else says how much
                sent 20.0 kB (2.00 kB/s), received 375 kB (37.5 kB/s)

                                  p50      p90      p99    p99.9      max  count
                latency       3.50 ms  4.80 ms  5.00 ms  24.0 ms  24.0 ms    250
                  first byte  3.15 ms  4.32 ms  4.50 ms  21.6 ms  21.6 ms    250
                  body         350 µs   480 µs   500 µs  2.40 ms  2.40 ms    250
                250 answers: too few to tell p99.9 from the maximum

                no errors
                           5  times the check `has a token` failed
                statuses  200: 240, 503: 10

                the generator itself
                  starts behind schedule: p50 44.0 µs, p99 68.0 µs, p99.9 68.0 µs, max 1.93 ms
                  1 of 1 000 starts late by more than 1 ms (0.10 %), 0 dropped
                  0.08 of 2 cores used
            "#]],
        );
    }

    #[test]
    fn withheld() {
        let mut results = sample();
        results.own.late = 32;
        results.own.dropped = 4;
        results.total.failures.insert(FailureKind::Descriptors, 40);
        check(
            &results,
            expect![[r#"
                https://127.0.0.1:8443/
                open loop: a schedule said when each request was meant to start; latency counts
                from then
                began 2026-11-21T19:00:00Z, took 10.0 s of 10.0 s planned, seed 7

                            meant   done  succeeded  failed
                requests    1 000  1 000        973      67
                per second  100.0  100.0       97.3    6.70
                sent 80.0 kB (8.00 kB/s), received 1.50 MB (150 kB/s)

                PERCENTILES ARE WITHHELD:
                  * 3.20 % of the starts came more than 1 ms after they were meant, and 1.00 %
                    is allowed: the generator could not keep its own schedule, so a part of
                    every latency is its own.
                    Send fewer per second, give the generator more cores, or let nothing else
                    run on its machine.
                  * 4 starts meant and never made: the requests that would have waited longest
                    are missing.
                    Send fewer per second, give the generator more cores, or let nothing else
                    run on its machine.
                  * the generator ran out of file descriptors 40 times.
                    Raise its limit (`ulimit -n`), or hold fewer connections open.

                errors: 6.70 % of those done
                          40  descriptors: the generator had no file descriptor left
                          20  status: answered with status 400 or above
                           5  check: answered, but a check says that the answer is wrong
                           2  timeout: no whole answer in time
                           5  times the check `has a token` failed
                statuses  200: 978, 503: 20

                step       done  per second  failed
                shop/home   750        75.0      12
                shop/buy    250        25.0      15

                the generator itself
                  starts behind schedule: p50 44.0 µs, p99 68.0 µs, p99.9 68.0 µs, max 1.93 ms
                  32 of 1 000 starts late by more than 1 ms (3.20 %), 4 dropped
                  2 requests had no answer when waiting ended
                  0.08 of 2 cores used
            "#]],
        );
    }

    #[test]
    fn thresholds_and_requests_that_were_sent_again() {
        let mut results = sample();
        results.total.again = 1234;
        results.verdicts = verdicts();
        let text = text(&results);
        let again = text.lines().skip_while(|it| !it.starts_with("sent again"));
        let again: Vec<_> = again.take_while(|it| !it.is_empty()).collect();
        expect![[r#"
            sent again, after the server closed the connection or refused: 1 234 requests,
            counted once"#]]
        .assert_eq(&again.join("\n"));
        let (_, end) = text.split_once("cores used\n\n").unwrap();
        expect![[r#"
            thresholds: 2 of 3 MISSED
              reached  p99 < 2s (1.914699s)
              MISSED   error rate < 1% (2.700%)
              MISSED   shop/buy: tls p50 < 1s (nothing was measured)
        "#]]
        .assert_eq(end);
        let headline = |met: &[bool]| {
            let verdict = |met: &bool| Verdict { met: *met, ..results.verdicts[0].clone() };
            reached(&met.iter().map(verdict).collect::<Vec<_>>()).unwrap_or_default()
        };
        let headlines = [&[][..], &[true], &[false], &[true, true], &[true, false]].map(headline);
        expect!["; reached; MISSED; all 2 reached; 1 of 2 MISSED"].assert_eq(&headlines.join("; "));
    }

    #[test]
    fn nothing_happened() {
        let mut results = sample();
        results.total = Series::default();
        results.steps.clear();
        results.own.lag.clear();
        results.own.late = 0;
        results.took = std::time::Duration::ZERO;
        check(
            &results,
            expect![[r#"
                https://127.0.0.1:8443/
                open loop: a schedule said when each request was meant to start; latency counts
                from then
                began 2026-11-21T19:00:00Z, took 0 of 10.0 s planned, seed 7

                            meant  done  succeeded  failed
                requests        0     0          0       0
                per second   0.00  0.00       0.00    0.00
                sent 0 B (0 B/s), received 0 B (0 B/s)

                PERCENTILES ARE WITHHELD:
                  * not one request succeeded.
                    Look at the errors: they say whether the server was there, and what it
                    answered.

                no errors

                the generator itself
                  0 of 0 starts late by more than 1 ms (0 %), 0 dropped
                  2 requests had no answer when waiting ended
                  0.00 of 2 cores used
            "#]],
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn percentiles_are_the_histograms(values in prop::collection::vec(1..10_000_000_000_u64, 1..300)) {
            let mut results = sample();
            results.total.latency.clear();
            for value in values {
                results.total.latency.record(value).unwrap();
            }
            let times = &results.total.latency;
            let mut expected: Vec<_> =
                QUANTILES.iter().map(|(_, it)| numbers::time(times.value_at_quantile(*it))).collect();
            expected.push(numbers::time(times.max()));
            let text = text(&results);
            let line = text.lines().find(|it| it.starts_with("latency ")).unwrap();
            let printed: Vec<_> = line.split("  ").map(str::trim).filter(|it| !it.is_empty()).collect();
            prop_assert_eq!(&printed[1..6], &expected[..]);
        }

        #[test]
        fn lines_fit(late in 0..2000_u64, dropped in 0..1_000_000_000_u64, ports in 0..1_000_000_000_u64) {
            let mut results = sample();
            results.own.late = late;
            results.own.dropped = dropped;
            results.total.failures.insert(FailureKind::Ports, ports);
            for line in text(&results).lines() {
                prop_assert!(line.chars().count() <= WIDTH, "{}", line);
            }
        }
    }
}
