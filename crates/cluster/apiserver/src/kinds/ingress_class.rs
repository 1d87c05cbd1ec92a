//! IngressClasses: who serves an Ingress.

use api::names;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::{Read, set_default},
};

pub(super) static INGRESS_CLASS: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    namespaced: false,
    schema: "io.k8s.api.networking.v1.IngressClass",
    generation: true,
    default: |class| {
        if let Some(parameters) = class.get_mut("spec").and_then(|it| it.get_mut("parameters")) {
            set_default(parameters, "scope", "Cluster");
        }
    },
    validate,
    validate_update: |new, old, causes| {
        let path = Path::new("spec");
        let (new, old) = (new.field("spec"), old.field("spec"));
        rules::unchanged(new, old, "controller", path.child("controller"), causes);
    },
    columns: COLUMNS,
    row,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Controller", "Who serves Ingresses of this class."),
    column("Parameters", "Where the controller finds more settings."),
    AGE,
];

/// Annotation of the class that Ingresses get which name none.
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// Bytes of a controller's name.
const CONTROLLER_MAX: usize = 250;

fn validate(class: &Value, causes: &mut Causes) {
    let (spec, path) = (class.field("spec"), Path::new("spec"));
    let controller = spec.text("controller");
    if CONTROLLER_MAX < controller.len() {
        rules::too_long(path.child("controller"), CONTROLLER_MAX, causes);
    }
    rules::domain_prefixed_path(controller, path.child("controller"), causes);
    if spec.has("parameters") {
        parameters(spec.field("parameters"), path.child("parameters"), causes);
    }
}

fn parameters(parameters: &Value, path: Path<'_>, causes: &mut Causes) {
    let group = parameters.field("apiGroup");
    if let Some(group) = group.as_str() {
        rules::all(names::dns1123_subdomain(group), path.child("apiGroup"), group, causes);
    }
    rules::required_name(parameters, "kind", rules::path_segment, path, causes);
    rules::required_name(parameters, "name", rules::path_segment, path, causes);
    let namespace = path.child("namespace");
    match (parameters.text("scope"), parameters.field("namespace").as_str()) {
        ("Cluster", Some(_)) => {
            causes.forbidden(namespace, "`parameters.scope` is set to 'Cluster'");
        }
        ("Namespace", None) => {
            causes.required(namespace, "`parameters.scope` is set to 'Namespace'");
        }
        ("Namespace", Some(name)) => {
            rules::all(names::dns1123_label(name), namespace, name, causes);
        }
        _ => rules::one_of(parameters, "scope", &["Cluster", "Namespace"], path, causes),
    }
}

fn row(class: &Value, now: Timestamp) -> Vec<Value> {
    let spec = class.field("spec");
    let parameters = spec.field("parameters");
    let group = match parameters.text("apiGroup") {
        "" => String::new(),
        group => format!(".{group}"),
    };
    let named = format!("{}{group}/{}", parameters.text("kind"), parameters.text("name"));
    vec![
        print::name_or_default(class, rules::is_annotated(class, IS_DEFAULT)),
        spec.text("controller").into(),
        if parameters.is_null() { print::NONE.into() } else { named.into() },
        print::age(class, now),
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

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn controllers_have_a_domain() {
        check(
            &INGRESS_CLASS,
            spec(json!({"controller": null})),
            expect!["spec.controller: Required value"],
        );
        check(
            &INGRESS_CLASS,
            spec(json!({"controller": "nginx"})),
            expect![[
                r#"spec.controller: Invalid value: "nginx": must be a domain-prefixed path (such as "acme.io/foo")"#
            ]],
        );
        check(
            &INGRESS_CLASS,
            spec(json!({"parameters": {"scope": "Namespace"}})),
            expect![[r#"
                spec.parameters.kind: Required value
                spec.parameters.name: Required value
                spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"#]],
        );
        check_update(
            &INGRESS_CLASS,
            spec(json!({"controller": "a.com/b"})),
            expect![[r#"spec.controller: Invalid value: "a.com/b": field is immutable"#]],
        );
    }

    #[test]
    fn row_names_parameters() {
        let parameters = json!({"apiGroup": "a.com", "kind": "K", "name": "p"});
        check_row(
            &INGRESS_CLASS,
            spec(json!({"parameters": parameters})),
            expect!["a | example.com/ingress | K.a.com/p | 60m"],
        );
    }
}
