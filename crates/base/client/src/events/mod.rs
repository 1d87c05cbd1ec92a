//! The recorder of events: what `kubectl describe` shows below an object.
//!
//! Recording never waits and never fails: an event is a courtesy, and no controller may depend on
//! one. What is written, counted up or dropped is decided in `correlate`.

mod correlate;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use kube::{Api, Client, api::PostParams};
use runtime::{Backoff, Clock, OnExit, Tasks};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use correlate::{Correlator, Occurrence, Write};

/// Events that wait to be written. The original's broadcaster keeps as many; what comes beyond is
/// dropped, so that a slow server slows nobody down.
const QUEUE_MAX: usize = 1000;

/// Attempts to write one event before it is dropped.
const TRIES_MAX: u32 = 4;

/// Waits between these attempts.
const RETRY: Backoff = Backoff { base: Duration::from_millis(250), max: Duration::from_secs(10) };

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    /// Things go their way.
    Normal,
    /// Somebody may have to look.
    Warning,
}

impl EventType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records the events of one component. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Occurrence>,
}

impl Events {
    /// A recorder for `component` (`deployment-controller`, `kubelet`, …) on the node `host`, if it
    /// belongs to one. Its writer lives in `tasks`.
    #[must_use]
    pub fn new(
        client: Client,
        component: &'static str,
        host: &str,
        clock: Clock,
        tasks: &Tasks,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let correlator = Correlator::new(component, host);
        let writer = Writer { client, clock, correlator };
        tasks.spawn("events", OnExit::Log, |stop| writer.run(waiting, stop));
        Self { queue }
    }

    /// Says that `note` happened to `about` (see [`kube::Resource::object_ref`]), for `reason`: one
    /// word in CamelCase. Repetitions are counted, floods are cut.
    pub fn record(
        &self,
        about: ObjectReference,
        kind: EventType,
        reason: &'static str,
        note: impl Into<String>,
    ) {
        let occurrence = Occurrence { about, kind, reason, note: note.into() };
        if let Err(error) = self.queue.try_send(occurrence) {
            tracing::debug!(reason, %error, "event dropped");
        }
    }
}

struct Writer {
    client: Client,
    clock: Clock,
    correlator: Correlator,
}

impl Writer {
    async fn run(
        mut self,
        mut waiting: mpsc::Receiver<Occurrence>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                next = waiting.recv() => next,
            };
            let Some(occurrence) = next else { return Ok(()) };
            let Some(write) = self.correlator.observe(&occurrence, self.clock.now()) else {
                continue;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.write(write) => {}
            }
        }
    }

    async fn write(&self, write: Write) {
        for failures in 1..=TRIES_MAX {
            match self.try_write(&write).await {
                Ok(()) => return,
                // The server has said no: the namespace is gone or going, or the event is there.
                Err(error) if crate::status_code(&error).is_some_and(|it| it < 500) => {
                    tracing::debug!(%error, "event refused");
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "event not written");
                    tokio::time::sleep(RETRY.delay(failures)).await;
                }
            }
        }
    }

    async fn try_write(&self, write: &Write) -> kube::Result<()> {
        let namespace = write.event.metadata.namespace.as_deref().unwrap_or("default");
        let name = write.event.metadata.name.as_deref().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if let Some(patch) = write.patch() {
            match events.patch(name, &kube::api::PatchParams::default(), &patch).await {
                // Somebody deleted it (events expire): tell the whole story anew.
                Err(error) if crate::is_not_found(&error) => {}
                result => return result.map(drop),
            }
        }
        events.create(&PostParams::default(), &write.event).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use jiff::Timestamp;
    use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
    use kube::Resource as _;

    use super::*;
    use crate::fake::Server;

    #[tokio::test(start_paused = true)]
    async fn repetitions_are_counted_and_an_expired_event_is_made_anew() {
        let (server, tasks) = (Server::default(), Tasks::default());
        let clock = Clock::following_tokio(Timestamp::UNIX_EPOCH);
        let events = Events::new(server.client(), "tester", "", clock, &tasks);
        let (name, namespace) = (Some("p".to_owned()), Some("a".to_owned()));
        let metadata = ObjectMeta { name, namespace, ..Default::default() };
        let about = Pod { metadata, ..Default::default() }.object_ref(&());
        let record = async || {
            events.record(about.clone(), EventType::Normal, "Happened", "it happened");
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        record().await;
        record().await;
        server.delete("/api/v1/namespaces/a/events/p.1");
        record().await;
        expect![[r#"
            POST /api/v1/namespaces/a/events count=1
            PATCH /api/v1/namespaces/a/events/p.1 count=2
            PATCH /api/v1/namespaces/a/events/p.1 count=3
            POST /api/v1/namespaces/a/events count=3"#]]
        .assert_eq(&server.writes().join("\n"));
    }
}
