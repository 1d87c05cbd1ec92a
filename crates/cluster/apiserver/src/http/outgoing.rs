//! Answers on their way out: what a connection was given and its client has not taken.
//!
//! A piece of an answer is taken when the connection lets go of its bytes, because they went to the
//! kernel. So a client that reads slowly, or not at all, is seen whichever protocol it speaks, and what
//! an answer holds (its place among the requests, its watch) is held until then and not longer.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{AbortHandle, Abortable};
use hyper_util::rt::TokioExecutor;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::limits::{CUT_TIME_MAX, IDLE_TIME_MAX};

tokio::task_local! {
    /// Cuts off the HTTP/2 stream whose task this is.
    static STREAM: AbortHandle;
}

/// Runs the streams of an HTTP/2 connection, each so that it can be cut off without the others.
#[derive(Clone, Debug)]
pub(crate) struct Streams;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (handle, registration) = AbortHandle::new_pair();
        TokioExecutor::new().execute(STREAM.scope(handle, Abortable::new(stream, registration)));
    }
}

/// One connection, as far as its answers go.
#[derive(Debug)]
pub(crate) struct Outgoing(Mutex<State>);

#[derive(Debug)]
struct State {
    /// In the order in which they were given.
    pieces: BTreeMap<u64, Piece>,
    next: u64,
    /// Requests whose answers are not taken.
    open: usize,
    /// When there was last one.
    quiet_since: Instant,
}

#[derive(Debug)]
struct Piece {
    since: Instant,
    /// Of HTTP/2, as long as it was not cut off.
    stream: Option<AbortHandle>,
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nothing was asked for long.
    Idle,
    /// The client takes nothing of what it asked for.
    Stalled,
}

impl Outgoing {
    pub(crate) fn new() -> Arc<Self> {
        let (pieces, quiet_since) = (BTreeMap::new(), Instant::now());
        Arc::new(Self(Mutex::new(State { pieces, next: 0, open: 0, quiet_since })))
    }

    /// A request has come.
    pub(crate) fn begin(self: &Arc<Self>) -> Held {
        self.state().open += 1;
        Held { outgoing: Arc::clone(self), place: None, bytes: None }
    }

    /// Waits until the connection should end. Streams whose client takes nothing for `patience` are cut
    /// off meanwhile.
    pub(crate) async fn ended(&self, patience: Duration) -> Reason {
        loop {
            match self.look(Instant::now(), patience) {
                Ok(again) => tokio::time::sleep_until(again).await,
                Err(reason) => return reason,
            }
        }
    }

    /// When to look again, unless the connection should end.
    fn look(&self, now: Instant, patience: Duration) -> Result<Instant, Reason> {
        let mut state = self.state();
        // What is given after this look is overdue no sooner.
        let mut again = now + patience;
        if state.open == 0 {
            let end = state.quiet_since + IDLE_TIME_MAX;
            return if end <= now { Err(Reason::Idle) } else { Ok(again.min(end)) };
        }
        for piece in state.pieces.values_mut() {
            let end = piece.since + patience;
            if now < end {
                again = again.min(end);
                break;
            }
            // What was cut off before should be gone; without streams there is but one way to end it.
            piece.stream.take().ok_or(Reason::Stalled)?.abort();
            again = again.min(now + CUT_TIME_MAX);
        }
        Ok(again)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request and its answer hold until the client has taken the answer.
#[derive(Debug)]
pub(crate) struct Held {
    outgoing: Arc<Outgoing>,
    /// Among the requests that are answered at once.
    pub(crate) place: Option<OwnedSemaphorePermit>,
    /// Of the memory that answers may take.
    pub(crate) bytes: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Gives a piece of the answer to the connection.
    pub(crate) fn give(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let piece =
            Piece { since: Instant::now(), stream: STREAM.try_with(AbortHandle::clone).ok() };
        let mut state = self.outgoing.state();
        let number = state.next;
        state.next += 1;
        state.pieces.insert(number, piece);
        drop(state);
        Bytes::from_owner(Given { bytes, number, held: Arc::clone(self) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.outgoing.state();
        state.open -= 1;
        state.quiet_since = Instant::now();
    }
}

/// Bytes that belong to the connection.
struct Given {
    bytes: Bytes,
    number: u64,
    held: Arc<Held>,
}

impl AsRef<[u8]> for Given {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.held.outgoing.state().pieces.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::limits::UNTAKEN_TIME_MAX;

    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_is_idle() {
        let outgoing = Outgoing::new();
        let start = Instant::now();
        assert_eq!(outgoing.ended(UNTAKEN_TIME_MAX).await, Reason::Idle);
        assert_eq!(start.elapsed(), IDLE_TIME_MAX);
        // It is not while there is one, nor before the time has passed since.
        let held = outgoing.begin();
        pass(3 * IDLE_TIME_MAX).await;
        assert_eq!(outgoing.ended(UNTAKEN_TIME_MAX).now_or_never(), None);
        drop(held);
        let end = Instant::now();
        assert_eq!(outgoing.ended(UNTAKEN_TIME_MAX).await, Reason::Idle);
        assert_eq!(end.elapsed(), IDLE_TIME_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_ends_the_connection() {
        let outgoing = Outgoing::new();
        let held = Arc::new(outgoing.begin());
        // Pieces that are taken, one after another, are slow but no stall.
        for _ in 0..10 {
            let piece = held.give(Bytes::from_static(b"x"));
            pass(UNTAKEN_TIME_MAX - Duration::from_secs(1)).await;
            assert_eq!(outgoing.ended(UNTAKEN_TIME_MAX).now_or_never(), None);
            drop(piece);
        }
        drop(held);
        let ended = outgoing.ended(UNTAKEN_TIME_MAX);
        tokio::pin!(ended);
        assert_eq!(ended.as_mut().now_or_never(), None);
        // Nor does it matter that it was idle when last looked at.
        pass(Duration::from_secs(1)).await;
        let start = Instant::now();
        let piece = Arc::new(outgoing.begin()).give(Bytes::from_static(b"x"));
        assert_eq!(ended.await, Reason::Stalled);
        assert_eq!(start.elapsed(), UNTAKEN_TIME_MAX);
        drop(piece);
        assert_eq!(outgoing.state().open, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_cut_off_before_its_connection() {
        let outgoing = Outgoing::new();
        let (handle, registration) = AbortHandle::new_pair();
        let held = Arc::new(outgoing.begin());
        let other = Arc::new(outgoing.begin());
        let piece = STREAM.scope(handle, async { held.give(Bytes::from_static(b"x")) }).await;
        let stream = Abortable::new(std::future::pending::<()>(), registration);
        let ended = outgoing.ended(UNTAKEN_TIME_MAX);
        tokio::pin!(ended);
        pass(UNTAKEN_TIME_MAX).await;
        assert_eq!(ended.as_mut().now_or_never(), None);
        assert!(stream.await.is_err());
        // The connection lets go of the piece: all others go on.
        drop((piece, held));
        pass(UNTAKEN_TIME_MAX).await;
        assert_eq!(ended.as_mut().now_or_never(), None);
        // Or it does not.
        let (handle, _) = AbortHandle::new_pair();
        let start = Instant::now();
        let _piece = STREAM.scope(handle, async { other.give(Bytes::from_static(b"x")) }).await;
        assert_eq!(ended.await, Reason::Stalled);
        assert!(start.elapsed() <= UNTAKEN_TIME_MAX + CUT_TIME_MAX);
    }
}
