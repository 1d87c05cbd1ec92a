//! The channels that a new topic has elsewhere. They are made here too, so that a channel whose
//! consumers have not come to this nsqd yet gets every message.
//!
//! The original asks before the topic takes its first message, and goes without if nobody answers.
//! Here a topic keeps its messages, so it can be asked for afterwards, as soon as somebody answers:
//! such a channel begins where the topic begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use serde::Deserialize;

use super::{Inner, Topics};
use crate::{
    name::Name,
    web::{Chain, Client, encode},
};

/// How long an nsqlookupd may take. The original's.
const CLIENT: Client = Client { connect: Duration::from_secs(2), request: Duration::from_secs(5) };

/// Questions at the same time, when many topics are new.
const ASKED_AT_ONCE: usize = 16;

/// Wait before those that were asked in vain are asked again, if nothing else happens before.
const AGAIN: Duration = Duration::from_secs(5);

/// `/channels`.
#[derive(Debug, Deserialize)]
struct Channels {
    #[serde(default)]
    channels: Vec<String>,
}

/// Watches for topics that are not in `seen`, for ever.
pub(super) async fn watch<T: Topics>(topics: Arc<T>, inner: Arc<Inner>, mut seen: BTreeSet<Name>) {
    let (mut changes, mut news) = (topics.changes(), inner.news.subscribe());
    let mut unasked = BTreeSet::new();
    loop {
        changes.mark_unchanged();
        news.mark_unchanged();
        let here: BTreeSet<Name> = topics.topology().into_keys().collect();
        unasked.extend(here.difference(&seen).cloned());
        unasked.retain(|it| here.contains(it));
        seen = here;
        if inner.lookupds.borrow().is_empty() {
            unasked.clear();
        }
        let lookupds: Vec<String> = inner.connected().values().cloned().collect();
        for (topic, channels) in ask(&lookupds, &unasked).await {
            unasked.remove(&topic);
            if !channels.is_empty() {
                tracing::info!(%topic, channels = channels.len(), "known elsewhere");
                topics.create(&topic, &channels);
            }
        }
        let again = async {
            // Only those that are there can be asked; one that comes is `news`.
            if unasked.is_empty() || lookupds.is_empty() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(AGAIN).await;
        };
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
            }
            _ = news.changed() => {}
            () = again => {}
        }
    }
}

/// The channels of each topic that somebody could be asked for. One answer is enough, as in the
/// original; what others say is added.
async fn ask(lookupds: &[String], topics: &BTreeSet<Name>) -> BTreeMap<Name, BTreeSet<Name>> {
    let questions = topics
        .iter()
        .flat_map(|topic| lookupds.iter().map(move |lookupd| (topic.clone(), lookupd.clone())));
    let questions: Vec<_> = questions.collect();
    let answers = stream::iter(questions).map(|(topic, lookupd)| async move {
        let path = format!("/channels?topic={}", encode(topic.as_str()));
        match CLIENT.get::<Channels>(&lookupd, &path).await {
            Ok(answer) => Some((topic, answer.channels)),
            Err(error) => {
                tracing::warn!(lookupd, %topic, error = %Chain(&error), "ask for its channels");
                None
            }
        }
    });
    let answers: Vec<_> = answers.buffer_unordered(ASKED_AT_ONCE).collect().await;
    let mut known: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
    for (topic, channels) in answers.into_iter().flatten() {
        let names = channels.iter().filter_map(|it| Name::parse(it));
        // An ephemeral channel is there for its consumers only.
        known.entry(topic).or_default().extend(names.filter(|it| !it.is_ephemeral()));
    }
    known
}
