//! What a producer says to nsqlookupd: answered with the original's errors or ended, and a producer
//! beside it stays known.

use coracle_queue::lookupd::{Config, Handle, build};
use proptest::{collection::vec, prelude::*};
use runtime::{Clock, Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{change, exchange, hold, runtime};
use crate::client::{SOON, command};

/// Every error of the original's nsqlookupd.
const ERRORS: [&str; 5] =
    ["E_BAD_BODY", "E_BAD_CHANNEL", "E_BAD_PROTOCOL", "E_BAD_TOPIC", "E_INVALID"];

const BODY: &str = r#"{"broadcast_address":"a","hostname":"h","tcp_port":4150,"http_port":4151,"version":"1.3.0"}"#;

/// A producer that registered a topic.
struct Producer(TcpStream);

impl Producer {
    async fn new(lookupd: &Handle) -> Self {
        let mut producer = Self(TcpStream::connect(lookupd.tcp_address()).await.unwrap());
        producer.0.write_all(b"  V1").await.unwrap();
        assert!(producer.say(&command("IDENTIFY", BODY)).await.starts_with('{'));
        assert_eq!(producer.say(b"REGISTER neighbour\n").await, "OK");
        producer
    }

    async fn say(&mut self, bytes: &[u8]) -> String {
        let talk = async {
            self.0.write_all(bytes).await.unwrap();
            let length = self.0.read_u32().await.unwrap();
            let mut answer = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        };
        timeout(SOON, talk).await.expect("nsqlookupd says nothing")
    }

    async fn is_undisturbed(&mut self, lookupd: &Handle) {
        assert_eq!(self.say(b"PING\n").await, "OK");
        let stream = TcpStream::connect(lookupd.http_address()).await.unwrap();
        let ask = b"GET /lookup?topic=neighbour HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = exchange(stream, ask, usize::MAX).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(text.matches("\"broadcast_address\":\"a\"").count(), 1, "{text}");
    }
}

fn speech() -> impl Strategy<Value = Vec<u8>> {
    let name = || "[tuc]|[a-z.]{0,70}|[tu]/x|t#ephemeral";
    let sensible = prop_oneof![
        2 => Just(command("IDENTIFY", BODY)),
        1 => vec(any::<u8>(), 0..60).prop_map(|it| command("IDENTIFY", it)),
        1 => "\\{\"(broadcast_address|hostname|version)\":(\"[a-z]{0,3}\"|1|null)\\}".prop_map(|it| command("IDENTIFY", it)),
        3 => ("(UN)?REGISTER", name(), name())
            .prop_map(|(verb, topic, channel)| format!("{verb} {topic} {channel}\n").into_bytes()),
        1 => ("(UN)?REGISTER|PING|[A-Z]{0,5}", "( [a-z]{0,3}){0,4}\r?\n")
            .prop_map(|(verb, rest)| (verb + &rest).into_bytes()),
    ];
    let sensible = sensible.boxed();
    let spoiled = (sensible.clone(), vec(change(), 1..3)).prop_map(|(mut bytes, changes)| {
        changes.iter().for_each(|it| it.apply(&mut bytes));
        bytes
    });
    let piece = prop_oneof![6 => sensible, 3 => spoiled, 1 => vec(any::<u8>(), 0..60)];
    vec(piece, 1..12).prop_map(|it| it.concat())
}

/// Checks the answers; an error is the last one.
fn check(mut said: &[u8]) -> Result<(), TestCaseError> {
    let mut last = false;
    while !said.is_empty() {
        prop_assert!(!last, "after an error: {said:?}");
        let Some((length, rest)) = said.split_first_chunk::<4>() else {
            return Err(TestCaseError::fail(format!("half a length: {said:?}")));
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
        prop_assert!(length <= rest.len(), "{} of {length} bytes", rest.len());
        let (data, rest) = rest.split_at(length);
        let text = String::from_utf8_lossy(data);
        if text.starts_with("E_") {
            let code = text.split(' ').next().unwrap_or_default();
            prop_assert!(ERRORS.contains(&code), "{text}");
            last = true;
        } else {
            prop_assert!(text == "OK" || text.starts_with('{'), "{text}");
        }
        said = rest;
    }
    Ok(())
}

#[test]
fn any_producer_is_answered_as_the_original_would() {
    let runtime = runtime();
    let tasks = Tasks::default();
    let (lookupd, producer) = runtime.block_on(async {
        let config = Config {
            tcp_address: "127.0.0.1:0".to_owned(),
            http_address: "127.0.0.1:0".to_owned(),
            ..Config::new("host")
        };
        let lookupd = build(config, Clock::system()).await.unwrap();
        let handle = lookupd.handle();
        lookupd.run(&tasks);
        let producer = Producer::new(&handle).await;
        (handle, producer)
    });
    let producer = tokio::sync::Mutex::new(producer);
    let case = (speech(), prop_oneof![Just(usize::MAX), 1..50_usize], prop::bool::weighted(0.95));
    hold(&case, |(bytes, piece, greets)| {
        runtime.block_on(async {
            let stream = TcpStream::connect(lookupd.tcp_address()).await.unwrap();
            let greeting: &[u8] = if greets { b"  V1" } else { b"" };
            check(&exchange(stream, &[greeting, &bytes].concat(), piece).await)?;
            producer.lock().await.is_undisturbed(&lookupd).await;
            Ok(())
        })
    });
    assert!(runtime.block_on(tasks.shutdown(SOON)));
}
