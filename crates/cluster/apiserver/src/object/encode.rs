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
    /// Encodes `object` and the list of who owns its fields; a resource version or such a list in
    /// the object is ignored.
    pub(crate) fn new(object: &Value, owners: Option<&str>) -> Result<Self, Status> {
        let encode = |error: serde_json::Error| Status::internal(&format!("encode: {error}"));
        let empty = Map::new();
        let mut bytes = Vec::with_capacity(1024 + owners.map_or(0, str::len));
        let mut gap = 0;
        bytes.push(b'{');
        for (key, value) in object.as_object().unwrap_or(&empty) {
            write_key(&mut bytes, key).map_err(encode)?;
            if key == "metadata" {
                gap = write_metadata(&mut bytes, value, owners).map_err(encode)?;
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
    pub(crate) fn without_revision(object: &Value, owners: Option<&str>) -> Result<Bytes, Status> {
        let Self { bytes, gap } = Self::new(object, owners)?;
        // What stands before the gap ends with `"resourceVersion":"`, and maybe a comma.
        let start = gap - VERSION.len() - r#""":""#.len();
        let (before, after) = (bytes.get(..start), bytes.get(gap + 1..));
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let (before, after) = match before.strip_suffix(b",") {
            Some(before) => (before, after),
            None => (before, after.strip_prefix(b",").unwrap_or(after)),
        };
        Ok(Bytes::from([before, after].concat()))
    }
}

const OWNERS: &str = "managedFields";
const VERSION: &str = "resourceVersion";

/// Writes the comma before all but the first entry, the key and the colon.
fn write_key(bytes: &mut Vec<u8>, key: &str) -> serde_json::Result<()> {
    if bytes.last() != Some(&b'{') {
        bytes.push(b',');
    }
    serde_json::to_writer(&mut *bytes, key)?;
    bytes.push(b':');
    Ok(())
}

/// Writes `metadata` with the owners and an empty resource version among its sorted keys; returns
/// where the number goes.
fn write_metadata(
    bytes: &mut Vec<u8>,
    metadata: &Value,
    mut owners: Option<&str>,
) -> serde_json::Result<usize> {
    let empty = Map::new();
    let entries = metadata.as_object().unwrap_or(&empty);
    let mut gap = None;
    bytes.push(b'{');
    let is_extra = |key: &str| key == VERSION || key == OWNERS;
    let ends = entries.iter().filter(|(key, _)| !is_extra(key)).map(Some).chain([None]);
    for entry in ends {
        let is_due = |extra: &str| entry.is_none_or(|(key, _)| extra < key.as_str());
        if let Some(owners) = owners.take_if(|_| is_due(OWNERS)) {
            write_key(bytes, OWNERS)?;
            bytes.extend_from_slice(owners.as_bytes());
        }
        if gap.is_none() && is_due(VERSION) {
            gap = Some(write_gap(bytes, VERSION)?);
        }
        if let Some((key, value)) = entry {
            write_key(bytes, key)?;
            serde_json::to_writer(&mut *bytes, value)?;
        }
    }
    bytes.push(b'}');
    Ok(gap.unwrap_or_default())
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
            Template::new(&object, None).unwrap().at(Revision::new(42)),
            r#"{"involvedObject":{"resourceVersion":"1"},"metadata":{"name":"a","resourceVersion":"42","uid":"u"},"zeta":1}"#
        );
        let bare = Template::new(&json!({"metadata": {}}), None).unwrap().at(Revision::new(1));
        assert_eq!(bare, r#"{"metadata":{"resourceVersion":"1"}}"#);
        assert!(Template::new(&json!({"kind": "Pod"}), None).is_err());
    }

    #[test]
    fn owners_go_into_metadata() {
        let object = json!({"metadata": {"labels": {}, "name": "a"}, "data": {}});
        let owned = Template::new(&object, Some("[1]")).unwrap().at(Revision::new(7));
        assert_eq!(
            owned,
            r#"{"data":{},"metadata":{"labels":{},"managedFields":[1],"name":"a","resourceVersion":"7"}}"#
        );
        let bare = Template::without_revision(&json!({"metadata": {}}), Some("[]")).unwrap();
        assert_eq!(bare, r#"{"metadata":{"managedFields":[]}}"#);
    }

    proptest! {
        #[test]
        fn same_as_setting_the_field(
            labels in prop::collection::btree_map(".{0,5}", ".{0,5}", 0..4),
            revision in any::<u64>(),
        ) {
            let mut object = json!({"kind": "ConfigMap", "data": labels, "metadata": labels});
            crate::object::remove(&mut object, &["metadata", "resourceVersion"]);
            let bytes = Template::new(&object, None).unwrap().at(Revision::new(revision));
            let bare = Template::without_revision(&object, None).unwrap();
            prop_assert_eq!(bare, object.to_string());
            let version = json!(revision.to_string());
            crate::object::set(&mut object, &["metadata", "resourceVersion"], version);
            prop_assert_eq!(bytes, object.to_string());
        }
    }
}
