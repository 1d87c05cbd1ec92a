//! Reads the body of a request, with a limit on its size and on the client's silence.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::timeout;

/// How long a client may pause within a body: one that went away must not keep what it sent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It is longer than allowed; the rest was not read.
    #[error("body is longer than {max} bytes")]
    TooLong {
        /// What is allowed.
        max: usize,
    },
    /// The client went away, or does not speak HTTP.
    #[error("body did not come")]
    Broken(#[source] Cause),
    /// The client has sent nothing for a minute.
    #[error("body came too slowly")]
    Silent,
}

/// The next piece of a body, never empty; `None` at its end.
///
/// # Errors
/// If it does not come.
pub(crate) async fn piece<B>(body: &mut B) -> Result<Option<Bytes>, ReadError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Cause>,
{
    loop {
        let frame = timeout(SILENCE_MAX, body.frame()).await.map_err(|_| ReadError::Silent)?;
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|error| ReadError::Broken(error.into()))?;
        // What is no data is a trailer, and these mean nothing here.
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
}

/// The whole body, if it has at most `max` bytes.
///
/// # Errors
/// If it is longer, which is told without reading if the client said so, or did not come.
pub(crate) async fn read<B>(mut body: B, max: usize) -> Result<Bytes, ReadError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Cause>,
{
    let too_long = ReadError::TooLong { max };
    if usize::try_from(body.size_hint().lower()).map_or(true, |it| it > max) {
        return Err(too_long);
    }
    let Some(first) = piece(&mut body).await? else { return Ok(Bytes::new()) };
    let mut next = piece(&mut body).await?;
    if next.is_none() && first.len() <= max {
        // The usual case: one piece, and nothing is copied.
        return Ok(first);
    }
    let mut whole = BytesMut::from(first);
    while let Some(more) = next
        && whole.len() <= max
    {
        whole.extend_from_slice(&more);
        next = piece(&mut body).await?;
    }
    if whole.len() > max { Err(too_long) } else { Ok(whole.freeze()) }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use http_body_util::Full;
    use hyper::body::Frame;

    use super::*;

    /// A body in pieces; at one that is empty the client falls silent.
    struct Pieces(std::vec::IntoIter<&'static str>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.0.as_slice().first() == Some(&"") {
                return Poll::Pending;
            }
            Poll::Ready(self.0.next().map(|it| Ok(Frame::data(Bytes::from(it)))))
        }
    }

    #[tokio::test]
    async fn a_body_has_a_limit() {
        assert_eq!(read(Full::new(Bytes::from("12345")), 5).await.unwrap(), "12345");
        assert_eq!(read(Full::new(Bytes::new()), 0).await.unwrap(), "");
        let long = read(Full::new(Bytes::from("12345")), 4).await;
        assert!(matches!(long, Err(ReadError::TooLong { max: 4 })), "{long:?}");
    }

    #[tokio::test]
    async fn a_body_in_pieces_has_a_limit_too() {
        for (max, expected) in [(1, None), (5, None), (6, Some("123456")), (7, Some("123456"))] {
            let body = Pieces(vec!["12", "345", "6"].into_iter());
            assert_eq!(read(body, max).await.ok(), expected.map(Bytes::from), "{max}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_falls_silent_is_not_waited_for() {
        let body = Pieces(vec!["12", ""].into_iter());
        assert!(matches!(read(body, 5).await, Err(ReadError::Silent)));
    }
}
