//! The core as publishers and consumers see it, over the paused clock.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use runtime::{Clock, Tasks};

use super::*;
use crate::{
    Durability,
    disk::Folders,
    message::{NewMessage, NodeId},
};

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Broker {
        self.open_holding(false).await
    }

    async fn open_holding(&self, hold_new_topics: bool) -> Broker {
        let config = Config {
            durability: Durability::Memory,
            hold_new_topics,
            ..Config::new(NodeId::new(7).unwrap())
        };
        // In memory: nothing waits for another thread, for which a paused clock does not wait.
        let clock = Clock::following_tokio(Timestamp::UNIX_EPOCH);
        let folder = self.folder.path().to_owned();
        Broker::open(config, Arc::new(Folders), folder, clock, Tasks::default()).await.unwrap()
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

async fn publish(topic: &Topic, bodies: &[&str]) {
    let new = |it: &&str| NewMessage::new(Bytes::copy_from_slice(it.as_bytes()));
    let messages: Vec<_> = bodies.iter().map(new).collect();
    topic.publish(&messages).unwrap().committed().await.unwrap();
}

fn subscribe(topic: &Topic, channel: &str, client: u64, ready: u32) -> Subscription {
    let channel = topic.channel(&name(channel)).unwrap();
    let timeout = Duration::from_mins(1);
    let subscription = channel.subscribe(ClientId(client), timeout, None).unwrap();
    subscription.ready(ready);
    subscription
}

async fn next(subscription: &Subscription) -> Vec<Delivery> {
    let mut out = Vec::new();
    tokio::time::timeout(Duration::from_mins(120), subscription.next(&mut out)).await.unwrap();
    out
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    let text =
        |it: &Delivery| format!("{}/{}", String::from_utf8_lossy(&it.message.body), it.attempts);
    deliveries.iter().map(text).collect()
}

/// Takes `count` messages and finishes them.
async fn consume(subscription: &Subscription, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let deliveries = next(subscription).await;
        for it in &deliveries {
            subscription.finish(it.id).unwrap();
        }
        seen.extend(bodies(&deliveries));
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_topic_goes_to_its_first_channel() {
    let world = World::new();
    let topic = world.open().await.topic(&name("t")).await.unwrap();
    publish(&topic, &["a", "b"]).await;
    assert_eq!(topic.stats().depth, 2);
    let first = subscribe(&topic, "one", 1, 10);
    assert_eq!(consume(&first, 2).await, ["a/1", "b/1"]);
    let second = subscribe(&topic, "two", 2, 10);
    publish(&topic, &["c"]).await;
    assert_eq!(consume(&second, 1).await, ["c/1"]);
    assert_eq!(consume(&first, 1).await, ["c/1"]);
    assert_eq!(topic.stats().depth, 0);
}

#[tokio::test(start_paused = true)]
async fn consumers_of_a_channel_share_its_messages() {
    let world = World::new();
    let topic = world.open().await.topic(&name("t")).await.unwrap();
    let (one, two) = (subscribe(&topic, "c", 1, 1), subscribe(&topic, "c", 2, 1));
    publish(&topic, &["a", "b"]).await;
    let (a, b) = (next(&one).await, next(&two).await);
    assert_eq!((bodies(&a), bodies(&b)), (vec!["a/1".to_owned()], vec!["b/1".to_owned()]));
    assert_eq!(one.finish(b[0].id), Err(NotInFlight::Other));
    assert!(one.finish(a[0].id).is_ok());
    assert_eq!(one.finish(a[0].id), Err(NotInFlight::Unknown));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_comes_again() {
    let world = World::new();
    let topic = world.open().await.topic(&name("t")).await.unwrap();
    let one = subscribe(&topic, "c", 1, 1);
    publish(&topic, &["a"]).await;
    let first = next(&one).await;
    let started = tokio::time::Instant::now();
    tokio::time::advance(Duration::from_secs(40)).await;
    one.touch(first[0].id).unwrap();
    assert_eq!(bodies(&next(&one).await), ["a/2"]);
    assert_eq!(started.elapsed().as_secs(), 100);
    let (stats, again) = (one.channel().stats(), subscribe(&topic, "c", 2, 1));
    assert_eq!((stats.counters.timed_out, stats.in_flight), (1, 1));
    drop(one);
    assert_eq!(bodies(&next(&again).await), ["a/3"]);
}

#[tokio::test(start_paused = true)]
async fn requeued_and_delayed_messages_wait_for_their_time() {
    let world = World::new();
    let topic = world.open().await.topic(&name("t")).await.unwrap();
    let one = subscribe(&topic, "c", 1, 10);
    let started = tokio::time::Instant::now();
    let late = NewMessage { delay: Duration::from_secs(7), ..NewMessage::new("late".into()) };
    topic.publish(&[late]).unwrap().committed().await.unwrap();
    publish(&topic, &["a"]).await;
    let first = next(&one).await;
    assert_eq!(bodies(&first), ["a/1"]);
    one.requeue(first[0].id, Duration::from_secs(5)).unwrap();
    assert_eq!(one.channel().stats().deferred, 2);
    assert_eq!(bodies(&next(&one).await), ["a/2"]);
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(bodies(&next(&one).await), ["late/1"]);
    assert_eq!(started.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_channel_begins_again_where_it_is_told() {
    let world = World::new();
    let topic = world.open().await.topic(&name("t")).await.unwrap();
    let one = subscribe(&topic, "c", 1, 10);
    publish(&topic, &["a", "b", "c"]).await;
    assert_eq!(consume(&one, 3).await, ["a/1", "b/1", "c/1"]);
    topic.rewind(&name("c"), Start::Beginning).unwrap();
    assert_eq!(consume(&one, 3).await, ["a/1", "b/1", "c/1"]);
    let second = topic.stats().first.after(1);
    let options = ChannelOptions::default();
    topic.create_channel(&name("late"), options, Start::At(second)).unwrap();
    assert_eq!(consume(&subscribe(&topic, "late", 2, 10), 2).await, ["b/1", "c/1"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_tried_too_often_goes_to_the_dead_letters() {
    let world = World::new();
    let broker = world.open().await;
    let topic = broker.topic(&name("t")).await.unwrap();
    let dead_letter_topic = Some(name("dead"));
    let options = ChannelOptions { attempts_max: Some(2), dead_letter_topic, ..Default::default() };
    topic.create_channel(&name("c"), options, Start::Routed).unwrap();
    let one = subscribe(&topic, "c", 1, 1);
    publish(&topic, &["bad", "good"]).await;
    for expected in ["bad/1", "bad/2", "good/1"] {
        let seen = next(&one).await;
        assert_eq!(bodies(&seen), [expected]);
        if expected == "good/1" {
            one.finish(seen[0].id).unwrap();
        } else {
            one.requeue(seen[0].id, Duration::ZERO).unwrap();
        }
    }
    publish(&topic, &["next"]).await;
    assert_eq!(consume(&one, 1).await, ["next/1"]);
    let dead = broker.topic(&name("dead")).await.unwrap();
    assert_eq!(consume(&subscribe(&dead, "c", 2, 1), 1).await, ["bad/1"]);
    assert_eq!(one.channel().stats().depth, 0);
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_key_are_delivered_one_after_the_other() {
    let world = World::new();
    let topic = world.open().await.topic(&name("t")).await.unwrap();
    let options = ChannelOptions { ordered_by_key: true, ..Default::default() };
    topic.create_channel(&name("c"), options, Start::Routed).unwrap();
    let one = subscribe(&topic, "c", 1, 10);
    let keyed = |key: &'static str, body: &'static str| NewMessage {
        key: Some(key.into()),
        ..NewMessage::new(body.into())
    };
    let messages = vec![keyed("k", "k1"), keyed("k", "k2"), keyed("l", "l1"), keyed("k", "k3")];
    topic.publish(&messages).unwrap().committed().await.unwrap();
    let seen = next(&one).await;
    assert_eq!(bodies(&seen), ["k1/1", "l1/1"]);
    one.requeue(seen[0].id, Duration::from_secs(1)).unwrap();
    let again = next(&one).await;
    assert_eq!(bodies(&again), ["k1/2"]);
    one.finish(again[0].id).unwrap();
    assert_eq!(consume(&one, 2).await, ["k2/1", "k3/1"]);
}

#[tokio::test(start_paused = true)]
async fn ephemeral_ones_go_with_their_last_consumer() {
    let world = World::new();
    let broker = world.open().await;
    let topic = broker.topic(&name("t#ephemeral")).await.unwrap();
    let mut changes = broker.changes();
    let one = subscribe(&topic, "c#ephemeral", 1, 1);
    changes.borrow_and_update();
    drop(one);
    let gone = changes.wait_for(|_| broker.topics().is_empty());
    tokio::time::timeout(Duration::from_mins(10), gone).await.expect("they stay").unwrap();
    assert!(topic.publish(&[NewMessage::new("a".into())]).is_err());
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let world = World::new();
    let broker = world.open().await;
    let topic = broker.topic(&name("t")).await.unwrap();
    let one = subscribe(&topic, "c", 1, 2);
    topic.channel(&name("paused")).unwrap().pause(true);
    publish(&topic, &["finished", "in flight", "requeued", "waiting"]).await;
    let first = next(&one).await;
    one.finish(first[0].id).unwrap();
    let mut more = Vec::new();
    one.next(&mut more).await;
    one.requeue(more[0].id, Duration::from_millis(50)).unwrap();
    broker.close().await.unwrap();
    drop((one, topic, broker));

    let broker = world.open().await;
    let topic = broker.existing_topic(&name("t")).unwrap();
    let stats = topic.existing_channel(&name("paused")).unwrap().stats();
    assert_eq!((stats.paused, stats.depth), (true, 4));
    let one = subscribe(&topic, "c", 1, 10);
    let mut seen = consume(&one, 3).await;
    seen.sort();
    assert_eq!(seen, ["in flight/2", "requeued/2", "waiting/1"]);
    assert!(!topic.channels().is_empty());
}

#[tokio::test]
async fn a_restart_knows_what_was_handed_out_later_than_taken() {
    let world = World::new();
    let broker = world.open().await;
    let topic = broker.topic(&name("t")).await.unwrap();
    let options = ChannelOptions { ordered_by_key: true, ..Default::default() };
    topic.create_channel(&name("keyed"), options, Start::Routed).unwrap();
    let (one, keyed) = (subscribe(&topic, "c", 1, 10), subscribe(&topic, "keyed", 2, 10));
    let key = Some(Bytes::from_static(b"k"));
    let first = NewMessage { key: key.clone(), ..NewMessage::new("first".into()) };
    // It waits for its time in one channel, for its key in the other.
    let delay = Duration::from_millis(5);
    let second = NewMessage { key, delay, ..NewMessage::new("second".into()) };
    topic.publish(&[first, second]).unwrap().committed().await.unwrap();
    assert_eq!(consume(&one, 1).await, ["first/1"]);
    assert_eq!(consume(&keyed, 1).await, ["first/1"]);
    assert_eq!(bodies(&next(&one).await), ["second/1"]);
    assert_eq!(bodies(&next(&keyed).await), ["second/1"]);
    broker.close().await.unwrap();
    drop((one, keyed, topic, broker));

    let broker = world.open().await;
    let topic = broker.existing_topic(&name("t")).unwrap();
    for channel in ["c", "keyed"] {
        let seen = next(&subscribe(&topic, channel, 1, 10)).await;
        assert_eq!(bodies(&seen), ["second/2"], "{channel}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_channel_and_a_paused_topic_hand_out_nothing() {
    let world = World::new();
    let topic = world.open().await.topic(&name("t")).await.unwrap();
    let one = subscribe(&topic, "c", 1, 10);
    one.channel().pause(true);
    publish(&topic, &["a"]).await;
    let mut out = Vec::new();
    assert!(tokio::time::timeout(Duration::from_secs(5), one.next(&mut out)).await.is_err());
    topic.pause(true);
    one.channel().pause(false);
    assert_eq!(consume(&one, 1).await, ["a/1"]);
    publish(&topic, &["b"]).await;
    assert!(tokio::time::timeout(Duration::from_secs(5), one.next(&mut out)).await.is_err());
    assert_eq!(topic.stats().depth, 1);
    topic.pause(false);
    assert_eq!(consume(&one, 1).await, ["b/1"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_paused_topic_is_emptied_of_nobody_gets() {
    let world = World::new();
    let broker = world.open().await;
    let topic = broker.topic(&name("t")).await.unwrap();
    for channel in ["behind", "done", "away#ephemeral", "new"] {
        topic.channel(&name(channel)).unwrap();
    }
    let away = subscribe(&topic, "away#ephemeral", 9, 0);
    publish(&topic, &["a", "b"]).await;
    assert_eq!(consume(&subscribe(&topic, "done", 1, 10), 2).await, ["a/1", "b/1"]);
    topic.delete_channel(&name("new")).unwrap();
    topic.pause(true);
    for bodies in [&["c", "d"][..], &["e"]] {
        publish(&topic, bodies).await;
        topic.empty().unwrap();
        assert_eq!(topic.stats().depth, 0);
    }
    publish(&topic, &["f"]).await;
    topic.channel(&name("new")).unwrap();
    let told = |channel: &str| {
        let stats = topic.existing_channel(&name(channel)).unwrap().stats();
        (stats.depth, stats.counters.messages)
    };
    // What a channel was given before stays its own.
    assert_eq!((told("behind"), told("done"), told("away#ephemeral")), ((2, 2), (0, 2), (2, 2)));
    let next = topic.stats().next;
    let done = topic.existing_channel(&name("done")).unwrap().stats();
    assert_eq!((topic.stats().depth, done.first_unfinished.until(next)), (1, 1));
    topic.pause(false);
    assert_eq!(consume(&subscribe(&topic, "behind", 1, 10), 3).await, ["a/1", "b/1", "f/1"]);
    assert_eq!(consume(&subscribe(&topic, "done", 1, 10), 1).await, ["f/1"]);
    assert_eq!(consume(&subscribe(&topic, "new", 1, 10), 1).await, ["f/1"]);
    away.ready(10);
    assert_eq!(consume(&away, 3).await, ["a/1", "b/1", "f/1"]);
    assert_eq!((told("behind"), told("new")), ((0, 3), (0, 1)));
    // It is only left out: who wants to see it can.
    topic.rewind(&name("behind"), Start::Beginning).unwrap();
    let all = ["a/1", "b/1", "c/1", "d/1", "e/1", "f/1"];
    assert_eq!(consume(&subscribe(&topic, "behind", 1, 10), 6).await, all);
}

#[tokio::test]
async fn a_restart_knows_what_a_topic_was_emptied_of() {
    let world = World::new();
    let broker = world.open().await;
    let topic = broker.topic(&name("t")).await.unwrap();
    let options = ChannelOptions { ordered_by_key: true, ..Default::default() };
    topic.create_channel(&name("keyed"), options, Start::Routed).unwrap();
    let (one, keyed) = (subscribe(&topic, "c", 1, 1), subscribe(&topic, "keyed", 2, 1));
    publish(&topic, &["a", "b"]).await;
    assert_eq!(bodies(&next(&one).await), ["a/1"]);
    assert_eq!(bodies(&next(&keyed).await), ["a/1"]);
    topic.pause(true);
    publish(&topic, &["c"]).await;
    topic.empty().unwrap();
    publish(&topic, &["d"]).await;
    broker.close().await.unwrap();
    drop((one, keyed, topic, broker));

    let broker = world.open().await;
    let topic = broker.existing_topic(&name("t")).unwrap();
    let depth = |it: &str| topic.existing_channel(&name(it)).unwrap().stats().depth;
    assert_eq!((topic.stats().depth, depth("c")), (1, 2));
    topic.pause(false);
    for channel in ["c", "keyed"] {
        let mut seen = consume(&subscribe(&topic, channel, 1, 10), 3).await;
        seen.sort();
        assert_eq!(seen, ["a/2", "b/1", "d/1"], "{channel}");
        assert_eq!(depth(channel), 0);
    }
    let end = topic.stats().next;
    broker.close().await.unwrap();
    drop((topic, broker));
    let broker = world.open().await;
    let topic = broker.existing_topic(&name("t")).unwrap();
    assert!(topic.channels().iter().all(|it| it.stats().first_unfinished == end));
}

/// Whether the consumer gets nothing for a while.
async fn gets_nothing(consumer: &Subscription) -> bool {
    let mut out = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), consumer.next(&mut out)).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_held_gives_all_to_all_when_it_goes_on() {
    let world = World::new();
    let broker = world.open_holding(true).await;
    let topic = broker.topic(&name("t")).await.unwrap();
    publish(&topic, &["a", "b"]).await;
    let one = subscribe(&topic, "one", 1, 10);
    assert!(gets_nothing(&one).await);
    assert_eq!((topic.is_held(), topic.stats().depth, topic.stats().paused), (true, 2, false));
    // The user's own pause is another thing.
    topic.pause(true);
    let two = subscribe(&topic, "two", 2, 10);
    topic.release();
    assert!(gets_nothing(&one).await);
    topic.pause(false);
    assert_eq!(consume(&one, 2).await, ["a/1", "b/1"]);
    assert_eq!(consume(&two, 2).await, ["a/1", "b/1"]);
    // It was new once.
    topic.release();
    let three = subscribe(&topic, "three", 3, 10);
    publish(&topic, &["c"]).await;
    assert_eq!(consume(&three, 1).await, ["c/1"]);
    broker.hold_new_topics(false);
    assert!(!broker.topic(&name("u")).await.unwrap().is_held());
}

#[tokio::test]
async fn a_restart_holds_what_was_held() {
    let world = World::new();
    let broker = world.open_holding(true).await;
    let (held, done) =
        (broker.topic(&name("held")).await.unwrap(), broker.topic(&name("done")).await.unwrap());
    for topic in [&held, &done] {
        topic.channel(&name("early")).unwrap();
        publish(topic, &["a"]).await;
    }
    done.release();
    broker.close().await.unwrap();
    drop((held, done, broker));

    let broker = world.open_holding(true).await;
    let topic = |it: &str| broker.existing_topic(&name(it)).unwrap();
    assert_eq!((topic("held").is_held(), topic("done").is_held()), (true, false));
    let late = subscribe(&topic("held"), "late", 1, 10);
    topic("done").channel(&name("late")).unwrap();
    publish(&topic("held"), &["b"]).await;
    topic("held").release();
    assert_eq!(consume(&late, 2).await, ["a/1", "b/1"]);
    let early = subscribe(&topic("held"), "early", 2, 10);
    assert_eq!(consume(&early, 2).await, ["a/1", "b/1"]);
    assert_eq!(topic("done").existing_channel(&name("late")).unwrap().stats().depth, 0);
    topic("held").delete_channel(&name("late")).unwrap();
    broker.topic(&name("again")).await.unwrap();
    broker.close().await.unwrap();
    drop((late, early, broker));

    // Nobody is asked any more: nothing may wait for an answer.
    let broker = world.open_holding(false).await;
    assert!(broker.topics().iter().all(|it| !it.is_held()));
    broker.close().await.unwrap();
    drop(broker);
    let broker = world.open_holding(true).await;
    assert!(broker.topics().iter().all(|it| !it.is_held()));
}
