//! What connections cost that have had their answer and say nothing more: memory of who holds them.

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Duration, timeout},
};

use super::service;
use crate::{
    network::lab::Lab,
    processes::{self, Process},
    report::Figure,
};

/// How many are wanted.
const WANTED: usize = 10_000;
/// Who is not answered within this time is one too many.
const PATIENCE: Duration = Duration::from_secs(2);
/// What each asks.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// How the answer ends.
const END: &[u8] = b"hello\n";
/// Until freed memory is given back, and what the load left behind is closed.
const REST: Duration = Duration::from_secs(3);
/// A cluster that was ended has closed all.
const CLOSED: Duration = Duration::from_secs(30);

/// Makes a Service with `port` published; at which port of the machine.
pub(super) async fn published(
    lab: &mut Lab,
    name: &str,
    spec: &Value,
    port: u16,
) -> anyhow::Result<u16> {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let annotations = json!({"coracle.dev/publish": format!("{free}:{port}")});
    service(lab, name, spec, &annotations).await?;
    Ok(free)
}

/// Opens as many as are answered, up to what is wanted.
pub(super) async fn measure(
    (what, port): (&str, u16),
    holders: &[Process],
) -> anyhow::Result<Vec<Figure>> {
    let most = runtime::raise_files(u64::MAX);
    ensure!(WANTED as u64 + 100 < most, "{WANTED} open files are needed, and {most} allowed");
    tokio::time::sleep(REST).await;
    let memory = || Ok::<_, anyhow::Error>(processes::memory(holders)?.private_dirty);
    let before = memory()?;
    let mut held = Vec::new();
    while held.len() < WANTED {
        match timeout(PATIENCE, answered(port)).await {
            Ok(stream) => held.push(stream.with_context(|| format!("{what}, {}", held.len()))?),
            Err(_) => break,
        }
    }
    let grown = memory()?.saturating_sub(before);
    let count = held.len();
    ensure!(count > 0, "{what}: not one connection was answered");
    if count < WANTED {
        eprintln!("{what}: {count} connections were answered of {WANTED}");
    }
    let figures = vec![
        Figure::new(format!("{what}: connections held of {WANTED} wanted"), count as f64, ""),
        Figure::size(format!("{what}: private dirty for them"), grown),
        Figure::new(format!("{what}: the same, for one"), grown as f64 / count as f64, "KiB"),
    ];
    drop(held);
    // Until all are closed, the next would have fewer.
    timeout(CLOSED, answered(port)).await.context("no connection after the held ones")??;
    Ok(figures)
}

async fn answered(port: u16) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(END) {
        if stream.read_buf(&mut answer).await? == 0 {
            bail!("closed after `{}`", String::from_utf8_lossy(&answer));
        }
    }
    Ok(stream)
}
