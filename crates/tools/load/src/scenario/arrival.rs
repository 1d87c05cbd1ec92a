//! When the users of a scenario arrive: `rate`, `ramp`, `stages`, `replay` or `closed`.

use std::time::Duration;

use super::{
    Files,
    document::{Fields, Node},
    error::Error,
    units::RATE_MAX,
};
use crate::plan::{Arrival, Spacing, Stage};

/// Most users at once in a closed loop: each may hold a connection.
const USERS_MAX: u64 = 1_000_000;
/// Largest record of rates, in bytes.
pub(crate) const REPLAY_BYTES_MAX: usize = 64 << 20;
/// Most numbers of a record that are replayed: a schedule of each is held in memory.
const REPLAY_STAGES_MAX: usize = 1_000_000;
/// By how much a record may be scaled or hastened.
pub(crate) const FACTOR_MAX: f64 = 1_000_000.0;
/// Whoever arrives in a run at most. More would be no test but a mistake, and numbers of users are
/// counted without loss up to here.
const ARRIVALS_MAX: f64 = 1e12;

/// The keys that say when users arrive, of which a scenario has one.
const KINDS: [&str; 5] = ["rate", "ramp", "stages", "replay", "closed"];

/// Reads the arrival of a scenario; none if it does not say.
pub(super) fn compile(
    fields: &mut Fields<'_>,
    files: &Files<'_>,
) -> Result<Option<Arrival>, Error> {
    let given: Vec<&str> = KINDS.into_iter().filter(|it| fields.has(it)).collect();
    if let [first, second, ..] = given.as_slice() {
        let what = format!("`{first}` and `{second}` both say when users arrive; leave one out");
        return Err(fields.node.wrong(what));
    }
    let [rate, ramp, stages, replay, closed] = KINDS.map(|it| fields.take(it));
    let duration = fields.take("for");
    let spacing_node = fields.take("spacing");
    let spacing = match spacing_node {
        None => Spacing::Even,
        Some(node) => match node.text()? {
            "even" => Spacing::Even,
            "poisson" => Spacing::Poisson,
            other => {
                return Err(node.wrong(format!("`{other}` is neither `even` nor `poisson`")));
            }
        },
    };
    let whole = || match duration {
        Some(node) => node.some_duration(),
        None => Err(fields.node.wrong("`for` is missing: how long do users arrive?")),
    };
    let stages = if let Some(node) = rate {
        let rate = positive_rate(node)?;
        vec![Stage { duration: whole()?, from: rate, to: rate, spacing }]
    } else if let Some(node) = ramp {
        vec![ramp_stage(node, whole()?, spacing)?]
    } else if let Some(node) = stages {
        no_duration(duration, "each stage has a `for` of its own")?;
        staged(node, spacing)?
    } else if let Some(node) = replay {
        no_duration(duration, "it belongs into `replay`, where it cuts the record")?;
        replayed(node, spacing, files)?
    } else if let Some(node) = closed {
        if let Some(node) = spacing_node {
            return Err(node.wrong("users of a closed loop come at once and begin again"));
        }
        let users = usize::try_from(node.whole(1, USERS_MAX)?).unwrap_or(usize::MAX);
        return Ok(Some(Arrival::Closed { users, duration: whole()? }));
    } else {
        if let Some(node) = duration.or(spacing_node) {
            return Err(node.wrong("does nothing without `rate`, `ramp` or `closed`"));
        }
        return Ok(None);
    };
    let expected = expected_arrivals(&stages);
    if expected < 1.0 {
        return Err(fields.node.wrong("nobody would arrive: the rate is too low for this time"));
    }
    if expected > ARRIVALS_MAX {
        return Err(fields.node.wrong(format!("{expected:.0} users would arrive: too many")));
    }
    Ok(Some(Arrival::Open(stages)))
}

/// How many users arrive by a schedule, on average.
pub(crate) fn expected_arrivals(stages: &[Stage]) -> f64 {
    stages.iter().map(|it| f64::midpoint(it.from, it.to) * it.duration.as_secs_f64()).sum()
}

fn positive_rate(node: &Node) -> Result<f64, Error> {
    match node.rate()?.per_second() {
        rate if rate > 0.0 => Ok(rate),
        _ => Err(node.wrong("must be above 0")),
    }
}

fn no_duration(node: Option<&Node>, why: &str) -> Result<(), Error> {
    node.map_or(Ok(()), |node| Err(node.wrong(why)))
}

fn ramp_stage(node: &Node, duration: Duration, spacing: Spacing) -> Result<Stage, Error> {
    let mut fields = node.fields()?;
    let from = fields.take("from").map_or(Ok(0.0), |it| Ok(it.rate()?.per_second()))?;
    let to = fields.require("to")?.rate()?.per_second();
    fields.finish()?;
    Ok(Stage { duration, from, to, spacing })
}

fn staged(node: &Node, spacing: Spacing) -> Result<Vec<Stage>, Error> {
    let mut stages = Vec::new();
    let mut last = 0.0;
    for node in node.list("a list of stages")? {
        let mut fields = node.fields()?;
        let rate = |it: Option<&Node>| it.map(|it| Ok(it.rate()?.per_second())).transpose();
        let (flat, from, to) =
            (rate(fields.take("rate"))?, rate(fields.take("from"))?, rate(fields.take("to"))?);
        let duration = fields.require("for")?.some_duration()?;
        let (from, to) = match (flat, from, to) {
            (Some(rate), None, None) => (rate, rate),
            (None, from, Some(to)) => (from.unwrap_or(last), to),
            _ => return Err(node.wrong("a stage has either `rate`, or `to` and perhaps `from`")),
        };
        fields.finish()?;
        last = to;
        stages.push(Stage { duration, from, to, spacing });
    }
    if stages.is_empty() {
        return Err(node.wrong("no stages"));
    }
    Ok(stages)
}

fn replayed(node: &Node, spacing: Spacing, files: &Files<'_>) -> Result<Vec<Stage>, Error> {
    let mut fields = node.fields()?;
    let file = fields.require("file")?;
    let every = fields.take("every").map_or(Ok(Duration::from_secs(1)), Node::some_duration)?;
    let scale = fields.take("scale").map_or(Ok(1.0), |it| it.positive(FACTOR_MAX))?;
    let speed = fields.take("speed").map_or(Ok(1.0), |it| it.positive(FACTOR_MAX))?;
    let skip = fields.take("skip").map_or(Ok(Duration::ZERO), Node::duration)?;
    let length = fields.take("for").map(Node::some_duration).transpose()?;
    fields.finish()?;
    let text = files.text(file, file.text()?, REPLAY_BYTES_MAX)?;
    let replay = Replay { every, scale, speed, skip, length, spacing };
    replay.stages(&text).map_err(|(line, what)| match line {
        Some(line) => {
            Error { file: file.text().unwrap_or_default().into(), line, key: String::new(), what }
        }
        None => node.wrong(what),
    })
}

/// How a record of rates is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replay {
    /// The time that one number of the record counts.
    pub(crate) every: Duration,
    /// By what its rates are multiplied.
    pub(crate) scale: f64,
    /// How much faster time goes; rates stay.
    pub(crate) speed: f64,
    /// How much of it is passed over, in its own time.
    pub(crate) skip: Duration,
    /// How long it is played, in our time; to its end if that is not given.
    pub(crate) length: Option<Duration>,
    /// How starts are spaced.
    pub(crate) spacing: Spacing,
}

impl Replay {
    /// The stages that a record means; otherwise the line, if there is one, and what is wrong.
    pub(crate) fn stages(&self, text: &str) -> Result<Vec<Stage>, (Option<u64>, String)> {
        let wrong = |what: &str| (None, what.to_owned());
        let counts = counts(text).map_err(|(line, what)| (Some(line), what))?;
        let played = self.every.div_f64(self.speed);
        if played.is_zero() {
            return Err(wrong("played so fast that nothing is left of it"));
        }
        let number = |it: u128| usize::try_from(it).unwrap_or(usize::MAX);
        let skip = number(self.skip.as_nanos() / self.every.as_nanos());
        // What is passed over of the first number that is played, in our time.
        let within = self.skip.as_nanos() % self.every.as_nanos();
        let mut passed = Duration::from_nanos_u128(within).div_f64(self.speed).min(played);
        let mut left = self.length.unwrap_or(Duration::MAX);
        let most = number(left.saturating_add(passed).as_nanos().div_ceil(played.as_nanos()));
        let part: Vec<f64> = counts.iter().copied().skip(skip).take(most).collect();
        if part.is_empty() {
            let what = format!("nothing is left: the record has {} numbers", counts.len());
            return Err(wrong(&what));
        }
        if part.len() > REPLAY_STAGES_MAX {
            let what = format!("{} numbers are too many; cut with `skip` and `for`", part.len());
            return Err(wrong(&what));
        }
        let mut stages: Vec<Stage> = Vec::new();
        for count in part {
            let rate = count / self.every.as_secs_f64() * self.scale;
            if rate > RATE_MAX {
                let what = format!("{count} of the record are over {RATE_MAX} a second");
                return Err(wrong(&what));
            }
            let duration = (played - std::mem::take(&mut passed)).min(left);
            left -= duration;
            match stages.last_mut() {
                // Neighbours of one rate are one stage: evenly spaced starts go on evenly.
                Some(last) if last.from.to_bits() == rate.to_bits() => last.duration += duration,
                _ => {
                    let spacing = self.spacing;
                    stages.push(Stage { duration, from: rate, to: rate, spacing });
                }
            }
        }
        Ok(stages)
    }
}

/// The numbers of a record: separated by white space, or the last column of a CSV file with a
/// header.
fn counts(text: &str) -> Result<Vec<f64>, (u64, String)> {
    let is_number = |it: &str| it.parse::<f64>().is_ok();
    // A first line with letters in it, but not those of a number such as `1e3`.
    let header = text.lines().next().is_some_and(|it| {
        it.contains(char::is_alphabetic) && !it.split_whitespace().all(is_number)
    });
    let mut counts = Vec::new();
    for (line, text) in (1..).zip(text.lines()).skip(usize::from(header)) {
        let words: Vec<&str> = if header {
            text.rsplit(',').take(1).map(str::trim).filter(|it| !it.is_empty()).collect()
        } else {
            text.split_whitespace().collect()
        };
        for word in words {
            match word.parse::<f64>() {
                Ok(count) if count >= 0.0 && count.is_finite() => counts.push(count),
                _ => return Err((line, format!("`{word}` is no number of arrivals"))),
            }
        }
    }
    Ok(counts)
}
