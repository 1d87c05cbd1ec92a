//! Bodies on their way through, in both directions: nothing is collected, so whoever takes slowly is
//! sent to slowly.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{
    record::Exchange,
    upstream::{Lease, Progress},
};

/// A body of a request to an endpoint or of an answer to a client.
#[derive(Debug)]
pub(crate) struct Body {
    content: Content,
    /// The connection that the body comes from, which is kept once all has come.
    lease: Option<Lease>,
    /// Of a request's body: when something of it was last taken.
    progress: Option<Progress>,
    /// Written down when the body has ended, or nobody reads it any more.
    exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
enum Content {
    Made(Option<Bytes>),
    Passed(Incoming),
    Ended,
}

impl Body {
    pub(crate) fn made(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self {
            content: Content::Made((!text.is_empty()).then_some(text)),
            lease: None,
            progress: None,
            exchange: None,
        }
    }

    /// What a client sends.
    pub(crate) fn of_client(incoming: Incoming) -> Self {
        let progress = Some(Progress::new());
        Self { content: Content::Passed(incoming), lease: None, progress, exchange: None }
    }

    /// What an endpoint answers over a connection.
    pub(crate) fn of_endpoint(incoming: Incoming, lease: Lease) -> Self {
        let content = Content::Passed(incoming);
        let mut body = Self { content, lease: Some(lease), progress: None, exchange: None };
        body.end_if_done();
        body
    }

    /// As the end of `exchange`.
    pub(super) fn recorded(mut self, exchange: Box<Exchange>) -> Self {
        self.exchange = Some(exchange);
        self
    }

    /// When something of it was last taken; now, if that is not told of it.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone().unwrap_or_else(Progress::new)
    }

    fn end_if_done(&mut self) {
        if self.is_end_stream() {
            self.content = Content::Ended;
            if let Some(lease) = self.lease.take() {
                lease.keep();
            }
        }
    }
}

impl Drop for Body {
    /// hyper does not ask on after the last byte of a known length.
    fn drop(&mut self) {
        self.end_if_done();
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.content {
            Content::Made(text) => text.take().map(|it| Ok(Frame::data(it))),
            Content::Passed(incoming) => {
                std::task::ready!(Pin::new(incoming).poll_frame(cx))
            }
            Content::Ended => None,
        };
        match &frame {
            Some(Ok(frame)) => {
                self.progress.iter().for_each(Progress::note);
                let sent = frame.data_ref().map_or(0, |it| it.len() as u64);
                if let Some(exchange) = &mut self.exchange {
                    exchange.bytes += sent;
                }
            }
            // What broke off is not used again.
            Some(Err(_)) => drop(self.lease.take()),
            None => {
                self.content = Content::Ended;
                if let Some(lease) = self.lease.take() {
                    lease.keep();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Made(text) => text.is_none(),
            Content::Passed(incoming) => incoming.is_end_stream(),
            Content::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Made(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |it| it.len() as u64))
            }
            Content::Passed(incoming) => incoming.size_hint(),
            Content::Ended => SizeHint::with_exact(0),
        }
    }
}
