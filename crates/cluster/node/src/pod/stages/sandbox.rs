//! The pod's folders and its shim, which holds the pod's namespaces.

use std::{fs, io, os::fd::OwnedFd, path::Path, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use rustix::process::{Pid, PidfdFlags};
use shim::wire::{FailureKind, PodSpec, Reply, Request, Sysctl};
use tokio::io::{Interest, unix::AsyncFd};

use super::super::{
    shim::{Connection, is_absent, unexpected},
    stage::{Parts, Phase, Place, Stage, StageError},
};
use crate::{
    context::{is_on_host, make_private},
    files::host_name,
    ids::{self, Claim},
    spares::{Spare, reap},
};

/// How long a shim may take to end once it has nothing left to do.
const END_MAX: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Shim;

impl Stage for Shim {
    fn name(&self) -> &'static str {
        "shim"
    }

    fn prepare<'a>(&'a self, place: &'a Place, parts: &'a mut Parts) -> Phase<'a> {
        Box::pin(async {
            if out_of_reach(place.pod.as_deref()) {
                return Err(StageError::sandbox(format!(
                    "dnsPolicy {CLUSTER_DNS_ON_HOST} cannot be had: the cluster's name server is not \
                     reached from the host's network"
                )));
            }
            let first = !place.folders.run.exists();
            make_private(&place.folders.run).map_err(StageError::sandbox)?;
            make_private(&place.folders.state).map_err(StageError::sandbox)?;
            if !first {
                if adopt(place, parts).await? {
                    return Ok(());
                }
                let run = place.folders.run.clone();
                blocking(move || shim::leftovers(&run).map_err(|it| chain(&it))).await?;
            }
            match claim(place).await? {
                Some(Spare { connection, process, attached, cgroup }) => {
                    parts.process = process;
                    parts.connection = Some(connection);
                    parts.spare = attached;
                    parts.cgroup = cgroup;
                }
                // Another process was quicker; it cannot have gone again.
                None => drop(adopt(place, parts).await?),
            }
            Ok(())
        })
    }

    fn stop<'a>(&'a self, place: &'a Place, parts: &'a mut Parts) -> Phase<'a> {
        Box::pin(async {
            end(&place.folders.run).await.map_err(StageError::sandbox)?;
            if let Some(process) = parts.process.take() {
                reap(process).await;
            }
            let run = place.folders.run.clone();
            blocking(move || shim::leftovers(&run)).await?;
            // Of a pod of which only the folders are known, this is not.
            if place.pod.as_deref().is_none_or(|it| place.context.has_own_users(it)) {
                blocking(ids::sweep).await?;
            }
            Ok(())
        })
    }

    fn clean<'a>(&'a self, place: &'a Place) -> Phase<'a> {
        Box::pin(async {
            let folders = place.folders.clone();
            blocking(move || {
                [folders.logs, folders.state, folders.run].iter().try_for_each(|it| remove(it))
            })
            .await
        })
    }
}

/// The policy by which pods on the host's network ask the cluster's name server.
const CLUSTER_DNS_ON_HOST: &str = "ClusterFirstWithHostNet";

/// Whether the pod asks for a name server that is not there where it is.
fn out_of_reach(pod: Option<&Pod>) -> bool {
    let policy = pod.and_then(|it| it.spec.as_ref()?.dns_policy.as_deref());
    pod.is_some_and(is_on_host) && policy == Some(CLUSTER_DNS_ON_HOST)
}

/// Takes over the shim that is there, if one is.
async fn adopt(place: &Place, parts: &mut Parts) -> Result<bool, StageError> {
    let mut connection = match Connection::open(&place.folders.run) {
        Err(error) if is_absent(&error) => return Ok(false),
        other => other.map_err(StageError::sandbox)?,
    };
    let reply = match connection.call(&Request::Netns).await {
        Err(shim::Error::Closed) => return Ok(false),
        other => other.map_err(StageError::sandbox)?,
    };
    let Some(netns) = connection.take_fd() else {
        return Err(StageError::sandbox(unexpected("netns", reply)));
    };
    match connection.call(&Request::Status).await.map_err(StageError::sandbox)? {
        Reply::Status(status) => parts.found = status.containers,
        other => return Err(StageError::sandbox(unexpected("status", other))),
    }
    parts.netns = Some(netns);
    Ok(true)
}

/// Takes a shim that has no pod, and gives it this one. `None` if the pod has one by now.
async fn claim(place: &Place) -> Result<Option<Spare>, StageError> {
    let metadata = place.pod.as_deref().map(|it| &it.metadata);
    let text = |it: Option<&String>| it.cloned().unwrap_or_default();
    let namespace = text(metadata.and_then(|it| it.namespace.as_ref()));
    let machine = &place.context.machine;
    let spec = PodSpec {
        name: format!("{namespace}/{}", text(metadata.and_then(|it| it.name.as_ref()))),
        dir: place.folders.run.clone(),
        hostname: place.pod.as_deref().map(|it| host_name(it, &machine.name)).unwrap_or_default(),
        sysctls: sysctls(place.pod.as_deref()),
    };
    let on_host = place.pod.as_deref().is_some_and(is_on_host);
    let host_ipc = place.pod.as_deref().and_then(|it| it.spec.as_ref()?.host_ipc) == Some(true);
    let own_users = place.pod.as_deref().is_some_and(|it| place.context.has_own_users(it));
    let spares = &place.context.spares;
    let spare = match (on_host, host_ipc) {
        (true, _) => spares.take_on_host(host_ipc).await,
        (false, true) => spares.take_with_host_ipc().await,
        (false, false) if own_users => {
            let claim = blocking(|| Claim::new().map_err(|it| chain(&it))).await?;
            spares.take_with_users(claim).await
        }
        (false, false) => spares.take().await,
    };
    let mut spare = spare.map_err(StageError::sandbox)?;
    let given = spare.connection.call(&Request::Pod(spec)).await;
    let result = match given {
        Ok(Reply::Done) => return Ok(Some(spare)),
        Ok(other) => Err(StageError::sandbox(unexpected("pod", other))),
        Err(shim::Error::Failed(it)) if it.kind == FailureKind::AnotherShim => Ok(None),
        Err(error) => Err(StageError::sandbox(chain(&error))),
    };
    spare.discard(&place.context.spares).await;
    result
}

/// Kills what runs and ends the shim; no shim is no error.
async fn end(run: &Path) -> Result<(), shim::Error> {
    let mut connection = match Connection::open(run) {
        Err(error) if is_absent(&error) => return Ok(()),
        other => other?,
    };
    // Of a pod whose object is gone, containers may still run.
    let mut exits = Connection::open(run)?;
    let known = connection.call(&Request::Status).await?;
    let Reply::Status(status) = known else { return Err(unexpected("status", known)) };
    let process = watch(status.pid)?;
    let running: Vec<String> = status
        .containers
        .into_iter()
        .filter(|it| !matches!(it.state, shim::wire::State::Exited(_)))
        .map(|it| it.id)
        .collect();
    for id in &running {
        let stop = Request::Stop { id: id.clone(), signal: libc::SIGKILL, grace_ms: 0 };
        connection.call(&stop).await?;
    }
    let mut left = running.len();
    let mut notice = if left == 0 { None } else { Some(exits.call(&Request::Subscribe).await) };
    while let Some(reply) = notice.take() {
        let Reply::Exited(exit) = reply? else { continue };
        if running.contains(&exit.id) {
            left -= 1;
        }
        if left != 0 {
            notice = Some(exits.answer().await);
        }
    }
    match connection.call(&Request::Exit).await {
        Ok(_) | Err(shim::Error::Closed) => {}
        Err(error) => return Err(error),
    }
    // It has answered, but holds its lock until it is gone.
    let gone = tokio::time::timeout(END_MAX, process.readable()).await;
    let gone = gone.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    gone.map(drop).map_err(shim::Error::Io)
}

/// A descriptor that is readable once the process has ended, whoever's child it is.
fn watch(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    runtime::watch_descriptor(process, Interest::READABLE)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words += &format!(": {error}");
        cause = error.source();
    }
    words
}

/// Settings of the kernel that the pod wants in its own namespaces.
fn sysctls(pod: Option<&Pod>) -> Vec<Sysctl> {
    let context = pod.and_then(|it| it.spec.as_ref()?.security_context.as_ref());
    let wanted = context.and_then(|it| it.sysctls.as_deref()).unwrap_or_default();
    wanted.iter().map(|it| Sysctl { name: it.name.clone(), value: it.value.clone() }).collect()
}

/// Runs what blocks for some milliseconds away from the runtime's threads.
pub(super) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, StageError>
where
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let result = tokio::task::spawn_blocking(work).await.map_err(StageError::sandbox)?;
    result.map_err(StageError::sandbox)
}
