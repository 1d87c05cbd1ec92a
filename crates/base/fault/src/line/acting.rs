//! A fault at work on one direction of one connection: what it has decided and counted there.

use std::{hash::Hasher as _, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::End;
use crate::effect::{Distribution, Effect, Fault, Trigger};

/// Standard deviations that a normal delay stays within: what lies beyond is one in 15 000.
const DEVIATIONS_MAX: u32 = 4;

/// Most pieces that one read is cut into: a slicer of single bytes still makes progress, and a piece
/// costs many times its byte.
const SLICES_MAX: usize = 4096;

/// A fault as a route lists it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Which fault of that name: one that was removed and set again is another.
    pub(crate) id: u64,
    pub(crate) fault: Arc<Fault>,
}

/// A fault at work.
#[derive(Debug)]
pub(crate) struct Acting {
    id: u64,
    /// From 0 to 1: it acts if its probability is larger.
    pub(crate) draw: f64,
    /// Whether it has ever acted here.
    pub(crate) begun: bool,
    pub(crate) effect: Effect,
    /// When it began to act here.
    pub(crate) since: Instant,
    pub(crate) first_data: Option<Instant>,
    /// Bytes passed on since then.
    pub(crate) passed: u64,
}

impl Acting {
    pub(crate) fn new(listed: &Listed, seed: u64, now: Instant) -> Self {
        Self {
            id: listed.id,
            draw: fastrand::Rng::with_seed(seed ^ hash(&listed.fault.name)).f64(),
            begun: false,
            effect: listed.fault.effect.clone(),
            since: now,
            first_data: None,
            passed: 0,
        }
    }

    pub(crate) const fn is_of(&self, listed: &Listed) -> bool {
        self.id == listed.id
    }

    /// When it ends the connection by itself, and how.
    pub(crate) fn timer(&self) -> Option<(Instant, End)> {
        match self.effect {
            Effect::Timeout { after } => Some((self.since + after?, End::Close)),
            Effect::Reset { when: Trigger::Start(delay) } => Some((self.since + delay, End::Abort)),
            Effect::Reset { when: Trigger::Data(delay) } => {
                Some((self.first_data? + delay, End::Abort))
            }
            _ => None,
        }
    }

    pub(crate) const fn bytes_per_second(&self) -> Option<u64> {
        match self.effect {
            Effect::Bandwidth { rate } => Some(rate),
            _ => None,
        }
    }

    /// The delay of bytes that come now.
    pub(crate) fn delay(&self, random: &mut fastrand::Rng) -> Duration {
        let Effect::Latency { delay, jitter, distribution } = self.effect else {
            return Duration::ZERO;
        };
        if jitter.is_zero() {
            return delay;
        }
        let deviation = match distribution {
            Distribution::Uniform => random.f64().mul_add(2.0, -1.0),
            Distribution::Normal => normal(random),
        };
        let by = jitter.mul_f64(deviation.abs());
        if deviation < 0.0 { delay.saturating_sub(by) } else { delay + by }
    }

    /// The longest delay it gives to bytes.
    pub(crate) fn delay_max(&self) -> Duration {
        match self.effect {
            Effect::Latency { delay, jitter, distribution: Distribution::Uniform } => {
                delay + jitter
            }
            Effect::Latency { delay, jitter, distribution: Distribution::Normal } => {
                delay + jitter * DEVIATIONS_MAX
            }
            _ => Duration::ZERO,
        }
    }

    /// The wait it makes between two pieces.
    pub(crate) const fn delay_between(&self) -> Duration {
        match self.effect {
            Effect::Slicer { delay, .. } => delay,
            _ => Duration::ZERO,
        }
    }
}

/// Sizes of the pieces that `bytes` are cut into: one without a slicer.
pub(crate) fn slice(acting: &[Acting], bytes: usize, random: &mut fastrand::Rng) -> Vec<usize> {
    let sizes = acting.iter().find_map(|it| match it.effect {
        Effect::Slicer { average, variation, .. } => Some((average, variation)),
        _ => None,
    });
    let Some((average, variation)) = sizes else { return vec![bytes] };
    let average = average.max(bytes / SLICES_MAX);
    let mut pieces = Vec::with_capacity(bytes / average + 1);
    let mut left = bytes;
    while left > 0 {
        let size = random.usize(average - variation..=average + variation).min(left);
        pieces.push(size);
        left -= size;
    }
    pieces
}

/// From a normal distribution with mean 0 and deviation 1, by Box and Muller; never beyond
/// [`DEVIATIONS_MAX`].
fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    let max = f64::from(DEVIATIONS_MAX);
    (radius * (std::f64::consts::TAU * random.f64()).cos()).clamp(-max, max)
}

/// A number for a name that is the same in every run.
pub(crate) fn hash(name: &str) -> u64 {
    // SipHash with fixed keys.
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}
