//! The API that the original's page uses, and scripts with it.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;

use super::{
    Shared,
    actions::{Target, Verb},
    cluster::{Partial, Unanswered},
    data,
    notify::Asker,
    wire::{Counter, Done, Inactive, NodeList, TopicList, Warned},
};
use crate::{
    name::Name,
    web::{Failure, Query, Reply},
};

/// A request to the API.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: &'a Method,
    /// The path below `/api`, piece by piece.
    pub(super) path: &'a [&'a str],
    pub(super) query: &'a str,
    pub(super) body: Bytes,
    /// Who asks.
    pub(super) asker: Asker,
    /// Whether that is somebody who may change things.
    pub(super) may_change: bool,
}

/// What is to be created.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Create {
    topic: String,
    channel: String,
}

/// What is to be done.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Act {
    action: String,
}

/// Of which topic a node is to be hidden.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tombstone {
    topic: String,
}

type Answer = Result<Reply, Failure>;

/// Answers a request.
pub(super) async fn answer(shared: &Shared, call: Call<'_>) -> Answer {
    let get = *call.method == Method::GET;
    match call.path {
        ["topics"] if get => topics(shared, call.query).await,
        ["topics", topic] if get => {
            let Partial { value, warnings } = data::topic(&shared.cluster(), topic).await?;
            let message = data::warning(&warnings);
            Ok(Reply::json(&Warned { document: value, message }))
        }
        ["topics", topic, channel] if get => {
            let asked = data::channel(&shared.cluster(), topic, channel).await?;
            let channel = asked.value.ok_or_else(|| Failure::not_found("CHANNEL_NOT_FOUND"))?;
            let message = data::warning(&asked.warnings);
            Ok(Reply::json(&Warned { document: channel, message }))
        }
        ["nodes"] if get => {
            let Partial { value, warnings } = data::nodes(&shared.cluster()).await?;
            let nodes = (!value.is_empty()).then_some(value);
            Ok(Reply::json(&NodeList { nodes, message: data::warning(&warnings) }))
        }
        ["nodes", node] if get => {
            let node = data::node(&shared.cluster(), node).await?;
            Ok(Reply::json(&node.ok_or_else(|| Failure::not_found("NODE_NOT_FOUND"))?))
        }
        ["counter"] if get => {
            let Partial { value, warnings } = data::counter(&shared.cluster()).await?;
            Ok(Reply::json(&Counter { stats: value, message: data::warning(&warnings) }))
        }
        ["topics"] if *call.method == Method::POST => create(shared, &call).await,
        ["topics", topic] => change(shared, &call, Target { topic, channel: None }).await,
        ["topics", topic, channel] => {
            change(shared, &call, Target { topic, channel: Some(channel) }).await
        }
        ["nodes", node] if *call.method == Method::DELETE => tombstone(shared, &call, node).await,
        ["topics" | "nodes" | "counter"] | ["nodes", _] => Err(Failure::method()),
        _ => Err(Failure::no_path()),
    }
}

async fn topics(shared: &Shared, query: &str) -> Answer {
    let query = Query::parse(query).map_err(|error| Failure::bad(error.to_string()))?;
    if query.get("inactive") == Some("true") {
        let Partial { value, warnings } = data::inactive(&shared.cluster()).await?;
        return Ok(Reply::json(&Inactive { topics: value, message: data::warning(&warnings) }));
    }
    let Partial { value, warnings } = shared.cluster().topics().await?;
    let topics = (!value.is_empty()).then_some(value);
    Ok(Reply::json(&TopicList { topics, message: data::warning(&warnings) }))
}

async fn create(shared: &Shared, call: &Call<'_>) -> Answer {
    let body: Create = body(call)?;
    let channel = (!body.channel.is_empty()).then_some(body.channel.as_str());
    created(shared, &call.asker, &body.topic, channel).await
}

/// Creates a topic, and perhaps a channel.
pub(super) async fn created(
    shared: &Shared,
    asker: &Asker,
    topic: &str,
    channel: Option<&str>,
) -> Answer {
    if Name::parse(topic).is_none() {
        return Err(Failure::bad("INVALID_TOPIC"));
    }
    if channel.is_some_and(|it| Name::parse(it).is_none()) {
        return Err(Failure::bad("INVALID_CHANNEL"));
    }
    let warnings = shared.cluster().act(Verb::Create, Target { topic, channel }).await?;
    shared.notify("create_topic", Target { topic, channel: None }, "", asker);
    if channel.is_some() {
        shared.notify("create_channel", Target { topic, channel }, "", asker);
    }
    Ok(Reply::json(&Done { message: data::warning(&warnings) }))
}

async fn change(shared: &Shared, call: &Call<'_>, target: Target<'_>) -> Answer {
    let verb = match *call.method {
        Method::DELETE => {
            authorised(call)?;
            Verb::Delete
        }
        Method::POST => {
            let act: Act = body(call)?;
            Verb::parse(&act.action).ok_or_else(|| Failure::bad("INVALID_ACTION"))?
        }
        _ => return Err(Failure::method()),
    };
    changed(shared, &call.asker, verb, target).await
}

/// Does something to a topic or channel.
pub(super) async fn changed(
    shared: &Shared,
    asker: &Asker,
    verb: Verb,
    target: Target<'_>,
) -> Answer {
    let warnings = shared.cluster().act(verb, target).await?;
    shared.notify(&format!("{}_{}", verb.word(), target.kind()), target, "", asker);
    Ok(Reply::json(&Done { message: data::warning(&warnings) }))
}

async fn tombstone(shared: &Shared, call: &Call<'_>, node: &str) -> Answer {
    authorised(call)?;
    let body = serde_json::from_slice::<Tombstone>(&call.body);
    let body = body.map_err(|_| Failure::bad("INVALID_BODY"))?;
    tombstoned(shared, &call.asker, &body.topic, node).await
}

/// Hides an nsqd from consumers of a topic and deletes the topic there.
pub(super) async fn tombstoned(shared: &Shared, asker: &Asker, topic: &str, node: &str) -> Answer {
    if Name::parse(topic).is_none() {
        return Err(Failure::bad("INVALID_TOPIC"));
    }
    let warnings = shared.cluster().tombstone(topic, node).await?;
    let target = Target { topic, channel: None };
    shared.notify("tombstone_topic_producer", target, node, asker);
    Ok(Reply::json(&Done { message: data::warning(&warnings) }))
}

fn authorised(call: &Call<'_>) -> Result<(), Failure> {
    if call.may_change { Ok(()) } else { Err(Failure::new(StatusCode::FORBIDDEN, "FORBIDDEN")) }
}

fn body<T: serde::de::DeserializeOwned>(call: &Call<'_>) -> Result<T, Failure> {
    authorised(call)?;
    serde_json::from_slice(&call.body).map_err(|error| {
        // The original's word for nothing at all.
        let nothing = call.body.is_empty();
        Failure::bad(if nothing { "EOF".to_owned() } else { error.to_string() })
    })
}

impl From<Unanswered> for Failure {
    fn from(error: Unanswered) -> Self {
        tracing::error!(%error, "an answer cannot be given");
        Self::new(StatusCode::BAD_GATEWAY, format!("UPSTREAM_ERROR: {error}"))
    }
}
