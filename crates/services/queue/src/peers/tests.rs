//! Tests against our own nsqlookupd, over real sockets.

use runtime::Clock;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{lookupd, web::Client};

const CLIENT: Client =
    Client { connect: Duration::from_secs(5), request: Duration::from_secs(5), tls: None };

/// How long anything may take that is expected soon; long, for a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Waits until something is so; how long it took.
async fn eventually(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let started = tokio::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed() < SOON, "after {SOON:?} it is not so that {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    started.elapsed()
}

/// Topics as a test says.
#[derive(Debug, Default)]
struct Fake {
    topology: Mutex<Topology>,
    held: Mutex<BTreeSet<Name>>,
    holds: std::sync::atomic::AtomicBool,
    changes: watch::Sender<u64>,
}

impl Fake {
    fn change(&self, change: impl FnOnce(&mut Topology)) {
        change(&mut self.topology.lock().unwrap());
        self.changes.send_modify(|it| *it += 1);
    }

    fn add(&self, topic: &str, channel: &str) {
        self.change(|it| {
            let is_new = !it.contains_key(&name(topic));
            if is_new && self.holds.load(std::sync::atomic::Ordering::Relaxed) {
                self.held.lock().unwrap().insert(name(topic));
            }
            it.entry(name(topic)).or_default().extend(Name::parse(channel));
        });
    }

    /// Waits until the topic is not held; how long it was.
    async fn goes_on(&self, topic: &str) -> Duration {
        eventually("the topic goes on", || !self.held().contains(&name(topic))).await
    }

    async fn holds(&self) {
        let holds = || self.holds.load(std::sync::atomic::Ordering::Relaxed);
        eventually("new topics are held", holds).await;
    }
}

impl Topics for Fake {
    fn topology(&self) -> Topology {
        self.topology.lock().unwrap().clone()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn hold_new(&self, hold: bool) {
        self.holds.store(hold, std::sync::atomic::Ordering::Relaxed);
    }

    fn held(&self) -> BTreeSet<Name> {
        self.held.lock().unwrap().clone()
    }

    fn exists(&self, topic: &Name) -> bool {
        self.topology().contains_key(topic)
    }

    fn release(&self, topic: &Name) {
        self.held.lock().unwrap().remove(topic);
    }

    fn create(&self, topic: &Name, channels: &BTreeSet<Name>) {
        self.change(|it| it.entry(topic.clone()).or_default().extend(channels.iter().cloned()));
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

async fn lookupd_at(tcp: &str, http: &str, tasks: &Tasks) -> lookupd::Handle {
    let mut config = lookupd::Config::new("127.0.0.1");
    config.tcp_address = tcp.to_owned();
    config.http_address = http.to_owned();
    let lookupd = lookupd::build(config, Clock::system()).await.unwrap();
    let handle = lookupd.handle();
    lookupd.run(tasks);
    handle
}

fn config(lookupds: Vec<String>) -> Config {
    let identity = Identity {
        broadcast_address: "10.0.0.1".to_owned(),
        hostname: "h".to_owned(),
        http_port: 4151,
        tcp_port: 4150,
        topology_region: String::new(),
        topology_zone: "z".to_owned(),
    };
    let (connect_timeout, request_timeout) = (Duration::from_secs(2), Duration::from_secs(5));
    Config { lookupds, identity, connect_timeout, request_timeout }
}

fn nsqd<T: Topics>(lookupds: Vec<String>, topics: &Arc<T>, tasks: &Tasks) -> Handle {
    run(config(lookupds), topics, tasks)
}

fn run<T: Topics>(config: Config, topics: &Arc<T>, tasks: &Tasks) -> Handle {
    let peers = build(config, Arc::clone(topics)).unwrap();
    let handle = peers.handle();
    peers.run(tasks);
    handle
}

/// Waits until the nsqlookupd shows `wanted` for its only producer.
async fn until(lookupd: &lookupd::Handle, wanted: &[&str]) -> Value {
    let address = lookupd.http_address().to_string();
    let started = tokio::time::Instant::now();
    loop {
        let nodes: Value = CLIENT.get(&address, "/nodes").await.unwrap();
        let topics = nodes["producers"][0]["topics"].as_array().cloned().unwrap_or_default();
        if topics == wanted {
            return nodes;
        }
        assert!(started.elapsed() < SOON, "it has {topics:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn channels(lookupd: &lookupd::Handle, topic: &str) -> Value {
    let address = lookupd.http_address().to_string();
    CLIENT.get::<Value>(&address, &format!("/channels?topic={topic}")).await.unwrap()["channels"]
        .clone()
}

#[tokio::test]
async fn an_nsqlookupd_knows_what_is_here() {
    let tasks = Tasks::default();
    let lookupd = lookupd_at("127.0.0.1:0", "127.0.0.1:0", &tasks).await;
    let topics = Arc::new(Fake::default());
    topics.add("a", "x");
    let peers = nsqd(vec![lookupd.tcp_address().to_string()], &topics, &tasks);
    let nodes = until(&lookupd, &["a"]).await;
    assert_eq!(nodes["producers"][0]["topology_zone"], "z");
    assert_eq!(nodes["producers"][0]["version"], VERSION);
    assert_eq!(channels(&lookupd, "a").await, serde_json::json!(["x"]));
    topics.add("b", "y#ephemeral");
    until(&lookupd, &["a", "b"]).await;
    topics.change(|it| drop(it.remove(&name("b"))));
    until(&lookupd, &["a"]).await;
    assert_eq!(channels(&lookupd, "b").await, serde_json::json!([]));
    assert_eq!(peers.http_addresses(), [lookupd.http_address().to_string()]);
    peers.set_lookupds(Vec::new()).unwrap();
    until(&lookupd, &[]).await;
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn an_nsqlookupd_that_was_away_is_told_again() {
    let (tasks, of_first) = (Tasks::default(), Tasks::default());
    let first = lookupd_at("127.0.0.1:0", "127.0.0.1:0", &of_first).await;
    let (tcp, http) = (first.tcp_address().to_string(), first.http_address().to_string());
    let topics = Arc::new(Fake::default());
    topics.add("a", "");
    let peers = nsqd(vec![tcp.clone()], &topics, &tasks);
    until(&first, &["a"]).await;
    assert!(of_first.shutdown(Duration::from_secs(5)).await);
    eventually("it is known to be away", || peers.http_addresses().is_empty()).await;
    topics.add("b", "");
    let second = lookupd_at(&tcp, &http, &tasks).await;
    until(&second, &["a", "b"]).await;
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_new_topic_has_the_channels_it_has_elsewhere() {
    let tasks = Tasks::default();
    let lookupd = lookupd_at("127.0.0.1:0", "127.0.0.1:0", &tasks).await;
    let elsewhere = Arc::new(Fake::default());
    elsewhere.add("old", "a");
    elsewhere.add("new", "a");
    elsewhere.add("new", "b");
    elsewhere.add("new", "c#ephemeral");
    let lookupds = vec![lookupd.tcp_address().to_string()];
    let _first = nsqd(lookupds.clone(), &elsewhere, &tasks);
    until(&lookupd, &["new", "old"]).await;
    let here = Arc::new(Fake::default());
    // Not new: it had the channels it was to have.
    here.add("old", "");
    let _second = nsqd(lookupds, &here, &tasks);
    here.holds().await;
    here.add("new", "b");
    let wanted: BTreeSet<Name> = [name("a"), name("b")].into();
    let has_them = || here.topology()[&name("new")] == wanted;
    eventually("the new topic has its channels", has_them).await;
    assert!(here.topology()[&name("old")].is_empty());
    here.goes_on("new").await;
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

/// An nsqlookupd whose HTTP takes its time and knows these channels of every topic, or which says
/// nothing at all if there is no such time; its TCP address.
async fn slow(takes: Option<Duration>, channels: &'static str, tasks: &Tasks) -> String {
    let (tcp, http) = (
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let address = tcp.local_addr().unwrap().to_string();
    let port = http.local_addr().unwrap().port();
    let how = crate::web::Serve { name: "slow", clients_max: 8, answers_half_closed: true };
    crate::web::serve(http, how, tasks, move |_, _| async move {
        tokio::time::sleep(takes.unwrap_or_default()).await;
        crate::web::v1(Ok(crate::web::Reply::Json(format!(r#"{{"channels":[{channels}]}}"#))))
    });
    tasks.spawn("slow", OnExit::Log, move |stop| async move {
        let served = stop.run_until_cancelled(converse(tcp, port, takes.is_some())).await;
        served.unwrap_or(Ok(()))
    });
    address
}

/// The TCP side of an nsqlookupd that takes everything, or says nothing at all.
async fn converse(
    tcp: tokio::net::TcpListener,
    http_port: u16,
    answers: bool,
) -> anyhow::Result<()> {
    loop {
        let (mut socket, _) = tcp.accept().await?;
        if !answers {
            std::future::pending::<()>().await;
        }
        let mut bytes = [0; 4096];
        // Commands come one at a time, each after the answer to the one before.
        let mut answer = format!(r#"{{"broadcast_address":"127.0.0.1","http_port":{http_port}}}"#);
        while socket.read(&mut bytes).await? > 0 {
            socket.write_u32(u32::try_from(answer.len())?).await?;
            socket.write_all(answer.as_bytes()).await?;
            answer = "OK".to_owned();
        }
    }
}

async fn broker(folder: &tempfile::TempDir) -> Broker {
    let node = crate::message::NodeId::new(1).unwrap();
    let config =
        crate::broker::Config { hold_new_topics: true, ..crate::broker::Config::new(node) };
    let (disk, folder) = (Arc::new(crate::disk::Folders), folder.path().to_owned());
    Broker::open(config, disk, folder, Clock::system(), Tasks::default()).await.unwrap()
}

#[tokio::test]
async fn no_channel_misses_what_another_got_before_an_nsqlookupd_answered() {
    let (tasks, folder) = (Tasks::default(), tempfile::tempdir().unwrap());
    let takes = Duration::from_millis(400);
    let lookupd = slow(Some(takes), r#""a","b","c#ephemeral""#, &tasks).await;
    let broker = Arc::new(broker(&folder).await);
    let peers = nsqd(vec![lookupd], &broker, &tasks);
    eventually("it is connected", || !peers.http_addresses().is_empty()).await;
    let started = tokio::time::Instant::now();
    let topic = broker.topic(&name("t")).await.unwrap();
    let message = crate::message::NewMessage::new("m".into());
    // Publishers do not wait.
    topic.publish(&[message]).unwrap().committed().await.unwrap();
    let x = topic.channel(&name("x")).unwrap();
    let consumer = x.subscribe(crate::broker::ClientId(1), Duration::from_mins(1), None).unwrap();
    consumer.ready(1);
    assert!(topic.is_held() && started.elapsed() < takes, "this test needs a faster machine");
    let mut got = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), consumer.next(&mut got)).await.unwrap();
    assert!(takes <= started.elapsed(), "{:?}", started.elapsed());
    assert!(!topic.is_held());
    let depths: Vec<_> = topic
        .channels()
        .iter()
        .map(|it| (it.name().to_string(), it.stats().depth + it.stats().in_flight as u64))
        .collect();
    assert_eq!(depths, [("a".to_owned(), 1), ("b".to_owned(), 1), ("x".to_owned(), 1)]);
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn an_nsqlookupd_that_is_not_there_holds_nothing() {
    let tasks = Tasks::default();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let here = Arc::new(Fake::default());
    here.hold_new(true);
    here.add("t", "");
    // That it is not there is known as soon as it was tried, long before an answer may take.
    let _peers = nsqd(vec![address], &here, &tasks);
    assert!(here.goes_on("t").await < Duration::from_secs(4));
    here.add("u", "");
    assert!(here.goes_on("u").await < Duration::from_secs(4));
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn an_nsqlookupd_that_says_nothing_does_not_hold_for_long() {
    let tasks = Tasks::default();
    let silent = slow(None, "", &tasks).await;
    let late = slow(Some(Duration::from_secs(3)), "", &tasks).await;
    for lookupd in [silent, late] {
        let here = Arc::new(Fake::default());
        here.hold_new(true);
        here.add("t", "");
        let request_timeout = Duration::from_millis(300);
        let of_one = tasks.component();
        let config = Config { request_timeout, ..config(vec![lookupd]) };
        let _peers = run(config, &here, &of_one);
        let held = here.goes_on("t").await;
        assert!(held < Duration::from_secs(4), "{held:?}");
        assert!(of_one.shutdown(Duration::from_secs(5)).await);
    }
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn without_nsqlookupds_nothing_is_held_any_more() {
    let tasks = Tasks::default();
    let silent = slow(None, "", &tasks).await;
    let here = Arc::new(Fake::default());
    let peers = nsqd(vec![silent], &here, &tasks);
    here.holds().await;
    here.add("t", "");
    peers.set_lookupds(Vec::new()).unwrap();
    assert!(here.goes_on("t").await < Duration::from_secs(4));
    here.add("u", "");
    assert!(here.held().is_empty());
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[test]
fn there_is_a_limit() {
    let many = (0..=LOOKUPDS_MAX).map(|it| format!("h:{it}")).collect();
    let built = build(config(many), Arc::new(Fake::default()));
    assert_eq!(built.err(), Some(TooMany(LOOKUPDS_MAX + 1)));
}
