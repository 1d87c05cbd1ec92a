//! Tests over real sockets: a producer's connection and a consumer's questions.

use ::http::Method;
use bytes::Bytes;
use expect_test::{Expect, expect};
use runtime::Tasks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::web::{Client, ClientError};

const CLIENT: Client =
    Client { connect: Duration::from_secs(5), request: Duration::from_secs(5), tls: None };

struct Running {
    handle: Handle,
    tasks: Tasks,
}

async fn start(found: Option<watch::Receiver<Vec<Found>>>) -> Running {
    let mut config = Config::new("host");
    config.tcp_address = "127.0.0.1:0".to_owned();
    config.http_address = "127.0.0.1:0".to_owned();
    config.found = found;
    let lookupd = build(config, Clock::system()).await.unwrap();
    let (handle, tasks) = (lookupd.handle(), Tasks::default());
    lookupd.run(&tasks);
    Running { handle, tasks }
}

impl Running {
    async fn ask(&self, method: Method, path: &str) -> String {
        let address = self.handle.http_address().to_string();
        match CLIENT.ask(method, &address, path, Bytes::new()).await {
            Ok(body) => String::from_utf8(body.to_vec()).unwrap(),
            Err(ClientError::Refused { status, body }) => format!("{} {body}", status.as_u16()),
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn producer(&self) -> Producer {
        let mut socket = TcpStream::connect(self.handle.tcp_address()).await.unwrap();
        socket.write_all(b"  V1").await.unwrap();
        Producer(socket)
    }

    async fn stop(self) {
        assert!(self.tasks.shutdown(Duration::from_secs(5)).await);
    }
}

struct Producer(TcpStream);

impl Producer {
    async fn say(&mut self, bytes: &[u8]) -> String {
        self.0.write_all(bytes).await.unwrap();
        let length = self.0.read_i32().await.unwrap();
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn identify(&mut self) {
        let body = br#"{"broadcast_address":"a","hostname":"h","tcp_port":4150,"http_port":4151,"version":"1.3.0"}"#;
        let mut command = b"IDENTIFY\n".to_vec();
        command.extend_from_slice(&i32::try_from(body.len()).unwrap().to_be_bytes());
        command.extend_from_slice(body);
        assert!(self.say(&command).await.contains("\"hostname\":\"host\""));
    }

    async fn closed(mut self) -> bool {
        self.0.read_u8().await.is_err()
    }
}

async fn check(running: &Running, method: Method, path: &str, expected: Expect) {
    expected.assert_eq(&running.ask(method, path).await);
}

#[tokio::test]
async fn a_consumer_finds_a_producer_and_loses_it() {
    let running = start(None).await;
    let mut producer = running.producer().await;
    producer.identify().await;
    assert_eq!(producer.say(b"REGISTER t c\n").await, "OK");
    let port = producer.0.local_addr().unwrap().port();
    let found = running.ask(Method::GET, "/lookup?topic=t").await;
    expect![[r#"{"channels":["c"],"producers":[{"remote_address":"127.0.0.1:PORT","hostname":"h","broadcast_address":"a","tcp_port":4150,"http_port":4151,"version":"1.3.0","topology_zone":"","topology_region":""}]}"#]]
        .assert_eq(&found.replace(&port.to_string(), "PORT"));
    let nodes = running.ask(Method::GET, "/nodes").await;
    assert!(
        nodes.ends_with(r#""topology_region":"","tombstones":[false],"topics":["t"]}]}"#),
        "{nodes}"
    );
    drop(producer);
    // The end of the connection is noticed soon, but not at once.
    let found = until(&running, "/lookup?topic=t", |it| it.ends_with(":[]}")).await;
    assert_eq!(found, r#"{"channels":["c"],"producers":[]}"#);
    running.stop().await;
}

#[tokio::test]
async fn every_path_answers_as_the_original() {
    let it = start(None).await;
    check(&it, Method::GET, "/ping", expect!["OK"]).await;
    check(&it, Method::GET, "/info", expect![[r#"{"version":"1.3.0"}"#]]).await;
    check(&it, Method::GET, "/topics", expect![[r#"{"topics":[]}"#]]).await;
    check(&it, Method::GET, "/nodes", expect![[r#"{"producers":[]}"#]]).await;
    check(&it, Method::GET, "/debug", expect!["{}"]).await;
    check(&it, Method::GET, "/lookup", expect![[r#"400 {"message":"MISSING_ARG_TOPIC"}"#]]).await;
    let not_found = expect![[r#"404 {"message":"TOPIC_NOT_FOUND"}"#]];
    check(&it, Method::GET, "/lookup?topic=t", not_found).await;
    check(&it, Method::GET, "/lookup?topic=%zz", expect![[r#"400 {"message":"INVALID_REQUEST"}"#]])
        .await;
    check(&it, Method::GET, "/channels?topic=t", expect![[r#"{"channels":[]}"#]]).await;
    check(&it, Method::POST, "/topic/create?topic=t", expect![""]).await;
    let invalid = expect![[r#"400 {"message":"INVALID_ARG_TOPIC"}"#]];
    check(&it, Method::POST, "/topic/create?topic=t!", invalid).await;
    check(&it, Method::GET, "/topics", expect![[r#"{"topics":["t"]}"#]]).await;
    let missing = expect![[r#"400 {"message":"MISSING_ARG_CHANNEL"}"#]];
    check(&it, Method::POST, "/channel/create?topic=t", missing).await;
    let invalid = expect![[r#"400 {"message":"INVALID_ARG_CHANNEL"}"#]];
    check(&it, Method::POST, "/channel/create?topic=t&channel=", invalid).await;
    check(&it, Method::POST, "/channel/create?topic=u&channel=c%23ephemeral", expect![""]).await;
    let found = expect![[r#"{"channels":["c#ephemeral"],"producers":[]}"#]];
    check(&it, Method::GET, "/lookup?topic=u", found).await;
    let unknown = expect![[r#"404 {"message":"CHANNEL_NOT_FOUND"}"#]];
    check(&it, Method::POST, "/channel/delete?topic=u&channel=d", unknown).await;
    check(&it, Method::POST, "/channel/delete?topic=u&channel=c%23ephemeral", expect![""]).await;
    check(&it, Method::POST, "/topic/delete?topic=u", expect![""]).await;
    check(&it, Method::POST, "/topic/delete?topic=never", expect![""]).await;
    let missing = expect![[r#"400 {"message":"MISSING_ARG_NODE"}"#]];
    check(&it, Method::POST, "/topic/tombstone?topic=t", missing).await;
    check(&it, Method::POST, "/topic/tombstone?topic=t&node=a:1", expect![""]).await;
    check(
        &it,
        Method::GET,
        "/topic/create?topic=t",
        expect![[r#"405 {"message":"METHOD_NOT_ALLOWED"}"#]],
    )
    .await;
    check(&it, Method::GET, "/elsewhere", expect![[r#"404 {"message":"NOT_FOUND"}"#]]).await;
    check(&it, Method::GET, "/topics", expect![[r#"{"topics":["t"]}"#]]).await;
    it.stop().await;
}

#[tokio::test]
async fn bad_bytes_close_one_connection_only() {
    let running = start(None).await;
    let mut good = running.producer().await;
    good.identify().await;

    let mut other = TcpStream::connect(running.handle.tcp_address()).await.unwrap();
    other.write_all(b"  V2").await.unwrap();
    let mut other = Producer(other);
    assert_eq!(other.say(b"").await, "E_BAD_PROTOCOL");
    assert!(other.closed().await);

    for (bytes, answer) in [
        (&b"NONSENSE\n"[..], "E_INVALID invalid command NONSENSE"),
        (b"IDENTIFY\n\xff\xff\xff\xff", "E_BAD_BODY IDENTIFY failed to read body"),
        (b"IDENTIFY\n\x7f\xff\xff\xff", "E_BAD_BODY IDENTIFY failed to read body"),
        (b"IDENTIFY\n\x00\x00\x00\x02{}", "E_BAD_BODY IDENTIFY missing fields"),
    ] {
        let mut bad = running.producer().await;
        assert_eq!(bad.say(bytes).await, answer);
        assert!(bad.closed().await, "{answer}");
    }
    let mut endless = running.producer().await;
    let endless_line = vec![b'x'; 100_000];
    // The other side may close before all is sent.
    let sent = endless.0.write_all(&endless_line).await;
    assert!(sent.is_err() || endless.closed().await);

    assert_eq!(good.say(b"PING\n").await, "OK");
    running.stop().await;
}

/// An nsqd with the topic `t` and its channel `c`, and the port of its HTTP, `port` if not 0.
async fn nsqd(port: u16, tasks: &Tasks) -> u16 {
    let nsqd = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let http_port = nsqd.local_addr().unwrap().port();
    let how = Serve { name: "nsqd", clients_max: 8, answers_half_closed: true };
    web::serve(nsqd, how, tasks, |request, _| async move {
        let answer = match request.uri().path() {
            "/info" => r#"{"version":"1.3.0","hostname":"h","tcp_port":4150}"#,
            _ => {
                r#"{"topics":[{"topic_name":"t","channels":[{"channel_name":"c"}]},{"topic_name":"no good"}]}"#
            }
        };
        web::v1(Ok(web::Reply::Json(answer.to_owned())))
    });
    http_port
}

/// At a port of this machine.
fn found(tcp_port: u16, http_port: u16) -> Found {
    Found { address: "127.0.0.1".to_owned(), tcp_port, http_port }
}

#[tokio::test]
async fn one_that_was_found_is_asked_for_its_topics() {
    let tasks = Tasks::default();
    let http_port = nsqd(0, &tasks).await;
    let (tell, receiver) = watch::channel(Vec::new());
    let running = start(Some(receiver)).await;
    tell.send(vec![found(4150, http_port)]).unwrap();
    let known = until(&running, "/lookup?topic=t", |it| it.contains("4150")).await;
    expect![[r#"{"channels":["c"],"producers":[{"remote_address":"127.0.0.1:PORT","hostname":"h","broadcast_address":"127.0.0.1","tcp_port":4150,"http_port":PORT,"version":"1.3.0","topology_zone":"","topology_region":""}]}"#]]
        .assert_eq(&known.replace(&http_port.to_string(), "PORT"));
    tell.send(Vec::new()).unwrap();
    let known = until(&running, "/lookup?topic=t", |it| !it.contains("4150")).await;
    assert_eq!(known, r#"{"channels":["c"],"producers":[]}"#);
    running.stop().await;
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn one_that_is_silent_delays_no_other() {
    let tasks = Tasks::default();
    let http_port = nsqd(0, &tasks).await;
    // They take connections and never say anything.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let mut all: Vec<Found> = (1..=20).map(|it| found(it, silent_port)).collect();
    all.extend([found(4150, http_port), found(5150, http_port)]);
    let (tell, receiver) = watch::channel(all.clone());
    let running = start(Some(receiver)).await;
    until(&running, "/lookup?topic=t", |it| it.contains("4150") && it.contains("5150")).await;
    // In the middle of the questions one goes. It takes much less than a question may.
    let started = Instant::now();
    all.pop();
    tell.send(all).unwrap();
    until(&running, "/lookup?topic=t", |it| it.contains("4150") && !it.contains("5150")).await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    // Whoever told is gone: what was known stays.
    drop(tell);
    let left = running.ask(Method::GET, "/nodes").await;
    assert!(left.contains("4150"), "{left}");
    running.stop().await;
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn one_that_no_longer_answers_is_left_out_until_it_does() {
    let of_nsqd = Tasks::default();
    let http_port = nsqd(0, &of_nsqd).await;
    let running = start(None).await;
    let (_tell, receiver) = watch::channel(vec![found(4150, http_port)]);
    let shared = Arc::clone(&running.handle.shared);
    let pace = found::Pace { every: Duration::from_millis(20), ..found::Pace::default() };
    running.tasks.spawn("found", OnExit::StopProcess, move |stop| async move {
        stop.run_until_cancelled(found::watch(receiver, pace, &shared)).await;
        Ok(())
    });
    until(&running, "/nodes", |it| it.contains("4150")).await;
    assert!(of_nsqd.shutdown(Duration::from_secs(5)).await);
    until(&running, "/nodes", |it| !it.contains("4150")).await;
    let topics = running.ask(Method::GET, "/lookup?topic=t").await;
    assert_eq!(topics, r#"{"channels":["c"],"producers":[]}"#);
    let of_nsqd = Tasks::default();
    nsqd(http_port, &of_nsqd).await;
    until(&running, "/lookup?topic=t", |it| it.contains("4150")).await;
    running.stop().await;
    assert!(of_nsqd.shutdown(Duration::from_secs(5)).await);
}

/// Asks until the answer is `wanted`, for ten seconds.
async fn until(running: &Running, path: &str, wanted: impl Fn(&str) -> bool) -> String {
    for _ in 0..1_000 {
        let answer = running.ask(Method::GET, path).await;
        if wanted(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("`{path}` never became what was waited for");
}
