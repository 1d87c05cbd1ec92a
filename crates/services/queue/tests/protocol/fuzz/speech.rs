//! Whatever a client says, in whatever state and however it is packed: nsqd answers in whole frames
//! with errors that the original knows, or hangs up; it never hangs, and a neighbour notices nothing.

use std::{io::Write as _, time::Duration};

use coracle_queue::protocol::{ClientAuth, Options};
use proptest::{collection::vec, prelude::*};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use super::{change, exchange, hold, runtime};
use crate::{
    client::{Client, Nsqd, batch, command},
    negotiation::certificates,
};

/// Every error of the original's protocol; behind it comes a sentence.
const ERRORS: [&str; 19] = [
    "E_AUTH_DISABLED",
    "E_AUTH_ERROR",
    "E_AUTH_FAILED",
    "E_AUTH_FIRST",
    "E_BAD_BODY",
    "E_BAD_CHANNEL",
    "E_BAD_MESSAGE",
    "E_BAD_PROTOCOL",
    "E_BAD_TOPIC",
    "E_DPUB_FAILED",
    "E_IDENTIFY_FAILED",
    "E_INVALID",
    "E_MPUB_FAILED",
    "E_PUB_FAILED",
    "E_SUB_FAILED",
    "E_UNAUTHORIZED",
    // After these the connection goes on.
    "E_FIN_FAILED",
    "E_REQ_FAILED",
    "E_TOUCH_FAILED",
];
const PASSING: [&str; 3] = ["E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"];

/// A command that means something somewhere.
fn sensible() -> impl Strategy<Value = Vec<u8>> {
    let name = || "[tuc]|t#ephemeral|[a-z.]{0,70}|[tu]/x";
    let body = || vec(any::<u8>(), 0..60);
    let number = || prop_oneof![(0..9_u32).prop_map(|it| it.to_string()), "-?[0-9]{0,20}"];
    let wants = vec(
        prop_oneof![
            "\"(client_id|hostname|user_agent|topology_zone)\":\"[a-z\\\\u0]{0,9}\"",
            "\"(feature_negotiation|tls_v1|snappy|deflate)\":(true|false|1)",
            "\"(heartbeat_interval|output_buffer_size|output_buffer_timeout|msg_timeout|sample_rate|deflate_level)\":-?[0-9]{1,9}",
        ],
        0..4,
    );
    prop_oneof![
        wants.prop_map(|it| command("IDENTIFY", format!("{{{}}}", it.join(",")))),
        body().prop_map(|it| command("AUTH", it)),
        (name(), name()).prop_map(|(topic, channel)| format!("SUB {topic} {channel}\n").into()),
        Just(b"SUB t c\n".to_vec()),
        number().prop_map(|it| format!("RDY {it}\n").into()),
        ("FIN|TOUCH", "[0-9a-f]{0,18}").prop_map(|(verb, id)| format!("{verb} {id}\n").into()),
        ("[0-9a-f]{16}", number()).prop_map(|(id, delay)| format!("REQ {id} {delay}\n").into()),
        "(CLS|NOP|CLS x|PUB|MPUB|DPUB t|SUB t)\n".prop_map(String::into_bytes),
        (name(), body()).prop_map(|(topic, body)| command(&format!("PUB {topic}"), body)),
        (name(), number(), body())
            .prop_map(|(topic, delay, body)| command(&format!("DPUB {topic} {delay}"), body)),
        (name(), vec(body(), 0..4)).prop_map(|(topic, bodies)| {
            let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
            command(&format!("MPUB {topic}"), batch(&bodies))
        }),
    ]
}

/// What a client says after its greeting: commands, some of them spoiled, and noise.
fn speech() -> impl Strategy<Value = Vec<u8>> {
    let spoiled = (sensible(), vec(change(), 1..3)).prop_map(|(mut bytes, changes)| {
        changes.iter().for_each(|it| it.apply(&mut bytes));
        bytes
    });
    let piece = prop_oneof![
        6 => sensible(),
        3 => spoiled,
        1 => vec(any::<u8>(), 0..60),
    ];
    vec(piece, 1..12).prop_map(|it| it.concat())
}

/// A publisher and its consumer, whom nothing that others do may disturb.
struct Neighbour {
    publisher: Client<TcpStream>,
    consumer: Client<TcpStream>,
    count: u64,
}

impl Neighbour {
    async fn new(nsqd: &Nsqd) -> Self {
        let consumer = nsqd.consume("neighbour", "own", 1).await;
        Self { publisher: nsqd.connect().await, consumer, count: 0 }
    }

    async fn is_undisturbed(&mut self) {
        self.count += 1;
        self.publisher.publish("neighbour", self.count.to_string()).await;
        let (id, attempts, body) = self.consumer.message().await;
        assert_eq!((attempts, body), (1, self.count.to_string()));
        self.consumer.say(format!("FIN {id}\n")).await;
    }
}

/// Checks the frames up to a change of their packing; how many there were.
fn check(mut said: &[u8]) -> Result<usize, TestCaseError> {
    let mut count = 0;
    let mut last = false;
    while !said.is_empty() {
        prop_assert!(!last, "after a fatal error: {said:?}");
        let Some((head, rest)) = said.split_first_chunk::<8>() else {
            return Err(TestCaseError::fail(format!("half a head: {said:?}")));
        };
        let size = usize::try_from(u32::from_be_bytes(head[..4].try_into().unwrap())).unwrap() - 4;
        prop_assert!(size <= rest.len(), "{} of {size} bytes", rest.len());
        let (data, rest) = rest.split_at(size);
        let text = String::from_utf8_lossy(data);
        match u32::from_be_bytes(head[4..].try_into().unwrap()) {
            0 => {
                let packed = ["tls_v1", "snappy", "deflate"];
                if packed.iter().any(|it| text.contains(&format!("\"{it}\":true"))) {
                    return Ok(count + 1);
                }
                let known = ["OK", "CLOSE_WAIT", "_heartbeat_"].contains(&&*text);
                prop_assert!(known || text.starts_with('{'), "{text}");
            }
            1 => {
                let code = text.split(' ').next().unwrap_or_default();
                prop_assert!(ERRORS.contains(&code), "{text}");
                last = !PASSING.contains(&code);
            }
            2 => prop_assert!(26 < size, "an empty message"),
            kind => prop_assert!(false, "a frame of type {kind}"),
        }
        said = rest;
        count += 1;
    }
    Ok(count)
}

#[test]
fn any_speech_is_answered_as_the_original_would() {
    let runtime = runtime();
    let options = Options { max_body_size: 1000, max_msg_size: 100, ..Options::default() };
    let nsqd = runtime.block_on(Nsqd::start(options));
    let neighbour = tokio::sync::Mutex::new(runtime.block_on(Neighbour::new(&nsqd)));
    let case = (speech(), prop_oneof![Just(usize::MAX), 1..50_usize], prop::bool::weighted(0.95));
    hold(&case, |(bytes, piece, greets)| {
        runtime.block_on(async {
            let stream = TcpStream::connect(nsqd.address).await.unwrap();
            let greeting: &[u8] = if greets { b"  V2" } else { b"" };
            let said = exchange(stream, &[greeting, &bytes].concat(), piece).await;
            check(&said)?;
            neighbour.lock().await.is_undisturbed().await;
            Ok(())
        })
    });
    runtime.block_on(nsqd.until(|it| it.len() == 2));
    drop(neighbour);
    runtime.block_on(nsqd.stop());
}

/// How a connection is packed.
#[derive(Clone, Copy, Debug)]
enum Packing {
    Snappy,
    Deflate,
    Tls,
}

impl Packing {
    fn wants(self) -> serde_json::Value {
        match self {
            Self::Snappy => json!({ "snappy": true }),
            Self::Deflate => json!({ "deflate": true }),
            Self::Tls => json!({ "tls_v1": true }),
        }
    }

    /// Packed as it should be. Of TLS there are only the first bytes of a handshake.
    fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Snappy => {
                let mut packer = snap::write::FrameEncoder::new(Vec::new());
                packer.write_all(bytes).unwrap();
                packer.into_inner().unwrap()
            }
            Self::Deflate => {
                let level = flate2::Compression::fast();
                let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), level);
                packer.write_all(bytes).unwrap();
                packer.finish().unwrap()
            }
            Self::Tls => [b"\x16\x03\x01\x00\xc8\x01", bytes].concat(),
        }
    }
}

#[test]
fn any_packed_speech_ends() {
    let runtime = runtime();
    let certificates = certificates();
    let nsqd = runtime.block_on(Nsqd::start(certificates.options(ClientAuth::None, false)));
    let neighbour = tokio::sync::Mutex::new(runtime.block_on(Neighbour::new(&nsqd)));
    let packing = prop_oneof![Just(Packing::Snappy), Just(Packing::Deflate), Just(Packing::Tls)];
    let case = (packing, speech(), vec(change(), 0..3), 1..2000_usize);
    hold(&case, |(packing, bytes, changes, piece)| {
        let mut packed = packing.pack(&bytes);
        changes.iter().for_each(|it| it.apply(&mut packed));
        runtime.block_on(async {
            let mut client = nsqd.connect().await;
            client.identify(packing.wants()).await;
            exchange(client.0, &packed, piece).await;
            neighbour.lock().await.is_undisturbed().await;
        });
        Ok(())
    });
    runtime.block_on(nsqd.until(|it| it.len() == 2));
    drop(neighbour);
    runtime.block_on(nsqd.stop());
}

#[test]
fn a_bomb_costs_no_more_than_a_body() {
    let runtime = runtime();
    let options = Options { max_body_size: 1000, max_msg_size: 100, ..Options::default() };
    runtime.block_on(async {
        let nsqd = Nsqd::start(options).await;
        let mut neighbour = Neighbour::new(&nsqd).await;
        for packing in [Packing::Snappy, Packing::Deflate] {
            let mut client = nsqd.connect().await;
            client.identify(packing.wants()).await;
            // Some kilobytes that become sixteen megabytes without an end of line.
            let packed = packing.pack(&vec![b'x'; 16 << 20]);
            exchange(client.0, &packed, usize::MAX).await;
            neighbour.is_undisturbed().await;
        }
        timeout(Duration::from_secs(20), nsqd.until(|it| it.len() == 2)).await.unwrap();
    });
}

#[test]
fn the_check_finds_what_is_wrong() {
    let frame = |kind: u32, data: &[u8]| {
        let size = u32::try_from(data.len() + 4).unwrap();
        [&size.to_be_bytes(), &kind.to_be_bytes(), data].concat()
    };
    let (ok, fatal) = (frame(0, b"OK"), frame(1, b"E_INVALID no"));
    for (said, count) in [
        (ok.clone(), Some(1)),
        ([ok.clone(), fatal.clone()].concat(), Some(2)),
        ([frame(1, b"E_FIN_FAILED no"), ok.clone()].concat(), Some(2)),
        ([fatal, ok.clone()].concat(), None),
        (frame(1, b"E_NEW no"), None),
        (frame(3, b"OK"), None),
        (ok[..7].to_vec(), None),
        (ok[..9].to_vec(), None),
    ] {
        assert_eq!(check(&said).ok(), count, "{said:?}");
    }
}
