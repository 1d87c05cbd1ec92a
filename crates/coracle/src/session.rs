//! A command's connection to a cluster that runs: an ordinary client over HTTPS.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, bail};
use client::{Caches, Client};
use runtime::Tasks;

use crate::{directories::Directories, down, lock};

/// How long a command waits for its own tasks when it is done.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(200);

/// What a command works with.
pub(crate) struct Session {
    /// The API.
    pub(crate) client: Client,
    /// Watched copies of what the API holds.
    pub(crate) caches: Caches,
    /// The command's tasks.
    pub(crate) tasks: Tasks,
}

/// Runs `work` against the cluster, on one thread.
pub(crate) fn run<T, F>(
    directories: &Directories,
    work: impl FnOnce(Session) -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let Some(running) = lock::running(&directories.run)? else {
        bail!(
            "cluster `{}` does not run: `coracle up` starts it{}",
            directories.name,
            if directories.exists() { "" } else { " (it never ran for this user)" }
        );
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let path = directories.kubeconfig();
        let client = client::connect(&path, None)
            .await
            .with_context(|| format!("connect as `{}` says", path.display()))?;
        client.apiserver_version().await.with_context(|| {
            format!("reach the API of cluster `{}`, which runs", directories.name)
        })?;
        let tasks = Tasks::default();
        let caches = Caches::new(client.clone(), &tasks);
        let done = tokio::select! {
            done = work(Session { client, caches, tasks: tasks.clone() }) => done,
            ended = down::ended(running.pid) => ended.and_then(|()| bail!(
                "the process of cluster `{}` has ended: `{}` says why",
                directories.name,
                directories.state.join("cluster.log").display()
            )),
        };
        tasks.shutdown(SHUTDOWN_GRACE).await;
        done
    })
}
