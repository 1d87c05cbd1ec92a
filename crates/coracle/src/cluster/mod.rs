//! `coracle cluster`: the process that is the cluster. Takes its lock and the host's sockets, enters
//! the namespaces, and then builds and runs every component in order.

mod adapters;
mod host;
mod nodes;
mod ranges;
mod running;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use network::HostRoutes;

use crate::{
    cli::{ClusterArguments, StartArguments},
    directories::{Directories, Environment, write_private},
    lock::{self, Lock},
    output, own,
    start::Answer,
};
use host::Host;

/// The port that Kubernetes' API server has by custom.
const API_PORT_FIRST: u16 = 6443;

/// Where the port is remembered, in the state folder, from the first start on.
const PORT_FILE: &str = "port";

/// How many ports after the first are tried: more clusters than one machine carries.
const API_PORTS_TRIED: u16 = 100;

/// What of the invoking user's environment goes on to the node.
struct Variables {
    /// For linked programs.
    inherited: Vec<(String, String)>,
    /// For who reaches registries.
    registries: Vec<(String, String)>,
}

/// How many files the process asks for: both ends of all connections of the API's clients, with as
/// many again for pods and the store. No more, as pods inherit it, and some programs go through all
/// numbers that a file may have.
const FILES_WANTED: u64 = 32 << 10;
/// How many of them the kernel makes room for at once: 32 KiB of its memory. Few clusters have more open.
const FILES_RESERVED: u64 = 4 << 10;

/// Where the host says which name servers it asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What the process has got before it entered the namespaces.
struct Prepared {
    lock: Lock,
    host: Host,
    /// The host's routing, which can be opened on the host's side only.
    routes: HostRoutes,
    /// Whether this cluster has run before.
    ran: bool,
    listener: TcpListener,
    port: u16,
}

/// Runs the cluster process to its end.
pub(crate) fn main(
    directories: &Directories,
    arguments: &ClusterArguments,
    environment: &Environment,
) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt().with_ansi(false).with_writer(io::stderr).init();
    let done = prepare(directories, &arguments.start).and_then(|prepared| {
        let mut variables = Variables {
            inherited: environment.inherited.clone(),
            registries: environment.registries.clone(),
        };
        own::install(&directories.commands, &mut variables.inherited)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("start the runtime")?;
        runtime.block_on(running::run(directories, &arguments.start, prepared, variables))
    });
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the cluster process ends");
            answer(&Answer::Failed(error.chain().map(ToString::to_string).collect()))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Tells who started this process how it went. Said once; later calls go to nobody.
fn answer(answer: &Answer) -> anyhow::Result<()> {
    let text = serde_json::to_string(answer).context("print the answer")?;
    // Whoever started this process may be gone.
    drop(output::line(&text));
    let null = fs::OpenOptions::new().write(true).open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdout(null).context("let go of standard output")
}

/// Everything that must be done on the host's side, while there is one thread.
fn prepare(directories: &Directories, arguments: &StartArguments) -> anyhow::Result<Prepared> {
    // Of its own session: neither Ctrl-C nor the end of the terminal is for it. Started by hand it
    // may lead one already.
    match rustix::process::setsid() {
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error).context("begin a session"),
    }
    rustix::thread::set_name(c"coracle").context("set the process's name")?;
    runtime::raise_files(FILES_WANTED);
    runtime::reserve_files(FILES_RESERVED).context("make room for connections")?;
    let Some(lock) = Lock::take(&directories.run, lock::CLUSTER)? else {
        bail!("another process of cluster `{}` runs already", directories.name);
    };
    let host = Host::connect(&directories.run)?;
    let routes = HostRoutes::open()?;
    let ran = directories.state.join(PORT_FILE).exists();
    let (listener, port) = listen(directories, &host, arguments.port)?;
    host.enter()?;
    Ok(Prepared { lock, host, routes, ran, listener, port })
}

/// Opens the API's port on the host: the one asked for, or the one of last time, or the next free.
fn listen(
    directories: &Directories,
    host: &Host,
    wish: Option<u16>,
) -> anyhow::Result<(TcpListener, u16)> {
    let path = directories.state.join(PORT_FILE);
    let remembered = fs::read_to_string(&path).ok().and_then(|it| it.trim().parse().ok());
    let customary = (0..API_PORTS_TRIED).map(|it| API_PORT_FIRST + it);
    let candidates: Vec<u16> = match wish {
        Some(port) => vec![port],
        None => remembered.into_iter().chain(customary).collect(),
    };
    let mut refused = None;
    for port in candidates {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match host.listen(address) {
            Ok(socket) => {
                write_private(&path, format!("{port}\n").as_bytes())
                    .with_context(|| format!("remember the port in `{}`", path.display()))?;
                let listener = TcpListener::from(socket);
                listener.set_nonblocking(true).context("prepare the API's socket")?;
                return Ok((listener, port));
            }
            Err(error) => refused = Some((port, error)),
        }
    }
    let (port, error) = refused.context("no port to try")?;
    Err(error).with_context(|| {
        format!(
            "listen on 127.0.0.1:{port} for the API: free that port, or choose another with \
             --port, or leave --port out and the next free one is used"
        )
    })
}
