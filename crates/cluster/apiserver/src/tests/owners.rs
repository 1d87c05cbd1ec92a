//! Who owns which field, and server-side apply, over the API.

use expect_test::{Expect, expect};
use serde_json::Value;

use super::{Api, pick};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

const WEB: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},
    "spec":{"replicas":2,"selector":{"matchLabels":{"app":"web"}},"template":{
    "metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;

/// Who owns what of an object, without what an owner has below `spec.template`.
fn owners(object: &Value) -> String {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let lines = entries.iter().map(|it| {
        let mut fields = it["fieldsV1"].clone();
        if let Some(spec) = fields.get_mut("f:spec").and_then(Value::as_object_mut) {
            spec.remove("f:template");
        }
        let who = pick(it, &["/manager", "/operation", "/apiVersion", "/subresource", "/time"]);
        format!("{who}: {fields}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check(object: &Value, expect: Expect) {
    expect.assert_eq(&owners(object));
}

#[tokio::test(start_paused = true)]
async fn an_apply_makes_changes_and_removes() {
    let api = Api::new().await;
    let apply = |manager: &str| format!("PATCH+apply {MAPS}/a?fieldManager={manager}");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n  l: w\n";
    api.check(&apply("me"), yaml, expect![[r#"201 {"apiVersion":"v1","data":{"k":"v","l":"w"},"kind":"ConfigMap","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","managedFields":[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{"f:k":{},"f:l":{}}},"manager":"me","operation":"Apply","time":"2026-01-01T12:00:00Z"}],"name":"a","namespace":"default","resourceVersion":"31","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}"#]]).await;
    let before = api.value(&format!("GET {MAPS}/a"), "").await;
    super::pass(1).await;
    assert_eq!(api.value(&apply("me"), yaml).await, before, "nothing changed");
    let less = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"l":"w"}}"#;
    let less = api.value(&apply("me"), less).await;
    assert_eq!(pick(&less, &["/data"]), r#"{"l":"w"}"#);
    let other = r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"l":"x","m":"y"}}"#;
    api.check(
        &apply("you"),
        other,
        expect![[r#"409 Conflict Apply failed with 1 conflict: conflict with "me": .data.l"#]],
    )
    .await;
    let forced = api.value(&format!("{}&force=true", apply("you")), other).await;
    check(
        &forced,
        expect![[r#"you Apply v1 - 2026-01-01T12:00:01Z: {"f:data":{"f:l":{},"f:m":{}}}"#]],
    );
    let dry = format!("{}&force=true&dryRun=All", apply("me"));
    let mine = r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"l":"z"}}"#;
    assert_eq!(pick(&api.value(&dry, mine).await, &["/data/l"]), "z");
    assert_eq!(pick(&api.value(&format!("GET {MAPS}/a"), "").await, &["/data/l"]), "x");
}

#[tokio::test(start_paused = true)]
async fn an_apply_is_refused() {
    let api = Api::new().await;
    let check = async |query: &str, body: &str, expect: Expect| {
        api.check(&format!("PATCH+apply {MAPS}/a?{query}"), body, expect).await;
    };
    let map = |rest: &str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap"{rest}}}"#);
    check("", &map(""), expect![[r#"422 Invalid PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#]]).await;
    let long = format!("fieldManager={}", "x".repeat(129));
    check(&long, &map(""), expect![[r#"422 Invalid PatchOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes"#]]).await;
    check("fieldManager=a%07", &map(""), expect![[r#"422 Invalid PatchOptions.meta.k8s.io "" is invalid: fieldManager: Invalid value: "a\u0007": invalid character U+0007 (at position 1)"#]]).await;
    let me = "fieldManager=me";
    check(me, "", expect!["400 BadRequest invalid object type: /, Kind="]).await;
    check(
        me,
        "[]",
        expect!["400 BadRequest error decoding YAML: the configuration must be an object"],
    )
    .await;
    check(
        me,
        "a: {b",
        expect!["400 BadRequest error decoding YAML: error converting YAML to JSON: yaml: line 1: unclosed bracket '{'"],
    )
    .await;
    check(me, &map(""), expect!["400 BadRequest the name of the object (a based on URL) was undeterminable: name must be provided"]).await;
    let named = |rest: &str| map(&format!(r#","metadata":{{"name":"a"{rest}}}"#));
    check(
        me,
        &map(r#","metadata":{"name":"b"}"#),
        expect!["400 BadRequest the name of the object (b) does not match the name on the URL (a)"],
    )
    .await;
    check(me, &named(r#","namespace":"b""#), expect!["400 BadRequest the namespace of the provided object does not match the namespace sent on the request"]).await;
    check(me, &named(r#","uid":"1""#), expect![[r#"409 Conflict Operation cannot be fulfilled on configmaps "a": uid mismatch: the provided object specified uid 1, and no existing object was found"#]]).await;
    check(
        me,
        &named(r#","managedFields":[{"manager":"x"}]"#),
        expect!["400 BadRequest metadata.managedFields must be nil"],
    )
    .await;
    check(me, &map(r#","metadata":{"name":"a"},"foo":1"#), expect!["500 - failed to create typed patch object (/a; /v1, Kind=ConfigMap): .foo: field not declared in schema"]).await;
    check(
        "fieldManager=me&fieldValidation=Strict",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n  k: w\n",
        expect![[r#"
            400 BadRequest error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:
              line 7: key "k" already set in map"#]],
    )
    .await;
    check(
        "fieldManager=me",
        &map(r#","metadata":{"name":"a"},"data":{"k":"v","k":"w"}"#),
        expect![[r#"
            201 {"apiVersion":"v1","data":{"k":"w"},"kind":"ConfigMap","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","managedFields":[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{"f:k":{}}},"manager":"me","operation":"Apply","time":"2026-01-01T12:00:00Z"}],"name":"a","namespace":"default","resourceVersion":"31","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}
            warning: 299 - "line 1: key \"k\" already set in map""#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_apply_over_something_is_refused() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    let check = async |query: &str, body: &str, expect: Expect| {
        api.check(&format!("PATCH+apply {MAPS}/a?{query}"), body, expect).await;
    };
    let me = "fieldManager=me";
    let named = |rest: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"{rest}}}}}"#)
    };
    check(me, &named(r#","resourceVersion":"1""#), expect![[r#"409 Conflict Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#]]).await;
    check(me, &named(r#","uid":"1""#), expect![[r#"409 Conflict Operation cannot be fulfilled on configmaps "a": Precondition failed: UID in precondition: 1, UID in object meta: 533da458-4da9-483f-8561-7adf6a4f23ce"#]]).await;
    api.check(&format!("PATCH+merge {MAPS}/a?force=true"), "{}", expect![[r#"422 Invalid PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#]]).await;
    let status = format!("PATCH+apply {DEPLOYMENTS}/none/status?{me}");
    api.check(&status, WEB, expect![[r#"404 NotFound deployments.apps "none" not found"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn every_write_has_its_owner() {
    let api = Api::new().await;
    let made = api.value(&format!("POST {DEPLOYMENTS}?fieldManager=maker"), WEB).await;
    check(
        &made,
        expect![[
            r#"maker Update apps/v1 - 2026-01-01T12:00:00Z: {"f:spec":{"f:progressDeadlineSeconds":{},"f:replicas":{},"f:revisionHistoryLimit":{},"f:selector":{},"f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}}}}"#
        ]],
    );
    let path = format!("{DEPLOYMENTS}/web");
    super::pass(1).await;
    let scale = r#"{"spec":{"replicas":5}}"#;
    api.value(&format!("PATCH+merge {path}/scale?fieldManager=scaler"), scale).await;
    let status = r#"{"status":{"replicas":5,"conditions":[{"type":"Available","status":"True"}]}}"#;
    api.value(&format!("PATCH+merge {path}/status?fieldManager=controller"), status).await;
    let labels = r#"{"metadata":{"labels":{"a":"b"}},"status":{"replicas":9}}"#;
    let made = api.value(&format!("PATCH+strategic {path}?fieldManager=labeler"), labels).await;
    check(
        &made,
        expect![[r#"
        scaler Update apps/v1 scale -: {"f:spec":{"f:replicas":{}}}
        maker Update apps/v1 - 2026-01-01T12:00:00Z: {"f:spec":{"f:progressDeadlineSeconds":{},"f:revisionHistoryLimit":{},"f:selector":{},"f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}}}}
        controller Update apps/v1 status 2026-01-01T12:00:01Z: {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Available\"}":{".":{},"f:status":{},"f:type":{}}},"f:replicas":{}}}
        labeler Update apps/v1 - 2026-01-01T12:00:01Z: {"f:metadata":{"f:labels":{".":{},"f:a":{}}}}"#]],
    );
    // Who applies what others own must say so.
    let apply = |query: &str| format!("PATCH+apply {path}{query}");
    api.check(&apply("?fieldManager=applier"), WEB, expect![[r#"409 Conflict Apply failed with 1 conflict: conflict with "scaler" with subresource "scale" using apps/v1: .spec.replicas"#]]).await;
    let made = api.value(&apply("?fieldManager=applier&force=true"), WEB).await;
    check(
        &made,
        expect![[r#"
        applier Apply apps/v1 - 2026-01-01T12:00:01Z: {"f:spec":{"f:replicas":{},"f:selector":{}}}
        maker Update apps/v1 - 2026-01-01T12:00:00Z: {"f:spec":{"f:progressDeadlineSeconds":{},"f:revisionHistoryLimit":{},"f:selector":{},"f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}}}}
        controller Update apps/v1 status 2026-01-01T12:00:01Z: {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Available\"}":{".":{},"f:status":{},"f:type":{}}},"f:replicas":{}}}
        labeler Update apps/v1 - 2026-01-01T12:00:01Z: {"f:metadata":{"f:labels":{".":{},"f:a":{}}}}"#]],
    );
    let five = r#"{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"web"},"spec":{"replicas":5}}"#;
    api.check(
        &apply("/scale?fieldManager=scaler"),
        five,
        expect![[
            r#"409 Conflict Apply failed with 1 conflict: conflict with "applier": .spec.replicas"#
        ]],
    )
    .await;
    api.value(&apply("/scale?fieldManager=scaler&force=true"), five).await;
    check(
        &api.value(&format!("GET {path}"), "").await,
        expect![[r#"
        scaler Apply apps/v1 scale -: {"f:spec":{"f:replicas":{}}}
        applier Apply apps/v1 - 2026-01-01T12:00:01Z: {"f:spec":{"f:selector":{}}}
        maker Update apps/v1 - 2026-01-01T12:00:00Z: {"f:spec":{"f:progressDeadlineSeconds":{},"f:revisionHistoryLimit":{},"f:selector":{},"f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}}}}
        controller Update apps/v1 status 2026-01-01T12:00:01Z: {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Available\"}":{".":{},"f:status":{},"f:type":{}}},"f:replicas":{}}}
        labeler Update apps/v1 - 2026-01-01T12:00:01Z: {"f:metadata":{"f:labels":{".":{},"f:a":{}}}}"#]],
    );
    // The list can be cleared, and then nobody is noted until somebody applies.
    let cleared = r#"[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]"#;
    check(&api.value(&format!("PATCH+json {path}"), cleared).await, expect![[""]]);
    let made = api.value(&format!("PATCH+merge {path}"), r#"{"spec":{"paused":true}}"#).await;
    check(&made, expect![[""]]);
    let made = api.value(&apply("?fieldManager=applier&force=true"), WEB).await;
    check(
        &made,
        expect![[r#"
        applier Apply apps/v1 - 2026-01-01T12:00:01Z: {"f:spec":{"f:replicas":{},"f:selector":{}}}
        before-first-apply Update apps/v1 - 2026-01-01T12:00:01Z: {"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"f:paused":{},"f:progressDeadlineSeconds":{},"f:revisionHistoryLimit":{},"f:selector":{},"f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}}}}"#]],
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_may_say_who_owns_what() {
    let api = Api::new().await;
    let mut map = api.config_map("a", r#""a":"b""#).await;
    map["metadata"]["managedFields"][0]["manager"] = Value::from("renamed");
    map["data"]["k"] = Value::from("v");
    let put = format!("PUT {MAPS}/a?fieldManager=putter");
    check(
        &api.value(&put, &map.to_string()).await,
        expect![[r#"
        putter Update v1 - 2026-01-01T12:00:00Z: {"f:data":{".":{},"f:k":{}}}
        renamed Update v1 - 2026-01-01T12:00:00Z: {"f:metadata":{"f:labels":{".":{},"f:a":{}}}}"#]],
    );
    map["metadata"]["resourceVersion"] = Value::Null;
    map["metadata"]["managedFields"] = Value::Null;
    let before = api.value(&format!("GET {MAPS}/a"), "").await;
    let after = api.value(&put, &map.to_string()).await;
    assert_eq!(before, after, "the same again changes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_bound_pod_keeps_its_owners() {
    let api = Api::new().await;
    let before = api.pod("p", None).await;
    let after = api.pod("q", Some("n1")).await;
    assert_eq!(owners(&before), owners(&after));
    let path = "/api/v1/namespaces/default/pods/q";
    let going = api.value(&format!("DELETE {path}"), "").await;
    assert_eq!(owners(&going), owners(&after), "a deletion owns nothing");
}

#[tokio::test(start_paused = true)]
async fn kubectl_comes_over_from_client_side_apply() {
    let api = Api::new().await;
    let last = r#"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"a\",\"namespace\":\"default\"},\"data\":{\"k\":\"v\",\"l\":\"w\"}}\n"#;
    let annotation = format!(r#""kubectl.kubernetes.io/last-applied-configuration":"{last}""#);
    let body = format!(
        r#"{{"metadata":{{"name":"a","annotations":{{{annotation}}}}},"data":{{"k":"v","l":"w"}}}}"#
    );
    api.value(&format!("POST {MAPS}?fieldManager=kubectl-client-side-apply"), &body).await;
    let apply = format!("PATCH+apply {MAPS}/a");
    let wanted = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"2","l":"<w>"}}"#;
    api.check(&format!("{apply}?fieldManager=other"), wanted, expect![[r#"
        409 Conflict Apply failed with 2 conflicts: conflicts with "kubectl-client-side-apply" using v1:
        - .data.k
        - .data.l"#]]).await;
    let made = api.value(&format!("{apply}?fieldManager=kubectl"), wanted).await;
    check(
        &made,
        expect![[r#"
        kubectl Apply v1 - 2026-01-01T12:00:00Z: {"f:data":{"f:k":{},"f:l":{}}}
        kubectl-client-side-apply Update v1 - 2026-01-01T12:00:00Z: {"f:data":{},"f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/last-applied-configuration":{}}}}"#]],
    );
    let annotation = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";
    expect![[r#"
        {"apiVersion":"v1","data":{"k":"2","l":"\u003cw\u003e"},"kind":"ConfigMap","metadata":{"name":"a"}}
    "#]].assert_eq(&pick(&made, &[annotation]));
}
