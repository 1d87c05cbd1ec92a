//! Waking tasks at a time, to some ten microseconds: tokio's own timers have steps of a millisecond,
//! and a delay is what a fault proxy is measured by. One kernel timer for all sleepers.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use runtime::{OnExit, Tasks};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};

/// Wakes tasks at a time. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Alarm(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    timer: AsyncFd<std::os::fd::OwnedFd>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who sleeps until when; the number tells sleepers of one instant apart.
    sleepers: BTreeMap<(Instant, u64), Waker>,
    next: u64,
    /// When the kernel's timer will ring.
    armed: Option<Instant>,
}

impl Alarm {
    /// Starts in `tasks`.
    pub(crate) fn start(tasks: &Tasks) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let timer = runtime::watch_descriptor(timer, Interest::READABLE)?;
        let alarm = Self(Arc::new(Shared { timer, state: Mutex::default() }));
        let ringing = alarm.clone();
        tasks.spawn("fault-alarm", OnExit::StopProcess, |stop| async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    rung = ringing.rung() => rung?,
                }
            }
        });
        Ok(alarm)
    }

    async fn rung(&self) -> io::Result<()> {
        let mut ready = self.0.timer.readable().await?;
        let mut expirations = [0; 8];
        match rustix::io::read(self.0.timer.get_ref(), &mut expirations) {
            // Armed anew just before it was read.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
        let mut state = self.state();
        state.armed = None;
        let now = Instant::now();
        while let Some(first) = state.sleepers.first_entry()
            && first.key().0 <= now
        {
            first.remove().wake();
        }
        self.arm(&mut state)
    }

    /// Sets the kernel's timer to the first sleeper.
    fn arm(&self, state: &mut State) -> io::Result<()> {
        let Some(((first, _), _)) = state.sleepers.first_key_value() else { return Ok(()) };
        if state.armed.is_some_and(|it| it <= *first) {
            return Ok(());
        }
        state.armed = Some(*first);
        // Zero would disarm it.
        let left = first.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let value = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = Itimerspec { it_interval: interval, it_value: value };
        timerfd_settime(self.0.timer.get_ref(), TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }

    /// Waits until `at`; never less. For ever if there is no time.
    pub(crate) const fn until(&self, at: Option<Instant>) -> Sleep<'_> {
        Sleep { alarm: self, at, key: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Made by [`Alarm::until`].
#[derive(Debug)]
pub(crate) struct Sleep<'a> {
    alarm: &'a Alarm,
    at: Option<Instant>,
    key: Option<(Instant, u64)>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        let mut state = self.alarm.state();
        let key = self.key.unwrap_or((at, state.next));
        state.next += u64::from(self.key.is_none());
        state.sleepers.insert(key, context.waker().clone());
        let armed = self.alarm.arm(&mut state);
        drop(state);
        self.key = Some(key);
        if let Err(error) = armed {
            // Cannot happen with a valid time; a delay too short is better than a dead connection.
            tracing::error!(%error, "the timer cannot be set");
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.alarm.state().sleepers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn never_early_and_in_order() {
        let tasks = Tasks::default();
        let alarm = Alarm::start(&tasks).unwrap();
        let start = Instant::now();
        let after = |millis| Some(start + Duration::from_millis(millis));
        let (mut late, mut early) = (alarm.until(after(30)), alarm.until(after(10)));
        tokio::select! {
            () = &mut late => panic!("the later one first"),
            () = &mut early => assert!(start.elapsed() >= Duration::from_millis(10)),
        }
        late.await;
        assert!(start.elapsed() >= Duration::from_millis(30));
        drop(early);
        assert!(alarm.state().sleepers.is_empty());
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
    }
}
