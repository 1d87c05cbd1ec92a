//! The published types as a table: field names, types, merge keys, and what follows from them:
//! strict field checks.
//!
//! Facts only; which kinds are served is the table of kinds' business.

pub(crate) mod base64;
mod check;
mod duplicates;
mod go;
mod prune;
mod table;
pub(crate) mod time;

pub use self::{
    check::{Problems, check},
    duplicates::duplicates,
    prune::prune,
    table::{
        Definition, Field, GroupVersionKind, Limits, Type, Wire, Zero, definition,
        definition_of_kind,
    },
};

/// Types of bodies and parts of answers that belong to no kind of the table.
pub const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
/// Body of `pods/binding`.
pub const BINDING: &str = "io.k8s.api.core.v1.Binding";
/// Body of `pods/eviction`.
pub const EVICTION: &str = "io.k8s.api.policy.v1.Eviction";
/// Body of a delete request.
pub const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// Answer to a delete request, and every error.
pub const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
/// `metadata` of every object.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// `metadata` of every list.
pub const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The text of the table.
pub(crate) use self::table::TEXT;

/// How strategic merge patch treats one field (`x-kubernetes-patch-strategy` and
/// `x-kubernetes-patch-merge-key`), and which type is below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patching {
    /// Lists: merged (by `merge_key`, or as a set where there is none), not replaced.
    pub merge: bool,
    /// Strategy `retainKeys`.
    pub retain_keys: bool,
    /// Key by which items of a merged list are the same.
    pub merge_key: Option<&'static str>,
    /// Definition of the field's object, of its list's items or of its map's values.
    pub definition: Option<&'static str>,
    /// Whether `definition` is of a map's values: any key below the field has that definition.
    pub map: bool,
}

/// How to patch `field` of `definition`; `None` if there is no such field.
#[must_use]
pub fn patching(definition: &str, field: &str) -> Option<Patching> {
    let field = table::definition(definition)?.field(field)?;
    Some(Patching {
        merge: field.merge,
        retain_keys: field.retain_keys,
        merge_key: field.merge_key,
        definition: field.kind.below().map(|it| it.name),
        map: matches!(field.kind, Type::Map(_)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";

    #[test]
    fn patching_follows_the_table() {
        let containers = patching(POD_SPEC, "containers").unwrap();
        assert_eq!((containers.merge, containers.merge_key), (true, Some("name")));
        assert_eq!(containers.definition, Some("io.k8s.api.core.v1.Container"));
        let volumes = patching(POD_SPEC, "volumes").unwrap();
        assert!(volumes.merge && volumes.retain_keys);
        let finalizers = patching(OBJECT_META, "finalizers").unwrap();
        assert_eq!((finalizers.merge, finalizers.merge_key), (true, None));
        assert!(!patching(POD_SPEC, "tolerations").unwrap().merge);
        assert_eq!(patching(POD_SPEC, "nonsense"), None);
    }

    #[test]
    fn bodies_are_in_the_table() {
        for name in [SCALE, BINDING, EVICTION, DELETE_OPTIONS, STATUS, OBJECT_META, LIST_META] {
            assert!(definition(name).is_some(), "{name}");
        }
    }
}
