//! Creates and gets of ConfigMaps over TLS, HTTP/1.1 and keep-alive.
//!
//! Closed loop: each connection waits for an answer before it asks again. The client runs on the
//! same cores as the server.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    http::Endpoint,
    processes::{Moment, Process},
    report::{Aim, Figure, Samples},
};

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const CONNECTIONS: [usize; 2] = [1, 32];
/// Characters of data in each; with its metadata an object is then about half a KiB.
const DATA: usize = 256;

/// What one connection does over and over.
#[derive(Clone)]
enum Load {
    Create { prefix: String },
    Get { names: Arc<Vec<String>> },
}

/// Runs each load for `period`. Of the `servers`, it says what they took of the cores.
pub(crate) async fn measure(
    endpoint: &Endpoint,
    servers: &[Process],
    period: Duration,
) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    // So that runs against the same server do not meet.
    let run = std::process::id();
    for connections in CONNECTIONS {
        let prefix = format!("bench-{run}-{connections}");
        let load = Load::Create { prefix: prefix.clone() };
        let many = connections > 1;
        let before = Before::now(servers)?;
        let (samples, names) = run_load(endpoint, &load, connections, period).await?;
        let aim = many.then_some(Aim::AtLeast(20_000.0));
        figures.extend(shown("creates", connections, &samples, period, aim));
        figures.extend(before.spent("creates", connections, &samples)?);
        let load = Load::Get { names: Arc::new(names) };
        let before = Before::now(servers)?;
        let (samples, _) = run_load(endpoint, &load, connections, period).await?;
        let aim = many.then_some(Aim::AtLeast(60_000.0));
        figures.extend(shown("gets", connections, &samples, period, aim));
        figures.extend(before.spent("gets", connections, &samples)?);
    }
    Ok(figures)
}

/// What client and servers had taken of the cores that they share, before a load.
struct Before<'a> {
    client: Moment,
    servers: &'a [Process],
    server: Moment,
}

impl<'a> Before<'a> {
    fn now(servers: &'a [Process]) -> anyhow::Result<Self> {
        let client = Moment::now(&[Process::this()])?;
        Ok(Self { client, servers, server: Moment::now(servers)? })
    }

    /// What they have taken since, for each request. Where load from elsewhere makes the rates
    /// vary, this stays.
    fn spent(
        &self,
        what: &str,
        connections: usize,
        samples: &Samples,
    ) -> anyhow::Result<Vec<Figure>> {
        let client = Moment::now(&[Process::this()])?.since(&self.client);
        let server = Moment::now(self.servers)?.since(&self.server);
        let figure = |who: &str, nanoseconds: u64| {
            let each = nanoseconds as f64 / 1e3 / samples.count().max(1) as f64;
            Figure::new(format!("{what}, {connections} connections, {who}'s processor"), each, "µs")
        };
        let mut figures = vec![figure("client", client.cpu_nanoseconds)];
        if !self.servers.is_empty() {
            figures.push(figure("server", server.cpu_nanoseconds));
        }
        Ok(figures)
    }
}

fn shown(
    what: &str,
    connections: usize,
    samples: &Samples,
    period: Duration,
    aim: Option<Aim>,
) -> [Figure; 3] {
    let rate = samples.count() as f64 / period.as_secs_f64();
    let rate = Figure::new(format!("{what}, {connections} connections"), rate, "1/s");
    let time = |percent| {
        let what = format!("{what}, {connections} connections, p{percent}");
        Figure::time(what, samples.percentile(percent))
    };
    [aim.map_or(rate.clone(), |it| rate.aim(it)), time(50), time(99)]
}

async fn run_load(
    endpoint: &Endpoint,
    load: &Load,
    connections: usize,
    period: Duration,
) -> anyhow::Result<(Samples, Vec<String>)> {
    let mut loops = JoinSet::new();
    for number in 0..connections {
        let (endpoint, load) = (endpoint.clone(), load.clone());
        loops.spawn(async move { run_loop(&endpoint, &load, number, period).await });
    }
    let (mut samples, mut names) = (Vec::new(), Vec::new());
    while let Some(done) = loops.join_next().await {
        let (of_loop, created) = done??;
        samples.extend(of_loop);
        names.extend(created);
    }
    Ok((Samples::new(samples), names))
}

async fn run_loop(
    endpoint: &Endpoint,
    load: &Load,
    number: usize,
    period: Duration,
) -> anyhow::Result<(Vec<Duration>, Vec<String>)> {
    let mut connection = endpoint.connect_raw().await?;
    let (mut samples, mut created) = (Vec::new(), Vec::new());
    let end = Instant::now() + period;
    for turn in 0.. {
        let (method, path, body) = match load {
            Load::Create { prefix } => {
                let name = format!("{prefix}-{number}-{turn}");
                let body = config_map(&name);
                created.push(name);
                ("POST", PATH.to_owned(), body)
            }
            Load::Get { names } => {
                // Each connection begins elsewhere.
                let place = number * names.len() / 32 + turn;
                let name = names.get(place % names.len().max(1));
                let path = format!("{PATH}/{}", name.map_or("", String::as_str));
                ("GET", path, Bytes::new())
            }
        };
        let start = Instant::now();
        if start >= end {
            // The last name was not sent.
            created.pop();
            break;
        }
        connection.succeed(method, &path, &body).await?;
        samples.push(start.elapsed());
    }
    Ok((samples, created))
}

fn config_map(name: &str) -> Bytes {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name },
        "data": { "key": "v".repeat(DATA) },
    });
    Bytes::from(object.to_string())
}
