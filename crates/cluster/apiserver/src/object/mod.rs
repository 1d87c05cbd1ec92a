//! Objects as JSON values: reaching into `metadata`, decoding bodies, encoding for the store.
//!
//! Every value that passed [`decode`] is a JSON object whose `metadata` is one too.

pub(crate) mod decode;
pub(crate) mod depth;
pub(crate) mod encode;
pub(crate) mod metadata;
pub(crate) mod parts;
pub(crate) mod stored;
pub(crate) mod yaml;

use api::status::{GroupResource, Status};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::kinds::{Causes, Kind};

/// A text at a path of keys; empty if it is not there or no text.
pub(crate) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The value at a path of keys.
pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

/// Sets the value at a path of keys; objects on the way are made.
pub(crate) fn set(object: &mut Value, path: &[&str], value: Value) {
    let Some((last, way)) = path.split_last() else { return };
    let mut place = object;
    for key in way {
        let Some(map) = place.as_object_mut() else { return };
        place = map.entry(*key).or_insert_with(|| Value::Object(Map::new()));
    }
    if let Some(map) = place.as_object_mut() {
        map.insert((*last).to_owned(), value);
    }
}

/// Removes and returns the value at a path of keys.
pub(crate) fn remove(object: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, way) = path.split_last()?;
    let place = way.iter().try_fold(object, |value, key| value.get_mut(*key))?;
    place.as_object_mut()?.remove(*last)
}

/// Makes `path` of `object` what it is in `from`, or removes it if it is not there.
pub(crate) fn copy(object: &mut Value, from: &Value, path: &[&str]) {
    match at(from, path) {
        Some(value) => set(object, path, value.clone()),
        None => drop(remove(object, path)),
    }
}

/// `metadata.<key>` as text; empty if absent.
pub(crate) fn meta<'a>(object: &'a Value, key: &str) -> &'a str {
    text(object, &["metadata", key])
}

/// Whether a deletion has begun.
pub(crate) fn is_terminating(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some_and(|it| !it.is_null())
}

/// `metadata.finalizers`.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    let list = at(object, &["metadata", "finalizers"]).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A time as objects show it: RFC 3339 in UTC with whole seconds.
pub(crate) fn time(at: Timestamp) -> Value {
    Value::String(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The value of stored bytes, all of it.
pub(crate) fn parse_whole(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes)
        .map_err(|error| Status::internal(&format!("decode a stored object: {error}")))
}

/// The value of stored bytes, without the list of who owns its fields: that is nearly half of many
/// objects, and few want it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Status> {
    Ok(stored::parse(bytes)?.object)
}

impl Kind {
    /// How messages name the resource.
    pub(crate) const fn resource(&self) -> GroupResource<'static> {
        GroupResource { group: self.group, resource: self.plural }
    }

    /// `apiVersion` of its objects.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// 422 if something was found.
    pub(crate) fn refuse(&self, name: &str, causes: &Causes) -> Result<(), Status> {
        if causes.is_empty() {
            return Ok(());
        }
        let causes = causes.as_slice().iter().map(|it| api::status::Cause {
            reason: it.reason.as_str(),
            message: it.message.clone(),
            field: it.field.clone(),
        });
        Err(Status::invalid(self.group, self.kind, name, causes.collect()))
    }
}
