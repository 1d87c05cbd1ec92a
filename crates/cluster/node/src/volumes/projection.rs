//! Which files a configMap or secret volume has: names, contents, modes.
//!
//! Pure; [`super::atomic`] writes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::KeyToPath;

/// Mode of a projected file unless the volume says otherwise (`defaultMode`).
const MODE_DEFAULT: u32 = 0o644;

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Contents.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// The files of a volume by relative path, which may have folders.
pub(super) type Files = BTreeMap<String, File>;

/// What the volume's source says of its files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection<'a> {
    /// Keys to take, each under a path of its own; `None`: every key under its name.
    pub items: Option<&'a [KeyToPath]>,
    /// Mode of files that name none.
    pub default_mode: Option<i32>,
    /// Whether missing keys are left out instead of refused.
    pub optional: bool,
}

/// Why the files cannot be made, in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProjectionError {
    /// An item names a key that is not there.
    #[error("references non-existent config key: {0}")]
    MissingKey(String),
    /// An item's path leaves the volume.
    #[error("invalid path: `{0}` must be relative and not contain `..`")]
    BadPath(String),
}

/// Makes the files of `data`.
pub(super) fn files(
    data: BTreeMap<String, Vec<u8>>,
    selection: Selection<'_>,
) -> Result<Files, ProjectionError> {
    let default = mode(selection.default_mode).unwrap_or(MODE_DEFAULT);
    let Some(items) = selection.items.filter(|it| !it.is_empty()) else {
        let file = |bytes| File { bytes, mode: default };
        return Ok(data.into_iter().map(|(key, bytes)| (key, file(bytes))).collect());
    };
    let mut result = Files::new();
    for item in items {
        if !is_inside(&item.path) {
            return Err(ProjectionError::BadPath(item.path.clone()));
        }
        match data.get(&item.key) {
            Some(bytes) => {
                let mode = mode(item.mode).unwrap_or(default);
                result.insert(item.path.clone(), File { bytes: bytes.clone(), mode });
            }
            None if selection.optional => {}
            None => return Err(ProjectionError::MissingKey(item.key.clone())),
        }
    }
    Ok(result)
}

fn mode(mode: Option<i32>) -> Option<u32> {
    mode.and_then(|it| u32::try_from(it).ok()).map(|it| it & 0o777)
}

/// A relative path of plain names, the first not beginning with `..` (those names are the
/// writer's own).
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with("..")
        && path.split('/').all(|it| !matches!(it, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn check(source: Value, expected: &Expect) {
        let data = [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())];
        let items: Option<Vec<KeyToPath>> =
            serde_json::from_value(source.get("items").cloned().unwrap_or(Value::Null)).unwrap();
        let selection = Selection {
            items: items.as_deref(),
            default_mode: source["defaultMode"].as_i64().map(|it| i32::try_from(it).unwrap()),
            optional: source["optional"].as_bool().unwrap_or_default(),
        };
        let text = match files(data.into(), selection) {
            Err(error) => format!("error: {error}\n"),
            Ok(files) => files
                .iter()
                .map(|(path, file)| {
                    format!("{path} {:o} {}\n", file.mode, String::from_utf8_lossy(&file.bytes))
                })
                .collect(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn all_keys_or_items() {
        check(
            json!({}),
            &expect![[r#"
                a 644 1
                b 644 2
            "#]],
        );
        check(
            json!({ "defaultMode": 0o400, "items": [
                { "key": "b", "path": "etc/app/b.conf" }, { "key": "a", "path": "a", "mode": 0o755 }] }),
            &expect![[r#"
                a 755 1
                etc/app/b.conf 400 2
            "#]],
        );
    }

    #[test]
    fn missing_keys_and_bad_paths() {
        check(
            json!({ "items": [{ "key": "none", "path": "x" }] }),
            &expect![[r#"
                error: references non-existent config key: none
            "#]],
        );
        check(json!({ "optional": true, "items": [{ "key": "none", "path": "x" }] }), &expect![""]);
        for path in ["/etc/passwd", "../x", "..data", "a/../b", "a//b", ""] {
            let selection = json!({ "items": [{ "key": "a", "path": path }] });
            let items: Vec<KeyToPath> = serde_json::from_value(selection["items"].clone()).unwrap();
            let selection = Selection { items: Some(&items), default_mode: None, optional: true };
            let refused = files(BTreeMap::new(), selection).unwrap_err();
            assert_eq!(refused, ProjectionError::BadPath(path.to_owned()));
        }
    }
}
