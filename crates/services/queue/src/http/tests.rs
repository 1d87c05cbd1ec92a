//! Asks the API as a client does, without a socket.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use http_body_util::{BodyExt as _, Full};
use proptest::prelude::*;

use super::*;
use crate::{
    Durability,
    broker::{self, Broker},
    disk::{Disk, Folders, simulated::Simulated},
    message::NodeId,
    name::Name,
    protocol::Clients,
    stats::Latencies,
    stats::{Exposition, Process, Wanted, Whole},
};

struct Nsqd {
    api: Api,
    table: Vec<Route<Resource>>,
    folder: tempfile::TempDir,
}

async fn nsqd(change: impl FnOnce(&mut Options)) -> Nsqd {
    // In memory: nothing waits for another thread, for which a paused clock does not wait.
    nsqd_on(Arc::new(Folders), Durability::Memory, change).await
}

async fn nsqd_on(
    disk: Arc<dyn Disk>,
    durability: Durability,
    change: impl FnOnce(&mut Options),
) -> Nsqd {
    let clock = Clock::following_tokio("2026-01-02T03:04:05Z".parse().unwrap());
    let mut options =
        Options { broadcast_address: "nsqd.example".to_owned(), ..Options::default() };
    options.node_id.0 = 7;
    change(&mut options);
    let node = NodeId::new(7).unwrap();
    let config = broker::Config { durability, ..broker::Config::new(node) };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let broker = Broker::open(config, disk, path, clock.clone(), Tasks::default());
    let broker = broker.await.unwrap();
    let latencies = Latencies::new(Vec::new(), Duration::from_secs(60));
    let api = Api::new(Config {
        source: Source { broker, clients: Clients::default(), latencies },
        options: watch::Sender::new(options),
        started: clock.now(),
        clock,
        hostname: "machine".to_owned(),
        tcp_port: Some(4150),
        http_port: Some(4151),
        https_port: Some(4152),
        bodies: Budget::new(100_000),
    });
    Nsqd { api, table: routes(), folder }
}

impl Nsqd {
    async fn ask(&self, method: &str, target: &str, body: &[u8]) -> (u16, String, String) {
        let body = Full::new(Bytes::copy_from_slice(body));
        let request = Request::builder().method(method).uri(target).body(body).unwrap();
        let peer = SocketAddr::from(([127, 0, 0, 1], 5));
        let answer = self.api.answer(&self.table, request, peer, Door::Plain).await;
        let (head, body) = answer.into_parts();
        let kind = head.headers.get("content-type").map_or("-", |it| it.to_str().unwrap());
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        (head.status.as_u16(), kind.to_owned(), text)
    }
}

/// Each line is method, target and body.
async fn check(nsqd: &Nsqd, asked: &[&str], expected: Expect) {
    let mut seen = String::new();
    for line in asked {
        let mut words = line.splitn(3, ' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let body = words.next().unwrap_or_default();
        let (status, _, text) = nsqd.ask(method, target, body.as_bytes()).await;
        let shown = line.replace(char::is_control, "~");
        let text = text.replace(&*nsqd.folder.path().to_string_lossy(), "FOLDER");
        writeln!(seen, "{shown}\n    {status} {text}").unwrap();
    }
    expected.assert_eq(&seen);
}

#[tokio::test(start_paused = true)]
async fn publishes() {
    let nsqd = nsqd(|it| it.max_msg_size.0 = 10).await;
    check(
        &nsqd,
        &[
            "POST /pub?topic=t hello",
            "POST /pub?topic=t&defer=1000 hello",
            "POST /pub?topic=t&key=a hello",
            "POST /pub?topic=t 12345678901",
            "POST /pub?topic=t",
            "POST /pub hello",
            "POST /pub?topic= hello",
            "POST /pub?topic=a/b hello",
            "POST /pub?topic=t&defer=x hello",
            "POST /pub?topic=t&defer=-1 hello",
            "POST /pub?topic=t&defer=3600001 hello",
            "POST /pub?topic=t&key= hello",
            "POST /pub?topic=%zz hello",
        ],
        expect![[r#"
            POST /pub?topic=t hello
                200 OK
            POST /pub?topic=t&defer=1000 hello
                200 OK
            POST /pub?topic=t&key=a hello
                200 OK
            POST /pub?topic=t 12345678901
                413 {"message":"MSG_TOO_BIG"}
            POST /pub?topic=t
                400 {"message":"MSG_EMPTY"}
            POST /pub hello
                400 {"message":"MISSING_ARG_TOPIC"}
            POST /pub?topic= hello
                400 {"message":"INVALID_TOPIC"}
            POST /pub?topic=a/b hello
                400 {"message":"INVALID_TOPIC"}
            POST /pub?topic=t&defer=x hello
                400 {"message":"INVALID_DEFER"}
            POST /pub?topic=t&defer=-1 hello
                400 {"message":"INVALID_DEFER"}
            POST /pub?topic=t&defer=3600001 hello
                400 {"message":"INVALID_DEFER"}
            POST /pub?topic=t&key= hello
                400 {"message":"INVALID_KEY"}
            POST /pub?topic=%zz hello
                400 {"message":"INVALID_REQUEST"}
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn publishes_many() {
    let nsqd = nsqd(|it| it.max_msg_size.0 = 10).await;
    check(
        &nsqd,
        &[
            "POST /mpub?topic=t one\ntwo\n\nthree\n",
            "POST /mpub?topic=t \n\n",
            "POST /mpub?topic=t one\n12345678901",
            "POST /mpub?topic=t&binary=true \0\0\0\u{1}\0\0\0\u{2}hi",
            "POST /mpub?topic=t&binary \0\0\0\u{1}\0\0\0\u{2}h",
            "POST /mpub?topic=t&binary=0 plain",
            "GET /stats?topic=t&format=json&include_mem=0",
        ],
        expect![[r#"
            POST /mpub?topic=t one~two~~three~
                200 OK
            POST /mpub?topic=t ~~
                200 OK
            POST /mpub?topic=t one~12345678901
                413 {"message":"MSG_TOO_BIG"}
            POST /mpub?topic=t&binary=true ~~~~~~~~hi
                200 OK
            POST /mpub?topic=t&binary ~~~~~~~~h
                413 {"message":"BAD_MESSAGE"}
            POST /mpub?topic=t&binary=0 plain
                200 OK
            GET /stats?topic=t&format=json&include_mem=0
                200 {"version":"1.3.0","health":"OK","start_time":1767323045,"topics":[{"topic_name":"t","channels":[],"depth":5,"backend_depth":5,"message_count":5,"message_bytes":18,"paused":false,"e2e_processing_latency":{"count":0,"percentiles":null},"first_sequence":1767323045000000,"next_sequence":1767323045000005,"file_bytes":64,"damaged_count":0}],"producers":null}
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn limits_a_body_of_many() {
    let nsqd = nsqd(|it| {
        it.max_msg_size.0 = 10;
        it.max_body_size.0 = 20;
    })
    .await;
    check(
        &nsqd,
        &["POST /mpub?topic=t 1234567890\n123456789", "POST /mpub?topic=t 1234567890\n1234567890"],
        expect![[r#"
            POST /mpub?topic=t 1234567890~123456789
                200 OK
            POST /mpub?topic=t 1234567890~1234567890
                413 {"message":"BODY_TOO_BIG"}
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn makes_topics_and_channels() {
    let nsqd = nsqd(|_| ()).await;
    check(
        &nsqd,
        &[
            "POST /topic/create?topic=t",
            "POST /topic/create?topic=!",
            "POST /topic/create",
            "POST /channel/create?topic=t&channel=c",
            "POST /channel/create?topic=t&channel=c",
            "POST /channel/create?topic=t",
            "POST /channel/create?topic=!&channel=c",
            "POST /channel/create?topic=t&channel=!",
            "POST /channel/create?topic=u&channel=c",
            "POST /topic/pause?topic=t",
            "POST /channel/pause?topic=t&channel=c",
            "GET /stats?format=json&include_mem=false&include_clients=0",
        ],
        expect![[r#"
            POST /topic/create?topic=t
                200 
            POST /topic/create?topic=!
                400 {"message":"INVALID_TOPIC"}
            POST /topic/create
                400 {"message":"MISSING_ARG_TOPIC"}
            POST /channel/create?topic=t&channel=c
                200 
            POST /channel/create?topic=t&channel=c
                200 
            POST /channel/create?topic=t
                400 {"message":"MISSING_ARG_CHANNEL"}
            POST /channel/create?topic=!&channel=c
                400 {"message":"INVALID_ARG_TOPIC"}
            POST /channel/create?topic=t&channel=!
                400 {"message":"INVALID_ARG_CHANNEL"}
            POST /channel/create?topic=u&channel=c
                404 {"message":"TOPIC_NOT_FOUND"}
            POST /topic/pause?topic=t
                200 
            POST /channel/pause?topic=t&channel=c
                200 
            GET /stats?format=json&include_mem=false&include_clients=0
                200 {"version":"1.3.0","health":"OK","start_time":1767323045,"topics":[{"topic_name":"t","channels":[{"channel_name":"c","depth":0,"backend_depth":0,"in_flight_count":0,"deferred_count":0,"message_count":0,"requeue_count":0,"timeout_count":0,"client_count":0,"clients":null,"paused":true,"e2e_processing_latency":{"count":0,"percentiles":null},"backlog":0,"first_unfinished_sequence":1767323045000000,"cursor_sequence":1767323045000000,"skipped_count":0}],"depth":0,"backend_depth":0,"message_count":0,"message_bytes":0,"paused":true,"e2e_processing_latency":{"count":0,"percentiles":null},"first_sequence":1767323045000000,"next_sequence":1767323045000000,"file_bytes":64,"damaged_count":0}],"producers":null}
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn unmakes_topics_and_channels() {
    let nsqd = nsqd(|_| ()).await;
    nsqd.ask("POST", "/topic/create?topic=t", b"").await;
    nsqd.ask("POST", "/channel/create?topic=t&channel=c", b"").await;
    check(
        &nsqd,
        &[
            "POST /topic/unpause?topic=t",
            "POST /channel/unpause?topic=t&channel=c",
            "POST /channel/empty?topic=t&channel=c",
            "POST /channel/empty?topic=t&channel=d",
            "POST /channel/delete?topic=t&channel=c",
            "POST /channel/delete?topic=t&channel=c",
            "POST /topic/empty?topic=t",
            "POST /topic/empty?topic=!",
            "POST /topic/pause?topic=!",
            "POST /topic/delete",
            "POST /topic/delete?topic=t",
            "POST /topic/delete?topic=t",
            "GET /stats?format=json&include_mem=false&topic=t",
        ],
        expect![[r#"
            POST /topic/unpause?topic=t
                200 
            POST /channel/unpause?topic=t&channel=c
                200 
            POST /channel/empty?topic=t&channel=c
                200 
            POST /channel/empty?topic=t&channel=d
                404 {"message":"CHANNEL_NOT_FOUND"}
            POST /channel/delete?topic=t&channel=c
                200 
            POST /channel/delete?topic=t&channel=c
                404 {"message":"CHANNEL_NOT_FOUND"}
            POST /topic/empty?topic=t
                200 
            POST /topic/empty?topic=!
                400 {"message":"INVALID_TOPIC"}
            POST /topic/pause?topic=!
                404 {"message":"TOPIC_NOT_FOUND"}
            POST /topic/delete
                400 {"message":"MISSING_ARG_TOPIC"}
            POST /topic/delete?topic=t
                200 
            POST /topic/delete?topic=t
                404 {"message":"TOPIC_NOT_FOUND"}
            GET /stats?format=json&include_mem=false&topic=t
                200 {"version":"1.3.0","health":"OK","start_time":1767323045,"topics":null,"producers":null}
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn channels_begin_where_asked() {
    let nsqd = nsqd(|_| ()).await;
    check(
        &nsqd,
        &[
            "POST /mpub?topic=t a\nb\nc",
            "POST /channel/create?topic=t&channel=old",
            "POST /channel/create?topic=t&channel=new&start=end",
            "POST /channel/create?topic=t&channel=all&start=beginning&max_attempts=3&dead_letter=d",
            "POST /channel/create?topic=t&channel=all",
            "POST /channel/create?topic=t&channel=all&max_attempts=4",
            "POST /channel/create?topic=t&channel=keyed&ordered=key&start=-10m",
            "POST /channel/create?topic=t&channel=x&start=whenever",
            "POST /channel/rewind?topic=t&channel=new&start=beginning",
            "POST /channel/rewind?topic=t&channel=new",
            "POST /channel/rewind?topic=t&channel=nope&start=end",
        ],
        expect![[r#"
            POST /mpub?topic=t a~b~c
                200 OK
            POST /channel/create?topic=t&channel=old
                200 
            POST /channel/create?topic=t&channel=new&start=end
                200 
            POST /channel/create?topic=t&channel=all&start=beginning&max_attempts=3&dead_letter=d
                200 
            POST /channel/create?topic=t&channel=all
                200 
            POST /channel/create?topic=t&channel=all&max_attempts=4
                409 {"message":"channel all exists with other options"}
            POST /channel/create?topic=t&channel=keyed&ordered=key&start=-10m
                200 
            POST /channel/create?topic=t&channel=x&start=whenever
                400 {"message":"INVALID_START"}
            POST /channel/rewind?topic=t&channel=new&start=beginning
                200 {"sequence":1767323045000000}
            POST /channel/rewind?topic=t&channel=new
                400 {"message":"MISSING_ARG_START"}
            POST /channel/rewind?topic=t&channel=nope&start=end
                404 {"message":"CHANNEL_NOT_FOUND"}
        "#]],
    )
    .await;
    let (_, _, stats) = nsqd.ask("GET", "/stats?format=json&topic=t&channel=all", b"").await;
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let channel = &stats["topics"][0]["channels"][0];
    assert_eq!((&channel["max_attempts"], &channel["dead_letter"]), (&3.into(), &"d".into()));
    assert_eq!(channel["ordered"], serde_json::Value::Null);
}

#[tokio::test(start_paused = true)]
async fn shows_itself() {
    let nsqd = nsqd(|_| ()).await;
    check(
        &nsqd,
        &[
            "GET /ping",
            "GET /info",
            "GET /stats?include_mem=0",
            "GET /stats?format=json&include_mem=0",
        ],
        expect![[r#"
            GET /ping
                200 OK
            GET /info
                200 {"version":"1.3.0","broadcast_address":"nsqd.example","hostname":"machine","http_port":4151,"tcp_port":4150,"start_time":1767323045,"max_heartbeat_interval":60000000000,"max_output_buffer_size":65536,"max_output_buffer_timeout":30000000000,"max_deflate_level":6,"topology_zone":"","topology_region":""}
            GET /stats?include_mem=0
                200 nsqd v1.3.0 (coracle 0.1.0)
            start_time 2026-01-02T03:04:05Z
            uptime 0s

            Health: OK

            Topics: None

            Producers: None

            GET /stats?format=json&include_mem=0
                200 {"version":"1.3.0","health":"OK","start_time":1767323045,"topics":[],"producers":null}
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn shows_and_changes_options() {
    let nsqd = nsqd(|_| ()).await;
    check(
        &nsqd,
        &[
            "GET /config/log_level",
            "GET /config/msg_timeout",
            "GET /config/http_address",
            "GET /config/nsqlookupd_tcp_addresses",
            "GET /config/durability",
            "GET /config/id",
            "GET /config/node_id",
            "PUT /config/log_level debug",
            "PUT /config/log_level chatty",
            "PUT /config/log_level",
            "PUT /config/nsqlookupd_tcp_addresses [\"a:1\",\"b:2\"]",
            "PUT /config/nsqlookupd_tcp_addresses a:1",
            "PUT /config/msg_timeout 1s",
            "GET /debug/pprof/heap",
            "POST /ping",
            "GET /",
        ],
        expect![[r#"
            GET /config/log_level
                200 2
            GET /config/msg_timeout
                200 60000000000
            GET /config/http_address
                200 0.0.0.0:4151
            GET /config/nsqlookupd_tcp_addresses
                200 []
            GET /config/durability
                200 disk
            GET /config/id
                200 7
            GET /config/node_id
                400 {"message":"INVALID_OPTION"}
            PUT /config/log_level debug
                200 1
            PUT /config/log_level chatty
                400 {"message":"INVALID_VALUE"}
            PUT /config/log_level
                413 {"message":"INVALID_VALUE"}
            PUT /config/nsqlookupd_tcp_addresses ["a:1","b:2"]
                200 ["a:1","b:2"]
            PUT /config/nsqlookupd_tcp_addresses a:1
                400 {"message":"INVALID_VALUE"}
            PUT /config/msg_timeout 1s
                400 {"message":"INVALID_OPTION"}
            GET /debug/pprof/heap
                501 there are no Go profiles here: this nsqd is not written in Go and collects no garbage; see /metrics for its memory and processor time, and profile it with perf

            POST /ping
                405 {"message":"METHOD_NOT_ALLOWED"}
            GET /
                404 {"message":"NOT_FOUND"}
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn sends_to_https_when_tls_is_required() {
    let nsqd = nsqd(|it| it.tls_required = TlsRequired::Yes).await;
    check(
        &nsqd,
        &["GET /ping"],
        expect![[r#"
        GET /ping
            403 {"message": "TLS_REQUIRED", "https_port": 4152}
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_full_disk_is_told() {
    let disk = Simulated::new(1);
    let nsqd = nsqd_on(disk.arc(), Durability::Disk, |_| ()).await;
    nsqd.ask("POST", "/pub?topic=t", b"there is room").await;
    disk.leave_room(Some(0));
    check(
        &nsqd,
        &["POST /pub?topic=t hello", "GET /ping"],
        expect![[r#"
            POST /pub?topic=t hello
                503 {"message":"no room on the disk of FOLDER/topics/t.topic: free some, or let finished messages go sooner (-retention-size, -retention-age); then it goes on by itself: 0 bytes are free, 33554432 are kept for other uses"}
            GET /ping
                500 NOK - topic t: no room on the disk of FOLDER/topics/t.topic: free some, or let finished messages go sooner (-retention-size, -retention-age); then it goes on by itself: 0 bytes are free, 33554432 are kept for other uses
        "#]],
    )
    .await;
    disk.leave_room(None);
    check(
        &nsqd,
        &["GET /ping", "POST /pub?topic=t hello", "GET /ping"],
        expect![[r#"
            GET /ping
                200 OK
            POST /pub?topic=t hello
                200 OK
            GET /ping
                200 OK
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn large_bodies_wait_for_memory() {
    let nsqd = nsqd(|_| ()).await;
    let bodies = nsqd.api.0.bodies.clone();
    let held = bodies.reserve(usize::MAX).await;
    let large = vec![b'x'; 50_000];
    let waiting = nsqd.ask("POST", "/pub?topic=t", &large);
    assert!(timeout(Duration::from_hours(1), waiting).await.is_err());
    assert_eq!(nsqd.ask("POST", "/pub?topic=t", b"small").await.0, 200);
    drop(held);
    assert_eq!(nsqd.ask("POST", "/pub?topic=t", &large).await.0, 200);
    assert_eq!(nsqd.ask("POST", "/mpub?topic=t", &large).await.0, 200);
    assert_eq!(bodies.in_use(), 0);
}

proptest! {
    /// Whatever is asked, there is an answer, and it is none of the server's own failures.
    #[test]
    fn any_request_is_answered(
        method in "GET|POST|PUT|DELETE|OPTIONS|HEAD",
        path in "/(ping|info|stats|metrics|pub|mpub|(topic|channel)/(create|delete|empty|pause|rewind)|config/[a-z_]{0,9}|debug/pprof/x|[a-z/.%]{0,9})",
        query in "(&?(topic|channel|start|defer|key|binary|format|max_attempts|ordered)=([a-z0-9#%;+-]{0,6}|t|c)){0,4}",
        body in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let Ok(uri) = format!("{path}?{query}").parse::<http::Uri>() else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(async {
            let nsqd = nsqd(|_| ()).await;
            nsqd.ask("POST", "/topic/create?topic=t", b"").await;
            nsqd.ask(&method, &uri.to_string(), &body).await.0
        });
        prop_assert!(status < 500 || status == 501, "{method} {uri}: {status}");
    }
}

/// Without the figures of the process, which differ each time.
async fn metrics(nsqd: &Nsqd) -> String {
    let (status, kind, page) = nsqd.ask("GET", "/metrics", b"").await;
    assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    page
}

#[tokio::test(start_paused = true)]
async fn tells_prometheus() {
    let nsqd = nsqd(|_| ()).await;
    nsqd.ask("POST", "/topic/create?topic=t", b"").await;
    nsqd.ask("POST", "/channel/create?topic=t&channel=c", b"").await;
    let page = metrics(&nsqd).await;
    let figures = page.lines().filter(|it| it.starts_with("nsq_") && !it.contains("_sequence"));
    expect![[r#"
        nsq_info{version="1.3.0",coracle="0.1.0"} 1
        nsq_healthy 1
        nsq_clients 0
        nsq_topics 1
        nsq_channels 1
        nsq_topic_depth{topic="t"} 0
        nsq_topic_messages_total{topic="t"} 0
        nsq_topic_bytes_total{topic="t"} 0
        nsq_topic_paused{topic="t"} 0
        nsq_topic_file_bytes{topic="t"} 64
        nsq_topic_damaged_messages{topic="t"} 0
        nsq_channel_backlog{topic="t",channel="c"} 0
        nsq_channel_depth{topic="t",channel="c"} 0
        nsq_channel_backend_depth{topic="t",channel="c"} 0
        nsq_channel_in_flight{topic="t",channel="c"} 0
        nsq_channel_deferred{topic="t",channel="c"} 0
        nsq_channel_consumers{topic="t",channel="c"} 0
        nsq_channel_paused{topic="t",channel="c"} 0
        nsq_channel_messages_total{topic="t",channel="c"} 0
        nsq_channel_requeued_total{topic="t",channel="c"} 0
        nsq_channel_timed_out_total{topic="t",channel="c"} 0
        nsq_channel_skipped_total{topic="t",channel="c"} 0"#]]
    .assert_eq(&figures.collect::<Vec<_>>().join("\n"));
}

/// Piece by piece: a figure's lines stay together, none is cut, and each is told once.
#[tokio::test(start_paused = true)]
async fn tells_prometheus_of_many_channels() {
    const COUNT: usize = 1_000;
    let nsqd = nsqd(|_| ()).await;
    nsqd.ask("POST", "/topic/create?topic=t", b"").await;
    let topic = nsqd.api.0.source.broker.existing_topic(&Name::parse("t").unwrap()).unwrap();
    for it in 0..COUNT {
        topic.channel(&Name::parse(&format!("c{it}")).unwrap()).unwrap();
    }
    let page = metrics(&nsqd).await;
    assert!(page.len() > 500_000 && page.ends_with('\n'), "{} bytes", page.len());
    let names = page.lines().filter(|it| !it.starts_with('#'));
    let mut names: Vec<_> = names.map(|it| it.split(['{', ' ']).next().unwrap()).collect();
    let depths = names.iter().filter(|it| **it == "nsq_channel_depth").count();
    assert_eq!(depths, COUNT);
    names.dedup();
    let figures = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(figures, names.len(), "a figure is in two groups");
    let process = Process::now();
    let whole = Whole { healthy: true, clients: 0, started_seconds: 0, process };
    let source = nsqd.api.0.source.clone();
    let mut page = Exposition::new(whole, source, Wanted::default());
    let pieces: Vec<_> = std::iter::from_fn(|| page.next_piece()).map(|it| it.len()).collect();
    assert!(pieces.iter().all(|it| *it < 40_000) && pieces.len() > 10, "{pieces:?}");
    let (_, _, one) = nsqd.ask("GET", "/metrics?topic=t&channel=c7", b"").await;
    assert_eq!(one.matches("channel=\"").count(), 12, "{one}");
    let (_, _, none) = nsqd.ask("GET", "/metrics?topic=nobody", b"").await;
    assert!(none.contains("\nnsq_topics 0\n"), "{none}");
}

#[tokio::test(start_paused = true)]
async fn every_metric_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/queue-metrics.md");
    let docs = std::fs::read_to_string(path).unwrap();
    let page = metrics(&nsqd(|_| ()).await).await;
    let names = page.lines().filter_map(|it| it.strip_prefix("# TYPE ")?.split(' ').next());
    let missing: Vec<_> = names.filter(|it| !docs.contains(&format!("`{it}`"))).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
