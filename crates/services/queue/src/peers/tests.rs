//! Tests against our own nsqlookupd, over real sockets.

use runtime::Clock;
use serde_json::Value;

use super::*;
use crate::{lookupd, web::Client};

const CLIENT: Client = Client { connect: Duration::from_secs(5), request: Duration::from_secs(5) };

/// Topics as a test says.
#[derive(Debug, Default)]
struct Fake {
    topology: Mutex<Topology>,
    changes: watch::Sender<u64>,
}

impl Fake {
    fn change(&self, change: impl FnOnce(&mut Topology)) {
        change(&mut self.topology.lock().unwrap());
        self.changes.send_modify(|it| *it += 1);
    }

    fn add(&self, topic: &str, channel: &str) {
        self.change(|it| {
            it.entry(name(topic)).or_default().extend(Name::parse(channel));
        });
    }
}

impl Topics for Fake {
    fn topology(&self) -> Topology {
        self.topology.lock().unwrap().clone()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
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

fn nsqd(lookupds: Vec<String>, topics: &Arc<Fake>, tasks: &Tasks) -> Handle {
    let identity = Identity {
        broadcast_address: "10.0.0.1".to_owned(),
        hostname: "h".to_owned(),
        http_port: 4151,
        tcp_port: 4150,
        topology_region: String::new(),
        topology_zone: "z".to_owned(),
    };
    let peers = build(Config { lookupds, identity }, Arc::clone(topics)).unwrap();
    let handle = peers.handle();
    peers.run(tasks);
    handle
}

/// Waits until the nsqlookupd shows `wanted` for its only producer.
async fn until(lookupd: &lookupd::Handle, wanted: &[&str]) -> Value {
    let address = lookupd.http_address().to_string();
    for _ in 0..2_000 {
        let nodes: Value = CLIENT.get(&address, "/nodes").await.unwrap();
        let topics = nodes["producers"][0]["topics"].as_array().cloned().unwrap_or_default();
        if topics == wanted {
            return nodes;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never had {wanted:?}");
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
    while !peers.http_addresses().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
    here.add("new", "b");
    let wanted: BTreeSet<Name> = [name("a"), name("b")].into();
    for _ in 0..2_000 {
        if here.topology()[&name("new")] == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(here.topology()[&name("new")], wanted);
    assert!(here.topology()[&name("old")].is_empty());
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[test]
fn there_is_a_limit() {
    let many = (0..=LOOKUPDS_MAX).map(|it| format!("h:{it}")).collect();
    let identity = Identity {
        broadcast_address: String::new(),
        hostname: String::new(),
        http_port: 1,
        tcp_port: 1,
        topology_region: String::new(),
        topology_zone: String::new(),
    };
    let config = Config { lookupds: many, identity };
    let built = build(config, Arc::new(Fake::default()));
    assert_eq!(built.err(), Some(TooMany(LOOKUPDS_MAX + 1)));
}
