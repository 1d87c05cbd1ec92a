//! Which objects a patch or a replacement means.

use api::selector::LabelSelector;
use regex_lite::Regex;

use crate::{
    kustomization::Selector,
    resource::{Id, Resource},
};

/// A selector whose patterns have been understood.
#[derive(Debug)]
pub(crate) struct Select {
    group: Option<Regex>,
    version: Option<Regex>,
    kind: Option<Regex>,
    name: Option<Regex>,
    namespace: Option<Regex>,
    labels: LabelSelector,
    annotations: LabelSelector,
}

impl Select {
    pub(crate) fn parse(selector: &Selector) -> Result<Self, String> {
        let labels = |field: &str, text: &str| {
            LabelSelector::parse(text).map_err(|error| format!("`{field}` `{text}`: {error}"))
        };
        Ok(Self {
            group: pattern("group", &selector.group)?,
            version: pattern("version", &selector.version)?,
            kind: pattern("kind", &selector.kind)?,
            name: pattern("name", &selector.name)?,
            namespace: pattern("namespace", &selector.namespace)?,
            labels: labels("labelSelector", &selector.label_selector)?,
            annotations: labels("annotationSelector", &selector.annotation_selector)?,
        })
    }

    /// Whether a patch with this target is for that object: by its first or its present name.
    pub(crate) fn selects(&self, resource: &Resource) -> bool {
        let (first, now) = (resource.original_id(), resource.id());
        (fits(self.namespace.as_ref(), &first.namespace)
            || fits(self.namespace.as_ref(), &now.namespace))
            && (fits(self.name.as_ref(), &first.name) || fits(self.name.as_ref(), &now.name))
            && self.kind_fits(&now)
            && self.labels_fit(resource)
    }

    /// Whether it means what has or had this name.
    pub(crate) fn selects_id(&self, id: &Id) -> bool {
        self.kind_fits(id)
            && fits(self.name.as_ref(), &id.name)
            && fits(self.namespace.as_ref(), &id.namespace)
    }

    fn kind_fits(&self, id: &Id) -> bool {
        fits(self.group.as_ref(), &id.group)
            && fits(self.version.as_ref(), &id.version)
            && fits(self.kind.as_ref(), &id.kind)
    }

    /// Whether labels and annotations are as asked for.
    pub(crate) fn labels_fit(&self, resource: &Resource) -> bool {
        let value =
            |field: &str, key: &str| resource.value.get("metadata")?.get(field)?.get(key)?.as_str();
        self.labels.matches_with(|key| value("labels", key))
            && self.annotations.matches_with(|key| value("annotations", key))
    }

    /// Whether it asks for labels or annotations.
    pub(crate) fn has_labels(&self) -> bool {
        !(self.labels.is_everything() && self.annotations.is_everything())
    }

    /// Whether it asks for a kind or a name.
    pub(crate) fn has_id(&self) -> bool {
        [&self.group, &self.version, &self.kind, &self.name, &self.namespace]
            .iter()
            .any(|it| it.is_some())
    }
}

fn fits(pattern: Option<&Regex>, text: &str) -> bool {
    pattern.is_none_or(|it| it.is_match(text))
}

fn pattern(field: &str, text: &str) -> Result<Option<Regex>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let pattern = Regex::new(&format!("^(?:{text})$"));
    pattern
        .map(Some)
        .map_err(|error| format!("`{field}` `{text}` is no regular expression: {error}"))
}
