//! What a kustomization changes in all its objects: namespace, names, labels, annotations, replicas
//! and images.

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde_json::{Value, json};

use crate::{
    kustomization::{Image, Label, Replica},
    path::{self, Create},
    resource::Resource,
    specs::{self, Spec},
};

/// Puts all objects into a namespace.
pub(crate) fn namespace(resources: &mut [Resource], namespace: &str) -> Result<(), String> {
    let specs = specs::namespaces();
    for resource in resources.iter_mut() {
        resource.remember();
        if !resource.id().cluster_scoped() {
            resource.set_namespace(namespace);
        }
        if resource.kind() == "Namespace" && resource.group_version() == ("", "v1") {
            resource.set_name(namespace);
        }
        if ["RoleBinding", "ClusterRoleBinding"].contains(&resource.kind())
            && let Some(Value::Array(subjects)) = resource.value.get_mut("subjects")
        {
            for subject in
                subjects.iter_mut().filter(|it| it.get("name") == Some(&json!("default")))
            {
                if let Some(subject) = subject.as_object_mut() {
                    subject.insert("namespace".to_owned(), json!(namespace));
                }
            }
        }
        at(resource, &specs, Create::Scalar, &mut |value| {
            *value = json!(namespace);
            Ok(())
        })?;
    }
    unique(resources)
}

/// Refuses two objects of one name.
pub(crate) fn unique(resources: &[Resource]) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for resource in resources {
        let id = resource.id();
        let what = id.describe();
        if !seen.insert((id.group, id.version, id.kind, id.namespace, id.name)) {
            return Err(format!("{what} of {} is there twice", resource.file));
        }
    }
    Ok(())
}

/// Puts a text before or behind all names.
pub(crate) fn names(resources: &mut [Resource], prefix: &str, suffix: &str) {
    for resource in resources {
        let id = resource.original_id();
        let fixed = matches!(id.kind.as_str(), "CustomResourceDefinition" | "Namespace")
            || (id.kind == "APIService" && id.group == "apiregistration.k8s.io");
        if fixed {
            continue;
        }
        for (before, behind) in [(prefix, ""), ("", suffix)] {
            if before.is_empty() && behind.is_empty() {
                continue;
            }
            if !before.is_empty() {
                resource.prefixes.push(before.to_owned());
            }
            if !behind.is_empty() {
                resource.suffixes.push(behind.to_owned());
            }
            resource.remember();
            let name = format!("{before}{}{behind}", resource.name());
            resource.set_name(&name);
        }
    }
}

/// Calls `set` at all places of an object.
fn at(
    resource: &mut Resource,
    specs: &[Spec],
    create: Create,
    set: &mut path::Set<'_>,
) -> Result<(), String> {
    for spec in specs {
        let (group, version) = resource.group_version();
        if !spec.selects(group, version, resource.kind()) {
            continue;
        }
        let create = if spec.create { create } else { Create::No };
        let what = resource.id().describe();
        path::visit(&mut resource.value, &path::split(&spec.path), create, set)
            .map_err(|error| format!("{} of {what}: {error}", spec.path))?;
    }
    Ok(())
}

fn add(
    resources: &mut [Resource],
    specs: &[Spec],
    pairs: &BTreeMap<String, String>,
) -> Result<(), String> {
    if pairs.is_empty() {
        return Ok(());
    }
    resources.iter_mut().try_for_each(|resource| {
        at(resource, specs, Create::Map, &mut |value| {
            let Some(fields) = value.as_object_mut() else {
                return if value.is_null() { Ok(()) } else { Err("this is no map".to_owned()) };
            };
            for (key, value) in pairs {
                fields.insert(key.clone(), json!(value));
            }
            Ok(())
        })
    })
}

/// One entry of `labels`.
pub(crate) fn label(resources: &mut [Resource], label: &Label) -> Result<(), String> {
    let mut specs: Vec<Spec> = Vec::new();
    for field in &label.fields {
        specs.push(Spec {
            group: field.group.clone(),
            version: field.version.clone(),
            kind: field.kind.clone(),
            path: field.path.clone(),
            create: field.create,
        });
    }
    specs.extend(if label.include_selectors {
        specs::selector_labels()
    } else if label.include_templates {
        specs::template_labels()
    } else {
        specs::labels()
    });
    add(resources, &specs, &label.pairs)
}

/// `commonLabels`.
pub(crate) fn common_labels(
    resources: &mut [Resource],
    pairs: &BTreeMap<String, String>,
) -> Result<(), String> {
    add(resources, &specs::selector_labels(), pairs)
}

/// `commonAnnotations`.
pub(crate) fn common_annotations(
    resources: &mut [Resource],
    pairs: &BTreeMap<String, String>,
) -> Result<(), String> {
    add(resources, &specs::annotations(), pairs)
}

/// One entry of `replicas`.
pub(crate) fn replicas(resources: &mut [Resource], replica: &Replica) -> Result<(), String> {
    let mut found = false;
    for spec in specs::replicas() {
        for resource in resources.iter_mut() {
            let meant = |it: &crate::resource::Id| {
                it.name == replica.name && spec.selects(&it.group, &it.version, &it.kind)
            };
            if !resource.ids().iter().any(meant) {
                continue;
            }
            found = true;
            at(resource, std::slice::from_ref(&spec), Create::Scalar, &mut |value| {
                *value = json!(replica.count);
                Ok(())
            })?;
        }
    }
    if found {
        return Ok(());
    }
    let kinds = "Deployment, ReplicationController, ReplicaSet or StatefulSet";
    Err(format!("no {kinds} is called `{}`", replica.name))
}

/// One entry of `images`.
pub(crate) fn image(resources: &mut [Resource], image: &Image) -> Result<(), String> {
    let pattern = format!(
        "^{}(:[a-zA-Z0-9_.{{}}-]*)?(@[a-zA-Z0-9]+([.+_-][a-zA-Z0-9]+)*:[a-zA-Z0-9_.{{}}-]*)?$",
        image.name
    );
    let pattern = Regex::new(&pattern)
        .map_err(|error| format!("name `{}` is no regular expression: {error}", image.name))?;
    let change = |value: &mut Value| {
        if let Value::String(text) = value
            && pattern.is_match(text)
        {
            *text = renamed(text, image);
        }
    };
    for resource in resources.iter_mut().filter(|it| it.kind() != "CustomResourceDefinition") {
        in_containers(&mut resource.value, &change);
        for path in
            ["spec/volumes[]/image/reference", "spec/template/spec/volumes[]/image/reference"]
        {
            path::visit(&mut resource.value, &path::split(path), Create::No, &mut |value| {
                change(value);
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// All images of containers, wherever in an object they are.
fn in_containers(value: &mut Value, change: &dyn Fn(&mut Value)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|it| in_containers(it, change)),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                in_containers(field, change);
                let Value::Array(items) = field else { continue };
                if name == "containers" || name == "initContainers" {
                    items.iter_mut().filter_map(|it| it.get_mut("image")).for_each(change);
                }
            }
        }
        _ => {}
    }
}

fn renamed(text: &str, image: &Image) -> String {
    // A port of the registry is no tag.
    let slash = text.find('/').unwrap_or(0);
    let rest = text.get(slash..).unwrap_or_default();
    let (rest, digest) = rest.split_once('@').unwrap_or((rest, ""));
    let (rest, tag) = rest.split_once(':').unwrap_or((rest, ""));
    let name = format!("{}{rest}", text.get(..slash).unwrap_or_default());
    let name = if image.new_name.is_empty() { name } else { image.new_name.clone() };
    let (tag, digest) = match (image.new_tag.as_str(), image.digest.as_str()) {
        ("", "") => (tag, digest),
        new => new,
    };
    let tag = if tag.is_empty() { String::new() } else { format!(":{tag}") };
    let digest = if digest.is_empty() { String::new() } else { format!("@{digest}") };
    format!("{name}{tag}{digest}")
}
