//! What speaks a protocol: one trait, one module a protocol. A driver owns its connections; which
//! request is sent when, and what becomes of the answer, is not its business.

pub(crate) mod connect;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod tls;

use std::{future::Future, sync::Arc};

use tokio::time::timeout;

use crate::exchange::{Exchange, Failure, FailureKind, Phases, Request, Response};

/// Speaks one protocol. Lives on one worker thread and is never shared with another.
pub(crate) trait Driver: Sized + 'static {
    /// A driver without connections; it opens them as it needs them.
    fn new(connector: Arc<connect::Connector>) -> Self;

    /// Sends one request and reads the whole answer, a second time if that is right; writes down on
    /// the way how long the parts took, how many bytes they were, and when the last of them was read,
    /// which ends the latency. Many run at once. A future that is dropped gives up its request and
    /// leaves no connection behind that is in the middle of something.
    fn attempts(
        &self,
        request: &Request,
        exchange: &mut Exchange,
    ) -> impl Future<Output = Result<Response, Failure>>;

    /// Sends one request. Ends within [`Request::timeout`] with an answer or a failure.
    async fn exchange(&self, request: &Request) -> Exchange {
        let mut exchange = Exchange {
            phases: Phases::default(),
            sent: 0,
            received: 0,
            again: false,
            ended: None,
            outcome: Ok(Response::default()),
        };
        let outcome = timeout(request.timeout, self.attempts(request, &mut exchange)).await;
        exchange.outcome = outcome.unwrap_or_else(|_| {
            let detail = format!("no whole answer within {:?}", request.timeout);
            Err(Failure { kind: FailureKind::Timeout, detail })
        });
        exchange
    }
}
