//! What all connections of a server share: the law, the clock, the record. Knows no protocol.

use std::{
    cell::{Cell, RefCell},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::judge::{
    law::{Delay, Law, Outcome},
    record::{ENTRIES_MAX, Entry, LATE_AFTER, Own, Record, THAW_SHARE_MAX},
    server::alarm::{Alarm, now},
};

/// Between two looks at the clock by which the server measures its own lag.
const BEAT: Duration = Duration::from_millis(10);
/// In how many pieces a slow body is sent.
pub(super) const PIECES: usize = 10;

/// Law, clock and record of one server.
pub(super) struct Desk {
    pub(super) alarm: Alarm,
    law: Law,
    seed: u64,
    /// When the first request arrived; 0 before.
    began: Cell<u64>,
    entries: RefCell<Vec<Entry>>,
    own: Cell<Own>,
    /// When the last request arrived, for others.
    last: Arc<AtomicU64>,
}

/// What becomes of one request. Moments are those of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    /// Place in the record; `None` if it is not recorded.
    pub(super) index: Option<usize>,
    /// When the head of the answer is due.
    pub(super) head: u64,
    pub(super) outcome: Outcome,
}

impl Desk {
    pub(super) fn new(law: Law, seed: u64, last: Arc<AtomicU64>) -> io::Result<Self> {
        Ok(Self {
            alarm: Alarm::new()?,
            law,
            seed,
            began: Cell::new(0),
            entries: RefCell::default(),
            own: Cell::default(),
            last,
        })
    }

    /// Whether requests are recorded, or only answered as fast as can be.
    pub(super) fn records(&self) -> bool {
        self.law.delay != Delay::None
    }

    /// Size of the bodies.
    pub(super) const fn body(&self) -> usize {
        self.law.body.bytes
    }

    /// Pieces in which a body is sent after its head; 0 if it is sent with it.
    pub(super) fn pieces(&self) -> usize {
        if self.law.body.over.is_zero() { 0 } else { PIECES.min(self.law.body.bytes) }
    }

    /// When a piece, counted from 1, of an answer is due whose head was due at `head`.
    pub(super) fn piece(&self, head: u64, piece: usize) -> u64 {
        let share = piece as f64 / self.pieces().max(1) as f64;
        let since = Duration::from_nanos(head - self.began.get());
        self.moment(self.law.thaw(since + self.law.body.over.mul_f64(share)))
    }

    /// Takes a request that arrived at `moment`.
    pub(super) fn arrive(&self, moment: u64, connection: u32) -> Ticket {
        self.last.store(moment, Ordering::Relaxed);
        let mut entries = self.entries.borrow_mut();
        // Several may come with one read of one connection, after a later one of another.
        let moment = entries.last().map_or(moment, |it| it.arrival.max(moment));
        if entries.is_empty() {
            self.began.set(moment);
        }
        let mut own = self.own.get();
        let index = entries.len() as u64 + own.unrecorded;
        let fate = self.law.fate(self.seed, index);
        let due = self.law.due(Duration::from_nanos(moment - self.began.get()), fate.delay);
        let (head, last, outcome) = (self.moment(due.head), self.moment(due.last), fate.outcome);
        if entries.len() == ENTRIES_MAX {
            own.unrecorded += 1;
            self.own.set(own);
            return Ticket { index: None, head, outcome };
        }
        // Errors have no body.
        let due = if outcome == Outcome::Good { last } else { head };
        entries.push(Entry { arrival: moment, due, answer: None, connection, outcome });
        Ticket { index: Some(entries.len() - 1), head, outcome }
    }

    /// Notes when the last byte of an answer was handed to the kernel.
    pub(super) fn answered(&self, ticket: Option<usize>, moment: u64) {
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = ticket.and_then(|it| entries.get_mut(it)) {
            entry.answer = Some(moment);
        }
    }

    /// Notes a connection that could not be accepted.
    pub(super) fn refused(&self) {
        let own = self.own.get();
        self.own.set(Own { refused: own.refused + 1, ..own });
    }

    /// Measures the server's own lag, for ever.
    pub(super) async fn beat(&self) -> io::Result<()> {
        loop {
            let due = now() + nanoseconds(BEAT);
            self.alarm.until(due).await?;
            let late = Duration::from_nanos(now() - due) > LATE_AFTER && !self.is_thawing();
            let own = self.own.get();
            self.own.set(Own {
                beats: own.beats + 1,
                late_beats: own.late_beats + u64::from(late),
                ..own
            });
        }
    }

    /// Whether a stall has just ended: giving the answers that it held takes all the time there is.
    fn is_thawing(&self) -> bool {
        let since = Duration::from_nanos(now() - self.began.get());
        let thaw = |end: Duration, length: Duration| end + length.mul_f64(THAW_SHARE_MAX);
        let mut stalls = self.law.stalls.iter();
        self.began.get() > 0
            && stalls.any(|it| it.end() <= since && since < thaw(it.end(), it.length))
    }

    /// The record, at the end.
    pub(super) fn record(&self) -> Record {
        Record {
            law: self.law.clone(),
            seed: self.seed,
            entries: self.entries.take(),
            own: self.own.get(),
            pauses: Vec::new(),
        }
    }

    fn moment(&self, since: Duration) -> u64 {
        self.began.get() + nanoseconds(since)
    }
}

/// As a number; what does not fit is beyond the end of any run.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
