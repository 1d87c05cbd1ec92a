//! What nodes measure: `metrics.k8s.io`.

use expect_test::expect;
use serde_json::Value;

use super::{Api, pick};

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

/// A node that is measured, with three pods. The connector of these tests tells of one of them, and of
/// one that is gone.
async fn api() -> Api {
    let api = Api::new().await;
    api.value("POST /api/v1/nodes", r#"{"metadata":{"name":"one","labels":{"disk":"fast"}}}"#)
        .await;
    api.pod("a", Some("one")).await;
    api.pod("young", Some("one")).await;
    api.value(
        "PATCH+merge /api/v1/namespaces/default/pods/a",
        r#"{"metadata":{"labels":{"app":"web"}}}"#,
    )
    .await;
    api
}

fn names(list: &Value) -> String {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|it| it["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[tokio::test(start_paused = true)]
async fn objects_are_metrics_servers() {
    let api = api().await;
    api.check(
        &format!("GET {METRICS}/nodes/one"),
        "",
        expect![[r#"200 {"apiVersion":"metrics.k8s.io/v1beta1","kind":"NodeMetrics","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","labels":{"disk":"fast"},"name":"one"},"timestamp":"2026-01-01T12:00:00Z","usage":{"cpu":"1234567890n","memory":"3Gi"},"window":"15.032s"}"#]],
    )
    .await;
    api.check(
        &format!("GET {METRICS}/namespaces/default/pods"),
        "",
        expect![[r#"200 {"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{},"items":[{"apiVersion":"metrics.k8s.io/v1beta1","containers":[{"name":"app","usage":{"cpu":"250m","memory":"12Mi"}}],"kind":"PodMetrics","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","labels":{"app":"web"},"name":"a","namespace":"default"},"timestamp":"2026-01-01T12:00:00Z","window":"15.032s"}]}"#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn lists_are_selected() {
    let api = api().await;
    for (path, expected) in [
        ("nodes", "one"),
        ("nodes?labelSelector=disk%3Dslow", ""),
        ("pods", "a"),
        ("pods?labelSelector=app%3Dweb", "a"),
        ("pods?labelSelector=app!%3Dweb", ""),
        ("pods?fieldSelector=metadata.name%3Da", "a"),
        ("pods?fieldSelector=metadata.name%3Db", ""),
        ("namespaces/other/pods", ""),
    ] {
        let list = api.value(&format!("GET {METRICS}/{path}"), "").await;
        assert_eq!(names(&list), expected, "{path}");
    }
    let table = api.value(&format!("GET+table {METRICS}/pods"), "").await;
    let cells = &["/rows/0/cells/0", "/rows/0/cells/1", "/rows/0/cells/2", "/rows/0/cells/3"];
    assert_eq!(pick(&table, cells), "a 250m 12Mi 15.032s");
}

#[tokio::test(start_paused = true)]
async fn what_has_no_rate_yet_is_not_found() {
    let api = api().await;
    let pods = format!("GET {METRICS}/namespaces/default/pods");
    api.check(
        &format!("{pods}/young"),
        "",
        expect![[r#"404 NotFound podmetrics.metrics.k8s.io "default/young" not found"#]],
    )
    .await;
    api.check(&format!("{pods}/gone"), "", expect![[r#"404 NotFound pods "gone" not found"#]])
        .await;
    let nodes = format!("GET {METRICS}/nodes");
    api.check(&format!("{nodes}/two"), "", expect![[r#"404 NotFound nodes "two" not found"#]])
        .await;
    api.value("POST /api/v1/nodes", r#"{"metadata":{"name":"two"}}"#).await;
    api.check(
        &format!("{nodes}/two"),
        "",
        expect![[r#"404 NotFound nodemetrics.metrics.k8s.io "two" not found"#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_can_be_written_or_watched() {
    let api = api().await;
    for request in ["POST", "DELETE"] {
        let answer = format!("{request} {METRICS}/namespaces/default/pods");
        api.check(&answer, "{}", expect!["405 MethodNotAllowed the server does not allow this method on the requested resource"]).await;
    }
    api.check(
        &format!("GET {METRICS}/pods?watch=true"),
        "",
        expect![
            "405 MethodNotAllowed the server does not allow this method on the requested resource"
        ],
    )
    .await;
}
