//! `/pub` and `/mpub`: messages of one request, acknowledged when they are as durable as asked.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::StatusCode;
use hyper::body::Body as HttpBody;

use super::{Api, Cause, params::unavailable};
use crate::{
    broker::{PublishError, Topic},
    log::AppendError,
    message::NewMessage,
    web::{Failure, Query, Reply},
};

/// The longest `key=`. It is kept with the message.
const KEY_BYTES_MAX: usize = 256;

type Asked = Result<Query, Failure>;

impl Api {
    pub(super) async fn publish<B>(
        &self,
        query: impl FnOnce() -> Asked,
        body: B,
    ) -> Result<Reply, Failure>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<Cause>,
    {
        let (max, delay_max) = {
            let options = self.0.options.borrow();
            (options.max_msg_size.get(), options.max_req_timeout)
        };
        let arrived = self.read(body, max, "MSG_TOO_BIG").await?;
        if arrived.body.is_empty() {
            return Err(Failure::bad("MSG_EMPTY"));
        }
        let query = query()?;
        let topic = self.topic_made(&query).await?;
        let delay = query.get("defer").map(|text| delay(text, delay_max)).transpose()?;
        let message = NewMessage {
            body: arrived.body.clone(),
            delay: delay.unwrap_or_default(),
            key: query.get("key").map(key).transpose()?,
        };
        acknowledged(&topic, vec![message]).await
    }

    pub(super) async fn publish_many<B>(
        &self,
        query: impl FnOnce() -> Asked,
        body: B,
    ) -> Result<Reply, Failure>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<Cause>,
    {
        let (message_max, body_max) = {
            let options = self.0.options.borrow();
            (options.max_msg_size.get(), options.max_body_size.get())
        };
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if length > body_max {
            return Err(too_large("BODY_TOO_BIG"));
        }
        let query = query()?;
        let topic = self.topic_made(&query).await?;
        let key = query.get("key").map(key).transpose()?;
        let binary = query.get("binary").is_some_and(|it| !matches!(it, "false" | "0"));
        let arrived = self.read(body, body_max, "BODY_TOO_BIG").await?;
        let body = arrived.body.clone();
        let bodies =
            if binary { counted(body, message_max, body_max)? } else { lines(&body, message_max)? };
        let messages: Vec<_> = bodies
            .into_iter()
            .map(|body| NewMessage { body, delay: Duration::ZERO, key: key.clone() })
            .collect();
        // A text of nothing but line ends is no messages, and fine, as in the original.
        if messages.is_empty() { Ok(ok()) } else { acknowledged(&topic, messages).await }
    }
}

const fn ok() -> Reply {
    Reply::Text(std::borrow::Cow::Borrowed("OK"))
}

fn too_large(word: &'static str) -> Failure {
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, word)
}

/// When too much waits for the disk, so does the client.
async fn acknowledged(topic: &Topic, messages: Vec<NewMessage>) -> Result<Reply, Failure> {
    let receipt = topic.publish_when_there_is_room(&messages).await.map_err(not_taken)?;
    receipt.committed().await.map_err(not_taken)?;
    Ok(ok())
}

fn not_taken(error: PublishError) -> Failure {
    match error {
        PublishError::Exiting | PublishError::Full => unavailable("EXITING"),
        PublishError::Refused(AppendError::TooLarge { .. }) => too_large("BODY_TOO_BIG"),
        PublishError::Refused(why) => unavailable(crate::chain(&why)),
    }
}

fn delay(text: &str, max: Duration) -> Result<Duration, Failure> {
    let delay = text.strip_prefix('+').unwrap_or(text).parse().ok().map(Duration::from_millis);
    delay.filter(|it| *it <= max).ok_or_else(|| Failure::bad("INVALID_DEFER"))
}

fn key(text: &str) -> Result<Bytes, Failure> {
    if text.is_empty() || text.len() > KEY_BYTES_MAX {
        return Err(Failure::bad("INVALID_KEY"));
    }
    Ok(Bytes::copy_from_slice(text.as_bytes()))
}

/// A message per line; what is empty is none.
fn lines(body: &Bytes, message_max: usize) -> Result<Vec<Bytes>, Failure> {
    let lines = body.split(|it| *it == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            if line.len() > message_max {
                return Err(too_large("MSG_TOO_BIG"));
            }
            Ok(body.slice_ref(line))
        })
        .collect()
}

/// How many, then each with its length before it; numbers are big-endian, of 32 bits and signed.
/// What comes after the last is ignored, as in the original.
fn counted(mut body: Bytes, message_max: usize, body_max: usize) -> Result<Vec<Bytes>, Failure> {
    let bad_body = || too_large("BAD_BODY");
    let bad_message = || too_large("BAD_MESSAGE");
    // The count itself, and of each message a length and at least one byte.
    let count_max = body_max.saturating_sub(4) / 5;
    let count = body.try_get_i32().ok().and_then(|it| usize::try_from(it).ok());
    let count = count.filter(|it| (1..=count_max).contains(it)).ok_or_else(bad_body)?;
    // No more than the bytes that came can be messages, whatever the count says.
    let mut messages = Vec::with_capacity(count.min(body.len() / 5));
    for _ in 0..count {
        let length = body.try_get_i32().ok().and_then(|it| usize::try_from(it).ok());
        let length = length.filter(|it| (1..=message_max).contains(it) && *it <= body.len());
        messages.push(body.split_to(length.ok_or_else(bad_message)?));
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(bodies: &[&[u8]]) -> Bytes {
        let mut frame = u32::try_from(bodies.len()).unwrap().to_be_bytes().to_vec();
        for body in bodies {
            frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
            frame.extend(*body);
        }
        frame.into()
    }

    #[test]
    fn bad_frames_are_told_apart() {
        let words = |body: &[u8]| {
            counted(Bytes::copy_from_slice(body), 3, 100).map_err(|it| it.message.into_owned())
        };
        for bad in [&b""[..], b"\0\0\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x14"] {
            assert_eq!(words(bad), Err("BAD_BODY".to_owned()), "{bad:?}");
        }
        for bad in [
            &b"\0\0\0\x01"[..],
            b"\0\0\0\x01\0\0\0\0",
            b"\0\0\0\x01\0\0\0\x02a",
            b"\0\0\0\x01\0\0\0\x04abcd",
            b"\0\0\0\x02\0\0\0\x01a",
            b"\0\0\0\x01\xff\xff\xff\xffa",
        ] {
            assert_eq!(words(bad), Err("BAD_MESSAGE".to_owned()), "{bad:?}");
        }
        assert_eq!(words(b"\0\0\0\x01\0\0\0\x01arest").unwrap(), ["a"]);
    }

    proptest! {
        #[test]
        fn frames_come_back(bodies in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 1..9), 1..9)) {
            let slices: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
            let read = counted(framed(&slices), 8, 1000).unwrap();
            prop_assert_eq!(read, bodies);
        }

        #[test]
        fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let body = Bytes::from(body);
            let bytes: usize =
                counted(body.clone(), 8, 64).unwrap_or_default().iter().map(Bytes::len).sum();
            prop_assert!(bytes <= body.len());
            let lines = lines(&body, 64).unwrap();
            prop_assert!(lines.iter().all(|it| !it.is_empty() && !it.contains(&b'\n')));
        }
    }
}
