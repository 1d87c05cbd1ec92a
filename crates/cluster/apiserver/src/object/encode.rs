//! The bytes of an object, made before its resource version is known.
//!
//! The store hands out a revision under its lock; there, only a number is put into a gap.

use api::status::Status;
use bytes::Bytes;
use serde_json::{Map, Value};
use store::Revision;

/// An encoded object with a gap for `metadata.resourceVersion`.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    gap: usize,
}

impl Template {
    /// Encodes `object`; a resource version in it is ignored.
    pub(crate) fn new(object: &Value) -> Result<Self, Status> {
        let encode = |error: serde_json::Error| Status::internal(&format!("encode: {error}"));
        let empty = Map::new();
        let mut bytes = Vec::with_capacity(1024);
        let mut gap = 0;
        bytes.push(b'{');
        for (key, value) in object.as_object().unwrap_or(&empty) {
            write_key(&mut bytes, key).map_err(encode)?;
            if key == "metadata" {
                gap = write_metadata(&mut bytes, value).map_err(encode)?;
            } else {
                serde_json::to_writer(&mut bytes, value).map_err(encode)?;
            }
        }
        bytes.push(b'}');
        if gap == 0 {
            return Err(Status::internal("encode: an object without metadata"));
        }
        Ok(Self { bytes, gap })
    }

    /// The object at a revision.
    pub(crate) fn at(&self, revision: Revision) -> Bytes {
        let number = revision.to_string();
        let (before, after) = self.bytes.split_at(self.gap);
        Bytes::from([before, number.as_bytes(), after].concat())
    }

    /// The object without a resource version, as a dry run of a create answers.
    pub(crate) fn without_revision(object: &Value) -> Bytes {
        Bytes::from(object.to_string())
    }
}

/// Writes the comma before all but the first entry, the key and the colon.
fn write_key(bytes: &mut Vec<u8>, key: &str) -> serde_json::Result<()> {
    if bytes.last() != Some(&b'{') {
        bytes.push(b',');
    }
    serde_json::to_writer(&mut *bytes, key)?;
    bytes.push(b':');
    Ok(())
}

/// Writes `metadata` with an empty resource version among its sorted keys; returns where the
/// number goes.
fn write_metadata(bytes: &mut Vec<u8>, metadata: &Value) -> serde_json::Result<usize> {
    const KEY: &str = "resourceVersion";
    let empty = Map::new();
    let entries = metadata.as_object().unwrap_or(&empty);
    let mut gap = None;
    bytes.push(b'{');
    for (key, value) in entries.iter().filter(|(key, _)| *key != KEY) {
        if key.as_str() > KEY && gap.is_none() {
            gap = Some(write_gap(bytes, KEY)?);
        }
        write_key(bytes, key)?;
        serde_json::to_writer(&mut *bytes, value)?;
    }
    let gap = match gap {
        Some(gap) => gap,
        None => write_gap(bytes, KEY)?,
    };
    bytes.push(b'}');
    Ok(gap)
}

fn write_gap(bytes: &mut Vec<u8>, key: &str) -> serde_json::Result<usize> {
    write_key(bytes, key)?;
    bytes.extend_from_slice(b"\"\"");
    Ok(bytes.len() - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn number_goes_into_metadata() {
        let object = json!({
            "involvedObject": {"resourceVersion": "1"},
            "metadata": {"name": "a", "resourceVersion": "9", "uid": "u"},
            "zeta": 1,
        });
        assert_eq!(
            Template::new(&object).unwrap().at(Revision::new(42)),
            r#"{"involvedObject":{"resourceVersion":"1"},"metadata":{"name":"a","resourceVersion":"42","uid":"u"},"zeta":1}"#
        );
        let bare = Template::new(&json!({"metadata": {}})).unwrap().at(Revision::new(1));
        assert_eq!(bare, r#"{"metadata":{"resourceVersion":"1"}}"#);
        assert!(Template::new(&json!({"kind": "Pod"})).is_err());
    }

    proptest! {
        #[test]
        fn same_as_setting_the_field(
            labels in prop::collection::btree_map(".{0,5}", ".{0,5}", 0..4),
            revision in any::<u64>(),
        ) {
            let mut object = json!({"kind": "ConfigMap", "data": labels, "metadata": labels});
            crate::object::remove(&mut object, &["metadata", "resourceVersion"]);
            let bytes = Template::new(&object).unwrap().at(Revision::new(revision));
            let version = json!(revision.to_string());
            crate::object::set(&mut object, &["metadata", "resourceVersion"], version);
            prop_assert_eq!(bytes, object.to_string());
        }
    }
}
