//! The page of a comparison: what changed, and both runs in the same charts.

use crate::{
    report::{
        compare::{self, Change, Comparison, Row},
        numbers::{as_f64, as_u64},
        quantiles,
        stretch::stretches,
        text::capital,
        wire::{ReadError, Report},
    },
    results::{self, Times},
};

use super::{
    charts::{self, Curve},
    markup::Markup,
    page,
    plot::Caption,
    slots::SLOTS_MAX,
};

/// Classes of the lines of both runs, and of their medians.
const LINES: [&str; 2] = ["line one", "line two"];
const MEDIANS: [&str; 2] = ["line one median", "line two median"];

/// The page.
///
/// # Errors
///
/// A histogram of one of the runs cannot be decoded.
pub fn comparison(comparison: &Comparison, runs: [&Report; 2]) -> Result<String, ReadError> {
    let [first, second] = runs;
    let totals = [total(first)?, total(second)?];
    let courses = [course(first)?, course(second)?];
    Ok(page("Two runs compared", |page| {
        page.element("header", &[], |page| {
            page.leaf("h1", &[], "Two runs compared");
            for (name, run) in compare::NAMES.into_iter().zip(&comparison.runs) {
                let words = format!("{}: {}.", capital(name), compare::describe(run));
                page.leaf("p", &[], &words);
            }
        });
        if !comparison.notes.is_empty() {
            page.element("section", &[("class", &"notes")], |page| {
                for note in &comparison.notes {
                    page.leaf("p", &[], &format!("{}.", capital(note)));
                }
            });
        }
        table(page, comparison);
        curves(page, &totals);
        over_time(page, &courses);
    }))
}

/// Latency of all of a run.
fn total(report: &Report) -> Result<Times, ReadError> {
    Ok(report.total.latency.times()?.unwrap_or_else(results::times))
}

/// A moment of a run, and median and p99 of what was answered around it, in nanoseconds.
type Point = (f64, Option<[f64; 2]>);

/// Latency over the time of a run.
fn course(report: &Report) -> Result<Vec<Point>, ReadError> {
    let count = report.seconds.len();
    let mut points = Vec::new();
    for stretch in stretches(count, count.div_ceil(SLOTS_MAX), report.took_seconds) {
        let mut times = results::times();
        for second in report.seconds.get(stretch.seconds.clone()).unwrap_or_default() {
            if let Some(more) = second.latency.times()? {
                times += &more;
            }
        }
        let middle = stretch.length.mul_add(0.5, as_f64(stretch.seconds.start as u64));
        let both = quantiles(&times).map(|[p50, _, p99, ..]| [p50, p99].map(as_f64));
        points.push((middle, both));
    }
    Ok(points)
}

/// Figure by figure.
fn table(page: &mut Markup, comparison: &Comparison) {
    page.element("section", &[("class", &"compared")], |page| {
        page.leaf("h2", &[], "What changed");
        page.leaf("p", &[("class", &"note")], &format!("{}.", capital(&compare::method())));
        page.element("div", &[("class", &"scroll")], |page| {
            page.element("table", &[], |page| {
                page.element("thead", &[], |page| {
                    page.element("tr", &[], |page| {
                        for name in compare::HEADER {
                            page.leaf("th", &[("scope", &"col")], name);
                        }
                    });
                });
                page.element("tbody", &[], |page| {
                    comparison.rows.iter().for_each(|it| row(page, it));
                });
            });
        });
    });
}

fn row(page: &mut Markup, row: &Row) {
    let class = match row.change {
        Change::Better => "good",
        Change::Worse => "bad",
        Change::Noise | Change::Unknown => "same",
    };
    let [name, before, after, change, interval, word] = compare::cells(row);
    page.element("tr", &[("class", &class)], |page| {
        page.leaf("th", &[("scope", &"row")], &name);
        for cell in [before, after, change, interval] {
            page.leaf("td", &[], &cell);
        }
        page.leaf("td", &[("class", &"verdict")], &word);
    });
}

/// Latency over percentiles, of both.
fn curves(page: &mut Markup, totals: &[Times; 2]) {
    let caption = Caption {
        id: "curves",
        title: "Latency by percentile",
        text: "How long the slowest took: every nine to the right is ten times as rare. A line ends where \
               its run has no more answers.",
    };
    let lines = LINES.into_iter().zip(compare::NAMES).zip(totals);
    let lines: Vec<_> = lines
        .map(|((class, name), times)| Curve { class, name: format!("{name} run"), times })
        .collect();
    charts::curves(page, &caption, &lines);
}

/// Latency over the time of both.
fn over_time(page: &mut Markup, courses: &[Vec<Point>; 2]) {
    let caption = Caption {
        id: "over-time",
        title: "Latency over time",
        text: "Median (dashed) and p99 of what was answered in each second of both runs, on a logarithmic \
               scale, each from its own beginning. A gap is a time in which nothing was answered.",
    };
    let mut lines = Vec::new();
    for (rank, statistic, classes) in [(1, "p99", LINES), (0, "p50", MEDIANS)] {
        for ((class, name), course) in classes.into_iter().zip(compare::NAMES).zip(courses) {
            let value = |it: &Option<[f64; 2]>| it.and_then(|it| it.get(rank).copied());
            let points = course.iter().map(|(x, it)| Some((*x, value(it)?))).collect();
            lines.push((class, format!("{name} run, {statistic}"), points));
        }
    }
    let end = courses.iter().flatten().map(|(x, _)| as_u64(x.ceil())).max().unwrap_or(1);
    charts::durations_over_time(page, &caption, as_f64(end), &lines);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::html::tests::texts, results::tests::sample};
    use expect_test::expect;

    fn of(runs: [&results::Results; 2]) -> String {
        let [first, second] = runs.map(|it| Report::new(it).unwrap());
        comparison(&compare::compare(&first, &second).unwrap(), [&first, &second]).unwrap()
    }

    #[test]
    fn everything_is_on_the_page() {
        let mut slower = sample();
        for second in &mut slower.seconds {
            second.latency = results::times();
            second.latency.record_n(900_000_000, 100).unwrap();
        }
        slower.planned *= 2;
        let page = of([&sample(), &slower]);
        expect![[r#"
            What changed
            Latency by percentile
            Latency over time"#]]
        .assert_eq(&texts(&page, "h2").join("\n"));
        expect![[r#"
            First: https://127.0.0.1:8443/, began 2026-11-21T19:00:00Z, 100.0/s meant, 1 000 requests in 10.0 s.
            Second: https://127.0.0.1:8443/, began 2026-11-21T19:00:00Z, 50.0/s meant, 1 000 requests in 10.0 s.
            100.0/s were meant in the first run and 50.0/s in the second: load changes latency.
            The interval has 99 % of 1000 draws of at most 60 blocks of seconds; it knows the noise within the runs, not what differs between one run and the next.
            How long the slowest took: every nine to the right is ten times as rare. A line ends where its run has no more answers.

            Median (dashed) and p99 of what was answered in each second of both runs, on a logarithmic scale, each from its own beginning. A gap is a time in which nothing was answered.
        "#]].assert_eq(&texts(&page, "p").join("\n"));
        let cells: Vec<_> = texts(&page, "td").chunks(5).map(|it| it.join(" | ")).collect();
        expect![[r#"
            3.90 ms | 900 ms | ×231 | ×6.803 to ×257 | SLOWER
            1.01 s | 900 ms | ×0.888 | ×0.551 to ×188 | within noise
            1.91 s | 900 ms | ×0.470 | ×0.456 to ×180 | within noise
            2.00 s | 900 ms | ×0.449 | ×0.449 to ×38.4 | within noise
            2.00 s | 2.00 s | ×1.000 | – | cannot tell
            100.0 | 100.0 | ×1.000 | ×0.417 to ×2.667 | within noise
            2.70 % | 2.70 % | +0.00 points | -0.73 to +0.73 | within noise"#]]
        .assert_eq(&cells.join("\n"));
    }

    #[test]
    fn a_run_without_an_answer_has_a_page() {
        let mut silent = sample();
        silent.total.latency.clear();
        silent.seconds.clear();
        expect!["What changed"].assert_eq(&texts(&of([&silent, &silent]), "h2").join("\n"));
    }
}
