//! `coracle down`: pods stop gracefully, then the cluster process and the keeper end. Works as well
//! when the cluster process, or everything, was killed before.

use std::{fs, io, os::fd::OwnedFd, time::Duration};

use anyhow::{Context as _, bail};
use runtime::watch_descriptor;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shim::wire::State;
use tokio::io::Interest;

use crate::{
    directories::Directories,
    lock::{self, Lock, Running},
    output::Progress,
};

/// Grace of containers whose cluster process is gone, and with it the knowledge of what their pods
/// ask for: Kubernetes' default (`terminationGracePeriodSeconds`), in milliseconds.
const GRACE_MS: u64 = 30_000;

/// How long the keeper may take to end; it does so at once.
const KEEPER_END_MAX: Duration = Duration::from_secs(5);

/// Stops the cluster; with `delete` nothing of it is left.
pub(crate) fn run(directories: &Directories, delete: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(stop(directories, delete))
}

/// The same, for callers that run already. Dropping it leaves the rest to run on.
pub(crate) async fn stop(directories: &Directories, delete: bool) -> anyhow::Result<()> {
    let mut progress = Progress::start();
    if !directories.exists() {
        progress.keep(&format!("cluster `{}` does not exist", directories.name));
        return Ok(());
    }
    directories.create()?;
    let lifecycle = Lock::wait(&directories.run, lock::LIFECYCLE)?;
    if let Some(running) = lock::running(&directories.run)? {
        progress.say("stopping pods");
        end_cluster(&running).await?;
    }
    stop_shims(directories)?;
    stop_keeper(directories).await?;
    if delete {
        progress.say("deleting state");
        directories.delete()?;
    }
    drop(lifecycle);
    let done = if delete { "stopped and deleted" } else { "stopped; its state is kept" };
    progress.keep(&format!("cluster `{}` is {done}", directories.name));
    Ok(())
}

/// Asks the cluster process to stop its pods and itself, and waits until it has.
async fn end_cluster(running: &Running) -> anyhow::Result<()> {
    let pid = Pid::from_raw(running.pid).context("the cluster process has no id")?;
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error).context("open the cluster process"),
    };
    match pidfd_send_signal(&process, Signal::INT) {
        Ok(()) => ended(process).await.context("wait for the cluster process"),
        Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("signal process {}", running.pid)),
    }
}

async fn ended(process: OwnedFd) -> io::Result<()> {
    let process = watch_descriptor(process, Interest::READABLE)?;
    let _ended = process.readable().await?;
    Ok(())
}

/// Ends what pods still run, without a cluster process to do it.
fn stop_shims(directories: &Directories) -> anyhow::Result<()> {
    let mut stopping = Vec::new();
    for live in shim::live(&directories.run).context("look for pods that run")? {
        let folder = directories.run.join("pods").join(&live.uid);
        let mut client = shim::Client::connect(&folder)
            .with_context(|| format!("connect to the shim of pod `{}`", live.pod))?;
        let containers = client.status().context("ask a shim")?.containers;
        for container in containers.iter().filter(|it| !matches!(it.state, State::Exited(_))) {
            client
                .stop(&container.id, Signal::TERM.as_raw(), GRACE_MS)
                .with_context(|| format!("stop a container of pod `{}`", live.pod))?;
        }
        stopping.push((live, folder, client));
    }
    for (live, folder, client) in stopping {
        await_exits(&folder).with_context(|| format!("wait for pod `{}`", live.pod))?;
        client.exit().with_context(|| format!("end the shim of pod `{}`", live.pod))?;
    }
    let pods = match fs::read_dir(directories.run.join("pods")) {
        Ok(pods) => pods,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("look for what pods left"),
    };
    for pod in pods {
        let folder = pod.context("look for what pods left")?.path();
        match shim::leftovers(&folder) {
            Ok(_) => {}
            Err(shim::LeftoversError::ShimAlive) => {
                // It has answered `exit` and is on its way.
            }
            Err(error) => {
                return Err(error).with_context(|| format!("end what `{}` left", folder.display()));
            }
        }
    }
    Ok(())
}

/// Waits until no container of the pod runs.
fn await_exits(folder: &std::path::Path) -> anyhow::Result<()> {
    let mut client = shim::Client::connect(folder)?;
    let mut listener = shim::Client::connect(folder)?;
    listener.subscribe()?;
    while client.status()?.containers.iter().any(|it| !matches!(it.state, State::Exited(_))) {
        listener.exited()?;
    }
    Ok(())
}

/// Ends the keeper, if there is one. Its namespaces vanish with the last process in them.
pub(crate) async fn stop_keeper(directories: &Directories) -> anyhow::Result<()> {
    let Ok(mut keeper) = keeper::Client::connect(&directories.run) else { return Ok(()) };
    let pid = keeper.ping().context("ask the keeper for its process id")?;
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("the keeper has no id")?;
    let process = pidfd_open(pid, PidfdFlags::empty()).context("open the keeper")?;
    keeper.exit().context("end the keeper")?;
    match tokio::time::timeout(KEEPER_END_MAX, ended(process)).await {
        Ok(done) => done.context("wait for the keeper"),
        Err(_) => bail!("the keeper said it would end and has not: kill process {pid:?}"),
    }
}
