//! Roles and ClusterRoles: what may be done. Nobody is checked against them here.

use serde_json::Value;

use super::{Causes, Kind, path::Path, rules, value::Read};

pub(super) static ROLE: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    kind: "Role",
    plural: "roles",
    singular: "role",
    schema: "io.k8s.api.rbac.v1.Role",
    validate: |role, causes| policy_rules(role, Scope::Namespace, causes),
    validate_name: rules::path_segment_name,
    ..Kind::PLAIN
};

pub(super) static CLUSTER_ROLE: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    schema: "io.k8s.api.rbac.v1.ClusterRole",
    validate: |role, causes| {
        policy_rules(role, Scope::Cluster, causes);
        aggregation(role.field("aggregationRule"), causes);
    },
    validate_name: rules::path_segment_name,
    ..Kind::PLAIN
};

/// Where the rules of a role hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Namespace,
    Cluster,
}

fn policy_rules(role: &Value, scope: Scope, causes: &mut Causes) {
    let list = Path::new("rules");
    for (index, rule) in role.items("rules").iter().enumerate() {
        let path = list.index(index);
        let is_empty = |name| rule.items(name).is_empty();
        if is_empty("verbs") {
            causes.required(path.child("verbs"), "verbs must contain at least one value");
        }
        if is_empty("nonResourceURLs") {
            for (name, detail) in [
                ("apiGroups", "resource rules must supply at least one api group"),
                ("resources", "resource rules must supply at least one resource"),
            ] {
                if is_empty(name) {
                    causes.required(path.child(name), detail);
                }
            }
            continue;
        }
        let mut refuse = |detail| {
            causes.invalid(path.child("nonResourceURLs"), rule.field("nonResourceURLs"), detail);
        };
        if scope == Scope::Namespace {
            refuse("namespaced rules cannot apply to non-resource URLs");
        }
        if !["apiGroups", "resources", "resourceNames"].into_iter().all(is_empty) {
            refuse("rules cannot apply to both regular resources and non-resource URLs");
        }
    }
}

fn aggregation(rule: &Value, causes: &mut Causes) {
    let path = Path::new("aggregationRule");
    let list = path.child("clusterRoleSelectors");
    let selectors = rule.items("clusterRoleSelectors");
    if !rule.is_null() && selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        causes.required(list, detail);
    }
    for (index, selector) in selectors.iter().enumerate() {
        rules::label_selector(selector, list.index(index), causes);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{super::testing::check, *};

    #[test]
    fn rules_say_what_and_how() {
        check(
            &ROLE,
            json!({"rules": [{}, {"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["a"]}]}),
            expect![[r#"
                rules[0].verbs: Required value: verbs must contain at least one value
                rules[0].apiGroups: Required value: resource rules must supply at least one api group
                rules[0].resources: Required value: resource rules must supply at least one resource
                rules[1].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs
                rules[1].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs"#]],
        );
        check(
            &CLUSTER_ROLE,
            json!({"metadata": {"name": "a/b"}, "aggregationRule": {},
                "rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
            expect![
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
            ],
        );
    }
}
