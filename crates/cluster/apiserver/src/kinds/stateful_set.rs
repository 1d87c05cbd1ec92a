//! StatefulSets.

use api::names;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind, Subresource,
    path::Path,
    persistent_volume_claim as claim, pod_spec,
    pods_by_template::{self, CONTAINERS, IMAGES},
    print::{self, AGE, NAME, column},
    rules,
    value::{Read, items_mut, keep, object_mut, remove, set, set_default},
};

pub(super) static STATEFUL_SET: Kind = Kind {
    group: "apps",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    schema: "io.k8s.api.apps.v1.StatefulSet",
    subresources: &[Subresource::Status, Subresource::Scale],
    generation: true,
    default,
    prepare_create,
    validate,
    validate_update,
    validate_name: rules::label_name,
    columns: COLUMNS,
    row,
    warnings,
    warnings_on_update: Some(warnings),
    unattended: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] =
    &[NAME, column("Ready", "Pods that are ready, of those wanted."), AGE, CONTAINERS, IMAGES];

/// Fields of `spec` that may change.
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const FORBIDDEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
    'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' \
    and 'minReadySeconds' are forbidden";
/// Old templates that are kept.
const REVISIONS_KEPT: i64 = 10;

/// The counts that a status always has.
fn status(mut status: Value) -> Value {
    set_default(&mut status, "replicas", 0);
    set_default(&mut status, "availableReplicas", 0);
    status
}

fn default(set_of_pods: &mut Value) {
    if set_of_pods.get("status").is_some() {
        let kept = status(set_of_pods.field("status").clone());
        set(set_of_pods, "status", kept);
    }
    let Some(spec) = object_mut(set_of_pods, "spec") else { return };
    set_default(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = object_mut(spec, "updateStrategy") {
        if strategy.text("type").is_empty() {
            set(strategy, "type", "RollingUpdate");
            object_mut(strategy, "rollingUpdate");
        }
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = strategy.get_mut("rollingUpdate")
        {
            set_default(rolling, "partition", 0);
        }
    }
    if let Some(policy) = object_mut(spec, "persistentVolumeClaimRetentionPolicy") {
        set_default(policy, "whenDeleted", "Retain");
        set_default(policy, "whenScaled", "Retain");
    }
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", REVISIONS_KEPT);
    for template in items_mut(spec, "volumeClaimTemplates") {
        set_default(template, "apiVersion", "v1");
        set_default(template, "kind", "PersistentVolumeClaim");
        claim::default(template);
    }
    pods_by_template::default(spec);
}

/// How many pods may be missing during an update is not for users to say yet: the feature
/// (`MaxUnavailableStatefulSet`) is off in 1.36.
fn prepare_create(set_of_pods: &mut Value) {
    set(set_of_pods, "status", status(json!({})));
    let strategy = set_of_pods.get_mut("spec").and_then(|it| it.get_mut("updateStrategy"));
    if let Some(rolling) = strategy.and_then(|it| it.get_mut("rollingUpdate")) {
        remove(rolling, "maxUnavailable");
    }
}

fn validate(set_of_pods: &Value, causes: &mut Causes) {
    let (spec, path) = (set_of_pods.field("spec"), Path::new("spec"));
    let policy = spec.text("podManagementPolicy");
    if !matches!(policy, "OrderedReady" | "Parallel") {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        causes.invalid(path.child("podManagementPolicy"), &policy.into(), detail);
    }
    strategy(spec.field("updateStrategy"), path.child("updateStrategy"), causes);
    let retention = spec.field("persistentVolumeClaimRetentionPolicy");
    let policy_path = path.child("persistentVolumeClaimRetentionPolicy");
    for name in ["whenDeleted", "whenScaled"] {
        let text = retention.text(name);
        if !matches!(text, "Retain" | "Delete") {
            let supported = &["Retain", "Delete"];
            causes.not_supported(policy_path.child(name), &text.into(), supported);
        }
    }
    let templates = path.child("volumeClaimTemplates");
    for (index, template) in spec.items("volumeClaimTemplates").iter().enumerate() {
        let path = templates.index(index);
        claim::validate_spec(template.field("spec"), path.child("spec"), causes);
    }
    rules::not_negative(spec, "replicas", path, causes);
    rules::not_negative(spec, "minReadySeconds", path, causes);
    rules::not_negative(spec.field("ordinals"), "start", path.child("ordinals"), causes);
    let service = spec.text("serviceName");
    if !service.is_empty() {
        rules::all(names::dns1123_label(service), path.child("serviceName"), service, causes);
    }
    pods_by_template::selector(spec, "statefulset", path, causes);
    let (template, selector) = (with_claims(spec), spec.field("selector"));
    pod_spec::template(&template, selector, "StatefulSet", path.child("template"), causes);
}

/// The template with a volume for every claim, as its pods will have them.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec.field("template").clone();
    let Some(pod) = template.get_mut("spec") else { return template };
    // Pods of the set get these from the set.
    remove(pod, "hostname");
    remove(pod, "subdomain");
    let claims = spec.items("volumeClaimTemplates").iter();
    let mut volumes: Vec<Value> = claims
        .map(|it| it.field("metadata").text("name"))
        .map(|it| json!({"name": it, "persistentVolumeClaim": {"claimName": it}}))
        .collect();
    let own = pod.items("volumes").iter();
    let own = own.filter(|it| volumes.iter().all(|other| other.text("name") != it.text("name")));
    let own: Vec<Value> = own.cloned().collect();
    if !volumes.is_empty() {
        volumes.extend(own);
        set(pod, "volumes", volumes);
    }
    template
}

fn strategy(strategy: &Value, path: Path<'_>, causes: &mut Causes) {
    let rolling = strategy.field("rollingUpdate");
    let rolling_path = path.child("rollingUpdate");
    match strategy.text("type") {
        "OnDelete" if !rolling.is_null() => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            causes.invalid(rolling_path, rolling, detail);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rules::not_negative(rolling, "partition", rolling_path, causes);
            if rolling.has("maxUnavailable") {
                pods_by_template::share(rolling, "maxUnavailable", rolling_path, causes);
                let value = rolling.field("maxUnavailable");
                if pods_by_template::is_zero(value) {
                    causes.invalid(rolling_path.child("maxUnavailable"), value, "cannot be 0");
                }
            }
        }
        _ => causes.invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    let (mut rest, old) = (new.field("spec").clone(), old.field("spec"));
    for name in CHANGEABLE {
        keep(&mut rest, name, old);
    }
    if rest != *old {
        causes.forbidden("spec", FORBIDDEN);
    }
}

fn row(set_of_pods: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (set_of_pods.field("spec"), set_of_pods.field("status"));
    let [containers, images, _] = pods_by_template::cells(spec);
    let count = |of: &Value, name| of.int(name).unwrap_or_default();
    vec![
        print::name(set_of_pods),
        format!("{}/{}", count(status, "readyReplicas"), count(spec, "replicas")).into(),
        print::age(set_of_pods, now),
        containers,
        images,
    ]
}

fn warnings(set_of_pods: &Value) -> Vec<String> {
    let mut warnings = pods_by_template::warnings(set_of_pods);
    if set_of_pods.field("spec").int("revisionHistoryLimit").is_some_and(|it| it < 0) {
        let warning = "spec.revisionHistoryLimit: a negative value retains all historical \
                       revisions; a value >= 0 is recommended";
        warnings.push(warning.to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, check_update, created, sample},
        *,
    };

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn says_what_is_not_said() {
        let set_of_pods = created(&STATEFUL_SET, sample(&STATEFUL_SET));
        let mut spec = set_of_pods["spec"].clone();
        remove(&mut spec, "template");
        expect![[r#"{"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Retain","whenScaled":"Retain"},"podManagementPolicy":"OrderedReady","replicas":1,"revisionHistoryLimit":10,"selector":{"matchLabels":{"app":"a"}},"updateStrategy":{"rollingUpdate":{"partition":0},"type":"RollingUpdate"}}"#]].assert_eq(&spec.to_string());
        assert_eq!(set_of_pods["status"], json!({"replicas": 0, "availableReplicas": 0}));
    }

    #[test]
    fn mounts_may_be_of_claims() {
        let container = json!({"name": "c", "image": "i:1", "volumeMounts": [{"name": "data", "mountPath": "/d"}]});
        let template = json!({"spec": {"containers": [container], "volumes": null}});
        let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}]);
        check(
            &STATEFUL_SET,
            spec(json!({"volumeClaimTemplates": claims, "template": template})),
            expect![""],
        );
        check(
            &STATEFUL_SET,
            spec(json!({"template": template})),
            expect![[
                r#"spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data""#
            ]],
        );
    }

    #[test]
    fn rules_of_its_own() {
        check(
            &STATEFUL_SET,
            spec(json!({"podManagementPolicy": "Any", "serviceName": "A",
                "updateStrategy": {"type": "RollingUpdate",
                    "rollingUpdate": {"partition": -1, "maxUnavailable": 0}},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Never"},
                "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}],
                "selector": {"matchLabels": null}})),
            expect![[r#"
                spec.podManagementPolicy: Invalid value: "Any": must be 'OrderedReady' or 'Parallel'
                spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0
                spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "Never": supported values: "Retain", "Delete"
                spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required
                spec.volumeClaimTemplates[0].spec.resources[storage]: Required value
                spec.serviceName: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
                spec.selector: Invalid value: {}: empty selector is invalid for statefulset"#]],
        );
    }

    #[test]
    fn little_may_change() {
        check_update(&STATEFUL_SET, spec(json!({"replicas": 3})), expect![""]);
        check_update(
            &STATEFUL_SET,
            spec(json!({"serviceName": "b"})),
            expect![
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
            ],
        );
        let status = json!({"status": {"readyReplicas": 1}});
        check_row(&STATEFUL_SET, status, expect!["a | 1/1 | 60m | c | app:v1"]);
    }
}
