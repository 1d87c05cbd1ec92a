//! How long an answer is waited for: from when the endpoint was last given something of the request, so
//! that a long upload, or a stream in both directions, may take as long as it takes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

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

/// What `sent` comes to; none if nothing happened for as long as `patience` says.
pub(super) async fn await_answer<F: Future>(
    sent: F,
    progress: &Progress,
    patience: Duration,
) -> Option<F::Output> {
    let mut sent = std::pin::pin!(sent);
    let mut last = progress.last();
    loop {
        tokio::select! {
            biased;
            answer = &mut sent => return Some(answer),
            () = until(last.checked_add(patience)) => {}
        }
        let now = progress.last();
        if now == last {
            return None;
        }
        last = now;
    }
}

/// What is further than clocks go is never.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ANSWER_TIME_MAX;

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
        assert_eq!(await_answer(upload, &progress, ANSWER_TIME_MAX).await, Some(()));
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
        assert_eq!(await_answer(sent, &progress, ANSWER_TIME_MAX).await, None);
        assert_eq!(start.elapsed(), ANSWER_TIME_MAX * 3 / 2);
    }
}
