//! The report as one page for whoever was not there: charts drawn here as SVG, tables, nothing to load
//! and no script. Light or dark as the reader's system is, and readable when printed.
//!
//! The markup is written by a small writer of its own (`markup`) instead of a template crate: most of
//! the page is coordinates, and what it needs is that every element is closed and all text escaped.

mod charts;
mod comparison;
mod markup;
mod plot;
mod scale;
mod slots;

use std::iter;

use crate::{
    report::{
        QUANTILES,
        doubts::{self, WITHHELD},
        numbers::{self, as_f64, part},
        per_second, quantiles, text,
    },
    results::{LATE_AFTER, Mode, Results, Series, Times, Verdict},
};

use markup::{Attributes, Markup};

pub use comparison::comparison;

/// Looks of the page.
const STYLE: &str = include_str!("style.css");

/// The page of one run.
#[must_use]
pub fn html(results: &Results) -> String {
    let is_believed = results.doubts().is_empty();
    let targets = results.targets.join(", ");
    page(&format!("Load on {targets}"), |page| {
        header(page, results, &targets);
        if !is_believed {
            withheld(page, results);
        }
        tiles(page, results, is_believed);
        verdicts(page, &results.verdicts);
        let slots = slots::slots(results);
        if is_believed {
            charts::latency(page, &slots);
        }
        charts::rate(page, results, &slots);
        charts::in_flight(page, &slots);
        charts::errors(page, results, &slots);
        if is_believed {
            charts::curve(page, results);
            charts::phases(page, results);
            percentiles(page, results);
        }
        if results.steps.len() > 1 {
            if is_believed {
                charts::steps(page, results);
            }
            steps(page, results, is_believed);
        }
        answers(page, &results.total);
        charts::late(page, &slots);
        own(page, results);
    })
}

/// A whole page around its content.
fn page(title: &str, content: impl FnOnce(&mut Markup)) -> String {
    let mut page = Markup::default();
    page.element("html", &[("lang", &"en")], |page| {
        page.element("head", &[], |page| {
            page.empty("meta", &[("charset", &"utf-8")]);
            let viewport = "width=device-width, initial-scale=1";
            page.empty("meta", &[("name", &"viewport"), ("content", &viewport)]);
            page.empty("meta", &[("name", &"color-scheme"), ("content", &"light dark")]);
            page.leaf("title", &[], title);
            page.style(STYLE);
        });
        page.element("body", &[], |page| page.element("main", &[], content));
    });
    page.finish()
}

/// What was run.
fn header(page: &mut Markup, results: &Results, targets: &str) {
    page.element("header", &[], |page| {
        page.leaf("h1", &[], targets);
        let class = match results.mode {
            Mode::Open => "mode",
            Mode::Closed => "mode closed",
        };
        page.leaf("p", &[("class", &class)], &format!("{}.", text::mode(results.mode)));
        let ended = if results.interrupted { ", ended early by the user" } else { "" };
        let run = format!(
            "Began {:.0}, took {} of {} planned{ended}, seed {}.",
            results.began,
            numbers::seconds(results.took.as_secs_f64()),
            numbers::seconds(results.planned.as_secs_f64()),
            results.seed,
        );
        page.leaf("p", &[], &run);
    });
}

/// Why there are no percentiles.
fn withheld(page: &mut Markup, results: &Results) {
    page.element("section", &[("class", &"withheld"), ("role", &"alert")], |page| {
        page.leaf("h2", &[], &text::capital(WITHHELD));
        page.element("ul", &[], |page| {
            for words in results.doubts().iter().map(doubts::words) {
                page.element("li", &[], |page| {
                    page.leaf("strong", &[], &format!("{}.", text::capital(&words.what)));
                    page.text(&format!(" {}.", text::capital(words.remedy)));
                });
            }
        });
    });
}

/// The figures that one looks for first.
fn tiles(page: &mut Markup, results: &Results, is_believed: bool) {
    let total = &results.total;
    let done = numbers::rate(per_second(total.done, results.took));
    let meant = match results.mode {
        Mode::Open => {
            format!("of {} meant", numbers::rate(per_second(total.meant, results.planned)))
        }
        Mode::Closed => "as the server allowed".to_owned(),
    };
    let mut tiles = vec![("requests per second", done, meant, "")];
    let names = QUANTILES.map(|(name, _)| name).into_iter().chain(["max"]);
    let values = quantiles(&total.latency).filter(|_| is_believed);
    for (rank, name) in names.enumerate().filter(|(_, name)| ["p50", "p99", "max"].contains(name)) {
        let value = values.and_then(|it| it.get(rank).copied());
        let (value, class) =
            value.map_or(("withheld".to_owned(), "none"), |it| (numbers::time(it), ""));
        tiles.push(("latency", value, name.to_owned(), class));
    }
    let failed = total.failed();
    let share = numbers::share(part(failed, total.done));
    let class = if failed > 0 { "bad" } else { "good" };
    tiles.push(("errors", share, numbers::counted(failed, "request"), class));
    page.element("section", &[("class", &"tiles"), ("aria-label", &"summary")], |page| {
        for (name, value, note, class) in tiles {
            page.element("div", &[("class", &format!("tile {class}"))], |page| {
                page.leaf("span", &[("class", &"of")], name);
                page.leaf("strong", &[], &value);
                page.leaf("span", &[], &note);
            });
        }
    });
}

/// What came of the thresholds.
fn verdicts(page: &mut Markup, verdicts: &[Verdict]) {
    let Some(headline) = text::reached(verdicts) else { return };
    page.element("section", &[("class", &"thresholds")], |page| {
        page.leaf("h2", &[], &format!("Thresholds: {headline}"));
        page.element("table", &[], |page| {
            page.element("tbody", &[], |page| {
                for verdict in verdicts {
                    let (class, word) =
                        if verdict.met { ("good", "reached") } else { ("bad", "MISSED") };
                    page.element("tr", &[("class", &class)], |page| {
                        page.leaf("th", &[("scope", &"row")], &verdict.threshold);
                        page.leaf("td", &[], &verdict.found);
                        page.leaf("td", &[("class", &"verdict")], word);
                    });
                }
            });
        });
    });
}

/// Percentiles of latency and of its phases.
fn percentiles(page: &mut Markup, results: &Results) {
    let total = &results.total;
    let mut rows = vec![("latency", &total.latency), ("service", &total.service)];
    rows.extend(text::phases(total));
    let mut header = vec![""];
    header.extend(QUANTILES.map(|(name, _)| name));
    header.extend(["max", "mean", "count"]);
    let rows = rows.into_iter().map(|(name, times)| row(name, times));
    let without = total.done.saturating_sub(total.latency.len());
    let note = (without > 0).then(|| {
        let (without, done) = (numbers::count(without), numbers::count(total.done));
        format!("Requests without an answer are in no percentile: {without} of {done}.")
    });
    table(page, "Percentiles", note.as_deref(), &header, rows);
}

fn row(name: &str, times: &Times) -> Vec<String> {
    let mut row = vec![name.to_owned()];
    if let Some(values) = quantiles(times) {
        row.extend(values.map(numbers::time));
        row.push(numbers::time(numbers::as_u64(times.mean())));
        row.push(numbers::count(times.len()));
    }
    row
}

/// A line per step.
fn steps(page: &mut Markup, results: &Results, is_believed: bool) {
    let mut header = vec!["step", "done", "per second", "failed"];
    if is_believed {
        header.extend(QUANTILES.map(|(name, _)| name));
        header.push("max");
    }
    let rows = results.steps.iter().map(|(name, series)| {
        let mut row = vec![
            name.clone(),
            numbers::count(series.done),
            numbers::rate(per_second(series.done, results.took)),
            numbers::count(series.failed()),
        ];
        if let Some(values) = quantiles(&series.latency).filter(|_| is_believed) {
            row.extend(values.map(numbers::time));
        }
        row
    });
    table(page, "Steps", None, &header, rows);
}

/// What was answered, and what failed.
fn answers(page: &mut Markup, total: &Series) {
    let share = |times: u64| numbers::share(part(times, total.done));
    if !total.statuses.is_empty() {
        let statuses = total
            .statuses
            .iter()
            .map(|(status, times)| vec![status.to_string(), numbers::count(*times), share(*times)]);
        table(page, "Statuses", None, &["status", "answers", "of all"], statuses);
    }
    if !total.failures.is_empty() {
        let failures = total.failures.iter().map(|(kind, times)| {
            let name = format!("{kind}: {}", doubts::meaning(*kind));
            vec![name, numbers::count(*times), share(*times)]
        });
        table(page, "Errors by kind", None, &["kind", "requests", "of all"], failures);
    }
    if !total.checks.is_empty() {
        let checks =
            total.checks.iter().map(|(it, times)| vec![it.clone(), numbers::count(*times)]);
        table(page, "Failed checks", None, &["check", "times"], checks);
    }
}

/// How the generator itself did.
fn own(page: &mut Markup, results: &Results) {
    let (own, total) = (&results.own, &results.total);
    let bytes = |bytes: u64| {
        let rate = numbers::bytes(per_second(bytes, results.took));
        format!("{} ({rate}/s)", numbers::bytes(as_f64(bytes)))
    };
    let mut rows = vec![
        vec![
            format!("starts late by more than {} ms", LATE_AFTER.as_millis()),
            format!(
                "{} of {} ({})",
                numbers::count(own.late),
                numbers::count(own.lag.len()),
                numbers::share(part(own.late, own.lag.len()))
            ),
        ],
        vec!["starts dropped".to_owned(), numbers::count(own.dropped)],
        vec!["requests unanswered at the end".to_owned(), numbers::count(own.unanswered)],
        vec!["processor".to_owned(), text::processor(results)],
        vec!["requests sent again".to_owned(), numbers::count(total.again)],
        vec!["sent".to_owned(), bytes(total.sent)],
        vec!["received".to_owned(), bytes(total.received)],
    ];
    if let Some(values) = quantiles(&own.lag) {
        let names = QUANTILES.map(|(name, _)| name).into_iter().chain(["max"]);
        let named: Vec<_> =
            names.zip(values).map(|(name, it)| format!("{name} {}", numbers::time(it))).collect();
        rows.insert(0, vec!["starts behind schedule".to_owned(), named.join(", ")]);
    }
    table(page, "The generator itself", None, &["", ""], rows.into_iter());
}

/// A table under a heading. The first column names its row.
fn table(
    page: &mut Markup,
    title: &str,
    note: Option<&str>,
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) {
    page.element("section", &[], |page| {
        page.leaf("h2", &[], title);
        if let Some(note) = note {
            page.leaf("p", &[("class", &"note")], note);
        }
        page.element("div", &[("class", &"scroll")], |page| {
            page.element("table", &[], |page| {
                if header.iter().any(|it| !it.is_empty()) {
                    page.element("thead", &[], |page| {
                        page.element("tr", &[], |page| {
                            for cell in header {
                                let scope: Attributes<'_> = &[("scope", &"col")];
                                page.leaf("th", scope, cell);
                            }
                        });
                    });
                }
                page.element("tbody", &[], |page| {
                    for row in rows {
                        let missing = header.len().saturating_sub(row.len());
                        let cells = row.iter().map(String::as_str);
                        let mut cells = cells.chain(iter::repeat_n("–", missing));
                        page.element("tr", &[], |page| {
                            let name = cells.next().unwrap_or_default();
                            page.leaf("th", &[("scope", &"row")], name);
                            cells.for_each(|it| page.leaf("td", &[], it));
                        });
                    }
                });
            });
        });
    });
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        exchange::FailureKind,
        results::tests::{sample, verdicts},
    };
    use expect_test::expect;
    use proptest::prelude::*;

    /// Fails unless every element is closed by itself or in order, every attribute quoted, and no
    /// character stands for itself that has a meaning. Gives the names of elements and their text.
    fn elements(page: &str) -> Vec<(String, String)> {
        let page = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
        let (mut open, mut all) = (Vec::<usize>::new(), Vec::<(String, String)>::new());
        for piece in page.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').expect("a tag ends");
            if let Some(name) = tag.strip_prefix('/') {
                let opened = open.pop().expect("something is open");
                assert_eq!(all[opened].0, name);
            } else {
                let quotes = tag.matches('"').count();
                assert!(
                    quotes.is_multiple_of(2) && quotes == tag.matches("=\"").count() * 2,
                    "{tag}"
                );
                all.push((tag.split([' ', '/']).next().unwrap().to_owned(), String::new()));
                if !tag.ends_with('/') {
                    open.push(all.len() - 1);
                }
            }
            let entities = ["&amp;", "&lt;", "&gt;", "&quot;"];
            let escaped: usize = entities.iter().map(|it| text.matches(it).count()).sum();
            assert_eq!(text.matches('&').count(), escaped, "{text}");
            if let Some(inner) = open.last() {
                all[*inner].1.push_str(text);
            }
        }
        assert!(open.is_empty());
        all
    }

    /// Texts of all elements of a name, on a page that is well-formed.
    pub(crate) fn texts(page: &str, name: &str) -> Vec<String> {
        elements(page)
            .into_iter()
            .filter(|(it, _)| it == name)
            .map(|(_, text)| text.trim().to_owned())
            .collect()
    }

    #[test]
    fn everything_is_on_the_page() {
        expect![[r#"
            Latency over time
            Rate meant and done
            In flight
            Errors
            Latency by percentile
            Phases
            Percentiles
            Latency by step
            Steps
            Statuses
            Errors by kind
            Failed checks
            Late starts of the generator
            The generator itself"#]]
        .assert_eq(&texts(&html(&sample()), "h2").join("\n"));
    }

    #[test]
    fn verdicts_are_on_the_page() {
        let mut results = sample();
        assert!(!html(&results).contains("Thresholds"));
        results.verdicts = verdicts();
        let page = html(&results);
        let (_, section) = page.split_once("<section class=\"thresholds\">").unwrap();
        expect![[r#"
            <h2>Thresholds: 2 of 3 MISSED</h2>
            <table><tbody><tr class="good"><th scope="row">p99 &lt; 2s</th>
            <td>1.914699s</td>
            <td class="verdict">reached</td>
            </tr>
            <tr class="bad"><th scope="row">error rate &lt; 1%</th>
            <td>2.700%</td>
            <td class="verdict">MISSED</td>
            </tr>
            <tr class="bad"><th scope="row">shop/buy: tls p50 &lt; 1s</th>
            <td>nothing was measured</td>
            <td class="verdict">MISSED</td>
            </tr>
            </tbody>
            </table>
        "#]]
        .assert_eq(section.split_once("</section>").unwrap().0);
    }

    #[test]
    fn requests_that_were_sent_again_are_on_the_page() {
        let mut results = sample();
        results.total.again = 1234;
        let page = html(&results);
        let (_, row) = page.split_once("sent again</th>\n").unwrap();
        assert!(row.starts_with("<td>1 234</td>"), "{row:.40}");
    }

    #[test]
    fn percentiles_on_the_page_are_the_histograms() {
        let results = sample();
        let cells = texts(&html(&results), "td");
        let latency = quantiles(&results.total.latency).unwrap().map(numbers::time);
        assert!(cells.windows(5).any(|it| it == latency), "{cells:?}");
    }

    #[test]
    fn withheld() {
        let mut results = sample();
        results.own.dropped = 7;
        let page = html(&results);
        expect![[r#"
            Percentiles are withheld
            Rate meant and done
            In flight
            Errors
            Steps
            Statuses
            Errors by kind
            Failed checks
            Late starts of the generator
            The generator itself"#]]
        .assert_eq(&texts(&page, "h2").join("\n"));
        for times in [&results.total.latency, &results.total.service, &results.total.first_byte] {
            for value in quantiles(times).unwrap().map(numbers::time) {
                assert!(!page.contains(&value), "{value}");
            }
        }
    }

    #[test]
    fn nothing_to_load() {
        let page = html(&sample());
        for way in ["<script", "http://", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(way), "{way}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn well_formed_whatever_things_are_called(name in "\\PC*", check in ".*", seconds in 0..5_usize) {
            let mut results = sample();
            results.targets = vec![name.clone()];
            results.total.checks.insert(check, 1);
            results.total.failures.insert(FailureKind::Timeout, 5);
            results.steps[0].0 = name;
            results.seconds.truncate(seconds);
            elements(&html(&results));
        }
    }
}
