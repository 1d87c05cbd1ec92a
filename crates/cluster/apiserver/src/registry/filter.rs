//! Which objects a list or watch is about: label and field selectors over stored bytes.

use std::{borrow::Cow, collections::BTreeMap};

use api::{
    selector::{FieldSelector, LabelSelector},
    status::Status,
};
use serde::Deserialize;
use serde_json::Value;
use store::Entry;

use super::keys;
use crate::{http::query::Query, kinds::Kind};

/// The selectors of a request.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    kind: &'static Kind,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Whether a field is asked for that is not in the key.
    reads_fields: bool,
}

/// Labels, read without building the rest of the object.
#[derive(Deserialize)]
struct Labelled<'a> {
    #[serde(borrow)]
    metadata: Labels<'a>,
}

#[derive(Deserialize)]
struct Labels<'a> {
    #[serde(borrow, default)]
    labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

impl Filter {
    /// From `labelSelector` and `fieldSelector`; `name` restricts to one object, as
    /// `GET …/watch/…/NAME` does.
    pub(crate) fn of(kind: &'static Kind, query: &Query<'_>, name: &str) -> Result<Self, Status> {
        let bad = |error: api::selector::ParseError| Status::bad_request(error.to_string());
        let labels = query.get("labelSelector").unwrap_or_default();
        let labels = LabelSelector::parse(labels).map_err(bad)?;
        let fields = query.get("fieldSelector").unwrap_or_default();
        let mut fields = FieldSelector::parse(fields).map_err(bad)?;
        if !name.is_empty() {
            if fields.is_everything() {
                fields = FieldSelector::parse(&format!("metadata.name={name}")).map_err(bad)?;
            }
            if fields.exact("metadata.name") != Some(name) {
                let message = "fieldSelector metadata.name doesn't match requested name";
                return Err(Status::bad_request(message));
            }
        }
        let mut reads_fields = false;
        for it in fields.requirements() {
            if !is_in_key(kind, &it.path) {
                reads_fields = true;
                if (kind.fields)(&Value::Null, &it.path).is_none() {
                    let message = format!("field label not supported: {}", it.path);
                    return Err(Status::bad_request(message));
                }
            }
        }
        Ok(Self { kind, labels, fields, reads_fields })
    }

    /// Whether the name of what can be selected is given.
    pub(crate) fn is_one_name(&self) -> bool {
        self.fields.exact("metadata.name").is_some()
    }

    /// Whether everything is selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The prefix under which everything selected lies: that of the collection, or the key of the
    /// one object that can be selected (and keys that begin with it).
    pub(crate) fn prefix(&self, namespace: Option<&str>) -> Vec<u8> {
        let namespace = namespace.or_else(|| self.fields.exact("metadata.namespace"));
        let mut prefix = keys::collection(self.kind, namespace);
        if let (Some(name), true) =
            (self.fields.exact("metadata.name"), namespace.is_some() || !self.kind.namespaced)
        {
            prefix.extend_from_slice(name.as_bytes());
        }
        prefix
    }

    /// Whether the object in `entry` is selected. An object that cannot be read is not.
    pub(crate) fn selects(&self, entry: &Entry) -> bool {
        self.selects_labels(entry) && self.selects_fields(entry)
    }

    fn selects_labels(&self, entry: &Entry) -> bool {
        if self.labels.is_everything() {
            return true;
        }
        serde_json::from_slice::<Labelled<'_>>(&entry.value).is_ok_and(|it| {
            let labels = it.metadata.labels;
            self.labels.matches_with(|key| labels.get(key).map(Cow::as_ref))
        })
    }

    fn selects_fields(&self, entry: &Entry) -> bool {
        if self.fields.is_everything() {
            return true;
        }
        let object: Value = if self.reads_fields {
            match serde_json::from_slice(&entry.value) {
                Ok(object) => object,
                Err(_) => return false,
            }
        } else {
            Value::Null
        };
        let (namespace, name) = keys::namespace_and_name(&entry.key);
        self.fields.matches(|path| match path {
            "metadata.name" => name.to_owned(),
            "metadata.namespace" if self.kind.namespaced => namespace.to_owned(),
            _ => (self.kind.fields)(&object, path).unwrap_or_default(),
        })
    }
}

fn is_in_key(kind: &Kind, path: &str) -> bool {
    path == "metadata.name" || (kind.namespaced && path == "metadata.namespace")
}
