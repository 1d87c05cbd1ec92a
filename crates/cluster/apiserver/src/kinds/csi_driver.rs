//! CSIDrivers: what a driver of volumes can do and needs.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column, flag},
    rules,
    value::{Read, object_mut, set, set_default},
};

pub(super) static CSI_DRIVER: Kind = Kind {
    group: "storage.k8s.io",
    kind: "CSIDriver",
    plural: "csidrivers",
    singular: "csidriver",
    namespaced: false,
    schema: "io.k8s.api.storage.v1.CSIDriver",
    generation: true,
    default,
    validate,
    validate_update: |new, old, causes| {
        let (new, old) = (new.field("spec"), old.field("spec"));
        // The original calls the first field so in this one message.
        rules::unchanged(new, old, "attachRequired", "spec.attachedRequired", causes);
        rules::unchanged(new, old, "volumeLifecycleModes", "spec.volumeLifecycleModes", causes);
    },
    columns: COLUMNS,
    row,
    unattended: true,
    shows_deleted: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    flag("AttachRequired", "Whether volumes are attached before they are mounted."),
    flag("PodInfoOnMount", "Whether the driver is told of the pod."),
    flag("StorageCapacity", "Whether the scheduler asks how much there is."),
    column("TokenRequests", "For whom the driver gets tokens of pods."),
    flag("RequiresRepublish", "Whether mounted volumes are mounted again and again."),
    column("Modes", "How long volumes live."),
    AGE,
];

/// Least time between two looks at how many volumes fit, in seconds.
const UPDATE_SECONDS_MIN: i64 = 10;
/// Least and greatest life of a token, in seconds.
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=1 << 32;

fn default(driver: &mut Value) {
    let Some(spec) = object_mut(driver, "spec") else { return };
    set_default(spec, "attachRequired", true);
    for name in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        set_default(spec, name, false);
    }
    set_default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.items("volumeLifecycleModes").is_empty() {
        set(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }
}

fn validate(driver: &Value, causes: &mut Causes) {
    let (spec, path) = (driver.field("spec"), Path::new("spec"));
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    rules::optional_one_of(spec, "fsGroupPolicy", &policies, path, causes);
    let list = path.child("tokenRequests");
    let mut seen = BTreeSet::new();
    for (index, request) in spec.items("tokenRequests").iter().enumerate() {
        let path = list.index(index);
        let audience = request.text("audience");
        if !seen.insert(audience) {
            causes.duplicate(path.child("audience"), &audience.into());
            continue;
        }
        let detail = match request.int("expirationSeconds") {
            Some(seconds) if seconds < *TOKEN_SECONDS.start() => {
                "may not specify a duration less than 10 minutes"
            }
            Some(seconds) if *TOKEN_SECONDS.end() < seconds => {
                "may not specify a duration larger than 2^32 seconds"
            }
            _ => continue,
        };
        let seconds = request.field("expirationSeconds");
        causes.invalid(path.child("expirationSeconds"), seconds, detail);
    }
    for mode in spec.items("volumeLifecycleModes") {
        let supported = ["Persistent", "Ephemeral"];
        if !supported.contains(&mode.as_str().unwrap_or_default()) {
            causes.not_supported(path.child("volumeLifecycleModes"), mode, &supported);
        }
    }
    let period = "nodeAllocatableUpdatePeriodSeconds";
    if spec.int(period).is_some_and(|it| it < UPDATE_SECONDS_MIN) {
        let detail = "must be greater than or equal to 10 seconds";
        causes.invalid(path.child(period), spec.field(period), detail);
    }
    let secrets = "serviceAccountTokenInSecrets";
    if spec.has(secrets) && spec.items("tokenRequests").is_empty() {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        causes.invalid(path.child(secrets), spec.field(secrets), detail);
    }
}

fn row(driver: &Value, now: Timestamp) -> Vec<Value> {
    let spec = driver.field("spec");
    let audiences: Vec<&str> =
        spec.items("tokenRequests").iter().map(|it| it.text("audience")).collect();
    let audiences = if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") };
    let modes = spec.items("volumeLifecycleModes").iter().filter_map(Value::as_str);
    vec![
        print::name(driver),
        spec.field("attachRequired").as_bool().unwrap_or(true).into(),
        spec.flag("podInfoOnMount").into(),
        spec.flag("storageCapacity").into(),
        audiences.into(),
        spec.flag("requiresRepublish").into(),
        print::joined(modes).into(),
        print::age(driver, now),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, check_update},
        *,
    };

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn tokens_and_modes_are_checked() {
        let requests = json!([{"audience": "a", "expirationSeconds": 5}, {"audience": "a"}]);
        check(
            &CSI_DRIVER,
            spec(json!({"tokenRequests": requests, "volumeLifecycleModes": ["Brief"],
                "fsGroupPolicy": "Any", "nodeAllocatableUpdatePeriodSeconds": 1})),
            expect![[r#"
                spec.fsGroupPolicy: Unsupported value: "Any": supported values: "File", "None", "ReadWriteOnceWithFSType"
                spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes
                spec.tokenRequests[1].audience: Duplicate value: "a"
                spec.volumeLifecycleModes: Unsupported value: "Brief": supported values: "Persistent", "Ephemeral"
                spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 1: must be greater than or equal to 10 seconds"#]],
        );
        check_update(
            &CSI_DRIVER,
            spec(json!({"attachRequired": false})),
            expect!["spec.attachedRequired: Invalid value: false: field is immutable"],
        );
        check_row(
            &CSI_DRIVER,
            json!({}),
            expect!["a | true | false | false | <unset> | false | Persistent | 60m"],
        );
    }
}
