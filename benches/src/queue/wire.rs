//! A connection to a server, as both protocols use it. Knows neither.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// What is read at once: as much as the kernel has ready.
const READ: usize = 256 << 10;

/// A server that says nothing for so long has hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub(super) struct Wire {
    stream: TcpStream,
    /// Arrived, and not looked at.
    pub(super) input: BytesMut,
}

impl Wire {
    pub(super) async fn connect(to: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(to).await.with_context(|| format!("connect to {to}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: BytesMut::new() })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        Ok(sent.context("the server does not read")??)
    }

    /// Waits until more has arrived.
    pub(super) async fn more(&mut self) -> anyhow::Result<()> {
        if self.input.capacity() - self.input.len() < READ / 2 {
            self.input.reserve(READ);
        }
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
        let count = read.context("the server says nothing")??;
        ensure!(count > 0, "the server hung up");
        Ok(())
    }

    pub(super) fn local(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// Keeps no more memory than what has arrived takes.
    pub(super) fn rest(&mut self) {
        self.input = BytesMut::from(&self.input[..]);
    }
}
