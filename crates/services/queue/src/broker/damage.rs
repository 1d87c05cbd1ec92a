//! What becomes of messages that were damaged on the disk: they are left out, it is counted, and
//! what is behind them is delivered.

use std::time::Duration;

use bytes::Bytes;

use super::{
    crash::{open, subscribe},
    state::State,
    *,
};
use crate::{
    Durability,
    disk::simulated::Simulated,
    log::Run,
    message::{Nanos, NewMessage, NodeId},
};

const BODIES: [&str; 3] = ["the first", "the second", "the third"];

/// Changes one bit of a message in its file.
fn damage(disk: &Simulated, body: &str) {
    for (path, mut bytes) in disk.files() {
        let place = bytes.windows(body.len()).position(|it| it == body.as_bytes());
        if let Some(place) = place.filter(|_| path.extension().is_some_and(|it| it == "log")) {
            bytes[place] ^= 1;
            return disk.put(&path, &bytes);
        }
    }
    panic!("{body} is in no file");
}

async fn take(subscription: &Subscription, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let soon = Duration::from_secs(20);
        tokio::time::timeout(soon, subscription.next(&mut taken)).await.expect("too few");
    }
    taken
}

/// Each is a batch of its own, so that the damage is to one.
async fn check(in_flight: bool) {
    let disk = Simulated::new(1);
    let broker = open(disk.arc(), Durability::Disk).await;
    let topic = broker.topic(&Name::parse("t").unwrap()).await.unwrap();
    let subscription = subscribe(&topic, "c");
    subscription.ready(if in_flight { 50 } else { 0 });
    for body in BODIES {
        let message = NewMessage::new(Bytes::from_static(body.as_bytes()));
        topic.publish(&[message]).unwrap().committed().await.unwrap();
    }
    if in_flight {
        take(&subscription, BODIES.len()).await;
    }
    drop(subscription);
    broker.close().await.unwrap();

    let disk = disk.killed();
    damage(&disk, BODIES[1]);
    let broker = open(disk.arc(), Durability::Disk).await;
    let topic = broker.existing_topic(&Name::parse("t").unwrap()).unwrap();
    let subscription = subscribe(&topic, "c");
    let mut bodies: Vec<_> = take(&subscription, 2).await;
    bodies.sort_by_key(|it| it.message.sequence);
    for it in &bodies {
        subscription.finish(it.id).unwrap();
    }
    let bodies: Vec<_> = bodies.into_iter().map(|it| it.message.body).collect();
    assert_eq!(bodies, [BODIES[0], BODIES[2]]);
    let channel = topic.existing_channel(&Name::parse("c").unwrap()).unwrap().stats();
    assert_eq!((channel.counters.skipped, channel.depth, channel.in_flight), (1, 0, 0));
    assert_eq!(channel.first_unfinished, topic.stats().next);
    assert_eq!(topic.stats().damaged, 1);
}

/// The next of its key need not wait for a message that cannot be read again.
#[test]
fn the_next_of_its_key_goes_on() {
    let options = ChannelOptions { ordered_by_key: true, ..ChannelOptions::default() };
    let config = state::Config {
        node: NodeId::new(1).unwrap(),
        options,
        timeout_max: Duration::from_mins(1),
        backlog_max: None,
    };
    let mut state = State::new(config, Sequence(1));
    let key = Some(Bytes::from_static(b"key"));
    let message = NewMessage { key, ..NewMessage::new(Bytes::from_static(b"body")) };
    state.see(Sequence(3));
    state.admit(Sequence(1), vec![Run::of(Sequence(1), &[message.clone(), message])]);
    state.subscribe(ClientId(1), Duration::from_mins(1), None);
    state.ready(ClientId(1), 10);
    let mut out = Vec::new();
    assert_eq!(state.take(ClientId(1), Nanos(0), usize::MAX, &mut out), 1);
    let id = MessageId::new(state.node(), out[0].0.first());
    state.requeue(ClientId(1), id, Duration::from_secs(1), Nanos(0)).unwrap();
    state.tick(Nanos(0).after(Duration::from_secs(2)));
    assert_eq!(state.missing(), [Sequence(1)]);
    state.found(Sequence(1), None);
    assert_eq!(state.missing(), [Sequence(2)]);
    assert_eq!(state.counters().skipped, 1);
}

#[tokio::test]
async fn what_was_never_handed_out_is_passed_over() {
    check(false).await;
}

#[tokio::test]
async fn what_a_consumer_had_is_not_delivered_again() {
    check(true).await;
}
