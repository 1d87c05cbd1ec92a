//! One object in several versions of its API, and what is said of kinds that nobody looks after or
//! that are to go away.

use expect_test::expect;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{Api, pick};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const SCALERS: [&str; 2] = [
    "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
    "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
];

#[tokio::test(start_paused = true)]
async fn events_have_two_shapes() {
    let api = Api::new().await;
    let event = json!({"metadata": {"name": "a"}, "eventTime": "2026-01-01T12:00:00.500000Z",
        "reportingController": "example.com/c", "reportingInstance": "i", "action": "Do",
        "reason": "Done", "type": "Normal", "note": "it is done",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let made = api.value(&format!("POST {EVENTS}"), &event.to_string()).await;
    assert_eq!(pick(&made, &["/apiVersion", "/note"]), "events.k8s.io/v1 it is done");
    let owner = ["/metadata/managedFields/0/apiVersion"];
    assert_eq!(pick(&made, &owner), "events.k8s.io/v1");
    let core = api.value("GET /api/v1/namespaces/default/events/a", "").await;
    let shown = ["/apiVersion", "/message", "/involvedObject/name", "/reportingComponent", "/note"];
    assert_eq!(pick(&core, &shown), "v1 it is done p example.com/c -");
    let list = api.value(&format!("GET {EVENTS}?fieldSelector=regarding.name=p"), "").await;
    assert_eq!(pick(&list, &["/apiVersion", "/items/0/note"]), "events.k8s.io/v1 it is done");
    let patch = r#"{"series":{"count":2,"lastObservedTime":"2026-01-01T12:00:01.000000Z"}}"#;
    let patched = api.value(&format!("PATCH+strategic {EVENTS}/a"), patch).await;
    assert_eq!(pick(&patched, &["/series/count", "/note"]), "2 it is done");
    api.check(&format!("PATCH+merge {EVENTS}/a"), r#"{"note":"no"}"#, expect![[r#"422 Invalid Event.events.k8s.io "a" is invalid: message: Invalid value: "no": field is immutable"#]]).await;
    api.check(
        &format!("GET {EVENTS}?fieldSelector=involvedObject.name=p"),
        "",
        expect!["400 BadRequest field label not supported: involvedObject.name"],
    )
    .await;
    let gone = api.value("DELETE /api/v1/namespaces/default/events/a", "").await;
    assert_eq!(gone["status"], "Success");
}

#[tokio::test(start_paused = true)]
async fn autoscalers_have_two_shapes() {
    let api = Api::new().await;
    let [v1, v2] = SCALERS;
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let old = json!({"metadata": {"name": "a"}, "spec": {"scaleTargetRef": target,
        "maxReplicas": 4, "targetCPUUtilizationPercentage": 60}});
    let made = api.value(&format!("POST {v1}"), &old.to_string()).await;
    let percent = "/spec/targetCPUUtilizationPercentage";
    assert_eq!(pick(&made, &["/apiVersion", percent]), "autoscaling/v1 60");
    let new = api.value(&format!("GET {v2}/a"), "").await;
    let metric = "/spec/metrics/0/resource/target/averageUtilization";
    assert_eq!(pick(&new, &["/apiVersion", metric, percent]), "autoscaling/v2 60 -");
    let patch = json!({"spec": {"metrics": [{"type": "Pods", "pods": {"metric": {"name": "m"},
        "target": {"type": "AverageValue", "averageValue": "5"}}}]}});
    api.value(&format!("PATCH+merge {v2}/a"), &patch.to_string()).await;
    let annotation = "/metadata/annotations/autoscaling.alpha.kubernetes.io~1metrics";
    let again = api.value(&format!("PATCH+merge {v1}/a"), r#"{"spec":{"maxReplicas":5}}"#).await;
    expect![[r#"5 - [{"pods":{"metricName":"m","targetAverageValue":"5"},"type":"Pods"}]"#]]
        .assert_eq(&pick(&again, &["/spec/maxReplicas", percent, annotation]));
    let kept: Value = api.value(&format!("GET {v2}/a"), "").await;
    assert_eq!(pick(&kept, &["/spec/maxReplicas", "/spec/metrics/0/type", annotation]), "5 Pods -");
    let mut watch = api.send(&format!("GET {v1}?watch=1"), "").await.into_body();
    let frame = watch.frame().await.unwrap().unwrap().into_data().unwrap();
    let event: Value = serde_json::from_slice(&frame).unwrap();
    assert_eq!(pick(&event, &["/type", "/object/apiVersion"]), "ADDED autoscaling/v1");
}

#[tokio::test(start_paused = true)]
async fn kinds_that_nobody_looks_after_say_so() {
    let api = Api::new().await;
    let budget = r#"{"metadata":{"name":"a"},"spec":{"minAvailable":1}}"#;
    api.check(
        "POST /apis/policy/v1/namespaces/default/poddisruptionbudgets?dryRun=All",
        budget,
        expect![[r#"
            201 {"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","generation":1,"managedFields":[{"apiVersion":"policy/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:minAvailable":{}}},"manager":"unknown","operation":"Update","time":"2026-01-01T12:00:00Z"}],"name":"a","namespace":"default","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"},"spec":{"minAvailable":1},"status":{"currentHealthy":0,"desiredHealthy":0,"disruptionsAllowed":0,"expectedPods":0}}
            warning: 299 - "PodDisruptionBudget is stored, but nothing acts on it yet""#]],
    )
    .await;
    api.check("GET /api/v1/namespaces/default/endpoints", "", expect![[r#"
        200 {"kind":"EndpointsList","apiVersion":"v1","metadata":{"resourceVersion":"30"},"items":[]}
        warning: 299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice""#]]).await;
}

/// Who owns fields through one version keeps or loses them by writes through the other.
#[tokio::test(start_paused = true)]
async fn owners_know_objects_by_their_version() {
    let api = Api::new().await;
    let [v1, v2] = SCALERS;
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let old = |percent: i32| {
        json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a"}, "spec": {"scaleTargetRef": target, "maxReplicas": 4, "targetCPUUtilizationPercentage": percent}})
    };
    let new = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a"}, "spec": {"scaleTargetRef": target, "maxReplicas": 4, "metrics": [{"type": "Resource", "resource":
            {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}]}});
    let apply = |path: &str, who: &str| format!("PATCH+apply {path}/a?fieldManager={who}");
    let shown = ["/spec/targetCPUUtilizationPercentage"];
    api.value(&apply(v2, "new"), &new.to_string()).await;
    // The same, said in the other version: both own it.
    let same = api.value(&apply(v1, "old"), &old(60).to_string()).await;
    assert_eq!(pick(&same, &shown), "60");
    let fields = |it: &Value| it["metadata"]["managedFields"].to_string();
    expect![[r#"[{"apiVersion":"autoscaling/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:maxReplicas":{},"f:scaleTargetRef":{},"f:targetCPUUtilizationPercentage":{}}},"manager":"old","operation":"Apply"},{"apiVersion":"autoscaling/v2","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:maxReplicas":{},"f:metrics":{},"f:scaleTargetRef":{"f:apiVersion":{},"f:kind":{},"f:name":{}}}},"manager":"new","operation":"Apply","time":"2026-01-01T12:00:00Z"}]"#]].assert_eq(&fields(&same));
    // What one of them no longer wants stays for the other.
    let mut less = old(60);
    less["spec"].as_object_mut().unwrap().remove("targetCPUUtilizationPercentage");
    let less = api.value(&apply(v1, "old"), &less.to_string()).await;
    assert_eq!(pick(&less, &shown), "60");
    api.value(&apply(v1, "old"), &old(60).to_string()).await;
    api.check(
        &apply(v1, "old"),
        &old(50).to_string(),
        expect![[
            r#"409 Conflict Apply failed with 1 conflict: conflict with "new": .spec.metrics"#
        ]],
    )
    .await;
    api.check(
        &apply(v1, "third"),
        &old(50).to_string(),
        expect![[r#"
        409 Conflict Apply failed with 2 conflicts: conflicts with "new":
        - .spec.metrics
        conflicts with "old":
        - .spec.targetCPUUtilizationPercentage"#]],
    )
    .await;
    let forced = format!("{}&force=1", apply(v1, "old"));
    let forced = api.value(&forced, &old(50).to_string()).await;
    expect![[r#"[{"apiVersion":"autoscaling/v2","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:maxReplicas":{},"f:scaleTargetRef":{"f:apiVersion":{},"f:kind":{},"f:name":{}}}},"manager":"new","operation":"Apply","time":"2026-01-01T12:00:00Z"},{"apiVersion":"autoscaling/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:maxReplicas":{},"f:scaleTargetRef":{},"f:targetCPUUtilizationPercentage":{}}},"manager":"old","operation":"Apply","time":"2026-01-01T12:00:00Z"}]"#]].assert_eq(&fields(&forced));
    // An update takes as well.
    let metrics = json!({"spec": {"metrics": [{"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "Utilization", "averageUtilization": 60}}}]}});
    let updated = format!("PATCH+merge {v2}/a?fieldManager=updater");
    let updated = api.value(&updated, &metrics.to_string()).await;
    expect![[r#"[{"apiVersion":"autoscaling/v2","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:maxReplicas":{},"f:scaleTargetRef":{"f:apiVersion":{},"f:kind":{},"f:name":{}}}},"manager":"new","operation":"Apply","time":"2026-01-01T12:00:00Z"},{"apiVersion":"autoscaling/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:maxReplicas":{},"f:scaleTargetRef":{}}},"manager":"old","operation":"Apply","time":"2026-01-01T12:00:00Z"},{"apiVersion":"autoscaling/v2","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:metrics":{}}},"manager":"updater","operation":"Update","time":"2026-01-01T12:00:00Z"}]"#]].assert_eq(&fields(&updated));
}

/// What an applier no longer wants goes, also if it said so through another version.
#[tokio::test(start_paused = true)]
async fn appliers_may_change_their_version() {
    let api = Api::new().await;
    let [v1, v2] = SCALERS;
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 7}});
    let new = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a", "labels": {"a": "b"}},
        "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 4, "behavior": behavior}});
    api.value(&format!("PATCH+apply {v2}/a?fieldManager=me"), &new.to_string()).await;
    let old = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a"}, "spec": {"scaleTargetRef": target, "maxReplicas": 4}});
    api.value(&format!("PATCH+apply {v1}/a?fieldManager=me"), &old.to_string()).await;
    let left = api.value(&format!("GET {v2}/a"), "").await;
    let shown = ["/metadata/labels", "/spec/minReplicas", "/spec/behavior"];
    expect!["- 1 -"].assert_eq(&pick(&left, &shown));
    expect![[r#"[{"apiVersion":"autoscaling/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:maxReplicas":{},"f:scaleTargetRef":{}}},"manager":"me","operation":"Apply","time":"2026-01-01T12:00:00Z"}]"#]].assert_eq(&left["metadata"]["managedFields"].to_string());
}

/// Who owns through a version that there is not owns nothing after the next write.
#[tokio::test(start_paused = true)]
async fn versions_that_there_are_not_own_nothing() {
    let api = Api::new().await;
    let [_, v2] = SCALERS;
    let owner = |version: &str| {
        json!({"apiVersion": version, "fieldsType": "FieldsV1", "manager": version,
            "operation": "Apply", "fieldsV1": {"f:spec": {"f:maxReplicas": {}}}})
    };
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let object = |replicas: i32| {
        json!({"metadata": {"name": "a", "managedFields":
            [owner("autoscaling/v1"), owner("autoscaling/v2beta2"), owner("autoscaling/v2")]},
            "spec": {"scaleTargetRef": target, "minReplicas": replicas, "maxReplicas": 4}})
    };
    api.value(&format!("POST {v2}"), &object(1).to_string()).await;
    let made = api.value(&format!("PUT {v2}/a?fieldManager=me"), &object(2).to_string()).await;
    let owners = made["metadata"]["managedFields"].as_array().unwrap();
    let owners: Vec<&str> = owners.iter().filter_map(|it| it["manager"].as_str()).collect();
    expect!["autoscaling/v1 autoscaling/v2 me"].assert_eq(&owners.join(" "));
}
