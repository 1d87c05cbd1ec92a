//! Sleeps of users, precise: one timer of the kernel per worker instead of a wheel with steps of a
//! millisecond, because a step after thinking has a meant start like any other.

use std::{
    cell::RefCell,
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    task::{Poll, Waker},
    time::Duration,
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};

/// The sleeps of one worker.
pub(super) struct Timer {
    clock: AsyncFd<OwnedFd>,
    sleepers: RefCell<BinaryHeap<Reverse<Sleeper>>>,
}

struct Sleeper {
    until: Instant,
    waker: Waker,
}

impl Timer {
    /// Needs a runtime.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let clock = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps its descriptor")]
        let clock = AsyncFd::with_interest(clock, Interest::READABLE)?;
        Ok(Self { clock, sleepers: RefCell::default() })
    }

    /// Sleeps until then. One that is given up wakes its task once for nothing.
    pub(super) async fn sleep_until(&self, until: Instant) {
        let mut is_known = false;
        poll_fn(|ctx| {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            if !is_known {
                is_known = true;
                self.add(Sleeper { until, waker: ctx.waker().clone() });
            }
            Poll::Pending
        })
        .await;
    }

    /// Wakes whoever is to be woken, for ever.
    ///
    /// # Errors
    ///
    /// The kernel's timer cannot be read.
    pub(super) async fn run(&self) -> io::Result<()> {
        loop {
            let mut guard = self.clock.readable().await?;
            guard.clear_ready();
            self.wake();
        }
    }

    fn add(&self, sleeper: Sleeper) {
        let mut sleepers = self.sleepers.borrow_mut();
        let is_first = sleepers.peek().is_none_or(|it| sleeper.until < it.0.until);
        if is_first {
            self.set(sleeper.until);
        }
        sleepers.push(Reverse(sleeper));
    }

    fn wake(&self) {
        let mut sleepers = self.sleepers.borrow_mut();
        let now = Instant::now();
        while sleepers.peek().is_some_and(|it| it.0.until <= now) {
            if let Some(Reverse(sleeper)) = sleepers.pop() {
                sleeper.waker.wake();
            }
        }
        if let Some(Reverse(next)) = sleepers.peek() {
            self.set(next.until);
        }
    }

    /// Sets the kernel's timer, which takes back that it has rung.
    fn set(&self, until: Instant) {
        // Zero would mean never.
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            },
        };
        // Fails only for a bad descriptor or a bad time, and both are good.
        drop(timerfd_settime(&self.clock, TimerfdTimerFlags::empty(), &once));
    }
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}

impl Eq for Sleeper {}

impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> Ordering {
        self.until.cmp(&other.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleepers_wake_in_order_and_not_early() {
        let timer = Timer::new().unwrap();
        let begin = Instant::now();
        let woken = RefCell::new(Vec::new());
        let sleep = async |ms| {
            let until = begin + Duration::from_millis(ms);
            timer.sleep_until(until).await;
            assert!(Instant::now() >= until);
            woken.borrow_mut().push(ms);
        };
        tokio::select! {
            ended = timer.run() => panic!("{ended:?}"),
            _ = async { tokio::join!(sleep(30), sleep(10), sleep(0), sleep(20)) } => {}
        }
        assert_eq!(*woken.borrow(), [0, 10, 20, 30]);
    }

    #[tokio::test]
    async fn one_that_comes_later_may_be_first() {
        let timer = Timer::new().unwrap();
        let begin = Instant::now();
        let long = timer.sleep_until(begin + Duration::from_secs(3600));
        tokio::select! {
            ended = timer.run() => panic!("{ended:?}"),
            () = long => panic!("an hour has passed"),
            () = timer.sleep_until(begin + Duration::from_millis(5)) => {}
        }
    }
}
