//! An nsqd of the test, and a client that says what the test wants and tells every frame.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use coracle_queue::{
    Durability,
    broker::{Broker, Config},
    disk::Folders,
    listen::Listener,
    message::NodeId,
    name::Name,
    protocol::{self, ClientStats, Clients, Options},
};
use runtime::{Clock, Tasks};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long anything may take that is expected to happen at once; long, for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// An nsqd; it ends with the test.
pub(crate) struct Nsqd {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Broker,
    pub(crate) clients: Clients,
    pub(crate) tasks: Tasks,
    topics: Tasks,
    folder: Arc<TempDir>,
}

impl Nsqd {
    pub(crate) async fn start(options: Options) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::start_in(folder, Durability::Memory, options).await
    }

    pub(crate) async fn start_in(
        folder: Arc<TempDir>,
        durability: Durability,
        options: Options,
    ) -> Self {
        let config = Config { durability, ..Config::new(NodeId::new(1).unwrap()) };
        Self::start_as(folder, config, options).await
    }

    pub(crate) async fn start_as(folder: Arc<TempDir>, config: Config, options: Options) -> Self {
        let (clock, tasks, clients) = (Clock::system(), Tasks::default(), Clients::default());
        let (disk, path) = (Arc::new(Folders), folder.path().to_owned());
        let topics = tasks.component();
        let broker = Broker::open(config, disk, path, clock.clone(), topics.clone()).await.unwrap();
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.tcp_address().unwrap();
        let server =
            protocol::build(listener, options, broker.clone(), clients.clone(), clock).unwrap();
        server.run(&tasks);
        Self { address, broker, clients, tasks, topics, folder }
    }

    /// Ends as a program does that is asked to; its folder can be had by another then.
    pub(crate) async fn stop(self) -> Arc<TempDir> {
        assert!(self.tasks.shutdown(SOON).await);
        self.broker.close().await.unwrap();
        assert!(self.topics.shutdown(SOON).await);
        self.folder
    }

    /// A client that has said which protocol it speaks.
    pub(crate) async fn connect(&self) -> Client<TcpStream> {
        let mut client = Client(TcpStream::connect(self.address).await.unwrap());
        client.say("  V2").await;
        client
    }

    /// A client that consumes.
    pub(crate) async fn consume(
        &self,
        topic: &str,
        channel: &str,
        ready: u32,
    ) -> Client<TcpStream> {
        let mut client = self.connect().await;
        client.say(format!("SUB {topic} {channel}\n")).await;
        assert_eq!(client.frame().await, Frame::Response("OK".to_owned()));
        client.say(format!("RDY {ready}\n")).await;
        client
    }

    /// Waits until what is told of the clients is so.
    pub(crate) async fn until(&self, what: impl Fn(&[ClientStats]) -> bool) {
        until(|| what(&self.clients.snapshot())).await;
    }

    pub(crate) fn depth(&self, topic: &str) -> u64 {
        self.broker.existing_topic(&name(topic)).map_or(0, |it| it.stats().depth)
    }
}

/// Looks again and again until it is so.
pub(crate) async fn until(what: impl Fn() -> bool) {
    let looking = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, looking).await.expect("it did not come to that");
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// What nsqd says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Response(String),
    Error(String),
    Message { id: String, attempts: u16, body: String },
}

pub(crate) struct Client<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(SOON, self.0.write_all(bytes.as_ref())).await.expect("nsqd does not read").unwrap();
        self.0.flush().await.unwrap();
    }

    /// A command with a body.
    pub(crate) async fn say_with(&mut self, line: &str, body: impl AsRef<[u8]>) {
        self.say(command(line, body)).await;
    }

    /// Publishes and waits until that is safe.
    pub(crate) async fn publish(&mut self, topic: &str, body: impl AsRef<[u8]>) {
        self.say_with(&format!("PUB {topic}"), body).await;
        assert_eq!(self.frame().await, Frame::Response("OK".to_owned()));
    }

    /// Tells of itself; the answer.
    pub(crate) async fn identify(&mut self, mut wants: Value) -> Value {
        wants["feature_negotiation"] = true.into();
        self.say_with("IDENTIFY", wants.to_string()).await;
        match self.frame().await {
            Frame::Response(answer) => serde_json::from_str(&answer).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The next frame, heartbeats too.
    pub(crate) async fn any_frame(&mut self) -> io::Result<Frame> {
        let read = async {
            let size = usize::try_from(self.0.read_u32().await?).unwrap();
            let kind = self.0.read_u32().await?;
            let mut data = vec![0; size - 4];
            self.0.read_exact(&mut data).await?;
            let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
            Ok(match kind {
                0 => Frame::Response(text(&data)),
                1 => Frame::Error(text(&data)),
                2 => Frame::Message {
                    attempts: u16::from_be_bytes([data[8], data[9]]),
                    id: text(&data[10..26]),
                    body: text(&data[26..]),
                },
                other => panic!("a frame of type {other}"),
            })
        };
        timeout(SOON, read).await.expect("nsqd says nothing")
    }

    /// The next frame that is no heartbeat; heartbeats are answered.
    pub(crate) async fn frame(&mut self) -> Frame {
        let other = async {
            loop {
                match self.any_frame().await.unwrap() {
                    Frame::Response(it) if it == "_heartbeat_" => self.say("NOP\n").await,
                    other => return other,
                }
            }
        };
        timeout(SOON, other).await.expect("nsqd says nothing but heartbeats")
    }

    /// A message: its id, attempts and body.
    pub(crate) async fn message(&mut self) -> (String, u16, String) {
        match self.frame().await {
            Frame::Message { id, attempts, body } => (id, attempts, body),
            other => panic!("{other:?}"),
        }
    }

    /// Why it is refused; then nsqd must hang up.
    pub(crate) async fn refused(&mut self) -> String {
        let Frame::Error(why) = self.frame().await else { panic!("not refused") };
        self.hung_up().await;
        why
    }

    /// nsqd hangs up without another word, heartbeats aside.
    pub(crate) async fn hung_up(&mut self) {
        let end = async {
            loop {
                match self.any_frame().await {
                    Ok(Frame::Response(it)) if it == "_heartbeat_" => {}
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => return,
                }
            }
        };
        timeout(SOON, end).await.expect("nsqd does not hang up");
    }
}

pub(crate) fn command(line: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let size = u32::try_from(body.len()).unwrap().to_be_bytes();
    [line.as_bytes(), b"\n", &size, body].concat()
}

/// The body of `MPUB`.
pub(crate) fn batch(bodies: &[&[u8]]) -> Vec<u8> {
    let mut batch = u32::try_from(bodies.len()).unwrap().to_be_bytes().to_vec();
    for body in bodies {
        batch.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        batch.extend(*body);
    }
    batch
}
