//! `/channel/…`: made, deleted, emptied, paused, rewound.

use http::StatusCode;
use serde_json::json;

use super::{
    Api,
    params::{Asked, Place, channel_not_found, channel_options, start, unavailable},
};
use crate::{
    broker::{ChannelError, Start},
    web::{Failure, Query, Reply},
};

/// What is done to a channel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Create,
    Delete,
    Empty,
    Pause,
    Unpause,
    Rewind,
}

impl Api {
    pub(super) async fn channel(&self, action: Action, query: &Query) -> Result<Reply, Failure> {
        let place = self.place(query)?;
        match action {
            Action::Create => self.create(&place, query).await?,
            Action::Delete => {
                let deleted = place.topic.delete_channel(&place.channel);
                deleted.map_err(|_| channel_not_found())?;
            }
            Action::Empty => place.existing()?.empty(),
            Action::Pause => place.existing()?.pause(true),
            Action::Unpause => place.existing()?.pause(false),
            Action::Rewind => return self.rewind(&place, query).await,
        }
        self.settled().await?;
        Ok(Reply::Empty)
    }

    /// Without parameters of ours it is the original's, which leaves a channel that is there as it
    /// is.
    async fn create(&self, place: &Place, query: &Query) -> Result<(), Failure> {
        let options = channel_options(query)?;
        let start = query.get("start").map(|text| start(text, self.now())).transpose()?;
        let made = match (options, start) {
            (None, None) => place.topic.channel(&place.channel),
            (options, start) => {
                let start = start.unwrap_or(Asked::At(Start::Routed)).of(&place.topic).await?;
                let options = options.unwrap_or_default();
                place.topic.create_channel(&place.channel, options, start)
            }
        };
        made.map(drop).map_err(|error| match error {
            ChannelError::Exiting => unavailable("EXITING"),
            ChannelError::TooMany { .. } => unavailable(error.to_string()),
            ChannelError::Other(_) => Failure::new(StatusCode::CONFLICT, error.to_string()),
        })
    }

    async fn rewind(&self, place: &Place, query: &Query) -> Result<Reply, Failure> {
        let text = query.get("start").ok_or_else(|| Failure::bad("MISSING_ARG_START"))?;
        let start = start(text, self.now())?.of(&place.topic).await?;
        let to = place.topic.rewind(&place.channel, start).map_err(|_| channel_not_found())?;
        self.settled().await?;
        Ok(Reply::json(&json!({ "sequence": to.0 })))
    }
}
