//! What the API is told of a pod: one writer, only when something has changed, each write on the
//! condition that the pod is as it was seen.

use std::{sync::Arc, time::Duration};

use client::{Api, Client, DeleteParams, Patch, PatchParams, Preconditions};
use futures_util::{FutureExt as _, future::BoxFuture};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use runtime::Backoff;
use serde_json::{Map, Value, json};

/// While a container is just being started, a status that is about to change again waits at most
/// this long, so that a pod's start is one write and not three. Starts take some milliseconds.
const SETTLE_MAX: Duration = Duration::from_millis(100);
/// Waits after writes that failed.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) };

/// What came of a write.
#[derive(Debug)]
pub(crate) enum Written {
    /// The pod as it is now: after a write, or because the write was made on an old one.
    Pod(Arc<Pod>),
    /// There is no such pod any more.
    Vanished,
    /// To be tried again.
    Failed(String),
}

/// When the next write is made.
#[derive(Debug, Default)]
pub(crate) struct Report {
    writing: bool,
    /// Since when a change waits to settle.
    unsettled: Option<Duration>,
    retry: Option<Duration>,
    /// In a row.
    failures: u32,
}

/// What is to be done about a status.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The API knows it.
    Nothing,
    /// Write it.
    Now,
    /// A write is under way: look again when it is done.
    Busy,
    /// Look again then.
    At(Duration),
}

impl Report {
    /// Whether `wanted` has to be written. `moving`: it will change again in a moment.
    pub(crate) fn due(
        &mut self,
        pod: &Pod,
        wanted: &PodStatus,
        moving: bool,
        now: Duration,
    ) -> Due {
        if self.writing {
            return Due::Busy;
        }
        if same(pod.status.as_ref(), wanted) {
            self.unsettled = None;
            self.retry = None;
            return Due::Nothing;
        }
        if let Some(retry) = self.retry.filter(|it| now < *it) {
            return Due::At(retry);
        }
        let until = *self.unsettled.get_or_insert(now) + SETTLE_MAX;
        if moving && now < until { Due::At(until) } else { Due::Now }
    }

    /// When to look again, if nothing happens before.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        if self.writing {
            return None;
        }
        self.retry.or_else(|| self.unsettled.map(|it| it + SETTLE_MAX))
    }

    /// Whether a write is under way.
    pub(crate) const fn is_writing(&self) -> bool {
        self.writing
    }

    /// A write begins.
    pub(crate) fn begin(&mut self) {
        self.writing = true;
        self.unsettled = None;
    }

    /// A write has ended.
    pub(crate) fn end(&mut self, written: &Written, now: Duration) {
        self.writing = false;
        self.failures = match written {
            Written::Failed(_) => self.failures.saturating_add(1),
            Written::Pod(_) | Written::Vanished => 0,
        };
        self.retry = (self.failures != 0).then(|| now + RETRY.delay(self.failures));
    }
}

/// Compares as the API keeps it: time stamps in seconds.
fn same(written: Option<&PodStatus>, wanted: &PodStatus) -> bool {
    let value = |it: &PodStatus| serde_json::to_value(it).unwrap_or_default();
    written.is_some_and(|it| it == wanted || value(it) == value(wanted))
}

/// Writes `status` of `pod`.
pub(crate) fn write(client: &Client, pod: &Pod, status: &PodStatus) -> BoxFuture<'static, Written> {
    let (api, name) = api(client, pod);
    let patch = patch(pod, status);
    let (uid, revision) = (pod.metadata.uid.clone(), pod.metadata.resource_version.clone());
    async move {
        let params = PatchParams::default();
        let conflict = match api.patch_status(&name, &params, &Patch::Merge(patch)).await {
            Ok(pod) => return Written::Pod(Arc::new(pod)),
            Err(error) if client::is_conflict(&error) => error,
            Err(error) => return failed(&error),
        };
        match api.get(&name).await {
            Ok(pod) if pod.metadata.uid != uid => Written::Vanished,
            // Not because somebody else was quicker.
            Ok(pod) if pod.metadata.resource_version == revision => failed(&conflict),
            Ok(pod) => Written::Pod(Arc::new(pod)),
            Err(error) => failed(&error),
        }
    }
    .boxed()
}

/// Deletes `pod` for good, if it is still the same one; tries until it is gone.
pub(crate) fn delete(client: &Client, pod: &Pod) -> BoxFuture<'static, ()> {
    let (api, name) = api(client, pod);
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(preconditions),
        ..DeleteParams::default()
    };
    async move {
        let mut failures = 0;
        while let Err(error) = api.delete(&name, &params).await {
            // On a conflict another pod has the name by now.
            if client::is_not_found(&error) || client::is_conflict(&error) {
                return;
            }
            tracing::warn!(pod = name, %error, "pod not deleted");
            failures += 1;
            tokio::time::sleep(RETRY.delay(failures)).await;
        }
    }
    .boxed()
}

fn failed(error: &client::Error) -> Written {
    if client::is_not_found(error) {
        return Written::Vanished;
    }
    Written::Failed(error.to_string())
}

fn api(client: &Client, pod: &Pod) -> (Api<Pod>, String) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    (Api::namespaced(client.clone(), namespace), name)
}

/// A merge patch with the whole status: what is not in it any more becomes null.
fn patch(pod: &Pod, status: &PodStatus) -> Value {
    let object = |it: Option<&PodStatus>| match it.map(serde_json::to_value) {
        Some(Ok(Value::Object(map))) => map,
        _ => Map::new(),
    };
    let mut new = object(Some(status));
    for (field, old) in object(pod.status.as_ref()) {
        if new.get(&field) == Some(&old) {
            new.remove(&field);
        } else {
            new.entry(field).or_insert(Value::Null);
        }
    }
    json!({
        "metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
        },
        "status": new,
    })
}

/// Whether `other` is a newer state of the same pod than `pod`. Revisions are compared as numbers
/// (KEP-5504).
pub(crate) fn is_newer(other: &Pod, pod: &Pod) -> bool {
    let revision = |it: &Pod| it.metadata.resource_version.as_ref()?.parse::<u64>().ok();
    other.metadata.uid == pod.metadata.uid && revision(pod) <= revision(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: Value) -> Pod {
        let metadata = json!({ "uid": "u", "resourceVersion": "9" });
        serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap()
    }

    #[test]
    fn patch_has_what_changed_and_nulls_what_is_gone() {
        let pod = pod(json!({ "phase": "Running", "hostIP": "a", "message": "old" }));
        let status = serde_json::from_value(json!({ "phase": "Running", "hostIP": "b" })).unwrap();
        assert_eq!(
            patch(&pod, &status),
            json!({ "metadata": { "uid": "u", "resourceVersion": "9" },
                "status": { "hostIP": "b", "message": null } })
        );
    }

    #[test]
    fn changes_settle_but_not_for_ever() {
        let pod = pod(json!({ "phase": "Pending" }));
        let wanted = serde_json::from_value(json!({ "phase": "Running" })).unwrap();
        let ms = Duration::from_millis;
        let mut report = Report::default();
        assert_eq!(report.due(&pod, &wanted, true, ms(0)), Due::At(ms(100)));
        assert_eq!(report.due(&pod, &wanted, true, ms(60)), Due::At(ms(100)));
        assert_eq!(report.due(&pod, &wanted, false, ms(61)), Due::Now);
        assert_eq!(report.due(&pod, &wanted, true, ms(100)), Due::Now);
        report.begin();
        assert_eq!(report.due(&pod, &wanted, false, ms(101)), Due::Busy);
        report.end(&Written::Failed("no".to_owned()), ms(110));
        assert_eq!(report.due(&pod, &wanted, false, ms(120)), Due::At(ms(1110)));
        assert_eq!(report.due(&pod, &wanted, false, ms(1110)), Due::Now);
        assert_eq!(report.due(&pod, pod.status.as_ref().unwrap(), false, ms(0)), Due::Nothing);
    }
}
