//! Parameters of requests: which are asked for, in which order they are judged, and the original's
//! words for what is wrong with them.

use std::borrow::Cow;

use http::StatusCode;
use jiff::Timestamp;

use super::Api;
use crate::{
    broker::{Channel, ChannelOptions, Start, Topic, TopicError},
    cli::duration,
    message::{Nanos, Sequence},
    name::Name,
    web::{Failure, Query},
};

/// A topic and the name of a channel, there or not.
pub(super) struct Place {
    pub(super) topic: Topic,
    pub(super) channel: Name,
}

impl Api {
    /// The topic that is to be published to or made.
    pub(super) async fn topic_made(&self, query: &Query) -> Result<Topic, Failure> {
        let name = query.get("topic").ok_or_else(|| Failure::bad("MISSING_ARG_TOPIC"))?;
        let name = Name::parse(name).ok_or_else(|| Failure::bad("INVALID_TOPIC"))?;
        self.0.source.broker.topic(&name).await.map_err(|error| match error {
            TopicError::Exiting => unavailable("EXITING"),
            TopicError::TooMany { .. } | TopicError::Disk { .. } | TopicError::Journal(_) => {
                let error = crate::chain(&error);
                tracing::error!(topic = %name, error, "cannot make a topic");
                unavailable(error)
            }
        })
    }

    /// What was done is acknowledged only once a restart knows it.
    pub(super) async fn settled(&self) -> Result<(), Failure> {
        self.0.source.broker.settled().await.map_err(|error| unavailable(crate::chain(&error)))
    }

    /// The topic, which must be there, and the channel's name, which must be valid.
    pub(super) fn place(&self, query: &Query) -> Result<Place, Failure> {
        let topic = query.get("topic").ok_or_else(|| Failure::bad("MISSING_ARG_TOPIC"))?;
        let topic = Name::parse(topic).ok_or_else(|| Failure::bad("INVALID_ARG_TOPIC"))?;
        let channel = query.get("channel").ok_or_else(|| Failure::bad("MISSING_ARG_CHANNEL"))?;
        let channel = Name::parse(channel).ok_or_else(|| Failure::bad("INVALID_ARG_CHANNEL"))?;
        let topic = self.0.source.broker.existing_topic(&topic);
        Ok(Place { topic: topic.ok_or_else(topic_not_found)?, channel })
    }
}

impl Place {
    pub(super) fn existing(&self) -> Result<Channel, Failure> {
        self.topic.existing_channel(&self.channel).ok_or_else(channel_not_found)
    }
}

/// It cannot be done now; nothing of it was done that a client could rely on.
pub(super) fn unavailable(why: impl Into<Cow<'static, str>>) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, why)
}

pub(super) fn topic_not_found() -> Failure {
    Failure::not_found("TOPIC_NOT_FOUND")
}

pub(super) fn channel_not_found() -> Failure {
    Failure::not_found("CHANNEL_NOT_FOUND")
}

/// Where a channel shall begin, as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// There.
    At(Start),
    /// At the first message that was published then or later.
    Since(Nanos),
}

impl Asked {
    pub(super) async fn of(self, topic: &Topic) -> Result<Start, Failure> {
        let time = match self {
            Self::At(start) => return Ok(start),
            Self::Since(time) => time,
        };
        let found = topic.since(time).await;
        found.map(Start::At).map_err(|error| unavailable(crate::chain(&error)))
    }
}

/// Reads where a channel shall begin: `beginning`, `end`, the sequence of a message, a time, or
/// how long ago (`-10m`).
pub(super) fn start(text: &str, now: Timestamp) -> Result<Asked, Failure> {
    let ago = || {
        let ago = duration::parse(text.strip_prefix('-')?)?;
        Some(Asked::Since(Nanos::of(now.checked_sub(ago).ok()?)))
    };
    let time = || Some(Asked::Since(Nanos::of(text.parse::<Timestamp>().ok()?)));
    let sequence = || Some(Asked::At(Start::At(Sequence(text.parse().ok()?))));
    match text {
        "beginning" => Some(Asked::At(Start::Beginning)),
        "end" => Some(Asked::At(Start::End)),
        _ => sequence().or_else(ago).or_else(time),
    }
    .ok_or_else(|| Failure::bad("INVALID_START"))
}

/// What a channel shall do beyond the original's; `None` if nothing is said of it.
pub(super) fn channel_options(query: &Query) -> Result<Option<ChannelOptions>, Failure> {
    let mut options = ChannelOptions::default();
    let mut any = false;
    if let Some(text) = query.get("max_attempts") {
        let attempts = text.parse().ok().filter(|it| *it > 0);
        let attempts = attempts.ok_or_else(|| Failure::bad("INVALID_MAX_ATTEMPTS"))?;
        (options.attempts_max, any) = (Some(attempts), true);
    }
    if let Some(text) = query.get("dead_letter") {
        let topic = Name::parse(text).ok_or_else(|| Failure::bad("INVALID_DEAD_LETTER"))?;
        if options.attempts_max.is_none() {
            return Err(Failure::bad("MISSING_ARG_MAX_ATTEMPTS"));
        }
        options.dead_letter_topic = Some(topic);
    }
    match query.get("ordered") {
        None => {}
        Some("key") => (options.ordered_by_key, any) = (true, true),
        Some(_) => return Err(Failure::bad("INVALID_ORDERED")),
    }
    Ok(any.then_some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_can_be_said_in_five_ways() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let read = |text| start(text, now).ok();
        assert_eq!(read("beginning"), Some(Asked::At(Start::Beginning)));
        assert_eq!(read("end"), Some(Asked::At(Start::End)));
        assert_eq!(read("17"), Some(Asked::At(Start::At(Sequence(17)))));
        let nine: Timestamp = "2026-01-02T02:54:05Z".parse().unwrap();
        assert_eq!(read("-10m"), Some(Asked::Since(Nanos::of(nine))));
        assert_eq!(read("2026-01-02T03:54:05+01:00"), Some(Asked::Since(Nanos::of(nine))));
        for bad in ["", "-", "-5", "10m", "yesterday", "2026-01-02", "1.5", "-9999999h"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn options_of_a_channel_are_judged() {
        let read = |text: &str| channel_options(&Query::parse(text).unwrap());
        assert_eq!(read("topic=a"), Ok(None));
        let options = read("max_attempts=3&dead_letter=d&ordered=key").unwrap().unwrap();
        assert_eq!((options.attempts_max, options.ordered_by_key), (Some(3), true));
        for (bad, word) in [
            ("max_attempts=0", "INVALID_MAX_ATTEMPTS"),
            ("max_attempts=65536", "INVALID_MAX_ATTEMPTS"),
            ("dead_letter=d", "MISSING_ARG_MAX_ATTEMPTS"),
            ("max_attempts=1&dead_letter=a/b", "INVALID_DEAD_LETTER"),
            ("ordered=yes", "INVALID_ORDERED"),
        ] {
            assert_eq!(read(bad), Err(Failure::bad(word)), "{bad}");
        }
    }
}
