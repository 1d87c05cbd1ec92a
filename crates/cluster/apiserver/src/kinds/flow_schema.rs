//! FlowSchemas: which requests are of which priority.

use api::names;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column, number},
    rules,
    value::{Read, object_mut, set},
};

pub(super) static FLOW_SCHEMA: Kind = Kind {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "FlowSchema",
    plural: "flowschemas",
    singular: "flowschema",
    namespaced: false,
    schema: "io.k8s.api.flowcontrol.v1.FlowSchema",
    generation: true,
    default: |schema| {
        if let Some(spec) = object_mut(schema, "spec")
            && spec.int("matchingPrecedence").unwrap_or_default() == 0
        {
            set(spec, "matchingPrecedence", PRECEDENCE);
        }
    },
    validate,
    columns: COLUMNS,
    row,
    unattended: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("PriorityLevel", "The priority."),
    number("MatchingPrecedence", "Which schema is looked at first: the least number."),
    column("DistinguisherMethod", "How flows are told apart."),
    AGE,
    column("MissingPL", "Whether there is no such priority."),
];

/// Precedence of a schema that names none, and the greatest.
const PRECEDENCE: i64 = 1000;
const PRECEDENCE_MAX: i64 = 10_000;
/// The schema of requests that never wait.
const EXEMPT: &str = "exempt";
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const URL_VERBS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];

fn validate(schema: &Value, causes: &mut Causes) {
    let (spec, path) = (schema.field("spec"), Path::new("spec"));
    let precedence = spec.int("matchingPrecedence").unwrap_or_default();
    let name = schema.field("metadata").text("name");
    let detail = match precedence {
        ..=0 => "must be a positive value".to_owned(),
        1 if name != EXEMPT => {
            "only the schema named 'exempt' may have matchingPrecedence 1".to_owned()
        }
        _ if PRECEDENCE_MAX < precedence => format!("must not be greater than {PRECEDENCE_MAX}"),
        _ => String::new(),
    };
    if !detail.is_empty() {
        causes.invalid(path.child("matchingPrecedence"), &precedence.into(), &detail);
    }
    let method = spec.field("distinguisherMethod");
    if !method.is_null() && !matches!(method.text("type"), "ByUser" | "ByNamespace") {
        let path = path.child("distinguisherMethod");
        causes.not_supported(path.child("type"), method, &["ByNamespace", "ByUser"]);
    }
    let level = path.child("priorityLevelConfiguration");
    match spec.field("priorityLevelConfiguration").text("name") {
        "" => causes.required(level.child("name"), "must reference a priority level"),
        name => rules::all(names::dns1123_subdomain(name), level.child("name"), name, causes),
    }
    let list = path.child("rules");
    for (index, rule) in spec.items("rules").iter().enumerate() {
        validate_rule(rule, list.index(index), causes);
    }
    conditions(schema, causes);
}

/// Each type of condition occurs once.
pub(super) fn conditions(object: &Value, causes: &mut Causes) {
    let path = Path::new("status");
    let list = path.child("conditions");
    let mut seen = std::collections::BTreeSet::new();
    for (index, condition) in object.field("status").items("conditions").iter().enumerate() {
        let kind = condition.text("type");
        if !seen.insert(kind) {
            causes.duplicate(list.index(index).child("type"), &kind.into());
        }
        if kind.is_empty() {
            causes.required(list.index(index).child("type"), "");
        }
    }
}

fn validate_rule(rule: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("subjects");
    if rule.items("subjects").is_empty() {
        causes.required(list, "subjects must contain at least one value");
    }
    for (index, it) in rule.items("subjects").iter().enumerate() {
        subject(it, list.index(index), causes);
    }
    let lists = ["resourceRules", "nonResourceRules"];
    if lists.iter().all(|it| rule.items(it).is_empty()) {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        causes.required(path, detail);
    }
    let list = path.child("resourceRules");
    for (index, it) in rule.items("resourceRules").iter().enumerate() {
        let path = list.index(index);
        verbs(it, &VERBS, path, causes);
        let resource = "resource rules must supply at least one";
        some(it, "apiGroups", &format!("{resource} api group"), "api groups", path, causes);
        some(it, "resources", &format!("{resource} resource"), "resources", path, causes);
        let namespaces = "resource rules that are not cluster scoped must supply at least one \
                          namespace";
        if !it.flag("clusterScope") || !it.items("namespaces").is_empty() {
            some(it, "namespaces", namespaces, "namespaces", path, causes);
        }
    }
    let list = path.child("nonResourceRules");
    for (index, it) in rule.items("nonResourceRules").iter().enumerate() {
        let path = list.index(index);
        verbs(it, &URL_VERBS, path, causes);
        let none = "nonResourceURLs must contain at least one value";
        some(it, "nonResourceURLs", none, "non-resource URLs", path, causes);
        let list = path.child("nonResourceURLs");
        for (index, url) in it.items("nonResourceURLs").iter().enumerate() {
            let text = url.as_str().unwrap_or_default();
            if let Some(detail) = url_problem(text).filter(|_| text != "*") {
                causes.invalid(list.index(index), url, detail);
            }
        }
    }
}

fn verbs(rule: &Value, supported: &[&str], path: Path<'_>, causes: &mut Causes) {
    let none = "verbs must contain at least one value";
    some(rule, "verbs", none, "verbs", path, causes);
    let verbs = rule.items("verbs");
    let known = |it: &Value| supported.contains(&it.as_str().unwrap_or_default());
    if !verbs.iter().any(|it| it == "*") && !verbs.iter().all(known) {
        causes.not_supported(path.child("verbs"), rule.field("verbs"), supported);
    }
}

/// There must be something, and `*` stands alone.
fn some(rule: &Value, name: &str, none: &str, words: &str, path: Path<'_>, causes: &mut Causes) {
    let items = rule.items(name);
    if items.is_empty() {
        causes.required(path.child(name), none);
    }
    if 1 < items.len() && items.iter().any(|it| it == "*") {
        let detail = format!("if '*' is present, must not specify other {words}");
        causes.invalid(path.child(name), rule.field(name), &detail);
    }
}

fn url_problem(url: &str) -> Option<&'static str> {
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if url.trim_end_matches("/*").contains('*') => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}

fn subject(subject: &Value, path: Path<'_>, causes: &mut Causes) {
    const FIELDS: [(&str, &str); 3] =
        [("User", "user"), ("Group", "group"), ("ServiceAccount", "serviceAccount")];
    let kind = subject.text("kind");
    let Some((_, own)) = FIELDS.iter().find(|it| it.0 == kind) else {
        let supported = &["Group", "ServiceAccount", "User"];
        causes.not_supported(path.child("kind"), &kind.into(), supported);
        return;
    };
    let below = path.child(own);
    let named = subject.field(own);
    if named.is_null() {
        causes.required(below, &format!("{own} is required when subject kind is '{kind}'"));
    } else {
        if named.text("name").is_empty() {
            causes.required(below.child("name"), "");
        }
        if kind == "ServiceAccount" && named.text("namespace").is_empty() {
            let detail = "must specify namespace for service account";
            causes.required(below.child("namespace"), detail);
        }
    }
    for (kind, other) in FIELDS.iter().filter(|it| it.1 != *own && subject.has(it.1)) {
        let detail = format!("{other} is forbidden when subject kind is not '{kind}'");
        causes.forbidden(path.child(other), &detail);
    }
}

fn row(schema: &Value, now: Timestamp) -> Vec<Value> {
    let spec = schema.field("spec");
    let mut conditions = schema.field("status").items("conditions").iter();
    let dangling = conditions.find(|it| it.text("type") == "Dangling");
    vec![
        print::name(schema),
        spec.field("priorityLevelConfiguration").text("name").into(),
        spec.int("matchingPrecedence").unwrap_or_default().into(),
        print::or_none(spec.field("distinguisherMethod").text("type")).into(),
        print::age(schema, now),
        dangling.map_or("?", |it| it.text("status")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row},
        *,
    };

    #[test]
    fn rules_are_about_something() {
        let resource = json!({"verbs": ["get", "fly"], "apiGroups": ["*", "a"]});
        let url = json!({"verbs": ["*", "get"], "nonResourceURLs": ["a", "/a//b", "/*/a", "/a/*"]});
        let subjects = json!([{"kind": "User", "group": {"name": "g"}}, {"kind": "Robot"},
            {"kind": "ServiceAccount", "serviceAccount": {}}]);
        check(
            &FLOW_SCHEMA,
            json!({"spec": {"matchingPrecedence": 1, "distinguisherMethod": {"type": "ByAge"},
                "priorityLevelConfiguration": {"name": null}, "rules": [{},
                {"subjects": subjects, "resourceRules": [resource], "nonResourceRules": [url]}]}}),
            expect![[r#"
                spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1
                spec.distinguisherMethod.type: Unsupported value: {"type":"ByAge"}: supported values: "ByNamespace", "ByUser"
                spec.priorityLevelConfiguration.name: Required value: must reference a priority level
                spec.rules[0].subjects: Required value: subjects must contain at least one value
                spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty
                spec.rules[1].subjects[0].user: Required value: user is required when subject kind is 'User'
                spec.rules[1].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'
                spec.rules[1].subjects[1].kind: Unsupported value: "Robot": supported values: "Group", "ServiceAccount", "User"
                spec.rules[1].subjects[2].serviceAccount.name: Required value
                spec.rules[1].subjects[2].serviceAccount.namespace: Required value: must specify namespace for service account
                spec.rules[1].resourceRules[0].verbs: Unsupported value: ["get","fly"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"
                spec.rules[1].resourceRules[0].apiGroups: Invalid value: ["*","a"]: if '*' is present, must not specify other api groups
                spec.rules[1].resourceRules[0].resources: Required value: resource rules must supply at least one resource
                spec.rules[1].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace
                spec.rules[1].nonResourceRules[0].verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs
                spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "a": must start with slash
                spec.rules[1].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "/a//b": must not contain double slash
                spec.rules[1].nonResourceRules[0].nonResourceURLs[2]: Invalid value: "/*/a": wildcard can only do suffix matching"#]],
        );
        check(
            &FLOW_SCHEMA,
            json!({"spec": {"matchingPrecedence": 10_001}}),
            expect![
                "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"
            ],
        );
        check_row(&FLOW_SCHEMA, json!({}), expect!["a | a | 1000 | <none> | 60m | ?"]);
    }
}
