//! What clients see of a full disk: publishing is refused with what to do about it, consuming goes
//! on, nothing that was acknowledged is lost, and nobody has to start anything anew.

use std::{path::PathBuf, time::Duration};

use runtime::{Clock, Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Clients, Options};
use crate::{
    Durability,
    broker::{Broker, Config},
    disk::simulated::Simulated,
    listen::Listener,
    message::NodeId,
};

/// How long anything may take that is expected soon; long, for a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Less than what logs leave to others, enough for the journal.
const LITTLE: usize = 1 << 20;

const REFUSED: &str = "no room on the disk of /data/topics/t.topic: free some, or let finished \
     messages go sooner (-retention-size, -retention-age); then it goes on by itself: ";

struct Nsqd {
    broker: Broker,
    address: std::net::SocketAddr,
}

impl Nsqd {
    async fn start(disk: &Simulated) -> Self {
        let config =
            Config { durability: Durability::Disk, ..Config::new(NodeId::new(1).unwrap()) };
        let (clock, tasks) = (Clock::system(), Tasks::default());
        let folder = PathBuf::from("/data");
        let broker = Broker::open(config, disk.arc(), folder, clock.clone(), tasks.clone());
        let broker = broker.await.unwrap();
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.tcp_address().unwrap();
        let (options, clients) = (Options::default(), Clients::default());
        let server = super::build(listener, options, broker.clone(), clients, clock).unwrap();
        server.run(&tasks);
        Self { broker, address }
    }

    async fn connect(&self) -> Client {
        let mut client = Client(TcpStream::connect(self.address).await.unwrap());
        client.0.write_all(b"  V2").await.unwrap();
        client
    }

    /// What a client is told that publishes like this.
    async fn publish(&self, line: &str, body: &[u8]) -> String {
        let mut client = self.connect().await;
        client.say(line, body).await;
        client.frame().await
    }

    /// What a client is told that consumes; with the client.
    async fn consume(&self, channel: &str) -> (Client, String) {
        let mut client = self.connect().await;
        client.0.write_all(format!("SUB t {channel}\nRDY 1\n").as_bytes()).await.unwrap();
        let told = client.frame().await;
        (client, told)
    }

    async fn until_health(&self, what: impl Fn(Result<(), String>) -> bool) {
        let looking = async {
            while !what(self.broker.health()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(SOON, looking).await.expect("it did not come to that");
    }
}

struct Client(TcpStream);

impl Client {
    async fn say(&mut self, line: &str, body: &[u8]) {
        let size = u32::try_from(body.len()).unwrap().to_be_bytes();
        let all = [line.as_bytes(), b"\n", &size, body].concat();
        self.0.write_all(&all).await.unwrap();
    }

    /// The next frame; of a message, its attempts and body.
    async fn frame(&mut self) -> String {
        let data = self.bytes().await;
        String::from_utf8_lossy(data.get(4..).unwrap()).into_owned()
    }

    async fn bytes(&mut self) -> Vec<u8> {
        let reading = async {
            let size = self.0.read_u32().await.unwrap();
            let mut data = vec![0; usize::try_from(size).unwrap()];
            self.0.read_exact(&mut data).await.unwrap();
            data
        };
        timeout(SOON, reading).await.expect("nothing was said")
    }

    /// The next message is this one; it is finished.
    async fn takes(&mut self, body: &[u8]) {
        let frame = self.bytes().await;
        let (head, found) = frame.split_at(30);
        assert_eq!(String::from_utf8_lossy(found), String::from_utf8_lossy(body));
        let id = &head[14..30];
        self.0.write_all(&[b"FIN ", id, b"\n"].concat()).await.unwrap();
    }
}

const BATCH: &[u8] = b"\0\0\0\x02\0\0\0\x01x\0\0\0\x01y";

#[tokio::test]
async fn publishing_is_refused_and_consuming_goes_on() {
    let disk = Simulated::new(1);
    let nsqd = Nsqd::start(&disk).await;
    for body in ["one", "two", "three"] {
        assert_eq!(nsqd.publish("PUB t", body.as_bytes()).await, "OK");
    }
    disk.leave_room(Some(LITTLE));
    for (line, body, code) in [
        ("PUB t", &b"refused"[..], "E_PUB_FAILED PUB failed "),
        ("MPUB t", BATCH, "E_MPUB_FAILED MPUB failed "),
        ("DPUB t 1000", b"refused", "E_DPUB_FAILED DPUB failed "),
    ] {
        let told = nsqd.publish(line, body).await;
        assert!(told.starts_with(&(code.to_owned() + REFUSED)), "{told}");
        assert!(told.ends_with("33554432 are kept for other uses"), "{told}");
    }
    let health = nsqd.broker.health().unwrap_err();
    assert!(health.starts_with(&format!("topic t: {REFUSED}")), "{health}");
    // What is kept for the journal serves consumers old and new.
    let (mut consumer, told) = nsqd.consume("c").await;
    assert_eq!(told, "OK");
    consumer.takes(b"one").await;
    consumer.takes(b"two").await;

    disk.leave_room(Some(0));
    consumer.takes(b"three").await;
    nsqd.until_health(|it| it.is_err_and(|it| it.contains("journal"))).await;
    drop(consumer);
    let (_, told) = nsqd.consume("c").await;
    assert_eq!(told, "OK", "a channel that is there needs nothing written");
    let (_, told) = nsqd.consume("new").await;
    let why = "E_SUB_FAILED SUB failed cannot write the journal at /data/journal: free some room";
    assert!(told.starts_with(why), "{told}");

    disk.leave_room(None);
    nsqd.until_health(|it| it.is_ok()).await;
    assert_eq!(nsqd.publish("PUB t", b"four").await, "OK");
    let (mut consumer, _) = nsqd.consume("c").await;
    consumer.takes(b"four").await;
    assert_eq!(nsqd.publish("MPUB t", BATCH).await, "OK");

    let again = Nsqd::start(&disk.power_cut()).await;
    let (mut consumer, _) = again.consume("other").await;
    assert_eq!(again.publish("PUB t", b"last").await, "OK");
    consumer.takes(b"last").await;
    // Of what was finished some may come again, but all that was acknowledged is there, and no more.
    let topic = crate::name::Name::parse("t").unwrap();
    let stats = again.broker.existing_topic(&topic).unwrap().stats();
    assert_eq!(stats.first.until(stats.next), 7);
}

/// A topic cannot be made without room for its files; the client learns which, and that it may try
/// again.
#[tokio::test]
async fn a_new_topic_needs_room() {
    let disk = Simulated::new(1);
    let nsqd = Nsqd::start(&disk).await;
    disk.leave_room(Some(0));
    let told = nsqd.publish("PUB t", b"a").await;
    let why = "E_PUB_FAILED PUB failed cannot write the journal at /data/journal: ";
    assert!(told.starts_with(why), "{told}");
    disk.leave_room(None);
    nsqd.until_health(|it| it.is_ok()).await;
    assert_eq!(nsqd.publish("PUB t", b"a").await, "OK");
}
