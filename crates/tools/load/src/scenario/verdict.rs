//! Whether a run reached what it had to: thresholds against results.

use std::time::Duration;

use super::{
    error::did_you_mean,
    threshold::{Bound, Count, Measure, Operator, Share, Span, Statistic, Threshold},
    units,
};
use crate::results::{Doubt, Results, Series, Unit, Verdict};

impl Threshold {
    /// Judges a run. A time that is not known, because nothing was answered or because percentiles
    /// are withheld, is never reached.
    #[must_use]
    pub fn judge(&self, results: &Results) -> Verdict {
        let (met, found, measured) = match self.measured(results) {
            Ok(it) => (it.compare(self.operator, self.bound), it.to_string(), Some(it.number())),
            Err(why) => (false, why, None),
        };
        let (bound, unit) = self.bound.number();
        Verdict { threshold: self.to_string(), met, found, measured, bound, unit }
    }

    fn measured(&self, results: &Results) -> Result<Found, String> {
        let names = results.steps.iter().map(|(name, _)| name.as_str());
        let names: Vec<&str> = names.collect();
        let series: Vec<&Series> = match &self.scope {
            None => vec![&results.total],
            Some(scope) => {
                let selected = select(scope, &names)?;
                selected.iter().filter_map(|it| results.steps.get(*it)).map(|(_, it)| it).collect()
            }
        };
        let sum = |of: fn(&Series) -> u64| series.iter().map(|it| of(it)).sum::<u64>();
        let done = sum(|it| it.done);
        let errors = sum(Series::failed);
        match self.measure {
            Measure::Time(span, statistic) => time(results, &series, span, statistic),
            Measure::Rate => {
                let seconds = results.took.as_secs_f64();
                #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
                let rate = if seconds > 0.0 { done as f64 / seconds } else { 0.0 };
                Ok(Found::Rate(rate))
            }
            Measure::Share(_) if done == 0 => Err("no request ended".to_owned()),
            Measure::Share(share) => {
                let part = match share {
                    Share::Errors => errors,
                    Share::Success => sum(|it| it.succeeded),
                };
                #[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
                let percent = 100.0 * part as f64 / done as f64;
                Ok(Found::Percent(percent))
            }
            Measure::Count(count) => Ok(Found::Count(match count {
                Count::Requests => done,
                Count::Succeeded => sum(|it| it.succeeded),
                Count::Errors => errors,
                Count::ErrorsOf(kind) => {
                    series.iter().filter_map(|it| it.failures.get(&kind)).sum()
                }
                Count::Status(code) => series.iter().filter_map(|it| it.statuses.get(&code)).sum(),
                Count::Late => results.own.late,
                Count::Dropped => results.own.dropped,
                Count::Unanswered => results.own.unanswered,
            })),
        }
    }
}

/// Which of the series named `flow/step` a scope means: the one of that name, else all of that flow,
/// else the steps of that name in every flow.
///
/// # Errors
///
/// If it means none.
pub(super) fn select(scope: &str, names: &[&str]) -> Result<Vec<usize>, String> {
    let having = |fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
        let fitting = names.iter().enumerate().filter(|(_, name)| fits(name));
        fitting.map(|(index, _)| index).collect()
    };
    let flow = |name: &str| name.split_once('/').is_some_and(|(flow, _)| flow == scope);
    let step = |name: &str| name.split_once('/').is_some_and(|(_, step)| step == scope);
    for found in [having(&|name| name == scope), having(&flow), having(&step)] {
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let parts = names.iter().filter_map(|it| it.split_once('/'));
    let parts = parts.flat_map(|(flow, step)| [flow, step]).chain(names.iter().copied());
    let hint = did_you_mean(scope, parts);
    Err(format!("there is no flow and no step `{scope}`{hint}"))
}

fn time(
    results: &Results,
    series: &[&Series],
    span: Span,
    statistic: Statistic,
) -> Result<Found, String> {
    let doubts = results.doubts();
    if !doubts.is_empty() {
        let doubts: Vec<String> = doubts.iter().map(short).collect();
        return Err(format!("times are withheld: {}", doubts.join("; ")));
    }
    let of = |it: &&Series| match span {
        Span::Latency => it.latency.clone(),
        Span::Service => it.service.clone(),
        Span::Connect => it.connect.clone(),
        Span::Tls => it.tls.clone(),
        Span::FirstByte => it.first_byte.clone(),
        Span::Body => it.body.clone(),
    };
    let mut all = series.iter().map(of);
    let mut times = all.next().ok_or("nothing was measured")?;
    for other in all {
        times.add(&other).map_err(|error| format!("times cannot be added up: {error}"))?;
    }
    if times.is_empty() {
        return Err("nothing was measured".to_owned());
    }
    let nanoseconds = match statistic {
        Statistic::Percentile(it) => times.value_at_percentile(it),
        Statistic::Min => times.min(),
        Statistic::Max => times.max(),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of numbers of 64 bits is one"
        )]
        Statistic::Mean => times.mean() as u64,
    };
    Ok(Found::Time(Duration::from_nanos(nanoseconds)))
}

/// A doubt in a few words; the report has more.
fn short(doubt: &Doubt) -> String {
    match doubt {
        Doubt::Late { share } => format!("{:.1}% of the starts were late", 100.0 * share),
        Doubt::Dropped(times) => format!("{times} starts never happened"),
        Doubt::Limit { kind, times } => format!("the generator ran out of {kind}, {times} times"),
        Doubt::NoSuccess => "nothing succeeded".to_owned(),
    }
}

/// A measured number, of the kind that its bound has.
#[derive(Clone, Copy, Debug)]
enum Found {
    Time(Duration),
    Count(u64),
    Percent(f64),
    Rate(f64),
}

/// In seconds: the nearest number, which is printed with no more digits than it has.
#[expect(clippy::cast_precision_loss, reason = "2^53 nanoseconds are three months")]
fn seconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e9
}

impl Bound {
    /// The bound as a number, and what it counts.
    #[expect(clippy::cast_precision_loss, reason = "nobody counts 2^53 requests by ones")]
    fn number(self) -> (f64, Unit) {
        match self {
            Self::Time(it) => (seconds(it), Unit::Seconds),
            Self::Count(it) => (it as f64, Unit::Count),
            Self::Percent(it) => (it / 100.0, Unit::Share),
            Self::Rate(it) => (it.per_second(), Unit::PerSecond),
        }
    }
}

impl Found {
    /// As a number of the unit that its bound has.
    #[expect(clippy::cast_precision_loss, reason = "nobody counts 2^53 requests by ones")]
    fn number(self) -> f64 {
        match self {
            Self::Time(it) => seconds(it),
            Self::Count(it) => it as f64,
            Self::Percent(it) => it / 100.0,
            Self::Rate(it) => it,
        }
    }

    fn compare(self, operator: Operator, bound: Bound) -> bool {
        let order = match (self, bound) {
            (Self::Time(found), Bound::Time(bound)) => Some(found.cmp(&bound)),
            (Self::Count(found), Bound::Count(bound)) => Some(found.cmp(&bound)),
            (Self::Percent(found), Bound::Percent(bound)) => found.partial_cmp(&bound),
            (Self::Rate(found), Bound::Rate(bound)) => found.partial_cmp(&bound.per_second()),
            // The parser gives a measure a bound of its own kind.
            (Self::Time(_) | Self::Count(_) | Self::Percent(_) | Self::Rate(_), _) => None,
        };
        order.is_some_and(|order| match operator {
            Operator::Less => order.is_lt(),
            Operator::AtMost => order.is_le(),
            Operator::More => order.is_gt(),
            Operator::AtLeast => order.is_ge(),
            Operator::Equal => order.is_eq(),
            Operator::Unequal => order.is_ne(),
        })
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Whole microseconds: what is finer is below what a histogram keeps.
            Self::Time(it) if it.as_micros() > 0 => {
                let nanoseconds = u64::from(it.subsec_nanos() % 1_000);
                f.write_str(&units::print_duration(*it - Duration::from_nanos(nanoseconds)))
            }
            Self::Time(it) => f.write_str(&units::print_duration(*it)),
            Self::Count(it) => write!(f, "{it}"),
            Self::Percent(it) => write!(f, "{it:.3}%"),
            Self::Rate(it) => write!(f, "{it:.1}/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::results::tests::sample;

    #[track_caller]
    fn check(results: &Results, thresholds: &[&str], expected: Expect) {
        let judge = |text: &&str| {
            let verdict = text.parse::<Threshold>().unwrap().judge(results);
            let met = if verdict.met { "met" } else { "missed" };
            let measured = verdict.measured.map(|it| format!(" = {it}")).unwrap_or_default();
            format!(
                "{met} {} = {} {}, found {}{measured}\n",
                verdict.threshold,
                verdict.bound,
                verdict.unit.name(),
                verdict.found
            )
        };
        expected.assert_eq(&thresholds.iter().map(judge).collect::<String>());
    }

    #[test]
    fn compares_what_was_measured() {
        check(
            &sample(),
            &[
                "p50 < 50ms",
                "p99 < 50ms",
                "service p99 < 50ms",
                "max >= 2s",
                "mean < 1s",
                "min > 0s",
                "requests == 1000",
                "errors == 0",
                "timeout errors == 2",
                "status 503 != 20",
                "error rate < 1%",
                "success rate > 90%",
                "rate > 90/s",
                "late <= 1",
                "dropped == 0",
                "unanswered == 0",
            ],
            expect![[r#"
                met p50 < 50ms = 0.05 seconds, found 3.901ms = 0.003901439
                missed p99 < 50ms = 0.05 seconds, found 1.914699s = 1.914699775
                met service p99 < 50ms = 0.05 seconds, found 22.102ms = 0.022102015
                met max >= 2s = 2 seconds, found 2.004877s = 2.004877311
                met mean < 1s = 1 seconds, found 205.121ms = 0.205121828
                met min > 0s = 0 seconds, found 1.999ms = 0.001999872
                met requests == 1000 = 1000 count, found 1000 = 1000
                missed errors == 0 = 0 count, found 27 = 27
                met timeout errors == 2 = 2 count, found 2 = 2
                missed status 503 != 20 = 20 count, found 20 = 20
                missed error rate < 1% = 0.01 share, found 2.700% = 0.027000000000000003
                met success rate > 90% = 0.9 share, found 97.300% = 0.973
                met rate > 90/s = 90 per_second, found 100.0/s = 99.96001599360257
                met late <= 1 = 1 count, found 1 = 1
                met dropped == 0 = 0 count, found 0 = 0
                missed unanswered == 0 = 0 count, found 2 = 2
            "#]],
        );
    }

    #[test]
    fn looks_at_one_flow_or_step() {
        check(
            &sample(),
            &[
                "shop: requests == 1000",
                "buy: requests == 250",
                "shop/home: requests == 750",
                "shop: p50 < 10ms",
                "bye: requests == 0",
                "tls p50 < 1s",
                "buy: tls p50 < 1s",
            ],
            expect![[r#"
                met shop: requests == 1000 = 1000 count, found 1000 = 1000
                met buy: requests == 250 = 250 count, found 250 = 250
                met shop/home: requests == 750 = 750 count, found 750 = 750
                met shop: p50 < 10ms = 0.01 seconds, found 3.901ms = 0.003901439
                missed bye: requests == 0 = 0 count, found there is no flow and no step `bye`
                met tls p50 < 1s = 1 seconds, found 2.4ms = 0.002400255
                missed buy: tls p50 < 1s = 1 seconds, found nothing was measured
            "#]],
        );
    }

    #[test]
    fn a_time_that_is_withheld_is_never_reached() {
        let mut results = sample();
        results.own.late = 500;
        results.own.dropped = 2;
        check(
            &results,
            &["p99 < 1h", "errors < 1000"],
            expect![[r#"
                missed p99 < 1h = 3600 seconds, found times are withheld: 50.0% of the starts were late; 2 starts never happened
                met errors < 1000 = 1000 count, found 27 = 27
            "#]],
        );
        check(
            &Results { total: Series::default(), ..sample() },
            &["p99 < 1h", "error rate < 1%"],
            expect![[r#"
                missed p99 < 1h = 3600 seconds, found times are withheld: nothing succeeded
                missed error rate < 1% = 0.01 share, found no request ended
            "#]],
        );
    }
}
