//! OpenAPI v3 documents, made from the table of types and the table of kinds.
//!
//! A client finds here which types there are and which parameters an operation takes. There are no
//! descriptions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    DELETE_OPTIONS, LIST_META, SCALE, STATUS,
    table::{self, Definition, Field, Type},
};
use crate::kinds::{KINDS, Kind, Subresource};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// OpenAPI v3 document of one group and version (`group` empty for core) as JSON text: paths and
/// schemas of the served kinds. `None` if nothing is served there. Not cached here.
#[must_use]
pub fn openapi_v3(group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<&Kind> =
        KINDS.iter().copied().filter(|it| it.group == group && it.version == version).collect();
    if kinds.is_empty() {
        return None;
    }
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for kind in &kinds {
        schemas.require(kind.schema);
        schemas.require_list(kind);
        paths.extend(paths_of(kind));
    }
    for name in [DELETE_OPTIONS, STATUS] {
        schemas.require(name);
    }
    if kinds.iter().any(|it| it.subresources.contains(&Subresource::Scale)) {
        schemas.require(SCALE);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": schemas.into_json()},
    }))
}

/// The schemas a document needs, with all that they refer to.
#[derive(Default)]
struct Schemas {
    definitions: BTreeMap<&'static str, &'static Definition>,
    others: BTreeMap<String, Value>,
}

impl Schemas {
    fn require(&mut self, name: &str) {
        let mut pending: Vec<&'static Definition> = table::definition(name).into_iter().collect();
        while let Some(definition) = pending.pop() {
            if self.definitions.insert(definition.name, definition).is_none() {
                pending.extend(definition.fields.iter().filter_map(|it| it.kind.below()));
            }
        }
    }

    fn require_list(&mut self, kind: &Kind) {
        self.require(LIST_META);
        let schema = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"allOf": [reference(LIST_META)], "default": {}},
                "items": {"type": "array", "items": {"allOf": [reference(kind.schema)], "default": {}}},
            },
            "x-kubernetes-group-version-kind":
                [{"group": kind.group, "version": kind.version, "kind": format!("{}List", kind.kind)}],
        });
        self.others.insert(format!("{}List", kind.schema), schema);
    }

    fn into_json(self) -> Map<String, Value> {
        let scalars: [(&str, Value); 5] = [
            (QUANTITY, json!({"oneOf": [{"type": "string"}, {"type": "number"}]})),
            (
                INT_OR_STRING,
                json!({"format": "int-or-string",
                    "oneOf": [{"type": "integer"}, {"type": "string"}]}),
            ),
            (TIME, json!({"type": "string", "format": "date-time"})),
            (MICRO_TIME, json!({"type": "string", "format": "date-time"})),
            (PATCH, json!({"type": "object"})),
        ];
        let scalars = scalars.into_iter().map(|(name, it)| (name.to_owned(), it));
        let definitions =
            self.definitions.into_values().map(|it| (it.name.to_owned(), object_schema(it)));
        scalars.chain(definitions).chain(self.others).collect()
    }
}

fn object_schema(definition: &Definition) -> Value {
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    let properties: Map<String, Value> =
        definition.fields.iter().map(|it| (it.name.to_owned(), field_schema(it))).collect();
    if !properties.is_empty() {
        schema.insert("properties".into(), Value::Object(properties));
    }
    let required: Vec<&str> =
        definition.fields.iter().filter(|it| it.required).map(|it| it.name).collect();
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    if let Some(kind) = definition.kind {
        let kinds = json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]);
        schema.insert("x-kubernetes-group-version-kind".into(), kinds);
    }
    Value::Object(schema)
}

fn field_schema(field: &Field) -> Value {
    let mut schema = match type_schema(&field.kind) {
        Value::Object(schema) => schema,
        other => return other,
    };
    let mut set = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            schema.insert(name.to_owned(), value.into());
        }
    };
    set("default", field.default);
    set("x-kubernetes-list-type", field.list_type);
    set("x-kubernetes-map-type", field.map_type);
    set("x-kubernetes-patch-merge-key", field.merge_key);
    set(
        "x-kubernetes-patch-strategy",
        match (field.merge, field.retain_keys) {
            (true, true) => Some("merge,retainKeys"),
            (true, false) => Some("merge"),
            (false, true) => Some("retainKeys"),
            (false, false) => None,
        },
    );
    if let Some(keys) = field.list_keys {
        let keys: Vec<&str> = keys.split(',').collect();
        schema.insert("x-kubernetes-list-map-keys".into(), json!(keys));
    }
    Value::Object(schema)
}

fn type_schema(kind: &Type) -> Value {
    let all_of = |name: &str| json!({"allOf": [reference(name)]});
    match kind {
        Type::String => json!({"type": "string"}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Double => json!({"type": "number", "format": "double"}),
        Type::Bool => json!({"type": "boolean"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Quantity => all_of(QUANTITY),
        Type::IntOrString => all_of(INT_OR_STRING),
        Type::Time => all_of(TIME),
        Type::MicroTime => all_of(MICRO_TIME),
        Type::Any => json!({"type": "object"}),
        Type::Object(_) => all_of(kind.below().map_or("", |it| it.name)),
        Type::List(items) => json!({"type": "array", "items": type_schema(items)}),
        Type::Map(values) => json!({"type": "object", "additionalProperties": type_schema(values)}),
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The paths at which `kind` is served.
fn paths_of(kind: &Kind) -> Vec<(String, Value)> {
    let group = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let namespace = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{group}{namespace}/{}", kind.plural);
    let object = format!("{collection}/{{name}}");
    let mut paths = Vec::new();
    if kind.namespaced && kind.verbs.contains(&"list") {
        let everywhere = format!("{group}/{}", kind.plural);
        let operation = Operation::of(kind, Verb::List).everywhere();
        paths.push((everywhere, json!({"get": operation.to_json()})));
    }
    let item = |verbs: &[Verb]| {
        let served = verbs.iter().filter(|it| kind.verbs.contains(&it.name()));
        let operations =
            served.map(|it| (it.method().to_owned(), Operation::of(kind, *it).to_json()));
        Value::Object(operations.collect())
    };
    paths.push((collection, item(&[Verb::List, Verb::Create, Verb::DeleteCollection])));
    paths.push((object.clone(), item(&[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete])));
    for subresource in kind.subresources {
        let name = subresource.name();
        let (schema, verbs): (_, &[Verb]) = match subresource {
            Subresource::Status
            | Subresource::Approval
            | Subresource::EphemeralContainers
            | Subresource::Resize => (kind.schema, &[Verb::Get, Verb::Update, Verb::Patch]),
            Subresource::Scale => (SCALE, &[Verb::Get, Verb::Update, Verb::Patch]),
            Subresource::Finalize => (kind.schema, &[Verb::Update]),
            // Not operations on an object of a known kind that a client would look up by kind.
            Subresource::Log | Subresource::Binding | Subresource::Eviction => continue,
        };
        let operations = verbs.iter().map(|verb| {
            let operation = Operation::of(kind, *verb).subresource(name, schema);
            (verb.method().to_owned(), operation.to_json())
        });
        paths.push((format!("{object}/{name}"), Value::Object(operations.collect())));
    }
    paths
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    List,
    Create,
    DeleteCollection,
    Get,
    Update,
    Patch,
    Delete,
}

impl Verb {
    /// Name in discovery.
    const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Create => "create",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    const fn method(self) -> &'static str {
        match self {
            Self::List | Self::Get => "get",
            Self::Create => "post",
            Self::Update => "put",
            Self::Patch => "patch",
            Self::DeleteCollection | Self::Delete => "delete",
        }
    }

    /// Value of `x-kubernetes-action`.
    const fn action(self) -> &'static str {
        match self {
            Self::Create => "post",
            Self::Update => "put",
            Self::List | Self::DeleteCollection | Self::Get | Self::Patch | Self::Delete => {
                self.name()
            }
        }
    }

    /// Names of the query parameters.
    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Get => &["pretty"],
            Self::Create | Self::Update => &["dryRun", "fieldManager", "fieldValidation", "pretty"],
            Self::Patch => &["dryRun", "fieldManager", "fieldValidation", "force", "pretty"],
            Self::Delete => {
                &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy", "pretty"]
            }
            Self::List | Self::DeleteCollection => &[
                "allowWatchBookmarks",
                "continue",
                "fieldSelector",
                "labelSelector",
                "limit",
                "pretty",
                "resourceVersion",
                "resourceVersionMatch",
                "sendInitialEvents",
                "timeoutSeconds",
                "watch",
            ],
        }
    }
}

struct Operation<'a> {
    kind: &'a Kind,
    verb: Verb,
    schema: &'a str,
    subresource: Option<&'a str>,
    everywhere: bool,
}

impl<'a> Operation<'a> {
    const fn of(kind: &'a Kind, verb: Verb) -> Self {
        Self { kind, verb, schema: kind.schema, subresource: None, everywhere: false }
    }

    const fn subresource(mut self, name: &'a str, schema: &'a str) -> Self {
        (self.subresource, self.schema) = (Some(name), schema);
        self
    }

    const fn everywhere(mut self) -> Self {
        self.everywhere = true;
        self
    }

    fn to_json(&self) -> Value {
        let answer = match self.verb {
            Verb::List => format!("{}List", self.schema),
            Verb::Delete | Verb::DeleteCollection => STATUS.to_owned(),
            Verb::Create | Verb::Get | Verb::Update | Verb::Patch => self.schema.to_owned(),
        };
        let shown = table::definition(self.schema).and_then(|it| it.kind);
        let kind = shown.map_or(
            json!({}),
            |it| json!({"group": it.group, "version": it.version, "kind": it.kind}),
        );
        let mut operation = json!({
            "operationId": self.id(),
            "tags": [self.tag()],
            "parameters": self.parameters(),
            "responses": {"200": {"description": "OK", "content": content(&answer, &["application/json"])}},
            "x-kubernetes-action": self.verb.action(),
            "x-kubernetes-group-version-kind": kind,
        });
        if let (Some(body), Some(members)) = (self.body(), operation.as_object_mut()) {
            members.insert("requestBody".into(), body);
        }
        operation
    }

    fn parameters(&self) -> Value {
        let path = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
        let mut parameters = Vec::new();
        if !matches!(self.verb, Verb::List | Verb::Create | Verb::DeleteCollection) {
            parameters.push(path("name"));
        }
        if self.kind.namespaced && !self.everywhere {
            parameters.push(path("namespace"));
        }
        parameters.extend(self.verb.parameters().iter().map(
            |name| json!({"name": name, "in": "query", "schema": {"type": parameter_type(name)}}),
        ));
        Value::Array(parameters)
    }

    fn body(&self) -> Option<Value> {
        let content = match self.verb {
            Verb::Create | Verb::Update => content(self.schema, &["application/json"]),
            Verb::Patch => content(
                PATCH,
                &[
                    "application/json-patch+json",
                    "application/merge-patch+json",
                    "application/strategic-merge-patch+json",
                ],
            ),
            Verb::Delete | Verb::DeleteCollection => content(DELETE_OPTIONS, &["application/json"]),
            Verb::List | Verb::Get => return None,
        };
        let required = !matches!(self.verb, Verb::Delete | Verb::DeleteCollection);
        Some(if required {
            json!({"content": content, "required": true})
        } else {
            json!({"content": content})
        })
    }

    /// `core_v1`, as generated clients name their classes.
    fn tag(&self) -> String {
        let group = if self.kind.group.is_empty() { "core" } else { self.kind.group };
        let group = group.strip_suffix(".k8s.io").unwrap_or(group);
        format!("{group}_{}", self.kind.version)
    }

    /// `patchAppsV1NamespacedDeploymentStatus`, as generated clients name their methods.
    fn id(&self) -> String {
        let verb = match self.verb {
            Verb::Get => "read",
            Verb::Update => "replace",
            Verb::DeleteCollection => "deleteCollection",
            Verb::List | Verb::Create | Verb::Patch | Verb::Delete => self.verb.name(),
        };
        let tag: String = self.tag().split(['_', '.']).map(capitalised).collect();
        let scope = if self.kind.namespaced && !self.everywhere { "Namespaced" } else { "" };
        let tail = self.subresource.map(capitalised).unwrap_or_default();
        let everywhere = if self.everywhere { "ForAllNamespaces" } else { "" };
        format!("{verb}{tag}{scope}{}{tail}{everywhere}", self.kind.kind)
    }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map_or_else(String::new, |it| it.to_ascii_uppercase().to_string() + letters.as_str())
}

fn parameter_type(name: &str) -> &'static str {
    let booleans: BTreeSet<&str> =
        ["allowWatchBookmarks", "force", "orphanDependents", "sendInitialEvents", "watch"].into();
    match name {
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        name if booleans.contains(name) => "boolean",
        _ => "string",
    }
}

fn content(schema: &str, media_types: &[&str]) -> Value {
    let schema = json!({"schema": reference(schema)});
    media_types.iter().map(|it| ((*it).to_owned(), schema.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `visit` with every value in `value`.
    fn walk(value: &Value, visit: &mut impl FnMut(&Value)) {
        visit(value);
        match value {
            Value::Array(items) => items.iter().for_each(|it| walk(it, visit)),
            Value::Object(members) => members.values().for_each(|it| walk(it, visit)),
            _ => {}
        }
    }

    fn documents() -> Vec<Value> {
        let served: BTreeSet<_> = KINDS.iter().map(|it| (it.group, it.version)).collect();
        served.iter().map(|(group, version)| openapi_v3(group, version).unwrap()).collect()
    }

    #[test]
    fn nothing_is_served_there() {
        assert_eq!(openapi_v3("apps", "v1beta1"), None);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for document in documents() {
            walk(&document, &mut |it| {
                if let Some(Value::String(reference)) = it.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
            });
        }
    }

    /// What kubectl looks for before it applies.
    #[test]
    fn every_kind_can_be_patched_with_field_validation() {
        let mut patched = BTreeSet::new();
        for document in documents() {
            walk(&document["paths"], &mut |it| {
                let names = it["parameters"].as_array().into_iter().flatten();
                let mut names = names.filter_map(|it| it["name"].as_str());
                if it["x-kubernetes-action"] == "patch" && names.any(|it| it == "fieldValidation") {
                    patched.insert(it["x-kubernetes-group-version-kind"].to_string());
                }
            });
        }
        for kind in KINDS.iter().filter(|it| it.verbs.contains(&"patch")) {
            let (group, version, kind) = (kind.group, kind.version, kind.kind);
            let wanted = json!({"group": group, "version": version, "kind": kind}).to_string();
            assert!(patched.contains(&wanted), "{kind}");
        }
    }

    #[test]
    fn operations_are_named_apart() {
        let mut seen = BTreeSet::new();
        for document in documents() {
            walk(&document, &mut |it| {
                if let Some(Value::String(id)) = it.get("operationId") {
                    assert!(seen.insert(id.clone()), "{id}");
                }
            });
        }
        assert!(seen.contains("patchAppsV1NamespacedDeploymentStatus"));
        assert!(seen.contains("listCoreV1PodForAllNamespaces"));
    }
}
