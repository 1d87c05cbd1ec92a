//! Requests to the HTTP servers of all three programs, which stand beside each other as in a cluster:
//! an answer or an end, never a failure of the server's own, and always the original's words.

use std::{net::SocketAddr, time::Duration};

use coracle_queue::{
    Durability, admin,
    cli::{OneOf, nsqd::Options},
    lookupd,
    nsqd::{self, Running},
};
use proptest::{collection::vec, prelude::*};
use runtime::{Clock, Tasks};
use tokio::net::TcpStream;

use super::{change, exchange, exchange_after, hold, runtime};
use crate::client::SOON;

/// How long an answer of nsqadmin is waited for; half a request has none.
const PATIENCE: Duration = Duration::from_millis(50);

/// The words of the original's errors, and of ours for what it has not.
const WORDS: [&str; 34] = [
    "BAD_BODY",
    "BAD_MESSAGE",
    "BODY_TOO_BIG",
    "CHANNEL_NOT_FOUND",
    "FORBIDDEN",
    "INTERNAL_ERROR",
    "INVALID_ACTION",
    "INVALID_ARG_CHANNEL",
    "INVALID_ARG_METRIC",
    "INVALID_ARG_TARGET",
    "INVALID_ARG_TOPIC",
    "INVALID_BODY",
    "INVALID_CHANNEL",
    "INVALID_DEFER",
    "INVALID_OPTION",
    "INVALID_REQUEST",
    "INVALID_TOPIC",
    "INVALID_VALUE",
    "METHOD_NOT_ALLOWED",
    "MISSING_ARG_CHANNEL",
    "MISSING_ARG_NODE",
    "MISSING_ARG_TOPIC",
    "MSG_EMPTY",
    "MSG_TOO_BIG",
    "NODE_NOT_FOUND",
    "NOT_FOUND",
    "TOPIC_NOT_FOUND",
    "FOREIGN_ORIGIN",
    "INVALID_DEAD_LETTER",
    "INVALID_KEY",
    "INVALID_MAX_ATTEMPTS",
    "INVALID_ORDERED",
    "INVALID_START",
    "MISSING_ARG_START",
];

/// nsqlookupd, an nsqd that tells it of itself, and nsqadmin.
struct Cluster {
    nsqd: SocketAddr,
    lookupd: SocketAddr,
    admin: SocketAddr,
    tasks: Tasks,
    running: Running,
    _folder: tempfile::TempDir,
}

async fn cluster() -> Cluster {
    let (tasks, folder, clock) = (Tasks::default(), tempfile::tempdir().unwrap(), Clock::system());
    let here = || "127.0.0.1:0".to_owned();
    let config = lookupd::Config {
        tcp_address: here(),
        http_address: here(),
        ..lookupd::Config::new("127.0.0.1")
    };
    let lookupd = lookupd::build(config, clock.clone()).await.unwrap();
    let of_lookupd = lookupd.handle();
    lookupd.run(&tasks);
    let options = Options {
        tcp_address: here(),
        http_address: here(),
        broadcast_address: "127.0.0.1".to_owned(),
        data_path: folder.path().display().to_string(),
        durability: OneOf(Durability::Memory),
        lookupd_tcp_address: vec![of_lookupd.tcp_address().to_string()],
        ..Options::default()
    };
    let nsqd = nsqd::build(options, clock.clone()).await.unwrap();
    let of_nsqd = nsqd.http().and_then(|it| it.tcp_address()).unwrap();
    let running = nsqd.run(&tasks, |_| ());
    let config = admin::Config {
        http_address: here(),
        lookupd_http_addresses: vec![of_lookupd.http_address().to_string()],
        ..admin::Config::new("host")
    };
    let admin = admin::build(config, clock).await.unwrap();
    let of_admin = admin.handle().http_address();
    admin.run(&tasks);
    Cluster {
        nsqd: of_nsqd,
        lookupd: of_lookupd.http_address(),
        admin: of_admin,
        tasks,
        running,
        _folder: folder,
    }
}

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Nsqd,
    Lookupd,
    Admin,
}

impl Cluster {
    fn address(&self, whom: Whom) -> SocketAddr {
        match whom {
            Whom::Nsqd => self.nsqd,
            Whom::Lookupd => self.lookupd,
            Whom::Admin => self.admin,
        }
    }

    async fn answer(&self, whom: Whom, bytes: &[u8], piece: usize, patience: Duration) -> Vec<u8> {
        let stream = TcpStream::connect(self.address(whom)).await.unwrap();
        match whom {
            Whom::Nsqd | Whom::Lookupd => exchange(stream, bytes, piece).await,
            // Whose answers may have no end: it takes half an end for a whole one.
            Whom::Admin => exchange_after(stream, bytes, piece, patience).await,
        }
    }

    /// Others are answered as ever.
    async fn is_undisturbed(&self) {
        for whom in [Whom::Nsqd, Whom::Lookupd, Whom::Admin] {
            let ping = b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            let answer = self.answer(whom, ping, usize::MAX, SOON).await;
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(
                text.starts_with("HTTP/1.1 200 OK") && text.ends_with("OK"),
                "{whom:?}: {text}"
            );
        }
        let publish = b"POST /pub?topic=neighbour HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
        let answer = self.answer(Whom::Nsqd, publish, usize::MAX, SOON).await;
        assert!(answer.ends_with(b"\r\n\r\nOK"), "{}", String::from_utf8_lossy(&answer));
    }
}

/// What may be asked of each, method and path; and of anybody.
fn line(whom: Whom) -> impl Strategy<Value = String> {
    let right = match whom {
        Whom::Nsqd => {
            "GET /(ping|info|stats|metrics|config/(log_level|x)|debug/pprof/[a-z]{0,6})|POST /(pub|mpub|(topic|channel)/(create|delete|empty|pause|unpause)|channel/rewind)"
        }
        Whom::Lookupd => {
            "GET /(ping|info|debug|lookup|topics|channels|nodes)|POST /((topic|channel)/(create|delete)|topic/tombstone)"
        }
        Whom::Admin => {
            "GET /(ping|api/(topics(/t(/c)?)?|nodes(/[a-z0-9:.]{0,9})?|counter|graphite)|topics(/t(/c)?)?|nodes|counter|lookup|static/[a-z.]{0,9})|POST /(api/topics(/t(/c)?)?|topics/t)|DELETE /api/topics/t(/c)?"
        }
    };
    let wrong = "(GET|POST|PUT|DELETE|OPTIONS|HEAD|PATCH) /(ping|stats|pub|lookup|api/topics|[a-z/.%0-9]{0,12})";
    prop_oneof![6 => right, 1 => wrong]
}

/// A request that means something, as it is on the wire; it ends its connection.
fn request(whom: Whom) -> impl Strategy<Value = Vec<u8>> {
    let query = "(topic=[tu](&channel=[cd])?)?(&?(topic|channel|node|start|defer|key|binary|format|max_attempts|ordered|dead_letter|inactive|include_clients|metric|target)=([a-z0-9#%;+:-]{0,6}|t|c|true)){0,3}";
    let body = prop_oneof![
        vec(any::<u8>(), 0..60),
        r#"\{"(action|topic|channel)":"(pause|unpause|empty|delete|t|c|create|x)"(,"(topic|channel)":"[a-z#]{0,3}")?\}"#
            .prop_map(String::into_bytes),
        "(action|topic|channel|confirm)=[a-z%]{0,6}(&[a-z]{0,5}=[a-z]{0,5})?".prop_map(String::into_bytes),
    ];
    let headers = "((Origin|Sec-Fetch-Site|Content-Type|X-Forwarded-User|Expect|Cookie): [a-z/-]{0,12}\r\n){0,2}";
    (line(whom), query, headers, body).prop_map(|(line, query, headers, body)| {
        let head = format!(
            "{line}?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len(),
        );
        [head.as_bytes(), &body].concat()
    })
}

/// Checks the first answer, if there is one; its status. `whole` is whether all was said.
fn check(whom: Whom, whole: bool, answer: &[u8]) -> Result<Option<u16>, TestCaseError> {
    let text = String::from_utf8_lossy(answer);
    if text.is_empty() {
        return Ok(None);
    }
    let status = text.strip_prefix("HTTP/1.").and_then(|it| it.get(2..5)?.parse::<u16>().ok());
    let Some(status) = status else { return Err(TestCaseError::fail(text.into_owned())) };
    // nsqadmin tells what it was told by others; profiles are not built.
    let known = match whom {
        Whom::Admin => status < 500 || status == 502,
        Whom::Nsqd | Whom::Lookupd => status < 500 || status == 501,
    };
    // Half a body is the original's own failure, too.
    let half = !whole && text.ends_with("\r\n\r\n{\"message\":\"INTERNAL_ERROR\"}");
    prop_assert!(known || half, "{whom:?}: {text}");
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let Some(message) = body.strip_prefix("{\"message\":\"").and_then(|it| it.strip_suffix("\"}"))
    else {
        return Ok(Some(status));
    };
    let is_word = message.bytes().all(|it| it.is_ascii_uppercase() || it == b'_');
    let known = message.is_empty() || !is_word || message == "EOF" || WORDS.contains(&message);
    prop_assert!(known, "{whom:?}: {text}");
    Ok(Some(status))
}

#[test]
fn any_request_is_answered_in_the_words_of_the_original() {
    let runtime = runtime();
    let cluster = runtime.block_on(cluster());
    let whom = prop_oneof![
        2 => Just(Whom::Nsqd),
        1 => Just(Whom::Lookupd),
        1 => Just(Whom::Admin),
    ];
    let noise = || vec(any::<u8>(), 0..200);
    let asked = whom.prop_flat_map(move |whom| {
        let bytes = prop_oneof![
            6 => (request(whom), Just(Vec::new())),
            6 => (request(whom), vec(change(), 1..4)),
            1 => (noise(), Just(Vec::new())),
        ];
        (Just(whom), bytes)
    });
    let pieces = prop_oneof![Just(usize::MAX), 1..300_usize];
    let answered = std::cell::Cell::new(0_u32);
    hold(&(asked, pieces), |((whom, (mut bytes, changes)), piece)| {
        let whole = changes.is_empty();
        changes.iter().for_each(|it| it.apply(&mut bytes));
        runtime.block_on(async {
            let answer = cluster.answer(whom, &bytes, piece, PATIENCE).await;
            let status = check(whom, whole, &answer)?;
            if whole && status == Some(200) {
                answered.set(answered.get() + 1);
            }
            cluster.is_undisturbed().await;
            Ok(())
        })
    });
    assert!(answered.get() > 10, "only {} requests meant something", answered.get());
    runtime.block_on(async {
        assert!(cluster.tasks.shutdown(SOON).await);
        cluster.running.end().await.unwrap();
    });
}
