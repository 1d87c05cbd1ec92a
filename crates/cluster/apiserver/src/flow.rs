//! What requests from outside may take of the server: places, time, memory for their answers.
//!
//! Requests of this process are not limited: its controllers come one by one, and must get through when
//! everybody else does not. Watches and logs have limits of their own.

use std::{sync::Arc, time::Duration};

use api::status::{Reason, Status};
use http::{Method, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    http::{body::Body, duration, outgoing::Held, query::Query},
    limits::{ANSWER_BYTES_MAX, PIECE_BYTES, READS_MAX, REQUEST_TIME_MAX, WRITES_MAX},
};

/// Bytes that one permit of the answers' memory stands for.
const BYTES_PER_PERMIT: usize = 1024;

/// What is left to take.
#[derive(Debug)]
pub(crate) struct Flow {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            reads: Arc::new(Semaphore::new(READS_MAX)),
            writes: Arc::new(Semaphore::new(WRITES_MAX)),
            answers: Arc::new(Semaphore::new(ANSWER_BYTES_MAX / BYTES_PER_PERMIT)),
        }
    }
}

impl Flow {
    /// A place for a request that does not go on, or 429.
    pub(crate) fn admit(&self, method: &Method) -> Result<OwnedSemaphorePermit, Status> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let places = if reads { &self.reads } else { &self.writes };
        Arc::clone(places).try_acquire_owned().map_err(|_| too_many())
    }

    /// Takes the memory of a large answer, or refuses it. One that is larger than all there is comes
    /// alone.
    pub(crate) fn weigh(&self, answer: &Response<Body>, held: &mut Held) -> Result<(), Status> {
        let bytes = answer.body().as_whole().map_or(0, bytes::Bytes::len);
        if bytes <= PIECE_BYTES {
            return Ok(());
        }
        let permits = u32::try_from(bytes.min(ANSWER_BYTES_MAX) / BYTES_PER_PERMIT);
        let memory = Arc::clone(&self.answers).try_acquire_many_owned(permits.unwrap_or(u32::MAX));
        held.bytes = Some(memory.map_err(|_| too_many())?);
        Ok(())
    }
}

/// What a client hears that comes when too many are there.
fn too_many() -> Status {
    let message = "Too many requests, please try again later.";
    Status::new(Reason::TooManyRequests, message).with_retry_after(1)
}

/// How long a request may take that does not go on: less than the usual if the client says so
/// (`timeout=5s`).
pub(crate) fn time_limit(query: &Query<'_>) -> Result<Duration, Status> {
    let Some(text) = query.get("timeout") else { return Ok(REQUEST_TIME_MAX) };
    let asked = duration::parse(text).map_err(|problem| {
        Status::bad_request(format!("invalid timeout specified in the request URL - {problem}"))
    })?;
    Ok(asked.filter(|it| *it < REQUEST_TIME_MAX).unwrap_or(REQUEST_TIME_MAX))
}

/// What a client hears whose request took longer.
pub(crate) fn timed_out() -> Status {
    Status::new(Reason::Timeout, "Timeout: request did not complete within the allotted timeout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::outgoing::Outgoing;

    #[tokio::test]
    async fn large_answers_share_their_memory() {
        let (flow, outgoing) = (Flow::default(), Outgoing::new());
        let answer = |bytes: usize| Response::new(Body::whole(vec![0; bytes].into()));
        // Takes the memory of an answer; what it holds, if there was enough.
        let take = |answer: &Response<Body>| {
            let mut held = outgoing.begin();
            flow.weigh(answer, &mut held).map(|()| held)
        };
        let quarter = answer(ANSWER_BYTES_MAX / 4);
        let four: Vec<Held> = (0..4).map(|_| take(&quarter).unwrap()).collect();
        let refused = take(&quarter).unwrap_err();
        assert_eq!((refused.code(), refused.details().unwrap().retry_after_seconds), (429, 1));
        // Small ones are not counted.
        assert!(take(&answer(PIECE_BYTES)).is_ok());
        let (too_large, mut four) = (answer(ANSWER_BYTES_MAX + 1), four);
        four.truncate(1);
        assert!(take(&too_large).is_err(), "comes alone");
        drop(four);
        assert!(take(&too_large).is_ok());
    }
}
