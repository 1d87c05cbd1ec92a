//! What is refused, what is bounded, and that others do not suffer from it.

use std::{sync::Arc, time::Duration};

use coracle_queue::{
    Durability,
    bodies::Budget,
    broker::{ChannelOptions, Config, Start},
    message::NodeId,
    protocol::Options,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::client::{Client, Frame, Nsqd, batch, command, name, until};

#[tokio::test]
async fn bad_names_are_refused() {
    // NSQ-8
    let nsqd = Nsqd::start(Options::default()).await;
    let long = "x".repeat(65);
    for (line, refusal) in [
        ("SUB bad/topic c\n".to_owned(), r#"E_BAD_TOPIC SUB topic name "bad/topic" is not valid"#),
        (
            "SUB t bad:channel\n".to_owned(),
            r#"E_BAD_CHANNEL SUB channel name "bad:channel" is not valid"#,
        ),
        ("PUB a#eph\n".to_owned(), r#"E_BAD_TOPIC PUB topic name "a#eph" is not valid"#),
        (format!("PUB {long}\n"), &format!(r#"E_BAD_TOPIC PUB topic name "{long}" is not valid"#)),
    ] {
        let mut client = nsqd.connect().await;
        client.say(line).await;
        assert_eq!(client.refused().await, refusal);
    }
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut client = Client(TcpStream::connect(nsqd.address).await.unwrap());
    client.say("GET / HTTP/1.1\r\n").await;
    assert_eq!(client.refused().await, "E_BAD_PROTOCOL");
}

#[tokio::test]
async fn sizes_are_limited_and_the_refusal_arrives() {
    let options = Options { max_msg_size: 100, max_body_size: 1000, ..Options::default() };
    let nsqd = Nsqd::start(options).await;
    let mut client = nsqd.connect().await;
    client.publish("t", [0; 100]).await;
    // Much more than the kernel keeps for a reader that does not read.
    client.say_with("PUB t", vec![0; 300_000]).await;
    assert_eq!(client.refused().await, "E_BAD_MESSAGE PUB message too big 300000 > 100");
    let mut client = nsqd.connect().await;
    client.say_with("MPUB t", batch(&[&[0; 100][..]; 11])).await;
    assert_eq!(client.refused().await, "E_BAD_BODY MPUB body too big 1148 > 1000");
}

#[tokio::test]
async fn half_a_command_is_told() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut client = nsqd.connect().await;
    client.publish("t", "whole").await;
    client.say(b"PUB t\n\0\0\0\x05ha").await;
    client.0.shutdown().await.unwrap();
    assert_eq!(client.refused().await, "E_BAD_MESSAGE PUB failed to read message body");
    assert_eq!(nsqd.depth("t"), 1);
}

#[tokio::test]
async fn empty_lines_and_long_ones_hurt_nobody() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut client = nsqd.connect().await;
    client.say("\n\n").await;
    assert_eq!(client.refused().await, "E_INVALID invalid command ");
    let mut client = nsqd.connect().await;
    client.say(vec![b'x'; 16 * 1024]).await;
    client.hung_up().await;
    nsqd.connect().await.publish("t", "a").await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_and_others_go_on() {
    let options = Options { client_timeout: Duration::from_secs(1), ..Options::default() };
    let nsqd = Nsqd::start(options).await;
    let mut stuck = nsqd.consume("t", "c", 2500).await;
    let mut publisher = nsqd.connect().await;
    let body = vec![b'x'; 100_000];
    let mut batches = 0;
    // More than the kernel takes for a client that does not read.
    while batches < 100 {
        publisher.say_with("MPUB t", batch(&[&body[..]; 10])).await;
        assert_eq!(publisher.frame().await, Frame::Response("OK".to_owned()));
        batches += 1;
    }
    // It goes on talking: that is not what it is dropped for.
    let talking = async {
        while stuck.0.write_all(b"NOP\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::client::SOON, talking).await.expect("it was not dropped");
    let mut other = nsqd.consume("t", "c", 1).await;
    assert_eq!(other.message().await.2.len(), body.len());
}

#[tokio::test]
async fn a_publisher_that_does_not_read_is_made_to_wait() {
    let options = Options { client_timeout: Duration::from_secs(2), ..Options::default() };
    let nsqd = Nsqd::start(options).await;
    let mut deaf = nsqd.connect().await;
    // A refusal that is not fatal, and longer than what caused it.
    deaf.say("SUB t c\n").await;
    let nonsense = "FIN 0123456789abcdef\n".repeat(10_000);
    let shouting = async { while deaf.0.write_all(nonsense.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(crate::client::SOON, shouting).await.expect("all of it was read");
    nsqd.until(<[_]>::is_empty).await;
}

#[tokio::test]
async fn there_are_as_many_clients_as_there_may_be() {
    let options = Options { connections_max: Some(2), ..Options::default() };
    let nsqd = Nsqd::start(options).await;
    let mut one = nsqd.connect().await;
    let mut two = nsqd.connect().await;
    one.publish("t", "a").await;
    two.publish("t", "b").await;
    let mut three = TcpStream::connect(nsqd.address).await.unwrap();
    assert_eq!(three.read(&mut [0]).await.unwrap_or(0), 0);
    drop(one);
    nsqd.until(|it| it.len() == 1).await;
    nsqd.connect().await.publish("t", "c").await;
}

/// A body of which the memory of these tests has room for one.
const LARGE: usize = 600_000;

#[tokio::test]
async fn large_bodies_share_memory_and_all_arrive() {
    let bodies = Budget::new(1_000_000);
    let nsqd = Nsqd::start(Options { bodies: bodies.clone(), ..Options::default() }).await;
    let whole = command("MPUB t", batch(&[&[b'x'; LARGE][..]]));
    let (begin, rest) = whole.split_at(whole.len() / 2);
    let mut first = nsqd.connect().await;
    first.say(begin).await;
    until(|| bodies.in_use() >= LARGE).await;
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(nsqd.connect().await);
    }
    let others = others.iter_mut().map(async |it| {
        // Twice, so that one follows the other on a connection.
        for _ in 0..2 {
            it.say(&whole).await;
        }
        for _ in 0..2 {
            assert_eq!(it.frame().await, Frame::Response("OK".to_owned()));
        }
    });
    let meanwhile = async {
        let mut small = nsqd.connect().await;
        for _ in 0..20 {
            small.publish("t", "small").await;
        }
        assert_eq!(nsqd.depth("t"), 20, "a large one came before its turn");
        assert!(bodies.in_use() <= 1_000_000);
        first.say(rest).await;
        assert_eq!(first.frame().await, Frame::Response("OK".to_owned()));
    };
    tokio::join!(futures_util::future::join_all(others), meanwhile);
    assert_eq!(nsqd.depth("t"), 20 + 1 + 40);
    until(|| bodies.in_use() == 0).await;
}

#[tokio::test]
async fn who_holds_memory_and_falls_silent_is_hung_up_on() {
    let options = Options {
        bodies: Budget::new(1_000_000),
        client_timeout: Duration::from_secs(1),
        ..Options::default()
    };
    let nsqd = Nsqd::start(options).await;
    let whole = command("MPUB t", batch(&[&[b'x'; LARGE][..]]));
    let mut silent = nsqd.connect().await;
    silent.identify(serde_json::json!({"heartbeat_interval": -1})).await;
    silent.say(whole.get(..100).unwrap()).await;
    let mut other = nsqd.connect().await;
    other.say(&whole).await;
    assert_eq!(other.frame().await, Frame::Response("OK".to_owned()));
    assert_eq!(silent.refused().await, "E_BAD_MESSAGE MPUB failed to read message body");
}

#[tokio::test]
async fn who_leaves_gives_back_its_memory() {
    let bodies = Budget::new(1_000_000);
    let nsqd = Nsqd::start(Options { bodies: bodies.clone(), ..Options::default() }).await;
    let whole = command("MPUB t", batch(&[&[b'x'; LARGE][..]]));
    let mut holder = nsqd.connect().await;
    holder.say(whole.get(..100).unwrap()).await;
    until(|| bodies.in_use() >= LARGE).await;
    let mut waiting = nsqd.connect().await;
    waiting.say(whole.get(..100).unwrap()).await;
    nsqd.until(|it| it.len() == 2).await;
    drop(waiting);
    drop(holder);
    until(|| bodies.in_use() == 0).await;
    let mut other = nsqd.connect().await;
    other.say(&whole).await;
    assert_eq!(other.frame().await, Frame::Response("OK".to_owned()));
}

#[tokio::test]
async fn there_are_as_many_topics_and_channels_as_there_may_be() {
    let config = Config {
        durability: Durability::Memory,
        topics_max: 2,
        channels_max: 3,
        ..Config::new(NodeId::new(1).unwrap())
    };
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let nsqd = Nsqd::start_as(folder, config, Options::default()).await;
    let mut neighbour = nsqd.consume("t", "c", 1).await;
    nsqd.consume("t", "d", 1).await;
    nsqd.connect().await.publish("u", "a").await;
    let topic = nsqd.broker.existing_topic(&name("u")).unwrap();
    topic.create_channel(&name("e"), ChannelOptions::default(), Start::Routed).unwrap();
    for (said, refusal) in [
        (
            "SUB t f\n".into(),
            "E_SUB_FAILED SUB failed this nsqd has 3 channels, and may have no more",
        ),
        (
            "SUB v c\n".into(),
            "E_SUB_FAILED SUB failed this nsqd has 2 topics, and may have no more",
        ),
        (
            command("PUB v", "a"),
            "E_PUB_FAILED PUB failed this nsqd has 2 topics, and may have no more",
        ),
    ] as [(Vec<u8>, &str); 3]
    {
        let mut client = nsqd.connect().await;
        client.say(said).await;
        assert_eq!(client.refused().await, refusal);
    }
    nsqd.connect().await.publish("t", "a").await;
    assert_eq!(neighbour.message().await.2, "a");
    // There is a place when one goes.
    topic.delete_channel(&name("e")).unwrap();
    nsqd.consume("t", "f", 1).await;
}

#[tokio::test]
async fn many_messages_are_pipelined() {
    let nsqd = Nsqd::start(Options::default()).await;
    let publisher = nsqd.connect().await;
    let (mut reader, mut writer) = publisher.0.into_split();
    let commands =
        (0..20_000u32).flat_map(|it| command("PUB t", it.to_string())).collect::<Vec<_>>();
    let writing = async { writer.write_all(&commands).await.unwrap() };
    let reading = async {
        let mut answers = vec![0; 20_000 * 10];
        reader.read_exact(&mut answers).await.unwrap();
        assert!(answers.chunks(10).all(|it| it == b"\0\0\0\x06\0\0\0\0OK"));
    };
    tokio::join!(writing, reading);
    let mut consumer = nsqd.consume("t", "c", 2500).await;
    for expected in 0..20_000 {
        let (id, attempts, body) = consumer.message().await;
        assert_eq!((body, attempts), (expected.to_string(), 1));
        consumer.say(format!("FIN {id}\n")).await;
    }
}

#[tokio::test]
async fn the_end_of_nsqd_is_the_end_of_connections() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut consumer = nsqd.consume("t", "c", 1).await;
    let mut publisher = nsqd.connect().await;
    publisher.publish("t", "a").await;
    consumer.message().await;
    assert!(nsqd.tasks.shutdown(crate::client::SOON).await);
    consumer.hung_up().await;
    publisher.hung_up().await;
}
