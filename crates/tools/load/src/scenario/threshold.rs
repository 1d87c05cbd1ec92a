//! What a run must reach: `p99 < 50ms`, `errors == 0`, `checkout: p95 < 200ms`. Read from a scenario
//! or the command line, judged from results.

use std::{fmt, str::FromStr, time::Duration};

use super::{
    error::did_you_mean,
    units::{self, Rate},
};
use crate::exchange::FailureKind;

/// One condition on the results of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// Which requests it is about: `flow/step`, a flow, or a step; all if there is none.
    pub scope: Option<String>,
    /// What is measured.
    pub(super) measure: Measure,
    /// How it is compared.
    pub(super) operator: Operator,
    /// With what.
    pub(super) bound: Bound,
}

/// What a threshold looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measure {
    /// How long something took.
    Time(Span, Statistic),
    /// How often something happened.
    Count(Count),
    /// The share of it in all requests that ended.
    Share(Share),
    /// Requests ended in a second, over the whole run.
    Rate,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Latency,
    Service,
    Connect,
    Tls,
    FirstByte,
    Body,
}

/// One number of many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Statistic {
    /// So many of a hundred are no longer.
    Percentile(f64),
    Min,
    Max,
    Mean,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Requests,
    Succeeded,
    Errors,
    ErrorsOf(FailureKind),
    Status(u16),
    Late,
    Dropped,
    Unanswered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Errors,
    Success,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    Unequal,
}

/// The right side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    Time(Duration),
    Count(u64),
    /// In percent.
    Percent(f64),
    Rate(Rate),
}

const OPERATORS: [(&str, Operator); 6] = [
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("==", Operator::Equal),
    ("!=", Operator::Unequal),
    ("<", Operator::Less),
    (">", Operator::More),
];

const SPANS: [(&str, Span); 6] = [
    ("latency", Span::Latency),
    ("service", Span::Service),
    ("connect", Span::Connect),
    ("tls", Span::Tls),
    ("first_byte", Span::FirstByte),
    ("body", Span::Body),
];

const STATISTICS: [(&str, Statistic); 3] =
    [("min", Statistic::Min), ("max", Statistic::Max), ("mean", Statistic::Mean)];

const COUNTS: [(&str, Count); 6] = [
    ("requests", Count::Requests),
    ("succeeded", Count::Succeeded),
    ("errors", Count::Errors),
    ("late", Count::Late),
    ("dropped", Count::Dropped),
    ("unanswered", Count::Unanswered),
];

const SHARES: [(&str, Share); 2] =
    [("error rate", Share::Errors), ("success rate", Share::Success)];

fn name_of<T: PartialEq>(table: &[(&'static str, T)], it: &T) -> &'static str {
    table.iter().find(|(_, value)| value == it).map_or("", |(name, _)| name)
}

fn find<T: Copy>(table: &[(&'static str, T)], name: &str) -> Option<T> {
    table.iter().find(|(it, _)| *it == name).map(|(_, value)| *value)
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (at, sign) = first_sign(text).ok_or_else(|| {
            format!("`{text}` compares nothing; write it as `p99 < 50ms` or `errors == 0`")
        })?;
        let (left, right) = text.split_at(at);
        let bound = right.get(sign.len()..).unwrap_or_default().trim();
        let operator = find(&OPERATORS, sign)
            .ok_or_else(|| format!("`{sign}` is no comparison; write <, <=, >, >=, == or !="))?;
        let (scope, measure) = match left.rsplit_once(':') {
            Some((scope, measure)) => (Some(scope.trim()), measure),
            None => (None, left),
        };
        if scope == Some("") {
            return Err(format!("`{text}` has nothing before the `:`; name a flow or a step"));
        }
        let measure: Measure = measure.parse()?;
        if scope.is_some() && measure.is_of_whole_run() {
            return Err(format!("`{measure}` is about the whole run, not about one flow or step"));
        }
        let bound = measure.bound(bound)?;
        Ok(Self { scope: scope.map(str::to_owned), measure, operator, bound })
    }
}

/// The first comparison in a text, and where it is.
fn first_sign(text: &str) -> Option<(usize, &str)> {
    let at = text.find(['<', '>', '=', '!'])?;
    let sign = text.get(at..)?;
    let end = sign.find(|it| !matches!(it, '<' | '>' | '=' | '!')).unwrap_or(sign.len());
    Some((at, sign.get(..end)?))
}

impl FromStr for Measure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let phrase = words.join(" ");
        let time = |span, name: &str| Ok(Self::Time(span, statistic(name)?));
        match words.as_slice() {
            ["rate"] => Ok(Self::Rate),
            [name] if find(&COUNTS, name).is_some() => {
                find(&COUNTS, name).map(Self::Count).ok_or(phrase)
            }
            _ if find(&SHARES, &phrase).is_some() => {
                find(&SHARES, &phrase).map(Self::Share).ok_or(phrase)
            }
            [name] => time(Span::Latency, name),
            [kind, "errors"] => {
                let kinds = FailureKind::ALL;
                let found = kinds.iter().find(|it| it.name() == *kind);
                found.map(|it| Self::Count(Count::ErrorsOf(*it))).ok_or_else(|| {
                    let hint = did_you_mean(kind, kinds.iter().map(|it| it.name()));
                    format!("`{kind}` is no kind of error{hint}")
                })
            }
            ["status", code] => match code.parse() {
                Ok(code) if (100..=999).contains(&code) => Ok(Self::Count(Count::Status(code))),
                _ => Err(format!("`{code}` is no HTTP status")),
            },
            [span, name] => {
                let hint = did_you_mean(span, SPANS.iter().map(|(name, _)| *name));
                let unknown = || format!("`{phrase}` cannot be measured{hint}");
                time(find(&SPANS, span).ok_or_else(unknown)?, name)
            }
            [] => Err("nothing is measured; write it as `p99 < 50ms`".to_owned()),
            _ => Err(format!("`{phrase}` cannot be measured")),
        }
    }
}

fn statistic(name: &str) -> Result<Statistic, String> {
    if let Some(it) = find(&STATISTICS, name) {
        return Ok(it);
    }
    let digits = name.strip_prefix('p').filter(|it| it.starts_with(|it: char| it.is_ascii_digit()));
    let Some(digits) = digits else {
        let names = STATISTICS.iter().map(|(name, _)| *name);
        let names = names.chain(COUNTS.iter().map(|(name, _)| *name)).chain(["rate", "error rate"]);
        let hint = did_you_mean(name, names);
        return Err(format!("`{name}` cannot be measured{hint}"));
    };
    match digits.parse::<f64>() {
        Ok(it) if it > 0.0 && it <= 100.0 && !digits.contains('e') => Ok(Statistic::Percentile(it)),
        _ => Err(format!("`{name}` is no percentile; write one from `p1` to `p100`, or `p99.9`")),
    }
}

impl Measure {
    /// Whether it is something of the generator and not of requests.
    pub(super) const fn is_of_whole_run(self) -> bool {
        matches!(self, Self::Count(Count::Late | Count::Dropped | Count::Unanswered))
    }

    fn bound(self, text: &str) -> Result<Bound, String> {
        let with = |error: String| format!("`{self}` is compared with {error}");
        match self {
            Self::Time(..) => units::parse_duration(text)
                .map(Bound::Time)
                .map_err(|error| with(format!("a duration: {error}"))),
            Self::Count(_) => text.parse().map(Bound::Count).map_err(|_| {
                with(format!("a whole number, not with `{text}`; shares are `error rate < 1%`"))
            }),
            Self::Share(_) => {
                let percent = text.strip_suffix('%').map(|it| it.trim_end().parse::<f64>());
                match percent {
                    Some(Ok(it)) if (0.0..=100.0).contains(&it) => Ok(Bound::Percent(it)),
                    _ => Err(with(format!("a percentage such as `1%`, not with `{text}`"))),
                }
            }
            Self::Rate => {
                text.parse().map(Bound::Rate).map_err(|error| with(format!("a rate: {error}")))
            }
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(span, statistic) => {
                if *span != Span::Latency {
                    write!(f, "{} ", name_of(&SPANS, span))?;
                }
                match statistic {
                    Statistic::Percentile(it) => write!(f, "p{it}"),
                    other => f.write_str(name_of(&STATISTICS, other)),
                }
            }
            Self::Count(Count::ErrorsOf(kind)) => write!(f, "{kind} errors"),
            Self::Count(Count::Status(code)) => write!(f, "status {code}"),
            Self::Count(count) => f.write_str(name_of(&COUNTS, count)),
            Self::Share(share) => f.write_str(name_of(&SHARES, share)),
            Self::Rate => f.write_str("rate"),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(it) => f.write_str(&units::print_duration(*it)),
            Self::Count(it) => write!(f, "{it}"),
            Self::Percent(it) => write!(f, "{it}%"),
            Self::Rate(it) => write!(f, "{it}"),
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scope) = &self.scope {
            write!(f, "{scope}: ")?;
        }
        write!(f, "{} {} {}", self.measure, name_of(&OPERATORS, &self.operator), self.bound)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let said = match text.parse::<Threshold>() {
            Ok(threshold) => format!("{threshold}"),
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn reads_thresholds() {
        check("p99 < 50ms", expect!["p99 < 50ms"]);
        check("p99.9<=1s", expect!["p99.9 <= 1s"]);
        check("max < 2s", expect!["max < 2s"]);
        check("first_byte  p50 < 10ms", expect!["first_byte p50 < 10ms"]);
        check("errors == 0", expect!["errors == 0"]);
        check("timeout errors == 0", expect!["timeout errors == 0"]);
        check("status 503 < 10", expect!["status 503 < 10"]);
        check("error rate < 1 %", expect!["error rate < 1%"]);
        check("success rate >= 99.9%", expect!["success rate >= 99.9%"]);
        check("rate > 990/s", expect!["rate > 990/s"]);
        check("checkout: p95 < 200ms", expect!["checkout: p95 < 200ms"]);
        check("shop/GET /a:b: errors == 0", expect!["shop/GET /a:b: errors == 0"]);
        check("dropped == 0", expect!["dropped == 0"]);
    }

    #[test]
    fn says_what_is_wrong() {
        check("", expect!["error: `` compares nothing; write it as `p99 < 50ms` or `errors == 0`"]);
        check(
            "p99",
            expect!["error: `p99` compares nothing; write it as `p99 < 50ms` or `errors == 0`"],
        );
        check("p99 = 5ms", expect!["error: `=` is no comparison; write <, <=, >, >=, == or !="]);
        check("p99 =< 5ms", expect!["error: `=<` is no comparison; write <, <=, >, >=, == or !="]);
        check(
            "p99 < 5",
            expect![
                "error: `p99` is compared with a duration: `5` has no unit; write `5s` or `5ms`"
            ],
        );
        check(
            "p0 < 5ms",
            expect!["error: `p0` is no percentile; write one from `p1` to `p100`, or `p99.9`"],
        );
        check(
            "p101 < 5ms",
            expect!["error: `p101` is no percentile; write one from `p1` to `p100`, or `p99.9`"],
        );
        check("q99 < 5ms", expect!["error: `q99` cannot be measured"]);
        check("< 5ms", expect!["error: nothing is measured; write it as `p99 < 50ms`"]);
        check(
            ": p99 < 5ms",
            expect!["error: `: p99 < 5ms` has nothing before the `:`; name a flow or a step"],
        );
        check("error == 0", expect!["error: `error` cannot be measured; did you mean `errors`?"]);
        check(
            "errors < 1%",
            expect![
                "error: `errors` is compared with a whole number, not with `1%`; shares are `error rate < 1%`"
            ],
        );
        check(
            "error rate < 0.01",
            expect![
                "error: `error rate` is compared with a percentage such as `1%`, not with `0.01`"
            ],
        );
        check(
            "error rate < 101%",
            expect![
                "error: `error rate` is compared with a percentage such as `1%`, not with `101%`"
            ],
        );
        check(
            "rate > 990",
            expect![
                "error: `rate` is compared with a rate: `990` does not say per what; write `990/s`"
            ],
        );
        check(
            "timeouts errors == 0",
            expect!["error: `timeouts` is no kind of error; did you mean `timeout`?"],
        );
        check("first byte p99 < 5ms", expect!["error: `first byte p99` cannot be measured"]);
        check(
            "firstbyte p99 < 5ms",
            expect!["error: `firstbyte p99` cannot be measured; did you mean `first_byte`?"],
        );
        check("status teapot == 0", expect!["error: `teapot` is no HTTP status"]);
        check(
            "shop: dropped == 0",
            expect!["error: `dropped` is about the whole run, not about one flow or step"],
        );
    }

    fn thresholds() -> impl Strategy<Value = Threshold> {
        let time = |span: usize, statistic, ns| {
            (Measure::Time(SPANS[span].1, statistic), Bound::Time(Duration::from_nanos(ns)))
        };
        let statistic = prop_oneof![
            (0.01..=100.0).prop_map(Statistic::Percentile),
            (0..STATISTICS.len()).prop_map(|it| STATISTICS[it].1),
        ];
        let sides = prop_oneof![
            (0..SPANS.len(), statistic, 0..u64::pow(10, 15))
                .prop_map(move |(a, b, c)| time(a, b, c)),
            (0..3usize, any::<u64>())
                .prop_map(|(it, n)| (Measure::Count(COUNTS[it].1), Bound::Count(n))),
            (0..FailureKind::ALL.len(), any::<u64>()).prop_map(|(it, n)| {
                (Measure::Count(Count::ErrorsOf(FailureKind::ALL[it])), Bound::Count(n))
            }),
            (100..1000u16, any::<u64>())
                .prop_map(|(it, n)| (Measure::Count(Count::Status(it)), Bound::Count(n))),
            (0..2usize, 0.0..=100.0)
                .prop_map(|(it, p)| (Measure::Share(SHARES[it].1), Bound::Percent(p))),
            (0.0..1e6).prop_map(|times| {
                (Measure::Rate, Bound::Rate(Rate { times, per: units::Per::Second }))
            }),
        ];
        let scope = proptest::option::of("[a-z/:]{0,8}[a-z]");
        (scope, sides, 0..OPERATORS.len()).prop_map(|(scope, (measure, bound), operator)| {
            Threshold { scope, measure, operator: OPERATORS[operator].1, bound }
        })
    }

    proptest! {
        #[test]
        fn printed_thresholds_are_read_again(threshold in thresholds()) {
            prop_assert_eq!(threshold.to_string().parse::<Threshold>(), Ok(threshold));
        }

        #[test]
        fn nothing_panics(text in "[a-z0-9<>=!:%./ ]{0,40}|.{0,40}") {
            drop(text.parse::<Threshold>());
        }
    }
}
