//! tokio-nsq: the same as the clients for Python do in `../../scenario.py`, in its own words. What it does not
//! tell is why a connection fails: with a wrong secret it tries for ever.

use std::{
    collections::{BTreeSet, HashSet},
    error::Error,
    fs::File,
    io::BufReader,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio_nsq::{
    NSQChannel, NSQConfigShared, NSQConfigSharedCompression, NSQConfigSharedTLS, NSQConsumer,
    NSQConsumerConfig, NSQConsumerConfigSources, NSQConsumerLookupConfig, NSQDeflateLevel,
    NSQEvent, NSQMessage, NSQProducer, NSQProducerConfig, NSQRequeueDelay, NSQTopic,
};

type Done<T = ()> = Result<T, Box<dyn Error>>;

/// Deferred for so long.
const LATER: Duration = Duration::from_millis(300);
/// The client gathers what it sends for so long.
const FLUSH: Duration = Duration::from_millis(5);

/// The servers of the test: where they are, and what can be asked of them.
struct Servers(Value);

impl Servers {
    fn at(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    /// Has the test do something to its servers, and waits until it is done.
    fn ask(&self, words: &str) -> Done {
        println!("@{words}");
        let mut answer = String::new();
        tokio::task::block_in_place(|| std::io::stdin().read_line(&mut answer))?;
        if answer == "done\n" { Ok(()) } else { Err(format!("the servers did not {words}").into()) }
    }

    fn daemon(&self) -> NSQConsumerConfigSources {
        NSQConsumerConfigSources::Daemons(vec![self.at("tcp").to_owned()])
    }
}

struct Writer(NSQProducer);

impl Writer {
    async fn connect(address: &str, shared: NSQConfigShared) -> Done<Self> {
        let mut writer = Self(NSQProducerConfig::new(address).set_shared(shared).build());
        writer.connected().await?;
        Ok(writer)
    }

    /// Waits until it is connected, also after its connection was lost.
    async fn connected(&mut self) -> Done {
        match self.0.consume().await {
            Some(NSQEvent::Healthy()) => Ok(()),
            event => Err(format!("a producer without connection: {event:?}").into()),
        }
    }

    async fn answer(&mut self) -> &'static str {
        match self.0.consume().await {
            Some(NSQEvent::Ok()) => "OK",
            _ => "something else",
        }
    }

    async fn publish(&mut self, topic: &Arc<NSQTopic>, body: &[u8]) -> Done<&'static str> {
        self.0.publish(topic, body.to_vec()).await?;
        Ok(self.answer().await)
    }
}

fn topic(name: &str) -> Done<Arc<NSQTopic>> {
    Ok(NSQTopic::new(name).ok_or("no name of a topic")?)
}

fn shared() -> NSQConfigShared {
    NSQConfigShared::new().set_flush_interval(FLUSH)
}

fn subscribe(
    topic: &Arc<NSQTopic>,
    sources: NSQConsumerConfigSources,
    shared: NSQConfigShared,
) -> Done<NSQConsumer> {
    let channel = NSQChannel::new("workers").ok_or("no name of a channel")?;
    let config = NSQConsumerConfig::new(Arc::clone(topic), channel).set_max_in_flight(10);
    Ok(config.set_sources(sources).set_shared(shared).build())
}

async fn next(reader: &mut NSQConsumer) -> Done<NSQMessage> {
    Ok(reader.consume_filtered().await.ok_or("the consumer has ended")?)
}

fn show(message: &NSQMessage) -> String {
    format!("{}, attempt {}", text(message), message.attempt)
}

fn text(message: &NSQMessage) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

#[tokio::main]
async fn main() -> Done {
    let argument = std::env::args().nth(1).ok_or("where the servers are")?;
    let servers = Servers(serde_json::from_str(&argument)?);
    let mut writer = Writer::connect(servers.at("tcp"), shared()).await?;
    plain(&servers, &mut writer).await?;
    found(&servers, &mut writer).await?;
    killed(&servers, writer).await?;

    let mut config = rustls::ClientConfig::new();
    let added = config.root_store.add_pem_file(&mut BufReader::new(File::open(servers.at("ca"))?));
    added.map_err(|()| "no certificate")?;
    // It knows no certificates of addresses.
    let tls = NSQConfigSharedTLS::new("localhost").set_client_config(Arc::new(config));
    let level = NSQDeflateLevel::new(6).ok_or("no level")?;
    let (snappy, deflate) =
        (NSQConfigSharedCompression::Snappy, NSQConfigSharedCompression::Deflate(level));
    let transports = [
        ("TLS", shared().set_tls(tls.clone())),
        ("Snappy", shared().set_compression(snappy.clone())),
        ("Deflate", shared().set_compression(deflate.clone())),
        ("TLS and Snappy", shared().set_tls(tls.clone()).set_compression(snappy)),
        ("TLS and Deflate", shared().set_tls(tls).set_compression(deflate)),
    ];
    for (number, (name, shared)) in transports.into_iter().enumerate() {
        println!("\n# {name}");
        transport(&servers, &format!("transport-{number}"), shared).await?;
    }
    guarded(&servers).await
}

async fn plain(servers: &Servers, writer: &mut Writer) -> Done {
    println!("# Publishing and consuming");
    servers.ask("topic plain")?;
    let topic = topic("plain")?;
    let mut reader = subscribe(&topic, servers.daemon(), shared())?;
    println!("published: {}", writer.publish(&topic, b"one").await?);
    let message = next(&mut reader).await?;
    println!("consumed: {}", show(&message));
    message.requeue(NSQRequeueDelay::NoDelay).await;
    let message = next(&mut reader).await?;
    println!("requeued: {}", show(&message));
    message.finish().await;
    let several = ["x", "y", "z"].map(|it| it.as_bytes().to_vec());
    writer.0.publish_multiple(&topic, several.to_vec()).await?;
    println!("several: {}", writer.answer().await);
    let mut bodies = BTreeSet::new();
    for _ in 0..3 {
        let message = next(&mut reader).await?;
        bodies.insert(text(&message));
        message.finish().await;
    }
    println!("consumed: {}", bodies.into_iter().collect::<Vec<_>>().join(" "));
    let begin = Instant::now();
    writer.0.publish_deferred(&topic, b"later".to_vec(), LATER.as_millis() as u32).await?;
    println!("deferred: {}", writer.answer().await);
    let message = next(&mut reader).await?;
    let late = if begin.elapsed() >= LATER { "in time" } else { "too early" };
    println!("consumed: {} {late}", show(&message));
    message.finish().await;
    servers.ask("finished plain workers")
}

async fn found(servers: &Servers, writer: &mut Writer) -> Done {
    println!("\n# Through nsqlookupd");
    servers.ask("topic found")?;
    let topic = topic("found")?;
    let addresses = HashSet::from([format!("http://{}", servers.at("lookupd"))]);
    let lookup = NSQConsumerLookupConfig::new().set_addresses(addresses);
    let mut reader = subscribe(&topic, NSQConsumerConfigSources::Lookup(lookup), shared())?;
    println!("published: {}", writer.publish(&topic, b"found").await?);
    let message = next(&mut reader).await?;
    println!("consumed: {}", show(&message));
    message.finish().await;
    servers.ask("finished found workers")
}

async fn killed(servers: &Servers, mut writer: Writer) -> Done {
    println!("\n# Killed");
    servers.ask("topic kept")?;
    let topic = topic("kept")?;
    let mut reader = subscribe(&topic, servers.daemon(), shared())?;
    let (mut left, mut answers) = (BTreeSet::new(), BTreeSet::new());
    for number in 0..20 {
        let body = format!("m{number}");
        answers.insert(writer.publish(&topic, body.as_bytes()).await?);
        left.insert(body);
    }
    println!("published: {}", answers.into_iter().collect::<Vec<_>>().join(" "));
    for _ in 0..5 {
        let message = next(&mut reader).await?;
        left.remove(&text(&message));
        message.finish().await;
    }
    println!("consumed: 5");
    servers.ask("kill")?;
    servers.ask("start")?;
    // It would connect again by itself, but keeps what it had over the old connection.
    drop(reader);
    let mut reader = subscribe(&topic, servers.daemon(), shared())?;
    writer.connected().await?;
    servers.ask("subscribed kept workers")?;
    println!("published: {}", writer.publish(&topic, b"after").await?);
    left.insert("after".to_owned());
    // What was finished just before the kill may come again.
    while !left.is_empty() {
        let message = next(&mut reader).await?;
        left.remove(&text(&message));
        message.finish().await;
    }
    println!("consumed: all that were left");
    servers.ask("finished kept workers")
}

async fn transport(servers: &Servers, name: &str, shared: NSQConfigShared) -> Done {
    servers.ask(&format!("topic {name}"))?;
    let topic = topic(name)?;
    // Larger than any buffer on the way, and well compressible.
    let large = b"0123456789".repeat(30_000);
    let mut writer = Writer::connect(servers.at("tcp"), shared.clone()).await?;
    let mut reader = subscribe(&topic, servers.daemon(), shared)?;
    let small = writer.publish(&topic, b"small").await?;
    println!("published: {small} {}", writer.publish(&topic, &large).await?);
    let mut bodies = BTreeSet::new();
    for _ in 0..2 {
        let message = next(&mut reader).await?;
        bodies.insert(message.body.clone());
        message.finish().await;
    }
    let same = bodies == BTreeSet::from([b"small".to_vec(), large]);
    println!("consumed: {}", if same { "the same" } else { "something else" });
    servers.ask(&format!("finished {name} workers"))
}

async fn guarded(servers: &Servers) -> Done {
    println!("\n# With a secret");
    let topic = topic("guarded")?;
    let shared = shared().set_credentials(servers.at("secret").as_bytes().to_vec());
    let mut writer = Writer::connect(servers.at("guarded"), shared.clone()).await?;
    println!("published: {}", writer.publish(&topic, b"for me").await?);
    let daemon = NSQConsumerConfigSources::Daemons(vec![servers.at("guarded").to_owned()]);
    let mut reader = subscribe(&topic, daemon, shared)?;
    let message = next(&mut reader).await?;
    println!("consumed: {}", show(&message));
    message.finish().await;
    Ok(())
}
