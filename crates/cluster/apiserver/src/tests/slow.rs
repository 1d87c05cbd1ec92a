//! Clients over real sockets that read or write slowly, or not at all: how each is ended, and that
//! others do not notice.
//!
//! Time stands still but where a test moves it, so that what takes a minute is seen at once.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use runtime::Clock;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::Instant,
};
use tokio_rustls::client::TlsStream;

use super::{
    Api,
    https::{admin, connect, secure},
};
use crate::{
    Config,
    limits::{
        BODY_BYTES_MAX, CUT_TIME_MAX, DRAIN_TIME_MAX, HANDSHAKE_TIME_MAX, HEAD_TIME_MAX,
        IDLE_TIME_MAX, REQUEST_TIME_MAX, UNTAKEN_TIME_MAX, WATCHES_MAX,
    },
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A wait for something that the server does at once.
const SOON: Duration = Duration::from_secs(20);

/// Bytes of a large ConfigMap's value; some fill what the kernel and the connection keep.
const LARGE: usize = 200 * 1024;

/// More events than kernel, TLS and HTTP together keep for a client.
const EVENTS: usize = 16;

/// A server whose kernel keeps few bytes for a client that does not read.
async fn serve() -> (Api, u16) {
    serve_with(|_| ()).await
}

async fn serve_with(change: impl FnOnce(&mut Config)) -> (Api, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(16 * 1024).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1_024).unwrap().into_std().unwrap();
    let port = listener.local_addr().unwrap().port();
    let api = Api::with_config(|config| {
        config.clock = Clock::system();
        change(config);
    })
    .await;
    api.server.serve(listener, &api.tasks);
    (api, port)
}

/// Moves the time, and lets the server see it.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
}

/// Waits until `holds`.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn watches(api: &Api) -> usize {
    WATCHES_MAX - api.registry().watches.available_permits()
}

/// Changes one ConfigMap `EVENTS` times.
async fn change(api: &Api) {
    let value = "x".repeat(LARGE);
    for index in 0..EVENTS {
        let body = format!(r#"{{"data":{{"index":"{index}","value":"{value}"}}}}"#);
        api.value(&format!("PUT {MAPS}/large"), &body).await;
    }
}

/// Lets everybody's tasks run, until all that can be written is written.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// A connection that takes few bytes before it is read from.
async fn narrow(api: &Api, port: u16) -> TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    secure(api, stream, admin(api)).await
}

async fn status_line(stream: &mut TlsStream<TcpStream>) -> String {
    let mut line = vec![0; 12];
    tokio::time::timeout(SOON, stream.read_exact(&mut line)).await.unwrap().unwrap();
    String::from_utf8(line).unwrap()
}

/// One request of somebody else, who gets an answer at once.
async fn somebody_else(api: &Api, port: u16) {
    let mut stream = connect(api, port, admin(api)).await;
    let request = format!("GET {MAPS} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status_line(&mut stream).await, "HTTP/1.1 200");
}

/// Whether the other end closes the connection.
async fn is_closed(mut stream: impl tokio::io::AsyncRead + Unpin) -> bool {
    let mut all = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut all)).await.is_ok()
}

#[tokio::test]
async fn a_watch_that_is_never_read_is_ended() {
    let (api, port) = serve().await;
    let from = api.config_map("large", "").await["metadata"]["resourceVersion"].clone();
    let from = from.as_str().unwrap();
    let request = format!(
        "GET {MAPS}?watch=1&resourceVersion={from}&timeoutSeconds=600 HTTP/1.1\r\nhost: x\r\n\r\n"
    );
    let mut stalled = narrow(&api, port).await;
    stalled.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status_line(&mut stalled).await, "HTTP/1.1 200");
    assert_eq!(watches(&api), 1);
    change(&api).await;
    settle().await;
    // Not yet: clients may be slow.
    later(UNTAKEN_TIME_MAX / 2).await;
    assert_eq!(watches(&api), 1);
    somebody_else(&api, port).await;
    later(UNTAKEN_TIME_MAX / 2 + CUT_TIME_MAX).await;
    until("the watch is ended", || watches(&api) == 0).await;
    assert!(is_closed(stalled).await);
    somebody_else(&api, port).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_who_does_not_read() {
    let (api, port) = serve().await;
    let from = api.config_map("large", "").await["metadata"]["resourceVersion"].clone();
    let path = format!("{MAPS}?watch=1&resourceVersion={}", from.as_str().unwrap());
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut stalled = narrow(&api, port).await;
    stalled.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status_line(&mut stalled).await, "HTTP/1.1 200");
    change(&api).await;
    settle().await;
    // Sooner than any answer would be given up.
    assert!(api.tasks.shutdown(DRAIN_TIME_MAX / 2).await);
    drop(stalled);
}

async fn h2_watch(client: &mut http2::SendRequest<Empty<Bytes>>, from: &str) -> Incoming {
    let path = format!(
        "https://x{MAPS}?watch=1&resourceVersion={from}&timeoutSeconds=600&allowWatchBookmarks=1"
    );
    let request = Request::get(path.parse::<Uri>().unwrap()).body(Empty::new()).unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

#[tokio::test]
async fn a_stream_that_is_never_read_is_cut_off_alone() {
    const WINDOW: u32 = 64 * 1024;
    let (api, port) = serve().await;
    let from = api.config_map("large", "").await["metadata"]["resourceVersion"].clone();
    let from = from.as_str().unwrap();
    let io = TokioIo::new(connect(&api, port, admin(&api)).await);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW * 16);
    let (mut client, connection) = builder.handshake(io).await.unwrap();
    api.tasks.spawn("client", runtime::OnExit::Log, |_| async { Ok(connection.await?) });
    let mut stalled = h2_watch(&mut client, from).await;
    let mut read = h2_watch(&mut client, from).await;
    assert_eq!(watches(&api), 2);
    // Everything comes to the one that reads, though the other does not.
    let reading = async {
        let mut bytes = 0;
        while bytes < EVENTS * LARGE {
            let frame = tokio::time::timeout(SOON, read.frame()).await.unwrap().unwrap().unwrap();
            bytes += frame.into_data().unwrap().len();
        }
    };
    tokio::join!(change(&api), reading);
    settle().await;
    later(UNTAKEN_TIME_MAX + CUT_TIME_MAX).await;
    until("the stream is cut off", || watches(&api) == 1).await;
    let end = async {
        while let Some(frame) = stalled.frame().await {
            frame?;
        }
        Ok::<_, hyper::Error>(())
    };
    let end = tokio::time::timeout(SOON, end).await.unwrap();
    assert!(end.is_err(), "reset, as the body is not whole");
    // The connection goes on, with its other watch and new requests.
    later(2 * CUT_TIME_MAX).await;
    api.config_map("new", "").await;
    let seen = async {
        loop {
            let frame = read.frame().await.unwrap().unwrap().into_data().unwrap();
            if std::str::from_utf8(&frame).unwrap().contains(r#""name":"new""#) {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, seen).await.unwrap();
    drop(h2_watch(&mut client, from).await);
}

#[tokio::test]
async fn an_answer_that_is_never_read_is_ended() {
    let (api, port) = serve().await;
    api.config_map("large", "").await;
    change(&api).await;
    let names: Vec<String> = (0..8).map(|it| format!("large{it}")).collect();
    let value = "x".repeat(LARGE);
    for name in &names {
        let body = format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"v":"{value}"}}}}"#);
        api.value(&format!("POST {MAPS}"), &body).await;
    }
    let mut stalled = narrow(&api, port).await;
    let request = format!("GET {MAPS} HTTP/1.1\r\nhost: x\r\n\r\n");
    stalled.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status_line(&mut stalled).await, "HTTP/1.1 200");
    settle().await;
    later(UNTAKEN_TIME_MAX + CUT_TIME_MAX).await;
    let mut rest = Vec::new();
    let whole = tokio::time::timeout(SOON, stalled.read_to_end(&mut rest)).await.unwrap();
    assert!(whole.is_err() || rest.len() < names.len() * LARGE, "the answer is cut off");
    somebody_else(&api, port).await;
}

#[tokio::test]
async fn heads_that_come_slowly_or_never() {
    let (api, port) = serve().await;
    // No TLS, TLS and then nothing, half a head, and one that has had an answer.
    let silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mute = connect(&api, port, admin(&api)).await;
    let mut half = connect(&api, port, admin(&api)).await;
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.unwrap();
    let mut served = connect(&api, port, admin(&api)).await;
    served.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(status_line(&mut served).await, "HTTP/1.1 200");
    settle().await;
    later(HANDSHAKE_TIME_MAX).await;
    assert!(is_closed(silent).await);
    // A byte now and then gives no more time.
    later(HEAD_TIME_MAX / 2).await;
    half.write_all(b" ").await.unwrap();
    somebody_else(&api, port).await;
    later(HEAD_TIME_MAX.max(IDLE_TIME_MAX)).await;
    assert!(is_closed(half).await);
    assert!(is_closed(served).await);
    assert!(is_closed(mute).await);
    somebody_else(&api, port).await;
}

#[tokio::test]
async fn bodies_that_come_slowly_or_are_too_large() {
    let (api, port) = serve().await;
    let head = |bytes: usize| {
        format!(
            "POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {bytes}\r\n\r\n"
        )
    };
    let mut slow = connect(&api, port, admin(&api)).await;
    slow.write_all(head(100).as_bytes()).await.unwrap();
    slow.write_all(b"{").await.unwrap();
    settle().await;
    later(REQUEST_TIME_MAX / 2).await;
    slow.write_all(b"\"").await.unwrap();
    somebody_else(&api, port).await;
    later(REQUEST_TIME_MAX / 2).await;
    assert_eq!(status_line(&mut slow).await, "HTTP/1.1 504");
    let mut large = connect(&api, port, admin(&api)).await;
    let bytes = BODY_BYTES_MAX + 1;
    large.write_all(head(bytes).as_bytes()).await.unwrap();
    large.write_all(&vec![b' '; bytes]).await.unwrap();
    assert_eq!(status_line(&mut large).await, "HTTP/1.1 413");
}

/// How many connections: `CONNECTIONS=9500` for a soak, whose both ends must not be more than files may
/// be open.
#[expect(clippy::disallowed_methods, reason = "how many dice a test throws is asked from outside")]
fn connections() -> usize {
    std::env::var("CONNECTIONS").map_or(100, |it| it.parse().unwrap())
}

/// Memory of this process, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[tokio::test]
async fn idle_connections_cost_little_and_are_closed() {
    let count = connections();
    let (api, port) = serve().await;
    somebody_else(&api, port).await;
    let before = resident();
    let mut idle = Vec::new();
    for _ in 0..count {
        let mut stream = connect(&api, port, admin(&api)).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(status_line(&mut stream).await, "HTTP/1.1 200");
        idle.push(stream);
    }
    let each = (resident().saturating_sub(before)) / count;
    println!("{count} idle connections, {each} bytes each for both ends");
    // Few of them weigh less than what other tests of this process do meanwhile.
    assert!(count < 1_000 || each < 200 * 1024, "{each} bytes each");
    let start = Instant::now();
    somebody_else(&api, port).await;
    println!("somebody else was answered after {:?}", start.elapsed());
    later(IDLE_TIME_MAX.max(HEAD_TIME_MAX)).await;
    for stream in idle {
        assert!(is_closed(stream).await);
    }
}

#[tokio::test]
async fn one_connection_too_many_waits_for_another_to_end() {
    let (api, port) = serve_with(|config| config.connections_max = 2).await;
    let idle = connect(&api, port, admin(&api)).await;
    let closed = connect(&api, port, admin(&api)).await;
    let next = somebody_else(&api, port);
    tokio::pin!(next);
    let waited = tokio::time::timeout(Duration::from_millis(100), next.as_mut()).await;
    assert!(waited.is_err(), "is not let in");
    drop(closed);
    tokio::time::timeout(SOON, next).await.unwrap();
    // Who asks nothing does not keep others out for long.
    let other = connect(&api, port, admin(&api)).await;
    settle().await;
    later(IDLE_TIME_MAX).await;
    tokio::time::timeout(SOON, somebody_else(&api, port)).await.unwrap();
    assert!(is_closed(idle).await);
    assert!(is_closed(other).await);
}
