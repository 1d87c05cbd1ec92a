//! `events.k8s.io/v1`: other names for the fields of an event, and stricter rules.

use serde_json::Value;

use crate::kinds::{
    Causes, rules,
    value::{Read, remove, set},
};

/// Names of fields there, and in what is stored.
const NAMES: [(&str, &str); 7] = [
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedSource", "source"),
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
];
/// Fields that do not change once the event is there.
const UNCHANGED: [&str; 13] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];

pub(super) fn to_stored(event: &mut Value) {
    NAMES.iter().for_each(|(theirs, stored)| rename(event, theirs, stored));
}

pub(super) fn from_stored(event: &mut Value) {
    NAMES.iter().for_each(|(theirs, stored)| rename(event, stored, theirs));
}

fn rename(event: &mut Value, from: &str, to: &str) {
    if event.get(from).is_some() {
        let value = event.field(from).clone();
        remove(event, from);
        set(event, to, value);
    }
}

/// What only a new event must be.
pub(super) fn validate_create(event: &Value, causes: &mut Causes) {
    rules::subdomain_name(event.field("metadata").text("name"), causes);
    series(event, causes);
    if !event.has("eventTime") {
        causes.required("eventTime", "");
    }
    let kind = event.text("type");
    if !matches!(kind, "Normal" | "Warning") {
        causes.invalid("type", &"".into(), &format!("has invalid value: {kind}"));
    }
    for name in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let nothing = match event.field(name) {
            Value::Null => true,
            Value::Number(count) => count.as_i64() == Some(0),
            Value::Object(source) => source.is_empty(),
            _ => false,
        };
        if !nothing {
            causes.invalid(name, &"".into(), "needs to be unset");
        }
    }
}

pub(super) fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    if new.field("series") != old.field("series") {
        series(new, causes);
    }
    for name in UNCHANGED {
        let shown = if name == "reportingComponent" { "reportingController" } else { name };
        rules::unchanged(new, old, name, shown, causes);
    }
}

fn series(event: &Value, causes: &mut Causes) {
    let series = event.field("series");
    if series.is_null() {
        return;
    }
    if series.int("count").unwrap_or_default() < 2 {
        causes.invalid("series.count", &"".into(), "should be at least 2");
    }
    if !series.has("lastObservedTime") {
        causes.required("series.lastObservedTime", "");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{super::EVENT_OF_EVENTS, *};
    use crate::kinds::testing::{check_update, created, findings, sample};

    #[test]
    fn names_come_and_go() {
        let event = json!({"note": "n", "regarding": {"kind": "Pod"}, "reportingController": "c",
            "deprecatedCount": 3, "metadata": {"name": "a"}});
        let mut stored = event.clone();
        to_stored(&mut stored);
        assert_eq!(
            stored,
            json!({"message": "n", "involvedObject": {"kind": "Pod"}, "reportingComponent": "c",
                "count": 3, "metadata": {"name": "a"}})
        );
        from_stored(&mut stored);
        assert_eq!(stored, event);
    }

    #[test]
    fn new_events_are_whole() {
        let event = json!({"metadata": {"name": "a", "namespace": "default"}, "deprecatedCount": 1,
            "series": {"count": 1}, "eventTime": "2024-01-01T00:00:00Z"});
        let event = created(&EVENT_OF_EVENTS, event);
        let mut causes = Causes::default();
        validate_create(&event, &mut causes);
        let text: Vec<String> =
            causes.as_slice().iter().map(|it| format!("{}: {}", it.field, it.message)).collect();
        expect![[r#"
            series.count: Invalid value: "": should be at least 2
            series.lastObservedTime: Required value
            type: Invalid value: "": has invalid value: 
            count: Invalid value: "": needs to be unset"#]]
        .assert_eq(&text.join("\n"));
        expect![[r#"
            reportingController: Required value
            reportingController: Invalid value: "": name part must be non-empty
            reportingController: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            reportingInstance: Required value
            action: Required value
            reason: Required value"#]].assert_eq(&findings(&EVENT_OF_EVENTS, &event));
    }

    #[test]
    fn little_may_change() {
        let good = created(&EVENT_OF_EVENTS, sample(&EVENT_OF_EVENTS));
        let mut causes = Causes::default();
        validate_create(&good, &mut causes);
        assert!(causes.is_empty(), "{causes:?}");
        check_update(
            &EVENT_OF_EVENTS,
            json!({"message": "b"}),
            expect![[r#"message: Invalid value: "b": field is immutable"#]],
        );
    }
}
