//! The pod's volumes, and each container's mounts of them.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::PathBuf};

use shim::wire::{Mount, Source};

use super::super::stage::{Launch, Parts, Phase, Place, Stage, StageError};
use crate::{context::make_private, volumes};

/// See the module.
pub(crate) struct Volumes;

/// Where a container leaves its last words unless it says otherwise: the API's default.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

impl Stage for Volumes {
    fn name(&self) -> &'static str {
        "volumes"
    }

    fn prepare<'a>(&'a self, place: &'a Place, parts: &'a mut Parts) -> Phase<'a> {
        Box::pin(async {
            if let Some(pod) = &place.pod {
                let volumes = volumes::set_up(pod, place.context.means(pod, &place.folders));
                parts.volumes = volumes.map_err(|it| StageError::new("FailedMount", it))?;
            }
            Ok(())
        })
    }

    fn start<'a>(
        &'a self,
        place: &'a Place,
        parts: &'a Parts,
        launch: &'a mut Launch,
    ) -> Phase<'a> {
        let added = add(place, parts, launch);
        Box::pin(std::future::ready(added))
    }

    fn stop<'a>(&'a self, place: &'a Place, _parts: &'a mut Parts) -> Phase<'a> {
        let torn = volumes::tear_down(&place.folders.state);
        let torn = torn.map_err(|it| StageError::new("FailedUnMount", it));
        Box::pin(std::future::ready(torn))
    }
}

fn add(place: &Place, parts: &Parts, launch: &mut Launch) -> Result<(), StageError> {
    let container = &launch.container;
    let mounts = volumes::mounts::mounts(container, &parts.volumes, &launch.environment);
    let mounts = mounts.map_err(|it| StageError::new("Failed", it))?;
    launch.spec.mounts.extend(mounts.into_iter().map(|it| Mount {
        source: match it.below {
            Some(path) => Source::BindBelow { folder: it.volume, path },
            None => Source::Bind { path: it.volume },
        },
        target: it.target,
        read_only: it.read_only,
    }));
    let file = place.folders.termination_message(&container.name, launch.attempt);
    let path = container.termination_message_path.as_deref().filter(|it| !it.is_empty());
    let target = PathBuf::from(path.unwrap_or(TERMINATION_MESSAGE_PATH));
    make_file(&file).map_err(|it| StageError::new("Failed", it))?;
    launch.spec.mounts.push(Mount {
        source: Source::Bind { path: file },
        target,
        read_only: false,
    });
    Ok(())
}

fn make_file(file: &std::path::Path) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        make_private(folder)?;
    }
    fs::OpenOptions::new().append(true).create(true).open(file)?;
    // Whoever the container runs as.
    fs::set_permissions(file, fs::Permissions::from_mode(0o666))
}
