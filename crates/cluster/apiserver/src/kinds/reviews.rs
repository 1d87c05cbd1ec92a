//! Reviews: questions about who somebody is and what they may do. They are asked by creating one, the
//! answer stands in its status, and nothing is kept. Who answers is [`crate::reviews`].

use serde_json::{Value, json};

use super::{Causes, Creation, Kind, Question, path::Path, value::Read};

/// What can be done with a question.
const ASKED: &[&str] = &["create"];

const AUTHENTICATION: Kind =
    Kind { group: "authentication.k8s.io", namespaced: false, verbs: ASKED, ..Kind::PLAIN };

const AUTHORIZATION: Kind =
    Kind { group: "authorization.k8s.io", namespaced: false, verbs: ASKED, ..Kind::PLAIN };

pub(super) static SELF_SUBJECT_REVIEW: Kind = Kind {
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    schema: "io.k8s.api.authentication.v1.SelfSubjectReview",
    creation: Creation::Answered(Question::WhoAmI),
    ..AUTHENTICATION
};

pub(super) static TOKEN_REVIEW: Kind = Kind {
    kind: "TokenReview",
    plural: "tokenreviews",
    singular: "tokenreview",
    schema: "io.k8s.api.authentication.v1.TokenReview",
    creation: Creation::Answered(Question::WhoseToken),
    ..AUTHENTICATION
};

pub(super) static LOCAL_SUBJECT_ACCESS_REVIEW: Kind = Kind {
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    namespaced: true,
    schema: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    creation: Creation::Answered(Question::MayThey),
    validate: |review, causes| {
        attributes(review, causes);
        somebody(review, causes);
        selectors(review, causes);
        nothing_but(&["namespace"], review, "must be empty except for namespace", causes);
        let (spec, path) = (review.field("spec"), Path::new("spec"));
        let (objects, paths) = (spec.field("resourceAttributes"), "nonResourceAttributes");
        let inside = objects.field("namespace");
        if !objects.is_null() && inside.as_str() != Some(review.field("metadata").text("namespace"))
        {
            let path = path.child("resourceAttributes");
            let inside = inside.as_str().unwrap_or_default();
            causes.invalid(
                path.child("namespace"),
                &inside.into(),
                "must match metadata.namespace",
            );
        }
        if spec.has(paths) {
            let detail = "disallowed on this kind of request";
            causes.invalid(path.child(paths), spec.field(paths), detail);
        }
    },
    ..AUTHORIZATION
};

pub(super) static SELF_SUBJECT_ACCESS_REVIEW: Kind = Kind {
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    schema: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    creation: Creation::Answered(Question::MayI),
    validate: |review, causes| {
        attributes(review, causes);
        selectors(review, causes);
        nothing_but(&[], review, "must be empty", causes);
    },
    ..AUTHORIZATION
};

pub(super) static SELF_SUBJECT_RULES_REVIEW: Kind = Kind {
    kind: "SelfSubjectRulesReview",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    schema: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    creation: Creation::Answered(Question::WhatMayI),
    ..AUTHORIZATION
};

pub(super) static SUBJECT_ACCESS_REVIEW: Kind = Kind {
    kind: "SubjectAccessReview",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    schema: "io.k8s.api.authorization.v1.SubjectAccessReview",
    creation: Creation::Answered(Question::MayThey),
    validate: |review, causes| {
        attributes(review, causes);
        somebody(review, causes);
        selectors(review, causes);
        nothing_but(&[], review, "must be empty", causes);
    },
    ..AUTHORIZATION
};

/// A review is about objects or about a path.
fn attributes(review: &Value, causes: &mut Causes) {
    let (spec, path) = (review.field("spec"), Path::new("spec"));
    let names = ["resourceAttributes", "nonResourceAttributes"];
    match names.map(|it| spec.has(it)) {
        [true, true] => {
            let detail = "cannot be specified in combination with resourceAttributes";
            causes.invalid(path.child(names[1]), spec.field(names[1]), detail);
        }
        [false, false] => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be \
                          specified";
            causes.invalid(path.child(names[0]), &Value::Null, detail);
        }
        [true, false] | [false, true] => {}
    }
}

/// Who it is about has a name or a group.
fn somebody(review: &Value, causes: &mut Causes) {
    let spec = review.field("spec");
    if spec.text("user").is_empty() && spec.items("groups").is_empty() {
        let detail = "at least one of user or group must be specified";
        causes.invalid(Path::new("spec").child("user"), &"".into(), detail);
    }
}

/// A selector is a text or a list.
fn selectors(review: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    let path = path.child("resourceAttributes");
    for name in ["fieldSelector", "labelSelector"] {
        let path = path.child(name);
        let selector = review.field("spec").field("resourceAttributes").field(name);
        let text = selector.text("rawSelector");
        match (text.is_empty(), selector.items("requirements").is_empty()) {
            (false, false) => {
                let detail = "may not specified at the same time as requirements";
                causes.invalid(path.child("rawSelector"), &text.into(), detail);
            }
            (true, true) if !selector.is_null() => {
                let detail =
                    format!("when {path} is specified, requirements or rawSelector is required");
                causes.required(path.child("requirements"), &detail);
            }
            _ => {}
        }
    }
}

fn nothing_but(names: &[&str], review: &Value, detail: &str, causes: &mut Causes) {
    let known = |name: &str| name == "managedFields" || names.contains(&name);
    if !review.members("metadata").all(|(name, _)| known(name)) {
        causes.invalid("metadata", &json!(review.field("metadata")), detail);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{super::testing::check, *};

    #[test]
    fn a_question_is_about_one_thing() {
        let spec = |it: Value| json!({"metadata": {"name": null}, "spec": it});
        check(
            &SELF_SUBJECT_ACCESS_REVIEW,
            json!({"spec": {"resourceAttributes": null}}),
            expect![
                "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
            ],
        );
        check(
            &SELF_SUBJECT_ACCESS_REVIEW,
            spec(json!({"nonResourceAttributes": {"path": "/"}})),
            expect![[
                r#"spec.nonResourceAttributes: Invalid value: {"path":"/"}: cannot be specified in combination with resourceAttributes"#
            ]],
        );
        let both =
            json!({"rawSelector": "a", "requirements": [{"key": "a", "operator": "Exists"}]});
        check(
            &SELF_SUBJECT_ACCESS_REVIEW,
            spec(json!({"resourceAttributes": {"fieldSelector": {}, "labelSelector": both}})),
            expect![[r#"
                spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required
                spec.resourceAttributes.labelSelector.rawSelector: Invalid value: "a": may not specified at the same time as requirements"#]],
        );
        check(
            &SELF_SUBJECT_ACCESS_REVIEW,
            json!({"metadata": {"name": "a"}}),
            expect![[r#"metadata: Invalid value: {"name":"a"}: must be empty"#]],
        );
    }

    #[test]
    fn a_question_is_about_somebody() {
        check(
            &SUBJECT_ACCESS_REVIEW,
            json!({"spec": {"user": null}}),
            expect![[
                r#"spec.user: Invalid value: "": at least one of user or group must be specified"#
            ]],
        );
        check(&SUBJECT_ACCESS_REVIEW, json!({"spec": {"user": null, "groups": ["a"]}}), expect![]);
    }

    #[test]
    fn a_local_question_stays_in_its_namespace() {
        let spec = json!({"resourceAttributes": {"namespace": "m"}, "nonResourceAttributes": {}});
        check(
            &LOCAL_SUBJECT_ACCESS_REVIEW,
            json!({"spec": spec}),
            expect![[r#"
            spec.nonResourceAttributes: Invalid value: {}: cannot be specified in combination with resourceAttributes
            spec.resourceAttributes.namespace: Invalid value: "m": must match metadata.namespace
            spec.nonResourceAttributes: Invalid value: {}: disallowed on this kind of request"#]],
        );
        check(
            &LOCAL_SUBJECT_ACCESS_REVIEW,
            json!({"metadata": {"labels": {"a": "b"}}}),
            expect![[
                r#"metadata: Invalid value: {"labels":{"a":"b"},"namespace":"n"}: must be empty except for namespace"#
            ]],
        );
    }
}
