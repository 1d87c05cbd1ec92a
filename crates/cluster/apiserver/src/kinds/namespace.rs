//! Namespaces.

use serde_json::{Value, json};

use super::{
    Column, Deletion, Kind, Subresource,
    print::{self, AGE, NAME, column},
    rules,
    value::{Read, keep, object_mut, set, set_default},
};

pub(super) static NAMESPACE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    // Not `deletecollection`: emptying a cluster takes more than one request.
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    schema: "io.k8s.api.core.v1.Namespace",
    subresources: &[Subresource::Status, Subresource::Finalize],
    generation: false,
    deletion: Deletion::Finalized,
    default,
    prepare_create,
    prepare_update: |new, old| {
        // Finalizers change through `/finalize`, the phase through deletion.
        keep(new, "spec", old);
        keep(new, "status", old);
    },
    prepare_status: |new, old| keep(new, "spec", old),
    validate: |_, _| {},
    validate_update: |_, _, _| {},
    validate_name: rules::label_name,
    columns: COLUMNS,
    row: |it, now| {
        vec![print::name(it), it.field("status").text("phase").into(), print::age(it, now)]
    },
    fields: |it, path| (path == "status.phase").then(|| it.field("status").text("phase").into()),
    shows_deleted: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] =
    &[NAME, column("Status", "Whether the namespace is in use or going away."), AGE];

/// Label by which selectors find a namespace by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer that holds a namespace until everything in it is gone.
const FINALIZER: &str = "kubernetes";

fn default(namespace: &mut Value) {
    let name = namespace.field("metadata").text("name").to_owned();
    if !name.is_empty()
        && let Some(labels) =
            object_mut(namespace, "metadata").and_then(|it| object_mut(it, "labels"))
    {
        set_default(labels, NAME_LABEL, name);
    }
}

fn prepare_create(namespace: &mut Value) {
    default(namespace);
    if let Some(spec) = object_mut(namespace, "spec") {
        set_default(spec, "finalizers", json!([]));
        if let Some(Value::Array(finalizers)) = spec.get_mut("finalizers")
            && !finalizers.iter().any(|it| it == FINALIZER)
        {
            finalizers.push(FINALIZER.into());
        }
    }
    set(namespace, "status", json!({"phase": "Active"}));
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check_row, created, sample},
        *,
    };

    #[test]
    fn a_new_namespace_is_active_and_held() {
        let namespace = created(&NAMESPACE, sample(&NAMESPACE));
        assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
        assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
        check_row(&NAMESPACE, json!({}), expect!["a | Active | 60m"]);
    }
}
