//! The kinds of the Gateway API that the cluster's proxy serves: elsewhere custom resources that
//! somebody has to install, here part of the API.
//!
//! <https://gateway-api.sigs.k8s.io/reference/spec/>

mod http_route;
mod listeners;

use serde_json::{Value, json};

pub(super) use self::{
    http_route::{HTTP_ROUTE, HTTP_ROUTE_V1BETA1},
    listeners::{GATEWAY, GATEWAY_V1BETA1},
};
use super::{
    Column, Conversion, Kind,
    path::Path,
    print::{self, AGE, NAME, column, wide},
    structural,
    value::{Read, set},
};

const GROUP: &str = "gateway.networking.k8s.io";
const CATEGORIES: &[&str] = &["gateway-api"];

/// The same objects under an older version's name; only its list of types differs.
const V1BETA1: &str = "v1beta1";

pub(super) static GATEWAY_CLASS: Kind = GATEWAY_CLASS_V1;

const GATEWAY_CLASS_V1: Kind = Kind {
    group: GROUP,
    kind: "GatewayClass",
    plural: "gatewayclasses",
    singular: "gatewayclass",
    short_names: &["gc"],
    categories: CATEGORIES,
    namespaced: false,
    schema: "io.k8s.networking.gateway.v1.GatewayClass",
    generation: true,
    prepare_create: |class| set(class, "status", json!({"conditions": [pending("Accepted")]})),
    validate: |class, causes| {
        structural::validate(CLASS_SPEC, class.field("spec"), Path::new("spec"), causes);
    },
    validate_update: |new, old, causes| {
        let path = Path::new("spec");
        let (new, old) = (new.at(&["spec", "controllerName"]), old.at(&["spec", "controllerName"]));
        if new != old {
            causes.invalid(path.child("controllerName"), new, "Value is immutable");
        }
    },
    columns: CLASS_COLUMNS,
    row: |it, now| {
        let spec = it.field("spec");
        vec![
            print::name(it),
            spec.text("controllerName").into(),
            condition(it, "Accepted").into(),
            print::age(it, now),
            spec.text("description").into(),
        ]
    },
    ..Kind::WITH_STATUS
};

pub(super) static GATEWAY_CLASS_V1BETA1: Kind = Kind {
    version: V1BETA1,
    schema: "io.k8s.networking.gateway.v1beta1.GatewayClass",
    conversion: Some(&Conversion {
        stored: &GATEWAY_CLASS,
        to_stored: |_| {},
        from_stored: |_| {},
    }),
    ..GATEWAY_CLASS_V1
};

const CLASS_SPEC: &str = "io.k8s.networking.gateway.v1.GatewayClassSpec";
const CLASS_COLUMNS: &[Column] = &[
    NAME,
    column("Controller", "Who serves Gateways of this class."),
    column("Accepted", "Whether that one does."),
    AGE,
    wide("Description", "For people."),
];

pub(super) static REFERENCE_GRANT: Kind = REFERENCE_GRANT_V1;

const REFERENCE_GRANT_V1: Kind = Kind {
    group: GROUP,
    kind: "ReferenceGrant",
    plural: "referencegrants",
    singular: "referencegrant",
    short_names: &["refgrant"],
    categories: CATEGORIES,
    schema: "io.k8s.networking.gateway.v1.ReferenceGrant",
    generation: true,
    validate: |grant, causes| {
        structural::validate(GRANT_SPEC, grant.field("spec"), Path::new("spec"), causes);
    },
    columns: &[NAME, AGE],
    row: |it, now| vec![print::name(it), print::age(it, now)],
    ..Kind::PLAIN
};

pub(super) static REFERENCE_GRANT_V1BETA1: Kind = Kind {
    version: V1BETA1,
    schema: "io.k8s.networking.gateway.v1beta1.ReferenceGrant",
    conversion: Some(&Conversion {
        stored: &REFERENCE_GRANT,
        to_stored: |_| {},
        from_stored: |_| {},
    }),
    ..REFERENCE_GRANT_V1
};

const GRANT_SPEC: &str = "io.k8s.networking.gateway.v1.ReferenceGrantSpec";

/// A condition of a new object, until a controller has seen it.
fn pending(name: &str) -> Value {
    json!({"type": name, "status": "Unknown", "reason": "Pending",
        "message": "Waiting for controller", "lastTransitionTime": "1970-01-01T00:00:00Z"})
}

/// What a condition says, empty if it is not there.
fn condition<'a>(object: &'a Value, name: &str) -> &'a str {
    let conditions = object.field("status").items("conditions").iter();
    conditions.filter(|it| it.text("type") == name).map(|it| it.text("status")).next().unwrap_or("")
}

/// Reports that what is at `path` breaks a rule about several of its fields.
fn broken(path: Path<'_>, rule: &str, causes: &mut super::Causes) {
    causes.invalid(path, &Value::from("object"), rule);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, check_update},
        *,
    };

    #[test]
    fn classes_are_checked() {
        let long = "x".repeat(65);
        check(
            &GATEWAY_CLASS,
            json!({"spec": {"controllerName": "coracle", "description": long,
                "parametersRef": {"group": "Not a group", "kind": "", "namespace": "n"}}}),
            expect![[r#"
                spec.controllerName: Invalid value: "coracle": spec.controllerName in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$'
                spec.description: Too long: may not be more than 64 bytes
                spec.parametersRef.group: Invalid value: "Not a group": spec.parametersRef.group in body should match '^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'
                spec.parametersRef.kind: Invalid value: "": spec.parametersRef.kind in body should be at least 1 chars long
                spec.parametersRef.kind: Invalid value: "": spec.parametersRef.kind in body should match '^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$'
                spec.parametersRef.name: Required value"#]],
        );
        check_update(
            &GATEWAY_CLASS,
            json!({"spec": {"controllerName": "example.com/another"}}),
            expect![[
                r#"spec.controllerName: Invalid value: "example.com/another": Value is immutable"#
            ]],
        );
        check_row(
            &GATEWAY_CLASS,
            json!({"status": {"conditions": [{"type": "Accepted", "status": "True"}]}}),
            expect!["a | example.com/gateway | True | 60m | "],
        );
    }

    #[test]
    fn grants_are_checked() {
        check(
            &REFERENCE_GRANT,
            json!({"spec": {"from": [{"kind": "HTTPRoute", "namespace": "N"}], "to": []}}),
            expect![[r#"
                spec.from[0].group: Required value
                spec.from[0].namespace: Invalid value: "N": spec.from[0].namespace in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'
                spec.to: Required value"#]],
        );
    }
}
