//! `coracle registry`: serves images until it is told to stop.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use ::image::{Store, registry::Registry};
use anyhow::{Context as _, bail};
use clap::Args;
use runtime::{OnExit, Tasks};
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{cli::Format, directories::Directories, output};

/// How long open connections may take to end.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Arguments of `registry`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RegistryArguments {
    /// Address to listen at; port 0 takes a free one. There is no TLS and no password: who reaches it,
    /// may do all.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// What names of its images begin with [default: localhost:PORT, or the address if it is not this
    /// machine's own].
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Folder of its images [default: the images of this user's clusters].
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Format of what is printed.
    #[arg(short, long, default_value = "text")]
    output: Format,
}

/// Runs the registry until SIGINT or SIGTERM.
pub(crate) fn run(
    arguments: &RegistryArguments,
    directories: &Directories,
) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt().with_ansi(false).with_writer(io::stderr).init();
    let folder = arguments.folder.as_ref().unwrap_or(&directories.images);
    let store = Store::open(folder).context("open the store of images")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("await SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("await SIGTERM")?;
        let listen = arguments.listen;
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("listen at {listen}"))?;
        let address = listener.local_addr().context("ask for the address")?;
        let host = arguments.host.clone().unwrap_or_else(|| {
            if address.ip().is_loopback() {
                format!("localhost:{}", address.port())
            } else {
                address.to_string()
            }
        });
        let registry = Registry::new(store, &host)?;
        let tasks = Tasks::default();
        let connections = tasks.clone();
        tasks.spawn("registry", OnExit::StopProcess, |stop| async move {
            Ok(registry.serve(listener, connections, stop).await?)
        });
        output::line(&match arguments.output {
            Format::Text => format!("registry {host} at http://{address}, of {}", folder.display()),
            Format::Json => json!({"host": host, "address": address, "folder": folder}).to_string(),
        })?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = tasks.failed() => bail!("the registry has failed; the log says why"),
        }
        if !tasks.shutdown(STOP_GRACE).await {
            bail!("connections would not end");
        }
        Ok(ExitCode::SUCCESS)
    })
}
