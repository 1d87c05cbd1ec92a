//! Containers: the last stage, which launches what the others have composed.

use std::{
    fs,
    io::{self, ErrorKind},
    path::PathBuf,
};

use anyhow::Context as _;
use shim::wire::{Reply, Request, Root};

use super::super::{
    facts::run_id,
    shim::{Connection, unexpected},
    stage::{Launch, Parts, Phase, Place, Stage, StageError},
};
use crate::{context::make_private, logs::log_files};

/// See the module.
pub(crate) struct Containers;

impl Stage for Containers {
    fn name(&self) -> &'static str {
        "containers"
    }

    fn start<'a>(
        &'a self,
        place: &'a Place,
        _parts: &'a Parts,
        launch: &'a mut Launch,
    ) -> Phase<'a> {
        Box::pin(async {
            if let Some(image) = launch.image {
                let claimed = place.context.images.claim(&place.folders.uid, image).await;
                claimed.map_err(|it| StageError::new("Failed", it))?;
            }
            if let Root::Folder { path, .. } = &launch.spec.root {
                let copied = copy(launch.copied.clone(), path.clone()).await;
                copied.map_err(|it| StageError::new("Failed", it))?;
            }
            match run(place, launch).await {
                Ok(mut connection) => {
                    let old = launch.attempt.checked_sub(RUNS_KEPT);
                    if let Some(attempt) = old {
                        forget(place, &mut connection, &launch.container.name, attempt).await;
                    }
                    Ok(())
                }
                Err(shim::Error::Start(error)) => Err(error.into()),
                Err(error) => Err(StageError::new("Failed", error)),
            }
        })
    }

    fn stop<'a>(&'a self, place: &'a Place, _parts: &'a mut Parts) -> Phase<'a> {
        // No run goes on with the root of another.
        Box::pin(async {
            let removed = remove_folder(place.folders.all_writable()).await;
            removed.map_err(|it| StageError::new("FailedKillPod", it))
        })
    }

    fn clean<'a>(&'a self, place: &'a Place) -> Phase<'a> {
        Box::pin(async {
            let released = place.context.images.release(&place.folders.uid).await;
            released.map_err(|it| StageError::new("FailedKillPod", it))
        })
    }
}

/// Runs of a container that are kept, with their logs: the present one and the one before, which is
/// what the API can name.
const RUNS_KEPT: u32 = 2;

/// Removes what is left of an old run. What cannot be removed goes with the pod.
async fn forget(place: &Place, connection: &mut Connection, container: &str, attempt: u32) {
    let remove = Request::Remove { id: run_id(container, attempt) };
    if let Err(error) = connection.call(&remove).await {
        tracing::debug!(pod = place.folders.uid, container, attempt, %error, "run not removed");
    }
    if let Err(error) = remove_folder(place.folders.writable(container, attempt)).await {
        tracing::debug!(pod = place.folders.uid, container, attempt, %error, "root not removed");
    }
    forget_files(place, container, attempt);
}

fn forget_files(place: &Place, container: &str, attempt: u32) {
    let mut files = log_files(&place.folders.log(container, attempt));
    files.push(place.folders.termination_message(container, attempt));
    for file in files {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::debug!(file = %file.display(), %error, "not removed");
            }
            _ => {}
        }
    }
}

/// Removes what a container of an image has changed in its root, which may be many files.
async fn remove_folder(folder: PathBuf) -> io::Result<()> {
    match tokio::task::spawn_blocking(move || fs::remove_dir_all(folder)).await {
        Ok(Err(error)) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Copies layers, topmost first, into a folder of its own.
async fn copy(layers: Vec<PathBuf>, into: PathBuf) -> anyhow::Result<()> {
    // A process that was killed may have left a part of it.
    remove_folder(into.clone()).await.context("remove what is left of a container's root")?;
    let copied = tokio::task::spawn_blocking(move || {
        make_private(&into)?;
        image::unpack::copy(&layers, &into).map_err(anyhow::Error::new)
    });
    copied.await?.context("copy the image for the container")
}

async fn run(place: &Place, launch: &mut Launch) -> Result<Connection, shim::Error> {
    if let Root::Layers { writable, .. } = &launch.spec.root {
        // A try that failed may have left it, and no overlay takes it a second time.
        if writable.exists() {
            remove_folder(writable.clone()).await?;
        }
        make_private(writable)?;
    }
    let mut connection = Connection::open(&place.folders.run)?;
    let create = Request::Create(launch.spec.clone());
    let start = Request::Start { id: launch.spec.id.clone(), process: launch.process.clone() };
    // Both at once: the shim carries them out in order, and need not be woken for the second.
    connection.send(&create).await?;
    connection.send(&start).await?;
    match connection.answer().await? {
        Reply::Created { .. } => {}
        other => return Err(unexpected("create", other)),
    }
    match connection.answer().await? {
        Reply::Started { started_at, .. } => {
            let now = || place.context.clock.now();
            launch.started_at = Some(started_at.parse().unwrap_or_else(|_| now()));
            Ok(connection)
        }
        other => Err(unexpected("start", other)),
    }
}
