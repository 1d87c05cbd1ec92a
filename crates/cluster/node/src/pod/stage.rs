//! The parts that a pod's place on the machine is made of, as stages with one contract.
//!
//! | phase | when | contract |
//! | --- | --- | --- |
//! | `prepare` | before containers, in order | idempotent; on a place that an earlier process made, adopts it |
//! | `start` | for each run of a container, in order | adds its part to the launch; the last stage launches |
//! | `stop` | no container runs, in reverse order | frees what the machine holds; contents of volumes and logs stay; safe without `prepare` |
//! | `clean` | after `stop`, in reverse order | removes every trace; safe without any other phase, also for a pod of which only the folders are known |
//!
//! Every `stop` and every `clean` runs, even if an earlier one failed; the first error is reported
//! and the phase is tried again.

use std::{collections::BTreeMap, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use image::Digest;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use shim::{Process, wire};

use super::{
    shim::Connection,
    stages::{
        cgroup::{Cgroup, NoCgroup},
        containers::Containers,
        files::PodFiles,
        network::Network,
        sandbox::Shim,
        volumes::Volumes,
    },
};
use crate::{
    context::{Context, Folders, PodAddress},
    environment::Environment,
    volumes::Ready,
};

/// Why a stage could not do its part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    /// Shown to users as an event.
    #[error("{message}")]
    Reported {
        /// Reason of the event.
        reason: &'static str,
        /// Its message.
        message: String,
    },
    /// A container could not be started, for a reason of its own.
    #[error(transparent)]
    Start(#[from] wire::StartError),
}

impl StageError {
    pub(crate) fn new(reason: &'static str, error: impl std::fmt::Display) -> Self {
        Self::Reported { reason, message: format!("{error:#}") }
    }

    /// A failure to make or keep the sandbox.
    pub(crate) fn sandbox(error: impl std::fmt::Display) -> Self {
        let message = format!("Failed to create pod sandbox: {error:#}");
        Self::Reported { reason: "FailedCreatePodSandBox", message }
    }
}

/// One pod, as stages see it.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) context: Arc<Context>,
    pub(crate) folders: Folders,
    /// `None` for a pod of which only the folders are known.
    pub(crate) pod: Option<Arc<Pod>>,
}

/// What stages have prepared, for each other and for launches.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// The shim's process, if this process started it.
    pub(crate) process: Option<Process>,
    /// A connection to the shim that nobody uses yet.
    pub(crate) connection: Option<Connection>,
    /// What stands in place of the pod's uid in the network, until the pod is attached.
    pub(crate) spare: Option<(String, PodAddress)>,
    /// The name of the control group that becomes the pod's.
    pub(crate) cgroup: Option<String>,
    /// The pod's network namespace, until it is attached.
    pub(crate) netns: Option<OwnedFd>,
    /// The pod's addresses.
    pub(crate) address: Option<PodAddress>,
    /// Volumes by name.
    pub(crate) volumes: BTreeMap<String, Ready>,
    /// Runs of containers that were there already.
    pub(crate) found: Vec<wire::ContainerStatus>,
}

/// One run of a container, about to start.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) container: Container,
    pub(crate) attempt: u32,
    pub(crate) environment: Environment,
    /// What it is a run of, if not of linked source.
    pub(crate) image: Option<Digest>,
    /// What its root is a copy of, topmost first, where it is one.
    pub(crate) copied: Vec<PathBuf>,
    pub(crate) process: wire::ProcessSpec,
    pub(crate) spec: wire::ContainerSpec,
    /// Set by the last stage.
    pub(crate) started_at: Option<Timestamp>,
}

/// A phase's future.
pub(crate) type Phase<'a> = BoxFuture<'a, Result<(), StageError>>;

/// See the module's documentation for the contract of each phase.
pub(crate) trait Stage: Send + Sync {
    /// For logs.
    fn name(&self) -> &'static str;

    fn prepare<'a>(&'a self, _place: &'a Place, _parts: &'a mut Parts) -> Phase<'a> {
        nothing()
    }

    fn start<'a>(
        &'a self,
        _place: &'a Place,
        _parts: &'a Parts,
        _launch: &'a mut Launch,
    ) -> Phase<'a> {
        nothing()
    }

    fn stop<'a>(&'a self, _place: &'a Place, _parts: &'a mut Parts) -> Phase<'a> {
        nothing()
    }

    fn clean<'a>(&'a self, _place: &'a Place) -> Phase<'a> {
        nothing()
    }
}

fn nothing<'a>() -> Phase<'a> {
    Box::pin(std::future::ready(Ok(())))
}

/// Every stage, in the order of `prepare`.
const STAGES: [&dyn Stage; 7] =
    [&NoCgroup, &Shim, &Cgroup, &Network, &Volumes, &PodFiles, &Containers];

/// Prepares the place.
pub(crate) async fn prepare(place: &Place, parts: &mut Parts) -> Result<(), StageError> {
    for stage in STAGES {
        stage.prepare(place, parts).await?;
    }
    Ok(())
}

/// Starts a run.
pub(crate) async fn start(
    place: &Place,
    parts: &Parts,
    launch: &mut Launch,
) -> Result<(), StageError> {
    for stage in STAGES {
        stage.start(place, parts, launch).await?;
    }
    Ok(())
}

/// Takes the place down.
pub(crate) async fn stop(place: &Place, parts: &mut Parts) -> Result<(), StageError> {
    let mut result = Ok(());
    for stage in STAGES.into_iter().rev() {
        note(&mut result, stage, place, stage.stop(place, parts).await);
    }
    result
}

/// Takes the place down and removes every trace of it.
pub(crate) async fn clean(place: &Place, parts: &mut Parts) -> Result<(), StageError> {
    let mut result = stop(place, parts).await;
    for stage in STAGES.into_iter().rev() {
        note(&mut result, stage, place, stage.clean(place).await);
    }
    result
}

fn note(
    first: &mut Result<(), StageError>,
    stage: &dyn Stage,
    place: &Place,
    result: Result<(), StageError>,
) {
    if let Err(error) = result {
        tracing::warn!(stage = stage.name(), pod = place.folders.uid, %error, "not taken down");
        if first.is_ok() {
            *first = Err(error);
        }
    }
}
