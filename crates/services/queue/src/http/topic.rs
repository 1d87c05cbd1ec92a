//! `/topic/…`: made, deleted, emptied, paused.

use http::StatusCode;

use super::{Api, params::topic_not_found};
use crate::{
    broker::{TooOften, Topic},
    name::Name,
    web::{Failure, Query, Reply},
};

/// What is done to a topic.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Create,
    Delete,
    Empty,
    Pause,
    Unpause,
}

impl Api {
    pub(super) async fn topic(&self, action: Action, query: &Query) -> Result<Reply, Failure> {
        match action {
            Action::Create => drop(self.topic_made(query).await?),
            Action::Delete => {
                let name = existing_name(query, topic_not_found)?;
                let deleted = self.0.source.broker.delete_topic(&name).await;
                deleted.map_err(|_| topic_not_found())?;
            }
            // The one action that tells a name that is not valid from one that is not there.
            Action::Empty => {
                let topic = self.existing(query, || Failure::bad("INVALID_TOPIC"))?;
                let refused = |it: TooOften| Failure::new(StatusCode::CONFLICT, it.to_string());
                topic.empty().map_err(refused)?;
            }
            Action::Pause => self.existing(query, topic_not_found)?.pause(true),
            Action::Unpause => self.existing(query, topic_not_found)?.pause(false),
        }
        self.settled().await?;
        Ok(Reply::Empty)
    }

    fn existing(&self, query: &Query, invalid: fn() -> Failure) -> Result<Topic, Failure> {
        let name = existing_name(query, invalid)?;
        self.0.source.broker.existing_topic(&name).ok_or_else(topic_not_found)
    }
}

fn existing_name(query: &Query, invalid: fn() -> Failure) -> Result<Name, Failure> {
    let name = query.get("topic").ok_or_else(|| Failure::bad("MISSING_ARG_TOPIC"))?;
    Name::parse(name).ok_or_else(invalid)
}
