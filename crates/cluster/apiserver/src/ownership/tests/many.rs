//! Lists of owners as long as a body can be: what they cost grows with their length, not with its
//! square. Nobody but a client that means harm writes one.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::writer;
use crate::{
    limits::BODY_BYTES_MAX,
    ownership::{Live, owners, same_but_times},
};

/// More than any of these takes by far, also where others build beside it; in the square of their
/// number, each would take minutes.
const TIME_MAX: Duration = Duration::from_secs(30);

/// As many owners as a body has room for, each of one label.
fn owners(operation: &str, version: impl Fn(usize) -> String) -> String {
    let owner = |number: usize| {
        json!({
            "apiVersion": version(number),
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {(format!("f:{number}")): {}}}},
            "manager": number.to_string(),
            "operation": operation,
        })
    };
    let count = BODY_BYTES_MAX / (owner(10_000).to_string().len() + 1);
    (0..count).map(owner).collect::<Value>().to_string()
}

fn labelled(labels: usize, value: &str) -> Value {
    let labels: serde_json::Map<_, _> =
        (0..labels).map(|it| (it.to_string(), Value::from(value))).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": labels}})
}

#[track_caller]
fn quickly<T>(work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let made = work();
    let time = start.elapsed();
    assert!(time < TIME_MAX, "took {time:?}");
    made
}

#[test]
fn many_are_read_and_compared() {
    let text = owners("Apply", |_| "v1".to_owned());
    let read = quickly(|| owners::parse(&text).unwrap());
    assert!(read.len() > 20_000, "{}", read.len());
    let written = owners::write(read).unwrap();
    assert!(quickly(|| same_but_times(&text, &written)));
}

#[test]
fn the_last_entry_of_an_owner_counts() {
    let entry = |field: &str, version: &str, operation: &str| {
        json!({"apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": {(field): {}},
            "manager": "m", "operation": operation})
    };
    let list = json!([
        entry("f:a", "v1", "Apply"),
        entry("f:b", "v1", "Update"),
        entry("f:c", "v2", "Apply"),
        entry("f:d", "v2", "Update"),
        entry("f:e", "v1", "Update"),
    ]);
    let text = list.to_string();
    let paths = owners::parse(&text).unwrap().into_iter().map(|it| it.fields.paths().concat());
    assert_eq!(paths.collect::<Vec<_>>(), [".c", ".d", ".e"]);
}

#[test]
fn many_updaters_are_merged() {
    for one_version in [true, false] {
        let version = |number| if one_version { "v1".to_owned() } else { format!("v{number}") };
        let text = owners("Update", version);
        let (old, new) = (labelled(2, "1"), labelled(2, "2"));
        let live = Live { object: &old, owners: Some(&text) };
        let written = quickly(|| writer("ConfigMap", None, "me").update(live, &new, None).unwrap());
        let left = owners::parse(&written).unwrap().len();
        // There is one version only: those of the others go.
        assert_eq!(left, if one_version { 10 } else { 1 });
    }
}

#[test]
fn many_let_go_of_many_fields() {
    let text = owners("Apply", |_| "v1".to_owned());
    let (old, new) = (labelled(20_000, "1"), labelled(20_000, "2"));
    let live = Live { object: &old, owners: Some(&text) };
    let me = writer("ConfigMap", None, "me");
    let written = quickly(|| me.update(live, &new, None).unwrap());
    assert!(owners::parse(&written).unwrap().len() < 10_000);
    let applied = quickly(|| me.apply(Some(live), &new, true).unwrap());
    assert_eq!(applied.object["metadata"]["labels"]["7"], "2");
    assert!(me.apply(Some(live), &new, false).is_err());
}
