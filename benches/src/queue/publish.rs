//! Publishing for a while, or so many messages.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    sync::Barrier,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    nats, nsq,
    server::{Began, Kind, Server, Spent},
};
use crate::report::Samples;

/// What publishers do: each sends a batch, waits until it is acknowledged, and sends the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load<'a> {
    pub(super) topic: &'a str,
    pub(super) connections: usize,
    pub(super) batch: usize,
    pub(super) bytes: usize,
}

impl Load<'_> {
    pub(super) fn name(&self, kind: Kind) -> String {
        let Self { connections, batch, bytes, .. } = self;
        format!("{}, {connections} × {batch} of {bytes} B", kind.name())
    }
}

enum Publisher {
    Nsq(nsq::Publisher),
    Nats(nats::Publisher),
}

impl Publisher {
    async fn connect(server: &Server, load: &Load<'_>) -> anyhow::Result<Self> {
        let Load { topic, batch, bytes, .. } = *load;
        let to = server.address;
        Ok(if server.kind.is_nats() {
            Self::Nats(nats::Publisher::connect(to, topic, batch, bytes).await?)
        } else {
            Self::Nsq(nsq::Publisher::connect(to, topic, batch, bytes).await?)
        })
    }

    async fn publish(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Nsq(it) => it.publish().await,
            Self::Nats(it) => it.publish().await,
        }
    }
}

/// Publishes for `period`: how many messages, what that took, and how long each batch.
pub(super) async fn published(
    server: &Server,
    load: &Load<'_>,
    period: Duration,
) -> anyhow::Result<(u64, Spent, Samples)> {
    if server.kind.is_nats() {
        nats::make_stream(server.address, load.topic, server.kind.storage()).await?;
    }
    let ready = Arc::new(Barrier::new(load.connections + 1));
    let mut publishers = JoinSet::new();
    for _ in 0..load.connections {
        let (mut publisher, ready) = (Publisher::connect(server, load).await?, Arc::clone(&ready));
        publishers.spawn(async move {
            let mut latencies = Vec::new();
            ready.wait().await;
            let mut start = Instant::now();
            let until = start + period;
            while start < until {
                publisher.publish().await?;
                let end = Instant::now();
                latencies.push(end - start);
                start = end;
            }
            anyhow::Ok(latencies)
        });
    }
    let began = Began::now(server)?;
    ready.wait().await;
    let mut latencies = Vec::new();
    while let Some(done) = publishers.join_next().await {
        latencies.extend(done??);
    }
    let messages = u64::try_from(latencies.len() * load.batch)?;
    Ok((messages, began.spent(server, messages)?, Samples::new(latencies)))
}

/// Publishes at least `messages`, at most for `patience`; how many it were.
pub(super) async fn filled(
    server: &Server,
    load: &Load<'_>,
    messages: usize,
    patience: Duration,
) -> anyhow::Result<u64> {
    let turns = messages.div_ceil(load.connections * load.batch);
    let until = Instant::now() + patience;
    let mut publishers = JoinSet::new();
    for _ in 0..load.connections {
        let mut publisher = Publisher::connect(server, load).await?;
        publishers.spawn(async move {
            for _ in 0..turns {
                publisher.publish().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) =
        timeout_at(until, publishers.join_next()).await.context("publishing takes too long")?
    {
        done??;
    }
    Ok(u64::try_from(turns * load.connections * load.batch)?)
}
