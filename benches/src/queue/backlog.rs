//! What ten million waiting messages take, how fast they are replayed, and what ten thousand clients
//! take that only wait.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};

use super::{
    consume::consumed_from,
    nsq,
    publish::{Load, filled},
    server::{Kind, Server},
};
use crate::report::{Aim, Figure};

/// Messages that wait.
const WAITING: usize = 10_000_000;
/// How long publishing or consuming them may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is published for that.
const LOAD: Load<'_> = Load { topic: "backlog", connections: 4, batch: 200, bytes: 100 };
/// How often they are all consumed, by a new channel each time; the median counts.
const REPLAYS: usize = 3;
/// Clients that wait.
const CLIENTS: usize = 10_000;

/// Measures ours at the default durability.
pub(crate) async fn measure(coracle: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut figures = waiting(coracle).await?;
    figures.extend(clients(coracle).await?);
    Ok(figures)
}

async fn waiting(coracle: &Path) -> anyhow::Result<Vec<Figure>> {
    let server = Server::start(coracle, Kind::Disk).await?;
    let (empty, _) = server.resident()?;
    let topic = LOAD.topic;
    server.post(&format!("/topic/create?topic={topic}")).await?;
    server.post(&format!("/channel/create?topic={topic}&channel=waiting")).await?;
    let there = filled(&server, &LOAD, WAITING, PATIENCE).await?;
    let (now, most) = server.resident()?;
    let name = format!("{there} messages of {} B waiting, resident memory", LOAD.bytes);
    let mut figures = vec![
        Figure::size("resident memory of the empty server", empty),
        Figure::size(&name, now),
        Figure::size(format!("{name}, at most until then"), most),
    ];
    let (mut rates, mut servers, mut clients) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..REPLAYS {
        let channel = format!("replay-{turn}");
        let create = format!("/channel/create?topic={topic}&channel={channel}&start=beginning");
        server.post(&create).await?;
        let spent = consumed_from(&server, topic, &channel, there, PATIENCE).await?;
        ensure!(spent.messages() >= there, "{} of {there} messages came", spent.messages());
        rates.push(spent.rate());
        servers.push(spent.server_each());
        clients.push(spent.clients_each());
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let rate = Figure::new("replay of all of them", median(rates), "1/s");
    figures.push(rate.aim(Aim::AtLeast(1_000_000.0)));
    figures.push(Figure::new("replay, server's processor", median(servers), "µs"));
    figures.push(Figure::new("replay, clients' processor", median(clients), "µs"));
    let (_, most) = server.resident()?;
    figures.push(Figure::size("replay, resident memory at most", most));
    Ok(figures)
}

async fn clients(coracle: &Path) -> anyhow::Result<Vec<Figure>> {
    let server = Server::start(coracle, Kind::Disk).await?;
    let (empty, _) = server.resident()?;
    let mut clients = Vec::with_capacity(CLIENTS);
    for number in 0..CLIENTS {
        let client = nsq::Consumer::connect(server.address, "idle", "all", 1).await;
        let client = client.with_context(|| format!("connect client {number}"));
        let mut client = client.context("each takes a descriptor here and one there: ulimit -n")?;
        client.rest();
        clients.push(client);
    }
    let (now, most) = server.resident()?;
    let each = (now.saturating_sub(empty)) as f64 / CLIENTS as f64;
    let name = format!("{CLIENTS} clients that wait, resident memory");
    Ok(vec![
        Figure::size(&name, now),
        Figure::size(format!("{name}, at most until then"), most),
        Figure::new("the same, each", each, "KiB"),
    ])
}
