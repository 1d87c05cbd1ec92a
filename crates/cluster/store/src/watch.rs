//! A watch: the events under a prefix, as a stream.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;

use crate::{Event, Lagged, Revision, commit::Shared, history::WatcherId};

/// The events under a prefix after some revision, in order and without gaps. Ends when the store
/// closes or after [`Lagged`].
pub struct Watch {
    shared: Arc<Shared>,
    id: WatcherId,
}

impl Watch {
    pub(crate) const fn new(shared: Arc<Shared>, id: WatcherId) -> Self {
        Self { shared, id }
    }

    /// The next event; none when the store has been closed. Losing the future loses no event.
    ///
    /// # Errors
    /// [`Lagged`] if it has left the history; then nothing follows.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, Lagged>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// [`Watch::next`] for hand-written futures.
    ///
    /// # Errors
    /// As for `next`.
    pub fn poll_event(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Arc<Event>, Lagged>>> {
        self.shared.lock().history.poll(self.id, cx.waker())
    }

    /// The revision up to which every event under the prefix has been taken from this watch: what
    /// a bookmark may say. None if the watch has ended or is about to report [`Lagged`].
    #[must_use]
    pub fn progress(&self) -> Option<Revision> {
        self.shared.lock().history.progress(self.id)
    }

    /// Whether [`Watch::next`] would answer without waiting.
    #[must_use]
    pub fn has_next(&self) -> bool {
        let state = self.shared.lock();
        state.history.progress(self.id) != Some(state.revision)
    }
}

impl Stream for Watch {
    type Item = Result<Arc<Event>, Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().history.forget(self.id);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("id", &self.id).finish_non_exhaustive()
    }
}
