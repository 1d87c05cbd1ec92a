//! Patches: strategic merge and JSON 6902, for one object or for all that a target selects.

use serde_json::Value;

use crate::{
    kustomization::{PatchOptions, Selector},
    merge::{Merge, Schema},
    resource::Resource,
    select::Select,
};

/// What a patch says.
#[derive(Debug)]
pub(crate) enum Text {
    /// Objects with what is to be different.
    Strategic(Vec<Value>),
    /// Operations.
    Json(json_patch::Patch),
}

impl Text {
    /// Tells the two apart: operations are a list.
    pub(crate) fn parse(documents: Vec<Value>) -> Result<Self, String> {
        let mut documents = documents;
        match documents.as_slice() {
            [] => Err("the patch is empty".to_owned()),
            [Value::Array(_)] => {
                let operations = serde_json::from_value(documents.swap_remove(0));
                let operations = operations
                    .map_err(|error| format!("these are no operations of JSON 6902: {error}"))?;
                Ok(Self::Json(operations))
            }
            all if all.iter().all(Value::is_object) => Ok(Self::Strategic(documents)),
            _ => Err("a patch is an object, or a list of operations".to_owned()),
        }
    }
}

/// Carries out one entry of `patches` or of its two older forms.
pub(crate) fn apply(
    resources: &mut Vec<Resource>,
    text: Text,
    target: Option<&Selector>,
    options: &PatchOptions,
    schema: &dyn Schema,
) -> Result<(), String> {
    let target = target.map(Select::parse).transpose()?;
    match (text, target) {
        (Text::Json(_), None) => Err("operations need a `target`".to_owned()),
        (Text::Json(operations), Some(target)) => {
            for resource in resources.iter_mut().filter(|it| target.selects(it)) {
                operate(resource, &operations)?;
            }
            Ok(())
        }
        (Text::Strategic(patches), Some(target)) => {
            let [patch] = patches.as_slice() else {
                return Err("with a `target` there can be one object only".to_owned());
            };
            for resource in resources.iter_mut().filter(|it| target.selects(it)) {
                let mut patch = patch.clone();
                if let (Some(patch), Some(version)) =
                    (patch.as_object_mut(), resource.value.get("apiVersion"))
                {
                    patch.insert("apiVersion".to_owned(), version.clone());
                }
                merge(resource, patch, options, schema)?;
            }
            resources.retain(|it| !it.value.is_null());
            Ok(())
        }
        (Text::Strategic(patches), None) => {
            for patch in patches {
                let id = Resource::new(patch.clone(), "").id();
                let resource = only(resources, |it| it.ids().contains(&id), &id.describe())?;
                merge(resource, patch, options, schema)?;
                resources.retain(|it| !it.value.is_null());
            }
            Ok(())
        }
    }
}

fn only<'a>(
    resources: &'a mut [Resource],
    meant: impl Fn(&Resource) -> bool,
    what: &str,
) -> Result<&'a mut Resource, String> {
    let mut found = resources.iter_mut().filter(|it| meant(it));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(format!("there is no {what} to patch")),
        (Some(_), Some(_)) => Err(format!("several objects are {what}")),
    }
}

fn operate(resource: &mut Resource, operations: &json_patch::Patch) -> Result<(), String> {
    resource.remember();
    let what = resource.id().describe();
    json_patch::patch(&mut resource.value, operations).map_err(|error| format!("{what}: {error}"))
}

/// A deleted object becomes null.
fn merge(
    resource: &mut Resource,
    patch: Value,
    options: &PatchOptions,
    schema: &dyn Schema,
) -> Result<(), String> {
    let id = resource.id();
    let namespace = resource.namespace().to_owned();
    if options.allow_name_change || options.allow_kind_change {
        resource.remember();
    }
    let definition = schema.definition(&id.group, &id.version, &id.kind);
    let merged = Merge::new(schema)
        .object(std::mem::take(&mut resource.value), patch, definition)
        .map_err(|error| format!("{}: {error}", id.describe()))?;
    resource.value = merged.unwrap_or_default();
    if resource.value.is_null() {
        return Ok(());
    }
    if !options.allow_kind_change
        && let Some(object) = resource.value.as_object_mut()
    {
        object.insert("kind".to_owned(), Value::String(id.kind));
    }
    if !options.allow_name_change {
        resource.set_name(&id.name);
    }
    resource.set_namespace(&namespace);
    Ok(())
}
