//! One connection to an nsqlookupd, from `IDENTIFY` to its end.

use std::{io, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{MissedTickBehavior, timeout},
};

use super::{
    Identify, Identity, Topics, Topology,
    commands::{Told, decide},
};
use crate::web::Chain;

/// What a connection begins with.
const MAGIC: &[u8] = b"  V1";

/// How often an nsqlookupd hears that this nsqd is still there.
const PING_EVERY: Duration = Duration::from_secs(15);

/// How long it may take to connect. The original's.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// How long an nsqlookupd may take to answer. The original allows one second, which a machine that is
/// busy for a moment misses; nothing waits for it.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest answer: the one to `IDENTIFY` is some hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is none, or it broke.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// It is not an nsqlookupd, or does not take this nsqd.
    #[error("answered {0:?} to IDENTIFY")]
    Refused(String),
    /// It said something that nobody had asked for.
    #[error("said something unasked")]
    Unasked,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Whether it had worked for long enough that the next may be tried at once.
    pub(super) proven: bool,
    /// Why it ended.
    pub(super) why: Error,
}

/// What an nsqlookupd says of itself.
#[derive(Debug, Deserialize)]
struct Identified {
    #[serde(default)]
    broadcast_address: String,
    #[serde(default)]
    http_port: u16,
}

/// Connects to `address` and tells it what is here until the connection ends. Calls `connected` with
/// the address of its HTTP, if it says one.
pub(super) async fn serve<T: Topics>(
    address: &str,
    identity: &Identity,
    topics: &T,
    connected: impl FnOnce(Option<String>),
) -> Ended {
    let mut proven = false;
    let Err(why) = talk(address, identity, topics, connected, &mut proven).await;
    Ended { proven, why }
}

async fn talk<T: Topics>(
    address: &str,
    identity: &Identity,
    topics: &T,
    connected: impl FnOnce(Option<String>),
    proven: &mut bool,
) -> Result<std::convert::Infallible, Error> {
    let socket = within(CONNECT_TIME_MAX, TcpStream::connect(address)).await?;
    socket.set_nodelay(true)?;
    let mut socket = BufReader::new(socket);
    let identified = identify(&mut socket, identity).await?;
    connected(identified.http(address));
    let mut told = Told::new();
    let mut changes = topics.changes();
    let mut ticks = tokio::time::interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        changes.mark_unchanged();
        tell(&mut socket, address, &mut told, &topics.topology()).await?;
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    // Nothing will change any more; the process is about to end.
                    std::future::pending::<()>().await;
                }
            }
            _ = ticks.tick() => {
                ask(&mut socket, b"PING\n").await?;
                *proven = true;
            }
            ended = socket.fill_buf() => {
                return Err(if ended?.is_empty() {
                    io::Error::from(io::ErrorKind::UnexpectedEof).into()
                } else {
                    Error::Unasked
                });
            }
        }
    }
}

/// Says what has changed since it was last told.
async fn tell(
    socket: &mut BufReader<TcpStream>,
    address: &str,
    told: &mut Told,
    here: &Topology,
) -> io::Result<()> {
    for command in decide(told, here) {
        let line = command.line();
        let answer = ask(socket, line.as_bytes()).await?;
        if answer != b"OK" {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            tracing::error!(lookupd = address, command = line.trim(), answer, "refused");
        }
        command.note(told);
    }
    Ok(())
}

impl Identified {
    /// Where its HTTP is, if it says so.
    fn http(&self, address: &str) -> Option<String> {
        let host = &self.broadcast_address;
        if host.is_empty() {
            tracing::warn!(lookupd = address, "connected; it does not say where it is");
            return None;
        }
        tracing::info!(lookupd = address, "connected");
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        Some(format!("{host}:{}", self.http_port))
    }
}

async fn identify(
    socket: &mut BufReader<TcpStream>,
    identity: &Identity,
) -> Result<Identified, Error> {
    let body = serde_json::to_vec(&Identify::new(identity)).map_err(io::Error::from)?;
    let length = i32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidData);
    let length = length.map_err(io::Error::from)?;
    let mut command = [MAGIC, b"IDENTIFY\n", &length.to_be_bytes()].concat();
    command.extend_from_slice(&body);
    let answer = ask(socket, &command).await?;
    serde_json::from_slice(&answer).map_err(|error| {
        tracing::debug!(error = %Chain(&error), "the answer to IDENTIFY");
        Error::Refused(String::from_utf8_lossy(&answer).into_owned())
    })
}

/// Sends a command and reads its answer.
async fn ask(socket: &mut BufReader<TcpStream>, command: &[u8]) -> io::Result<Vec<u8>> {
    within(ANSWER_TIME_MAX, async {
        socket.write_all(command).await?;
        let length = socket.read_i32().await?;
        let length = usize::try_from(length).ok().filter(|it| *it <= ANSWER_BYTES_MAX);
        let mut answer = vec![0; length.ok_or(io::ErrorKind::InvalidData)?];
        socket.read_exact(&mut answer).await?;
        Ok(answer)
    })
    .await
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
