//! What goes over the wire and into the record. Nothing here depends on how fast the machine is.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

use super::*;
use crate::judge::{law::Outcome, record::Entry};

fn start(law: &str, tls: Option<Certificate>) -> Server {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Server::start(Options { listen, law: law.parse().unwrap(), seed: 5, tls }).unwrap()
}

/// Sends bytes on a new connection and reads all that comes until the server ends it.
fn say(server: &Server, bytes: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(server.address())?;
    stream.write_all(bytes.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const OLD: &str = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";

/// In order, not before they are due, none unanswered.
fn check(record: &Record, count: usize) -> &[Entry] {
    assert_eq!(record.entries.len(), count);
    let sorted = record.entries.windows(2).all(|it| it[0].arrival <= it[1].arrival);
    assert!(sorted, "{record:?}");
    for (entry, index) in record.entries.iter().zip(0..) {
        let fate = record.law.fate(5, index);
        assert_eq!(entry.outcome, fate.outcome);
        assert!(entry.answer.unwrap() >= entry.due, "{entry:?}");
        let due = record.law.due(Duration::from_nanos(entry.arrival - record.began()), fate.delay);
        let due = if fate.outcome == Outcome::Good { due.last } else { due.head };
        assert_eq!(entry.due, record.began() + u64::try_from(due.as_nanos()).unwrap());
    }
    &record.entries
}

#[test]
fn http1_of_every_kind() {
    let server = start("uniform:0s..2ms,body:3", None);
    let answers = say(&server, &format!("{GET}{POST}{OLD}{LAST}")).unwrap();
    let body = "Content-Type: text/plain\r\nContent-Length: 3\r\n\r\n...";
    let expected = ["", "", "Connection: keep-alive\r\n", "Connection: close\r\n"]
        .map(|connection| format!("HTTP/1.1 200 OK\r\n{connection}{body}"));
    assert_eq!(answers, expected.concat());
    let head = say(&server, "HEAD / HTTP/1.0\r\n\r\n").unwrap();
    assert!(head.ends_with("Content-Length: 3\r\n\r\n"), "{head}");
    let record = server.stop().unwrap();
    let connections: Vec<u32> = check(&record, 5).iter().map(|it| it.connection).collect();
    assert_eq!(connections, [0, 0, 0, 0, 1]);
}

#[test]
fn stalls_hold_answers() {
    let server = start("constant:1ms,stall:40ms@5ms", None);
    say(&server, LAST).unwrap();
    while server.quiet().is_none_or(|it| it < Duration::from_millis(6)) {
        std::thread::yield_now();
    }
    say(&server, LAST).unwrap();
    let record = server.stop().unwrap();
    let thawed = record.began() + 46_000_000;
    assert!(check(&record, 2)[1].answer.unwrap() >= thawed, "{record:?}");
}

#[test]
fn errors_and_resets() {
    let server = start("constant:0s,errors:100%", None);
    let answer = say(&server, LAST).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(check(&server.stop().unwrap(), 1)[0].outcome, Outcome::Error);
    let server = start("constant:0s,resets:100%", None);
    let error = say(&server, GET).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(check(&server.stop().unwrap(), 1)[0].outcome, Outcome::Reset);
}

#[test]
fn slow_bodies_arrive_whole() {
    for (law, bytes) in [("constant:0s,body:25/5ms", 25), ("constant:0s,body:3/5ms", 3)] {
        let server = start(law, None);
        let answer = say(&server, LAST).unwrap();
        assert!(answer.ends_with(&format!("\r\n\r\n{}", ".".repeat(bytes))), "{answer}");
        let record = server.stop().unwrap();
        assert_eq!(check(&record, 1)[0].due - record.began(), 5_000_000);
    }
}

#[test]
fn nonsense_ends_the_connection_only() {
    let server = start("constant:0s", None);
    assert_eq!(say(&server, "hello\r\n\r\n").unwrap(), "");
    say(&server, LAST).unwrap();
    check(&server.stop().unwrap(), 1);
}

#[test]
fn fast_mode_records_nothing() {
    let server = start("none", None);
    let answers = say(&server, &format!("{GET}{GET}{POST}{LAST}")).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 4);
    assert_eq!(server.stop().unwrap().entries, []);
}

#[test]
fn one_that_has_gone_is_unanswered() {
    let server = start("constant:60s", None);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(GET.as_bytes()).unwrap();
    while server.quiet().is_none() {
        std::thread::yield_now();
    }
    let record = server.stop().unwrap();
    assert_eq!(record.entries.len(), 1);
    assert_eq!(record.entries[0].answer, None);
}

#[test]
fn address_in_use_is_said() {
    let server = start("none", None);
    let options = Options { listen: server.address(), law: Law::default(), seed: 0, tls: None };
    let error = format!("{:#}", Server::start(options).unwrap_err());
    assert!(error.contains("listen on 127.0.0.1:") && error.contains("in use"), "{error}");
    drop(server.stop().unwrap());
}

/// Sends `count` requests at once on one connection and returns the answers' status, or the reason
/// of a reset, and the size of the bodies.
async fn http2(server: &Server, count: usize) -> Vec<Result<(StatusCode, usize), h2::Error>> {
    let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    // The client's own protection against servers that send a body in too small pieces.
    let mut builder = h2::client::Builder::new();
    builder.data_frame_budget(1 << 20);
    let (client, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    let calls = async {
        let mut client = client.ready().await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..count {
            client = client.ready().await.unwrap();
            let request = Request::get("http://a/").body(()).unwrap();
            let (answer, _) = client.send_request(request, true).unwrap();
            answers.push(async {
                let (head, mut body) = answer.await?.into_parts();
                let mut bytes = 0;
                while let Some(data) = body.data().await {
                    let data: Bytes = data?;
                    bytes += data.len();
                    body.flow_control().release_capacity(data.len())?;
                }
                Ok((head.status, bytes))
            });
        }
        futures_util::future::join_all(answers).await
    };
    tokio::select! {
        ended = connection => panic!("{ended:?}"),
        answers = calls => answers,
    }
}

#[tokio::test]
async fn http2_many_at_once() {
    let server = start("uniform:0s..3ms,body:25/2ms,errors:10%,resets:10%", None);
    let answers = http2(&server, 300).await;
    let record = server.stop().unwrap();
    for (answer, entry) in answers.into_iter().zip(check(&record, 300)) {
        match (answer, entry.outcome) {
            (Ok((StatusCode::OK, 25)), Outcome::Good)
            | (Ok((StatusCode::SERVICE_UNAVAILABLE, 0)), Outcome::Error) => {}
            (Err(error), Outcome::Reset) if error.is_reset() => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn http2_without_bodies_and_in_fast_mode() {
    for (law, recorded) in [("exponential:1ms", 50), ("none", 0)] {
        let server = start(law, None);
        assert!(http2(&server, 50).await.iter().all(|it| matches!(it, Ok((StatusCode::OK, 0)))));
        check(&server.stop().unwrap(), recorded);
    }
}

#[test]
fn tls_with_its_own_certificate() {
    let certificate = Certificate::new().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = start("constant:1ms", Some(certificate));
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(server.address()).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(LAST.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    check(&server.stop().unwrap(), 1);
}
