//! `coracle down`: pods stop gracefully, then the cluster process and the keeper end. Works as well
//! when the cluster process, or everything, was killed before.

use std::{
    fs,
    io::{
        self,
        ErrorKind::{ConnectionRefused, NotFound},
    },
    os::fd::OwnedFd,
    path::Path,
    time::Duration,
};

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

/// How long a shim may take to end once it was told to; it has nothing left to do.
const SHIM_END_MAX: Duration = Duration::from_secs(5);

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
    stop_shims(directories).await?;
    node::remove_cgroups(&directories.run).context("remove the pods' control groups")?;
    stop_keeper(directories).await?;
    if rustix::process::geteuid().is_root() {
        node::sweep_ids().context("give back the ids of pods")?;
        network::forget(&directories.link_alias()).context("remove the link to the host")?;
    }
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
    let Some(process) = open(running.pid).context("open the cluster process")? else {
        return Ok(());
    };
    match pidfd_send_signal(&process, Signal::INT) {
        Ok(()) => end_of(process).await.context("wait for the cluster process"),
        Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("signal process {}", running.pid)),
    }
}

/// A process, to be told of its end; `None` if it is gone.
fn open(pid: i32) -> anyhow::Result<Option<OwnedFd>> {
    let id = Pid::from_raw(pid).with_context(|| format!("{pid} is no process id"))?;
    match pidfd_open(id, PidfdFlags::empty()) {
        Ok(process) => Ok(Some(process)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("process {pid}")),
    }
}

/// Waits for the end of a process.
pub(crate) async fn ended(pid: i32) -> anyhow::Result<()> {
    match open(pid)? {
        Some(process) => end_of(process).await.with_context(|| format!("watch process {pid}")),
        None => Ok(()),
    }
}

async fn end_of(process: OwnedFd) -> io::Result<()> {
    let process = watch_descriptor(process, Interest::READABLE)?;
    let _ended = process.readable().await?;
    Ok(())
}

/// Ends what pods still run, without a cluster process to do it.
async fn stop_shims(directories: &Directories) -> anyhow::Result<()> {
    let mut stopping = Vec::new();
    for live in shim::live(&directories.run).context("look for pods that run")? {
        let Some(process) = open(i32::try_from(live.pid)?).context("open a shim")? else {
            continue;
        };
        let folder = directories.run.join("pods").join(&live.uid);
        let client = ask_to_stop(&folder).with_context(|| format!("stop pod `{}`", live.pod))?;
        stopping.push((live.pod, folder, client, process));
    }
    for (pod, folder, client, process) in stopping {
        if let Some(client) = client {
            await_exits(&folder).with_context(|| format!("wait for pod `{pod}`"))?;
            client.exit().with_context(|| format!("end the shim of pod `{pod}`"))?;
        }
        match tokio::time::timeout(SHIM_END_MAX, end_of(process)).await {
            Ok(done) => done.with_context(|| format!("wait for the shim of pod `{pod}`"))?,
            Err(_) => bail!("the shim of pod `{pod}` does not end: kill it"),
        }
    }
    let pods = match fs::read_dir(directories.run.join("pods")) {
        Ok(pods) => pods,
        Err(error) if error.kind() == NotFound => return Ok(()),
        Err(error) => return Err(error).context("look for what pods left"),
    };
    for pod in pods {
        let folder = pod.context("look for what pods left")?.path();
        shim::leftovers(&folder)
            .with_context(|| format!("end what `{}` left", folder.display()))?;
    }
    Ok(())
}

/// Asks a shim to stop its containers; `None` if it is on its way out itself.
fn ask_to_stop(folder: &Path) -> anyhow::Result<Option<shim::Client>> {
    let mut client = match shim::Client::connect(folder) {
        Ok(client) => client,
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => return Ok(None),
        Err(error) => return Err(error).context("connect to its shim"),
    };
    let containers = client.status().context("ask its shim")?.containers;
    for container in containers.iter().filter(|it| !matches!(it.state, State::Exited(_))) {
        client.stop(&container.id, Signal::TERM.as_raw(), GRACE_MS).context("stop a container")?;
    }
    Ok(Some(client))
}

/// Waits until no container of the pod runs.
fn await_exits(folder: &Path) -> anyhow::Result<()> {
    let mut client = shim::Client::connect(folder)?;
    let mut listener = shim::Client::connect(folder)?;
    listener.subscribe()?;
    while client.status()?.containers.iter().any(|it| !matches!(it.state, State::Exited(_))) {
        listener.exited()?;
    }
    Ok(())
}

/// Ends the keeper, if there is one. Its namespaces vanish with the last process in them.
async fn stop_keeper(directories: &Directories) -> anyhow::Result<()> {
    let Ok(mut keeper) = keeper::Client::connect(&directories.run) else { return Ok(()) };
    let pid = keeper.ping().context("ask the keeper for its process id")?;
    let Some(process) = open(i32::try_from(pid)?).context("open the keeper")? else {
        return Ok(());
    };
    keeper.exit().context("end the keeper")?;
    match tokio::time::timeout(KEEPER_END_MAX, end_of(process)).await {
        Ok(done) => done.context("wait for the keeper"),
        Err(_) => bail!("the keeper said it would end and has not: kill process {pid}"),
    }
}
