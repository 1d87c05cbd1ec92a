//! What speaks a protocol: one trait, one file a protocol. A driver owns its connections; which
//! request is sent when, and what becomes of the answer, is not its business.

pub(crate) mod connect;
pub(crate) mod http1;
pub(crate) mod http2;
mod names;
pub(crate) mod tls;

use std::{future::Future, sync::Arc};

use crate::exchange::{Exchange, Request};

/// Speaks one protocol. Lives on one worker thread and is never shared with another.
pub(crate) trait Driver: Sized + 'static {
    /// A driver without connections; it opens them as it needs them.
    fn new(connector: Arc<connect::Connector>) -> Self;

    /// Sends one request and reads the whole answer. Many run at once. A future that is dropped
    /// gives up its request and leaves no connection behind that is in the middle of something.
    ///
    /// Ends within [`Request::timeout`] with an answer or a failure.
    fn exchange(&self, request: &Request) -> impl Future<Output = Exchange>;
}
