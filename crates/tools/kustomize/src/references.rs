//! Names in other objects, once those that bear them are called otherwise.

use serde_json::{Value, json};

use crate::{
    path::{self, Create},
    resource::{Id, Resource},
    specs::{self, References},
};

/// What a reference may mean: an object as it is called and was called.
struct Candidate {
    id: Id,
    /// As it is written, which may be empty.
    namespace: String,
    previous: Vec<Id>,
    prefixes: Vec<String>,
    suffixes: Vec<String>,
}

/// Puts new names where the old ones are.
pub(crate) fn fix(resources: &mut [Resource]) -> Result<(), String> {
    let candidates: Vec<Candidate> = resources
        .iter()
        .map(|it| Candidate {
            id: it.id(),
            namespace: it.namespace().to_owned(),
            previous: it.previous_ids(),
            prefixes: it.prefixes.clone(),
            suffixes: it.suffixes.clone(),
        })
        .collect();
    let references = specs::references();
    for resource in resources {
        let referrer = Referrer::new(resource, &candidates);
        let original = resource.original_id();
        for kind in &references {
            for place in &kind.places {
                if !place.selects(&original.group, &original.version, &original.kind) {
                    continue;
                }
                let role = place.path.ends_with("roleRef/name");
                let set = &mut |value: &mut Value| referrer.set(value, kind, role);
                path::visit(&mut resource.value, &path::split(&place.path), Create::No, set)
                    .map_err(|error| {
                        format!("{} of {}: {error}", place.path, referrer.id.describe())
                    })?;
            }
        }
    }
    Ok(())
}

/// Who refers.
struct Referrer<'a> {
    id: Id,
    prefixes: Vec<String>,
    suffixes: Vec<String>,
    /// Group and kind of `roleRef`.
    role: Option<(String, String)>,
    candidates: Vec<&'a Candidate>,
}

impl<'a> Referrer<'a> {
    fn new(resource: &Resource, candidates: &'a [Candidate]) -> Self {
        let id = resource.id();
        let empty = Vec::new();
        let subjects = match resource.value.get("subjects") {
            Some(Value::Array(subjects)) if id.kind == "RoleBinding" => subjects,
            _ => &empty,
        };
        let of_accounts: Vec<&str> = subjects
            .iter()
            .filter(|it| it.get("kind") == Some(&json!("ServiceAccount")))
            .filter_map(|it| it.get("namespace")?.as_str())
            .collect();
        let candidates = candidates
            .iter()
            .filter(|it| {
                id.cluster_scoped()
                    || it.id.cluster_scoped()
                    || it.id.namespace == id.namespace
                    || of_accounts.contains(&it.namespace.as_str())
            })
            .collect();
        let role = resource.value.get("roleRef").and_then(|it| {
            let text = |field: &str| it.get(field)?.as_str().map(str::to_owned);
            Some((text("apiGroup")?, text("kind")?))
        });
        let (prefixes, suffixes) = (resource.prefixes.clone(), resource.suffixes.clone());
        Self { id, prefixes, suffixes, role, candidates }
    }

    fn set(&self, value: &mut Value, kind: &References, role: bool) -> Result<(), String> {
        match value {
            Value::String(name) => {
                let all = self.candidates.clone();
                let same = |a: &Candidate, b: &Candidate| a.id.name == b.id.name;
                if let Some(meant) = self.select(name, all, kind, role, same)? {
                    name.clone_from(&meant.id.name);
                }
                Ok(())
            }
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.set(item, kind, role)),
            Value::Object(fields) => {
                let Some(Value::String(name)) = fields.get("name") else {
                    return Err("this has no `name`".to_owned());
                };
                let all = self.in_namespace(fields.get("namespace").and_then(Value::as_str));
                let same = |a: &Candidate, b: &Candidate| {
                    a.id.name == b.id.name && a.namespace == b.namespace
                };
                if let Some(meant) = self.select(name, all, kind, role, same)? {
                    fields.insert("name".to_owned(), json!(meant.id.name));
                    if !meant.namespace.is_empty() {
                        fields.insert("namespace".to_owned(), json!(meant.namespace));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Those that were in a namespace at first; those that are in it now if there are none.
    fn in_namespace(&self, namespace: Option<&str>) -> Vec<&'a Candidate> {
        let Some(namespace) = namespace else { return self.candidates.clone() };
        let those = |first: bool| {
            let fits = |it: &&&Candidate| {
                let id = it.previous.first().filter(|_| first).unwrap_or(&it.id);
                !id.cluster_scoped() && id.namespace == namespace
            };
            self.candidates.iter().filter(fits).copied().collect::<Vec<_>>()
        };
        let first = those(true);
        if first.is_empty() { those(false) } else { first }
    }

    fn select(
        &self,
        name: &str,
        candidates: Vec<&'a Candidate>,
        kind: &References,
        role: bool,
        same: impl Fn(&Candidate, &Candidate) -> bool,
    ) -> Result<Option<&'a Candidate>, String> {
        let mut found = candidates;
        found.retain(|it| {
            it.previous.iter().any(|id| id.name == name)
                && it.previous.iter().any(|id| is_of(id, kind.group, kind.version, kind.kind))
                && self.role_fits(it, role)
                && (self.id.cluster_scoped()
                    || it.id.cluster_scoped()
                    || it.id.kind == "ServiceAccount"
                    || it.id.namespace == self.id.namespace)
        });
        if found.len() > 1 {
            found.retain(|it| self.affixes_fit(it, true));
        }
        if found.len() > 1 {
            found.retain(|it| self.affixes_fit(it, false));
        }
        let Some((first, others)) = found.split_first() else { return Ok(None) };
        if others.iter().all(|it| same(first, it)) {
            return Ok(Some(first));
        }
        Err(format!("several objects could be meant by {} `{name}`", kind.kind))
    }

    fn role_fits(&self, candidate: &Candidate, role: bool) -> bool {
        match &self.role {
            Some((group, kind)) if role => {
                candidate.previous.iter().any(|id| is_of(id, group, "", kind))
            }
            _ => true,
        }
    }

    fn affixes_fit(&self, candidate: &Candidate, allow_empty: bool) -> bool {
        let fit = |a: &[String], b: &[String]| {
            (allow_empty && (a.is_empty() || b.is_empty())) || same_end(a, b)
        };
        fit(&self.prefixes, &candidate.prefixes) && fit(&self.suffixes, &candidate.suffixes)
    }
}

fn is_of(id: &Id, group: &str, version: &str, kind: &str) -> bool {
    (group.is_empty() || id.group == group)
        && (version.is_empty() || id.version == version)
        && id.kind == kind
}

/// Whether the shorter list is the end of the longer one.
fn same_end(a: &[String], b: &[String]) -> bool {
    let (long, short) = if a.len() < b.len() { (b, a) } else { (a, b) };
    if short.is_empty() { long.is_empty() } else { long.ends_with(short) }
}
