//! ValidatingAdmissionPolicyBindings and MutatingAdmissionPolicyBindings: which policy holds where,
//! and with which parameters.

use api::names;
use jiff::Timestamp;
use serde_json::Value;

use super::{PLAIN, RESOURCE_RULES, default_match, match_resources, mutating_operations};
use crate::kinds::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::Read,
};

pub(in crate::kinds) static VALIDATING_ADMISSION_POLICY_BINDING: Kind = Kind {
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    schema: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    validate: |binding, causes| {
        validate(binding, causes);
        actions(binding.field("spec"), Path::new("spec"), causes);
    },
    ..BINDING
};

pub(in crate::kinds) static MUTATING_ADMISSION_POLICY_BINDING: Kind = Kind {
    kind: "MutatingAdmissionPolicyBinding",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    schema: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
    validate: |binding, causes| {
        validate(binding, causes);
        let matching = binding.at(&["spec", "matchResources"]);
        mutating_operations(matching, Path::new("spec").child("matchResources"), causes);
    },
    ..BINDING
};

const BINDING: Kind = Kind {
    default: |binding| {
        let spec = binding.get_mut("spec");
        if let Some(matching) = spec.and_then(|it| it.get_mut("matchResources")) {
            default_match(matching, &RESOURCE_RULES);
        }
    },
    columns: COLUMNS,
    row,
    ..PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    column("PolicyName", "The policy."),
    column("ParamRef", "The object with its parameters."),
    AGE,
];

fn validate(binding: &Value, causes: &mut Causes) {
    let (spec, path) = (binding.field("spec"), Path::new("spec"));
    rules::required_name(spec, "policyName", names::dns1123_subdomain, path, causes);
    if spec.has("paramRef") {
        parameters(spec.field("paramRef"), path.child("paramRef"), causes);
    }
    if spec.has("matchResources") {
        match_resources(spec.field("matchResources"), path.child("matchResources"), causes);
    }
}

fn parameters(reference: &Value, path: Path<'_>, causes: &mut Causes) {
    let (name, selected) = (reference.text("name"), reference.has("selector"));
    if !name.is_empty() {
        rules::all(rules::path_segment(name), path.child("name"), name, causes);
    }
    rules::label_selector(reference.field("selector"), path.child("selector"), causes);
    match (name.is_empty(), selected) {
        (false, true) => {
            for field in ["name", "selector"] {
                causes.forbidden(path.child(field), "name and selector are mutually exclusive");
            }
        }
        (true, false) => causes.required(path, "one of name or selector must be specified"),
        _ => {}
    }
    rules::one_of(reference, "parameterNotFoundAction", &["Deny", "Allow"], path, causes);
}

fn actions(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
    let list = path.child("validationActions");
    let given: Vec<&str> =
        spec.items("validationActions").iter().filter_map(Value::as_str).collect();
    if given.is_empty() {
        causes.required(list, "at least one validation action is required");
    }
    let mut seen = std::collections::BTreeSet::new();
    for (index, action) in given.iter().enumerate() {
        if !ACTIONS.contains(action) {
            causes.not_supported(list.index(index), &(*action).into(), &ACTIONS);
        }
        if !seen.insert(*action) {
            causes.duplicate(list.index(index), &(*action).into());
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure \
                      information in the API response and headers serves no purpose)";
        causes.invalid(list, spec.field("validationActions"), detail);
    }
}

fn row(binding: &Value, now: Timestamp) -> Vec<Value> {
    let spec = binding.field("spec");
    let reference = spec.field("paramRef");
    let (namespace, name) = (reference.text("namespace"), reference.text("name"));
    let shown = match (namespace, name) {
        ("", "") | (_, "") if reference.has("selector") => {
            print::selector(reference.field("selector"))
        }
        (_, "") => "<unset>".to_owned(),
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    vec![
        print::name(binding),
        spec.text("policyName").into(),
        shown.into(),
        print::age(binding, now),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check, check_row};

    #[test]
    fn bindings_name_a_policy() {
        check(
            &VALIDATING_ADMISSION_POLICY_BINDING,
            json!({"spec": {"policyName": null, "paramRef": {"name": "a", "selector": {}},
                "validationActions": ["Deny", "Warn", "Warn", "Cry"]}}),
            expect![[r#"
                spec.policyName: Required value
                spec.paramRef.name: Forbidden: name and selector are mutually exclusive
                spec.paramRef.selector: Forbidden: name and selector are mutually exclusive
                spec.paramRef.parameterNotFoundAction: Required value
                spec.validationActions[2]: Duplicate value: "Warn"
                spec.validationActions[3]: Unsupported value: "Cry": supported values: "Audit", "Deny", "Warn"
                spec.validationActions: Invalid value: ["Deny","Warn","Warn","Cry"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"#]],
        );
        check(
            &MUTATING_ADMISSION_POLICY_BINDING,
            json!({"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}}),
            expect!["spec.paramRef: Required value: one of name or selector must be specified"],
        );
        check_row(
            &MUTATING_ADMISSION_POLICY_BINDING,
            json!({"spec": {"paramRef": {"name": "a"}}}),
            expect!["a | a | */a | 60m"],
        );
    }
}
