//! What becomes of one packet: lost, or when it comes, how often and how whole. Pure: the time and the dice
//! are handed in.
//!
//! Packets of one flow keep their order, also with jitter: what overtakes looks to TCP like loss, and few
//! networks do that. So with jitter, a packet that would overtake comes with the one before it.

use std::time::Duration;

/// Time since any moment.
pub(super) type Time = Duration;

/// What a rate lets wait is worth this time, so that TCP is slowed rather than made to wait forever.
const BACKLOG_MAX: Duration = Duration::from_millis(500);
/// But at least so many bytes: a window of packets, without which TCP would only ever lose.
const BACKLOG_BYTES_MIN: u64 = 32 * 1024;

/// Flows whose order is told apart: more share it, and then wait for each other.
const FLOWS: usize = 1 << 10;

/// How packets towards a pod are disturbed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) loss: f64,
    pub(super) duplicate: f64,
    pub(super) corrupt: f64,
    pub(super) bytes_per_second: Option<u64>,
}

/// A way to a pod that is disturbed.
#[derive(Clone, Debug)]
pub(super) struct Line {
    shape: Shape,
    /// When everything that was let in is through.
    free_at: Time,
}

/// What becomes of a packet that is not lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// When it comes.
    pub(super) due: Time,
    /// How often.
    pub(super) copies: u32,
    /// Whether one of its bits is wrong.
    pub(super) is_corrupt: bool,
}

impl Line {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, free_at: Time::ZERO }
    }

    /// Whether this is what it does.
    pub(super) fn is_of(&self, shape: Shape) -> bool {
        self.shape == shape
    }

    /// Sends a packet of `length` bytes, on which `fate` is so far. None: it is lost.
    pub(super) fn pass(&mut self, fate: Fate, length: usize, dice: &mut Dice) -> Option<Fate> {
        let Shape { delay, jitter, loss, duplicate, corrupt, bytes_per_second } = self.shape;
        let Fate { mut due, mut copies, mut is_corrupt } = fate;
        if dice.happens(loss) {
            return None;
        }
        if dice.happens(duplicate) {
            copies = copies.saturating_add(1);
        }
        is_corrupt |= dice.happens(corrupt);
        if let Some(rate) = bytes_per_second {
            let length = u64::try_from(length).unwrap_or(u64::MAX).saturating_mul(copies.into());
            let through = self.free_at.max(due).saturating_add(time_of(length, rate));
            let backlog_max = BACKLOG_MAX.max(time_of(BACKLOG_BYTES_MIN, rate));
            if through.saturating_sub(due) > backlog_max {
                return None;
            }
            self.free_at = through;
            due = through;
        }
        // From `delay - jitter` to `delay + jitter`.
        let late = delay.saturating_add(scaled(jitter.saturating_mul(2), dice.share()));
        due = due.saturating_add(late.saturating_sub(jitter));
        Some(Fate { due, copies, is_corrupt })
    }
}

/// How long `bytes` take.
fn time_of(bytes: u64, bytes_per_second: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

fn scaled(duration: Duration, share: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * share).unwrap_or(duration)
}

/// Keeps flows in order.
#[derive(Debug)]
pub(super) struct Order {
    /// When the last packet comes, by the flow's hash.
    last: Vec<Time>,
}

impl Default for Order {
    fn default() -> Self {
        Self { last: vec![Time::ZERO; FLOWS] }
    }
}

impl Order {
    /// When a packet comes that could at `due`.
    pub(super) fn keep(&mut self, flow: usize, due: Time) -> Time {
        let Some(last) = self.last.get_mut(flow % FLOWS) else { return due };
        *last = due.max(*last);
        *last
    }
}

/// Chance: SplitMix64, the same for the same seed. Nobody guesses anything from it.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From 0 to just below 1.
    fn share(&mut self) -> f64 {
        let high = u32::try_from(self.number() >> 32).unwrap_or(u32::MAX);
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }

    /// Whether something with this probability happens. Throws only where it matters.
    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.share() < probability
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: Shape = Shape {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: 0.0,
        duplicate: 0.0,
        corrupt: 0.0,
        bytes_per_second: None,
    };

    fn fresh(now: Time) -> Fate {
        Fate { due: now, copies: 1, is_corrupt: false }
    }

    /// What becomes of a thousand packets that are sent at once.
    fn thousand(shape: Shape) -> Vec<Option<Fate>> {
        let (mut line, mut dice) = (Line::new(shape), Dice::new(7));
        (0..1000).map(|_| line.pass(fresh(Time::ZERO), 1000, &mut dice)).collect()
    }

    fn share_of(fates: &[Option<Fate>], is_so: impl Fn(&Option<Fate>) -> bool) -> f64 {
        let count = fates.iter().filter(|it| is_so(it)).count();
        f64::from(u32::try_from(count).unwrap()) / 1000.0
    }

    #[test]
    fn nothing_changes_nothing() {
        assert!(thousand(NOTHING).iter().all(|it| *it == Some(fresh(Time::ZERO))));
    }

    #[test]
    fn chance_is_as_it_was_asked_for() {
        let fates = thousand(Shape { loss: 0.3, ..NOTHING });
        assert!((0.25..0.35).contains(&share_of(&fates, Option::is_none)));
        let fates = thousand(Shape { duplicate: 0.3, corrupt: 0.5, ..NOTHING });
        let doubled = share_of(&fates, |it| it.is_some_and(|it| it.copies == 2));
        let corrupt = share_of(&fates, |it| it.is_some_and(|it| it.is_corrupt));
        assert!((0.25..0.35).contains(&doubled) && (0.45..0.55).contains(&corrupt));
        assert!(thousand(Shape { loss: 1.0, ..NOTHING }).iter().all(Option::is_none));
        assert!(thousand(Shape { loss: f64::NAN, ..NOTHING }).iter().all(Option::is_some));
    }

    #[test]
    fn a_rate_lets_some_wait_and_loses_the_rest() {
        let fates = thousand(Shape { bytes_per_second: Some(100_000), ..NOTHING });
        let through: Vec<Time> = fates.into_iter().flatten().map(|it| it.due).collect();
        let expected = (1..=50).map(|it| Duration::from_millis(10 * it));
        assert_eq!(through, expected.collect::<Vec<_>>());
        // However slow, a window of packets is let in.
        let fates = thousand(Shape { bytes_per_second: Some(1000), ..NOTHING });
        assert_eq!(fates.into_iter().flatten().count(), 32);
        assert!(thousand(Shape { bytes_per_second: Some(0), ..NOTHING })[0].is_some());
    }

    #[test]
    fn effects_add() {
        let rate = Shape { bytes_per_second: Some(1_000_000), ..NOTHING };
        let delay = Shape { delay: Duration::from_millis(50), ..NOTHING };
        let mut dice = Dice::new(1);
        let once = Line::new(rate).pass(fresh(Time::ZERO), 1000, &mut dice).unwrap();
        let twice = Line::new(delay).pass(once, 1000, &mut dice).unwrap();
        assert_eq!(twice.due, Duration::from_millis(51));
    }

    #[test]
    fn nothing_overflows() {
        let shape = Shape { delay: Duration::MAX, jitter: Duration::MAX, ..NOTHING };
        assert!(thousand(shape).iter().all(Option::is_some));
    }

    fn packets() -> impl Strategy<Value = Vec<(u64, usize, usize)>> {
        prop::collection::vec((0..20_000_u64, 1..1500_usize, 0..3_usize), 1..200)
    }

    proptest! {
        /// Order in each flow, bounds of delay and jitter, and the rate in whatever time.
        #[test]
        fn a_line_does_what_it_says(
            packets in packets(), seed: u64,
            delay in 0..50_u64, jitter in 0..60_u64, rate in 10_000..10_000_000_u64,
        ) {
            let milliseconds = Duration::from_millis;
            let (delay, jitter) = (milliseconds(delay), milliseconds(jitter));
            let mut late = Line::new(Shape { delay, jitter, ..NOTHING });
            let mut slow = Line::new(Shape { bytes_per_second: Some(rate), ..NOTHING });
            let (mut order, mut dice) = (Order::default(), Dice::new(seed));
            let (mut now, mut last) = (Time::ZERO, [Time::ZERO; 3]);
            let (mut through, mut bytes) = (Vec::new(), 0);
            for (pause, length, flow) in packets {
                now += Duration::from_micros(pause);
                let due = late.pass(fresh(now), length, &mut dice).unwrap().due;
                // A share is a fraction of 2^32: some nanoseconds are lost.
                let slack = Duration::from_micros(1);
                prop_assert!(due + slack >= now + delay.saturating_sub(jitter));
                prop_assert!(due <= now + delay + jitter + slack);
                let kept = order.keep(flow, due);
                prop_assert!(kept >= due && kept >= last[flow]);
                prop_assert!(kept == due || kept == last[flow]);
                last[flow] = kept;
                if let Some(fate) = slow.pass(fresh(now), length, &mut dice) {
                    prop_assert!(fate.due - now <= BACKLOG_MAX.max(time_of(BACKLOG_BYTES_MIN, rate)));
                    through.push((fate.due, length as u64));
                    bytes += length as u64;
                }
            }
            // From the end of any packet to the end of any other no more comes than the rate allows.
            for (index, (start, first)) in through.iter().enumerate() {
                let mut sum = 0;
                for (end, length) in through.iter().skip(index + 1) {
                    sum += length;
                    let slack = Duration::from_nanos(through.len() as u64);
                    prop_assert!(*end - *start + slack >= time_of(sum, rate));
                }
                bytes -= first;
            }
            prop_assert_eq!(bytes, 0);
        }
    }
}
