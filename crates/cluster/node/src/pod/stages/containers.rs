//! Containers: the last stage, which launches what the others have composed.

use shim::wire::{Reply, Request};

use super::super::{
    shim::{Connection, unexpected},
    stage::{Launch, Parts, Phase, Place, Stage, StageError},
};

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
            match run(place, launch).await {
                Ok(()) => Ok(()),
                Err(shim::Error::Start(error)) => Err(error.into()),
                Err(error) => Err(StageError::new("Failed", error)),
            }
        })
    }
}

async fn run(place: &Place, launch: &mut Launch) -> Result<(), shim::Error> {
    let mut connection = Connection::open(&place.folders.run)?;
    let create = Request::Create(launch.spec.clone());
    match connection.call(&create).await? {
        Reply::Created { .. } => {}
        other => return Err(unexpected("create", other)),
    }
    let start = Request::Start { id: launch.spec.id.clone(), process: launch.process.clone() };
    match connection.call(&start).await? {
        Reply::Started { started_at, .. } => {
            let now = || place.context.clock.now();
            launch.started_at = Some(started_at.parse().unwrap_or_else(|_| now()));
            Ok(())
        }
        other => Err(unexpected("start", other)),
    }
}
