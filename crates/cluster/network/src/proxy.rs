//! Joins two TCP connections: what comes in on one goes out on the other, until both are done.

use std::io;

use rustix::net::sockopt;
use tokio::{io::copy_bidirectional_with_sizes, net::TcpStream};

/// Bytes held per direction: enough to keep a copy on one machine going, small enough for
/// thousands of idle connections (64 KB each).
const BUFFER: usize = 32 * 1024;

/// Copies both ways. A side that is done sending is shut down on the other; a failure of one is a
/// reset of the other.
pub(crate) async fn join(mut one: TcpStream, mut other: TcpStream) -> io::Result<()> {
    for stream in [&one, &other] {
        stream.set_nodelay(true)?;
    }
    let result = copy_bidirectional_with_sizes(&mut one, &mut other, BUFFER, BUFFER).await;
    if let Err(error) = result {
        reset(one);
        reset(other);
        return Err(error);
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
