//! Events: what happened to an object, for people. `events.k8s.io` shows the same objects; how
//! they look there is in [`newer`].

mod newer;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Conversion, Kind,
    path::Path,
    print::{self, column, wide},
    rules,
    value::Read,
};

pub(super) static EVENT: Kind = CORE;

/// Events as newer recorders write them: the same object with other names for its fields.
pub(super) static EVENT_OF_EVENTS: Kind = Kind {
    group: "events.k8s.io",
    schema: "io.k8s.api.events.v1.Event",
    validate: |event, causes| validate(event, "reportingController", causes),
    validate_create: newer::validate_create,
    validate_update: newer::validate_update,
    fields: |event, path| {
        let path = match path {
            "reportingController" => "reportingComponent".to_owned(),
            "reason" | "type" => path.to_owned(),
            _ => format!("involvedObject.{}", path.strip_prefix("regarding.")?),
        };
        fields(event, &path)
    },
    conversion: Some(&Conversion {
        stored: &EVENT,
        to_stored: newer::to_stored,
        from_stored: newer::from_stored,
    }),
    ..CORE
};

const CORE: Kind = Kind {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    schema: "io.k8s.api.core.v1.Event",
    validate: |event, causes| validate(event, "reportingComponent", causes),
    // Recorders name events after objects of every kind, so anything that fits into a path is good.
    validate_name: |_, _| {},
    columns: COLUMNS,
    row,
    fields,
    ..Kind::PLAIN
};

/// Longest name of who reports, longest action, reason and message, in bytes.
const LENGTHS_MAX: [(&str, usize); 4] =
    [("reportingInstance", 128), ("action", 128), ("reason", 128), ("message", 1024)];

const COLUMNS: &[Column] = &[
    column("Last Seen", "Time since it happened last."),
    column("Type", "Whether this is a warning."),
    column("Reason", "One word for why."),
    column("Object", "What it happened to."),
    wide("Subobject", "The part of the object."),
    wide("Source", "Who reports it."),
    column("Message", "What happened."),
    wide("First Seen", "Time since it happened first."),
    wide("Count", "How often it happened."),
    Column { priority: 1, ..print::NAME },
];

/// Checks an event; `reporter` is how messages call the field that names who reports it.
fn validate(event: &Value, reporter: &str, causes: &mut Causes) {
    let namespace = event.field("metadata").text("namespace");
    let involved = event.field("involvedObject").text("namespace");
    let new = event.has("eventTime");
    let good = match involved {
        // Events about objects without a namespace live in these.
        "" => matches!(namespace, "" | "default") || new && namespace == "kube-system",
        involved => involved == namespace || new,
    };
    if !good {
        let path = Path::new("involvedObject");
        causes.invalid(path.child("namespace"), &involved.into(), "does not match event.namespace");
    }
    if !new {
        return;
    }
    let name = event.text("reportingComponent");
    if name.is_empty() {
        causes.required(reporter, "");
    }
    rules::all(api::names::qualified_name(name), Path::new(reporter), name, causes);
    for (name, max) in LENGTHS_MAX {
        let text = event.text(name);
        if text.is_empty() && name != "message" {
            causes.required(name, "");
        }
        if max < text.len() {
            causes.invalid(name, &"".into(), &format!("can have at most {max} characters"));
        }
    }
}

fn row(event: &Value, now: Timestamp) -> Vec<Value> {
    let since = |time: &str| print::since(time, now);
    let first = match event.text("firstTimestamp") {
        "" => since(event.text("eventTime")),
        time => since(time),
    };
    let series = event.field("series");
    let last = match (series.text("lastObservedTime"), event.text("lastTimestamp")) {
        ("", "") => first.clone(),
        ("", time) | (time, _) => since(time),
    };
    let count = series.int("count").or_else(|| event.int("count")).unwrap_or_default().max(1);
    let object = event.field("involvedObject");
    let target = format!("{}/{}", object.text("kind").to_lowercase(), object.text("name"));
    vec![
        last.into(),
        event.text("type").into(),
        event.text("reason").into(),
        target.into(),
        object.text("fieldPath").into(),
        source(event).into(),
        event.text("message").trim().into(),
        first.into(),
        count.into(),
        print::name(event),
    ]
}

fn source(event: &Value) -> String {
    let source = event.field("source");
    let (component, host) = match source.text("component") {
        "" => (event.text("reportingComponent"), event.text("reportingInstance")),
        component => (component, source.text("host")),
    };
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

fn fields(event: &Value, path: &str) -> Option<String> {
    let object = event.field("involvedObject");
    let text = match path {
        "involvedObject.kind" => object.text("kind"),
        "involvedObject.namespace" => object.text("namespace"),
        "involvedObject.name" => object.text("name"),
        "involvedObject.uid" => object.text("uid"),
        "involvedObject.apiVersion" => object.text("apiVersion"),
        "involvedObject.resourceVersion" => object.text("resourceVersion"),
        "involvedObject.fieldPath" => object.text("fieldPath"),
        "reason" => event.text("reason"),
        "reportingComponent" => event.text("reportingComponent"),
        "source" => match event.field("source").text("component") {
            "" => event.text("reportingComponent"),
            component => component,
        },
        "type" => event.text("type"),
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row},
        *,
    };

    #[test]
    fn lives_beside_its_object() {
        check(
            &EVENT,
            json!({"involvedObject": {"namespace": "m"}}),
            expect![[
                r#"involvedObject.namespace: Invalid value: "m": does not match event.namespace"#
            ]],
        );
        check(
            &EVENT,
            json!({"involvedObject": {"namespace": null}}),
            expect![[
                r#"involvedObject.namespace: Invalid value: "": does not match event.namespace"#
            ]],
        );
    }

    #[test]
    fn row_says_how_often() {
        let event = json!({"type": "Warning", "reason": "BackOff", "message": " no \n",
            "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": "2024-01-01T00:30:00Z", "lastTimestamp": "2024-01-01T00:59:00Z", "count": 3});
        check_row(
            &EVENT,
            event,
            expect!["60s | Warning | BackOff | pod/p |  | kubelet, n | no | 30m | 3 | a"],
        );
        let event = json!({"eventTime": "2024-01-01T00:30:00.5Z", "reportingComponent": "x",
            "series": {"count": 9, "lastObservedTime": "2024-01-01T00:59:59Z"}});
        check_row(&EVENT, event, expect!["1s |  |  | / |  | x |  | 29m | 9 | a"]);
    }
}
