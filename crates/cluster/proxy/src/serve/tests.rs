//! Requests and answers on their way through.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use expect_test::expect;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use runtime::{OnExit, Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::{
    table::{Filters, HeaderEdits, PathEdit, Protocol, Rewrite, Table},
    testing::{Endpoint, Setup, leading_to},
};

/// Ends what a test started.
async fn end(setup: Setup, tasks: Tasks) {
    setup.lead(Table::default());
    assert!(setup.tasks.shutdown(Duration::from_secs(10)).await);
    assert!(tasks.shutdown(Duration::from_secs(10)).await);
}

/// Without what differs from run to run.
fn settled(answer: &str) -> String {
    let lines = answer.lines().filter(|it| !it.starts_with("date: "));
    lines.map(|it| format!("{it}\n")).collect()
}

#[tokio::test]
async fn what_is_about_the_connection_goes_no_further() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::Http1).await;
    let request = b"GET http://other.test/a?b=c HTTP/1.1\r\nHost: shop.test\r\nX-One: 1\r\n\
        Connection: close, x-one\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Connection: x\r\n\
        X-Forwarded-For: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\n\
        Cookie: a=1\r\nCookie: b=2\r\nExpect: 100-continue\r\nX-Two: 2\r\n\r\n";
    expect![[r#"
        HTTP/1.1 200 OK
        connection: close
        transfer-encoding: chunked

        BA
        GET /a?b=c HTTP/1.1
        host: other.test
        x-two: 2
        x-forwarded-host: other.test
        cookie: a=1; b=2
        x-forwarded-proto: http
        x-forwarded-port: 80
        x-forwarded-for: 127.0.0.1
        x-real-ip: 127.0.0.1


        0

    "#]]
    .assert_eq(&settled(&setup.raw(request).await));
    end(setup, tasks).await;
}

#[tokio::test]
async fn connections_are_kept_and_those_to_endpoints_that_went_are_not() {
    let tasks = Tasks::default();
    let (one, other) = (Endpoint::new(&tasks).await, Endpoint::new(&tasks).await);
    let setup = Setup::to(&[one.address], Protocol::Http1).await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for _ in 0..5 {
        assert_eq!(setup.status(request).await, "200 OK");
    }
    assert_eq!(one.connections.load(Ordering::Relaxed), 1);
    setup.lead(leading_to(&[other.address], Protocol::Http1));
    one.end.cancel();
    assert_eq!(setup.status(request).await, "200 OK");
    assert_eq!(other.seen.lock().unwrap().len(), 1);
    end(setup, tasks).await;
}

#[tokio::test]
async fn another_endpoint_is_tried_when_one_cannot_be_connected_to() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let mut gone = Vec::new();
    for _ in 0..5 {
        gone.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    // As many in a row as a lost node may have.
    let mut endpoints: Vec<SocketAddr> = gone.iter().map(|it| it.local_addr().unwrap()).collect();
    drop(gone);
    let gone = endpoints[0];
    endpoints.push(endpoint.address);
    let setup = Setup::to(&endpoints, Protocol::Http1).await;
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    for _ in 0..6 {
        assert_eq!(setup.status(request).await, "200 OK");
    }
    setup.lead(leading_to(&[gone], Protocol::Http1));
    let answer = setup.raw(request).await.replace(&gone.to_string(), "GONE");
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway"), "{answer}");
    let why = "Service shop/web port 80: cannot connect to its endpoint GONE: Connection refused";
    assert!(answer.contains(why), "{answer}");
    setup.lead(leading_to(&[], Protocol::Http1));
    let answer = setup.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable"), "{answer}");
    assert!(answer.contains("Service shop/web port 80: it has no ready endpoints"), "{answer}");
    end(setup, tasks).await;
}

/// An endpoint that takes requests and dies of each; how many it took.
async fn dying(tasks: &Tasks) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&taken);
    tasks.spawn("dying", OnExit::Log, |stop| async move {
        loop {
            let mut stream = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted?.0,
            };
            stream.read_u8().await?;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, taken)
}

#[tokio::test]
async fn a_harmless_request_is_repeated_once_when_an_endpoint_dies_of_it() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let (one, taken_by_one) = dying(&tasks).await;
    let (other, taken_by_other) = dying(&tasks).await;
    let setup = Setup::to(&[one, endpoint.address], Protocol::Http1).await;
    let get = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for _ in 0..4 {
        assert_eq!(setup.status(get).await, "200 OK");
    }
    assert_eq!(taken_by_one.load(Ordering::Relaxed), 2);
    // What may do harm is not: it may have been done.
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let answers = [setup.status(post).await, setup.status(post).await];
    assert!(answers.contains(&"502 Bad Gateway".to_owned()), "{answers:?}");
    // A request that kills is not sent to all there are.
    setup.lead(leading_to(&[one, other, endpoint.address], Protocol::Http1));
    let before = taken_by_one.load(Ordering::Relaxed) + taken_by_other.load(Ordering::Relaxed);
    let answers = [setup.status(get).await, setup.status(get).await, setup.status(get).await];
    let failed = answers.iter().filter(|it| *it == "502 Bad Gateway").count();
    let taken = taken_by_one.load(Ordering::Relaxed) + taken_by_other.load(Ordering::Relaxed);
    assert_eq!((failed, taken - before), (1, 3), "{answers:?}");
    end(setup, tasks).await;
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_fails_no_request() {
    let tasks = Tasks::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let setup = Setup::to(&[listener.local_addr().unwrap()], Protocol::Http1).await;
    // One answer a connection, which is not said to be the last.
    let answers = async {
        for _ in 0..10 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1000];
            assert_ne!(stream.read(&mut buffer).await.unwrap(), 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            // Closed when the next request is there, the worst moment.
            drop(stream.read(&mut buffer).await);
        }
    };
    let asks = async {
        for _ in 0..10 {
            let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            assert_eq!(setup.status(request).await, "200 OK");
        }
        setup.lead(Table::default());
    };
    tokio::join!(answers, asks);
    end(setup, tasks).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_says_nothing_is_waited_for_only_so_long() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::Http1).await;
    let answer = setup.raw(b"GET /hang HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout"), "{answer}");
    end(setup, tasks).await;
}

#[tokio::test]
async fn when_the_client_goes_the_endpoint_hears_of_it() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::Http1).await;
    let mut stream = TcpStream::connect(setup.address).await.unwrap();
    stream.write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let seen = async |count: usize| {
        while endpoint.seen.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    };
    seen(1).await;
    drop(stream);
    seen(2).await;
    assert_eq!(endpoint.seen.lock().unwrap().last().unwrap(), "given up");
    end(setup, tasks).await;
}

#[tokio::test]
async fn bodies_pass_as_they_come() {
    let tasks = Tasks::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let setup = Setup::to(&[listener.local_addr().unwrap()], Protocol::Http1).await;
    let mut client = TcpStream::connect(setup.address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
    client.write_all(head).await.unwrap();
    let (mut endpoint, _) = listener.accept().await.unwrap();
    let mut got = String::new();
    while !got.ends_with("one\r\n") {
        got.push(char::from(endpoint.read_u8().await.unwrap()));
    }
    // The answer begins while the request goes on.
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n";
    endpoint.write_all(head).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("yes\r\n") {
        answer.push(char::from(client.read_u8().await.unwrap()));
    }
    // Nobody reads, so no more is taken than fits into buffers.
    let flood = vec![b'x'; 1 << 16];
    let mut sent = 0;
    let full = async {
        loop {
            client.write_all(b"10000\r\n").await.unwrap();
            client.write_all(&flood).await.unwrap();
            client.write_all(b"\r\n").await.unwrap();
            sent += flood.len();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(1), full).await.is_err());
    assert!(sent < 64 << 20, "{sent} bytes taken");
    drop((client, endpoint));
    end(setup, tasks).await;
}

#[tokio::test]
async fn an_upgraded_connection_passes_bytes() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::Http1).await;
    let mut stream = TcpStream::connect(setup.address).await.unwrap();
    let head =
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        answer.push(char::from(stream.read_u8().await.unwrap()));
    }
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols"), "{answer}");
    assert!(answer.contains("upgrade: echo"), "{answer}");
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"hello");
    drop(stream);
    end(setup, tasks).await;
}

#[tokio::test]
async fn trailers_pass_over_http2_on_both_sides() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::H2c).await;
    let stream = TcpStream::connect(setup.address).await.unwrap();
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = shaken.await.unwrap();
    let asks = async move {
        for _ in 0..3 {
            let request = Request::post("http://shop.test/shop.Web/Ask").header("te", "trailers");
            let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
            let body = answer.await.unwrap().into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
            let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            let line = text.lines().next().unwrap();
            assert_eq!(line, "POST http://shop.test/shop.Web/Ask HTTP/2.0");
        }
    };
    let (_, ended) = tokio::join!(asks, connection);
    ended.unwrap();
    assert_eq!(endpoint.connections.load(Ordering::Relaxed), 1);
    end(setup, tasks).await;
}

#[tokio::test]
async fn requests_in_flight_finish_when_the_proxy_stops() {
    let tasks = Tasks::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let setup = Setup::to(&[listener.local_addr().unwrap()], Protocol::Http1).await;
    let mut client = TcpStream::connect(setup.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (mut endpoint, _) = listener.accept().await.unwrap();
    assert_ne!(endpoint.read(&mut [0; 1000]).await.unwrap(), 0);
    setup.tasks.stop();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    endpoint.write_all(answer).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok"), "{answer}");
    end(setup, tasks).await;
}

#[tokio::test]
async fn a_route_changes_requests_and_answers() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::Http1).await;
    let field = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let edits = |of: &'static str| HeaderEdits {
        set: vec![field("x-set", of)],
        add: vec![field("x-add", of)],
        remove: vec![HeaderName::from_static("x-remove"), HeaderName::from_static("keep-alive")],
    };
    let path = PathEdit::Prefix("/a".to_owned(), "/new".to_owned());
    let host = Some(HeaderValue::from_static("inside.test"));
    let filters = Filters {
        request: edits("asked"),
        response: edits("answered"),
        rewrite: Some(Rewrite { host, path: Some(path) }),
    };
    let mut table = leading_to(&[endpoint.address], Protocol::Http1);
    table.any[0].route.filters = Some(Arc::new(filters));
    setup.lead(table);
    let request = b"GET /a/b?c=d HTTP/1.1\r\nHost: shop.test\r\nX-Set: own\r\nX-Add: own\r\n\
        X-Remove: own\r\nConnection: close\r\n\r\n";
    expect![[r#"
        HTTP/1.1 200 OK
        x-set: answered
        x-add: answered
        connection: close
        transfer-encoding: chunked

        C9
        GET /new/b?c=d HTTP/1.1
        host: inside.test
        x-set: asked
        x-add: own
        x-add: asked
        x-forwarded-host: shop.test
        x-forwarded-proto: http
        x-forwarded-port: 80
        x-forwarded-for: 127.0.0.1
        x-real-ip: 127.0.0.1


        0

    "#]]
    .assert_eq(&settled(&setup.raw(request).await));
    end(setup, tasks).await;
}

#[tokio::test(start_paused = true)]
async fn a_route_says_how_long_an_answer_may_take() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::Http1).await;
    let asked = Instant::now();
    for (seconds, after) in [(1, 1), (90, 91)] {
        let mut table = leading_to(&[endpoint.address], Protocol::Http1);
        table.any[0].route.timeouts.request = Some(Duration::from_secs(seconds));
        setup.lead(table);
        let request = b"GET /hang HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = setup.raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout"), "{answer}");
        assert_eq!(asked.elapsed().as_secs(), after);
    }
    end(setup, tasks).await;
}

#[tokio::test]
async fn requests_are_counted_and_written_down() {
    let tasks = Tasks::default();
    let endpoint = Endpoint::new(&tasks).await;
    let setup = Setup::to(&[endpoint.address], Protocol::Http1).await;
    let request = "GET /status/418?q=1 HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: a\"b\\c\r\n\
        Connection: close\r\n\r\n";
    assert_eq!(setup.status(request.as_bytes()).await, "418 I'm a teapot");
    assert_eq!(
        setup.status(b"CONNECT a:1 HTTP/1.1\r\nConnection: close\r\n\r\n").await,
        "405 Method Not Allowed"
    );
    let log = setup.folder.path().join("access.log");
    let text = loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.lines().count() == 2 {
            break text;
        }
        tokio::task::yield_now().await;
    };
    let text = text.replace(&endpoint.address.to_string(), "ENDPOINT");
    let settled = |line: &str| {
        let (before, rest) = line.split_once('[').unwrap();
        let (_, rest) = rest.split_once(']').unwrap();
        format!("{before}[TIME]{}", rest.rsplit_once(' ').unwrap().0)
    };
    let lines: Vec<String> = text.lines().map(settled).collect();
    expect![[r#"
        127.0.0.1 - - [TIME] "GET /status/418?q=1 HTTP/1.1" 418 185 "-" "a\x22b\x5Cc" "shop.test" Ingress/shop/web ENDPOINT
        127.0.0.1 - - [TIME] "CONNECT  HTTP/1.1" 405 85 "-" "-" "a:1" - -"#]].assert_eq(&lines.join("\n"));
    let told = setup.metrics.text();
    let labels = r#"kind="Ingress",namespace="shop",name="web",service="web",port="80""#;
    let line = format!("coracle_proxy_requests_total{{{labels},code=\"418\"}} 1");
    assert!(told.contains(&line), "{told}");
    assert!(told.contains(&format!("coracle_proxy_requests_in_flight{{{labels}}} 0")), "{told}");
    end(setup, tasks).await;
}
