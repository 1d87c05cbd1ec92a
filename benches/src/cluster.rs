//! A cluster of the benchmark's own: folders, the commands that start and remove it.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use runtime::Tasks;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, time::Instant};

use crate::{
    http::{Connection, Endpoint},
    processes::{self, Process, Role},
};

const NAME: &str = "bench";

/// Begins the names of the folders.
const PREFIX: &str = "coracle-bench-";

/// Longest wait for anything that takes milliseconds when it works.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two attempts to find the server ready; bounds the error of the start figures.
const POLL: Duration = Duration::from_micros(500);

/// A cluster; what is left of it is removed when this is dropped.
pub(crate) struct Cluster {
    coracle: PathBuf,
    folder: TempDir,
    /// The runtime folder, if it can be in memory, as it is on nearly every machine.
    memory: Option<TempDir>,
}

/// When the cluster was seen ready, counted from the start of the command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    pub(crate) api: Duration,
    pub(crate) node: Duration,
}

impl Cluster {
    /// Prepares folders; starts nothing.
    pub(crate) fn new(coracle: &Path) -> anyhow::Result<Self> {
        // Not in /tmp, which may be in memory: the disk is part of what is measured.
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in("/var/tmp")?;
        let memory = tempfile::Builder::new().prefix(PREFIX).tempdir_in("/dev/shm").ok();
        Ok(Self { coracle: coracle.to_owned(), folder, memory })
    }

    fn runtime(&self) -> PathBuf {
        self.memory.as_ref().unwrap_or(&self.folder).path().join("run")
    }

    /// The folder that holds everything of this cluster.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its state folder and its run folder.
    pub(crate) fn folders(&self) -> [PathBuf; 2] {
        let state = self.folder().join("data");
        [state, self.runtime()].map(|it| it.join("coracle").join(NAME))
    }

    /// The store of images of its user, an OCI layout.
    pub(crate) fn images(&self) -> PathBuf {
        self.folder().join("data/coracle/images")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder().join("data/coracle").join(NAME).join("kubeconfig")
    }

    /// Its processes, without those in pods.
    pub(crate) fn processes(&self) -> anyhow::Result<Vec<Process>> {
        let folders = [Some(&self.folder), self.memory.as_ref()];
        let folders: Vec<&Path> = folders.into_iter().flatten().map(TempDir::path).collect();
        processes::of(&folders)
    }

    /// Its process that serves the API.
    pub(crate) fn servers(&self) -> anyhow::Result<Vec<Process>> {
        Ok(self.processes()?.into_iter().filter(|it| it.role == Role::Cluster).collect())
    }

    /// Starts the cluster and waits until API and node are ready.
    pub(crate) async fn up(&self, tasks: &Tasks) -> anyhow::Result<Started> {
        let start = Instant::now();
        let command = self.command(&["up", "--detach"]);
        let ready = async {
            let mut connection = self.ready(tasks).await?;
            let api = start.elapsed();
            while !node_is_ready(&connection.get("/api/v1/nodes").await?) {
                tokio::time::sleep(POLL).await;
            }
            Ok(Started { api, node: start.elapsed() })
        };
        let ready = async { tokio::time::timeout(PATIENCE, ready).await.context("not ready")? };
        let (output, started) = tokio::join!(run(command), ready);
        output?;
        started
    }

    /// Stops the cluster; its state stays.
    pub(crate) async fn down(&self) -> anyhow::Result<()> {
        run(self.command(&["down"])).await
    }

    /// Removes the cluster.
    pub(crate) async fn delete(self) -> anyhow::Result<()> {
        run(self.command(&["down", "--delete"])).await
    }

    /// Runs a command of the cluster's user, which must succeed.
    pub(crate) async fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        run(self.command(arguments)).await
    }

    /// A connection to the API, as soon as it says that it is ready.
    pub(crate) async fn ready(&self, tasks: &Tasks) -> anyhow::Result<Connection> {
        loop {
            if let Ok(endpoint) = Endpoint::new(&self.kubeconfig())
                && let Ok(mut connection) = endpoint.connect(tasks).await
                && connection.is_ready().await
            {
                return Ok(connection);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A command of the cluster's user, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.coracle);
        command
            .args(arguments)
            .args(["--name", NAME])
            .env("XDG_DATA_HOME", self.folder().join("data"))
            .env("XDG_RUNTIME_DIR", self.runtime())
            .env("KUBECONFIG", self.folder().join("kubeconfig"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.folder().join("data").exists() {
            return;
        }
        let mut command = self.command(&["down", "--delete"]);
        if let Err(error) = command.as_std_mut().output() {
            eprintln!("cannot remove the cluster in `{}`: {error}", self.folder().display());
        }
    }
}

async fn run(mut command: Command) -> anyhow::Result<()> {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let shown = command.as_std();
    let output = output.with_context(|| format!("{shown:?} does not end"))?;
    let Output { status, stderr, .. } = output.with_context(|| format!("run {shown:?}"))?;
    if !status.success() {
        bail!("{shown:?}: {status}: {}", String::from_utf8_lossy(&stderr).trim());
    }
    Ok(())
}

fn node_is_ready(nodes: &Value) -> bool {
    let conditions = nodes.pointer("/items/0/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|it| {
        it.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes() {
        let node = |status| {
            let conditions = json!([{"type": "X"}, {"type": "Ready", "status": status}]);
            json!({"items": [{"status": {"conditions": conditions}}]})
        };
        assert!(node_is_ready(&node("True")));
        assert!(!node_is_ready(&node("False")));
        assert!(!node_is_ready(&json!({"items": []})));
    }
}
