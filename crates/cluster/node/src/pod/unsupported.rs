//! What a pod asks for and does not get: said in an Event each, never passed over.

use client::EventType::Warning;
use k8s_openapi::api::core::v1::Container;

use super::worker::Worker;

impl Worker {
    /// Says what a container that has started goes without.
    pub(super) fn tell_unsupported(&self, container: &Container) {
        let name = container.name.as_str();
        let tell = |reason, what: &str| {
            let note = format!("{what} not supported yet: container {name} goes without");
            self.teller.tell(&self.pod, Some(name), (Warning, reason), note);
        };
        let lifecycle = container.lifecycle.as_ref();
        if lifecycle.is_some_and(|it| it.post_start.is_some()) {
            tell("FailedPostStartHook", "postStart hooks are");
        }
        if lifecycle.is_some_and(|it| it.pre_stop.is_some()) {
            tell("FailedPreStopHook", "preStop hooks are");
        }
        let spec = self.pod.spec.as_ref();
        if spec.is_some_and(|it| it.runtime_class_name.is_some()) {
            tell("RuntimeClassNotSupported", "runtimeClassName is");
        }
        if let Some(note) = self.context.cgroups.unlimited(container) {
            self.teller.tell(&self.pod, Some(name), (Warning, "LimitsNotEnforced"), note);
        }
    }
}
