//! What changed between two reports, and whether that is more than noise. Pure.

use crate::report::{
    QUANTILES, numbers,
    wire::{Mode, ReadError, Report},
};

use super::resample::{BLOCKS_MIN, Blocks, Figures, RESAMPLES};

/// Of the draws: any number will do, if it is always the same one.
const SEED: u64 = 1;
/// Part of the resamples left out on each side: 99 % stay.
const TAIL: f64 = 0.005;
/// Ratios nearer to 1 than this are none: two buckets of a histogram of three digits.
const RESOLUTION: f64 = 0.002;
/// Meant rates that differ by more than this share are pointed out.
const RATE_DIFFERS: f64 = 0.02;

/// Two runs, compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Which they are.
    pub runs: [Run; 2],
    /// Figure by figure.
    pub rows: Vec<Row>,
    /// What makes the two runs differ before anything was measured.
    pub notes: Vec<String>,
}

/// What one run was.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What was aimed at.
    pub targets: Vec<String>,
    /// When the first start was meant.
    pub began: jiff::Timestamp,
    /// From then to the last answer, in seconds.
    pub took: f64,
    /// Starts meant per second; none in a closed loop, where nothing says how many.
    pub meant_per_second: Option<f64>,
    /// Requests that ended.
    pub done: u64,
}

impl Run {
    fn new(report: &Report) -> Self {
        Self {
            targets: report.targets.clone(),
            began: report.began,
            took: report.took_seconds,
            meant_per_second: match report.mode {
                Mode::Open => Some(report.total.meant_per_second),
                Mode::Closed => None,
            },
            done: report.total.done,
        }
    }
}

/// One figure of both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name: `latency p99`, …
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// In the first run: seconds, per second, or a share.
    pub before: f64,
    /// In the second run.
    pub after: f64,
    /// `after` by `before`; none if that is nothing.
    pub ratio: Option<f64>,
    /// Between which bounds 99 % of the resamples are: ratios, or differences of a share.
    pub interval: Option<(f64, f64)>,
    /// Whether it changed.
    pub change: Change,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds; less is better.
    Seconds,
    /// Something per second; more is better.
    PerSecond,
    /// A share from 0 to 1; less is better.
    Share,
}

/// Whether a figure changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is better, and that is more than noise.
    Better,
    /// It is worse, and that is more than noise.
    Worse,
    /// What differs is within the noise.
    Noise,
    /// It cannot be told: a run is too short, or the figure has no known noise (the maximum).
    Unknown,
}

/// Why two runs are not compared.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Percentiles of one of them are withheld.
    #[error("the percentiles of {which} are withheld: {message}")]
    Withheld {
        /// `the first run` or `the second run`.
        which: &'static str,
        /// Why.
        message: String,
    },
    /// One is open, the other closed.
    #[error(
        "one is an open loop and the other a closed one: their latencies do not mean the same, and \
         no ratio of them means anything"
    )]
    Modes,
    /// A report is damaged.
    #[error("read a histogram of {which}")]
    Damaged {
        /// `the first run` or `the second run`.
        which: &'static str,
        /// How.
        #[source]
        error: ReadError,
    },
}

/// Names of the runs in messages.
const SIDES: [&str; 2] = ["the first run", "the second run"];

/// Compares two runs.
///
/// # Errors
///
/// They cannot be compared: see [`Refusal`].
pub fn compare(before: &Report, after: &Report) -> Result<Comparison, Refusal> {
    for (which, report) in SIDES.into_iter().zip([before, after]) {
        if let Some(withheld) = report.withheld.first() {
            return Err(Refusal::Withheld { which, message: withheld.message.clone() });
        }
    }
    if before.mode != after.mode {
        return Err(Refusal::Modes);
    }
    let [first, second] = SIDES;
    let blocks =
        |which, report| Blocks::new(report).map_err(|error| Refusal::Damaged { which, error });
    let (blocks_before, blocks_after) = (blocks(first, before)?, blocks(second, after)?);
    let draws = draws(&blocks_before, &blocks_after);
    let (of_before, of_after) = (blocks_before.figures(), blocks_after.figures());
    let mut rows = Vec::new();
    for (index, (name, _)) in QUANTILES.iter().enumerate() {
        let figure = |it: &Figures| it.quantiles.get(index).copied().unwrap_or_default() / 1e9;
        let sides = [figure(&of_before), figure(&of_after)];
        let effects = effects(draws.as_deref(), figure, ratio);
        rows.push(Row::new(format!("latency {name}"), Unit::Seconds, sides, effects));
    }
    let max = [before, after].map(|it| it.total.latency.max_seconds.unwrap_or_default());
    rows.push(Row::new("latency max".to_owned(), Unit::Seconds, max, None));
    let rates = effects(draws.as_deref(), |it| it.rate, ratio);
    let sides = [before, after].map(|it| it.total.done_per_second);
    rows.push(Row::new("done per second".to_owned(), Unit::PerSecond, sides, rates));
    let failed = effects(draws.as_deref(), |it| it.failed, |[it, other]| other - it);
    let sides = [of_before.failed, of_after.failed];
    rows.push(Row::new("failed".to_owned(), Unit::Share, sides, failed));
    let runs = [before, after].map(Run::new);
    Ok(Comparison { runs, rows, notes: notes(before, after, draws.is_some()) })
}

/// Figures of both runs, drawn again and again; none if a run is too short.
fn draws(before: &Blocks, after: &Blocks) -> Option<Vec<[Figures; 2]>> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let enough = before.are_enough() && after.are_enough();
    enough.then(|| {
        (0..RESAMPLES).map(|_| [before.draw(&mut random), after.draw(&mut random)]).collect()
    })
}

fn ratio([before, after]: [f64; 2]) -> f64 {
    if before == after { 1.0 } else { after / before }
}

/// How one figure differs in each draw, ascending.
fn effects(
    draws: Option<&[[Figures; 2]]>,
    figure: impl Fn(&Figures) -> f64,
    effect: impl Fn([f64; 2]) -> f64,
) -> Option<Vec<f64>> {
    let mut effects: Vec<_> =
        draws?.iter().map(|[before, after]| effect([figure(before), figure(after)])).collect();
    effects.sort_by(f64::total_cmp);
    Some(effects)
}

impl Row {
    fn new(name: String, unit: Unit, sides: [f64; 2], effects: Option<Vec<f64>>) -> Self {
        let [before, after] = sides;
        let interval = effects.and_then(|it| interval(&it));
        let (none, resolution) = match unit {
            Unit::Seconds | Unit::PerSecond => (1.0, RESOLUTION),
            Unit::Share => (0.0, 0.0),
        };
        let change = match interval {
            None => Change::Unknown,
            Some((low, _)) if low > none + resolution => match unit {
                Unit::Seconds | Unit::Share => Change::Worse,
                Unit::PerSecond => Change::Better,
            },
            Some((_, high)) if high < none - resolution => match unit {
                Unit::Seconds | Unit::Share => Change::Better,
                Unit::PerSecond => Change::Worse,
            },
            Some(_) => Change::Noise,
        };
        let ratio = (before > 0.0).then(|| after / before);
        Self { name, unit, before, after, ratio, interval, change }
    }
}

/// The middle of sorted values, [`TAIL`] left out on each side.
fn interval(sorted: &[f64]) -> Option<(f64, f64)> {
    let out = usize::try_from(numbers::as_u64(numbers::as_f64(sorted.len() as u64) * TAIL)).ok()?;
    let low = sorted.get(out)?;
    let high = sorted.iter().rev().nth(out)?;
    Some((*low, *high))
}

/// What makes two runs differ before anything was measured.
fn notes(before: &Report, after: &Report, told: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let [rate, other] = [before, after].map(|it| it.total.meant_per_second);
    if before.mode == Mode::Open && (rate - other).abs() > RATE_DIFFERS * rate.max(other) {
        notes.push(format!(
            "{}/s were meant in the first run and {}/s in the second: load changes latency",
            numbers::rate(rate),
            numbers::rate(other)
        ));
    }
    if before.targets != after.targets {
        notes.push(format!(
            "the targets differ: {} and {}",
            before.targets.join(", "),
            after.targets.join(", ")
        ));
    }
    if before.steps.iter().map(|it| &it.name).ne(after.steps.iter().map(|it| &it.name)) {
        notes.push("the steps differ".to_owned());
    }
    for (which, _) in SIDES.into_iter().zip([before, after]).filter(|(_, it)| it.interrupted) {
        notes.push(format!("{which} was ended early"));
    }
    if !told {
        notes.push(format!(
            "noise cannot be told from change: both runs must last at least {BLOCKS_MIN} s"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{self, Results, tests::sample};
    use proptest::prelude::*;

    /// A run of `seconds` whose latencies are about `middle` nanoseconds, the same for a seed.
    fn run(seed: u64, seconds: usize, middle: f64) -> Results {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut results = sample();
        results.total.latency = results::times();
        results.seconds.truncate(1);
        let mut second = results.seconds.remove(0);
        for _ in 0..seconds {
            second.latency = results::times();
            for _ in 0..second.done {
                // Exponential: the noisiest law that servers are known for.
                let value = numbers::as_u64(-middle * (1.0 - random.f64()).ln());
                second.latency.record(value).unwrap();
            }
            results.total.latency.add(&second.latency).unwrap();
            results.seconds.push(second.clone());
        }
        results.took = std::time::Duration::from_secs(seconds as u64);
        results
    }

    fn compared(before: &Results, after: &Results) -> Result<Comparison, Refusal> {
        compare(&Report::new(before).unwrap(), &Report::new(after).unwrap())
    }

    fn change(before: &Results, after: &Results, name: &str) -> Change {
        let comparison = compared(before, after).unwrap();
        comparison.rows.iter().find(|it| it.name == name).unwrap().change
    }

    #[test]
    fn twice_as_slow_is_a_change_and_the_other_way_round_too() {
        let (fast, slow) = (run(1, 30, 1e6), run(2, 30, 2e6));
        for name in ["latency p50", "latency p90", "latency p99"] {
            assert_eq!(change(&fast, &slow, name), Change::Worse, "{name}");
            assert_eq!(change(&slow, &fast, name), Change::Better, "{name}");
        }
        assert_eq!(change(&fast, &slow, "latency max"), Change::Unknown);
    }

    #[test]
    fn a_run_of_a_few_seconds_tells_nothing() {
        assert_eq!(change(&run(1, 9, 1e6), &run(2, 30, 2e6), "latency p50"), Change::Unknown);
    }

    #[test]
    fn refusals() {
        let believed = sample();
        let mut closed = sample();
        closed.mode = results::Mode::Closed;
        assert!(matches!(compared(&believed, &closed), Err(Refusal::Modes)));
        let mut withheld = sample();
        withheld.own.dropped = 1;
        let refusal = compared(&believed, &withheld).unwrap_err();
        assert!(matches!(refusal, Refusal::Withheld { which: "the second run", .. }), "{refusal}");
    }

    #[test]
    fn more_failures_are_worse() {
        let mut after = sample();
        for second in &mut after.seconds {
            *second.failures.entry(crate::exchange::FailureKind::Closed).or_default() += 20;
        }
        assert_eq!(change(&sample(), &after, "failed"), Change::Worse);
        assert_eq!(change(&after, &sample(), "failed"), Change::Better);
    }

    #[test]
    fn false_alarms_are_rare() {
        let alarms: Vec<_> = (0..10)
            .filter(|seed| {
                let (before, after) = (run(seed * 2, 20, 1e6), run(seed * 2 + 1, 20, 1e6));
                change(&before, &after, "latency p90") != Change::Noise
            })
            .collect();
        assert!(alarms.len() <= 1, "{alarms:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4))]
        #[test]
        fn a_run_beside_itself_is_noise(seed: u64) {
            let run = run(seed, 12, 1e6);
            for row in compared(&run, &run).unwrap().rows {
                prop_assert!(matches!(row.change, Change::Noise | Change::Unknown), "{:?}", row);
            }
        }
    }
}
