//! When a namespace may go, and what its status says until then.

use std::{collections::BTreeMap, sync::Arc};

use client::ApiResource;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, NamespaceSpec, NamespaceStatus},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};

/// The finalizer that stands for this controller.
const FINALIZER: &str = "kubernetes";

/// What is left of one kind.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) resource: ApiResource,
    pub(super) left: Vec<ObjectMeta>,
    /// Why it could not be emptied.
    pub(super) failure: Option<String>,
}

/// Everything one decision depends on. The namespace is being deleted.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) now: Timestamp,
    pub(super) namespace: Arc<Namespace>,
    pub(super) discovery_failure: Option<String>,
    pub(super) contents: Vec<Content>,
}

/// What to do, in this order, and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Decision {
    /// The status to write; `None` if it is right.
    pub(super) status: Option<NamespaceStatus>,
    /// The spec to finalize with; the namespace is gone after that, unless others hold it too.
    pub(super) finalize: Option<NamespaceSpec>,
    pub(super) reason: &'static str,
}

/// Lets the namespace go if nothing is left in it.
pub(super) fn decide(seen: &Seen) -> Decision {
    let failures: Vec<&str> = seen.contents.iter().filter_map(|it| it.failure.as_deref()).collect();
    let empty = seen.contents.iter().all(|it| it.left.is_empty());
    let spec = seen.namespace.spec.clone().unwrap_or_default();
    if empty && failures.is_empty() && seen.discovery_failure.is_none() {
        let mut finalizers = spec.finalizers.unwrap_or_default();
        finalizers.retain(|it| it != FINALIZER);
        let finalize = Some(NamespaceSpec { finalizers: Some(finalizers) });
        return Decision { status: None, finalize, reason: "is empty" };
    }
    let status = NamespaceStatus {
        phase: Some("Terminating".to_owned()),
        conditions: Some(conditions(seen, &failures)),
    };
    let same = seen.namespace.status.as_ref() == Some(&status);
    let reason = if empty { "cannot be emptied" } else { "waits for its content to go" };
    Decision { status: (!same).then_some(status), finalize: None, reason }
}

/// The five conditions of a namespace that is going, with the original's words.
fn conditions(seen: &Seen, failures: &[&str]) -> Vec<NamespaceCondition> {
    let old = seen.namespace.status.iter().flat_map(|it| it.conditions.iter().flatten());
    let old: Vec<_> = old.collect();
    let condition = |kind: &str, bad: Option<String>, reasons: [&str; 2], good: &str| {
        let status = if bad.is_some() { "True" } else { "False" };
        let before = old.iter().find(|it| it.type_ == kind && it.status == status);
        let since = before.and_then(|it| it.last_transition_time.clone());
        let [bad_reason, good_reason] = reasons;
        NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(if bad.is_some() { bad_reason } else { good_reason }.to_owned()),
            message: Some(bad.unwrap_or_else(|| good.to_owned())),
            last_transition_time: Some(since.unwrap_or(Time(seen.now))),
        }
    };
    let failed = (!failures.is_empty()).then(|| {
        format!(
            "Failed to delete all resource types, {} remaining: {}",
            failures.len(),
            failures.join(", ")
        )
    });
    vec![
        condition(
            "NamespaceDeletionDiscoveryFailure",
            seen.discovery_failure.clone(),
            ["DiscoveryFailed", "ResourcesDiscovered"],
            "All resources successfully discovered",
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ["GroupVersionParsingFailed", "ParsedGroupVersions"],
            "All legacy kube types successfully parsed",
        ),
        condition(
            "NamespaceDeletionContentFailure",
            failed,
            ["ContentDeletionFailed", "ContentDeleted"],
            "All content successfully deleted, may be waiting on finalization",
        ),
        condition(
            "NamespaceContentRemaining",
            remaining(&seen.contents),
            ["SomeResourcesRemain", "ContentRemoved"],
            "All content successfully removed",
        ),
        condition(
            "NamespaceFinalizersRemaining",
            finalizers(&seen.contents),
            ["SomeFinalizersRemain", "ContentHasNoFinalizers"],
            "All content-preserving finalizers finished",
        ),
    ]
}

fn remaining(contents: &[Content]) -> Option<String> {
    let left = contents.iter().filter(|it| !it.left.is_empty());
    let left = left.map(|it| {
        let resource = &it.resource;
        format!("{}.{} has {} resource instances", resource.plural, resource.group, it.left.len())
    });
    listed(left, "Some resources are remaining: ")
}

fn finalizers(contents: &[Content]) -> Option<String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    let left = contents.iter().flat_map(|it| &it.left);
    for finalizer in left.flat_map(|it| it.finalizers.iter().flatten()) {
        *counts.entry(finalizer).or_default() += 1;
    }
    let counts = counts.iter().map(|(it, count)| format!("{it} in {count} resource instances"));
    listed(counts, "Some content in the namespace has finalizers remaining: ")
}

fn listed(parts: impl Iterator<Item = String>, prefix: &str) -> Option<String> {
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| format!("{prefix}{}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn content(plural: &str, left: usize, finalizers: &[&str]) -> Content {
        let finalizers = finalizers.iter().map(|it| (*it).to_owned()).collect();
        let object = ObjectMeta { finalizers: Some(finalizers), ..Default::default() };
        let resource = ApiResource {
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            api_version: "apps/v1".to_owned(),
            kind: String::new(),
            plural: plural.to_owned(),
        };
        Content { resource, left: vec![object; left], failure: None }
    }

    #[track_caller]
    fn check(contents: Vec<Content>, discovery_failure: Option<&str>, expect: Expect) {
        let finalizers = Some(vec![FINALIZER.to_owned(), "other".to_owned()]);
        let spec = Some(NamespaceSpec { finalizers });
        let namespace = Arc::new(Namespace { spec, ..Default::default() });
        let discovery_failure = discovery_failure.map(ToOwned::to_owned);
        let seen = Seen { now: Timestamp::UNIX_EPOCH, namespace, discovery_failure, contents };
        let decision = decide(&seen);
        let mut shown = decision.reason.to_owned();
        if let Some(spec) = decision.finalize {
            shown += &format!("\nfinalize, leaving {:?}", spec.finalizers.unwrap());
        }
        let status = decision.status.iter();
        for it in status.flat_map(|it| it.conditions.iter().flatten()) {
            if it.status == "True" {
                shown += &format!("\n{}: {}", it.type_, it.message.as_ref().unwrap());
            }
        }
        expect.assert_eq(&shown);
    }

    #[test]
    fn an_empty_namespace_may_go() {
        check(
            vec![content("deployments", 0, &[])],
            None,
            expect![[r#"
            is empty
            finalize, leaving ["other"]"#]],
        );
    }

    #[test]
    fn what_is_left_is_told() {
        check(
            vec![content("deployments", 1, &[]), content("replicasets", 2, &["x/y"])],
            None,
            expect![[r#"
                waits for its content to go
                NamespaceContentRemaining: Some resources are remaining: deployments.apps has 1 resource instances, replicasets.apps has 2 resource instances
                NamespaceFinalizersRemaining: Some content in the namespace has finalizers remaining: x/y in 2 resource instances"#]],
        );
    }

    #[test]
    fn what_is_not_known_may_be_there() {
        check(
            Vec::new(),
            Some("no answer"),
            expect![[r#"
            cannot be emptied
            NamespaceDeletionDiscoveryFailure: no answer"#]],
        );
        let mut failed = content("deployments", 0, &[]);
        failed.failure = Some("no".to_owned());
        check(
            vec![failed],
            None,
            expect![[r#"
            cannot be emptied
            NamespaceDeletionContentFailure: Failed to delete all resource types, 1 remaining: no"#]],
        );
    }
}
