//! Jobs. The rules of their specification, which CronJobs have as a template, are in [`spec`].

pub(super) mod spec;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind,
    path::Path,
    pod_spec,
    pods_by_template::{self, CONTAINERS, IMAGES, SELECTOR, cells},
    print::{self, AGE, NAME, column},
    rules,
    value::{Read, keep, object_mut, remove, set, set_default},
};

pub(super) static JOB: Kind = Kind {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    categories: &["all"],
    schema: "io.k8s.api.batch.v1.Job",
    generation: true,
    orphans: Some(&[PODS_STAY]),
    default,
    prepare_create,
    validate,
    validate_update,
    columns: COLUMNS,
    row,
    fields: |it, path| {
        let succeeded = || it.field("status").int("succeeded").unwrap_or_default().to_string();
        (path == "status.successful").then(succeeded)
    },
    warnings: pods_by_template::warnings_of_new,
    warnings_on_update: Some(pods_by_template::warnings),
    unattended: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "How far the job is."),
    column("Completions", "Pods that have succeeded, of those that must."),
    column("Duration", "How long it has run."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const PODS_STAY: &str = "child pods are preserved by default when jobs are deleted; set \
    propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this \
    warning";
/// Labels of a job's pods with its uid, with and without a prefix.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
/// Labels of a job's pods with its name, with and without a prefix.
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

fn default(job: &mut Value) {
    let Some(spec) = object_mut(job, "spec") else { return };
    spec::default(spec);
    let labels = spec.at(&["template", "metadata", "labels"]).clone();
    let own = job.at(&["metadata", "labels"]).as_object();
    if labels.is_object()
        && own.is_none_or(serde_json::Map::is_empty)
        && let Some(metadata) = object_mut(job, "metadata")
    {
        set(metadata, "labels", labels);
    }
}

/// Makes the labels by which a job knows its pods, unless the user chose some.
fn prepare_create(job: &mut Value) {
    set(job, "status", json!({}));
    let meta = |name: &str| job.field("metadata").text(name).to_owned();
    let (name, uid, generated) = (meta("name"), meta("uid"), !meta("generateName").is_empty());
    let Some(spec) = job.get_mut("spec").filter(|it| !it.flag("manualSelector")) else { return };
    let template = object_mut(spec, "template").and_then(|it| object_mut(it, "metadata"));
    if let Some(labels) = template.and_then(|it| object_mut(it, "labels")) {
        for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
            for key in keys {
                // Of a generated name there may be several until one is free.
                if generated {
                    remove(labels, key);
                }
                set_default(labels, key, value.as_str());
            }
        }
    }
    let selector = object_mut(spec, "selector").and_then(|it| object_mut(it, "matchLabels"));
    if let Some(selector) = selector {
        set_default(selector, UID_LABELS[1], uid);
    }
}

fn validate(job: &Value, causes: &mut Causes) {
    generated_selector(job, causes);
    let (spec, path) = (job.field("spec"), Path::new("spec"));
    spec::validate(spec, path, causes);
    let selector = spec.field("selector");
    if selector.is_null() {
        causes.required(path.child("selector"), "");
    } else {
        rules::label_selector(selector, path.child("selector"), causes);
    }
    let template = spec.field("template");
    pod_spec::template_is_selected(template, selector, path.child("template"), causes);
    let completions = spec.int("completions").unwrap_or_default();
    if spec.text("completionMode") == "Indexed" && 0 < completions {
        let name = job.field("metadata").text("name");
        let last = format!("{name}-{}", completions - 1);
        if !api::names::dns1123_label(&last).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {last}");
            causes.invalid("metadata.name", &name.into(), &detail);
        }
    }
}

/// The labels of [`prepare_create`] must be what they would be without the user.
fn generated_selector(job: &Value, causes: &mut Causes) {
    let spec = job.field("spec");
    if spec.flag("manualSelector") || !spec.has("selector") {
        return;
    }
    let metadata = job.field("metadata");
    let labels = spec.at(&["template", "metadata", "labels"]);
    let mut expected = json!({});
    for index in [0, 1] {
        for (keys, value) in
            [(UID_LABELS, metadata.text("uid")), (NAME_LABELS, metadata.text("name"))]
        {
            let Some(key) = keys.get(index) else { continue };
            set(&mut expected, key, value);
            let path = format!("spec.template.metadata.labels[{key}]");
            let detail = format!("must be '{value}'");
            match labels.field(key).as_str() {
                None => causes.required(path, &detail),
                Some(found) if found != value => causes.invalid(path, labels, &detail),
                Some(_) => {}
            }
        }
    }
    if !rules::selects(spec.field("selector"), &expected) {
        causes.invalid("spec.selector", spec.field("selector"), "`selector` not auto-generated");
    }
}

fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    let (spec, old_spec) = (new.field("spec"), old.field("spec"));
    let mut unchanged = |name: &str| {
        rules::unchanged(spec, old_spec, name, path.child(name), causes);
    };
    if spec.text("completionMode") != "Indexed" {
        unchanged("completions");
    }
    for name in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        unchanged(name);
    }
    let (completions, parallelism) = (spec.field("completions"), spec.field("parallelism"));
    let indexed = spec.text("completionMode") == "Indexed" && !completions.is_null();
    if indexed && completions != old_spec.field("completions") && completions != parallelism {
        let detail = "can only be modified in tandem with spec.parallelism";
        causes.invalid(path.child("completions"), completions, detail);
    }
    let template = spec.field("template");
    if *template != changeable_template(new, old) {
        causes.invalid(path.child("template"), template, rules::IMMUTABLE);
    }
}

/// The old template with what may be new in it: where the pods of a suspended job that has never
/// run go, and what those of a suspended one ask for.
fn changeable_template(new: &Value, old: &Value) -> Value {
    let mut template = old.at(&["spec", "template"]).clone();
    let suspended = old.field("spec").flag("suspend");
    if !suspended {
        return template;
    }
    let new_template = new.at(&["spec", "template"]);
    let new_pod = new_template.field("spec");
    if let Some(pod) = template.get_mut("spec") {
        for list in ["containers", "initContainers"] {
            let count = pod.items(list).len();
            if count != new_pod.items(list).len() {
                continue;
            }
            let containers = super::value::items_mut(pod, list).zip(new_pod.items(list));
            for (container, new) in containers.filter(|it| it.0.text("name") == it.1.text("name")) {
                keep(container, "resources", new);
            }
        }
        if !old.field("status").has("startTime") {
            for name in ["nodeSelector", "tolerations", "schedulingGates"] {
                keep(pod, name, new_pod);
            }
            keep_node_affinity(pod, new_pod);
        }
    }
    if !old.field("status").has("startTime")
        && let Some(metadata) = template.get_mut("metadata")
    {
        for name in ["labels", "annotations"] {
            keep(metadata, name, new_template.field("metadata"));
        }
    }
    template
}

fn keep_node_affinity(pod: &mut Value, from: &Value) {
    if let Some(affinity) = object_mut(pod, "affinity") {
        keep(affinity, "nodeAffinity", from.field("affinity"));
    }
    if pod.field("affinity").as_object().is_some_and(serde_json::Map::is_empty)
        && !from.has("affinity")
    {
        remove(pod, "affinity");
    }
}

fn row(job: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (job.field("spec"), job.field("status"));
    let [containers, images, selector] = cells(spec);
    let succeeded = status.int("succeeded").unwrap_or_default();
    let completions = match (spec.int("completions"), spec.int("parallelism").unwrap_or_default()) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    vec![
        print::name(job),
        state(job).into(),
        completions.into(),
        duration(status, now).into(),
        print::age(job, now),
        containers,
        images,
        selector,
    ]
}

fn state(job: &Value) -> &'static str {
    let conditions = job.field("status").items("conditions");
    let is = |kind: &str| {
        conditions.iter().any(|it| it.text("type") == kind && it.text("status") == "True")
    };
    let terminating = job.field("metadata").has("deletionTimestamp");
    let states = [
        (is("Complete"), "Complete"),
        (is("Failed"), "Failed"),
        (terminating, "Terminating"),
        (is("Suspended"), "Suspended"),
        (is("FailureTarget"), "FailureTarget"),
        (is("SuccessCriteriaMet"), "SuccessCriteriaMet"),
    ];
    states.into_iter().find(|it| it.0).map_or("Running", |it| it.1)
}

fn duration(status: &Value, now: Timestamp) -> String {
    let end = match status.text("completionTime") {
        "" => now,
        time => time.parse().unwrap_or(now),
    };
    match status.text("startTime") {
        "" => String::new(),
        start => print::since(start, end),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, check_update, check_update_of, created, sample},
        *,
    };

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn a_job_knows_its_pods() {
        let mut job = created(&JOB, sample(&JOB));
        let mut spec = job["spec"].take();
        let labels = spec["template"]["metadata"].take();
        expect![[r#"{"labels":{"app":"a","batch.kubernetes.io/controller-uid":"u","batch.kubernetes.io/job-name":"a","controller-uid":"u","job-name":"a"}}"#]].assert_eq(&labels.to_string());
        remove(&mut spec, "template");
        expect![[r#"{"backoffLimit":6,"completionMode":"NonIndexed","completions":1,"manualSelector":false,"parallelism":1,"podReplacementPolicy":"TerminatingOrFailed","selector":{"matchLabels":{"batch.kubernetes.io/controller-uid":"u"}},"suspend":false}"#]].assert_eq(&spec.to_string());
    }

    #[test]
    fn labels_are_not_for_users() {
        let labels = json!({"metadata": {"labels": {"job-name": "b"}}});
        check(
            &JOB,
            spec(json!({"template": labels})),
            expect![[
                r#"spec.template.metadata.labels[job-name]: Invalid value: {"app":"a","batch.kubernetes.io/controller-uid":"u","batch.kubernetes.io/job-name":"a","controller-uid":"u","job-name":"b"}: must be 'a'"#
            ]],
        );
        let manual = json!({"manualSelector": true, "selector": {"matchLabels": {"app": "a"}}});
        check(&JOB, spec(manual), expect![""]);
        check(
            &JOB,
            spec(json!({"manualSelector": true})),
            expect!["spec.selector: Required value"],
        );
    }

    #[test]
    fn pods_of_jobs_end() {
        let policy = |it: &str| spec(json!({"template": {"spec": {"restartPolicy": it}}}));
        check(
            &JOB,
            policy("Always"),
            expect![[
                r#"spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#
            ]],
        );
        check(
            &JOB,
            policy("Sometimes"),
            expect![[r#"
            spec.template.spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
            spec.template.spec.restartPolicy: Unsupported value: "Sometimes": supported values: "OnFailure", "Never""#]],
        );
    }

    #[test]
    fn little_may_change() {
        check_update(&JOB, spec(json!({"parallelism": 5, "suspend": true})), expect![""]);
        check_update(
            &JOB,
            spec(json!({"completions": 5})),
            expect!["spec.completions: Invalid value: 5: field is immutable"],
        );
        let selector = json!({"template": {"spec": {"nodeSelector": {"a": "b"}}}});
        check_update(
            &JOB,
            spec(json!({"completionMode": "Indexed"})),
            expect![[r#"spec.completionMode: Invalid value: "Indexed": field is immutable"#]],
        );
        let mut suspended = created(&JOB, sample(&JOB));
        suspended["spec"]["suspend"] = true.into();
        check_update_of(&JOB, &suspended, spec(selector), expect![""]);
        let command = json!({"template": {"spec": {"priorityClassName": "a"}}});
        let mut causes = Causes::default();
        let mut new = suspended.clone();
        json_patch::merge(&mut new, &spec(command));
        validate_update(&new, &suspended, &mut causes);
        assert_eq!(causes.as_slice().len(), 1);
    }

    #[test]
    fn row_says_how_far() {
        check_row(
            &JOB,
            json!({}),
            expect![
                "a | Running | 0/1 |  | 60m | c | app:v1 | batch.kubernetes.io/controller-uid=u"
            ],
        );
        let status = json!({"startTime": "2024-01-01T00:10:00Z", "succeeded": 1,
            "completionTime": "2024-01-01T00:20:00Z",
            "conditions": [{"type": "Complete", "status": "True"}]});
        check_row(
            &JOB,
            json!({"status": status}),
            expect![
                "a | Complete | 1/1 | 10m | 60m | c | app:v1 | batch.kubernetes.io/controller-uid=u"
            ],
        );
    }
}
