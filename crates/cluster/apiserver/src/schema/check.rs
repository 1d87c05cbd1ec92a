//! Compares an object with its type, wording findings as the original's strict decoder does.

use std::fmt::Write as _;

use api::quantity::{self, Quantity};
use serde_json::Value;

use super::{
    go,
    table::{self, Definition, Field, Type},
    time::{Moment, Precision},
};

/// Most unknown fields reported about one object, as in the original.
const FINDINGS_MAX: usize = 100;

/// What a body says that its type does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Wording of Kubernetes' strict decoder, such as `unknown field "spec.foo"`, in path order.
    pub unknown: Vec<String>,
    /// First value of a wrong JSON type, worded as Go's decoder does:
    /// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type
    /// int32`.
    pub mistyped: Option<String>,
}

/// Compares `object` with `definition`.
#[must_use]
pub fn check(definition: &str, object: &Value) -> Problems {
    let mut walk = Walk::default();
    if let Some(definition) = table::definition(definition) {
        match object {
            Value::Object(_) | Value::Null => walk.object(definition, object),
            _ => {
                let found = json_type(object);
                let wanted = go::struct_name(definition);
                walk.mistyped(format!(
                    "json: cannot unmarshal {found} into Go value of type {wanted}"
                ));
            }
        }
    }
    walk.problems
}

/// Where a value stands: the innermost field, for the original's wording.
#[derive(Clone, Copy)]
struct Place {
    owner: &'static Definition,
    field: &'static Field,
}

#[derive(Default)]
struct Walk<'a> {
    path: Vec<Step<'a>>,
    problems: Problems,
}

enum Step<'a> {
    Field(&'a str),
    /// A map's key, which is part of the path of an unknown field but not of a Go field's.
    Key(&'a str),
    Index(usize),
}

impl<'a> Walk<'a> {
    fn object(&mut self, definition: &'static Definition, object: &'a Value) {
        let Value::Object(members) = object else { return };
        if definition.any {
            return;
        }
        for (name, value) in members {
            self.path.push(Step::Field(name));
            match definition.field(name) {
                Some(field) => self.value(Place { owner: definition, field }, &field.kind, value),
                None => self.unknown(),
            }
            self.path.pop();
        }
    }

    fn value(&mut self, place: Place, kind: &'static Type, value: &'a Value) {
        match (kind, value) {
            (_, Value::Null)
            | (Type::Any, _)
            | (Type::String, Value::String(_))
            | (Type::Bool, Value::Bool(_))
            | (Type::Double, Value::Number(_))
            | (Type::IntOrString, Value::String(_)) => {}
            (Type::Int32 | Type::Int64 | Type::IntOrString, Value::Number(number)) => {
                let fits = match kind {
                    Type::Int64 => number.as_i64().is_some(),
                    _ => number.as_i64().is_some_and(|it| i32::try_from(it).is_ok()),
                };
                if !fits {
                    self.wrong(place, kind, &format!("number {number}"));
                }
            }
            (Type::IntOrString, _) => self.wrong(place, kind, json_type(value)),
            (Type::Bytes, Value::String(text)) => self.bytes(text),
            (Type::Quantity, _) => self.quantity(value),
            (Type::Time, _) => self.time(Precision::Seconds, value),
            (Type::MicroTime, _) => self.time(Precision::Micros, value),
            (Type::Object(_), _) if kind.below().is_some_and(|it| it.any) => {}
            (Type::Object(_), Value::Object(_)) => {
                if let Some(definition) = kind.below() {
                    self.object(definition, value);
                }
            }
            (Type::List(items), Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    self.path.push(Step::Index(index));
                    self.value(place, items, value);
                    self.path.pop();
                }
            }
            (Type::Map(values), Value::Object(members)) => {
                for (key, value) in members {
                    self.path.push(Step::Key(key));
                    self.value(place, values, value);
                    self.path.pop();
                }
            }
            _ => self.wrong(place, kind, json_type(value)),
        }
    }

    fn bytes(&mut self, text: &str) {
        if let Some(at) = first_bad_base64(text) {
            self.mistyped(format!("illegal base64 data at input byte {at}"));
        }
    }

    fn quantity(&mut self, value: &Value) {
        let parsed = match value {
            Value::String(text) => text.parse::<Quantity>(),
            Value::Number(number) => number.to_string().parse::<Quantity>(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                Err(quantity::Error::Format)
            }
        };
        if let Err(error) = parsed {
            self.mistyped(error.to_string());
        }
    }

    fn time(&mut self, precision: Precision, value: &Value) {
        let Value::String(text) = value else {
            let found = json_type(value);
            self.mistyped(format!("json: cannot unmarshal {found} into Go value of type string"));
            return;
        };
        if let Err(why) = Moment::parse(text, precision) {
            self.mistyped(why);
        }
    }

    fn wrong(&mut self, place: Place, kind: &Type, found: &str) {
        // This type decodes itself, so the original does not know the field any more.
        if *kind == Type::IntOrString {
            self.mistyped(format!("json: cannot unmarshal {found} into Go value of type int32"));
            return;
        }
        let wanted = go::type_name(place.field, kind);
        let owner = place.owner.short_name();
        let fields: Vec<&str> = self
            .path
            .iter()
            .filter_map(|it| match it {
                Step::Field(name) => Some(*name),
                Step::Key(_) | Step::Index(_) => None,
            })
            .collect();
        let fields = fields.join(".");
        self.mistyped(format!(
            "json: cannot unmarshal {found} into Go struct field {owner}.{fields} of type {wanted}"
        ));
    }

    fn mistyped(&mut self, text: String) {
        self.problems.mistyped.get_or_insert(text);
    }

    fn unknown(&mut self) {
        if self.problems.unknown.len() < FINDINGS_MAX {
            self.problems.unknown.push(format!("unknown field {:?}", self.path()));
        }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            // Writing to a string cannot fail.
            let _written = match step {
                Step::Field(name) | Step::Key(name) if path.is_empty() => write!(path, "{name}"),
                Step::Field(name) | Step::Key(name) => write!(path, ".{name}"),
                Step::Index(index) => write!(path, "[{index}]"),
            };
        }
        path
    }
}

const fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Position of what the original's base64 decoder would refuse first; `None` if all is well.
/// Line breaks are skipped; padding must complete the last group of four and end the text.
fn first_bad_base64(text: &str) -> Option<usize> {
    let mut group = 0;
    let mut start = 0;
    let mut padding = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\r' | b'\n' => continue,
            b'=' if group < 2 || 4 <= group + padding => return Some(at),
            b'=' => padding += 1,
            _ if padding != 0 => return Some(at),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => {
                if group == 4 {
                    group = 0;
                }
                if group == 0 {
                    start = at;
                }
                group += 1;
            }
            _ => return Some(at),
        }
    }
    match (group, padding) {
        (0 | 4, 0) => None,
        (group, padding) if group + padding == 4 => None,
        (_, 0) => Some(start),
        _ => Some(text.len()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    const POD: &str = "io.k8s.api.core.v1.Pod";
    const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

    #[expect(clippy::needless_pass_by_value, reason = "expect![] is written in place")]
    fn case(definition: &str, object: Value, expected: Expect) {
        let problems = check(definition, &object);
        let lines: Vec<String> = problems.unknown.into_iter().chain(problems.mistyped).collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn names_unknown_fields_by_path() {
        case(
            DEPLOYMENT,
            json!({"spec": {"foo": 1, "template": {"spec": {"containers": [
            {"name": "a", "imagee": "x"}]}}}, "bar": {}}),
            expect![[r#"
                unknown field "bar"
                unknown field "spec.foo"
                unknown field "spec.template.spec.containers[0].imagee""#]],
        );
        case(
            POD,
            json!({"metadata": {"labels": {"any": "thing"}, "managedFields": [
            {"fieldsV1": {"f:x": {}}}]}}),
            expect![""],
        );
    }

    #[test]
    fn words_wrong_types_as_go_does() {
        case(
            DEPLOYMENT,
            json!({"spec": {"replicas": "3"}}),
            expect![
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
            ],
        );
        case(
            POD,
            json!({"spec": {"containers": [{"env": [{"name": "A", "value": 1}]}]}}),
            expect![
                "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string"
            ],
        );
        case(
            POD,
            json!({"metadata": {"labels": {"a": 1}}}),
            expect![
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"
            ],
        );
        case(
            POD,
            json!({"spec": {"containers": {}}}),
            expect![
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"
            ],
        );
        case(
            POD,
            json!({"spec": "x"}),
            expect![
                "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec"
            ],
        );
        case(
            POD,
            json!({"spec": {"restartPolicy": true}}),
            expect![
                "json: cannot unmarshal bool into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy"
            ],
        );
        case(
            POD,
            json!({"spec": {"terminationGracePeriodSeconds": 1.5}}),
            expect![
                "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64"
            ],
        );
        case(
            DEPLOYMENT,
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": true}}}}),
            expect!["json: cannot unmarshal bool into Go value of type int32"],
        );
        case(POD, json!([]), expect!["json: cannot unmarshal array into Go value of type v1.Pod"]);
        case(
            POD,
            json!({"metadata": {"creationTimestamp": "x"}}),
            expect![[
                r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#
            ]],
        );
    }

    #[test]
    fn checks_quantities_and_bytes() {
        let limits =
            |it: Value| json!({"spec": {"containers": [{"resources": {"limits": {"cpu": it}}}]}});
        case(
            POD,
            limits(json!("abc")),
            expect![
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            ],
        );
        case(POD, limits(json!(1)), expect![""]);
        case(POD, limits(json!("500m")), expect![""]);
        let data = |it: &str| json!({"data": {"key": it}});
        let secret = "io.k8s.api.core.v1.Secret";
        case(secret, data("not-base64!"), expect!["illegal base64 data at input byte 3"]);
        case(secret, data("abcde"), expect!["illegal base64 data at input byte 4"]);
        case(secret, data("YQ==\n"), expect![""]);
        case(secret, data("YWE="), expect![""]);
        case(secret, data(""), expect![""]);
    }

    #[test]
    fn null_is_nothing() {
        case(POD, json!({"spec": null, "metadata": {"labels": {"a": null}}}), expect![""]);
    }
}
