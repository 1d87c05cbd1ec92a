//! What a person may have done to topics and channels: which requests to whom that is.

use super::{
    cluster::{Asked, Cluster, Partial, Unanswered},
    wire::Producer,
};
use crate::web::encode;

/// Something to be done to a topic or, if it has one, a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    Delete,
    Empty,
    Pause,
    Unpause,
}

impl Verb {
    /// The verb of that name, of those that are done to what is there.
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "empty" => Some(Self::Empty),
            "pause" => Some(Self::Pause),
            "unpause" => Some(Self::Unpause),
            _ => None,
        }
    }

    /// Its name on the wire.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Empty => "empty",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
        }
    }
}

/// A topic or one of its channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) topic: &'a str,
    pub(super) channel: Option<&'a str>,
}

impl Target<'_> {
    /// `topic` or `channel`.
    pub(super) const fn kind(&self) -> &'static str {
        if self.channel.is_some() { "channel" } else { "topic" }
    }

    fn path(&self, verb: Verb) -> String {
        let (kind, word, topic) = (self.kind(), verb.word(), encode(self.topic));
        let channel = self.channel.map(|it| format!("&channel={}", encode(it))).unwrap_or_default();
        format!("/{kind}/{word}?topic={topic}{channel}")
    }
}

impl Cluster {
    /// Does it to all who have it; gives the warnings.
    pub(super) async fn act(
        &self,
        verb: Verb,
        target: Target<'_>,
    ) -> Result<Vec<String>, Unanswered> {
        if verb == Verb::Create {
            return self.create(target).await;
        }
        // Whoever has it must be known before nsqlookupds forget it.
        let Partial { value: producers, mut warnings } = self.producers_of(target.topic).await?;
        let path = target.path(verb);
        if verb == Verb::Delete {
            warnings.append(&mut self.post_lookupds(&path).await);
        }
        warnings.append(&mut self.post_producers(&producers, &path).await);
        Ok(warnings)
    }

    /// Makes a topic known to nsqlookupds, and a channel to them and to who has the topic.
    async fn create(&self, target: Target<'_>) -> Result<Vec<String>, Unanswered> {
        let topic = Target { topic: target.topic, channel: None };
        let mut warnings = self.post_lookupds(&topic.path(Verb::Create)).await;
        if target.channel.is_none() {
            return Ok(warnings);
        }
        let path = target.path(Verb::Create);
        warnings.append(&mut self.post_lookupds(&path).await);
        let mut asked = if self.lookupds.is_empty() {
            // The original fails; an nsqd can do it alone.
            self.producers().await?
        } else {
            self.producers_of(target.topic).await?
        };
        warnings.append(&mut asked.warnings);
        warnings.append(&mut self.post_producers(&asked.value, &path).await);
        Ok(warnings)
    }

    /// Hides the nsqd at `node`, which is `host:port` of its HTTP, from consumers of `topic`, and
    /// deletes the topic there.
    ///
    /// Only an nsqd that is known is asked to delete: a request must not make this program talk to an
    /// arbitrary address.
    pub(super) async fn tombstone(
        &self,
        topic: &str,
        node: &str,
    ) -> Result<Vec<String>, Unanswered> {
        let path = format!("/topic/tombstone?topic={}&node={}", encode(topic), encode(node));
        let mut warnings = self.post_lookupds(&path).await;
        let producers: Asked<Vec<Producer>> = self.producers().await;
        let mut asked = producers?;
        asked.value.retain(|it| it.http() == node);
        if asked.value.is_empty() {
            return Err(Unanswered(format!("failed to query any nsqd: {node} is not known")));
        }
        warnings.append(&mut asked.warnings);
        let path = Target { topic, channel: None }.path(Verb::Delete);
        warnings.append(&mut self.post_producers(&asked.value, &path).await);
        Ok(warnings)
    }
}
