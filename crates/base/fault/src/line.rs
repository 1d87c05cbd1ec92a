//! One direction of one connection: what its faults make of bytes and of the end, and when. Does no
//! IO and knows no clock: time is handed in, so tests are exact.

mod acting;
mod rate;

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::effect::{Effect, Trigger};
use acting::Acting;
pub(crate) use acting::{Listed, hash};
use rate::Rate;

/// Bytes that wait in one direction of one connection at most; then its source is no longer read, and
/// TCP slows the sender down. As much as Linux lets a receiver's window grow (`tcp_rmem`), so a delay
/// of one second still carries what a real line with it would.
pub(crate) const WAITING_BYTES_MAX: usize = 6 << 20;

/// Bytes that wait where nothing delays them: enough to keep a socket busy, too few to make a slow
/// receiver look fast.
const WAITING_BYTES_UNDELAYED: usize = 64 << 10;

/// What a piece counts besides its bytes, so that many tiny ones have a limit too.
const PIECE_BYTES: usize = size_of::<Piece>();

/// Above this, the memory of an emptied queue is given back.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The source has said its last; the sink is told so (FIN).
    Finish,
    /// The source was reset; the sink is reset.
    Reset,
    /// A fault closes both ends.
    Close,
    /// A fault resets both ends.
    Abort,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// Write these bytes, or the first of them.
    Write(&'a [u8]),
    /// Nothing until then; without a time, until bytes or other faults come.
    Wait(Option<Instant>),
    /// This direction is over.
    End(End),
}

/// Bytes that were read together and are delivered together.
#[derive(Clone, Copy, Debug)]
struct Piece {
    arrived: Instant,
    due: Instant,
    bytes: usize,
    /// Whether it goes out alone, as a piece of its own.
    alone: bool,
}

/// One direction of one connection.
#[derive(Debug)]
pub(crate) struct Line {
    seed: u64,
    acting: Vec<Acting>,
    waiting: VecDeque<u8>,
    pieces: VecDeque<Piece>,
    rate: Option<Rate>,
    /// The source's end and when it came, or the end that a fault put behind the last byte.
    end: Option<(End, Instant)>,
    /// A fault that was taken away closes the connection.
    closed: bool,
    swallowed: u64,
    random: fastrand::Rng,
}

impl Line {
    /// A line without faults. The same `seed` gives the same choices.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            acting: Vec::new(),
            waiting: VecDeque::new(),
            pieces: VecDeque::new(),
            rate: None,
            end: None,
            closed: false,
            swallowed: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes `faults` in the place of all there were. What a fault of the same name has counted is
    /// kept. Returns the kinds that begin to act.
    pub(crate) fn set(&mut self, now: Instant, faults: &[Listed]) -> Vec<&'static str> {
        let mut before = std::mem::take(&mut self.acting);
        let mut begun = Vec::new();
        for listed in faults {
            let known = before.iter().position(|it| it.is_of(listed));
            let mut acting = match known {
                Some(at) => before.swap_remove(at),
                None => Acting::new(listed, self.seed, now),
            };
            acting.effect.clone_from(&listed.fault.effect);
            if acting.draw < listed.fault.probability {
                if !acting.begun {
                    acting.begun = true;
                    acting.since = now;
                    begun.push(acting.effect.kind());
                }
                self.acting.push(acting);
            } else if known.is_some() {
                before.push(acting);
            }
        }
        self.closed |=
            before.iter().any(|it| it.begun && matches!(it.effect, Effect::Timeout { .. }));
        self.reshape(now);
        begun
    }

    /// Brings what waits in line with the faults that act now.
    fn reshape(&mut self, now: Instant) {
        let slowest = self.acting.iter().filter_map(Acting::bytes_per_second).min();
        self.rate = slowest.map(|rate| match self.rate.take() {
            Some(old) => old.changed(rate),
            None => Rate::new(rate, now),
        });
        // What waits, waits no longer than it would if it came now.
        let longest: Duration = self.acting.iter().map(Acting::delay_max).sum();
        let alone: Duration = self.acting.iter().map(Acting::delay_between).sum();
        for (index, piece) in (0_u32..).zip(&mut self.pieces) {
            let between = alone.saturating_mul(index);
            piece.due = piece.due.min(piece.arrived + longest + between);
        }
    }

    /// How many bytes may be read from the source now.
    pub(crate) fn room(&self) -> usize {
        if self.end.is_some() || self.closed || self.is_held() {
            return 0;
        }
        if self.is_swallowing() {
            return WAITING_BYTES_UNDELAYED;
        }
        let delay: Duration = self.acting.iter().map(Acting::delay_max).sum();
        let under_way = match &self.rate {
            _ if delay.is_zero() => 0,
            None => WAITING_BYTES_MAX,
            Some(rate) => rate.bytes_in(delay),
        };
        let max = WAITING_BYTES_UNDELAYED.saturating_add(under_way).min(WAITING_BYTES_MAX);
        max.saturating_sub(self.held())
    }

    /// Memory that waits here, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.waiting.len() + self.pieces.len() * PIECE_BYTES
    }

    /// Whether bytes that come now may be written at once, past this line.
    pub(crate) fn is_transparent(&self) -> bool {
        self.acting.is_empty() && self.pieces.is_empty() && self.end.is_none() && !self.closed
    }

    /// Bytes that faults have swallowed since this was last asked.
    pub(crate) fn take_swallowed(&mut self) -> u64 {
        std::mem::take(&mut self.swallowed)
    }

    /// Takes bytes that the source has sent.
    pub(crate) fn push(&mut self, now: Instant, bytes: &[u8]) {
        let all = bytes.len();
        let mut bytes = bytes;
        let mut end = None;
        for acting in &mut self.acting {
            acting.first_data.get_or_insert(now);
            let (limit, then) = match acting.effect {
                Effect::Truncate { bytes } => (bytes, End::Close),
                Effect::Reset { when: Trigger::Bytes(bytes) } => (bytes, End::Abort),
                _ => continue,
            };
            let left = usize::try_from(limit.saturating_sub(acting.passed)).unwrap_or(usize::MAX);
            if left <= bytes.len() {
                bytes = bytes.get(..left).unwrap_or(bytes);
                end = Some(then);
            }
            acting.passed += bytes.len() as u64;
        }
        if self.is_swallowing() {
            bytes = &[];
        }
        self.swallowed += (all - bytes.len()) as u64;
        self.enqueue(now, bytes);
        if let Some(end) = end {
            self.end.get_or_insert((end, now));
        }
    }

    fn enqueue(&mut self, now: Instant, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let delay: Duration = self.acting.iter().map(|it| it.delay(&mut self.random)).sum();
        let latest = self.pieces.back().map_or(now, |it| it.due);
        let mut due = latest.max(now + delay);
        let sizes = acting::slice(&self.acting, bytes.len(), &mut self.random);
        let between: Duration = self.acting.iter().map(Acting::delay_between).sum();
        self.waiting.extend(bytes);
        let alone = self.acting.iter().any(|it| matches!(it.effect, Effect::Slicer { .. }));
        for bytes in sizes {
            self.pieces.push_back(Piece { arrived: now, due, bytes, alone });
            due += between;
        }
    }

    /// Takes the source's end: nothing comes after it.
    pub(crate) fn end(&mut self, now: Instant, end: End) {
        for acting in &mut self.acting {
            acting.first_data.get_or_insert(now);
        }
        if end == End::Reset || self.end.is_none() {
            self.end = Some((end, now));
        }
    }

    /// What is to be done now.
    pub(crate) fn step(&self, now: Instant) -> Step<'_> {
        if self.closed {
            return Step::End(End::Close);
        }
        let timer = self.acting.iter().filter_map(Acting::timer).min_by_key(|(at, _)| *at);
        if let Some((_, end)) = timer.filter(|(at, _)| *at <= now) {
            return Step::End(end);
        }
        let timer = timer.map(|(at, _)| at);
        if self.is_held() {
            return Step::Wait(timer);
        }
        match self.ready(now) {
            Ok(0) => {}
            Ok(bytes) => {
                let (front, _) = self.waiting.as_slices();
                return Step::Write(front.get(..bytes).unwrap_or(front));
            }
            Err(at) => return Step::Wait(earlier(timer, at)),
        }
        match self.end {
            None => Step::Wait(timer),
            Some((End::Finish | End::Reset, _)) if self.is_blackholed() => Step::Wait(timer),
            Some((end, came)) => {
                let due = came + self.end_delay(end);
                if due <= now { Step::End(end) } else { Step::Wait(earlier(timer, Some(due))) }
            }
        }
    }

    /// When a fault ends the connection by itself.
    pub(crate) fn timer(&self) -> Option<Instant> {
        self.acting.iter().filter_map(Acting::timer).map(|(at, _)| at).min()
    }

    /// How many bytes may go out now; otherwise when some may. None waits for ever if the rate is 0.
    fn ready(&self, now: Instant) -> Result<usize, Option<Instant>> {
        let Some(first) = self.pieces.front() else { return Ok(0) };
        if first.due > now {
            return Err(Some(first.due));
        }
        let due: usize = if first.alone {
            first.bytes
        } else {
            let due = self.pieces.iter().take_while(|it| !it.alone && it.due <= now);
            due.map(|it| it.bytes).sum()
        };
        match &self.rate {
            None => Ok(due),
            Some(rate) => rate.allows(now, due),
        }
    }

    fn end_delay(&self, end: End) -> Duration {
        let of = |it: &Acting| match (&it.effect, end) {
            (Effect::SlowClose { delay }, End::Finish) => *delay,
            (Effect::Latency { delay, .. }, End::Finish | End::Reset) => *delay,
            _ => Duration::ZERO,
        };
        self.acting.iter().map(of).sum()
    }

    /// Takes note that so many of the bytes of [`Step::Write`] were written.
    pub(crate) fn wrote(&mut self, now: Instant, bytes: usize) {
        self.waiting.drain(..bytes.min(self.waiting.len()));
        let mut left = bytes;
        while left > 0
            && let Some(first) = self.pieces.front_mut()
        {
            let taken = left.min(first.bytes);
            first.bytes -= taken;
            left -= taken;
            if first.bytes == 0 {
                self.pieces.pop_front();
            }
        }
        if let Some(rate) = &mut self.rate {
            rate.spent(now, bytes);
        }
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_BYTES_MAX {
            self.waiting = VecDeque::new();
            self.pieces = VecDeque::new();
        }
    }

    fn is_held(&self) -> bool {
        self.acting.iter().any(|it| matches!(it.effect, Effect::HalfOpen))
    }

    fn is_blackholed(&self) -> bool {
        self.acting.iter().any(|it| matches!(it.effect, Effect::Blackhole))
    }

    fn is_swallowing(&self) -> bool {
        let swallows =
            |it: &Acting| matches!(it.effect, Effect::Blackhole | Effect::Timeout { .. });
        self.acting.iter().any(swallows)
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
