//! The events of one pod, with the kubelet's reasons and words.

use std::sync::{Mutex, MutexGuard, PoisonError};

use client::{EventType, Events, Resource as _};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use super::{
    admission::{Refusal, refusal},
    decide::Decision,
    seen::{Waiting, containers},
};

/// Tells each thing once: what a container waits for is told when it changes. What it is given waits
/// until it is flushed, or dropped: whoever watches the pod should not wait for its events.
#[derive(Debug)]
pub(crate) struct Teller {
    events: Events,
    waiting: Mutex<Vec<Told>>,
    told: std::collections::BTreeMap<String, Waiting>,
    /// It was told that the pod never runs.
    refused: bool,
}

/// The pod, or one of its containers, as an event is about it.
pub(crate) fn about(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let mut about = pod.object_ref(&());
    about.field_path = container.map(|name| {
        let init = pod.spec.as_ref().and_then(|it| it.init_containers.as_deref());
        let list = match init.unwrap_or_default().iter().any(|it| it.name == name) {
            true => "initContainers",
            false => "containers",
        };
        format!("spec.{list}{{{name}}}")
    });
    about
}

/// An event that is not recorded yet.
#[derive(Debug)]
struct Told {
    about: ObjectReference,
    kind: EventType,
    reason: &'static str,
    note: String,
}

impl Teller {
    pub(crate) fn new(events: Events) -> Self {
        let (waiting, told) = (Mutex::default(), std::collections::BTreeMap::new());
        Self { events, waiting, told, refused: false }
    }

    /// Records what waits.
    pub(crate) fn flush(&self) {
        let waiting = std::mem::take(&mut *self.waiting());
        for Told { about, kind, reason, note } in waiting {
            self.events.record(about, kind, reason, note);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Told>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// About the pod, or one of its containers.
    pub(crate) fn tell(
        &self,
        pod: &Pod,
        container: Option<&str>,
        (kind, reason): (EventType, &'static str),
        note: impl Into<String>,
    ) {
        let about = about(pod, container);
        self.waiting().push(Told { about, kind, reason, note: note.into() });
    }

    /// What containers wait for since this decision.
    pub(crate) fn tell_waits(&mut self, pod: &Pod, decision: &Decision) {
        for (_, container) in containers(pod) {
            let name = container.name.as_str();
            let waiting = decision.waiting.get(name);
            if waiting == self.told.get(name) {
                continue;
            }
            match waiting {
                Some(waiting) => {
                    self.tell_wait(pod, name, waiting);
                    self.told.insert(name.to_owned(), waiting.clone());
                }
                None => drop(self.told.remove(name)),
            }
        }
    }

    /// Why the pod never runs, unless its status says so already.
    pub(super) fn tell_refusal(&mut self, pod: &Pod) {
        let known = pod.status.as_ref().is_some_and(|it| it.phase.as_deref() == Some("Failed"));
        if known || self.refused {
            return;
        }
        if let Some(Refusal { reason, message }) = refusal(pod) {
            self.refused = true;
            self.tell(pod, None, (EventType::Warning, reason), message);
        }
    }

    fn tell_wait(&self, pod: &Pod, name: &str, waiting: &Waiting) {
        let warn = |reason: &'static str, note: String| {
            self.tell(pod, Some(name), (EventType::Warning, reason), note);
        };
        let message = waiting.message.as_deref().unwrap_or_default();
        match waiting.reason.as_str() {
            "CrashLoopBackOff" => {
                let metadata = &pod.metadata;
                let text = |it: &Option<String>| it.clone().unwrap_or_default();
                let (pod, uid) = (text(&metadata.name), text(&metadata.uid));
                let namespace = text(&metadata.namespace);
                let note = format!(
                    "Back-off restarting failed container {name} in pod {pod}_{namespace}({uid})"
                );
                warn("BackOff", note);
            }
            "CreateContainerConfigError" | "CreateContainerError" => {
                warn("Failed", format!("Error: {message}"));
            }
            _ => {}
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.flush();
    }
}
