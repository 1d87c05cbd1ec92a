//! Carries the bytes of one direction from socket to socket, as its [`Line`] says. Ends of the whole
//! connection are `connection`'s affair.

use std::{
    cell::RefCell,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    alarm::Alarm,
    line::{End, Line, Listed, Step},
    statistics::Counters,
};

/// Bytes that wait in all connections of a proxy together, at most. Beyond it a direction takes more
/// only when it holds nothing, which keeps every connection going.
pub(crate) const HELD_BYTES_MAX: usize = 512 << 20;

/// Bytes read at once. Larger ones were no faster over the loopback; one buffer serves a whole thread.
const READ_BYTES: usize = 256 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What all pumps of a proxy share.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) alarm: Alarm,
    /// Bytes that wait in all lines together.
    pub(crate) held: Arc<AtomicUsize>,
}

/// Tells one pump that its source, to which the other pump writes, is gone.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    happened: AtomicBool,
    wake: Notify,
}

impl Gone {
    /// Says so.
    pub(crate) fn set(&self) {
        self.happened.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// One direction at work.
#[derive(Debug)]
pub(crate) struct Pump<'a> {
    pub(crate) source: &'a TcpStream,
    pub(crate) sink: &'a TcpStream,
    pub(crate) line: Line,
    pub(crate) faults: watch::Receiver<Arc<[Listed]>>,
    pub(crate) common: Common,
    /// Of the route and of the connection.
    pub(crate) counters: [Arc<Counters>; 2],
    /// Whether the source is gone.
    pub(crate) source_gone: &'a Gone,
    /// What of this line stands in [`Common::held`].
    pub(crate) counted: usize,
}

/// How a pump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As its line said.
    Line(End),
    /// The sink takes nothing any more.
    SinkGone,
}

impl Pump<'_> {
    /// Carries bytes until this direction is over.
    pub(crate) async fn run(&mut self) -> Ended {
        let mut faults_changed = true;
        loop {
            let now = Instant::now();
            if std::mem::take(&mut faults_changed) {
                let faults = self.faults.borrow_and_update().clone();
                for kind in self.line.set(now, &faults) {
                    self.counters.iter().for_each(|it| it.count_fault(kind));
                }
            }
            if self.source_gone.happened.swap(false, Ordering::AcqRel) {
                self.line.end(now, End::Reset);
            }
            let step = self.line.step(now);
            let (blocked, until) = match step {
                Step::End(end) => return Ended::Line(end),
                Step::Wait(until) => (false, until),
                Step::Write(bytes) => match self.sink.try_write(bytes) {
                    Ok(written) => {
                        self.wrote(now, written);
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => (true, None),
                    Err(_) => return Ended::SinkGone,
                },
            };
            self.count_held();
            let until = if blocked { self.line.timer() } else { until };
            let reads = self.room() > 0;
            tokio::select! {
                biased;
                // Without a sender the faults stay as they are.
                Ok(()) = self.faults.changed() => faults_changed = true,
                () = self.source_gone.wake.notified() => {}
                () = self.common.alarm.until(until) => {}
                _ = self.sink.writable(), if blocked => {}
                _ = self.source.readable(), if reads => {
                    if self.read() == Read::SinkGone {
                        return Ended::SinkGone;
                    }
                }
            }
        }
    }

    fn room(&self) -> usize {
        let full = self.counted > 0 && self.common.held.load(Ordering::Relaxed) >= HELD_BYTES_MAX;
        if full { 0 } else { self.line.room() }
    }

    /// Reads what there is, and writes at once what no fault holds back.
    fn read(&mut self) -> Read {
        let room = self.room();
        BUFFER.with_borrow_mut(|buffer| {
            let end = room.min(buffer.len());
            let Some(buffer) = buffer.get_mut(..end) else { return Read::More };
            let bytes = match self.source.try_read(buffer) {
                Ok(0) => {
                    self.line.end(Instant::now(), End::Finish);
                    return Read::More;
                }
                Ok(read) => buffer.get(..read).unwrap_or(buffer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::More,
                Err(_) => {
                    self.line.end(Instant::now(), End::Reset);
                    return Read::More;
                }
            };
            self.counters.iter().for_each(|it| it.received(bytes.len() as u64));
            let mut rest = bytes;
            if self.line.is_transparent() {
                match self.sink.try_write(bytes) {
                    Ok(written) => {
                        self.counters.iter().for_each(|it| it.delivered(written as u64));
                        rest = bytes.get(written..).unwrap_or_default();
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Read::SinkGone,
                }
            }
            if !rest.is_empty() {
                self.line.push(Instant::now(), rest);
                let swallowed = self.line.take_swallowed();
                self.counters.iter().for_each(|it| it.swallowed(swallowed));
            }
            Read::More
        })
    }

    fn wrote(&mut self, now: Instant, bytes: usize) {
        self.line.wrote(now, bytes);
        self.counters.iter().for_each(|it| it.delivered(bytes as u64));
    }

    fn count_held(&mut self) {
        let held = self.line.held();
        if held > self.counted {
            self.common.held.fetch_add(held - self.counted, Ordering::Relaxed);
        } else if held < self.counted {
            self.common.held.fetch_sub(self.counted - held, Ordering::Relaxed);
        }
        self.counted = held;
    }
}

impl Drop for Pump<'_> {
    fn drop(&mut self) {
        self.common.held.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// There may be more.
    More,
    /// What was read cannot be written.
    SinkGone,
}
