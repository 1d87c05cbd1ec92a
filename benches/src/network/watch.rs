//! When the kernel has a rule: this program in the cluster's network namespace, where it hears of every
//! change of nftables' tables. It writes what it hears, and when, to its output.

use std::{io::Write as _, process::Stdio};

use anyhow::{Context as _, bail, ensure};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, socket_with, sockopt,
    },
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::Duration,
};

use super::agent::now;
use crate::cluster::Cluster;

/// First argument of this program as a listener.
pub(crate) const WATCH: &str = "network-watch";

/// The group of changes of tables, `NFNLGRP_NFTABLES`, as a bit.
const GROUP: u32 = 1 << 6;
/// Larger than the kernel makes any of these datagrams.
const DATAGRAM_MAX: usize = 64 * 1024;
/// Room for what comes while we write.
const RECEIVE_BUFFER: usize = 8 << 20;
/// What the output begins with.
const READY: &str = "ready";
/// How long a change is awaited.
const PATIENCE: Duration = Duration::from_secs(20);

/// Writes a line for every datagram: the time of day and its bytes.
pub(crate) fn run() -> anyhow::Result<()> {
    let kind = SocketType::RAW;
    let protocol = Some(netlink::NETFILTER);
    let socket = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUP)).context("listen to changes of tables")?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{READY}")?;
    output.flush()?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let length = match recv(&socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, length)) => length,
            Err(Errno::INTR) => continue,
            Err(error) => bail!("hear of changes of tables: {error}"),
        };
        let at = now()?;
        writeln!(output, "{at} {}", hexadecimal(buffer.get(..length).unwrap_or_default()))?;
        output.flush()?;
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

/// A listener. It ends when this is dropped.
pub(super) struct Watch {
    lines: Lines<BufReader<ChildStdout>>,
    /// What was heard since [`Watch::forget`].
    heard: Vec<(f64, String)>,
    _child: Child,
}

impl Watch {
    pub(super) async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let server = cluster.servers()?;
        let [server] = server.as_slice() else { bail!("{} cluster processes", server.len()) };
        let mut command = Command::new("nsenter");
        command.args(["--target", &server.id().to_string(), "--net"]);
        command.arg(std::env::current_exe()?).arg(WATCH).kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let first = lines.next_line().await?;
        ensure!(first.as_deref() == Some(READY), "the listener says {first:?}");
        Ok(Self { lines, heard: Vec::new(), _child: child })
    }

    /// What was heard until now does not count.
    pub(super) async fn forget(&mut self) -> anyhow::Result<()> {
        /// No change is so slow that its datagram comes later.
        const SILENCE: Duration = Duration::from_millis(20);
        while let Ok(line) = tokio::time::timeout(SILENCE, self.lines.next_line()).await {
            line?.context("the listener has ended")?;
        }
        self.heard.clear();
        Ok(())
    }

    /// When the kernel first told of something with these bytes, as a time of day.
    pub(super) async fn first(&mut self, bytes: &[u8]) -> anyhow::Result<f64> {
        let bytes = hexadecimal(bytes);
        let found = async {
            loop {
                if let Some((at, _)) = self.heard.iter().find(|(_, it)| it.contains(&bytes)) {
                    return Ok(*at);
                }
                let line = self.lines.next_line().await?.context("the listener has ended")?;
                let (at, data) = line.split_once(' ').context("a line without a time")?;
                self.heard.push((at.parse()?, data.to_owned()));
            }
        };
        tokio::time::timeout(PATIENCE, found).await.context("the kernel tells of no such change")?
    }
}
