//! Bodies: what a response carries, and how a request's is read within its limits.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use api::status::Status;
use bytes::{Buf as _, Bytes};
use futures_util::{Stream, StreamExt as _};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited, combinators::UnsyncBoxBody};

use super::outgoing::Held;
use crate::{
    limits::{BODY_BYTES_MAX, PIECE_BYTES},
    metrics::LongRunning,
};

pub(crate) type Chunks = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// The body of a response: all of it, pieces of it, or chunks as they come (watches, logs).
pub struct Body {
    content: Content,
    /// Of one that goes over a connection.
    held: Option<Arc<Held>>,
}

enum Content {
    Whole(Option<Bytes>),
    Pieces(Chunks),
    /// What somebody else answers, which may break off.
    Passed(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
    Chunks {
        chunks: Chunks,
        /// Dropped with the body, which is then counted as ended.
        _running: Option<LongRunning>,
    },
}

impl Body {
    pub(crate) const fn whole(bytes: Bytes) -> Self {
        Self { content: Content::Whole(Some(bytes)), held: None }
    }

    /// All of it, if it does not come in chunks.
    pub(crate) const fn as_whole(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Whole(bytes) => bytes.as_ref(),
            Content::Pieces(_) | Content::Passed(_) | Content::Chunks { .. } => None,
        }
    }

    pub(crate) fn chunks(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        let chunks = Box::pin(chunks.fuse());
        Self { content: Content::Chunks { chunks, _running: None }, held: None }
    }

    /// What somebody else answers.
    pub(crate) fn passed(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self { content: Content::Passed(Box::pin(chunks)), held: None }
    }

    /// One answer that is long: what of it is ready goes ahead.
    pub(crate) fn pieces(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self { content: Content::Pieces(Box::pin(pieces.fuse())), held: None }
    }

    /// The same with other pieces, if it is in pieces.
    pub(crate) fn map_pieces(self, change: impl FnOnce(Chunks) -> Chunks) -> Self {
        let content = match self.content {
            Content::Pieces(pieces) => Content::Pieces(change(pieces)),
            other => other,
        };
        Self { content, ..self }
    }

    pub(crate) const fn comes_in_pieces(&self) -> bool {
        matches!(self.content, Content::Pieces(_))
    }

    pub(crate) const fn comes_in_chunks(&self) -> bool {
        matches!(self.content, Content::Chunks { .. })
    }

    /// The same, with `running` for as long as it comes.
    pub(crate) fn counted(self, running: LongRunning) -> Self {
        let content = match self.content {
            other @ (Content::Whole(_) | Content::Pieces(_) | Content::Passed(_)) => other,
            Content::Chunks { chunks, .. } => Content::Chunks { chunks, _running: Some(running) },
        };
        Self { content, ..self }
    }

    /// The same, which holds something until the client has taken it.
    pub(crate) fn holding(self, held: Held) -> Self {
        Self { held: Some(Arc::new(held)), ..self }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Whole(bytes) => f.debug_tuple("Whole").field(bytes).finish(),
            Content::Pieces(_) => f.write_str("Pieces"),
            Content::Passed(_) => f.write_str("Passed"),
            Content::Chunks { .. } => f.write_str("Chunks"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Self { content, held } = self.get_mut();
        let piece = match content {
            Content::Whole(whole) => Poll::Ready(next_piece(whole, held.is_some())),
            Content::Pieces(chunks) | Content::Chunks { chunks, .. } => {
                chunks.as_mut().poll_next(cx)
            }
            Content::Passed(chunks) => match ready!(chunks.as_mut().poll_next(cx)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                chunk => Poll::Ready(chunk.and_then(Result::ok)),
            },
        };
        piece.map(|it| {
            let piece = it?;
            Some(Ok(Frame::data(match held {
                Some(held) => held.give(piece),
                None => piece,
            })))
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Content::Pieces(_) | Content::Passed(_) | Content::Chunks { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |it| it.len() as u64))
            }
            Content::Pieces(_) | Content::Passed(_) | Content::Chunks { .. } => SizeHint::default(),
        }
    }
}

/// What is left of a body, or the next piece of it.
fn next_piece(whole: &mut Option<Bytes>, in_pieces: bool) -> Option<Bytes> {
    let mut piece = whole.take().filter(|it| !it.is_empty())?;
    if in_pieces && piece.len() > PIECE_BYTES {
        *whole = Some(piece.split_off(PIECE_BYTES));
    }
    Some(piece)
}

/// The body of a request, not yet read; none if the request ended with its head.
pub(crate) struct Unread(Option<Streamed>);

/// A body as it comes.
pub(crate) type Streamed = UnsyncBoxBody<Bytes, io::Error>;

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
        let whole = |mut data: B::Data| data.copy_to_bytes(data.remaining());
        let body = body.map_frame(move |it| it.map_data(whole)).map_err(io::Error::other);
        Self(Some(body.boxed_unsync()))
    }

    /// All of it, within the limit.
    pub(crate) async fn read(self) -> Result<Bytes, Status> {
        match self.0 {
            Some(body) => collect(body).await,
            None => Ok(Bytes::new()),
        }
    }

    /// As it comes, without a limit: whoever takes it keeps none of it.
    pub(crate) fn streamed(self) -> Streamed {
        self.0.unwrap_or_else(|| Empty::new().map_err(|it| match it {}).boxed_unsync())
    }
}

async fn collect(body: Streamed) -> Result<Bytes, Status> {
    let collect = Limited::new(body, BODY_BYTES_MAX).collect();
    match collect.await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(BODY_BYTES_MAX)),
        Err(error) => Err(Status::bad_request(format!("the body could not be read: {error}"))),
    }
}
