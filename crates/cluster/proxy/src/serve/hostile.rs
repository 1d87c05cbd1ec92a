//! Requests that mean different things to different readers, or are too much: each is refused, or passed
//! on with one meaning only.

use std::time::Duration;

use expect_test::{Expect, expect};
use runtime::Tasks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    limits::{HEAD_BYTES_MAX, HEAD_TIME_MAX, HEADERS_MAX, TARGET_BYTES_MAX},
    table::{Protocol, Table},
    testing::{Endpoint, Setup},
};

/// Shows the status, and what the endpoint was asked.
async fn check(request: impl AsRef<[u8]>, expected: Expect) {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::Http1).await;
    let mut text = setup.status(request.as_ref()).await;
    for seen in endpoint.seen.lock().unwrap().iter() {
        let lines = seen.lines().filter(|it| !it.is_empty() && !it.starts_with("x-"));
        text.extend(lines.map(|it| format!("\n  {it}")));
    }
    expected.assert_eq(&text);
    setup.lead(Table::default());
    assert!(setup.tasks.shutdown(Duration::from_secs(10)).await);
    assert!(tasks.shutdown(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn two_lengths() {
    let end = "Connection: close\r\n\r\nhello";
    check(
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n{end}"),
        expect!["400 Bad Request"],
    )
    .await;
    check(
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n{end}"),
        expect!["400 Bad Request"],
    )
    .await;
    check(
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n{end}"),
        expect!["400 Bad Request"],
    )
    .await;
}

/// The length does not count where there are chunks (RFC 9112, 6.3), and goes no further.
#[tokio::test]
async fn a_length_and_chunks() {
    for fields in [
        "Content-Length: 99\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
    ] {
        check(
            format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            expect![[r#"
                200 OK
                  POST / HTTP/1.1
                  host: a
                  transfer-encoding: chunked
                  hello"#]],
        )
        .await;
    }
}

/// Whoever took the length thinks that other requests follow: none is answered.
#[tokio::test]
async fn nothing_follows_a_length_and_chunks() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::Http1).await;
    let next = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let asked = async |fields: &str, of_length: &str| {
        let head = format!("POST /{of_length} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        let answer = setup.raw(format!("{head}0\r\n\r\n{next}").as_bytes()).await;
        let closes = answer.lines().filter(|it| *it == "connection: close").count();
        let seen = std::mem::take(&mut *endpoint.seen.lock().unwrap());
        (answer.matches("HTTP/1.1 200 OK").count(), closes, seen.len())
    };
    for fields in [
        "Content-Length: 99\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\ncontent-LENGTH: 3",
    ] {
        assert_eq!(asked(fields, "both").await, (1, 1, 1), "{fields}");
    }
    // Without the length, the connection is kept.
    assert_eq!(asked("Transfer-Encoding: chunked", "content-length:").await, (2, 1, 2));
    setup.lead(Table::default());
    assert!(setup.tasks.shutdown(Duration::from_secs(10)).await);
    assert!(tasks.shutdown(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn encodings_that_are_not_chunked() {
    for encoding in ["xchunked", "chunked, identity", "gzip", "chunked-false", "\u{b}chunked"] {
        check(
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {encoding}\r\nConnection: close\r\n\r\n0\r\n\r\n"),
            expect!["400 Bad Request"],
        )
        .await;
    }
    check(
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        expect!["400 Bad Request"],
    )
    .await;
}

#[tokio::test]
async fn heads_that_are_no_heads() {
    for fields in [
        "Host: a\r\nX-One: 1\r\n  folded",
        "Host : a",
        "Host: a\r\nX-One : 1",
        "Host: a\r\nX-One: 1\x002",
        "Host: a\r\nX\x01: 1",
        "Host: a\r\n: nameless",
        "Host: a\r\nno colon",
        "Host: a\r\nX-One: 1\rX-Two: 2",
    ] {
        check(
            format!("GET / HTTP/1.1\r\n{fields}\r\nConnection: close\r\n\r\n"),
            expect!["400 Bad Request"],
        )
        .await;
    }
    for line in
        ["GET /a b HTTP/1.1", "GET / HTTP/1.2", "GET  / HTTP/1.1", "GET /\0 HTTP/1.1", "GET /"]
    {
        check(
            format!("{line}\r\nHost: a\r\nConnection: close\r\n\r\n"),
            expect!["400 Bad Request"],
        )
        .await;
    }
}

/// Lines that end with a line feed alone are lines (RFC 9112, 2.2); the endpoint gets whole ends.
#[tokio::test]
async fn line_feeds_alone() {
    check(
        "GET / HTTP/1.1\nHost: a\nConnection: close\n\n",
        expect![[r#"
            200 OK
              GET / HTTP/1.1
              host: a"#]],
    )
    .await;
}

#[tokio::test]
async fn hosts() {
    for host in ["", "Host: a\r\nHost: b\r\n", "Host: a b\r\n", "Host: u@a\r\n", "Host: a/b\r\n"] {
        check(
            format!("GET / HTTP/1.1\r\n{host}Connection: close\r\n\r\n"),
            expect!["400 Bad Request"],
        )
        .await;
    }
    // What is asked for in the line counts, and is the only one that goes on.
    check(
        "GET http://a/x HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
        expect![[r#"
            200 OK
              GET /x HTTP/1.1
              host: a"#]],
    )
    .await;
    check(
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        expect!["405 Method Not Allowed"],
    )
    .await;
}

#[tokio::test]
async fn too_much() {
    let head =
        |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    check(
        head(&"X-One: 1\r\n".repeat(HEADERS_MAX)),
        expect!["431 Request Header Fields Too Large"],
    )
    .await;
    let large = format!("X-One: {}\r\n", "1".repeat(2 * HEAD_BYTES_MAX));
    check(head(&large), expect!["431 Request Header Fields Too Large"]).await;
    let line = |length: usize| {
        format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "a".repeat(length))
    };
    check(line(TARGET_BYTES_MAX), expect!["414 URI Too Long"]).await;
    check(line(HEAD_BYTES_MAX), expect!["431 Request Header Fields Too Large"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::Http1).await;
    for beginning in ["", "P", "GET / HTTP/1.1\r\nHost: a\r\n", "PRI * HTTP/2.0\r\n"] {
        let began = tokio::time::Instant::now();
        let mut stream = TcpStream::connect(setup.address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        // A byte now and then does not help.
        let (mut read, mut write) = stream.split();
        let drip = async {
            while !beginning.is_empty() && write.write_all(b"X").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut answer = Vec::new();
        tokio::select! {
            ended = read.read_to_end(&mut answer) => drop(ended),
            () = drip => {}
        }
        assert!(began.elapsed() < 2 * HEAD_TIME_MAX, "{beginning:?} {:?}", began.elapsed());
    }
    setup.lead(Table::default());
    assert!(setup.tasks.shutdown(Duration::from_secs(10)).await);
    assert!(tasks.shutdown(Duration::from_secs(10)).await);
}

/// Streams that are begun and reset at once (CVE-2023-44487): the connection is ended.
#[tokio::test]
async fn streams_that_are_reset_at_once() {
    const ROUNDS: u32 = 5000;
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::Http1).await;
    let mut stream = TcpStream::connect(setup.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    // GET, http, /hang, and a host `a`, by HPACK.
    let head = [0x82, 0x86, 0x04, 5, b'/', b'h', b'a', b'n', b'g', 0x41, 1, b'a'];
    let mut flood = Vec::new();
    for stream in 0..ROUNDS {
        let id = (2 * stream + 1).to_be_bytes();
        flood.extend([0, 0, u8::try_from(head.len()).unwrap(), 1, 5]);
        flood.extend(id);
        flood.extend(head);
        flood.extend([0, 0, 4, 3, 0]);
        flood.extend(id);
        flood.extend([0, 0, 0, 8]);
    }
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let (_, ended) = tokio::join!(write.write_all(&flood), read.read_to_end(&mut answer));
    drop(ended);
    let asked = endpoint.seen.lock().unwrap().iter().filter(|it| it.starts_with("GET")).count();
    assert!(asked < 1000, "{asked} requests of {ROUNDS} went on");
    setup.lead(Table::default());
    assert!(setup.tasks.shutdown(Duration::from_secs(10)).await);
    assert!(tasks.shutdown(Duration::from_secs(10)).await);
}
