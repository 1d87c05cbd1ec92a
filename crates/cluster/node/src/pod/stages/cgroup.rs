//! The pod's control groups, and what its containers are limited to.

use std::sync::Arc;

use super::{
    super::{
        facts::run_id,
        stage::{Launch, Parts, Phase, Place, Stage, StageError},
    },
    sandbox::blocking,
};
use crate::cgroups::amounts::{self, Amounts};

/// Removes the groups. This is after the last process has ended, so it comes before the stage that has
/// the processes, while [`Cgroup`] needs what that has made.
pub(crate) struct NoCgroup;

impl Stage for NoCgroup {
    fn name(&self) -> &'static str {
        "no cgroup"
    }

    fn stop<'a>(&'a self, place: &'a Place, _parts: &'a mut Parts) -> Phase<'a> {
        Box::pin(async {
            let (cgroups, uid) = (Arc::clone(&place.context.cgroups), place.folders.uid.clone());
            blocking(move || cgroups.remove_pod(&uid).map_err(anyhow::Error::new)).await
        })
    }
}

/// See the module.
pub(crate) struct Cgroup;

impl Stage for Cgroup {
    fn name(&self) -> &'static str {
        "cgroup"
    }

    fn prepare<'a>(&'a self, place: &'a Place, parts: &'a mut Parts) -> Phase<'a> {
        Box::pin(async {
            let Some(spare) = parts.cgroup.take() else { return Ok(()) };
            let (cgroups, uid) = (Arc::clone(&place.context.cgroups), place.folders.uid.clone());
            blocking(move || cgroups.take_over(&spare, &uid).map_err(anyhow::Error::new)).await
        })
    }

    fn start<'a>(
        &'a self,
        place: &'a Place,
        _parts: &'a Parts,
        launch: &'a mut Launch,
    ) -> Phase<'a> {
        Box::pin(async {
            let Some(pod) = &place.pod else { return Ok(()) };
            let context = &place.context;
            let score = amounts::oom_score(pod, &launch.container, context.machine.memory_bytes);
            launch.process.oom_score_adj = context.oom_scores.grant(score);
            let (of_pod, of_container) = (Amounts::of_pod(pod), Amounts::of(&launch.container));
            let (uid, run) = (place.folders.uid.clone(), launch.spec.id.clone());
            let cgroups = Arc::clone(&place.context.cgroups);
            let before = launch.attempt.checked_sub(1);
            let before = before.map(|it| run_id(&launch.container.name, it));
            let made = tokio::task::spawn_blocking(move || {
                if let Some(before) = before {
                    cgroups.end(&uid, &before);
                }
                cgroups.begin((&uid, &run), &of_pod, &of_container)
            });
            let made = made.await.map_err(|it| StageError::new("Failed", it))?;
            launch.spec.cgroups =
                made.map_err(|it| StageError::new("Failed", anyhow::Error::new(it)))?;
            Ok(())
        })
    }
}
