//! What a fault is: which bytes it acts on, how likely, and what it does to them. Plain data; what
//! comes of it in time is decided in `line`.

use std::{fmt, time::Duration};

/// Longest name of a route or a fault, in bytes: it is part of an URL.
pub const NAME_BYTES_MAX: usize = 128;

/// Longest delay of any fault: a day. Longer than any test, short enough to be added up.
pub const DELAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Which bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the client to the server.
    Upstream,
    /// From the server to the client.
    Downstream,
}

impl Direction {
    /// Both, in the order in which they are listed.
    pub const ALL: [Self; 2] = [Self::Upstream, Self::Downstream];

    /// Its name in the HTTP API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Downstream => "downstream",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One fault of one direction of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Name, unique in its route.
    pub name: String,
    /// The bytes it acts on.
    pub direction: Direction,
    /// Share of connections it acts on, from 0 to 1. Whether it acts on a connection is decided by
    /// the seed, the connection's number and the fault's name.
    pub probability: f64,
    /// What it does.
    pub effect: Effect,
}

/// What a fault does to the bytes of its direction. Several act together: delays add up, the
/// smallest rate and the smallest limit hold. Except where it is said, no byte is lost, doubled or
/// moved before another.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Every piece that is read is delivered `delay` later, give or take `jitter`; order stays.
    Latency {
        /// Mean delay.
        delay: Duration,
        /// By how much it differs: the bounds, or the standard deviation.
        jitter: Duration,
        /// How it differs.
        distribution: Distribution,
    },
    /// At most so many bytes a second. 0 lets nothing pass.
    Bandwidth {
        /// Bytes a second.
        rate: u64,
    },
    /// Bytes are delivered in small pieces.
    Slicer {
        /// Mean size of a piece, in bytes.
        average: usize,
        /// By how much it differs, in bytes; less than the mean.
        variation: usize,
        /// Wait between two pieces.
        delay: Duration,
    },
    /// The end of the connection is passed on so much later.
    SlowClose {
        /// How much.
        delay: Duration,
    },
    /// Bytes are swallowed; after `after` both ends are closed, if it is given. They are also closed
    /// when the fault is taken away.
    Timeout {
        /// Time from the fault's beginning on this connection.
        after: Option<Duration>,
    },
    /// Both ends are reset (RST).
    Reset {
        /// When.
        when: Trigger,
    },
    /// So many bytes are delivered, counted from the fault's beginning; then both ends are closed.
    Truncate {
        /// How many.
        bytes: u64,
    },
    /// Bytes are swallowed, and the connection is kept: its end too is held back until the fault is
    /// taken away. What follows is delivered, after a hole.
    Blackhole,
    /// Nothing is read, and neither an end nor a reset is passed on: the receiver believes that the
    /// sender lives. When the fault is taken away, all that was held back is delivered.
    HalfOpen,
}

/// How jitter is spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Evenly between the bounds.
    #[default]
    Uniform,
    /// Normally, never below zero delay.
    Normal,
}

/// When a reset comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// So long after the first bytes or the end that this direction sees.
    Data(Duration),
    /// So long after the fault began on this connection.
    Start(Duration),
    /// After so many bytes were passed on, counted from the fault's beginning.
    Bytes(u64),
}

/// What is wrong with a fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The name cannot stand in an URL.
    #[error("name `{0}`: 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_`, `.` and `:` are allowed")]
    Name(String),
    /// Not a share.
    #[error("probability {0}: it goes from 0 to 1")]
    Probability(String),
    /// Too long.
    #[error("{0} of {1:?}: at most a day is allowed")]
    Delay(&'static str, Duration),
    /// Pieces that could be empty.
    #[error(
        "slicer with average size {average} and variation {variation}: the average must be the larger one and not 0"
    )]
    Slicer {
        /// Mean size.
        average: usize,
        /// Variation.
        variation: usize,
    },
}

/// Whether `name` may name a route or a fault.
pub(crate) fn check_name(name: &str) -> Result<(), Invalid> {
    let allowed = |it: u8| it.is_ascii_alphanumeric() || b"-_.:".contains(&it);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(Invalid::Name(name.to_owned()));
    }
    Ok(())
}

impl Fault {
    /// Whether the proxy can do that.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        check_name(&self.name)?;
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(Invalid::Probability(self.probability.to_string()));
        }
        let delays: &[(&'static str, Duration)] = match &self.effect {
            Effect::Latency { delay, jitter, .. } => &[("delay", *delay), ("jitter", *jitter)],
            Effect::Slicer { average, variation, delay } => {
                if *average == 0 || variation >= average {
                    let (average, variation) = (*average, *variation);
                    return Err(Invalid::Slicer { average, variation });
                }
                &[("delay", *delay)]
            }
            Effect::SlowClose { delay } => &[("delay", *delay)],
            Effect::Timeout { after: Some(after) } => &[("timeout", *after)],
            Effect::Reset { when: Trigger::Data(delay) | Trigger::Start(delay) } => {
                &[("delay", *delay)]
            }
            Effect::Bandwidth { .. }
            | Effect::Timeout { after: None }
            | Effect::Reset { when: Trigger::Bytes(_) }
            | Effect::Truncate { .. }
            | Effect::Blackhole
            | Effect::HalfOpen => &[],
        };
        match delays.iter().find(|(_, it)| *it > DELAY_MAX) {
            Some((what, delay)) => Err(Invalid::Delay(what, *delay)),
            None => Ok(()),
        }
    }
}

impl Effect {
    /// The name of its kind: Toxiproxy's where Toxiproxy has it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Bandwidth { .. } => "bandwidth",
            Self::Slicer { .. } => "slicer",
            Self::SlowClose { .. } => "slow_close",
            Self::Timeout { .. } => "timeout",
            Self::Reset { .. } => "reset_peer",
            Self::Truncate { .. } => "limit_data",
            Self::Blackhole => "blackhole",
            Self::HalfOpen => "half_open",
        }
    }
}
