//! HTTP/2 from the command line to the report, against a server that speaks nothing else and ends
//! requests and connections in every way that the protocol has.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    process::ExitCode,
    rc::Rc,
    sync::{Arc, Mutex},
    task::Poll,
    thread,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Request, Response, Uri};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
    task::{LocalSet, spawn_local},
};
use tokio_rustls::TlsAcceptor;

use super::{OK, answering, report_of, run_words, silent};
use crate::judge::{
    law::Outcome,
    server::{Options, Server},
};

/// A connection, encrypted or not, before the first byte of HTTP/2.
pub(super) type Wire = Box<dyn ReadWrite>;

pub(super) trait ReadWrite: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ReadWrite for T {}

type Connection = h2::server::Connection<Wire, Bytes>;

/// Does something with each connection, whose place it is told: 0 is the one by which the generator
/// tries whether anybody is there. Runs in one thread, which ends with the test's process.
pub(super) fn serve<F, S>(tls: Option<Arc<ServerConfig>>, each: F) -> SocketAddr
where
    F: Fn(usize, Wire) -> S + Send + 'static,
    S: Future<Output = Result<(), h2::Error>> + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, accept(listener, tls, each));
    });
    address
}

async fn accept<F, S>(listener: std::net::TcpListener, tls: Option<Arc<ServerConfig>>, each: F)
where
    F: Fn(usize, Wire) -> S + 'static,
    S: Future<Output = Result<(), h2::Error>> + 'static,
{
    let listener = TcpListener::from_std(listener).unwrap();
    let each = Rc::new(each);
    for place in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        let (each, acceptor) = (Rc::clone(&each), tls.clone().map(TlsAcceptor::from));
        drop(spawn_local(async move {
            let wire: Wire = match acceptor {
                None => Box::new(stream),
                Some(acceptor) => Box::new(acceptor.accept(stream).await.ok()?),
            };
            // That a client goes without a word is its right.
            each(place, wire).await.ok()
        }));
    }
}

/// What a server saw: the connection and the target of each request.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<watch::Sender<Vec<(usize, Uri)>>>);

impl Seen {
    fn note(&self, connection: usize, request: &Request<RecvStream>) {
        self.0.send_modify(|it| it.push((connection, request.uri().clone())));
    }

    pub(super) fn requests(&self) -> usize {
        self.0.borrow().len()
    }

    /// Until so many requests have come.
    async fn reached(&self, count: usize) {
        self.0.subscribe().wait_for(|it| it.len() >= count).await.unwrap();
    }

    /// How many requests came on each connection that had any.
    fn by_connection(&self) -> Vec<usize> {
        let mut places: Vec<usize> = self.0.borrow().iter().map(|it| it.0).collect();
        places.sort_unstable();
        places.chunk_by(|one, other| one == other).map(<[usize]>::len).collect()
    }
}

fn answer(mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    respond.send_response(Response::new(()), false)?.send_data(Bytes::from_static(b"ok"), true)
}

/// Answers everything.
pub(super) fn answers(tls: Option<Arc<ServerConfig>>) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let noted = seen.clone();
    let address = serve(tls, move |place, wire| {
        let seen = noted.clone();
        async move {
            let mut connection = h2::server::handshake(wire).await?;
            while let Some(accepted) = connection.accept().await {
                let (request, respond) = accepted?;
                seen.note(place, &request);
                answer(respond)?;
            }
            Ok(())
        }
    });
    (address, seen)
}

/// Answers what `is_answered` says of the how-manieth request of a connection, from 0; then lets `end`
/// end the connection.
fn ends_after<E, S>(is_answered: fn(usize) -> bool, end: E) -> (SocketAddr, Seen)
where
    E: Fn(Connection, SendResponse<Bytes>) -> S + Copy + Send + 'static,
    S: Future<Output = Result<(), h2::Error>> + 'static,
{
    let seen = Seen::default();
    let noted = seen.clone();
    let address = serve(None, move |place, wire| {
        let seen = noted.clone();
        async move {
            let mut connection = h2::server::handshake(wire).await?;
            for count in 0.. {
                let Some(accepted) = connection.accept().await else { break };
                let (request, respond) = accepted?;
                seen.note(place, &request);
                if !is_answered(count) {
                    return end(connection, respond).await;
                }
                answer(respond)?;
            }
            Ok(())
        }
    });
    (address, seen)
}

fn loaded(address: SocketAddr, words: &[&str]) -> (ExitCode, Value) {
    let url = format!("http://{address}/x?y=1");
    let (code, report) = report_of(&[&[&url, "--http2"], words].concat());
    assert_eq!(report["own"]["unanswered"], 0, "{report:#}");
    (code, report["total"].clone())
}

const TEN: [&str; 4] = ["--rate", "100/s", "--for", "100ms"];
const ONE_USER: [&str; 4] = ["--closed", "1", "--for", "200ms"];
const POST: [&str; 4] = ["-X", "POST", "--body", "hello"];

#[test]
fn without_tls_it_is_known_before() {
    let (address, seen) = answers(None);
    let (code, total) = loaded(address, &["--rate", "100/s", "--for", "300ms"]);
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(total["succeeded"], 30, "{total:#}");
    assert_eq!(total["statuses"], json!({ "200": 30 }));
    assert_eq!(total["received_bytes"], 30 * 2);
    for phase in ["latency", "service", "first_byte", "body"] {
        assert_eq!(total[phase]["count"], 30, "{phase}: {total:#}");
    }
    // The connection that nothing was sent on is measured in no phase.
    assert_eq!(total["connect"]["count"], seen.by_connection().len());
    assert_eq!(total["tls"]["count"], 0);
    assert_eq!(seen.requests(), 30);
    for (_, target) in seen.0.borrow().iter() {
        assert_eq!(target.to_string(), format!("http://{address}/x?y=1"));
    }
}

#[test]
fn bodies_and_headers_are_sent() {
    let (bodies, heads) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (to_bodies, to_heads) = (Arc::clone(&bodies), Arc::clone(&heads));
    let address = serve(None, move |_, wire| {
        let (bodies, heads) = (Arc::clone(&to_bodies), Arc::clone(&to_heads));
        async move {
            let mut connection = h2::server::handshake(wire).await?;
            while let Some(accepted) = connection.accept().await {
                let (request, respond) = accepted?;
                let (head, mut body) = request.into_parts();
                let (bodies, heads) = (Arc::clone(&bodies), Arc::clone(&heads));
                drop(spawn_local(async move {
                    let mut whole = Vec::new();
                    while let Some(part) = body.data().await {
                        whole.extend_from_slice(&part?);
                    }
                    bodies.lock().unwrap().push(whole);
                    heads.lock().unwrap().push(head.headers);
                    answer(respond)
                }));
            }
            Ok(())
        }
    });
    let headers =
        ["X-One: 1", "Connection: keep-alive", "Keep-Alive: timeout=5", "Host: other.test"];
    let headers = headers.map(|it| ["-H", it]).concat();
    let (_, total) = loaded(address, &[&TEN[..], &POST, &headers].concat());
    assert_eq!(total["succeeded"], 10, "{total:#}");
    assert_eq!(*bodies.lock().unwrap(), vec![b"hello".to_vec(); 10]);
    for head in heads.lock().unwrap().iter() {
        assert_eq!(head["x-one"], "1");
        assert_eq!(head["content-length"], "5");
        for name in ["connection", "keep-alive", "host"] {
            assert!(!head.contains_key(name), "{head:?}");
        }
    }
}

#[test]
fn many_at_once_share_a_connection() {
    const COUNT: usize = 60;
    let seen = Seen::default();
    let noted = seen.clone();
    let address = serve(None, move |place, wire| {
        let seen = noted.clone();
        async move {
            let mut connection = h2::server::handshake(wire).await?;
            // Nobody is answered before all have come, on whichever connection.
            while let Some(accepted) = connection.accept().await {
                let (request, respond) = accepted?;
                seen.note(place, &request);
                let seen = seen.clone();
                drop(spawn_local(async move {
                    seen.reached(COUNT).await;
                    answer(respond)
                }));
            }
            Ok(())
        }
    });
    let (code, total) = loaded(address, &["--rate", "600/s", "--for", "100ms"]);
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(total["succeeded"], COUNT, "{total:#}");
    let connections = seen.by_connection();
    assert!(connections.len() <= crate::engine::limits::cores(), "{connections:?}");
}

#[test]
fn connection_that_ends_gracefully_costs_nothing() {
    // After three answers: streams that are open may end, further ones go elsewhere.
    for method in ["GET", "POST"] {
        let (address, seen) = ends_after(
            |count| count < 2,
            |mut connection, respond| async move {
                answer(respond)?;
                connection.graceful_shutdown();
                // Requests that came before the client heard of it are answered.
                while let Some(accepted) = connection.accept().await {
                    answer(accepted?.1)?;
                }
                Ok(())
            },
        );
        let words = ["--rate", "300/s", "--for", "200ms", "-X", method];
        let (code, total) = loaded(address, &words);
        assert_eq!(code, ExitCode::SUCCESS);
        assert_eq!(total["succeeded"], 60, "{method}: {total:#}");
        assert_eq!(total["failures"], json!({}));
        assert!(seen.by_connection().len() > 2, "{:?}", seen.by_connection());
    }
}

/// An empty SETTINGS frame, and a GOAWAY which says that no stream was processed (RFC 9113, 6.8).
const GO_AWAY: [u8; 26] = [
    0, 0, 0, 4, 0, 0, 0, 0, 0, //
    0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Sends away `refused` connections before it answers.
fn sends_away(refused: usize) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let noted = seen.clone();
    let address = serve(None, move |place, mut wire| {
        let seen = noted.clone();
        async move {
            if (1..=refused).contains(&place) {
                // It is open until the client closes it: a reset could overtake the frame.
                wire.write_all(&GO_AWAY).await.ok();
                tokio::io::copy(&mut wire, &mut tokio::io::sink()).await.ok();
                return Ok(());
            }
            let mut connection = h2::server::handshake(wire).await?;
            while let Some(accepted) = connection.accept().await {
                let (request, respond) = accepted?;
                seen.note(place, &request);
                answer(respond)?;
            }
            Ok(())
        }
    });
    (address, seen)
}

#[test]
fn what_the_server_says_it_did_not_begin_is_sent_again() {
    for words in [&[][..], &POST] {
        let (address, seen) = sends_away(1);
        let (code, total) = loaded(address, &[&ONE_USER[..], words].concat());
        assert_eq!(code, ExitCode::SUCCESS);
        assert_eq!(total["failures"], json!({}), "{total:#}");
        // Once: the second connection is as good as any.
        assert_eq!(total["sent_again"], 1);
        assert_eq!(total["succeeded"], seen.requests());
        assert_eq!(seen.by_connection().len(), 1);
    }
}

#[test]
fn sent_away_twice_is_a_failure() {
    let (address, _) = sends_away(usize::MAX);
    let (code, total) = loaded(address, &TEN);
    assert_eq!(code, ExitCode::FAILURE);
    assert_eq!(total["failures"], json!({ "closed": 10 }), "{total:#}");
    assert_eq!(total["first_byte"]["count"], 0);
}

#[test]
fn refused_streams_are_sent_again() {
    // Every other request of a connection is refused, before it was begun.
    let seen = Seen::default();
    let noted = seen.clone();
    let address = serve(None, move |place, wire| {
        let seen = noted.clone();
        async move {
            let mut connection = h2::server::handshake(wire).await?;
            for count in 0.. {
                let Some(accepted) = connection.accept().await else { break };
                let (request, mut respond) = accepted?;
                seen.note(place, &request);
                if count % 2 == 0 {
                    respond.send_reset(Reason::REFUSED_STREAM);
                } else {
                    answer(respond)?;
                }
            }
            Ok(())
        }
    });
    let (code, total) = loaded(address, &[&ONE_USER[..], &POST].concat());
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(total["failures"], json!({}), "{total:#}");
    assert_eq!(total["sent_again"], total["succeeded"]);
    assert_eq!(total["succeeded"].as_u64().unwrap() * 2, seen.requests() as u64);
}

#[test]
fn cut_before_an_answer_is_sent_again_if_it_may_be() {
    // One answer on each connection; the next request finds it cut.
    let cut = |connection, _| async move {
        drop(connection);
        Ok(())
    };
    let (address, seen) = ends_after(|count| count < 1, cut);
    let (code, total) = loaded(address, &ONE_USER);
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(total["failures"], json!({}), "{total:#}");
    assert_eq!(total["sent_again"], seen.by_connection().len() - 1);
    assert!(seen.by_connection().len() > 2);
    let (address, _) = ends_after(|count| count < 1, cut);
    let (_, total) = loaded(address, &[&ONE_USER[..], &POST].concat());
    let (good, bad) = (&total["succeeded"], &total["failures"]["closed"]);
    // In turns: answered on a new connection, cut on a used one.
    let difference = good.as_u64().unwrap() - bad.as_u64().unwrap();
    assert!(bad.as_u64().unwrap() > 0 && difference <= 1, "{total:#}");
}

#[test]
fn all_that_a_cut_connection_carries_is_counted() {
    // The requests of all connections wait until the last has come; then nobody is answered.
    let seen = Seen::default();
    let noted = seen.clone();
    let address = serve(None, move |place, wire| {
        let seen = noted.clone();
        async move {
            // Dropped after the connection: streams are neither answered nor reset.
            let mut unanswered = Vec::new();
            let mut connection = h2::server::handshake(wire).await?;
            loop {
                let accepted = tokio::select! {
                    accepted = connection.accept() => accepted,
                    () = seen.reached(10) => None,
                };
                let Some(accepted) = accepted else { return Ok(()) };
                let (request, respond) = accepted?;
                seen.note(place, &request);
                unanswered.push(respond);
            }
        }
    });
    let (code, total) = loaded(address, &TEN);
    assert_eq!(code, ExitCode::FAILURE);
    assert_eq!(total["failures"], json!({ "closed": 10 }), "{total:#}");
    assert_eq!(seen.requests(), 10, "none was sent again: no connection had been used");
}

#[test]
fn cut_within_an_answer_is_a_failure() {
    let (address, seen) = ends_after(
        |_| false,
        |mut connection, mut respond| async move {
            let mut body = respond.send_response(Response::new(()), false)?;
            body.send_data(Bytes::from_static(b"half"), false)?;
            // All is written; then the connection is cut without a word about the stream.
            poll_fn(|ctx| Poll::Ready(connection.poll_closed(ctx).is_ready())).await;
            drop(connection);
            Ok(())
        },
    );
    let (code, total) = loaded(address, &TEN);
    assert_eq!(code, ExitCode::FAILURE);
    let closed = total["failures"]["closed"].as_u64().unwrap();
    assert_eq!(closed, 10, "{total:#}");
    assert!(seen.requests() >= 1);
}

#[test]
fn resets_are_counted_as_the_server_made_them() {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let law = "constant:0s,resets:40%,errors:20%".parse().unwrap();
    let server = Server::start(Options { listen, law, seed: 3, tls: None }).unwrap();
    let (_, total) = loaded(server.address(), &["--rate", "400/s", "--for", "100ms"]);
    let record = server.stop().unwrap();
    let count = |outcome| record.entries.iter().filter(|it| it.outcome == outcome).count();
    assert_eq!(record.entries.len(), 40);
    let (resets, errors) = (count(Outcome::Reset), count(Outcome::Error));
    assert!(resets > 0 && errors > 0);
    assert_eq!(total["failures"], json!({ "closed": resets, "status": errors }), "{total:#}");
    assert_eq!(total["statuses"], json!({ "200": 40 - resets - errors, "503": errors }));
}

#[test]
fn timeout_gives_up_one_stream_only() {
    let seen = Seen::default();
    let noted = seen.clone();
    let address = serve(None, move |place, wire| {
        let seen = noted.clone();
        async move {
            let mut connection = h2::server::handshake(wire).await?;
            let Some(accepted) = connection.accept().await else { return Ok(()) };
            let (request, mut respond) = accepted?;
            seen.note(place, &request);
            // Never answered; the others are, from when the client has given this one up.
            while let Some(accepted) = connection.accept().await {
                let (request, other) = accepted?;
                seen.note(place, &request);
                let reason = poll_fn(|ctx| respond.poll_reset(ctx)).await?;
                assert_eq!(reason, Reason::CANCEL);
                answer(other)?;
            }
            Ok(())
        }
    });
    let words = ["--closed", "1", "--for", "300ms", "--timeout", "100ms"];
    let (code, total) = loaded(address, &words);
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(total["failures"], json!({ "timeout": 1 }), "{total:#}");
    assert_eq!(total["connect"]["count"], 1, "the connection is kept");
    assert_eq!(seen.by_connection(), [seen.requests()]);
}

#[test]
fn other_protocols_are_named() {
    let (code, total) = loaded(answering(OK), &TEN);
    assert_eq!(code, ExitCode::FAILURE);
    assert_eq!(total["failures"], json!({ "protocol": 10 }), "{total:#}");
    let (_, total) = loaded(silent(), &[&TEN[..], &["--timeout", "100ms"]].concat());
    assert_eq!(total["failures"], json!({ "timeout": 10 }), "{total:#}");
    // The other way round.
    let (address, seen) = answers(None);
    let code = run_words(&[&format!("http://{address}/"), "--for", "200ms"]).unwrap();
    assert_eq!(code, ExitCode::FAILURE);
    assert_eq!(seen.requests(), 0);
}
