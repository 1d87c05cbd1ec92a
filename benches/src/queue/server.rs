//! A server that is measured: started with an empty folder, ended and removed when dropped.

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::Instant,
};

/// A server that does not listen after so long will not.
const START: Duration = Duration::from_secs(10);
/// How often it is looked whether it does.
const LOOK: Duration = Duration::from_millis(5);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ours, with that `-durability`.
    Memory,
    Process,
    Disk,
    /// `nats-server -js` with streams in memory, or in files. It flushes these by a timer of its own;
    /// 2.9 has no setting for that, later ones have `sync_interval: always`.
    NatsMemory,
    NatsFile,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Process => "process",
            Self::Disk => "disk",
            Self::NatsMemory => "NATS, memory",
            Self::NatsFile => "NATS, file",
        }
    }

    pub(super) const fn is_nats(self) -> bool {
        matches!(self, Self::NatsMemory | Self::NatsFile)
    }

    /// Where NATS is to keep a stream.
    pub(super) const fn storage(self) -> &'static str {
        if matches!(self, Self::NatsFile) { "file" } else { "memory" }
    }
}

/// A running server.
pub(super) struct Server {
    pub(super) kind: Kind,
    pub(super) address: SocketAddr,
    http: SocketAddr,
    id: u32,
    // In this order: the folder goes when nobody writes into it any more.
    _child: Killed,
    _folder: TempDir,
}

/// A process that is killed and waited for when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Err(error) = self.0.start_kill() {
            eprintln!("cannot end the server: {error}");
        }
        // Until it is gone it writes; a few milliseconds, and nothing is measured meanwhile.
        while matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
    }
}

impl Server {
    pub(super) async fn start(program: &Path, kind: Kind) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (address, http) = (free_address()?, free_address()?);
        let mut command = Command::new(program);
        if kind.is_nats() {
            let config = folder.path().join("nats.conf");
            fs::write(&config, nats_config(address, folder.path()))?;
            command.arg("-c").arg(config);
        } else {
            command.args(["queue", "nsqd", "-log-level=warn", "-data-path"]).arg(folder.path());
            command.arg(format!("-durability={}", kind.name()));
            command.arg(format!("-tcp-address={address}"));
            command.arg(format!("-http-address={http}"));
        }
        let errors = folder.path().join("errors");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&errors)?);
        let child = command.kill_on_drop(true).spawn();
        let mut child = child.with_context(|| format!("start `{}`", program.display()))?;
        let id = child.id().context("it has ended")?;
        let until = Instant::now() + START;
        while TcpStream::connect(address).await.is_err() {
            if child.try_wait()?.is_some() || until < Instant::now() {
                let said = fs::read_to_string(errors).unwrap_or_default();
                bail!("`{}` does not listen at {address}: {said}", program.display());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Self { kind, address, http, id, _child: Killed(child), _folder: folder })
    }

    /// Asks ours for something over HTTP.
    pub(super) async fn post(&self, path: &str) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(self.http).await?;
        let head = "Host: nsqd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("POST {path} HTTP/1.1\r\n{head}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "POST {path}: {answer}");
        Ok(())
    }

    /// Resident memory, in KiB: now, and the most there ever was.
    pub(super) fn resident(&self) -> anyhow::Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id))?;
        let field = |name| {
            let line = status.lines().find_map(|it| it.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let both = field("VmRSS:").zip(field("VmHWM:"));
        both.context("the server's memory")
    }
}

fn nats_config(address: SocketAddr, folder: &Path) -> String {
    let (host, port, folder) = (address.ip(), address.port(), folder.display());
    format!("host: {host}\nport: {port}\njetstream {{ store_dir: \"{folder}\" }}\n")
}

/// One that nobody had a moment ago.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// When a load began, and what both sides had taken of the processor until then.
pub(super) struct Began {
    at: Instant,
    server: f64,
    clients: f64,
}

impl Began {
    pub(super) fn now(server: &Server) -> anyhow::Result<Self> {
        let (server, clients) = (processor(server.id)?, processor(std::process::id())?);
        Ok(Self { at: Instant::now(), server, clients })
    }

    /// What `messages` have taken since.
    pub(super) fn spent(&self, server: &Server, messages: u64) -> anyhow::Result<Spent> {
        let seconds = self.at.elapsed().as_secs_f64();
        let server = processor(server.id)? - self.server;
        let clients = processor(std::process::id())? - self.clients;
        ensure!(messages > 0, "not one message came through");
        Ok(Spent { messages, seconds, server, clients })
    }
}

/// What a load took, all in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    messages: u64,
    seconds: f64,
    server: f64,
    clients: f64,
}

impl Spent {
    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// Messages per second.
    pub(super) fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// Microseconds of the server's processor that a message took.
    pub(super) fn server_each(&self) -> f64 {
        self.server * 1e6 / self.messages as f64
    }

    /// The same of the clients', which are this program.
    pub(super) fn clients_each(&self) -> f64 {
        self.clients * 1e6 / self.messages as f64
    }
}

/// Seconds that a process with all its threads has had of the processor: proc(5).
fn processor(id: u32) -> anyhow::Result<f64> {
    /// The kernel's unit of these fields.
    const TICKS: f64 = 100.0;
    let mut text = String::new();
    fs::File::open(format!("/proc/{id}/stat"))?.read_to_string(&mut text)?;
    // The name of the program, in brackets, may hold blanks.
    let (_, rest) = text.rsplit_once(')').context("proc(5)")?;
    let times = rest.split_whitespace().skip(11).take(2);
    Ok(times.filter_map(|it| it.parse::<f64>().ok()).sum::<f64>() / TICKS)
}
