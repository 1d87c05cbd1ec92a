//! A common budget for bodies that are on their way in: what clients have begun to send and nobody
//! can act on before its end has come.
//!
//! A connection may hold megabytes like that, and there may be ten thousand connections. So
//! whoever is to receive a body of more than [`FREE_BYTES`] takes as many bytes of the budget
//! first, and reads no further before it has them: the client waits. First come, first served; and
//! as nobody who holds some waits for more, all get theirs. How long somebody may hold them is for
//! the connection to say.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget of one nsqd, in bytes: 25 commands of the original's largest size at once, which is
/// more than a disk takes in meanwhile, and a fraction of a small machine.
pub const BODIES_BYTES: u32 = 128 << 20;

/// A body up to this, in bytes, is not asked for: ten thousand of them are a budget more, and most
/// messages pay nothing.
pub const FREE_BYTES: usize = 16 << 10;

/// The budget. A cheap handle.
#[derive(Clone, Debug)]
pub struct Budget {
    bytes: Arc<Semaphore>,
    total: u32,
}

/// A part of it, given back when it is dropped.
#[derive(Debug)]
pub struct Reserved {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(BODIES_BYTES)
    }
}

impl Budget {
    /// One of so many bytes.
    #[must_use]
    pub fn new(bytes: u32) -> Self {
        // A semaphore of this size there is on every machine: its limit is 2^61 (or 2^29).
        let permits = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(permits)), total: bytes }
    }

    /// How many bytes are in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.needed(usize::MAX) - self.bytes.available_permits()
    }

    /// Waits for room for a body of so many bytes. One that is larger than the budget gets all of
    /// it: then it is alone.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        if bytes <= FREE_BYTES {
            return Reserved { _permit: None };
        }
        let bytes = u32::try_from(self.needed(bytes)).unwrap_or(self.total);
        // It is never closed.
        Reserved { _permit: Arc::clone(&self.bytes).acquire_many_owned(bytes).await.ok() }
    }

    fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let bytes = u32::try_from(self.needed(bytes)).unwrap_or(self.total);
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()?;
        Some(Reserved { _permit: Some(permit) })
    }

    fn needed(&self, bytes: usize) -> usize {
        bytes.min(usize::try_from(self.total).unwrap_or(usize::MAX)).min(Semaphore::MAX_PERMITS)
    }
}

/// What one connection has of the budget, for one body at a time.
pub(crate) struct Share {
    budget: Budget,
    held: Option<Reserved>,
    waiting: Option<Pin<Box<dyn Future<Output = Reserved> + Send>>>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (holds, waits) = (self.holds(), self.waits());
        f.debug_struct("Share").field("holds", &holds).field("waits", &waits).finish()
    }
}

impl Share {
    pub(crate) const fn new(budget: Budget) -> Self {
        Self { budget, held: None, waiting: None }
    }

    /// Whether a body of so many bytes may be received now. If not, [`Self::granted`] tells when.
    pub(crate) fn covers(&mut self, bytes: usize) -> bool {
        if bytes <= FREE_BYTES || self.held.is_some() {
            return true;
        }
        if self.waiting.is_none() {
            // Nobody is overtaken: while others wait, there is nothing to be had.
            self.held = self.budget.try_reserve(bytes);
            if self.held.is_none() {
                let budget = self.budget.clone();
                self.waiting = Some(Box::pin(async move { budget.reserve(bytes).await }));
            }
        }
        self.held.is_some()
    }

    /// Waits until the body may be received. Its place among those who wait stays when this is
    /// dropped.
    pub(crate) async fn granted(&mut self) {
        poll_fn(|context| {
            let Some(waiting) = &mut self.waiting else { return Poll::Pending };
            let reserved = ready!(waiting.as_mut().poll(context));
            self.waiting = None;
            self.held = Some(reserved);
            Poll::Ready(())
        })
        .await;
    }

    /// Whether it has some.
    pub(crate) const fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Whether it waits for some.
    pub(crate) const fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// The body has been dealt with.
    pub(crate) fn give_back(&mut self) {
        self.held = None;
        self.waiting = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::timeout;

    use super::*;

    const LARGE: usize = FREE_BYTES + 1;

    fn budget() -> Budget {
        Budget::new(u32::try_from(2 * LARGE).unwrap())
    }

    #[test]
    fn small_bodies_are_not_asked_for() {
        let budget = budget();
        let mut share = Share::new(budget.clone());
        assert!(share.covers(FREE_BYTES) && !share.holds());
        assert_eq!(budget.in_use(), 0);
        assert!(share.covers(LARGE) && share.holds());
        assert_eq!(budget.in_use(), LARGE);
        share.give_back();
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_first_is_served_first() {
        let budget = budget();
        let [mut one, mut two, mut all, mut late] =
            [0, 1, 2, 3].map(|_| Share::new(budget.clone()));
        assert!(one.covers(LARGE) && two.covers(LARGE));
        // Larger than the budget: it will have all of it.
        assert!(!all.covers(usize::MAX) && !late.covers(LARGE));
        let soon = Duration::from_secs(1);
        // That somebody stopped looking does not cost a place.
        assert!(timeout(soon, all.granted()).await.is_err());
        assert!(timeout(soon, late.granted()).await.is_err());
        one.give_back();
        assert!(timeout(soon, late.granted()).await.is_err());
        two.give_back();
        timeout(soon, all.granted()).await.unwrap();
        assert!(timeout(soon, late.granted()).await.is_err());
        assert_eq!(budget.in_use(), 2 * LARGE);
        drop(all);
        timeout(soon, late.granted()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_while_waiting_holds_up_nobody() {
        let budget = budget();
        let held = budget.reserve(usize::MAX).await;
        let mut first = Share::new(budget.clone());
        let mut second = Share::new(budget.clone());
        assert!(!first.covers(usize::MAX) && !second.covers(LARGE));
        drop(held);
        drop(first);
        timeout(Duration::from_secs(1), second.granted()).await.unwrap();
    }

    proptest! {
        /// Whoever wants how much: the budget is kept, and all are served in the end.
        #[test]
        fn all_are_served(sizes in proptest::collection::vec(1..100_000_usize, 1..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let budget = budget();
                let all = sizes.into_iter().map(|size| {
                    let budget = budget.clone();
                    async move {
                        let mut share = Share::new(budget.clone());
                        if !share.covers(size) {
                            share.granted().await;
                        }
                        assert!(budget.in_use() <= 2 * LARGE);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                });
                let served = futures_util::future::join_all(all);
                timeout(Duration::from_secs(60), served).await.unwrap();
                assert_eq!(budget.in_use(), 0);
            });
        }
    }
}
