//! Ends UDP flows to endpoints that are none any more, beside the routing, which does not wait.
//!
//! Without it a client that keeps its port finds out only when its flow times out. The kernel looks
//! through the connections of the whole machine for it, some 10 ms, so what comes meanwhile is
//! collected for one more look.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{blocking, describe};
use crate::{
    family::IpFamily,
    netlink::conntrack::{Conntrack, Flow},
};

/// Flows to end, by service and endpoint: bounded by how many of them there are.
#[derive(Debug, Default)]
pub(super) struct StaleFlows {
    waiting: Mutex<BTreeSet<Flow>>,
    added: Notify,
}

impl StaleFlows {
    /// Adds flows to end.
    pub(super) fn add(&self, flows: &BTreeSet<Flow>) {
        if !flows.is_empty() {
            self.waiting().extend(flows);
            self.added.notify_one();
        }
    }

    /// Runs until `stop`.
    pub(super) async fn run(
        self: Arc<Self>,
        family: IpFamily,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let conntrack = Arc::new(Conntrack::new(family));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.added.notified() => {}
            }
            let flows = std::mem::take(&mut *self.waiting());
            let conntrack = Arc::clone(&conntrack);
            match blocking(move || conntrack.forget(&flows)).await {
                Ok(count) => tracing::debug!(count, "udp flows forgotten"),
                Err(error) => tracing::warn!(error = describe(&error), "udp flows not forgotten"),
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<Flow>> {
        // Every change of the set is complete before anything can panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
