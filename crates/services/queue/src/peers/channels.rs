//! The channels that a new topic has elsewhere. They are made here too, so that a channel whose
//! consumers have not come to this nsqd yet gets every message.
//!
//! As in the original, a new topic gives nothing to its channels before the nsqlookupds that are there
//! have said which it is to have: else a channel that a consumer makes meanwhile would miss what had
//! gone to another. Unlike there, its publishers do not wait, and if nobody answers in time, the
//! channels are made when somebody does, and get everything from the topic's first message on.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::{
    Inner, Topics,
    waiting::{Decision, Lookupds, Question, Waiting},
};
use crate::{
    name::Name,
    web::{Chain, Client, ClientError, encode},
};

/// `/channels`.
#[derive(Debug, Deserialize)]
struct Channels {
    #[serde(default)]
    channels: Vec<String>,
}

/// Asks about new topics, for ever.
pub(super) async fn watch<T: Topics>(topics: Arc<T>, inner: Arc<Inner>, client: Client) {
    let mut changes = topics.changes();
    let (mut news, mut configured) = (inner.news.subscribe(), inner.lookupds.subscribe());
    let mut waiting = Waiting::new(client.request);
    let mut answers = FuturesUnordered::new();
    loop {
        changes.mark_unchanged();
        news.mark_unchanged();
        let lookupds = look(&inner, &configured.borrow_and_update());
        topics.hold_new(!lookupds.is_empty());
        waiting.see(topics.held(), Instant::now());
        waiting.retain(|it| topics.exists(it));
        let Decision { ask: questions, release, wake } = waiting.decide(&lookupds, Instant::now());
        for (topic, answered) in release {
            if !answered && !lookupds.is_empty() {
                tracing::warn!(%topic, "no nsqlookupd says which channels it has elsewhere");
            }
            topics.release(&topic);
        }
        for question in questions {
            answers.push(ask(question, client.clone()));
        }
        let wake = async {
            match wake {
                Some(time) => sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
            }
            _ = news.changed() => {}
            _ = configured.changed() => {}
            Some((question, answer)) = answers.next() => {
                waiting.take(&question, answer.is_ok(), Instant::now());
                take(&*topics, &question, answer);
            }
            () = wake => {}
        }
    }
}

/// What is known of those that are configured.
fn look(inner: &Inner, configured: &BTreeSet<String>) -> Lookupds {
    let peers = inner.peers();
    configured.iter().map(|it| (it.clone(), peers.get(it).cloned())).collect()
}

async fn ask(
    question: Question,
    client: Client,
) -> (Question, Result<BTreeSet<Name>, ClientError>) {
    let path = format!("/channels?topic={}", encode(question.topic.as_str()));
    let answer = client.get::<Channels>(&question.http, &path).await;
    let names = answer.map(|answer| {
        let names = answer.channels.iter().filter_map(|it| Name::parse(it));
        // An ephemeral channel is there for its consumers only.
        names.filter(|it| !it.is_ephemeral()).collect()
    });
    (question, names)
}

/// Makes the channels that an nsqlookupd knows; what others say is added.
fn take<T: Topics>(topics: &T, question: &Question, answer: Result<BTreeSet<Name>, ClientError>) {
    let Question { topic, lookupd, .. } = question;
    match answer {
        Ok(channels) if channels.is_empty() => {}
        Ok(channels) => {
            tracing::info!(%topic, lookupd, channels = channels.len(), "known elsewhere");
            topics.create(topic, &channels);
        }
        Err(error) => {
            tracing::warn!(lookupd, %topic, error = %Chain(&error), "ask for its channels");
        }
    }
}
