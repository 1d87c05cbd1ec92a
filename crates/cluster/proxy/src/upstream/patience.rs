//! How long an answer is waited for: from when the endpoint was last given something of the request, so
//! that a long upload, or a stream in both directions, may take as long as it takes.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Instant, sleep_until};

use crate::limits::ANSWER_TIME_MAX;

/// When something of a request was last sent on. Clones tell of the same request.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something is sent now.
    pub(crate) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `sent` comes to; none if nothing happened for [`ANSWER_TIME_MAX`].
pub(super) async fn await_answer<F: Future>(sent: F, progress: &Progress) -> Option<F::Output> {
    let mut sent = std::pin::pin!(sent);
    let mut last = progress.last();
    loop {
        tokio::select! {
            biased;
            answer = &mut sent => return Some(answer),
            () = sleep_until(last + ANSWER_TIME_MAX) => {}
        }
        let now = progress.last();
        if now == last {
            return None;
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_sends_on_is_waited_for() {
        let (progress, start) = (Progress::new(), Instant::now());
        let upload = async {
            for _ in 0..5 {
                tokio::time::sleep(ANSWER_TIME_MAX * 3 / 4).await;
                progress.note();
            }
            tokio::time::sleep(ANSWER_TIME_MAX - Duration::from_millis(1)).await;
        };
        assert_eq!(await_answer(upload, &progress).await, Some(()));
        assert!(ANSWER_TIME_MAX * 4 < start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_not() {
        let (progress, start) = (Progress::new(), Instant::now());
        let sent = async {
            tokio::time::sleep(ANSWER_TIME_MAX / 2).await;
            progress.note();
            std::future::pending::<()>().await;
        };
        assert_eq!(await_answer(sent, &progress).await, None);
        assert_eq!(start.elapsed(), ANSWER_TIME_MAX * 3 / 2);
    }
}
