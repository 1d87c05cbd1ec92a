//! `/ping`, `/info`, `/stats` and `/metrics`: what nsqd tells of itself.

use std::{convert::Infallible, time::Duration};

use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde::Serialize;

use super::Api;
use crate::{
    cli,
    protocol::ClientStats,
    stats::{Exposition, Head, Memory, Process, TopicStats, Wanted, Whole, text},
    web::{Body, Failure, Query, Reply, VERSION},
};

/// What Prometheus calls its text format.
const EXPOSITION: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

#[derive(Serialize)]
struct Info<'a> {
    version: &'a str,
    broadcast_address: &'a str,
    hostname: &'a str,
    http_port: i32,
    tcp_port: i32,
    start_time: i64,
    max_heartbeat_interval: u64,
    max_output_buffer_size: u64,
    max_output_buffer_timeout: u64,
    max_deflate_level: u64,
    topology_zone: &'a str,
    topology_region: &'a str,
}

#[derive(Serialize)]
struct Document<'a> {
    version: &'a str,
    health: &'a str,
    start_time: i64,
    topics: Option<Vec<TopicStats>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    producers: Option<Vec<ClientStats>>,
}

impl Api {
    pub(super) fn ping(&self) -> Result<Reply, Failure> {
        match self.health() {
            Ok(()) => Ok(Reply::Text("OK".into())),
            Err(why) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, why)),
        }
    }

    /// What is wrong, in the original's form.
    fn health(&self) -> Result<(), String> {
        self.0.source.broker.health().map_err(|why| format!("NOK - {why}"))
    }

    pub(super) fn info(&self) -> Reply {
        let options = self.0.options.borrow();
        let nanos = |it: Duration| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX);
        // -1 is a Unix socket, to the original.
        let port = |it: Option<u16>| it.map_or(-1, i32::from);
        Reply::json(&Info {
            version: VERSION,
            broadcast_address: &options.broadcast_address,
            hostname: &self.0.hostname,
            http_port: port(self.0.http_port),
            tcp_port: port(self.0.tcp_port),
            start_time: self.0.started.as_second(),
            max_heartbeat_interval: nanos(options.max_heartbeat_interval),
            max_output_buffer_size: options.max_output_buffer_size.0,
            max_output_buffer_timeout: nanos(options.max_output_buffer_timeout),
            max_deflate_level: options.max_deflate_level.0,
            topology_zone: &options.topology_zone,
            topology_region: &options.topology_region,
        })
    }

    pub(super) fn stats(&self, query: &Query) -> Reply {
        let clients = truth(query, "include_clients");
        let stats = self.0.source.stats(Wanted { clients, ..wanted(query) });
        let memory = truth(query, "include_mem").then(|| Process::now().memory());
        let health = self.health();
        let health = health.as_ref().map_or_else(|why| why.as_str(), |()| "OK");
        if query.get("format") != Some("json") {
            let version = cli::version("nsqd");
            let version = version.trim_end();
            let (started, now) = (self.0.started, self.now());
            return Reply::Text(
                text(Head { version, health, started, now, memory }, &stats).into(),
            );
        }
        Reply::json(&Document {
            version: VERSION,
            health,
            start_time: self.0.started.as_second(),
            topics: stats.topics,
            memory,
            producers: stats.producers,
        })
    }

    pub(super) fn metrics(&self, query: &Query) -> Response<Body> {
        let whole = Whole {
            healthy: self.health().is_ok(),
            clients: u64::try_from(self.0.source.clients.count()).unwrap_or(u64::MAX),
            started_seconds: self.0.started.as_second(),
            process: Process::now(),
        };
        let page = Exposition::new(whole, self.0.source.clone(), wanted(query));
        let pieces = stream::unfold(page, |mut page| async move {
            // A client that reads quickly does not keep others from their turn.
            tokio::task::yield_now().await;
            let piece = page.next_piece()?;
            Some((Ok::<_, Infallible>(Frame::data(piece)), page))
        });
        let mut answer = Response::new(StreamBody::new(pieces).boxed_unsync());
        answer.headers_mut().insert(header::CONTENT_TYPE, EXPOSITION);
        answer
    }
}

/// An empty name is none.
fn wanted(query: &Query) -> Wanted<'_> {
    let name = |key| query.get(key).filter(|it| !it.is_empty());
    Wanted { topic: name("topic"), channel: name("channel"), clients: false }
}

/// What is neither yes nor no is yes.
fn truth(query: &Query, key: &str) -> bool {
    !matches!(query.get(key), Some("false" | "0"))
}
