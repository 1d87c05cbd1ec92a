//! What is left after the process was killed or the machine lost its power, at any moment: nothing
//! acknowledged is lost, nothing that a consumer had is forgotten. Judged by the history checker.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use fault::history::{Delivery as Checker, DeliveryRules, Duplicates};
use runtime::{Clock, Tasks};

use super::*;
use crate::{
    Durability,
    disk::{Disk, simulated::Simulated},
    message::{NewMessage, NodeId},
};

/// How many cuts `cargo test` makes of each kind. `QUEUE_CRASHES` asks for more.
const CRASHES: u64 = 20;

/// What happened of a channel's promise.
type History = BTreeMap<&'static str, Checker<u64>>;

const CHANNELS: [&str; 2] = ["eager", "slow"];

/// One nsqd under load, until it is killed.
struct Run {
    random: Rng,
    broker: Broker,
    topic: Topic,
    consumers: BTreeMap<&'static str, Subscription>,
    published: u64,
    waiting: Vec<(std::ops::Range<u64>, tokio::task::JoinHandle<bool>)>,
    history: History,
    step: u64,
}

pub(super) async fn open(disk: Arc<dyn Disk>, durability: Durability) -> Broker {
    open_holding(disk, durability, false).await
}

async fn open_holding(
    disk: Arc<dyn Disk>,
    durability: Durability,
    hold_new_topics: bool,
) -> Broker {
    let node = NodeId::new(1).unwrap();
    let config = Config { durability, hold_new_topics, ..Config::new(node) };
    let folder = PathBuf::from("/data");
    Broker::open(config, disk, folder, Clock::system(), Tasks::default()).await.unwrap()
}

pub(super) fn subscribe(topic: &Topic, channel: &str) -> Subscription {
    let channel = topic.channel(&Name::parse(channel).unwrap()).unwrap();
    let timeout = Duration::from_mins(1);
    let subscription = channel.subscribe(ClientId(1), timeout, None).unwrap();
    subscription.ready(50);
    subscription
}

fn number(delivery: &Delivery) -> u64 {
    std::str::from_utf8(&delivery.message.body).unwrap().parse().unwrap()
}

impl Run {
    async fn start(seed: u64, disk: &Simulated, durability: Durability) -> Self {
        let broker = open(disk.arc(), durability).await;
        let topic = broker.topic(&Name::parse("t").unwrap()).await.unwrap();
        let mut consumers = BTreeMap::new();
        for channel in CHANNELS {
            consumers.insert(channel, subscribe(&topic, channel));
        }
        broker.settled().await.unwrap();
        let rules = DeliveryRules { duplicates: Duplicates::Allowed, ordered: false };
        let history = CHANNELS.map(|it| (it, Checker::new(rules))).into();
        let (random, waiting) = (Rng::with_seed(seed), Vec::new());
        Self { random, broker, topic, consumers, published: 0, waiting, history, step: 0 }
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.step)
    }

    #[expect(clippy::disallowed_methods, reason = "a test waits for many receipts at once")]
    fn publish(&mut self) {
        let count = self.random.u64(1..20);
        let range = self.published..self.published + count;
        self.published = range.end;
        let new = |it: u64| NewMessage {
            delay: Duration::from_millis(if it.is_multiple_of(7) { 3 } else { 0 }),
            ..NewMessage::new(Bytes::from(it.to_string()))
        };
        let now = self.now();
        for history in self.history.values_mut() {
            range.clone().for_each(|it| history.sent(&0, it, now));
        }
        let receipt = self.topic.publish(&range.clone().map(new).collect::<Vec<_>>()).unwrap();
        let waits = tokio::spawn(async move { receipt.committed().await.is_ok() });
        self.waiting.push((range, waits));
    }

    /// Takes note of what was acknowledged by now.
    async fn look(&mut self) {
        let now = self.now();
        let mut waiting = Vec::new();
        for (range, waits) in std::mem::take(&mut self.waiting) {
            if !waits.is_finished() {
                waiting.push((range, waits));
                continue;
            }
            assert!(waits.await.unwrap(), "the disk is in order");
            for history in self.history.values_mut() {
                range.clone().for_each(|it| history.acknowledged(&0, it, now));
            }
        }
        self.waiting = waiting;
    }

    fn consume(&mut self, channel: &'static str) {
        let now = self.now();
        let Some(consumer) = self.consumers.get(channel) else { return };
        let mut deliveries = Vec::new();
        consumer.take(&mut deliveries);
        for delivery in deliveries {
            match self.random.u8(..10) {
                0 => {} // It is kept, and never answered.
                1 => consumer.requeue(delivery.id, Duration::from_millis(2)).unwrap(),
                2 => consumer.requeue(delivery.id, Duration::ZERO).unwrap(),
                _ => {
                    consumer.finish(delivery.id).unwrap();
                    let history = self.history.get_mut(channel).unwrap();
                    history.received(&0, number(&delivery), now);
                }
            }
        }
    }

    /// Some load; then everything that was acknowledged by now is noted.
    async fn go_on(&mut self) {
        for _ in 0..self.random.u32(5..60) {
            self.step += 1;
            match self.random.u8(..6) {
                0 | 1 => self.publish(),
                2 | 3 => self.consume("eager"),
                4 => self.consume("slow"),
                _ => tokio::time::sleep(Duration::from_micros(self.random.u64(..3_000))).await,
            }
            self.look().await;
        }
    }
}

/// Opens what was left and sees what is delivered.
async fn judge(disk: &Simulated, durability: Durability, mut history: History) -> Vec<String> {
    let broker = open(disk.arc(), durability).await;
    let topic = broker.existing_topic(&Name::parse("t").unwrap()).expect("the topic is there");
    let mut reports = Vec::new();
    for channel in CHANNELS {
        let consumer = subscribe(&topic, channel);
        let history = history.get_mut(channel).unwrap();
        let all = async {
            let mut deliveries = Vec::new();
            loop {
                let stats = consumer.channel().stats();
                if stats.depth == 0 && stats.deferred == 0 && stats.in_flight == 0 {
                    break;
                }
                consumer.next(&mut deliveries).await;
                for it in deliveries.drain(..) {
                    consumer.finish(it.id).unwrap();
                    history.received(&0, number(&it), Duration::from_hours(1));
                }
            }
        };
        let bound = Duration::from_secs(20);
        let stats = || format!("{channel}: {:?}", consumer.channel().stats());
        tokio::time::timeout(bound, all).await.unwrap_or_else(|_| panic!("stuck {}", stats()));
    }
    broker.close().await.unwrap();
    for (channel, history) in history {
        let report = history.finish();
        if !report.is_good() {
            reports.push(format!("{channel}: {report}"));
        }
    }
    reports
}

async fn crash(seed: u64, durability: Durability, left: fn(&Simulated) -> Simulated) {
    let disk = Simulated::new(seed);
    let mut run = Run::start(seed, &disk, durability).await;
    run.go_on().await;
    let disk = left(&disk);
    let Run { history, broker, consumers, topic, .. } = run;
    drop((consumers, topic));
    broker.close().await.unwrap();
    let reports = judge(&disk, durability, history).await;
    assert!(reports.is_empty(), "seed {seed}: {}", reports.join("\n"));
    if (seed + 1).is_multiple_of(100) {
        println!("{} crashes of {durability:?}", seed + 1);
    }
}

#[expect(clippy::disallowed_methods, reason = "a test asks how long it may take")]
fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("QUEUE_CRASHES").map_or(CRASHES, |it| it.parse().unwrap())
}

#[tokio::test]
async fn a_power_cut_loses_nothing_acknowledged() {
    for seed in seeds() {
        crash(seed, Durability::Disk, Simulated::power_cut).await;
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged() {
    for seed in seeds() {
        crash(seed, Durability::Process, Simulated::killed).await;
    }
}

/// A new topic is held until it is known that it has to have the channel `known`; an early channel
/// is there before. Whenever the end comes, `known` gets everything: because it is there, or because
/// the topic is still held when it is made.
async fn crash_while_held(seed: u64, durability: Durability, left: fn(&Simulated) -> Simulated) {
    let disk = Simulated::new(seed);
    let broker = open_holding(disk.arc(), durability, true).await;
    let mut random = Rng::with_seed(seed);
    let topic = broker.topic(&Name::parse("t").unwrap()).await.unwrap();
    let early = subscribe(&topic, "early");
    let mut acknowledged = 0;
    let answered = random.usize(0..8);
    for step in 0..random.usize(1..8) {
        if step == answered {
            topic.channel(&Name::parse("known").unwrap()).unwrap();
            topic.release();
        }
        let message = NewMessage::new(Bytes::from(acknowledged.to_string()));
        topic.publish(&[message]).unwrap().committed().await.unwrap();
        acknowledged += 1;
        if random.bool() {
            let mut deliveries = Vec::new();
            early.take(&mut deliveries);
            for it in deliveries {
                early.finish(it.id).unwrap();
            }
        }
    }
    let disk = left(&disk);
    drop((early, topic));
    broker.close().await.unwrap();

    let broker = open_holding(disk.arc(), durability, true).await;
    let topic = broker.existing_topic(&Name::parse("t").unwrap()).expect("the topic is there");
    let known = subscribe(&topic, "known");
    topic.release();
    let mut seen = BTreeSet::new();
    let all = async {
        let mut deliveries = Vec::new();
        while seen.len() < acknowledged {
            known.next(&mut deliveries).await;
            seen.extend(deliveries.drain(..).map(|it| number(&it)));
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), all).await;
    assert!(ended.is_ok(), "seed {seed}: {seen:?} of {acknowledged}");
    drop((known, topic));
    broker.close().await.unwrap();
}

#[tokio::test]
async fn whether_a_topic_is_held_survives_with_its_messages() {
    for seed in seeds() {
        crash_while_held(seed, Durability::Disk, Simulated::power_cut).await;
        crash_while_held(seed, Durability::Process, Simulated::killed).await;
    }
}

/// A topic that is paused and emptied now and then, and what is to become of its messages.
struct Emptied {
    random: Rng,
    broker: Broker,
    topic: Topic,
    consumers: Vec<Subscription>,
    paused: bool,
    published: u64,
    /// Published while it was paused, and given to nobody yet.
    waiting: BTreeSet<u64>,
    /// What it was emptied of: nobody may get it.
    emptied: BTreeSet<u64>,
    /// Of each channel: what it was given and has not finished.
    owed: Vec<BTreeSet<u64>>,
}

impl Emptied {
    async fn start(seed: u64, disk: &Simulated, durability: Durability) -> Self {
        let broker = open(disk.arc(), durability).await;
        let topic = broker.topic(&Name::parse("t").unwrap()).await.unwrap();
        let consumers = CHANNELS.map(|it| subscribe(&topic, it)).into();
        broker.settled().await.unwrap();
        let (waiting, emptied) = (BTreeSet::new(), BTreeSet::new());
        let owed = vec![BTreeSet::new(); CHANNELS.len()];
        let (random, paused, published) = (Rng::with_seed(seed), false, 0);
        Self { random, broker, topic, consumers, paused, published, waiting, emptied, owed }
    }

    async fn publish(&mut self) {
        let range = self.published..self.published + self.random.u64(1..5);
        self.published = range.end;
        let new = |it: u64| NewMessage::new(Bytes::from(it.to_string()));
        let messages: Vec<_> = range.clone().map(new).collect();
        self.topic.publish(&messages).unwrap().committed().await.unwrap();
        self.waiting.extend(range);
        self.give();
    }

    /// What the topic has is its channels', unless it is paused.
    fn give(&mut self) {
        if !self.paused {
            let given = std::mem::take(&mut self.waiting);
            self.owed.iter_mut().for_each(|it| it.extend(&given));
        }
    }

    async fn pause(&mut self, paused: bool) {
        self.topic.pause(paused);
        self.broker.settled().await.unwrap();
        self.paused = paused;
        self.give();
    }

    async fn empty(&mut self) {
        self.topic.empty().unwrap();
        self.broker.settled().await.unwrap();
        self.emptied.append(&mut self.waiting);
    }

    fn consume(&mut self, channel: usize) {
        let mut deliveries = Vec::new();
        let consumer = &self.consumers[channel];
        consumer.ready(self.random.u32(1..50));
        consumer.take(&mut deliveries);
        for it in deliveries {
            let body = number(&it);
            assert!(!self.emptied.contains(&body), "{body} is delivered");
            if self.random.u8(..4) > 0 {
                consumer.finish(it.id).unwrap();
                self.owed[channel].remove(&body);
            }
        }
    }

    async fn go_on(&mut self) {
        for _ in 0..self.random.u32(5..40) {
            match self.random.u8(..8) {
                0..3 => self.publish().await,
                3 => self.pause(!self.paused).await,
                4 => self.empty().await,
                5 => self.consume(0),
                6 => self.consume(1),
                _ => tokio::time::sleep(Duration::from_micros(self.random.u64(..3_000))).await,
            }
        }
    }

    /// Opens what was left and sees what is delivered: all that is owed, nothing that is not there
    /// any more. `interrupted` may have become either.
    async fn judge(self, disk: &Simulated, durability: Durability, interrupted: &BTreeSet<u64>) {
        let broker = open(disk.arc(), durability).await;
        let topic = broker.existing_topic(&Name::parse("t").unwrap()).expect("the topic is there");
        topic.pause(false);
        for (channel, mut owed) in CHANNELS.into_iter().zip(self.owed) {
            owed.extend(self.waiting.difference(interrupted));
            let consumer = subscribe(&topic, channel);
            let all = async {
                let mut deliveries = Vec::new();
                while consumer.channel().stats().first_unfinished < topic.stats().next {
                    if !consumer.take(&mut deliveries) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    for it in deliveries.drain(..) {
                        let body = number(&it);
                        assert!(!self.emptied.contains(&body), "{channel}: {body} is delivered");
                        consumer.finish(it.id).unwrap();
                        owed.remove(&body);
                    }
                }
            };
            let ended = tokio::time::timeout(Duration::from_secs(20), all).await;
            let stats = consumer.channel().stats();
            assert!(ended.is_ok() && owed.is_empty(), "{channel} is owed {owed:?}: {stats:?}");
            assert_eq!((stats.in_flight, stats.depth), (0, 0), "{channel}");
        }
        broker.close().await.unwrap();
    }
}

async fn crash_while_emptied(seed: u64, durability: Durability, left: fn(&Simulated) -> Simulated) {
    let disk = Simulated::new(seed);
    let mut run = Emptied::start(seed, &disk, durability).await;
    run.go_on().await;
    let mut interrupted = BTreeSet::new();
    if run.random.bool() {
        // It is emptied once more, and nobody is told that it is done.
        run.topic.empty().unwrap();
        interrupted.clone_from(&run.waiting);
        tokio::time::sleep(Duration::from_micros(run.random.u64(..500))).await;
    }
    let disk = left(&disk);
    run.consumers.clear();
    run.broker.close().await.unwrap();
    println!("seed {seed}");
    run.judge(&disk, durability, &interrupted).await;
}

#[tokio::test]
async fn what_a_topic_was_emptied_of_stays_so() {
    for seed in seeds() {
        crash_while_emptied(seed, Durability::Disk, Simulated::power_cut).await;
        crash_while_emptied(seed, Durability::Process, Simulated::killed).await;
    }
}
