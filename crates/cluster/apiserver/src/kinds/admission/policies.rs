//! ValidatingAdmissionPolicies and MutatingAdmissionPolicies.

use std::collections::BTreeSet;

use api::names;
use serde_json::{Value, json};

use super::{
    FAILURE_POLICIES, PLAIN, REINVOCATION_POLICIES, RESOURCE_RULES, conditions, default_match,
    match_resources, mutating_operations,
};
use crate::kinds::{
    Causes, Column, Kind, Subresource,
    path::Path,
    print::{self, AGE, NAME, column, number},
    rules,
    value::{Read, keep, object_mut, set, set_default},
};

pub(in crate::kinds) static VALIDATING_ADMISSION_POLICY: Kind = Kind {
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    schema: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    subresources: &[Subresource::Status],
    prepare_create: |policy| set(policy, "status", json!({})),
    prepare_update: |new, old| keep(new, "status", old),
    prepare_status: |new, old| keep(new, "spec", old),
    validate: validate_validating,
    columns: &[NAME, number("Validations", "Number of checks."), PARAMETERS, AGE],
    row: |it, now| cells(it, "validations", now),
    ..POLICY
};

pub(in crate::kinds) static MUTATING_ADMISSION_POLICY: Kind = Kind {
    kind: "MutatingAdmissionPolicy",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    schema: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
    validate: validate_mutating,
    columns: &[NAME, number("Mutations", "Number of changes."), PARAMETERS, AGE],
    row: |it, now| cells(it, "mutations", now),
    ..POLICY
};

const POLICY: Kind = Kind { default, ..PLAIN };

const PARAMETERS: Column = column("ParamKind", "Kind of the objects with parameters.");

/// Notes that a policy makes.
const AUDIT_ANNOTATIONS_MAX: usize = 20;
/// Bytes of an expression that makes one.
const AUDIT_EXPRESSION_MAX: usize = 5 * 1024;

fn default(policy: &mut Value) {
    let Some(spec) = object_mut(policy, "spec") else { return };
    set_default(spec, "failurePolicy", "Fail");
    if let Some(constraints) = spec.get_mut("matchConstraints") {
        default_match(constraints, &RESOURCE_RULES);
    }
}

/// What policies of both kinds say.
fn common(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    rules::one_of(spec, "failurePolicy", &FAILURE_POLICIES, path, causes);
    if spec.has("paramKind") {
        parameters(spec.field("paramKind"), path.child("paramKind"), causes);
    }
    let constraints = spec.field("matchConstraints");
    let below = path.child("matchConstraints");
    if constraints.is_null() {
        causes.required(below, "");
    } else {
        match_resources(constraints, below, causes);
        if constraints.items("resourceRules").is_empty() {
            causes.required(below.child("resourceRules"), "");
        }
    }
    conditions(spec, path, causes);
    let list = path.child("variables");
    for (index, variable) in spec.items("variables").iter().enumerate() {
        let path = list.index(index);
        let name = variable.text("name");
        let letters = |it: char| it.is_ascii_alphanumeric() || it == '_';
        if name.trim().is_empty() {
            causes.required(path.child("name"), "name is not specified");
        } else if !name.chars().all(letters) || name.starts_with(|it: char| it.is_ascii_digit()) {
            causes.invalid(path.child("name"), &name.into(), "must be a valid CEL identifier");
        }
        expression(variable, path, causes);
    }
}

fn expression(object: &Value, path: Path<'_>, causes: &mut Causes) {
    if object.text("expression").trim().is_empty() {
        causes.required(path.child("expression"), "expression is not specified");
    }
}

fn parameters(kind: &Value, path: Path<'_>, causes: &mut Causes) {
    let api_version = kind.text("apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if api_version.is_empty() {
        causes.required(path.child("apiVersion"), "");
    } else {
        let groups = if group.is_empty() { vec![] } else { names::dns1123_subdomain(group) };
        rules::all(groups, path.child("apiVersion"), group, causes);
        rules::all(names::dns1035_label(version), path.child("apiVersion"), version, causes);
    }
    let name = kind.text("kind");
    if name.is_empty() {
        causes.required(path.child("kind"), "");
        return;
    }
    let problems = names::dns1035_label(&name.to_lowercase());
    if !problems.is_empty() {
        let problems = problems.join(",");
        let detail = format!("may have mixed case, but should otherwise match: {problems}");
        causes.invalid(path.child("kind"), &name.into(), &detail);
    }
}

fn validate_validating(policy: &Value, causes: &mut Causes) {
    let (spec, path) = (policy.field("spec"), Path::new("spec"));
    common(spec, path, causes);
    let lists = ["validations", "auditAnnotations"];
    if lists.iter().all(|it| spec.items(it).is_empty()) {
        for list in lists {
            let detail = "validations or auditAnnotations must contain at least one item";
            causes.required(path.child(list), detail);
        }
    }
    let list = path.child("validations");
    for (index, check) in spec.items("validations").iter().enumerate() {
        let path = list.index(index);
        expression(check, path, causes);
        for name in ["messageExpression", "message"] {
            let text = check.text(name);
            if !text.is_empty() && text.trim().is_empty() {
                causes.invalid(path.child(name), &text.into(), "must be non-empty if specified");
            }
        }
        let message = check.text("message");
        if message.trim().contains('\n') {
            causes.invalid(path.child("message"), &message.into(), "must not contain line breaks");
        }
        let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        rules::optional_one_of(check, "reason", &reasons, path, causes);
    }
    audit_annotations(policy, path.child("auditAnnotations"), causes);
}

fn audit_annotations(policy: &Value, list: Path<'_>, causes: &mut Causes) {
    let annotations = policy.field("spec").items("auditAnnotations");
    if AUDIT_ANNOTATIONS_MAX < annotations.len() {
        let detail = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        causes.invalid(list, &json!(annotations), &detail);
    }
    let name = policy.field("metadata").text("name");
    let mut seen = BTreeSet::new();
    for (index, annotation) in annotations.iter().enumerate() {
        let path = list.index(index);
        let key = annotation.text("key");
        let full = format!("{name}/{key}");
        rules::all(names::qualified_name(&full), path.child("key"), full.as_str(), causes);
        let value = annotation.text("valueExpression").trim();
        if value.is_empty() {
            causes.required(path.child("valueExpression"), "valueExpression is not specified");
        } else if AUDIT_EXPRESSION_MAX < value.len() {
            let detail = format!("must not exceed {AUDIT_EXPRESSION_MAX} bytes in length");
            causes.required(path.child("valueExpression"), &detail);
        }
        if !seen.insert(key) {
            causes.duplicate(path.child("key"), &key.into());
        }
    }
}

fn validate_mutating(policy: &Value, causes: &mut Causes) {
    let (spec, path) = (policy.field("spec"), Path::new("spec"));
    common(spec, path, causes);
    mutating_operations(spec.field("matchConstraints"), path.child("matchConstraints"), causes);
    let list = path.child("mutations");
    if spec.items("mutations").is_empty() {
        causes.required(list, "mutations must contain at least one item");
    }
    for (index, mutation) in spec.items("mutations").iter().enumerate() {
        let path = list.index(index);
        let (wanted, other) = match mutation.text("patchType") {
            "" => {
                causes.required(path.child("patchType"), "");
                continue;
            }
            "JSONPatch" => ("jsonPatch", "applyConfiguration"),
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
            kind => {
                let supported = &["ApplyConfiguration", "JSONPatch"];
                causes.not_supported(path.child("patchType"), &kind.into(), supported);
                continue;
            }
        };
        let kind = mutation.text("patchType");
        if !mutation.has(wanted) {
            let detail = format!("must be specified when patchType is {kind}");
            causes.required(path.child(wanted), &detail);
        } else if mutation.field(wanted).text("expression").trim().is_empty() {
            let below = path.child(wanted);
            causes.required(below.child("expression"), "expression is not specified");
        }
        if mutation.has(other) {
            let detail = format!("must not be specified when patchType is {kind}");
            causes.invalid(path.child(other), &format!("{{{other}}}").into(), &detail);
        }
    }
    rules::one_of(spec, "reinvocationPolicy", &REINVOCATION_POLICIES, path, causes);
}

fn cells(policy: &Value, list: &str, now: jiff::Timestamp) -> Vec<Value> {
    let spec = policy.field("spec");
    let kind = spec.field("paramKind");
    let shown = format!("{}/{}", kind.text("apiVersion"), kind.text("kind"));
    vec![
        print::name(policy),
        spec.items(list).len().into(),
        if kind.is_null() { "<unset>".into() } else { shown.into() },
        print::age(policy, now),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::kinds::testing::{check, check_row};

    #[test]
    fn policies_check_something() {
        check(
            &VALIDATING_ADMISSION_POLICY,
            json!({"spec": {"validations": null, "matchConstraints": null, "failurePolicy": "No",
                "paramKind": {"apiVersion": "A/1", "kind": "_"}, "variables": [{"name": "1a"}, {}]}}),
            expect![[r#"
                spec.failurePolicy: Unsupported value: "No": supported values: "Fail", "Ignore"
                spec.paramKind.apiVersion: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
                spec.paramKind.apiVersion: Invalid value: "1": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
                spec.paramKind.kind: Invalid value: "_": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
                spec.matchConstraints: Required value
                spec.variables[0].name: Invalid value: "1a": must be a valid CEL identifier
                spec.variables[0].expression: Required value: expression is not specified
                spec.variables[1].name: Required value: name is not specified
                spec.variables[1].expression: Required value: expression is not specified
                spec.validations: Required value: validations or auditAnnotations must contain at least one item
                spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item"#]],
        );
        let checks = json!([{"message": "a\nb", "reason": "Why", "messageExpression": " "}]);
        let notes = json!([{"key": "a"}, {"key": "a", "valueExpression": "x"}]);
        check(
            &VALIDATING_ADMISSION_POLICY,
            json!({"spec": {"validations": checks, "auditAnnotations": notes}}),
            expect![[r#"
                spec.validations[0].expression: Required value: expression is not specified
                spec.validations[0].messageExpression: Invalid value: " ": must be non-empty if specified
                spec.validations[0].message: Invalid value: "a\nb": must not contain line breaks
                spec.validations[0].reason: Unsupported value: "Why": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge"
                spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified
                spec.auditAnnotations[1].key: Duplicate value: "a""#]],
        );
        check_row(&VALIDATING_ADMISSION_POLICY, json!({}), expect!["a | 1 | <unset> | 60m"]);
    }

    #[test]
    fn policies_change_something() {
        let mutations = json!([{"patchType": "JSONPatch", "applyConfiguration": {}},
            {"patchType": "ApplyConfiguration", "applyConfiguration": {}}, {"patchType": "X"}, {}]);
        let rule = json!({"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["pods"], "resourceNames": ["a", "a", "b/c"]});
        check(
            &MUTATING_ADMISSION_POLICY,
            json!({"spec": {"mutations": mutations, "reinvocationPolicy": null,
                "matchConstraints": {"resourceRules": [rule]}}}),
            expect![[r#"
                spec.matchConstraints.resourceRules[0].resourceNames[1]: Duplicate value: "a"
                spec.matchConstraints.resourceRules[0].resourceNames[2]: Invalid value: "b/c": may not contain '/'
                spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE"
                spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch
                spec.mutations[0].applyConfiguration: Invalid value: "{applyConfiguration}": must not be specified when patchType is JSONPatch
                spec.mutations[1].applyConfiguration.expression: Required value: expression is not specified
                spec.mutations[2].patchType: Unsupported value: "X": supported values: "ApplyConfiguration", "JSONPatch"
                spec.mutations[3].patchType: Required value
                spec.reinvocationPolicy: Required value"#]],
        );
    }
}
