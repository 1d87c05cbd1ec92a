//! The beginning of a connection, before it is known what it speaks, and what is told of its end.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf as _, BytesMut};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    connection::Connection,
    frame,
    server::Shared,
    transport::{Progress, Transport},
};
use crate::listen::Stream;

/// What a client says first.
const MAGIC: &[u8] = b"  V2";

/// Serves a client until it leaves, is silent too long, does not read, or the process ends.
pub(super) async fn serve(
    shared: Arc<Shared>,
    stream: Stream,
    peer: SocketAddr,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut transport = Transport::new(stream);
    let mut input = BytesMut::new();
    let greeting = greeted(&mut transport, &mut input);
    let greeted = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        // The original waits for ever.
        it = timeout(shared.options.client_timeout, greeting) => it,
    };
    match greeted {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => {
            tracing::info!(client = %peer, "speaks no protocol of ours");
            let mut output = BytesMut::new();
            frame::error(&mut output, b"E_BAD_PROTOCOL");
            let said = say(&mut transport, &mut output, shared.options.client_timeout).await;
            return ended(&peer, said);
        }
        Ok(Err(error)) => return ended(&peer, Err(error)),
        Err(_) => return ended(&peer, Err(io::ErrorKind::TimedOut.into())),
    }
    let client = shared.clients.register(peer, shared.clock.now().as_second());
    tracing::debug!(client = %peer, "connected");
    let connection = Connection::new(shared, client, transport, input);
    ended(&peer, connection.run(stop).await)
}

/// Connections break all the time: that is nothing anybody has to look after.
fn ended(peer: &SocketAddr, ended: io::Result<()>) -> anyhow::Result<()> {
    match ended {
        Ok(()) => tracing::debug!(client = %peer, "disconnected"),
        Err(error) => tracing::debug!(client = %peer, %error, "connection ended"),
    }
    Ok(())
}

/// Whether the client says that it speaks this protocol.
async fn greeted(transport: &mut Transport, input: &mut BytesMut) -> io::Result<bool> {
    while input.len() < MAGIC.len() {
        if transport.progress(input, Some(0)).await? == Progress::End {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let ours = input.starts_with(MAGIC);
    input.advance(MAGIC.len());
    Ok(ours)
}

/// Writes all of `output`, in this time at most.
pub(super) async fn say(
    transport: &mut Transport,
    output: &mut BytesMut,
    within: Duration,
) -> io::Result<()> {
    let nothing = &mut BytesMut::new();
    let writing = async {
        while !transport.is_idle() {
            transport.progress(nothing, None).await?;
        }
        if !output.is_empty() {
            transport.send(output)?;
        }
        while !transport.is_idle() {
            transport.progress(nothing, None).await?;
        }
        Ok(())
    };
    timeout(within, writing).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
