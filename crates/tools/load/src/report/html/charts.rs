//! The charts of the page: which figures of a run each shows.

use crate::{
    exchange::FailureKind,
    report::{
        QUANTILES,
        numbers::{self, as_f64},
        quantiles,
        stretch::SHORT,
        text,
    },
    results::{Mode, Results, Times},
};

use super::{
    markup::Markup,
    plot::{self, Axis, Caption, Key, Range},
    scale::Scale,
    slots::{self, Slot},
};

/// Classes of the lines of percentiles, in the order of [`QUANTILES`], and of the maximum.
const LINES: [&str; 5] = ["line p50", "line p90", "line p99", "line p999", "line max"];
/// Classes of bars, by rank of the kind of failure.
const BARS: [&str; 4] = ["bar first", "bar second", "bar third", "bar others"];
/// Points of the curve over percentiles.
const CURVE_POINTS: u32 = 240;

fn key(class: &'static str, name: impl Into<String>) -> Key {
    Key { class, name: name.into() }
}

/// Values of an axis in nanoseconds.
fn print_time(value: f64) -> String {
    numbers::tick(value)
}

/// Values of an axis of counts and rates.
fn print_count(value: f64) -> String {
    if value < 10.0 && value.fract() != 0.0 {
        // Three steps of 0.2 are 0.600 000 000 000 000 1.
        format!("{}", (value * 1e9).round() / 1e9)
    } else {
        numbers::count(numbers::as_u64(value))
    }
}

/// Values of the time axis.
fn print_clock(value: f64) -> String {
    let seconds = numbers::as_u64(value);
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes}:{seconds:02} min"),
    }
}

/// Where the time axis of a run ends: with the second in which it did, so that this has its tick, if
/// there is little of it left.
fn end(slots: &[Slot]) -> f64 {
    let end = slots.last().map_or(1.0, |it| it.to);
    if end.ceil() - end < SHORT { end.ceil() } else { end }
}

/// The time axis of a run that ends then.
fn clock(end: f64) -> Axis {
    Axis { scale: Scale::clock(end), name: "time since the first start", print: print_clock }
}

/// An axis of durations around values in nanoseconds.
fn durations(name: &'static str, least: u64, most: u64) -> Axis {
    let scale = Scale::log(as_f64(least.max(1)), as_f64(most.max(1)));
    Axis { scale, name, print: print_time }
}

/// An axis of counts from 0.
fn counts(name: &'static str, values: impl Iterator<Item = f64>) -> Axis {
    Axis { scale: Scale::linear(values.fold(0.0, f64::max)), name, print: print_count }
}

/// Percentiles of latency over time.
pub(crate) fn latency(page: &mut Markup, slots: &[Slot]) {
    let known = || slots.iter().filter_map(|it| it.latency);
    let least = known().map(|[p50, ..]| p50).min();
    let (Some(least), Some(most)) = (least, known().map(|[.., max]| max).max()) else {
        return;
    };
    let names = QUANTILES.map(|(name, _)| name).into_iter().chain(["max"]);
    let keys: Vec<_> =
        LINES.into_iter().zip(names.clone()).map(|(it, name)| key(it, name)).collect();
    let caption = Caption {
        id: "latency",
        title: "Latency over time",
        text: "Percentiles of what was answered in each second, on a logarithmic scale. A gap is a time \
               in which nothing was answered; who waited through it is in the second of the answer.",
    };
    let axes = (&clock(end(slots)), &durations("latency", least, most));
    plot::chart(page, &caption, &keys, axes, |plot| {
        for (rank, class) in LINES.into_iter().enumerate().rev() {
            let value = |slot: &Slot| slot.latency.and_then(|it| it.get(rank).copied());
            plot.line(class, slots.iter().map(|it| Some((it.middle(), as_f64(value(it)?)))));
        }
        for slot in slots {
            let words = slot.latency.map_or("no answer".to_owned(), |values| {
                let named = names.clone().zip(values);
                let named = named.map(|(name, it)| format!("{name} {}", numbers::time(it)));
                named.collect::<Vec<_>>().join(", ")
            });
            plot.words((slot.from, slot.to), &format!("{}: {words}", slots::words(slot)));
        }
    });
}

/// Rates meant and done.
pub(crate) fn rate(page: &mut Markup, results: &Results, slots: &[Slot]) {
    let is_open = results.mode == Mode::Open;
    let mut keys = vec![key("area done", "done"), key("area failed", "of them failed")];
    if is_open {
        keys.push(key("line meant", "meant"));
    }
    let caption = Caption {
        id: "rate",
        title: if is_open { "Rate meant and done" } else { "Rate done" },
        text: if is_open {
            "Starts that the schedule meant and requests that ended, per second. Where less was done than \
             meant the server fell behind; what it caught up with stands above the line."
        } else {
            "Requests that ended, per second. In a closed loop the server decides how many are sent."
        },
    };
    let most = slots.iter().map(|it| it.done.max(if is_open { it.meant } else { 0.0 }));
    let axes = (&clock(end(slots)), &counts("requests per second", most));
    plot::chart(page, &caption, &keys, axes, |plot| {
        plot.area("area done", &stairs(slots, |it| it.done));
        plot.area("area failed", &stairs(slots, Slot::failed));
        if is_open {
            plot.line("line meant", stairs(slots, |it| it.meant).into_iter().map(Some));
        }
        for slot in slots {
            let [meant, done, failed] = [slot.meant, slot.done, slot.failed()].map(numbers::rate);
            let meant = if is_open { format!("meant {meant}/s, ") } else { String::new() };
            let words = format!("{meant}done {done}/s, failed {failed}/s");
            plot.words((slot.from, slot.to), &format!("{}: {words}", slots::words(slot)));
        }
    });
}

/// Requests under way.
pub(crate) fn in_flight(page: &mut Markup, slots: &[Slot]) {
    let caption = Caption {
        id: "in-flight",
        title: "In flight",
        text: "Requests under way at the end of each second: how many wait for the server.",
    };
    let most = slots.iter().map(|it| it.in_flight).max().unwrap_or(0);
    let y = Axis { scale: Scale::whole(most), name: "requests", print: print_count };
    let axes = (&clock(end(slots)), &y);
    plot::chart(page, &caption, &[], axes, |plot| {
        plot.area("area flight", &stairs(slots, |it| as_f64(it.in_flight)));
        for slot in slots {
            let count = numbers::count(slot.in_flight);
            plot.words((slot.from, slot.to), &format!("{}: {count}", slots::words(slot)));
        }
    });
}

/// Failures over time, by kind.
pub(crate) fn errors(page: &mut Markup, results: &Results, slots: &[Slot]) {
    let mut kinds: Vec<(FailureKind, u64)> =
        results.total.failures.iter().map(|(kind, times)| (*kind, *times)).collect();
    if kinds.is_empty() {
        return;
    }
    kinds.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    let last = BARS.len() - 1;
    let class = |rank: usize| BARS.get(rank.min(last)).copied().unwrap_or_default();
    let mut keys: Vec<_> = kinds
        .iter()
        .take(last)
        .enumerate()
        .map(|(rank, (it, _))| key(class(rank), it.name()))
        .collect();
    match kinds.get(last..) {
        Some([one]) => keys.push(key(class(last), one.0.name())),
        Some([_, ..]) => keys.push(key(class(last), "others")),
        Some([]) | None => {}
    }
    let caption = Caption {
        id: "errors",
        title: "Errors",
        text: "Requests that failed, per second, by kind.",
    };
    let axes = (&clock(end(slots)), &counts("errors per second", slots.iter().map(Slot::failed)));
    plot::chart(page, &caption, &keys, axes, |plot| {
        for slot in slots {
            let mut from = 0.0;
            for (rank, (kind, _)) in kinds.iter().enumerate() {
                let Some(rate) = slot.failures.get(kind) else {
                    continue;
                };
                plot.bar(class(rank), (slot.from, slot.to), (from, from + rate));
                from += rate;
            }
            let failures = slot.failures.iter();
            let named: Vec<_> =
                failures.map(|(kind, rate)| format!("{kind} {}/s", numbers::rate(*rate))).collect();
            let words = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
            plot.words((slot.from, slot.to), &format!("{}: {words}", slots::words(slot)));
        }
    });
}

/// Late starts: where the generator was the one who was slow.
pub(crate) fn late(page: &mut Markup, slots: &[Slot]) {
    if slots.iter().all(|it| it.late == 0.0) {
        return;
    }
    let caption = Caption {
        id: "late",
        title: "Late starts of the generator",
        text: "Starts that came more than a millisecond after they were meant, per second. They are the \
               generator's own fault, not the server's.",
    };
    let axes = (&clock(end(slots)), &counts("starts per second", slots.iter().map(|it| it.late)));
    plot::chart(page, &caption, &[], axes, |plot| {
        for slot in slots.iter().filter(|it| it.late > 0.0) {
            plot.bar("bar second", (slot.from, slot.to), (0.0, slot.late));
            let words = format!("{}: {}/s", slots::words(slot), numbers::rate(slot.late));
            plot.words((slot.from, slot.to), &words);
        }
    });
}

/// Latency over percentiles.
pub(crate) fn curve(page: &mut Markup, results: &Results) {
    let (latency, service) = (&results.total.latency, &results.total.service);
    let is_open = results.mode == Mode::Open;
    let mut lines = vec![Curve {
        class: "line p99",
        name: "latency, from the meant start".to_owned(),
        times: latency,
    }];
    if is_open {
        let name = "service time, from the actual start".to_owned();
        lines.push(Curve { class: "line service", name, times: service });
    }
    let caption = Caption {
        id: "curve",
        title: "Latency by percentile",
        text: if is_open {
            "How long the slowest took: every nine to the right is ten times as rare. Between the two \
             lines is time that passed before the request was sent."
        } else {
            "How long the slowest took: every nine to the right is ten times as rare."
        },
    };
    curves(page, &caption, &lines);
}

/// A line of [`curves`].
#[derive(Clone, Debug)]
pub(crate) struct Curve<'of> {
    pub(crate) class: &'static str,
    pub(crate) name: String,
    pub(crate) times: &'of Times,
}

/// Durations over percentiles, on an axis where each nine takes as much room; what comes first is on
/// top.
pub(crate) fn curves(page: &mut Markup, caption: &Caption<'_>, lines: &[Curve<'_>]) {
    let lines: Vec<_> = lines.iter().filter(|it| !it.times.is_empty()).collect();
    let least = lines.iter().map(|it| it.times.min()).min();
    let most = lines.iter().map(|it| it.times.max()).max();
    let (Some(least), Some(most)) = (least, most) else { return };
    // The slowest of n is at log10(n): beyond it there is nothing to see.
    let nines = |times: &Times| as_f64(times.len()).log10().max(1.0);
    let x = Axis {
        scale: Scale::Linear {
            high: lines.iter().map(|it| nines(it.times)).fold(1.0, f64::max),
            step: 1.0,
        },
        name: "percentile",
        print: |nines| {
            // 0.9 and 0.99 lose their trailing digits in floats; one decimal per nine is exact.
            let decimals = usize::try_from(numbers::as_u64(nines).saturating_sub(2)).unwrap_or(0);
            format!("{:.decimals$} %", 100.0 * (1.0 - 10_f64.powf(-nines)))
        },
    };
    let keys: Vec<_> = lines.iter().map(|it| key(it.class, &it.name)).collect();
    let axes = (&x, &durations("latency", least, most));
    plot::chart(page, caption, &keys, axes, |plot| {
        for Curve { class, times, .. } in lines.into_iter().rev() {
            let points = (0..=CURVE_POINTS).map(|point| {
                let x = f64::from(point) / f64::from(CURVE_POINTS) * nines(times);
                Some((x, as_f64(times.value_at_quantile(1.0 - 10_f64.powf(-x)))))
            });
            plot.line(class, points);
        }
    });
}

/// A line over time: class, name, and points in seconds and nanoseconds, or gaps.
pub(crate) type Course = (&'static str, String, Vec<Option<(f64, f64)>>);

/// Durations over the seconds of a run; what comes first is on top.
pub(crate) fn durations_over_time(
    page: &mut Markup,
    caption: &Caption<'_>,
    seconds: f64,
    lines: &[Course],
) {
    let values = || lines.iter().flat_map(|(_, _, points)| points.iter().flatten());
    let values = || values().map(|(_, value)| numbers::as_u64(*value));
    let (Some(least), Some(most)) = (values().min(), values().max()) else { return };
    let keys: Vec<_> = lines.iter().map(|(class, name, _)| key(class, name)).collect();
    plot::chart(
        page,
        caption,
        &keys,
        (&clock(seconds), &durations("latency", least, most)),
        |plot| {
            for (class, _, points) in lines.iter().rev() {
                plot.line(class, points.iter().copied());
            }
        },
    );
}

/// What latency is made of.
pub(crate) fn phases(page: &mut Markup, results: &Results) {
    let total = &results.total;
    let mut rows = vec![("latency", &total.latency)];
    if text::is_delayed(total) {
        rows.push(("service", &total.service));
    }
    rows.extend(text::phases(total));
    let caption = Caption {
        id: "phases",
        title: "Phases",
        text: "What latency is made of, on a logarithmic scale. A request on a connection that was open \
               already has neither connect nor TLS.",
    };
    ranges(page, &caption, rows.into_iter());
}

/// Steps of the scenario beside each other.
pub(crate) fn steps(page: &mut Markup, results: &Results) {
    let rows = results.steps.iter().map(|(name, series)| (name.as_str(), &series.latency));
    let caption = Caption {
        id: "steps",
        title: "Latency by step",
        text: "Latency of every step of the scenario, on a logarithmic scale.",
    };
    ranges(page, &caption, rows);
}

/// A row of durations per name.
fn ranges<'of>(
    page: &mut Markup,
    caption: &Caption<'_>,
    rows: impl Iterator<Item = (&'of str, &'of Times)>,
) {
    let rows: Vec<_> = rows.filter_map(|(name, times)| Some((name, quantiles(times)?))).collect();
    let least = rows.iter().map(|(_, [p50, ..])| *p50).min();
    let (Some(least), Some(most)) = (least, rows.iter().map(|(_, [.., max])| *max).max()) else {
        return;
    };
    let ranges: Vec<_> = rows
        .iter()
        .map(|(name, [p50, _, p99, _, max])| {
            let [from, to, end] = [p50, p99, max].map(|it| numbers::time(*it));
            Range {
                name: cut(name),
                from: as_f64(*p50),
                to: as_f64(*p99),
                max: as_f64(*max),
                words: format!("{name}: p50 {from}, p99 {to}, max {end}"),
            }
        })
        .collect();
    let keys = [key("box", "p50 to p99"), key("line whisker", "up to the maximum")];
    plot::ranges(page, caption, &keys, &durations("time", least, most), &ranges);
}

/// A name that fits beside its row. The whole of it is in the row's words and in the table.
fn cut(name: &str) -> String {
    const LETTERS: usize = 24;
    if name.chars().count() <= LETTERS {
        return name.to_owned();
    }
    name.chars().take(LETTERS - 1).chain(['…']).collect()
}

/// A value that holds through each slot, as the corners of its stairs.
fn stairs(slots: &[Slot], value: impl Fn(&Slot) -> f64) -> Vec<(f64, f64)> {
    slots.iter().flat_map(|it| [(it.from, value(it)), (it.to, value(it))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn ticks_have_no_more_digits_than_they_mean() {
        let ticks = |most: f64| {
            let axis = counts("requests per second", [most].into_iter());
            let ticks: Vec<_> = axis.scale.ticks().into_iter().map(axis.print).collect();
            ticks.join(" ")
        };
        expect!["0 0.2 0.4 0.6 0.8 1; 0 0.1 0.2 0.3; 0 500 1 000 1 500"]
            .assert_eq(&[1.0, 0.3, 1500.0].map(ticks).join("; "));
    }
}
