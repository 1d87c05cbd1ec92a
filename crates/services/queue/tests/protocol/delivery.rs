//! Who gets which message, how often and when. `NSQ-…` are the numbers of the acceptance tests.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use coracle_queue::{Durability, protocol::Options};
use serde_json::json;
use tokio::time::Instant;

use crate::client::{Frame, Nsqd, batch, command, name, until};

fn quick() -> Options {
    Options { msg_timeout: Duration::from_millis(300), ..Options::default() }
}

#[tokio::test]
async fn each_channel_gets_a_copy() {
    // NSQ-1
    let nsqd = Nsqd::start(Options::default()).await;
    let mut one = nsqd.consume("t", "one", 10).await;
    let mut two = nsqd.consume("t", "two", 10).await;
    nsqd.connect().await.publish("t", "a").await;
    let (id, attempts, body) = one.message().await;
    assert_eq!((attempts, body.as_str()), (1, "a"));
    assert_eq!(two.message().await, (id, 1, "a".to_owned()));
}

#[tokio::test]
async fn consumers_of_a_channel_share() {
    // NSQ-2
    let nsqd = Nsqd::start(Options::default()).await;
    let mut one = nsqd.consume("t", "c", 5).await;
    let mut two = nsqd.consume("t", "c", 5).await;
    let bodies: Vec<Vec<u8>> = (0..10u8).map(|it| vec![b'0' + it]).collect();
    let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    nsqd.connect().await.say_with("MPUB t", batch(&bodies)).await;
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        seen.insert(one.message().await.2);
        seen.insert(two.message().await.2);
    }
    assert_eq!(seen.len(), 10, "{seen:?}");
}

#[tokio::test]
async fn what_is_not_finished_in_time_comes_again() {
    // NSQ-3
    let nsqd = Nsqd::start(quick()).await;
    let mut consumer = nsqd.consume("t", "c", 1).await;
    nsqd.connect().await.publish("t", "a").await;
    let (id, attempts, _) = consumer.message().await;
    assert_eq!(attempts, 1);
    assert_eq!(consumer.message().await, (id.clone(), 2, "a".to_owned()));
    consumer.say(format!("FIN {id}\nFIN {id}\n")).await;
    let refused = format!("E_FIN_FAILED FIN {id} failed ID not in flight");
    assert_eq!(consumer.frame().await, Frame::Error(refused));
    // That was not fatal.
    nsqd.connect().await.publish("t", "b").await;
    assert_eq!(consumer.message().await.2, "b");
}

#[tokio::test]
async fn touching_keeps_a_message() {
    // NSQ-4
    let nsqd = Nsqd::start(quick()).await;
    let mut consumer = nsqd.consume("t", "c", 2).await;
    nsqd.connect().await.publish("t", "a").await;
    let (id, ..) = consumer.message().await;
    // The client asks for `NSQ-4` three times as long as it may take without touching.
    let until = Instant::now() + 3 * quick().msg_timeout;
    while Instant::now() < until {
        consumer.say(format!("TOUCH {id}\n")).await;
        tokio::time::sleep(quick().msg_timeout / 6).await;
    }
    consumer.say(format!("FIN {id}\n")).await;
    // Neither came again nor failed to be finished: the next thing is the next message.
    nsqd.connect().await.publish("t", "b").await;
    assert_eq!(consumer.message().await.2, "b");
}

#[tokio::test]
async fn a_requeued_message_waits() {
    // NSQ-5
    let nsqd = Nsqd::start(Options::default()).await;
    let mut consumer = nsqd.consume("t", "c", 1).await;
    nsqd.connect().await.publish("t", "a").await;
    let (id, ..) = consumer.message().await;
    consumer.say(format!("REQ {id} 0\n")).await;
    assert_eq!(consumer.message().await, (id.clone(), 2, "a".to_owned()));
    let before = Instant::now();
    consumer.say(format!("REQ {id} 500\n")).await;
    assert_eq!(consumer.message().await, (id, 3, "a".to_owned()));
    assert!(before.elapsed() >= Duration::from_millis(500), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_silent_client_loses_its_messages() {
    // NSQ-6
    let options = Options { client_timeout: Duration::from_millis(400), ..Options::default() };
    let nsqd = Nsqd::start(options).await;
    let mut silent = nsqd.consume("t", "c", 1).await;
    nsqd.connect().await.publish("t", "a").await;
    assert_eq!(silent.message().await.1, 1);
    let heartbeat = Frame::Response("_heartbeat_".to_owned());
    assert_eq!(silent.any_frame().await.unwrap(), heartbeat);
    silent.hung_up().await;
    let mut other = nsqd.consume("t", "c", 1).await;
    assert_eq!(other.message().await.1, 2);
    // Who answers stays: more heartbeats than a silent client gets.
    for _ in 0..4 {
        assert_eq!(other.any_frame().await.unwrap(), heartbeat);
        other.say("NOP\n").await;
    }
}

#[tokio::test]
async fn who_leaves_gives_back_what_it_has() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut gone = nsqd.consume("t", "c", 2).await;
    nsqd.connect().await.publish("t", "a").await;
    assert_eq!(gone.message().await.1, 1);
    drop(gone);
    assert_eq!(nsqd.consume("t", "c", 2).await.message().await.1, 2);
}

#[tokio::test]
async fn a_restart_loses_nothing() {
    // NSQ-7
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let nsqd = Nsqd::start_in(folder, Durability::Disk, Options::default()).await;
    let mut consumer = nsqd.consume("t", "c", 2).await;
    let mut publisher = nsqd.connect().await;
    for body in ["finished", "in flight"] {
        publisher.publish("t", body).await;
    }
    let (finished, ..) = consumer.message().await;
    let (in_flight, ..) = consumer.message().await;
    consumer.say(format!("RDY 0\nFIN {finished}\n")).await;
    nsqd.until(|it| it[0].finish_count == 1).await;
    publisher.publish("t", "waiting").await;
    let folder = nsqd.stop().await;
    let nsqd = Nsqd::start_in(folder, Durability::Disk, Options::default()).await;
    let mut consumer = nsqd.consume("t", "c", 10).await;
    let mut seen = [consumer.message().await, consumer.message().await];
    seen.sort_by_key(|it| it.2.clone());
    assert_eq!(seen[0], (in_flight, 2, "in flight".to_owned()));
    assert_eq!((seen[1].1, seen[1].2.as_str()), (1, "waiting"));
}

#[tokio::test]
async fn a_topic_keeps_messages_for_its_first_channel() {
    // NSQ-11
    let nsqd = Nsqd::start(Options::default()).await;
    nsqd.connect().await.publish("t", "a").await;
    assert_eq!(nsqd.depth("t"), 1);
    assert_eq!(nsqd.consume("t", "c", 1).await.message().await.2, "a");
    assert_eq!(nsqd.depth("t"), 0);
}

#[tokio::test]
async fn an_ephemeral_channel_goes_with_its_last_client() {
    // NSQ-12
    let nsqd = Nsqd::start(Options::default()).await;
    let one = nsqd.consume("t", "c#ephemeral", 1).await;
    let two = nsqd.consume("t", "c#ephemeral", 1).await;
    let topic = nsqd.broker.existing_topic(&name("t")).unwrap();
    drop(one);
    nsqd.until(|it| it.len() == 1).await;
    assert_eq!(topic.channels().len(), 1);
    drop(two);
    until(|| topic.channels().is_empty()).await;
    // It can be made again at once.
    let mut again = nsqd.consume("t", "c#ephemeral", 1).await;
    nsqd.connect().await.publish("t", "a").await;
    assert_eq!(again.message().await.2, "a");
}

#[tokio::test]
async fn a_deferred_message_waits() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut consumer = nsqd.consume("t", "c", 2).await;
    let before = Instant::now();
    let mut publisher = nsqd.connect().await;
    publisher.say_with("DPUB t 500", "later").await;
    publisher.publish("t", "now").await;
    assert_eq!(consumer.message().await.2, "now");
    assert_eq!(consumer.message().await.2, "later");
    assert!(before.elapsed() >= Duration::from_millis(500), "{:?}", before.elapsed());
}

#[tokio::test]
async fn answers_come_in_the_order_of_commands() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut client = nsqd.consume("t", "c", 0).await;
    let id = "0123456789abcdef";
    let commands = [
        command("PUB u", "a"),
        command("PUB u", "b"),
        format!("FIN {id}\n").into(),
        command("MPUB u", batch(&[b"c", b"d"])),
        format!("REQ {id} 0\nTOUCH {id}\nCLS\n").into(),
        command("PUB u", "e"),
        b"NONSENSE\n".to_vec(),
    ];
    client.say(commands.concat()).await;
    let mut told = Vec::new();
    while let Ok(frame) = client.any_frame().await {
        told.push(match frame {
            Frame::Response(it) | Frame::Error(it) => it,
            other @ Frame::Message { .. } => panic!("{other:?}"),
        });
    }
    assert_eq!(
        told,
        [
            "OK",
            "OK",
            "E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight",
            "OK",
            "E_REQ_FAILED REQ 0123456789abcdef failed ID not in flight",
            "E_TOUCH_FAILED TOUCH 0123456789abcdef failed ID not in flight",
            "CLOSE_WAIT",
            "OK",
            "E_INVALID invalid command NONSENSE",
        ]
    );
    let mut consumer = nsqd.consume("u", "c", 10).await;
    for expected in ["a", "b", "c", "d", "e"] {
        assert_eq!(consumer.message().await.2, expected);
    }
}

#[tokio::test]
async fn after_cls_a_client_may_only_answer() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut consumer = nsqd.consume("t", "c", 1).await;
    let mut publisher = nsqd.connect().await;
    publisher.publish("t", "a").await;
    let (id, ..) = consumer.message().await;
    consumer.say("CLS\n").await;
    assert_eq!(consumer.frame().await, Frame::Response("CLOSE_WAIT".to_owned()));
    publisher.publish("t", "b").await;
    consumer.say(format!("RDY 5\nFIN {id}\nCLS\n")).await;
    assert_eq!(consumer.refused().await, "E_INVALID cannot CLS in current state");
    let mut other = nsqd.consume("t", "c", 5).await;
    assert_eq!(other.message().await, {
        let it = other_id(&nsqd);
        (it, 1, "b".to_owned())
    });
}

/// The id of the last message of `t`.
fn other_id(nsqd: &Nsqd) -> String {
    use coracle_queue::message::{MessageId, NodeId, Sequence};
    let next = nsqd.broker.existing_topic(&name("t")).unwrap().stats().next;
    MessageId::new(NodeId::new(1).unwrap(), Sequence(next.0 - 1)).to_string()
}

#[tokio::test]
async fn a_deleted_channel_disconnects_its_clients() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut consumer = nsqd.consume("t", "c", 1).await;
    nsqd.broker.existing_topic(&name("t")).unwrap().delete_channel(&name("c")).unwrap();
    consumer.hung_up().await;
}

#[tokio::test]
async fn a_client_may_say_how_long_it_takes() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut consumer = nsqd.connect().await;
    assert_eq!(consumer.identify(json!({ "msg_timeout": 1000 })).await["msg_timeout"], 1000);
    consumer.say("SUB t c\nRDY 1\n").await;
    assert_eq!(consumer.frame().await, Frame::Response("OK".to_owned()));
    nsqd.connect().await.publish("t", "a").await;
    assert_eq!(consumer.message().await.1, 1);
    let before = Instant::now();
    assert_eq!(consumer.message().await.1, 2);
    assert!(before.elapsed() >= Duration::from_millis(900), "{:?}", before.elapsed());
}

#[tokio::test]
async fn unasked_a_message_is_sent_at_once_and_asked_it_is_buffered() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut prompt = nsqd.consume("t", "prompt", 10).await;
    let mut patient = nsqd.connect().await;
    let before = Instant::now();
    patient.identify(json!({ "output_buffer_timeout": 1500 })).await;
    patient.say("SUB t patient\nRDY 10\n").await;
    assert_eq!(patient.frame().await, Frame::Response("OK".to_owned()));
    nsqd.connect().await.publish("t", "a").await;
    prompt.message().await;
    let prompt = before.elapsed();
    patient.message().await;
    let patient = before.elapsed();
    assert!(patient >= Duration::from_millis(1500), "{patient:?}");
    assert!(prompt < patient, "{prompt:?}");
}

#[tokio::test]
async fn a_full_consumer_does_not_wait_for_the_buffer() {
    let options =
        Options { max_output_buffer_timeout: Duration::from_secs(60), ..Options::default() };
    let nsqd = Nsqd::start(options).await;
    let mut consumer = nsqd.connect().await;
    consumer.identify(json!({ "output_buffer_timeout": 60_000 })).await;
    consumer.say("SUB t c\nRDY 1\n").await;
    assert_eq!(consumer.frame().await, Frame::Response("OK".to_owned()));
    nsqd.connect().await.publish("t", "a").await;
    // Within the time any frame is waited for, which is shorter than the buffer's.
    consumer.message().await;
}

#[tokio::test]
async fn what_a_client_does_is_told() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut consumer = nsqd.connect().await;
    consumer
        .identify(json!({ "client_id": "me", "hostname": "here", "user_agent": "test/1" }))
        .await;
    consumer.say("SUB t c\nRDY 3\n").await;
    assert_eq!(consumer.frame().await, Frame::Response("OK".to_owned()));
    let mut publisher = nsqd.connect().await;
    publisher.say_with("MPUB t", batch(&[b"a", b"b", b"c"])).await;
    let ids = [consumer.message().await.0, consumer.message().await.0, consumer.message().await.0];
    consumer.say(format!("FIN {}\nREQ {} 60000\n", ids[0], ids[1])).await;
    nsqd.until(|it| it.iter().any(|it| it.requeue_count == 1)).await;
    let clients = nsqd.clients.snapshot();
    let [consumer, publisher] = &clients[..] else { panic!("{clients:?}") };
    assert_eq!(consumer.client_id, "me");
    assert_eq!(consumer.subscribed, Some((name("t"), name("c"))));
    let counts = (consumer.ready_count, consumer.in_flight_count, consumer.message_count);
    assert_eq!((counts, consumer.finish_count, consumer.state), ((3, 1, 3), 1, 3));
    assert_eq!((publisher.pub_counts[0].topic.as_str(), publisher.pub_counts[0].count), ("t", 3));
}

#[tokio::test]
async fn what_timed_out_is_in_flight_no_more() {
    let options = Options { msg_timeout: Duration::from_millis(50), ..Options::default() };
    let nsqd = Nsqd::start(options).await;
    let mut consumer = nsqd.consume("t", "c", 1).await;
    nsqd.connect().await.publish("t", "a").await;
    consumer.message().await;
    consumer.say("RDY 0\n").await;
    nsqd.until(|it| it.iter().any(|it| it.message_count > 0 && it.in_flight_count == 0)).await;
}
