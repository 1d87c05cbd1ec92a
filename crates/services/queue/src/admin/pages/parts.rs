//! Pieces that several pages have: numbers as people read them, notices, buttons.

use maud::{Markup, html};

use super::super::wire::Latency;

/// A number with a comma between its thousands.
pub(super) fn commas(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (place, digit) in digits.chars().enumerate() {
        if place != 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many things there are, of a slice or vector.
pub(super) fn count<T>(things: Option<&Vec<T>>) -> i64 {
    i64::try_from(things.map_or(0, Vec::len)).unwrap_or(i64::MAX)
}

/// A time in nanoseconds with two digits after the point, in the unit that suits it.
pub(super) fn duration(nanos: f64) -> String {
    const UNITS: &[(f64, &str)] =
        &[(3_600e9, "h"), (60e9, "m"), (1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    match UNITS.iter().find(|(unit, _)| *unit <= nanos) {
        Some((unit, name)) => format!("{:.1}{name}", nanos / unit),
        None => format!("{nanos:.0}ns"),
    }
}

/// A time in whole seconds: `3d 4h`, `5m 6s`.
pub(super) fn age(nanos: i64) -> String {
    let seconds = nanos.max(0) / 1_000_000_000;
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let shown = parts.iter().skip_while(|(value, _)| *value == 0).take(2);
    let text = shown.map(|(value, unit)| format!("{value}{unit}")).collect::<Vec<_>>().join(" ");
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// What must be known but stops nothing.
pub(super) fn warnings(warnings: &[String]) -> Markup {
    html! {
        @if !warnings.is_empty() {
            div.notice.warning role="alert" {
                strong { "Not everybody answered" }
                ul { @for it in warnings { li { (it) } } }
            }
        }
    }
}

/// What went wrong.
pub(super) fn problem(why: &str) -> Markup {
    html! {
        div.notice.problem role="alert" {
            strong { "This did not work" }
            p { (why) }
        }
    }
}

/// What is to be known.
pub(super) fn notice(text: &str) -> Markup {
    html! { p.notice { (text) } }
}

/// A mark beside what is paused.
pub(super) fn paused(paused: bool) -> Markup {
    html! { @if paused { " " span.tag.paused { "paused" } } }
}

/// The column heads of latencies.
pub(super) fn latency_heads(columns: Option<&Latency>) -> Markup {
    html! {
        @for it in columns.iter().flat_map(|it| it.percentiles.iter().flatten()) {
            th.number title="from publishing to the end of processing" {
                "p" (percent(it.quantile))
            }
        }
    }
}

/// Latencies as cells under the heads of `columns`: not every nsqd measures all of them.
pub(super) fn latency_cells(columns: Option<&Latency>, latency: Option<&Latency>) -> Markup {
    let measured = |quantile: f64| {
        let mut all = latency.iter().flat_map(|it| it.percentiles.iter().flatten());
        all.find(|it| it.quantile.total_cmp(&quantile).is_eq())
    };
    html! {
        @for column in columns.iter().flat_map(|it| it.percentiles.iter().flatten()) {
            @match measured(column.quantile) {
                Some(it) => {
                    td.number title={ "from " (duration(it.min)) " to " (duration(it.max)) } {
                        (duration(it.average))
                    }
                }
                None => td.number.quiet { "–" }
            }
        }
    }
}

fn percent(quantile: f64) -> String {
    let text = format!("{:.2}", quantile * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Buttons that pause, empty and delete a `kind` of thing, sent to `path`. What cannot be undone asks
/// once more, without a script.
pub(super) fn actions(path: &str, kind: &str, is_paused: bool) -> Markup {
    let (pause, label) = if is_paused { ("unpause", "UnPause") } else { ("pause", "Pause") };
    html! {
        form.actions method="post" action=(path) {
            button name="action" value=(pause) { (label) " " (kind) }
            (sure("Empty Queue", "empty", "Drop every message that waits?", "Yes, empty it"))
            (sure(
                &format!("Delete {kind}"), "delete", "Delete it with every message?", "Yes, delete it"
            ))
        }
    }
}

/// A button behind a question.
pub(super) fn sure(label: &str, action: &str, question: &str, yes: &str) -> Markup {
    html! {
        details.sure name="sure" {
            summary { (label) }
            div {
                span { (question) }
                button.danger name="action" value=(action) { (yes) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-1_234_567, "-1,234,567"),
            (i64::MIN, "-9,223,372,036,854,775,808"),
        ] {
            assert_eq!(commas(number), text);
        }
        for (nanos, text) in
            [(0.0, "0ns"), (1_500.0, "1.5µs"), (2e6, "2.0ms"), (61e9, "1.0m"), (1e15, "277.8h")]
        {
            assert_eq!(duration(nanos), text);
        }
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m 0s"), (90_061, "1d 1h"), (-5, "0s")]
        {
            assert_eq!(age(seconds * 1_000_000_000), text);
        }
        assert_eq!(percent(0.999), "99.9");
        assert_eq!(percent(1.0), "100");
    }

    #[test]
    fn what_others_wrote_is_escaped() {
        let shown = problem("<script>&\"").into_string();
        assert!(shown.contains("&lt;script&gt;&amp;"), "{shown}");
    }
}
