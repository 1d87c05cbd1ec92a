//! The HTTP API: where consumers and `nsqadmin` ask.

use std::net::SocketAddr;

use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::{
    Shared,
    registry::TooMany,
    wire::{Channels, Info, Nodes, Topics},
};
use crate::{
    name::Name,
    web::{Body, Failure, Found, Query, Reply, Route, VERSION, find, plain, v1},
};

/// Answers `request`.
pub(super) fn answer(
    shared: &Shared,
    request: &Request<Incoming>,
    peer: SocketAddr,
) -> Response<Body> {
    let (method, path) = (request.method(), request.uri().path());
    let response = route(shared, request);
    tracing::debug!(%peer, %method, path, status = response.status().as_u16(), "answered");
    response
}

/// What there is.
const TABLE: &[Route<&str>] = &[
    Route { method: Method::GET, path: "/ping", to: "/ping" },
    Route { method: Method::GET, path: "/info", to: "/info" },
    Route { method: Method::GET, path: "/debug", to: "/debug" },
    Route { method: Method::GET, path: "/lookup", to: "/lookup" },
    Route { method: Method::GET, path: "/topics", to: "/topics" },
    Route { method: Method::GET, path: "/channels", to: "/channels" },
    Route { method: Method::GET, path: "/nodes", to: "/nodes" },
    Route { method: Method::POST, path: "/topic/create", to: "/topic/create" },
    Route { method: Method::POST, path: "/topic/delete", to: "/topic/delete" },
    Route { method: Method::POST, path: "/topic/tombstone", to: "/topic/tombstone" },
    Route { method: Method::POST, path: "/channel/create", to: "/channel/create" },
    Route { method: Method::POST, path: "/channel/delete", to: "/channel/delete" },
];

fn route(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    match find(TABLE, request.method(), request.uri()) {
        Found::Answer(response) => response,
        Found::Resource("/ping", _) => plain(Ok(Reply::Text("OK".into()))),
        Found::Resource(path, _) => {
            v1(decide(shared, path, request.uri().query().unwrap_or_default()))
        }
    }
}

fn decide(shared: &Shared, path: &str, query: &str) -> Result<Reply, Failure> {
    match path {
        "/info" => return Ok(Reply::json(&Info { version: VERSION })),
        "/debug" => return Ok(Reply::json(&shared.registry().debug())),
        "/topics" => return Ok(Reply::json(&Topics { topics: shared.registry().topics() })),
        "/nodes" => {
            let producers = shared.registry().nodes(shared.now());
            return Ok(Reply::json(&Nodes { producers }));
        }
        _ => {}
    }
    let query = Query::parse(query).map_err(|_| Failure::bad("INVALID_REQUEST"))?;
    let topic = query.get("topic").ok_or_else(|| Failure::bad("MISSING_ARG_TOPIC"))?;
    match path {
        "/lookup" => {
            let found = shared.registry().lookup(topic, shared.now());
            let found = found.ok_or_else(|| Failure::not_found("TOPIC_NOT_FOUND"))?;
            return Ok(Reply::json(&found));
        }
        "/channels" => {
            let channels = shared.registry().channels(topic);
            return Ok(Reply::json(&Channels { channels }));
        }
        "/topic/create" => {
            shared.registry().create_topic(&valid(topic, "INVALID_ARG_TOPIC")?)?;
            note("created the topic", topic, None);
        }
        "/topic/delete" => {
            shared.registry().delete_topic(topic, shared.now());
            note("deleted the topic", topic, None);
        }
        "/topic/tombstone" => {
            let node = query.get("node").ok_or_else(|| Failure::bad("MISSING_ARG_NODE"))?;
            shared.registry().tombstone(topic, node, shared.now());
            note("set a tombstone", topic, Some(node));
        }
        "/channel/create" | "/channel/delete" => {
            let name = valid(topic, "INVALID_ARG_TOPIC")?;
            let channel = query.get("channel");
            let channel = channel.ok_or_else(|| Failure::bad("MISSING_ARG_CHANNEL"))?;
            let channel = valid(channel, "INVALID_ARG_CHANNEL")?;
            if path == "/channel/create" {
                shared.registry().create_channel(&name, &channel)?;
                note("created the channel", topic, Some(channel.as_str()));
            } else if shared.registry().delete_channel(&name, &channel, shared.now()) {
                note("deleted the channel", topic, Some(channel.as_str()));
            } else {
                return Err(Failure::not_found("CHANNEL_NOT_FOUND"));
            }
        }
        _ => return Err(Failure::no_path()),
    }
    Ok(Reply::Empty)
}

/// Tells the operator what was done to a topic, and to which channel or node of it.
fn note(done: &str, topic: &str, of: Option<&str>) {
    tracing::info!(topic, of, "{done}");
}

fn valid(name: &str, otherwise: &'static str) -> Result<Name, Failure> {
    Name::parse(name).ok_or_else(|| Failure::bad(otherwise))
}

impl From<TooMany> for Failure {
    fn from(_: TooMany) -> Self {
        Self::new(http::StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_REGISTRATIONS")
    }
}
