//! Makes the cluster hold what a manifest says: creates what is missing, and changes of what is
//! there only what the manifest says or said before.
//!
//! The last manifest is remembered in kubectl's own annotation, so that `kubectl apply` and
//! `coracle up` can take turns.

use anyhow::Context as _;
use client::Client;
use http::{Method, Request, StatusCode};
use kube::{
    core::{ApiResource, GroupVersionKind},
    discovery::{self, ApiCapabilities, Scope},
};
use serde_json::{Map, Value, json};

use crate::{
    apply_set::PART_OF,
    manifest::Object,
    prune::{GroupKind, Named},
};

/// The annotation in which kubectl remembers what was applied last.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who the API server is told makes the change.
pub(crate) const FIELD_MANAGER: &str = "coracle-up";

/// What became of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Created,
    Configured,
    Unchanged,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        })
    }
}

/// What is set on an object besides what its manifest says.
#[derive(Debug, Default)]
pub(crate) struct Marks<'a> {
    /// Annotations.
    pub(crate) annotations: Vec<(&'a str, String)>,
    /// The set that it becomes part of; if none, it stays in the one it is in.
    pub(crate) part_of: Option<&'a str>,
}

/// An object that was applied.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) outcome: Outcome,
    /// Whether it was part of another set before.
    pub(crate) taken: bool,
    /// The object as the API knows it.
    pub(crate) object: Named,
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let taken = if self.taken { ", and is no longer part of another set" } else { "" };
        write!(f, "{}{taken}", self.outcome)
    }
}

/// An object as it is addressed in the API.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    resource: ApiResource,
    /// The namespace, for objects that live in one.
    pub(crate) namespace: Option<String>,
    name: String,
}

impl Target {
    /// Finds out how the API server calls what `object` is.
    pub(crate) async fn find(client: &Client, object: &Object) -> anyhow::Result<Self> {
        let (group, version) =
            object.api_version().split_once('/').unwrap_or(("", object.api_version()));
        let gvk = GroupVersionKind::gvk(group, version, object.kind());
        let found = discovery::pinned_kind(client, &gvk).await;
        let (resource, capabilities): (ApiResource, ApiCapabilities) =
            found.map_err(|error| unknown_kind(object, error))?;
        let namespace = (capabilities.scope == Scope::Namespaced)
            .then(|| object.namespace().unwrap_or("default").to_owned());
        Ok(Self { resource, namespace, name: object.name().to_owned() })
    }

    /// The object of a kind with that name.
    pub(crate) fn new(resource: ApiResource, namespace: Option<String>, name: String) -> Self {
        Self { resource, namespace, name }
    }

    /// Path of all objects of the kind in the namespace; without one, in all of them.
    pub(crate) fn collection(&self) -> String {
        self.resource_url()
    }

    /// Path of the object.
    pub(crate) fn item(&self) -> String {
        format!("{}/{}", self.resource_url(), self.name)
    }

    /// What the API says to have at this place.
    fn named(&self, object: &Value) -> Named {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        let Self { resource, namespace, name } = self;
        Named {
            kind: GroupKind { kind: resource.kind.clone(), group: resource.group.clone() },
            namespace: namespace.clone(),
            name: text("/metadata/name").unwrap_or(name).to_owned(),
            uid: text("/metadata/uid").unwrap_or_default().to_owned(),
        }
    }

    fn resource_url(&self) -> String {
        let root = match self.resource.group.as_str() {
            "" => format!("/api/{}", self.resource.version),
            group => format!("/apis/{group}/{}", self.resource.version),
        };
        match &self.namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.resource.plural),
            None => format!("{root}/{}", self.resource.plural),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let group = match self.resource.group.as_str() {
            "" => String::new(),
            group => format!(".{group}"),
        };
        write!(f, "{}{group}/{}", self.resource.kind.to_lowercase(), self.name)
    }
}

/// Applies one object.
pub(crate) async fn apply(
    client: &Client,
    target: &Target,
    object: &Object,
    marks: &Marks<'_>,
) -> anyhow::Result<Applied> {
    let wanted = with_memory(object, target, marks);
    let current = send(client, Method::GET, &target.item(), None).await;
    let answer = match current {
        Ok(current) => {
            let patch = merge_patch(last_applied(&current).as_ref(), &wanted);
            let url = format!("{}?{}", target.item(), parameters());
            let content = "application/merge-patch+json";
            send(client, Method::PATCH, &url, Some((content, &patch))).await.map(|changed| {
                let same = said(&changed) == said(&current);
                let outcome = if same { Outcome::Unchanged } else { Outcome::Configured };
                let part_of = |it: &Value| {
                    it.pointer("/metadata/labels").and_then(|it| it.get(PART_OF)).cloned()
                };
                let before = part_of(&current);
                let taken = before.is_some() && before != part_of(&changed);
                Applied { outcome, taken, object: target.named(&changed) }
            })
        }
        Err(error) if is_not_found(&error) => {
            let url = format!("{}?{}", target.collection(), parameters());
            let created = send(client, Method::POST, &url, Some(("application/json", &wanted)));
            created.await.map(|created| Applied {
                outcome: Outcome::Created,
                taken: false,
                object: target.named(&created),
            })
        }
        Err(error) => Err(error),
    };
    answer.map_err(|error| explain(object, target, error))
}

fn parameters() -> String {
    format!("fieldManager={FIELD_MANAGER}&fieldValidation=Strict")
}

/// Asks the API.
pub(crate) async fn send(
    client: &Client,
    method: Method,
    url: &str,
    body: Option<(&str, &Value)>,
) -> Result<Value, kube::Error> {
    let mut request = Request::builder().method(method).uri(url);
    let mut bytes = Vec::new();
    if let Some((content_type, value)) = body {
        request = request.header(http::header::CONTENT_TYPE, content_type);
        bytes = serde_json::to_vec(value).map_err(kube::Error::SerdeError)?;
    }
    let request = request.body(bytes).map_err(kube::Error::HttpError)?;
    client.request(request).await
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == StatusCode::NOT_FOUND.as_u16())
}

/// What users say of an object: all of it but its status and the version that changes with that.
fn said(object: &Value) -> Value {
    let mut said = object.clone();
    if let Some(fields) = said.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = metadata(&mut said) {
        metadata.remove("resourceVersion");
    }
    said
}

fn last_applied(current: &Value) -> Option<Value> {
    let text = current.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()?;
    serde_json::from_str(text).ok()
}

/// The manifest with the annotation that remembers it, as kubectl writes it. The set is not remembered, so
/// that `kubectl apply`, which knows nothing of it, leaves the object in it.
fn with_memory(object: &Object, target: &Target, marks: &Marks<'_>) -> Value {
    let mut wanted = object.value.clone();
    if let (Some(namespace), Some(metadata)) = (&target.namespace, metadata(&mut wanted)) {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    for (key, value) in &marks.annotations {
        insert(&mut wanted, "annotations", key, value);
    }
    if marks.part_of.is_some() {
        // Of a manifest that was once read from a cluster.
        if let Some(labels) = metadata(&mut wanted).and_then(|it| it.get_mut("labels")) {
            labels.as_object_mut().map(|it| it.remove(PART_OF));
        }
    }
    let memory = format!("{wanted}\n");
    insert(&mut wanted, "annotations", LAST_APPLIED, &memory);
    if let Some(id) = marks.part_of {
        insert(&mut wanted, "labels", PART_OF, id);
    }
    wanted
}

fn metadata(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata").and_then(Value::as_object_mut)
}

/// Sets a label or an annotation.
fn insert(object: &mut Value, of: &str, key: &str, value: &str) {
    let Some(metadata) = metadata(object) else { return };
    let entries = metadata.entry(of).or_insert_with(|| json!({}));
    if entries.is_null() {
        *entries = json!({});
    }
    if let Some(entries) = entries.as_object_mut() {
        entries.insert(key.to_owned(), json!(value));
    }
}

/// The JSON merge patch (RFC 7386) that sets all that `wanted` says and removes what `before` said
/// and `wanted` no longer does. Lists are set as a whole.
fn merge_patch(before: Option<&Value>, wanted: &Value) -> Value {
    let Some(wanted_fields) = wanted.as_object() else { return wanted.clone() };
    let before_fields = before.and_then(Value::as_object);
    let mut patch: Map<String, Value> = wanted_fields
        .iter()
        .map(|(key, value)| {
            let before = before_fields.and_then(|it| it.get(key));
            (key.clone(), merge_patch(before, value))
        })
        .collect();
    let gone = before_fields.into_iter().flat_map(Map::keys);
    for key in gone.filter(|it| !wanted_fields.contains_key(*it)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// What a merge patch makes of nothing.
fn without_nulls(patch: &Value) -> Value {
    let Some(fields) = patch.as_object() else { return patch.clone() };
    let there = fields.iter().filter(|(_, value)| !value.is_null());
    Value::Object(there.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
}

fn unknown_kind(object: &Object, error: kube::Error) -> anyhow::Error {
    let place = object.place("kind");
    let what = format!("{} {}", object.api_version(), object.kind());
    match error {
        kube::Error::Discovery(_) | kube::Error::Api(_) => anyhow::Error::new(error).context(
            format!("{place}: this cluster has no kind {what}: see `kubectl api-resources`"),
        ),
        error => anyhow::Error::new(error).context(format!("{place}: look up kind {what}")),
    }
}

/// Says what the API server refused, with the place in the manifest of each field it names.
fn explain(object: &Object, target: &Target, error: kube::Error) -> anyhow::Error {
    let kube::Error::Api(status) = &error else {
        return anyhow::Error::new(error)
            .context(format!("apply {target} of {}", object.place("kind")));
    };
    let mut text = format!(
        "{}: the API server refused {target} ({} {})",
        object.place("kind"),
        status.code,
        status.reason
    );
    let causes = status.details.iter().flat_map(|it| &it.causes);
    let of_fields = causes.filter(|it| !it.field.is_empty() && it.field != PATCH);
    let mut lines: Vec<String> = of_fields
        .map(|it| format!("{}: {}: {}", object.place(&it.field), it.field, it.message))
        .collect();
    if lines.is_empty() {
        // Of a patch, the whole of it comes before what is wrong with it.
        let said = status.message.find(STRICT).and_then(|it| status.message.get(it..));
        let said = said.unwrap_or(&status.message);
        lines.push(match quoted(said).first() {
            Some(field) => format!("{}: {said}", object.place(field)),
            None => said.to_owned(),
        });
    }
    for line in lines {
        text.push_str("\n  ");
        text.push_str(&line);
    }
    anyhow::anyhow!(text)
}

/// The field that the API server names when a patch as a whole is wrong.
const PATCH: &str = "patch";

/// How the API server begins when a field is unknown or given twice.
const STRICT: &str = "strict decoding error";

/// The field paths that a message names in double quotes: `unknown field "spec.replica"`.
fn quoted(message: &str) -> Vec<&str> {
    let after_field = message.match_indices("field \"");
    after_field
        .filter_map(|(at, matched)| message.get(at + matched.len()..)?.split('"').next())
        .collect()
}

/// Merges an object that this program itself keeps into what is there, or creates it. Keys that others
/// put there stay.
pub(crate) async fn merge(client: &Client, object: &Value) -> anyhow::Result<()> {
    let text = object.to_string();
    let object = crate::manifest::parse("coracle", &text)?.into_iter().next();
    let object = object.context("an object to merge")?;
    let target = Target::find(client, &object).await?;
    let url = format!("{}?{}", target.item(), parameters());
    let body = Some(("application/merge-patch+json", &object.value));
    let done = match send(client, Method::PATCH, &url, body).await {
        Err(error) if is_not_found(&error) => {
            let url = format!("{}?{}", target.collection(), parameters());
            // What a patch takes away is not there in the first place.
            let value = without_nulls(&object.value);
            send(client, Method::POST, &url, Some(("application/json", &value))).await
        }
        done => done,
    };
    done.map(drop).map_err(|error| explain(&object, &target, error))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(before: Value, wanted: Value, expected: Expect) {
        expected.assert_eq(&merge_patch(Some(&before), &wanted).to_string());
    }

    #[test]
    fn a_patch_of_nothing_has_no_nulls() {
        let patch = json!({ "data": { "a": null, "b": "1" }, "kind": "ConfigMap" });
        let object = json!({ "data": { "b": "1" }, "kind": "ConfigMap" });
        assert_eq!(without_nulls(&patch), object);
    }

    #[test]
    fn removes_what_was_said_before_and_is_not_now() {
        check(
            json!({"spec": {"replicas": 2, "paused": true}, "data": {"a": "1"}}),
            json!({"spec": {"replicas": 3}}),
            expect![[r#"{"data":null,"spec":{"paused":null,"replicas":3}}"#]],
        );
    }

    #[test]
    fn sets_lists_as_a_whole() {
        check(
            json!({"ports": [{"port": 1, "name": "a"}]}),
            json!({"ports": [{"port": 2}]}),
            expect![[r#"{"ports":[{"port":2}]}"#]],
        );
    }

    #[test]
    fn finds_the_field_in_a_message() {
        assert_eq!(
            quoted(r#"strict decoding error: unknown field "spec.replica""#),
            ["spec.replica"]
        );
    }
}
