//! Consuming for a while, or until there is nothing left.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    nats, nsq,
    server::{Began, Server, Spent},
};

/// How many consumers there are.
const CONSUMERS: usize = 2;
/// How many messages each may have that it has not answered; as in NSQ's own benchmark.
pub(super) const UNANSWERED: usize = 2_500;
/// The channel they consume, if nothing else is said.
const CHANNEL: &str = "bench";

enum Consumer {
    Nsq(nsq::Consumer),
    Nats(nats::Consumer),
}

impl Consumer {
    async fn consume(&mut self) -> anyhow::Result<u64> {
        match self {
            Self::Nsq(it) => it.consume().await,
            Self::Nats(it) => it.consume().await,
        }
    }
}

/// Consumes the `there` messages of a topic, or as many as there is time for.
pub(super) async fn consumed(
    server: &Server,
    topic: &str,
    there: u64,
    period: Duration,
) -> anyhow::Result<Spent> {
    consumed_from(server, topic, CHANNEL, there, period).await
}

/// The same of a channel.
pub(super) async fn consumed_from(
    server: &Server,
    topic: &str,
    channel: &str,
    there: u64,
    period: Duration,
) -> anyhow::Result<Spent> {
    let to = server.address;
    // Whoever subscribes gets messages at once, so that the time begins before.
    let began = Began::now(server)?;
    let until = Instant::now() + period;
    if server.kind.is_nats() {
        nats::make_consumer(to, topic, CONSUMERS * UNANSWERED).await?;
    }
    let total = Arc::new(AtomicU64::new(0));
    let mut consumers = JoinSet::new();
    for _ in 0..CONSUMERS {
        let mut consumer = if server.kind.is_nats() {
            Consumer::Nats(nats::Consumer::connect(to, topic).await?)
        } else {
            Consumer::Nsq(nsq::Consumer::connect(to, topic, channel, UNANSWERED).await?)
        };
        let total = Arc::clone(&total);
        consumers.spawn(async move {
            while let Ok(count) = timeout_at(until, consumer.consume()).await {
                let count = count?;
                if total.fetch_add(count, Ordering::Relaxed) + count >= there {
                    break;
                }
            }
            anyhow::Ok(())
        });
    }
    // The first that ends has seen that there is no time or nothing left for the others either.
    if let Some(done) = consumers.join_next().await {
        done??;
    }
    began.spent(server, total.load(Ordering::Relaxed))
}
