//! A connection to one nsqd: opened, introduced, and known to be alive as long as it is heard from.

use std::{future::Future, io, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, timeout, timeout_at},
};

use super::wire::{self, Frame};

/// How often nsqd shall say that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a connection may be silent until it is taken for dead: two heartbeats and a half.
const SILENCE_MAX: Duration = Duration::from_millis(12_500);
/// Longest wait for a connection, and for nsqd to take or to answer a command.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// A connection.
pub(super) struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    /// What has arrived and is not yet a complete frame.
    arrived: Vec<u8>,
    heard: Instant,
    /// How long nsqd waits for a word about a message before it sends it to another consumer.
    pub(super) message_timeout: Duration,
}

/// What nsqd is told of this client.
#[derive(Serialize)]
struct Identify {
    client_id: String,
    user_agent: &'static str,
    heartbeat_interval: u128,
    feature_negotiation: bool,
}

/// What it answers, as far as it matters here.
#[derive(Deserialize)]
struct Negotiated {
    /// Milliseconds.
    msg_timeout: u64,
}

impl Connection {
    /// Connects to `address` and introduces this client.
    pub(super) async fn open(address: &str) -> io::Result<Self> {
        within(ANSWER_WITHIN, async {
            let socket = TcpStream::connect(address).await?;
            // Commands are short, and each is waited for.
            socket.set_nodelay(true)?;
            let (reader, writer) = socket.into_split();
            let (arrived, heard, message_timeout) = (Vec::new(), Instant::now(), Duration::ZERO);
            let mut connection = Self { reader, writer, arrived, heard, message_timeout };
            connection.introduce().await?;
            Ok(connection)
        })
        .await
    }

    async fn introduce(&mut self) -> io::Result<()> {
        let identify = Identify {
            // In the cluster the host name is the pod's.
            client_id: super::super::setting("HOSTNAME", "localhost"),
            user_agent: concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")),
            heartbeat_interval: HEARTBEAT.as_millis(),
            feature_negotiation: true,
        };
        let identify = wire::identify(&serde_json::to_vec(&identify)?);
        self.send(&[wire::MAGIC, &identify].concat()).await?;
        let negotiated: Negotiated = serde_json::from_slice(&self.answer().await?)?;
        self.message_timeout = Duration::from_millis(negotiated.msg_timeout);
        Ok(())
    }

    /// Asks for the messages of a channel. None comes before the first RDY.
    pub(super) async fn subscribe(&mut self, topic: &str, channel: &str) -> io::Result<()> {
        self.send(&wire::subscribe(topic, channel)).await?;
        within(ANSWER_WITHIN, self.answer()).await.map(drop)
    }

    /// The answer to a command, while nothing else can arrive but heartbeats.
    async fn answer(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.next().await? {
                Frame::Heartbeat => self.send(wire::NOP).await?,
                Frame::Response(answer) => return Ok(answer),
                Frame::Error(error) => return Err(io::Error::other(error)),
                Frame::Message(_) => return Err(io::Error::other("a message that nobody wants")),
            }
        }
    }

    /// The next frame. Nothing is lost if this is dropped before it has one.
    pub(super) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = Frame::take(&mut self.arrived)? {
                return Ok(frame);
            }
            self.arrived.reserve(READ_BYTES);
            let read =
                timeout_at(self.heard + SILENCE_MAX, self.reader.read_buf(&mut self.arrived));
            match read.await {
                Ok(Ok(0)) => {
                    let message = "nsqd closed the connection";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
                Ok(Ok(_)) => self.heard = Instant::now(),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::Error::other("nsqd has fallen silent")),
            }
        }
    }

    /// Sends a command; to be awaited to its end, as half a command breaks the connection.
    pub(super) async fn send(&mut self, command: &[u8]) -> io::Result<()> {
        within(ANSWER_WITHIN, self.writer.write_all(command)).await
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => {
            let message = format!("no answer within {} s", limit.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }
    }
}
