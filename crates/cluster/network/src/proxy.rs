//! Joins two TCP connections: what comes in on one goes out on the other, until both are done.
//!
//! A connection that says nothing holds no memory of ours: what is read goes out at once, through a buffer
//! that all connections of a thread share, and only what the receiver has no room for is kept, until it has.

use std::{cell::RefCell, io};

use rustix::net::{Shutdown, sockopt};
use tokio::net::TcpStream;

/// Bytes that are read at once: half of what a core has in its second cache, so that they are still there
/// when they are written. Less costs more calls.
const BUFFER: usize = 128 * 1024;

/// Buffers that one connection fills before others of its thread have their turn.
const BUFFERS_IN_TURN: usize = 8;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// Does something with the buffer of this thread, which must not ask for it again. It is larger than any
/// packet, and what is in it means nothing.
pub(crate) fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SHARED.with_borrow_mut(|it| work(it))
}

/// Copies both ways. A side that is done sending is shut down on the other; a failure of one is a
/// reset of the other.
pub(crate) async fn join(one: TcpStream, other: TcpStream) -> io::Result<()> {
    for stream in [&one, &other] {
        stream.set_nodelay(true)?;
    }
    let result = tokio::try_join!(copy(&one, &other), copy(&other, &one));
    if let Err(error) = result {
        reset(one);
        reset(other);
        return Err(error);
    }
    Ok(())
}

/// How far one turn came.
enum Turn {
    /// There may be more to read.
    Done,
    /// The sender has said all.
    End,
    /// The receiver has no room for this.
    Left(Vec<u8>),
}

/// Copies until `from` has said all.
async fn copy(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    loop {
        from.readable().await?;
        match with_buffer(|buffer| turn(from, to, buffer))? {
            Turn::Done => {}
            Turn::End => break,
            Turn::Left(rest) => write(to, &rest).await?,
        }
    }
    match rustix::net::shutdown(to, Shutdown::Write) {
        // It is gone altogether, of which the other direction hears.
        Err(rustix::io::Errno::NOTCONN) => Ok(()),
        other => Ok(other?),
    }
}

fn turn(from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> io::Result<Turn> {
    for _ in 0..BUFFERS_IN_TURN {
        let length = match from.try_read(buffer) {
            Ok(0) => return Ok(Turn::End),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        let written = match to.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written < length {
            return Ok(Turn::Left(bytes.get(written..).unwrap_or_default().to_vec()));
        }
    }
    Ok(Turn::Done)
}

async fn write(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Closes a connection so that its peer sees an error, not an end.
pub(crate) fn reset(stream: TcpStream) {
    // SO_LINGER with no time at all. If it fails, the connection ends in the ordinary way.
    if let Err(error) = sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)) {
        tracing::debug!(%error, "connection not reset");
    }
    drop(stream);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::{OnExit, Tasks};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    /// Both ends of a joined connection.
    async fn joined() -> (TcpStream, TcpStream, Tasks) {
        let ((client, one), (other, server)) = (pair().await, pair().await);
        let tasks = Tasks::default();
        tasks.spawn("join", OnExit::Log, |_| async move { Ok(join(one, other).await?) });
        (client, server, tasks)
    }

    #[tokio::test]
    async fn all_of_both_ways_arrives_whoever_is_slow() {
        const BYTES: usize = 20 << 20;
        let (mut client, mut server, _tasks) = joined().await;
        let sent: Vec<u8> = (0..BYTES).map(|it| u8::try_from(it % 251).unwrap()).collect();
        let expected = sent.clone();
        let client = async {
            // More than all buffers on the way, before anything is read.
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let server = async {
            let mut received = Vec::new();
            let mut piece = [0; 1000];
            for _ in 0..100 {
                let length = server.read(&mut piece).await.unwrap();
                received.extend_from_slice(&piece[..length]);
            }
            server.read_to_end(&mut received).await.unwrap();
            // The other way is open still.
            server.write_all(b"all").await.unwrap();
            server.shutdown().await.unwrap();
            received
        };
        let (answer, received) = tokio::join!(client, server);
        assert_eq!(answer, "all");
        assert!(received == expected);
    }

    #[tokio::test]
    async fn a_reset_of_one_is_one_of_the_other() {
        let (mut client, server, tasks) = joined().await;
        client.write_all(b"?").await.unwrap();
        reset(server);
        let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(tasks.shutdown(Duration::from_secs(10)).await);
    }
}
