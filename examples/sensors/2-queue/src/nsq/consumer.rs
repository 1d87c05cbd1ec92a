//! Consuming a channel, wherever its topic is.

use std::{collections::BTreeSet, future::Future, io, pin::pin, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, interval_at, sleep_until},
};

use super::{
    connection::Connection,
    lookup,
    wire::{self, Frame, Id, Message},
};

/// How long until the next try when something is missing: nsqlookupd, the topic, an nsqd.
const RETRY: Duration = Duration::from_secs(1);
/// How often nsqlookupd is asked for new nsqds while there is one. A tenth more or less, by chance:
/// consumers that started together shall not ask together for ever.
const LOOKUP_EVERY: Duration = Duration::from_secs(10);
/// How often nsqd hears that a message is still being worked on, before it loses its patience.
const TOUCHES: u32 = 3;
/// How often at most, however impatient nsqd is.
const TOUCH_EVERY_MIN: Duration = Duration::from_millis(100);

/// What to consume.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Where to ask for the topic's nsqds, as HOST:PORT of their HTTP.
    pub nsqlookupds: Vec<String>,
    pub topic: String,
    /// Each channel gets every message of the topic; the consumers of one channel share them.
    pub channel: String,
    /// How many messages may be worked on at the same time; with more nsqds than that, one of each.
    pub max_in_flight: u32,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Finish,
    /// It is to come again, to any consumer of the channel, after this time.
    Requeue(Duration),
}

/// What connections are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Take as many messages at a time.
    Take(u32),
    /// Finish what there is.
    Stop,
}

/// Hands every message to `handle`, from every nsqd that has the topic, until `stop`; then ends when
/// all messages that it has taken are answered. Whatever is missing is tried again once a second.
pub async fn consume<H, F>(subscription: Subscription, handle: H, stop: impl Future<Output = ()>)
where
    H: Fn(Message) -> F + Clone + Send + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut stop = pin!(stop);
    let mut nsqds = Nsqds::new(subscription, handle);
    let mut next_lookup = Instant::now();
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = nsqds.lost() => next_lookup = next_lookup.min(Instant::now() + RETRY),
            () = sleep_until(next_lookup) => {
                nsqds.look_up().await;
                let pause = if nsqds.connected.is_empty() { RETRY } else { lookup_every() };
                next_lookup = Instant::now() + pause;
            }
        }
    }
    nsqds.finish().await;
}

/// The nsqds of one subscription, with a task for each.
struct Nsqds<H> {
    subscription: Subscription,
    handle: H,
    /// Those of the last answer that named any: while nsqlookupd is away, or knows nothing yet, they may
    /// well be there.
    known: BTreeSet<String>,
    connected: BTreeSet<String>,
    tasks: JoinSet<(String, io::Result<()>)>,
    orders: watch::Sender<Order>,
}

impl<H, F> Nsqds<H>
where
    H: Fn(Message) -> F + Clone + Send + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    fn new(subscription: Subscription, handle: H) -> Self {
        let orders = watch::Sender::new(Order::Take(subscription.max_in_flight));
        let (known, connected, tasks) = (BTreeSet::new(), BTreeSet::new(), JoinSet::new());
        Self { subscription, handle, known, connected, tasks, orders }
    }

    /// Connects to every nsqd that has the topic now.
    async fn look_up(&mut self) {
        let Subscription { nsqlookupds, topic, .. } = &self.subscription;
        match lookup::nsqds(nsqlookupds, topic).await {
            Ok(found) if found.is_empty() => println!("No nsqd has the topic {topic} yet."),
            Ok(found) => self.known = found,
            Err(error) => println!("No answer from nsqlookupd: {error}"),
        }
        let missing: Vec<String> = self.known.difference(&self.connected).cloned().collect();
        for address in missing {
            let (subscription, handle) = (self.subscription.clone(), self.handle.clone());
            let orders = self.orders.subscribe();
            self.connected.insert(address.clone());
            self.tasks.spawn(async move {
                let ended = attend(&address, &subscription, handle, orders).await;
                (address, ended)
            });
        }
        self.share();
    }

    /// Completes when a connection was lost.
    async fn lost(&mut self) {
        match self.tasks.join_next().await {
            Some(ended) => self.forget(ended),
            None => std::future::pending().await,
        }
    }

    fn forget(&mut self, ended: Result<(String, io::Result<()>), JoinError>) {
        let (address, ended) = match ended {
            Ok(ended) => ended,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        if let Err(error) = ended {
            println!("No connection to nsqd at {address}: {error}");
        }
        self.connected.remove(&address);
        self.share();
    }

    /// Gives each connection its share of what may be in flight.
    fn share(&self) {
        let connections = u32::try_from(self.connected.len()).unwrap_or(u32::MAX).max(1);
        let share = Order::Take((self.subscription.max_in_flight / connections).max(1));
        self.orders.send_if_modified(|order| {
            let changes = *order != share && *order != Order::Stop;
            if changes {
                *order = share;
            }
            changes
        });
    }

    async fn finish(mut self) {
        self.orders.send_replace(Order::Stop);
        while let Some(ended) = self.tasks.join_next().await {
            self.forget(ended);
        }
    }
}

fn lookup_every() -> Duration {
    LOOKUP_EVERY.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Consumes from one nsqd until there is an error, or until it is told to stop and has.
async fn attend<H, F>(
    address: &str,
    subscription: &Subscription,
    handle: H,
    mut orders: watch::Receiver<Order>,
) -> io::Result<()>
where
    H: Fn(Message) -> F,
    F: Future<Output = Outcome> + Send + 'static,
{
    let Subscription { topic, channel, .. } = subscription;
    let mut connection = Connection::open(address).await?;
    connection.subscribe(topic, channel).await?;
    println!("Listening to {topic}/{channel} at {address}.");
    let touch_every = (connection.message_timeout / TOUCHES).max(TOUCH_EVERY_MIN);
    let mut touch = interval_at(Instant::now() + touch_every, touch_every);
    let (mut in_flight, mut handling) = (BTreeSet::new(), JoinSet::new());
    let (mut closing, mut closed) = (false, false);
    orders.mark_changed();
    while !closed || !in_flight.is_empty() {
        tokio::select! {
            frame = connection.next() => match frame? {
                Frame::Heartbeat => connection.send(wire::NOP).await?,
                Frame::Message(message) => {
                    let id = message.id;
                    in_flight.insert(id);
                    let handled = handle(message);
                    handling.spawn(async move { (id, handled.await) });
                }
                Frame::Response(answer) => closed |= answer == wire::CLOSE_WAIT,
                Frame::Error(error) if is_of_one_message(&error) => println!("{address}: {error}"),
                Frame::Error(error) => return Err(io::Error::other(error)),
            },
            Some(handled) = handling.join_next() => {
                let (id, outcome) = handled.map_err(io::Error::other)?;
                in_flight.remove(&id);
                connection.send(&answer(id, outcome)).await?;
            }
            Ok(()) = orders.changed(), if !closing => {
                let order = *orders.borrow_and_update();
                closing = order == Order::Stop;
                match order {
                    Order::Take(count) => connection.send(&wire::ready(count)).await?,
                    Order::Stop => connection.send(wire::CLS).await?,
                }
            }
            _ = touch.tick() => for id in &in_flight {
                connection.send(&wire::touch(*id)).await?;
            },
        }
    }
    Ok(())
}

fn answer(id: Id, outcome: Outcome) -> Vec<u8> {
    match outcome {
        Outcome::Finish => wire::finish(id),
        Outcome::Requeue(delay) => wire::requeue(id, delay),
    }
}

/// Whether an error says only that a message is no longer this consumer's: it took too long, and is
/// delivered again.
fn is_of_one_message(error: &str) -> bool {
    ["E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"].iter().any(|it| error.starts_with(it))
}
