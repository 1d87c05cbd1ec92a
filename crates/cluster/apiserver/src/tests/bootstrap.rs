//! What every cluster has from its first moment, as `kubectl get` shows it.

use expect_test::expect;
use serde_json::Value;

use super::{Api, pick};

/// The rows of a list without their ages.
async fn rows(api: &Api, list: &str) -> String {
    let table = api.value(&format!("GET+table {list}"), "").await;
    let columns = table["columnDefinitions"].as_array().unwrap();
    let age = columns.iter().position(|it| it["name"] == "Age").unwrap();
    let rows = table["rows"].as_array().unwrap().iter().map(|row| {
        let mut cells = row["cells"].as_array().unwrap().clone();
        cells.remove(age);
        let text = |it: &Value| it.as_str().map_or_else(|| it.to_string(), str::to_owned);
        cells.iter().map(text).collect::<Vec<_>>().join(" | ")
    });
    rows.collect::<Vec<_>>().join("\n")
}

#[tokio::test(start_paused = true)]
async fn flow_control() {
    let api = Api::new().await;
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    expect![[r#"
        catch-all | Limited | 5 | <none> | <none> | <none>
        exempt | Exempt | <none> | <none> | <none> | <none>
        global-default | Limited | 20 | 128 | 6 | 50
        leader-election | Limited | 10 | 16 | 4 | 50
        node-high | Limited | 40 | 64 | 6 | 50
        system | Limited | 30 | 64 | 6 | 50
        workload-high | Limited | 40 | 128 | 6 | 50
        workload-low | Limited | 100 | 128 | 6 | 50"#]]
    .assert_eq(&rows(&api, &format!("{group}/prioritylevelconfigurations")).await);
    expect![[r#"
        catch-all | catch-all | 10000 | ByUser | ?
        exempt | exempt | 1 | <none> | ?
        global-default | global-default | 9900 | ByUser | ?
        kube-controller-manager | workload-high | 800 | ByNamespace | ?
        kube-scheduler | workload-high | 800 | ByNamespace | ?
        kube-system-service-accounts | workload-high | 900 | ByNamespace | ?
        probes | exempt | 2 | <none> | ?
        service-accounts | workload-low | 9000 | ByUser | ?
        system-leader-election | leader-election | 100 | ByUser | ?
        system-node-high | node-high | 400 | ByUser | ?
        system-nodes | system | 500 | ByUser | ?"#]]
    .assert_eq(&rows(&api, &format!("{group}/flowschemas")).await);
    let leaders = api.value(&format!("GET {group}/flowschemas/system-leader-election"), "").await;
    expect![[r#"{"distinguisherMethod":{"type":"ByUser"},"matchingPrecedence":100,"priorityLevelConfiguration":{"name":"leader-election"},"rules":[{"resourceRules":[{"apiGroups":["coordination.k8s.io"],"namespaces":["*"],"resources":["leases"],"verbs":["get","create","update"]}],"subjects":[{"kind":"User","user":{"name":"system:kube-controller-manager"}},{"kind":"User","user":{"name":"system:kube-scheduler"}},{"kind":"ServiceAccount","serviceAccount":{"name":"*","namespace":"kube-system"}}]}]}"#]].assert_eq(&leaders["spec"].to_string());
    let nodes = api.value(&format!("GET {group}/flowschemas/system-node-high"), "").await;
    expect![[r#"[{"resourceRules":[{"apiGroups":[""],"clusterScope":true,"namespaces":["*"],"resources":["nodes","nodes/status"],"verbs":["*"]},{"apiGroups":["coordination.k8s.io"],"namespaces":["*"],"resources":["leases"],"verbs":["*"]}],"subjects":[{"group":{"name":"system:nodes"},"kind":"Group"}]}]"#]].assert_eq(&nodes["spec"]["rules"].to_string());
    let probes = api.value(&format!("GET {group}/flowschemas/probes"), "").await;
    expect![[r#"[{"nonResourceRules":[{"nonResourceURLs":["/healthz","/readyz","/livez"],"verbs":["get"]}],"subjects":[{"group":{"name":"system:unauthenticated"},"kind":"Group"},{"group":{"name":"system:authenticated"},"kind":"Group"}]}]"#]].assert_eq(&probes["spec"]["rules"].to_string());
    expect![[r#"{"apf.kubernetes.io/autoupdate-spec":"true"} api-priority-and-fairness-config-producer-v1"#]]
        .assert_eq(&pick(&probes, &["/metadata/annotations", "/metadata/managedFields/0/manager"]));
}

#[tokio::test(start_paused = true)]
async fn addresses() {
    let api = Api::new().await;
    let group = "/apis/networking.k8s.io/v1";
    expect!["kubernetes | 10.96.0.0/16,fd00:10:96::/112"]
        .assert_eq(&rows(&api, &format!("{group}/servicecidrs")).await);
    expect!["10.96.0.1 | services/default/kubernetes"]
        .assert_eq(&rows(&api, &format!("{group}/ipaddresses")).await);
    let range = api.value(&format!("GET {group}/servicecidrs/kubernetes"), "").await;
    expect![[r#"{"conditions":[{"lastTransitionTime":"2026-01-01T12:00:00Z","message":"Kubernetes default Service CIDR is ready","reason":"","status":"True","type":"Ready"}]}"#]].assert_eq(&range["status"].to_string());
    let service = api.value("GET /api/v1/namespaces/default/services/kubernetes", "").await;
    expect!["10.96.0.1"].assert_eq(&pick(&service, &["/spec/clusterIP"]));
}

#[tokio::test(start_paused = true)]
async fn what_is_there_stays() {
    let api = Api::new().await;
    let level = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/system";
    let change = r#"{"spec":{"limited":{"nominalConcurrencyShares":7}}}"#;
    api.value(&format!("PATCH+merge {level}"), change).await;
    let before = api.value("GET /api/v1/namespaces", "").await;
    let again = api.fork().await;
    let after = again.value("GET /api/v1/namespaces", "").await;
    // A second start writes nothing.
    let version = &["/metadata/resourceVersion"];
    assert_eq!(pick(&before, version), pick(&after, version));
    let level = again.value(&format!("GET {level}"), "").await;
    assert_eq!(pick(&level, &["/spec/limited/nominalConcurrencyShares"]), "7");
}
