//! RoleBindings and ClusterRoleBindings: who has a role.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column, wide},
    rules,
    value::{Read, items_mut, object_mut, set_default},
};

pub(super) static ROLE_BINDING: Kind = Kind {
    group: GROUP,
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    schema: "io.k8s.api.rbac.v1.RoleBinding",
    validate: |binding, causes| validate(binding, &["Role", "ClusterRole"], causes),
    ..BINDING
};

pub(super) static CLUSTER_ROLE_BINDING: Kind = Kind {
    group: GROUP,
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    schema: "io.k8s.api.rbac.v1.ClusterRoleBinding",
    validate: |binding, causes| {
        validate(binding, &["ClusterRole"], causes);
        let list = Path::new("subjects");
        for (index, subject) in binding.items("subjects").iter().enumerate() {
            if subject.text("kind") == "ServiceAccount" && subject.text("namespace").is_empty() {
                causes.required(list.index(index).child("namespace"), "");
            }
        }
    },
    ..BINDING
};

/// What both have in common.
const BINDING: Kind = Kind {
    default,
    validate_update,
    validate_name: rules::path_segment_name,
    columns: COLUMNS,
    row,
    unattended: true,
    ..Kind::PLAIN
};

const GROUP: &str = "rbac.authorization.k8s.io";

const COLUMNS: &[Column] = &[
    NAME,
    column("Role", "The role that is given."),
    AGE,
    wide("Users", "Users who have it."),
    wide("Groups", "Groups who have it."),
    wide("ServiceAccounts", "Accounts of pods that have it."),
];

fn default(binding: &mut Value) {
    if let Some(role) = object_mut(binding, "roleRef") {
        set_default(role, "apiGroup", GROUP);
    }
    for subject in items_mut(binding, "subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            set_default(subject, "apiGroup", GROUP);
        }
    }
}

fn validate(binding: &Value, kinds: &[&str], causes: &mut Causes) {
    let (role, path) = (binding.field("roleRef"), Path::new("roleRef"));
    let group = role.text("apiGroup");
    if group != GROUP {
        causes.not_supported(path.child("apiGroup"), &group.into(), &[GROUP]);
    }
    let kind = role.text("kind");
    if !kinds.contains(&kind) {
        causes.not_supported(path.child("kind"), &kind.into(), kinds);
    }
    rules::required_name(role, "name", rules::path_segment, path, causes);
    let list = Path::new("subjects");
    for (index, subject) in binding.items("subjects").iter().enumerate() {
        validate_subject(subject, list.index(index), causes);
    }
}

fn validate_subject(subject: &Value, path: Path<'_>, causes: &mut Causes) {
    let (name, group) = (subject.text("name"), subject.text("apiGroup"));
    if name.is_empty() {
        causes.required(path.child("name"), "");
    }
    let expected = match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                let problems = api::names::dns1123_subdomain(name);
                rules::all(problems, path.child("name"), name, causes);
            }
            ""
        }
        "User" | "Group" => GROUP,
        kind => {
            let supported = &["ServiceAccount", "User", "Group"];
            causes.not_supported(path.child("kind"), &kind.into(), supported);
            return;
        }
    };
    if group != expected {
        causes.not_supported(path.child("apiGroup"), &group.into(), &[expected]);
    }
}

fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    if new.field("roleRef") != old.field("roleRef") {
        causes.invalid("roleRef", new.field("roleRef"), "cannot change roleRef");
    }
}

fn row(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = binding.field("roleRef");
    let named = |kind: &str| {
        let subjects = binding.items("subjects").iter().filter(|it| it.text("kind") == kind);
        let names = subjects.map(|it| match (kind, it.text("namespace")) {
            ("ServiceAccount", namespace) if !namespace.is_empty() => {
                format!("{namespace}/{}", it.text("name"))
            }
            _ => it.text("name").to_owned(),
        });
        Value::from(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        print::name(binding),
        format!("{}/{}", role.text("kind"), role.text("name")).into(),
        print::age(binding, now),
        named("User"),
        named("Group"),
        named("ServiceAccount"),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row, check_update},
        *,
    };

    #[test]
    fn role_and_subjects_are_named() {
        let binding = json!({"roleRef": {"kind": "Role", "name": ""}, "subjects": [
            {"kind": "User"}, {"kind": "ServiceAccount", "name": "a"}, {"kind": "Robot", "name": "r"}]});
        check(
            &ROLE_BINDING,
            binding.clone(),
            expect![[r#"
            roleRef.name: Required value
            subjects[0].name: Required value
            subjects[2].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group""#]],
        );
        check(
            &CLUSTER_ROLE_BINDING,
            binding,
            expect![[r#"
            roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
            roleRef.name: Required value
            subjects[0].name: Required value
            subjects[2].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"
            subjects[1].namespace: Required value"#]],
        );
    }

    #[test]
    fn the_role_stays() {
        check_update(
            &ROLE_BINDING,
            json!({"roleRef": {"name": "b"}}),
            expect![[
                r#"roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"b"}: cannot change roleRef"#
            ]],
        );
        check_row(
            &ROLE_BINDING,
            json!({"subjects": [{"kind": "User", "name": "u"}, {"kind": "User", "name": "v"},
                {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]}),
            expect!["a | ClusterRole/r | 60m | u, v |  | n/s"],
        );
    }
}
