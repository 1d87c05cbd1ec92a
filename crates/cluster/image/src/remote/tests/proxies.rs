//! Registries behind a proxy: a small one that does what proxies do, and writes down what it was asked.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::{
    super::*,
    World,
    fake::{Content, Fake, Reply},
};

/// What clients say to the proxy: `ann:secret`.
const AUTHORIZATION: &str = "proxy-authorization: Basic YW5uOnNlY3JldA==";

/// A proxy, for which every host is `target`. Its threads end with the test's process.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                thread::spawn(move || drop(serve(stream, target, &log)));
            }
        });
        Self { address, asked }
    }

    /// Lines like `CONNECT registry.test:443`.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, target: SocketAddr, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut registry = TcpStream::connect(target)?;
    let (mut from, mut to) = (registry.try_clone()?, client.try_clone()?);
    let mut answers = Some(move || {
        drop(io::copy(&mut from, &mut to));
        drop(to.shutdown(std::net::Shutdown::Both));
    });
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if client.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut words = head.split_whitespace();
        let (method, to) = (words.next().unwrap(), words.next().unwrap());
        log.lock().unwrap().push(format!("{method} {to}"));
        if !head.to_ascii_lowercase().contains(&AUTHORIZATION.to_ascii_lowercase()) {
            let refused = b"HTTP/1.1 407 X\r\ncontent-length: 0\r\n\r\n";
            client.write_all(refused)?;
            continue;
        }
        if method == "CONNECT" {
            client.write_all(b"HTTP/1.1 200 X\r\n\r\n")?;
            answers.take().map(thread::spawn);
            return io::copy(&mut client, &mut registry).map(drop);
        }
        let (_, path) = to.strip_prefix("http://").unwrap().split_once('/').unwrap();
        registry.write_all(head.replacen(to, &format!("/{path}"), 1).as_bytes())?;
        answers.take().map(thread::spawn);
    }
}

/// A world that reaches its registries through a proxy only: their names are nobody's.
fn behind(proxy: &Proxy, user: &str, no: &str) -> World {
    let mut world = World::new();
    let address = format!("http://{user}@{}", proxy.address);
    let variables = [("HTTPS_PROXY", &*address), ("http_proxy", &*address), ("NO_PROXY", no)];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    world.proxies = Proxies::new(&variables).unwrap();
    world.registries.add_insecure("registry.test");
    world.registries.add_insecure("registry.test:5000");
    world.attempts = 1;
    world
}

#[tokio::test]
async fn tls_goes_through_a_tunnel() {
    let content = Content::new();
    let served = content.clone();
    let fake = Fake::start_tls("registry.test", move |asked| served.reply(asked));
    let proxy = Proxy::start(fake.address);
    let image = behind(&proxy, "ann:secret", "").pull("registry.test/team/web:1").await.unwrap();
    assert_eq!(image.layers.len(), 2);
    assert!(
        proxy.asked().iter().all(|it| it == "CONNECT registry.test:443"),
        "{:?}",
        proxy.asked()
    );
    assert_eq!(fake.count("GET /v2/team/web/blobs/"), 3);
}

#[tokio::test]
async fn what_has_no_tls_is_asked_of_the_proxy() {
    let content = Content::new();
    let served = content.clone();
    let fake = Fake::start(move |asked| served.reply(asked));
    let proxy = Proxy::start(fake.address);
    let name = "registry.test:5000/team/web:1";
    behind(&proxy, "ann:secret", "other.test").pull(name).await.unwrap();
    let asked = proxy.asked();
    assert_eq!(asked[0], "CONNECT registry.test:5000");
    let wanted = "GET http://registry.test:5000/v2/team/web/manifests/1";
    assert!(asked.iter().any(|it| it == wanted), "{asked:?}");
    // The proxy's password is the proxy's only.
    assert!(fake.asked().iter().all(|it| !it.headers.contains_key("authorization")));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named() {
    let fake = Fake::start(|_| Reply::new(500, "the proxy lets nobody through"));
    let proxy = Proxy::start(fake.address);
    let world = behind(&proxy, "eve:guess", "");
    let reference = "registry.test/team/web:1";
    let Kind::Refused { status: 407, .. } = world.refused(reference).await else {
        panic!("without TLS the proxy's own answer is seen")
    };
    let mut world = behind(&proxy, "eve:guess", "");
    world.registries = Registries::default();
    let error = world.refused(reference).await.to_string();
    let wanted = format!("through the proxy `http://{}/`", proxy.address);
    assert!(error.contains(&wanted) && error.contains("authorization required"), "{error}");
    assert!(!error.contains("guess"), "{error}");
}

#[tokio::test]
async fn what_is_named_goes_past_the_proxy() {
    let fake = Fake::start(|_| Reply::new(500, "nobody finds it"));
    let proxy = Proxy::start(fake.address);
    let error = behind(&proxy, "ann:secret", "test").refused("registry.test/team/web:1").await;
    assert!(matches!(error, Kind::Unreachable { .. }), "{error}");
    assert!(proxy.asked().is_empty() && fake.asked().is_empty());
}
