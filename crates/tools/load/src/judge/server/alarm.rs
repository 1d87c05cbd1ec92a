//! The machine's monotonic clock, and waiting for an exact moment of it. The runtime's own timers
//! have steps of a millisecond, a tenth of what is judged here; a timer of the kernel has none.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::BinaryHeap,
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    task::{Poll, Waker},
};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

pub(super) const NANOSECONDS: u64 = 1_000_000_000;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(super) fn now() -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    // Neither is ever negative.
    tv_sec.unsigned_abs() * NANOSECONDS + tv_nsec.unsigned_abs()
}

/// Wakes tasks of one thread at exact moments.
pub(super) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    sleepers: RefCell<BinaryHeap<Reverse<Sleeper>>>,
    /// What the timer is set to; 0 if it is not.
    set: Cell<u64>,
}

/// A task that waits.
struct Sleeper {
    due: u64,
    waker: Waker,
}

impl Alarm {
    /// Makes the timer; must be called within a runtime.
    pub(super) fn new() -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let timer = runtime::watch_descriptor(timer, Interest::READABLE)?;
        Ok(Self { timer, sleepers: RefCell::default(), set: Cell::new(0) })
    }

    /// Wakes those who are due; to be run beside them.
    pub(super) async fn run(&self) -> io::Result<()> {
        loop {
            self.timer.readable().await?.clear_ready();
            self.set.set(0);
            let now = now();
            let next = loop {
                let mut sleepers = self.sleepers.borrow_mut();
                match sleepers.peek() {
                    Some(Reverse(it)) if it.due > now => break Some(it.due),
                    Some(_) => {}
                    None => break None,
                }
                let woken = sleepers.pop();
                drop(sleepers);
                if let Some(Reverse(it)) = woken {
                    it.waker.wake();
                }
            };
            if let Some(next) = next {
                self.set(next)?;
            }
        }
    }

    /// Wakes a task at a moment; it may be in the past.
    pub(super) fn wake(&self, due: u64, waker: &Waker) -> io::Result<()> {
        self.sleepers.borrow_mut().push(Reverse(Sleeper { due, waker: waker.clone() }));
        if self.set.get() == 0 || due < self.set.get() { self.set(due) } else { Ok(()) }
    }

    /// Waits until a moment.
    pub(super) async fn until(&self, due: u64) -> io::Result<()> {
        let mut asked = false;
        poll_fn(|context| {
            if due <= now() {
                return Poll::Ready(Ok(()));
            }
            if !asked {
                asked = true;
                if let Err(error) = self.wake(due, context.waker()) {
                    return Poll::Ready(Err(error));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Sets the timer. A moment that has passed makes it ring at once.
    fn set(&self, due: u64) -> io::Result<()> {
        let part = |it: u64| i64::try_from(it).map_err(io::Error::other);
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value =
            Timespec { tv_sec: part(due / NANOSECONDS)?, tv_nsec: part(due % NANOSECONDS)? };
        let when = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &when)?;
        self.set.set(due);
        Ok(())
    }
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Sleeper {}

impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[tokio::test]
    async fn wakes_in_order_and_never_early() {
        let alarm = Rc::new(Alarm::new().unwrap());
        let woken = Rc::new(RefCell::new(Vec::new()));
        let begin = now();
        let sleep = |milliseconds: u64| {
            let (alarm, woken) = (alarm.clone(), woken.clone());
            async move {
                let due = begin + milliseconds * 1_000_000;
                alarm.until(due).await.unwrap();
                assert!(now() >= due);
                woken.borrow_mut().push(milliseconds);
            }
        };
        let sleepers = async { tokio::join!(sleep(5), sleep(1), sleep(9), sleep(0), sleep(3)) };
        tokio::select! {
            ended = alarm.run() => panic!("{ended:?}"),
            _ = sleepers => {}
        }
        assert_eq!(*woken.borrow(), [0, 1, 3, 5, 9]);
    }
}
