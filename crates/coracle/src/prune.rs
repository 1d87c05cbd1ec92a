//! What `coracle up` deletes: what an earlier `up` of the same set applied and this one did not. A pure
//! function of what is there and what was applied; who asks and acts is [`crate::apply_set`].

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::progress;

/// The order in which kinds are applied: what others refer to comes first. Kinds that are not named
/// come after these, in the order of the manifests. What is deleted goes in the reverse order.
const KINDS_FIRST: [&str; 6] =
    ["Namespace", "ServiceAccount", "Secret", "ConfigMap", "Service", "PersistentVolumeClaim"];

/// Namespaces that the cluster itself makes: they are nobody's to delete.
const OF_CLUSTER: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Place of a kind in the order of applying.
pub(crate) fn rank(kind: &str) -> usize {
    KINDS_FIRST.iter().position(|it| *it == kind).unwrap_or(KINDS_FIRST.len())
}

/// A kind in whichever version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKind {
    pub(crate) kind: String,
    pub(crate) group: String,
}

impl GroupKind {
    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Self {
        let (kind, group) = text.split_once('.').unwrap_or((text, ""));
        Self { kind: kind.to_owned(), group: group.to_owned() }
    }

    /// Whether its objects are namespaces.
    pub(crate) fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.kind == "Namespace"
    }
}

/// As in an ApplySet's annotation: `Deployment.apps`, `Secret`.
impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

/// An object by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) kind: GroupKind,
    /// None for objects that live in no namespace.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kind = self.kind.clone();
        kind.kind.make_ascii_lowercase();
        let text = progress::object(&kind.to_string(), self.namespace.as_deref(), Some(&self.name));
        f.write_str(&text)
    }
}

/// An object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) object: Named,
    /// The set that it says to be part of.
    pub(crate) part_of: Option<String>,
    /// Whether it remembers what was applied. Controllers copy labels to what they make, not this.
    pub(crate) remembers: bool,
    /// Whether a controller made it.
    pub(crate) controlled: bool,
    /// Whether it is being deleted already.
    pub(crate) leaving: bool,
}

impl Present {
    /// Whether an `up` of set `id` applied it, and nobody took it over.
    pub(crate) fn is_member(&self, id: &str) -> bool {
        self.part_of.as_deref() == Some(id) && self.remembers && !self.controlled && !self.leaving
    }
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// What to delete, in this order.
    pub(crate) delete: Vec<Named>,
    /// What should go and must not yet, and why.
    pub(crate) keep: Vec<(Named, String)>,
}

/// What of `present` has to go, now that set `id` is `applied`. `others` are the namespaces that other
/// sets have objects in, with the name of such a set.
pub(crate) fn decide(
    id: &str,
    present: &[Present],
    applied: &[Named],
    others: &BTreeMap<String, String>,
) -> Decision {
    // The same object may be there under several versions and groups; its uid is one.
    let wanted: BTreeSet<&str> = applied.iter().map(|it| it.uid.as_str()).collect();
    let members = present.iter().filter(|it| it.is_member(id)).map(|it| &it.object);
    let mut gone: Vec<&Named> = members.filter(|it| !wanted.contains(it.uid.as_str())).collect();
    gone.sort_by_key(|it| (Reverse(rank(&it.kind.kind)), *it));
    gone.dedup_by_key(|it| &it.uid);
    let mut decision = Decision { delete: Vec::new(), keep: Vec::new() };
    for object in gone {
        if !object.kind.is_namespace() {
            decision.delete.push(object.clone());
            continue;
        }
        if OF_CLUSTER.contains(&object.name.as_str()) {
            continue;
        }
        let inside = applied.iter().find(|it| it.namespace.as_ref() == Some(&object.name));
        let inside = inside.map(|it| format!("{it}, which was applied"));
        let other = || others.get(&object.name).map(|it| format!("objects of set {it}"));
        match inside.or_else(other) {
            Some(inside) => decision.keep.push((object.clone(), format!("it holds {inside}"))),
            None => decision.delete.push(object.clone()),
        }
    }
    decision
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn named(text: &str) -> Named {
        let parts: Vec<&str> = text.split('/').collect();
        let [kind, namespace, name] = parts[..] else { panic!("{text}") };
        Named {
            kind: GroupKind::parse(kind),
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            name: name.to_owned(),
            uid: text.to_owned(),
        }
    }

    fn member(text: &str) -> Present {
        Present {
            object: named(text),
            part_of: Some("ours".to_owned()),
            remembers: true,
            controlled: false,
            leaving: false,
        }
    }

    #[track_caller]
    fn check(present: &[Present], applied: &[&str], expected: Expect) {
        let others = BTreeMap::from([("busy".to_owned(), "other".to_owned())]);
        let applied: Vec<Named> = applied.iter().map(|it| named(it)).collect();
        let Decision { delete, keep } = decide("ours", present, &applied, &others);
        let delete = delete.iter().map(|it| format!("{it} deleted"));
        let keep = keep.iter().map(|(it, why)| format!("{it} stays: {why}"));
        expected.assert_eq(&delete.chain(keep).collect::<Vec<String>>().join("\n"));
    }

    #[test]
    fn what_is_no_longer_applied_goes() {
        let present = [
            member("ConfigMap/default/a"),
            member("ConfigMap/default/b"),
            member("Deployment.apps/shop/a"),
        ];
        check(
            &present,
            &["ConfigMap/default/a"],
            expect![[r#"
                deployment.apps/a in shop deleted
                configmap/b deleted"#]],
        );
    }

    #[test]
    fn what_moved_goes_where_it_was() {
        check(
            &[member("ConfigMap/one/a"), member("ConfigMap/two/a")],
            &["ConfigMap/two/a"],
            expect!["configmap/a in one deleted"],
        );
    }

    #[test]
    fn one_object_under_two_groups_is_one() {
        let old = member("Event/default/a");
        let mut new = member("Event.events.k8s.io/default/a");
        new.object.uid.clone_from(&old.object.uid);
        check(&[old.clone(), new.clone()], &["Event/default/a"], expect![""]);
        check(&[old, new], &["ConfigMap/default/b"], expect!["event/a deleted"]);
    }

    #[test]
    fn what_is_not_of_the_set_stays() {
        let other = Present { part_of: Some("other".to_owned()), ..member("Secret/default/a") };
        let nobodys = Present { part_of: None, ..member("Secret/default/b") };
        let copied = Present { remembers: false, ..member("Endpoints/default/c") };
        let made = Present { controlled: true, ..member("Pod/default/d") };
        let leaving = Present { leaving: true, ..member("Pod/default/e") };
        check(&[other, nobodys, copied, made, leaving], &[], expect![""]);
    }

    #[test]
    fn namespaces_go_last_and_never_with_what_others_need() {
        let present = [
            member("Namespace//busy"),
            member("Namespace//default"),
            member("Namespace//old"),
            member("Namespace//shop"),
            member("ServiceAccount/old/a"),
        ];
        check(
            &present,
            &["Deployment.apps/shop/web"],
            expect![[r#"
                serviceaccount/a in old deleted
                namespace/old deleted
                namespace/busy stays: it holds objects of set other
                namespace/shop stays: it holds deployment.apps/web in shop, which was applied"#]],
        );
    }

    fn objects() -> impl Strategy<Value = Vec<Present>> {
        let kinds = prop::sample::select(vec!["Namespace", "Secret", "Deployment.apps"]);
        let one = (kinds, 0..3_u8, 0..3_u8, prop::bool::ANY, prop::bool::ANY);
        let one = one.prop_map(|(kind, namespace, name, ours, controlled)| {
            let namespace =
                if kind == "Namespace" { String::new() } else { format!("n{namespace}") };
            Present {
                part_of: Some(if ours { "ours" } else { "other" }.to_owned()),
                controlled,
                ..member(&format!("{kind}/{namespace}/n{name}"))
            }
        });
        prop::collection::vec(one, 0..12).prop_map(|mut all| {
            let mut seen = BTreeSet::new();
            all.retain(|it| seen.insert(it.object.uid.clone()));
            all
        })
    }

    proptest! {
        /// Safe: only members go, nothing that was applied goes or loses its namespace. Idempotent: after
        /// that nothing is left to do. Complete: each member is applied, deleted or kept with a reason.
        #[test]
        fn deletes_all_that_is_its_own_and_nothing_else(
            present in objects(),
            applied in prop::collection::vec(prop::bool::ANY, 12),
        ) {
            let wanted: Vec<Named> = present
                .iter()
                .zip(applied)
                .filter(|(_, applied)| *applied)
                .map(|(it, _)| it.object.clone())
                .collect();
            let none = BTreeMap::new();
            let decision = decide("ours", &present, &wanted, &none);
            for object in &decision.delete {
                prop_assert!(present.iter().any(|it| it.object == *object && it.is_member("ours")));
                prop_assert!(!wanted.contains(object));
                let namespace = object.kind.is_namespace().then_some(&object.name);
                prop_assert!(!wanted.iter().any(|it| it.namespace.as_ref() == namespace && namespace.is_some()));
            }
            let mut after = present;
            after.retain(|it| !decision.delete.contains(&it.object));
            for it in after.iter().filter(|it| it.is_member("ours")) {
                let kept = decision.keep.iter().any(|(kept, _)| *kept == it.object);
                prop_assert!(wanted.contains(&it.object) || kept);
            }
            prop_assert_eq!(decide("ours", &after, &wanted, &none).delete, vec![]);
        }
    }
}
