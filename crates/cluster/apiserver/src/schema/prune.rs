//! Brings an object into the form that a typed decoder and encoder give it: unknown fields, empty
//! collections and zeros that say nothing gone, quantities, times and bytes canonical.

use api::quantity::Quantity;
use serde_json::{Map, Value};

use super::{
    base64, go,
    table::{self, Definition, Type},
    time::{Moment, Precision},
};

/// Removes fields unknown to `definition`, `null`s, empty lists and maps, and zeros that are the same
/// as none, and writes quantities and times canonically, so that two objects that mean the same are the same. Values of a wrong
/// type stay as they are ([`check`](super::check()) reports them).
pub fn prune(definition: &str, object: &mut Value) {
    if let (Some(definition), Value::Object(members)) = (table::definition(definition), object) {
        prune_members(definition, members);
    }
}

fn prune_members(definition: &'static Definition, members: &mut Map<String, Value>) {
    if definition.any {
        return;
    }
    members.retain(|name, value| match definition.field(name) {
        Some(field) => {
            prune_value(&field.kind, value);
            let nothing =
                is_nothing(&field.kind, value) || (is_zero(value) && go::zero_is_none(field));
            !nothing
        }
        None => false,
    });
}

fn prune_value(kind: &'static Type, value: &mut Value) {
    match (kind, value) {
        (Type::Object(_), Value::Object(members)) => {
            if let Some(definition) = kind.below() {
                prune_members(definition, members);
            }
        }
        (Type::List(items), Value::Array(values)) => {
            for value in values {
                replace_null(items, value);
                prune_value(items, value);
            }
        }
        (Type::Map(values), Value::Object(members)) => {
            for (_, value) in members {
                replace_null(values, value);
                prune_value(values, value);
            }
        }
        (Type::Bytes, Value::String(text)) => {
            if let Some(canonical) = base64::canonical(text) {
                *text = canonical;
            }
        }
        (Type::Quantity, value) => canonical_quantity(value),
        (Type::Time, value) => canonical_time(value, Precision::Seconds),
        (Type::MicroTime, value) => canonical_time(value, Precision::Micros),
        _ => {}
    }
}

/// What a typed encoder leaves out. An empty object stays: `emptyDir: {}` says something.
fn is_nothing(kind: &Type, value: &Value) -> bool {
    match (kind, value) {
        (_, Value::Null) => true,
        (Type::List(_), Value::Array(values)) => values.is_empty(),
        (Type::Map(_), Value::Object(members)) => members.is_empty(),
        _ => false,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Inside a list or map, `null` is the zero value of the type.
fn replace_null(kind: &Type, value: &mut Value) {
    if value.is_null() {
        match kind {
            Type::String => *value = Value::from(""),
            Type::Object(_) => *value = Value::Object(Map::new()),
            Type::Quantity => *value = Value::from("0"),
            _ => {}
        }
    }
}

fn canonical_quantity(value: &mut Value) {
    let parsed = match &*value {
        Value::String(text) => text.parse::<Quantity>(),
        Value::Number(number) => number.to_string().parse::<Quantity>(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return,
    };
    if let Ok(quantity) = parsed {
        *value = Value::from(quantity.to_string());
    }
}

fn canonical_time(value: &mut Value, precision: Precision) {
    if let Some(Ok(time)) = value.as_str().map(|it| Moment::parse(it, precision)) {
        *value = if time.is_zero() { Value::Null } else { Value::from(time.print(precision)) };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(definition: &str, mut object: Value, expected: &Value) {
        prune(definition, &mut object);
        assert_eq!(object, *expected);
        prune(definition, &mut object);
        assert_eq!(object, *expected, "a second time");
    }

    #[test]
    fn keeps_what_the_type_has() {
        check(
            "io.k8s.api.core.v1.Pod",
            json!({"bar": 1, "metadata": {"name": "a", "labels": {}, "annotations": {"a": null},
                "creationTimestamp": "2024-01-02T03:04:05.123+02:00"},
                "spec": {"volumes": [{"emptyDir": {}, "name": "v", "foo": {}}],
                    "containers": [{"args": [], "name": "c", "image": null,
                        "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}}]}}),
            &json!({"metadata": {"name": "a", "annotations": {"a": ""},
                "creationTimestamp": "2024-01-02T01:04:05Z"},
                "spec": {"volumes": [{"emptyDir": {}, "name": "v"}],
                    "containers": [{"name": "c",
                        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]}}),
        );
    }

    #[test]
    fn zeros_that_say_nothing_go() {
        check(
            "io.k8s.api.core.v1.PodSpec",
            json!({"hostNetwork": false, "enableServiceLinks": false, "priority": 0,
                "containers": [{"name": "", "tty": false, "livenessProbe": {"periodSeconds": 0},
                    "ports": [{"containerPort": 0, "hostPort": 0}]}]}),
            &json!({"enableServiceLinks": false, "priority": 0,
                "containers": [{"name": "", "livenessProbe": {},
                    "ports": [{"containerPort": 0}]}]}),
        );
    }

    #[test]
    fn a_time_without_end_stays_and_the_zero_of_go_goes() {
        check(
            "io.k8s.api.certificates.v1.CertificateSigningRequest",
            json!({"status": {"conditions": [{"type": "Approved",
                "lastUpdateTime": "9999-12-31T23:59:59Z",
                "lastTransitionTime": "0001-01-01T00:00:00Z"}]}}),
            &json!({"status": {"conditions": [{"type": "Approved",
                "lastUpdateTime": "9999-12-31T23:59:59Z"}]}}),
        );
    }

    #[test]
    fn keeps_microseconds_where_the_type_has_them() {
        check(
            "io.k8s.api.coordination.v1.Lease",
            json!({"spec": {"renewTime": "2024-01-02T03:04:05.500000Z", "holderIdentity": ""}}),
            &json!({"spec": {"renewTime": "2024-01-02T03:04:05.500000Z", "holderIdentity": ""}}),
        );
    }
}
