//! A producer's TCP connection: bytes to lines and bodies, and answers to bytes.

use std::{io, sync::PoisonError, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::{
    Shared,
    session::{Missing, Session, Step},
};

/// What a connection begins with.
const MAGIC: &[u8; 4] = b"  V1";

/// Longest command: two names and a word are under 200 bytes. Beyond, the connection is closed.
const LINE_BYTES_MAX: u64 = 4096;

/// Longest body of `IDENTIFY`; the fields are a few hundred bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// How long a producer may take to receive an answer, which is at most some hundred bytes.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the magic and a body may take to come once they were begun.
const READ_TIME_MAX: Duration = Duration::from_secs(60);

/// Talks with a producer until it goes, or makes a mistake, or is silent for too long.
pub(super) async fn serve(socket: TcpStream, shared: &Shared) -> io::Result<()> {
    let peer = socket.peer_addr()?;
    socket.set_nodelay(true)?;
    let mut socket = BufReader::new(socket);
    let mut magic = [0; MAGIC.len()];
    within(READ_TIME_MAX, socket.read_exact(&mut magic)).await?;
    if &magic != MAGIC {
        tracing::warn!(%peer, "asked for another protocol");
        return send(&mut socket, b"E_BAD_PROTOCOL").await;
    }
    let mut session = Session::new(peer);
    let ended = talk(&mut socket, &mut session, shared).await;
    session.end(&mut shared.registry.lock().unwrap_or_else(PoisonError::into_inner));
    ended
}

async fn talk(
    socket: &mut BufReader<TcpStream>,
    session: &mut Session,
    shared: &Shared,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut *socket).take(LINE_BYTES_MAX);
        within(shared.silence_max, limited.read_until(b'\n', &mut line)).await?;
        if !line.ends_with(b"\n") {
            // The end, or a line that is too long.
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        let now = shared.now();
        let mut step = session.line(&mut shared.registry(), now, &text);
        if step == Step::Body {
            let body = within(READ_TIME_MAX, body(socket)).await?;
            let now = shared.now();
            let identity = &shared.identity;
            step = session.body(
                &mut shared.registry(),
                now,
                identity,
                body.as_deref().map_err(|it| *it),
            );
        }
        match step {
            Step::Answer(answer) => send(socket, &answer).await?,
            Step::Fatal(error) => {
                tracing::warn!(peer = ?socket.get_ref().peer_addr().ok(), error, "a producer's mistake");
                return send(socket, error.as_bytes()).await;
            }
            Step::Body => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A body with its length before it, or which of the two did not come or is out of range.
async fn body(socket: &mut BufReader<TcpStream>) -> io::Result<Result<Vec<u8>, Missing>> {
    let length = match socket.read_i32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Err(Missing::Size));
        }
        Err(error) => return Err(error),
    };
    let Some(length) = usize::try_from(length).ok().filter(|it| *it <= BODY_BYTES_MAX) else {
        return Ok(Err(Missing::Body));
    };
    let mut body = vec![0; length];
    match socket.read_exact(&mut body).await {
        Ok(_) => Ok(Ok(body)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(Missing::Body)),
        Err(error) => Err(error),
    }
}

async fn send(socket: &mut BufReader<TcpStream>, answer: &[u8]) -> io::Result<()> {
    let length = i32::try_from(answer.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = Vec::with_capacity(answer.len() + 4);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(answer);
    within(SEND_TIME_MAX, socket.write_all(&framed)).await
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
