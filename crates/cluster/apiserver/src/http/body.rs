//! Bodies: what a response carries, and how a request's is read within its limits.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use api::status::{Reason, Status};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{
    limits::{BODY_BYTES_MAX, BODY_TIME_MAX},
    metrics::LongRunning,
};

type Chunks = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// The body of a response: all of it, or chunks as they come (watches, logs).
pub struct Body(Content);

enum Content {
    Whole(Option<Bytes>),
    Chunks {
        chunks: Chunks,
        /// Dropped with the body, which is then counted as ended.
        _running: Option<LongRunning>,
    },
}

impl Body {
    pub(crate) const fn whole(bytes: Bytes) -> Self {
        Self(Content::Whole(Some(bytes)))
    }

    /// All of it, if it does not come in chunks.
    pub(crate) const fn as_whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Content::Whole(bytes) => bytes.as_ref(),
            Content::Chunks { .. } => None,
        }
    }

    pub(crate) fn chunks(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self(Content::Chunks { chunks: Box::pin(chunks.fuse()), _running: None })
    }

    pub(crate) const fn comes_in_chunks(&self) -> bool {
        matches!(self.0, Content::Chunks { .. })
    }

    /// The same, with `running` for as long as it comes.
    pub(crate) fn counted(self, running: LongRunning) -> Self {
        match self.0 {
            Content::Whole(_) => self,
            Content::Chunks { chunks, .. } => {
                Self(Content::Chunks { chunks, _running: Some(running) })
            }
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Content::Whole(bytes) => f.debug_tuple("Whole").field(bytes).finish(),
            Content::Chunks { .. } => f.write_str("Chunks"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.get_mut().0 {
            Content::Whole(bytes) => {
                let bytes = bytes.take().filter(|it| !it.is_empty());
                Poll::Ready(bytes.map(|it| Ok(Frame::data(it))))
            }
            Content::Chunks { chunks, .. } => {
                chunks.as_mut().poll_next(cx).map(|chunk| chunk.map(|it| Ok(Frame::data(it))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Content::Chunks { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |it| it.len() as u64))
            }
            Content::Chunks { .. } => SizeHint::default(),
        }
    }
}

/// The body of a request, not yet read; none if the request ended with its head.
pub(crate) struct Unread(Option<Collecting>);

type Collecting = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + Send>>;

impl Unread {
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // Most requests are a GET: nothing is allocated for their bodies.
        if body.is_end_stream() {
            return Self(None);
        }
        Self(Some(Box::pin(collect(body))))
    }

    pub(crate) async fn read(self) -> Result<Bytes, Status> {
        match self.0 {
            Some(body) => body.await,
            None => Ok(Bytes::new()),
        }
    }
}

async fn collect<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let collect = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIME_MAX, collect).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Status::too_large(BODY_BYTES_MAX)),
        Ok(Err(error)) => Err(Status::bad_request(format!("the body could not be read: {error}"))),
        Err(_) => Err(Status::new(
            Reason::Timeout,
            format!("the body did not arrive within {} s", BODY_TIME_MAX.as_secs()),
        )),
    }
}
