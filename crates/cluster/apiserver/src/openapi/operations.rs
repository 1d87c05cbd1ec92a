//! Operations: what may be done at which path, with which parameters.
//!
//! A client finds here which types there are and which parameters an operation takes.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    Flavour,
    schemas::{PATCH, reference},
};
use crate::{
    kinds::{Creation, Kind, Subresource},
    schema::{BINDING, DELETE_OPTIONS, EVICTION, SCALE, STATUS, definition},
};

/// Media types of a body that is an object.
const ANYTHING: &[&str] = &["*/*"];
/// Media types of a patch.
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
/// Media types of an answer.
const PRODUCED: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// Media types of a list, which may be a watch.
const STREAMED: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

/// The paths at which `kind` is served, each with its operations.
pub(super) fn paths(kind: &Kind, flavour: Flavour) -> Vec<(String, Value)> {
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
        let operation = Operation::of(kind, Verb::List, flavour).everywhere();
        paths.push((everywhere, json!({"get": operation.to_json()})));
    }
    let item = |verbs: &[Verb]| {
        let served = verbs.iter().filter(|it| kind.verbs.contains(&it.name()));
        let operations =
            served.map(|it| (it.method().to_owned(), Operation::of(kind, *it, flavour).to_json()));
        Value::Object(operations.collect())
    };
    paths.push((collection, item(&[Verb::List, Verb::Create, Verb::DeleteCollection])));
    if kind.creation == Creation::Kept {
        paths.push((object.clone(), item(&[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete])));
    }
    for subresource in kind.subresources {
        let name = subresource.name();
        let (schema, verbs): (_, &[Verb]) = match subresource {
            Subresource::Status
            | Subresource::Approval
            | Subresource::EphemeralContainers
            | Subresource::Resize => (kind.schema, &[Verb::Get, Verb::Update, Verb::Patch]),
            Subresource::Scale => (SCALE, &[Verb::Get, Verb::Update, Verb::Patch]),
            Subresource::Finalize => (kind.schema, &[Verb::Update]),
            Subresource::Binding => (BINDING, &[Verb::Create]),
            Subresource::Eviction => (EVICTION, &[Verb::Create]),
            // What somebody else says, not an object of a kind that a client would look up.
            Subresource::Log | Subresource::Proxy => continue,
        };
        let operations = verbs.iter().map(|verb| {
            let operation = Operation::of(kind, *verb, flavour).subresource(name, schema);
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
    flavour: Flavour,
    schema: &'a str,
    subresource: Option<&'a str>,
    everywhere: bool,
}

impl<'a> Operation<'a> {
    const fn of(kind: &'a Kind, verb: Verb, flavour: Flavour) -> Self {
        Self { kind, verb, flavour, schema: kind.schema, subresource: None, everywhere: false }
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
        let shown = definition(self.schema).and_then(|it| it.kind);
        let kind = shown.map_or(
            json!({}),
            |it| json!({"group": it.group, "version": it.version, "kind": it.kind}),
        );
        let mut operation = json!({
            "operationId": self.id(),
            "tags": [self.tag()],
            "parameters": self.parameters(),
            "responses": self.responses(&answer),
            "x-kubernetes-action": self.verb.action(),
            "x-kubernetes-group-version-kind": kind,
        });
        let Some(members) = operation.as_object_mut() else { return operation };
        match (self.flavour, self.body()) {
            (Flavour::V3, Some((types, schema, required))) => {
                let mut body = json!({"content": self.content(schema, types)});
                if let (true, Some(body)) = (required, body.as_object_mut()) {
                    body.insert("required".into(), true.into());
                }
                members.insert("requestBody".into(), body);
            }
            (Flavour::V2, body) => {
                let consumes = body.map_or(ANYTHING, |(types, ..)| types);
                members.insert("consumes".into(), json!(consumes));
                members.insert("produces".into(), json!(self.produced()));
                members.insert("schemes".into(), json!(["https"]));
            }
            (Flavour::V3, None) => {}
        }
        operation
    }

    /// Media types of the answer.
    const fn produced(&self) -> &'static [&'static str] {
        match self.verb {
            Verb::List => STREAMED,
            _ => PRODUCED,
        }
    }

    fn responses(&self, answer: &str) -> Value {
        let mut responses = Map::new();
        let codes: &[(&str, &str)] = match self.verb {
            Verb::Create => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            Verb::Update | Verb::Patch => &[("200", "OK"), ("201", "Created")],
            Verb::Delete => &[("200", "OK"), ("202", "Accepted")],
            Verb::List | Verb::DeleteCollection | Verb::Get => &[("200", "OK")],
        };
        for (code, words) in codes {
            let response = match self.flavour {
                Flavour::V2 => json!({"description": words,
                    "schema": reference(answer, self.flavour)}),
                Flavour::V3 => json!({"description": words,
                    "content": self.content(answer, self.produced())}),
            };
            responses.insert((*code).to_owned(), response);
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        Value::Object(responses)
    }

    fn parameters(&self) -> Value {
        let typed = |name: &str, place: &str, kind: &str| {
            let mut parameter = json!({"name": name, "in": place, "uniqueItems": true});
            if let Some(members) = parameter.as_object_mut() {
                match self.flavour {
                    Flavour::V2 => drop(members.insert("type".into(), kind.into())),
                    Flavour::V3 => {
                        members.remove("uniqueItems");
                        let schema = json!({"type": kind, "uniqueItems": true});
                        members.insert("schema".into(), schema);
                    }
                }
                if place == "path" {
                    members.insert("required".into(), true.into());
                }
            }
            parameter
        };
        let mut parameters = Vec::new();
        let of_object = !matches!(self.verb, Verb::List | Verb::Create | Verb::DeleteCollection);
        if of_object || self.subresource.is_some() {
            parameters.push(typed("name", "path", "string"));
        }
        if self.kind.namespaced && !self.everywhere {
            parameters.push(typed("namespace", "path", "string"));
        }
        if let (Flavour::V2, Some((_, schema, required))) = (self.flavour, self.body()) {
            let schema = reference(schema, self.flavour);
            let body = json!({"name": "body", "in": "body", "schema": schema});
            let required_body = json!({"name": "body", "in": "body", "schema": body.get("schema"), "required": true});
            parameters.push(if required { required_body } else { body });
        }
        let queried = self.verb.parameters().iter();
        parameters.extend(queried.map(|it| typed(it, "query", parameter_type(it))));
        Value::Array(parameters)
    }

    /// Media types and type of the body, and whether there must be one.
    fn body(&self) -> Option<(&'static [&'static str], &str, bool)> {
        match self.verb {
            Verb::Create | Verb::Update => Some((ANYTHING, self.schema, true)),
            Verb::Patch => Some((PATCHES, PATCH, true)),
            Verb::Delete | Verb::DeleteCollection => Some((ANYTHING, DELETE_OPTIONS, false)),
            Verb::List | Verb::Get => None,
        }
    }

    fn content(&self, schema: &str, media_types: &[&str]) -> Value {
        let schema = json!({"schema": reference(schema, self.flavour)});
        media_types.iter().map(|it| ((*it).to_owned(), schema.clone())).collect()
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
