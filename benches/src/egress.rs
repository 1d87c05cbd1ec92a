//! The way out of a cluster: a pod's connections to a server on the machine, beside those of a program
//! that is on the machine itself; and what connections that say nothing cost.
//!
//! The client is this program again, in a pod and outside. It does what it is told over a connection of
//! its own, one line each, and answers with a line of numbers.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use runtime::{OnExit, Tasks};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream},
    net::{TcpListener, TcpStream as AsyncStream},
    sync::mpsc,
    time::Duration,
};

use crate::{
    cluster::Cluster,
    processes::{self, Memory},
    report::Figure,
};

/// First argument of this program as a client.
pub(crate) const CLIENT: &str = "egress-client";

/// What one connection carries.
const BYTES: u64 = 4 << 30;
/// Bytes that are written at once.
const PIECE: usize = 256 * 1024;
/// Connections one after the other, for their latency.
const CONNECTIONS: usize = 2_000;
/// Connections that are held: nearly as many as a cluster has at a time.
const HELD: usize = 4_000;
/// Files that the client and the server want.
const FILES: u64 = 16_384;
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a connection is for: its first byte.
pub(crate) const CONTROL: u8 = b'c';
const SINK: u8 = b's';
const ECHO: u8 = b'e';

/// Runs both clients.
pub(crate) async fn measure(coracle: &Path, tasks: &Tasks) -> anyhow::Result<Vec<Figure>> {
    let allowed = runtime::raise_files(FILES);
    ensure!(allowed >= FILES, "{FILES} open files are needed, and {allowed} allowed");
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
    let port = listener.local_addr()?.port();
    let (told, mut clients) = mpsc::channel(2);
    let connections = tasks.clone();
    tasks.spawn("egress-server", OnExit::Log, |_| serve(listener, told, connections));
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(&program);
    let mut direct = command.args([CLIENT, &format!("127.0.0.1:{port}")]).spawn()?;
    let mut figures = of_client("direct", &mut clients, None).await?;
    direct.wait().context("wait for the client")?;

    let cluster = Cluster::new(coracle)?;
    cluster.up(tasks).await?;
    let folder = cluster.folder().join("work");
    std::fs::create_dir(&folder)?;
    let run = serde_json::json!([program, CLIENT]);
    std::fs::write(
        folder.join("coracle.yaml"),
        format!("links:\n  client: {{image: bench/client, run: {run}}}\n"),
    )?;
    std::fs::write(
        folder.join("pod.yaml"),
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: client}}\nspec:\n  restartPolicy: Never\n  \
             containers:\n  - {{name: client, image: bench/client, args: ['host.coracle.internal:{port}']}}\n"
        ),
    )?;
    cluster.run(&["up", "--detach", &folder.display().to_string()]).await?;
    figures.extend(of_client("from a pod", &mut clients, Some(&cluster)).await?);
    cluster.delete().await?;
    Ok(figures)
}

/// Tells one client what to do.
async fn of_client(
    who: &str,
    clients: &mut mpsc::Receiver<AsyncStream>,
    cluster: Option<&Cluster>,
) -> anyhow::Result<Vec<Figure>> {
    let client = tokio::time::timeout(PATIENCE, clients.recv()).await;
    let client = client.context("the client does not come")?.context("the server has ended")?;
    let mut client = BufStream::new(client);
    let mut figures = Vec::new();
    let seconds = ask(&mut client, &format!("send {BYTES}")).await?;
    let rate = BYTES as f64 / 1e6 / seconds.first().context("no time")?;
    figures.push(Figure::new(format!("{who}, one connection"), rate, "MB/s"));
    let times = ask(&mut client, &format!("echo {CONNECTIONS}")).await?;
    for (name, time) in ["p50", "p99"].iter().zip(times) {
        let what = format!("{who}, connect and one byte there and back, {name}");
        figures.push(Figure::new(what, time * 1e3, "ms"));
    }
    if let Some(cluster) = cluster {
        let memory = || -> anyhow::Result<Memory> { processes::memory(&cluster.servers()?) };
        let before = memory()?;
        ask(&mut client, &format!("hold {HELD}")).await?;
        let grown = memory()?.private_dirty.saturating_sub(before.private_dirty);
        let what = format!("private dirty of the cluster process, for {HELD} open connections");
        figures.push(Figure::size(what, grown));
        let each = grown as f64 / HELD as f64;
        figures.push(Figure::new("the same, for one of them", each, "KiB"));
    }
    client.write_all(b"end\n").await?;
    client.flush().await?;
    Ok(figures)
}

pub(crate) async fn ask(
    client: &mut BufStream<AsyncStream>,
    command: &str,
) -> anyhow::Result<Vec<f64>> {
    client.write_all(format!("{command}\n").as_bytes()).await?;
    client.flush().await?;
    let mut line = String::new();
    let answered = tokio::time::timeout(PATIENCE, client.read_line(&mut line)).await;
    answered.with_context(|| format!("`{command}` takes too long"))??;
    let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
    numbers.with_context(|| format!("`{command}` is answered by `{line}`"))
}

pub(crate) async fn serve(
    listener: TcpListener,
    told: mpsc::Sender<AsyncStream>,
    tasks: Tasks,
) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let told = told.clone();
        tasks.spawn("egress-server-connection", OnExit::Log, |_| async move {
            match stream.read_u8().await? {
                CONTROL => told.send(stream).await?,
                SINK => {
                    let mut buffer = vec![0; PIECE];
                    while stream.read(&mut buffer).await? > 0 {}
                }
                _ => {
                    while let Ok(byte) = stream.read_u8().await {
                        stream.write_u8(byte).await?;
                    }
                }
            }
            Ok(())
        });
    }
}

/// What the client does: `address` is the server's.
pub(crate) fn client(address: &str) -> anyhow::Result<()> {
    runtime::raise_files(FILES);
    let mut control = open(address, CONTROL)?;
    let mut held = Vec::new();
    for line in BufReader::new(control.try_clone()?).lines() {
        let line = line?;
        let (what, count) = line.split_once(' ').unwrap_or((&line, "0"));
        let count: u64 = count.parse()?;
        let answer = match what {
            "send" => send(address, count)?,
            "echo" => echo(address, count)?,
            "hold" => {
                for _ in 0..count {
                    held.push(asked(address)?);
                }
                "1".to_owned()
            }
            "end" => return Ok(()),
            other => bail!("what is `{other}`?"),
        };
        writeln!(control, "{answer}")?;
    }
    Ok(())
}

pub(crate) fn open(address: &str, kind: u8) -> anyhow::Result<TcpStream> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

#[expect(clippy::disallowed_methods, reason = "measures")]
pub(crate) fn send(address: &str, bytes: u64) -> anyhow::Result<String> {
    let start = Instant::now();
    let mut stream = open(address, SINK)?;
    let piece = vec![7; PIECE];
    for _ in 0..bytes / PIECE as u64 {
        stream.write_all(&piece)?;
    }
    stream.shutdown(Shutdown::Write)?;
    // It closes when it has everything.
    stream.read_to_end(&mut Vec::new())?;
    Ok(start.elapsed().as_secs_f64().to_string())
}

/// A connection that has said one byte and heard it again.
pub(crate) fn asked(address: &str) -> anyhow::Result<TcpStream> {
    let mut stream = open(address, ECHO)?;
    stream.write_all(&[7])?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

#[expect(clippy::disallowed_methods, reason = "measures")]
pub(crate) fn echo(address: &str, count: u64) -> anyhow::Result<String> {
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        drop(asked(address)?);
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let at = |percent: usize| -> anyhow::Result<f64> {
        let time = times.get(times.len().saturating_sub(1) * percent / 100).context("no time")?;
        Ok(time.as_secs_f64())
    };
    Ok(format!("{} {}", at(50)?, at(99)?))
}
