//! What the server does to each arrival: how long it waits, when it is frozen, what it answers. Pure:
//! the fate of the i-th arrival depends on the seed and on i only.

use std::{fmt, str::FromStr, time::Duration};

use crate::scenario::units::{parse_duration, print_duration};

/// Longest delay of one answer; what a law draws beyond is cut. A client has given up long before.
pub const DELAY_MAX: Duration = Duration::from_secs(60);
/// Largest body of an answer.
pub const BODY_MAX: usize = 16 << 20;
/// Most stalls in one law.
pub const STALLS_MAX: usize = 100;

/// What the server does to its clients. Written and read as in
/// `lognormal:20ms/0.8,stall:2s@5s,errors:1%`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Law {
    /// How long an answer takes.
    pub delay: Delay,
    /// When the server is frozen; by time, not overlapping.
    pub stalls: Vec<Stall>,
    /// Share of answers with status 503, 0 to 1.
    pub errors: f64,
    /// Share of requests whose connection (HTTP/1.1) or stream (HTTP/2) is reset when the answer is
    /// due, 0 to 1.
    pub resets: f64,
    /// The body of each answer.
    pub body: Body,
}

/// How long an answer takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Delay {
    /// It is given at once, and nothing is recorded: for measuring how fast a client is.
    #[default]
    None,
    /// Always the same.
    Constant(Duration),
    /// Exponential, with this mean.
    Exponential(Duration),
    /// Anything between the two, alike probable.
    Uniform(Duration, Duration),
    /// The logarithm is normal.
    Lognormal {
        /// Half of the answers take longer.
        median: Duration,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// One of two.
    Bimodal {
        /// What most answers take.
        usual: Duration,
        /// What the others take.
        rare: Duration,
        /// Share of the others, 0 to 1.
        share: f64,
    },
}

/// The server is frozen: what arrives is looked at when it thaws, and nothing is answered meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// When it begins, counted from the first arrival.
    pub at: Duration,
    /// How long it lasts.
    pub length: Duration,
}

impl Stall {
    /// When it ends, counted from the first arrival.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.at + self.length
    }

    /// Whether a moment, counted from the first arrival, is in it.
    #[must_use]
    pub fn contains(&self, moment: Duration) -> bool {
        self.at <= moment && moment < self.end()
    }
}

/// The body of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Its size.
    pub bytes: usize,
    /// From its first piece to its last.
    pub over: Duration,
}

/// What becomes of one arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// How long its answer takes.
    pub delay: Duration,
    /// What the answer is.
    pub outcome: Outcome,
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Status 200.
    Good,
    /// Status 503.
    Error,
    /// None: the connection or stream is reset.
    Reset,
}

/// When an answer is due, counted from the first arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its head.
    pub head: Duration,
    /// Its last byte.
    pub last: Duration,
    /// The stall that held it, if one did; the last of several.
    pub held: Option<Stall>,
}

impl Law {
    /// What becomes of arrival number `index`.
    #[must_use]
    pub fn fate(&self, seed: u64, index: u64) -> Fate {
        // Mixed, so that neighbouring seeds and arrivals have nothing in common.
        let mut random = fastrand::Rng::with_seed(mix(mix(seed) ^ index));
        let outcome = random.f64();
        let outcome = if outcome < self.resets {
            Outcome::Reset
        } else if outcome < self.resets + self.errors {
            Outcome::Error
        } else {
            Outcome::Good
        };
        Fate { delay: self.delay.draw(&mut random).min(DELAY_MAX), outcome }
    }

    /// When the answer to an arrival is due; both are counted from the first arrival.
    #[must_use]
    pub fn due(&self, arrival: Duration, delay: Duration) -> Due {
        let (begin, frozen) = self.thawed(arrival);
        let (head, late) = self.thawed(begin + delay);
        let (last, later) = self.thawed(head + self.body.over);
        Due { head, last, held: later.or(late).or(frozen) }
    }

    /// A moment counted from the first arrival, or the end of the stall that it is in.
    #[must_use]
    pub fn thaw(&self, moment: Duration) -> Duration {
        self.thawed(moment).0
    }

    fn thawed(&self, moment: Duration) -> (Duration, Option<Stall>) {
        let stall = self.stalls.iter().find(|it| it.contains(moment)).copied();
        (stall.map_or(moment, |it| it.end()), stall)
    }
}

impl Delay {
    fn draw(self, random: &mut fastrand::Rng) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Constant(it) => it,
            Self::Exponential(mean) => scale(mean, -(1.0 - random.f64()).ln()),
            Self::Uniform(from, to) => from + scale(to - from, random.f64()),
            Self::Lognormal { median, sigma } => scale(median, (sigma * normal(random)).exp()),
            Self::Bimodal { usual, rare, share } => {
                if random.f64() < share {
                    rare
                } else {
                    usual
                }
            }
        }
    }
}

/// A draw from the standard normal distribution (Box and Muller).
fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

fn scale(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(DELAY_MAX)
}

/// The finaliser of SplitMix64: every bit of the input changes half of the output.
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Why a text is no law.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No such part.
    #[error(
        "`{0}`: not one of none, constant:TIME, exponential:MEAN, uniform:FROM..TO, \
         lognormal:MEDIAN/SIGMA, bimodal:USUAL/RARE@SHARE, stall:LENGTH@WHEN, errors:SHARE, \
         resets:SHARE, body:BYTES/TIME"
    )]
    Unknown(String),
    /// Its value is none.
    #[error("`{part}`: `{value}` is not {wanted}")]
    Value {
        /// The whole part.
        part: String,
        /// What does not fit.
        value: String,
        /// What would.
        wanted: &'static str,
    },
    /// A duration is none.
    #[error("`{part}`: {reason}")]
    Duration {
        /// The whole part.
        part: String,
        /// Why it is none.
        reason: String,
    },
    /// Two delays.
    #[error("`{0}`: a law has one delay")]
    SecondDelay(String),
    /// Stalls overlap, or are too many.
    #[error("stalls must not overlap, and be {STALLS_MAX} at most")]
    Stalls,
    /// Errors and resets together are more than all.
    #[error("errors and resets together are more than all requests")]
    Shares,
}

impl FromStr for Law {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut law = Self::default();
        if text == "none" {
            return Ok(law);
        }
        let mut delay = None;
        for part in text.split(',').map(str::trim) {
            let (name, value) = part.split_once(':').unwrap_or((part, ""));
            let value = Value { part, value };
            let drawn = match name {
                "constant" => Delay::Constant(value.duration()?),
                "exponential" => Delay::Exponential(value.duration()?),
                "uniform" => value.uniform()?,
                "lognormal" => value.lognormal()?,
                "bimodal" => value.bimodal()?,
                _ => {
                    law.add(name, &value)?;
                    continue;
                }
            };
            if delay.replace(drawn).is_some() {
                return Err(ParseError::SecondDelay(part.to_owned()));
            }
        }
        // A law that only stalls still keeps a record.
        law.delay = delay.unwrap_or(Delay::Constant(Duration::ZERO));
        law.stalls.sort_by_key(|it| it.at);
        let overlap = law.stalls.windows(2).any(|it| matches!(it, [a, b] if b.at < a.end()));
        if overlap || law.stalls.len() > STALLS_MAX {
            return Err(ParseError::Stalls);
        }
        if law.errors + law.resets > 1.0 {
            return Err(ParseError::Shares);
        }
        Ok(law)
    }
}

impl Law {
    /// Adds a part that is no delay.
    fn add(&mut self, name: &str, value: &Value<'_>) -> Result<(), ParseError> {
        match name {
            "stall" => {
                let (length, at) = value.split('@', "LENGTH@WHEN, as in 2s@5s")?;
                self.stalls.push(Stall { at: at.duration()?, length: length.duration()? });
            }
            "errors" => self.errors = value.share()?,
            "resets" => self.resets = value.share()?,
            "body" => {
                let (bytes, over) = value
                    .split('/', "BYTES/TIME")
                    .unwrap_or((Value { ..*value }, Value { part: value.part, value: "0s" }));
                self.body = Body { bytes: bytes.bytes()?, over: over.duration()? };
            }
            _ => return Err(ParseError::Unknown(value.part.to_owned())),
        }
        Ok(())
    }
}

/// A piece of a part, with the part for messages.
struct Value<'a> {
    part: &'a str,
    value: &'a str,
}

impl<'a> Value<'a> {
    fn wrong(&self, wanted: &'static str) -> ParseError {
        ParseError::Value { part: self.part.to_owned(), value: self.value.to_owned(), wanted }
    }

    fn split(&self, at: char, wanted: &'static str) -> Result<(Self, Self), ParseError> {
        let (before, after) = self.value.split_once(at).ok_or_else(|| self.wrong(wanted))?;
        let piece = |value: &'a str| Self { part: self.part, value };
        Ok((piece(before), piece(after)))
    }

    fn duration(&self) -> Result<Duration, ParseError> {
        parse_duration(self.value)
            .map_err(|reason| ParseError::Duration { part: self.part.to_owned(), reason })
    }

    fn share(&self) -> Result<f64, ParseError> {
        let number = match self.value.strip_suffix('%') {
            Some(percent) => percent.parse().map(|it: f64| it / 100.0),
            None => self.value.parse(),
        };
        let share = number.ok().filter(|it| (0.0..=1.0).contains(it));
        share.ok_or_else(|| self.wrong("a share, such as 5% or 0.05"))
    }

    fn bytes(&self) -> Result<usize, ParseError> {
        let bytes = self.value.parse().ok().filter(|it| *it <= BODY_MAX);
        bytes.ok_or_else(|| self.wrong("a number of bytes, at most 16777216"))
    }

    fn uniform(&self) -> Result<Delay, ParseError> {
        let wanted = "FROM..TO, as in 5ms..15ms";
        let (from, to) = self.value.split_once("..").ok_or_else(|| self.wrong(wanted))?;
        let piece = |value: &'a str| Self { part: self.part, value }.duration();
        let (from, to) = (piece(from)?, piece(to)?);
        if to < from {
            return Err(self.wrong(wanted));
        }
        Ok(Delay::Uniform(from, to))
    }

    fn lognormal(&self) -> Result<Delay, ParseError> {
        let (median, sigma) = self.split('/', "MEDIAN/SIGMA, as in 20ms/0.8")?;
        let number = sigma.value.parse().ok().filter(|it| (0.0..=10.0).contains(it));
        let sigma = number.ok_or_else(|| sigma.wrong("a number between 0 and 10"))?;
        Ok(Delay::Lognormal { median: median.duration()?, sigma })
    }

    fn bimodal(&self) -> Result<Delay, ParseError> {
        let (times, share) = self.split('@', "USUAL/RARE@SHARE, as in 5ms/100ms@10%")?;
        let (usual, rare) = times.split('/', "USUAL/RARE")?;
        let (usual, rare) = (usual.duration()?, rare.duration()?);
        Ok(Delay::Bimodal { usual, rare, share: share.share()? })
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = print_duration;
        match self.delay {
            Delay::None => return f.write_str("none"),
            Delay::Constant(it) => write!(f, "constant:{}", show(it)),
            Delay::Exponential(it) => write!(f, "exponential:{}", show(it)),
            Delay::Uniform(from, to) => write!(f, "uniform:{}..{}", show(from), show(to)),
            Delay::Lognormal { median, sigma } => write!(f, "lognormal:{}/{sigma}", show(median)),
            Delay::Bimodal { usual, rare, share } => {
                write!(f, "bimodal:{}/{}@{share}", show(usual), show(rare))
            }
        }?;
        for Stall { at, length } in &self.stalls {
            write!(f, ",stall:{}@{}", show(*length), show(*at))?;
        }
        for (name, share) in [("errors", self.errors), ("resets", self.resets)] {
            if share > 0.0 {
                write!(f, ",{name}:{share}")?;
            }
        }
        if self.body.bytes > 0 {
            write!(f, ",body:{}/{}", self.body.bytes, show(self.body.over))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let said = match text.parse::<Law>() {
            Ok(law) => {
                assert_eq!(law.to_string().parse(), Ok(law.clone()), "reads what it writes");
                law.to_string()
            }
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn laws() {
        check("none", expect!["none"]);
        check("constant:10ms", expect!["constant:10ms"]);
        check("stall:2s@5s", expect!["constant:0s,stall:2s@5s"]);
        check("uniform:5ms..15ms, errors:1%", expect!["uniform:5ms..15ms,errors:0.01"]);
        check("lognormal:20ms/0.8,body:1000", expect!["lognormal:20ms/0.8,body:1000/0s"]);
        check(
            "stall:1s@9s,bimodal:5ms/100ms@10%,stall:2s@5s,body:64/200ms,resets:0.5",
            expect!["bimodal:5ms/100ms@0.1,stall:2s@5s,stall:1s@9s,resets:0.5,body:64/200ms"],
        );
    }

    #[test]
    fn what_is_no_law() {
        check(
            "gamma:3",
            expect![
                "error: `gamma:3`: not one of none, constant:TIME, exponential:MEAN, uniform:FROM..TO, lognormal:MEDIAN/SIGMA, bimodal:USUAL/RARE@SHARE, stall:LENGTH@WHEN, errors:SHARE, resets:SHARE, body:BYTES/TIME"
            ],
        );
        check(
            "constant:soon",
            expect![
                "error: `constant:soon`: `soon` is no duration; write it as `500ms`, `2s`, `1m30s` or `1h`"
            ],
        );
        check(
            "constant:1s,exponential:1s",
            expect!["error: `exponential:1s`: a law has one delay"],
        );
        check(
            "stall:2s@5s,stall:1s@6s",
            expect!["error: stalls must not overlap, and be 100 at most"],
        );
        check(
            "errors:60%,resets:60%",
            expect!["error: errors and resets together are more than all requests"],
        );
        check(
            "errors:101%",
            expect!["error: `errors:101%`: `101%` is not a share, such as 5% or 0.05"],
        );
        check(
            "uniform:5ms..1ms",
            expect!["error: `uniform:5ms..1ms`: `5ms..1ms` is not FROM..TO, as in 5ms..15ms"],
        );
    }

    /// Mean and quantiles of many draws, in milliseconds.
    fn drawn(law: &str) -> (f64, [f64; 3]) {
        const DRAWS: u64 = 100_000;
        let law: Law = law.parse().unwrap();
        let mut drawn: Vec<f64> =
            (0..DRAWS).map(|it| law.fate(7, it).delay.as_secs_f64() * 1e3).collect();
        drawn.sort_by(f64::total_cmp);
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        (mean, [50, 90, 99].map(|it| drawn[drawn.len() * it / 100]))
    }

    fn near(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 0.02, "{found} is not near {expected}");
    }

    #[test]
    fn draws_follow_the_law() {
        assert_eq!(drawn("constant:10ms"), (10.0, [10.0; 3]));
        let (mean, [p50, p90, p99]) = drawn("exponential:10ms");
        near(mean, 10.0);
        near(p50, 10.0 * 2_f64.ln());
        near(p90, 10.0 * 10_f64.ln());
        near(p99, 10.0 * 100_f64.ln());
        let (mean, [p50, p90, _]) = drawn("uniform:10ms..20ms");
        near(mean, 15.0);
        near(p50, 15.0);
        near(p90, 19.0);
        let (mean, [p50, p90, _]) = drawn("lognormal:20ms/0.5");
        near(mean, 20.0 * 0.125_f64.exp());
        near(p50, 20.0);
        near(p90, 20.0 * (0.5 * 1.281_55_f64).exp());
        let (mean, quantiles) = drawn("bimodal:5ms/100ms@5%");
        near(mean, 9.75);
        assert_eq!(quantiles, [5.0, 5.0, 100.0]);
    }

    #[test]
    fn fate_depends_on_seed_and_index_only() {
        let law: Law = "exponential:10ms,errors:20%,resets:10%".parse().unwrap();
        let fates = |seed| (0..1000).map(|it| law.fate(seed, it)).collect::<Vec<_>>();
        assert_eq!(fates(1), fates(1));
        let same = fates(1).iter().zip(fates(2)).filter(|(a, b)| a.delay == b.delay).count();
        assert_eq!(same, 0, "other seed, other draws");
        let count = |outcome| fates(1).iter().filter(|it| it.outcome == outcome).count();
        assert!((150..250).contains(&count(Outcome::Error)), "{}", count(Outcome::Error));
        assert!((60..140).contains(&count(Outcome::Reset)), "{}", count(Outcome::Reset));
    }

    #[test]
    fn stalls_hold_what_is_due_in_them() {
        let law: Law = "constant:10ms,stall:2s@5s,body:10/20ms".parse().unwrap();
        let due = |arrival, held: bool| {
            let due = law.due(Duration::from_millis(arrival), Duration::from_millis(10));
            assert_eq!(due.held.is_some(), held);
            (due.head.as_millis(), due.last.as_millis())
        };
        assert_eq!(due(0, false), (10, 30));
        assert_eq!(due(4_965, false), (4_975, 4_995));
        // Its body was under way.
        assert_eq!(due(4_985, true), (4_995, 7_000));
        // It was waiting for its answer.
        assert_eq!(due(4_995, true), (7_000, 7_020));
        // It came while nobody looked.
        assert_eq!(due(5_000, true), (7_010, 7_030));
        assert_eq!(due(7_000, false), (7_010, 7_030));
    }
}
