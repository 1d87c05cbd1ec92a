//! What becomes of one object, as a function of its owners and its dependents.
//!
//! The rules are those of the garbage collector of kube-controller-manager
//! (pkg/controller/garbagecollector, KEP-1005 and the page "Garbage Collection").

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

use super::graph::Node;

/// Holds an object until its dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Holds an object until its dependents have forgotten it.
const ORPHAN: &str = "orphan";

/// What is known of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It is there.
    Present,
    /// It is going, and waits for its dependents to go first.
    WaitsForDependents,
    /// It is gone, or another object has its name now.
    Gone,
    /// The server has no such kind, so nobody can tell.
    Unknown,
}

impl Owner {
    /// What the metadata of an owner says.
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        if holds(meta, FOREGROUND) { Self::WaitsForDependents } else { Self::Present }
    }
}

/// An object that names the one in question as its owner.
#[derive(Clone, Debug)]
pub(super) struct Dependent {
    pub(super) node: Node,
    pub(super) metadata: ObjectMeta,
}

/// Everything one decision depends on.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) object: ObjectMeta,
    pub(super) owners: Vec<(OwnerReference, Owner)>,
    pub(super) dependents: Vec<Dependent>,
}

/// One step, safe to repeat.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Delete the object.
    Delete(PropagationPolicy),
    /// Give the object these owners.
    SetOwners(Vec<OwnerReference>),
    /// Give the object these finalizers.
    SetFinalizers(Vec<String>),
    /// Give a dependent these owners.
    SetOwnersOf(Node, Vec<OwnerReference>),
}

/// What to do, in this order, and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Decision {
    pub(super) actions: Vec<Action>,
    pub(super) reason: &'static str,
}

/// Whether a change can concern owners or dependents at all. Most objects never have any, so that
/// nothing but their deletion does.
pub(super) fn concerns(old: Option<&ObjectMeta>, new: Option<&ObjectMeta>) -> bool {
    let has_part = |it: &ObjectMeta| {
        it.deletion_timestamp.is_some()
            || !it.owner_references.as_deref().unwrap_or_default().is_empty()
            || !it.finalizers.as_deref().unwrap_or_default().is_empty()
    };
    let replaced = old.zip(new).is_some_and(|(old, new)| old.uid != new.uid);
    new.is_none() || replaced || old.is_some_and(has_part) || new.is_some_and(has_part)
}

/// Whether a change can alter anybody's fate.
pub(super) fn is_worth_a_look(old: Option<&ObjectMeta>, new: Option<&ObjectMeta>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => {
            old.resource_version == new.resource_version
                || old.uid != new.uid
                || old.deletion_timestamp.is_some() != new.deletion_timestamp.is_some()
                || old.owner_references != new.owner_references
                || old.finalizers != new.finalizers
        }
        _ => true,
    }
}

/// What becomes of the object.
pub(super) fn decide(seen: &Seen) -> Decision {
    if holds(&seen.object, ORPHAN) {
        return orphan(seen);
    }
    if holds(&seen.object, FOREGROUND) {
        return delete_dependents(seen);
    }
    if seen.object.deletion_timestamp.is_some() {
        return Decision { reason: "is going already", ..Decision::default() };
    }
    judge(seen)
}

/// Whether the object is going and this finalizer holds it.
fn holds(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.deletion_timestamp.is_some() && has_finalizer(meta, finalizer)
}

fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|it| it == finalizer)
}

fn without(meta: &ObjectMeta, finalizer: &str) -> Vec<String> {
    meta.finalizers.iter().flatten().filter(|it| *it != finalizer).cloned().collect()
}

fn owners_without(meta: &ObjectMeta, uid: Option<&str>) -> Vec<OwnerReference> {
    let owners = meta.owner_references.iter().flatten();
    owners.filter(|it| Some(it.uid.as_str()) != uid).cloned().collect()
}

/// The dependents forget the object, then it may go.
fn orphan(seen: &Seen) -> Decision {
    let uid = seen.object.uid.as_deref();
    let forget =
        |it: &Dependent| Action::SetOwnersOf(it.node.clone(), owners_without(&it.metadata, uid));
    let mut actions: Vec<Action> = seen.dependents.iter().map(forget).collect();
    actions.push(Action::SetFinalizers(without(&seen.object, ORPHAN)));
    Decision { actions, reason: "leaves its dependents behind" }
}

/// The dependents that hold the object back go first. Others go in the background.
fn delete_dependents(seen: &Seen) -> Decision {
    let uid = seen.object.uid.as_deref();
    let blocks = |it: &&Dependent| {
        let mut owners = it.metadata.owner_references.iter().flatten();
        owners.any(|it| Some(it.uid.as_str()) == uid && it.block_owner_deletion == Some(true))
    };
    if !seen.dependents.iter().any(|it| blocks(&it)) {
        let actions = vec![Action::SetFinalizers(without(&seen.object, FOREGROUND))];
        return Decision { actions, reason: "its dependents are gone" };
    }
    // A dependent decides itself, when it is looked at, whether it has other owners to live for.
    Decision { actions: Vec::new(), reason: "waits for its dependents to go" }
}

/// An object lives as long as one of its owners does.
fn judge(seen: &Seen) -> Decision {
    if seen.owners.is_empty() {
        return Decision { reason: "has no owners", ..Decision::default() };
    }
    let is = |wanted: Owner| seen.owners.iter().any(|(_, it)| *it == wanted);
    let going = is(Owner::Gone) || is(Owner::WaitsForDependents);
    if !going {
        return Decision { reason: "has its owners", ..Decision::default() };
    }
    if is(Owner::Present) || is(Owner::Unknown) {
        let alive = |it: &&(OwnerReference, Owner)| matches!(it.1, Owner::Present | Owner::Unknown);
        let owners = seen.owners.iter().filter(alive).map(|(it, _)| it.clone()).collect();
        let actions = vec![Action::SetOwners(owners)];
        return Decision { actions, reason: "has lost some of its owners" };
    }
    let policy = if is(Owner::WaitsForDependents) && !seen.dependents.is_empty() {
        // Its own dependents hold its owner back as well.
        PropagationPolicy::Foreground
    } else if has_finalizer(&seen.object, ORPHAN) {
        PropagationPolicy::Orphan
    } else if has_finalizer(&seen.object, FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    let actions = unblock(seen).into_iter().chain([Action::Delete(policy)]).collect();
    Decision { actions, reason: "has lost all its owners" }
}

/// A circle of owners that all wait for each other would wait for ever: a dependent that is itself
/// waiting no longer holds this object back.
fn unblock(seen: &Seen) -> Vec<Action> {
    if !seen.owners.iter().any(|(_, it)| *it == Owner::WaitsForDependents) {
        return Vec::new();
    }
    let uid = seen.object.uid.as_deref();
    let waiting = seen.dependents.iter().filter(|it| holds(&it.metadata, FOREGROUND));
    let released = waiting.map(|it| {
        let mut owners = it.metadata.owner_references.clone().unwrap_or_default();
        for owner in owners.iter_mut().filter(|it| Some(it.uid.as_str()) == uid) {
            owner.block_owner_deletion = Some(false);
        }
        Action::SetOwnersOf(it.node.clone(), owners)
    });
    released.collect()
}

#[cfg(test)]
mod tests {
    use client::Key;
    use expect_test::{Expect, expect};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn reference(uid: &str, block: bool) -> OwnerReference {
        OwnerReference {
            uid: uid.to_owned(),
            block_owner_deletion: Some(block),
            ..Default::default()
        }
    }

    /// The object `it`, going if `finalizers` is more than empty.
    fn seen(finalizers: &[&str], owners: &[(&str, Owner)], dependents: &[(&str, bool)]) -> Seen {
        let object = ObjectMeta {
            uid: Some("it".to_owned()),
            finalizers: Some(finalizers.iter().map(|it| (*it).to_owned()).collect()),
            deletion_timestamp: (!finalizers.is_empty()).then(|| Time(Default::default())),
            ..Default::default()
        };
        let dependents = dependents.iter().map(|(name, block)| Dependent {
            node: Node { kind: 0, key: Key::cluster(*name) },
            metadata: ObjectMeta {
                owner_references: Some(vec![reference("it", *block), reference("other", false)]),
                ..Default::default()
            },
        });
        let owners = owners.iter().map(|(uid, it)| (reference(uid, true), *it)).collect();
        Seen { object, owners, dependents: dependents.collect() }
    }

    #[track_caller]
    fn check(seen: Seen, expect: Expect) {
        let decision = decide(&seen);
        let uids = |owners: &[OwnerReference]| {
            owners.iter().map(|it| it.uid.clone()).collect::<Vec<_>>().join(" ")
        };
        let mut shown = decision.reason.to_owned();
        for action in &decision.actions {
            shown += &match action {
                Action::Delete(policy) => format!("\ndelete {policy:?}"),
                Action::SetOwners(owners) => format!("\nowners {}", uids(owners)),
                Action::SetFinalizers(it) => format!("\nfinalizers {}", it.join(" ")),
                Action::SetOwnersOf(node, owners) => {
                    format!("\nowners of {}: {}", node.key, uids(owners))
                }
            };
        }
        expect.assert_eq(&shown);
    }

    #[test]
    fn what_has_no_part_in_it_concerns_nobody_until_it_goes() {
        let plain = seen(&[], &[], &[]).object;
        let going = seen(&[ORPHAN], &[], &[]).object;
        let owned =
            ObjectMeta { owner_references: Some(vec![reference("a", false)]), ..plain.clone() };
        let again = ObjectMeta { uid: Some("another".to_owned()), ..plain.clone() };
        assert!(!concerns(None, Some(&plain)));
        assert!(!concerns(Some(&plain), Some(&plain)));
        assert!(concerns(Some(&plain), None));
        assert!(concerns(Some(&plain), Some(&again)));
        for it in [&going, &owned] {
            assert!(concerns(None, Some(it)));
            assert!(concerns(Some(&plain), Some(it)));
            assert!(concerns(Some(it), Some(&plain)));
        }
    }

    #[test]
    fn an_object_lives_as_long_as_one_owner() {
        check(seen(&[], &[], &[]), expect!["has no owners"]);
        check(seen(&[], &[("a", Owner::Present)], &[]), expect!["has its owners"]);
        check(
            seen(&[], &[("a", Owner::Present), ("b", Owner::Gone)], &[]),
            expect![[r#"
            has lost some of its owners
            owners a"#]],
        );
        check(
            seen(&[], &[("a", Owner::Gone), ("b", Owner::Gone)], &[]),
            expect![[r#"
            has lost all its owners
            delete Background"#]],
        );
    }

    #[test]
    fn an_owner_of_unknown_kind_may_be_alive() {
        check(seen(&[], &[("a", Owner::Unknown)], &[]), expect!["has its owners"]);
        check(
            seen(&[], &[("a", Owner::Unknown), ("b", Owner::Gone)], &[]),
            expect![[r#"
            has lost some of its owners
            owners a"#]],
        );
    }

    #[test]
    fn foreground_deletion_goes_from_the_leaves_up() {
        check(
            seen(&[FOREGROUND, "x"], &[], &[("d", true)]),
            expect!["waits for its dependents to go"],
        );
        check(
            seen(&[FOREGROUND, "x"], &[], &[("d", false)]),
            expect![[r#"
            its dependents are gone
            finalizers x"#]],
        );
        check(
            seen(&[], &[("a", Owner::WaitsForDependents)], &[("d", true)]),
            expect![[r#"
            has lost all its owners
            delete Foreground"#]],
        );
        check(
            seen(&[], &[("a", Owner::WaitsForDependents)], &[]),
            expect![[r#"
            has lost all its owners
            delete Background"#]],
        );
    }

    #[test]
    fn orphans_forget_their_owner() {
        check(
            seen(&[ORPHAN], &[], &[("d", true)]),
            expect![[r#"
            leaves its dependents behind
            owners of d: other
            finalizers "#]],
        );
    }

    #[test]
    fn what_goes_already_is_left_alone() {
        check(seen(&["x"], &[("a", Owner::Gone)], &[]), expect!["is going already"]);
    }
}
