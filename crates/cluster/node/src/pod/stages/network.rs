//! The pod's interface and address; on the host's network, only the node's address.

use crate::context::is_on_host;

use super::super::stage::{Parts, Phase, Place, Stage, StageError};

/// See the module.
pub(crate) struct Network;

impl Stage for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    fn prepare<'a>(&'a self, place: &'a Place, parts: &'a mut Parts) -> Phase<'a> {
        Box::pin(async {
            if place.pod.as_deref().is_some_and(is_on_host) {
                parts.netns = None;
                parts.address = Some(place.context.address.into());
                return Ok(());
            }
            let (network, uid) = (&place.context.network, &place.folders.uid);
            if let Some((spare, address)) = parts.spare.take() {
                if let Err(error) = network.take_over(&spare, uid).await {
                    network.detach(&spare).await.map_err(StageError::sandbox)?;
                    return Err(StageError::sandbox(error));
                }
                parts.address = Some(address);
                return Ok(());
            }
            let netns = parts.netns.take();
            let netns = netns.ok_or_else(|| StageError::sandbox("no network namespace"))?;
            let attached = network.attach(uid, netns).await;
            parts.address = Some(attached.map_err(StageError::sandbox)?);
            Ok(())
        })
    }

    fn stop<'a>(&'a self, place: &'a Place, parts: &'a mut Parts) -> Phase<'a> {
        Box::pin(async {
            parts.address = None;
            let detached = place.context.network.detach(&place.folders.uid).await;
            detached.map_err(StageError::sandbox)
        })
    }
}
