//! Watches: events, selectors, bookmarks, initial events, the end.

use bytes::Bytes;
use expect_test::{Expect, expect};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::{Api, pass, text};
use crate::Body;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Watch(Body);

impl Watch {
    async fn open(api: &Api, request: &str) -> Self {
        let response = api.send(request, "").await;
        assert_eq!(response.status(), 200, "{request}");
        Self(response.into_body())
    }

    /// Everything that has arrived by now: `TYPE name@version`.
    fn seen(&mut self) -> String {
        let mut all = Vec::new();
        while let Some(Some(Ok(frame))) = self.0.frame().now_or_never() {
            all.extend(lines(&frame.into_data().unwrap()));
        }
        all.join("\n")
    }

    #[track_caller]
    fn check(&mut self, expect: Expect) {
        expect.assert_eq(&self.seen());
    }
}

fn lines(chunk: &Bytes) -> Vec<String> {
    let events = std::str::from_utf8(chunk).unwrap().lines();
    let events = events.map(|it| serde_json::from_str::<Value>(it).unwrap());
    events
        .map(|event| {
            let object = &event["object"];
            let kind = event["type"].as_str().unwrap();
            if kind == "ERROR" {
                return format!("ERROR {} {}", object["code"], object["message"]);
            }
            let metadata = &object["metadata"];
            let annotations = match &metadata["annotations"] {
                Value::Null => String::new(),
                other => format!(" {other}"),
            };
            let name = metadata["name"].as_str().unwrap_or("-");
            let version = metadata["resourceVersion"].as_str().unwrap();
            format!("{kind} {name}@{version}{annotations}")
        })
        .collect()
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn from_a_version_on() {
    let api = Api::new().await;
    let from = version(&api.config_map("a", "").await);
    let mut watch = Watch::open(&api, &format!("GET {MAPS}?watch=1&resourceVersion={from}")).await;
    watch.check(expect![""]);
    api.config_map("b", "").await;
    api.value(&format!("PATCH+merge {MAPS}/b"), r#"{"data":{"k":"v"}}"#).await;
    api.value(&format!("DELETE {MAPS}/a"), "").await;
    watch.check(expect![[r#"
        ADDED b@32
        MODIFIED b@33
        DELETED a@34"#]]);
    // Nothing of other kinds or namespaces.
    api.value("POST /api/v1/namespaces", r#"{"metadata":{"name":"other"}}"#).await;
    api.value("POST /api/v1/namespaces/other/configmaps", r#"{"metadata":{"name":"c"}}"#).await;
    watch.check(expect![""]);
}

#[tokio::test(start_paused = true)]
async fn begins_with_what_is_there() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    for query in ["watch=1", "watch=true&resourceVersion=0"] {
        let mut watch = Watch::open(&api, &format!("GET {MAPS}?{query}")).await;
        watch.check(expect!["ADDED a@31"]);
    }
}

#[tokio::test(start_paused = true)]
async fn initial_events_end_with_a_bookmark() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    api.config_map("b", "").await;
    let query =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let one = format!("GET {MAPS}?{query}&fieldSelector=metadata.name=a");
    let mut one = Watch::open(&api, &one).await;
    let mut all = Watch::open(&api, &format!("GET {MAPS}?{query}")).await;
    let mut table = Watch::open(&api, &format!("GET+table {MAPS}?{query}")).await;
    one.check(expect![[r#"
        ADDED a@31
        BOOKMARK -@32 {"k8s.io/initial-events-end":"true"}"#]]);
    all.check(expect![[r#"
        ADDED a@31
        ADDED b@32
        BOOKMARK -@32 {"k8s.io/initial-events-end":"true"}"#]]);
    assert!(table.seen().lines().last().unwrap().starts_with("BOOKMARK"));
    api.config_map("aa", "").await;
    one.check(expect![""]);
    all.check(expect!["ADDED aa@33"]);
    let wrong = format!("GET {MAPS}?watch=1&sendInitialEvents=true");
    api.check(&wrong, "", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn selectors_turn_changes_into_coming_and_going() {
    let api = Api::new().await;
    let from = version(&api.config_map("a", r#""x":"1""#).await);
    let watch = format!("GET {MAPS}?watch=1&labelSelector=x%3D1&resourceVersion={from}");
    let mut watch = Watch::open(&api, &watch).await;
    let label = async |value: &str| {
        let body = format!(r#"{{"metadata":{{"labels":{{"x":{value}}}}}}}"#);
        api.value(&format!("PATCH+merge {MAPS}/a"), &body).await;
    };
    label("\"2\"").await;
    label("\"3\"").await;
    label("\"1\"").await;
    api.value(&format!("PATCH+merge {MAPS}/a"), r#"{"data":{"k":"v"}}"#).await;
    label("null").await;
    api.value(&format!("DELETE {MAPS}/a"), "").await;
    watch.check(expect![[r#"
        DELETED a@32
        ADDED a@34
        MODIFIED a@35
        DELETED a@36"#]]);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_follow_the_newest_version() {
    let api = Api::new().await;
    let from = version(&api.config_map("a", "").await);
    let query = format!("watch=1&resourceVersion={from}&timeoutSeconds=90");
    let with = format!("GET {MAPS}?{query}&allowWatchBookmarks=true");
    let mut with = Watch::open(&api, &with).await;
    let mut without = Watch::open(&api, &format!("GET {MAPS}?{query}")).await;
    api.value("POST /api/v1/namespaces", r#"{"metadata":{"name":"other"}}"#).await;
    pass(61).await;
    with.check(expect!["BOOKMARK -@32"]);
    without.check(expect![""]);
    pass(60).await;
    with.check(expect!["BOOKMARK -@32"]);
    assert!(with.0.frame().now_or_never().unwrap().is_none(), "ended after timeoutSeconds");
    assert!(without.0.frame().now_or_never().unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_past_ends() {
    let api = Api::new().await;
    let from = version(&api.config_map("a", "").await);
    let watch = format!("GET {MAPS}?watch=1&resourceVersion={from}");
    let mut slow = Watch::open(&api, &watch).await;
    for index in 0..100 {
        let body = format!(r#"{{"data":{{"n":"{index}"}}}}"#);
        api.value(&format!("PUT {MAPS}/a"), &body).await;
    }
    // A client that did not read, and one that comes back too late.
    slow.check(expect![[r#"ERROR 410 "the watch has fallen behind; oldest is 67""#]]);
    let mut late = Watch::open(&api, &watch).await;
    late.check(expect![[r#"ERROR 410 "too old resource version: 31 (67)""#]]);
    api.check(
        &format!("GET {MAPS}?watch=1&resourceVersion=99999"),
        "",
        expect!["504 Timeout Timeout: Too large resource version: 99999, current: 131"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn table_has_its_header_once() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    api.config_map("b", "").await;
    let response = api.send(&format!("GET+table {MAPS}?watch=1&timeoutSeconds=1"), "").await;
    let (_, text) = text(response).await;
    let events: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let headers = events.iter().map(|it| it["object"]["columnDefinitions"].is_array());
    assert_eq!(headers.collect::<Vec<_>>(), [true, false]);
    assert_eq!(events[1]["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test(start_paused = true)]
async fn stop_ends_watches_at_once() {
    let api = Api::new().await;
    let mut watch = Watch::open(&api, &format!("GET {MAPS}?watch=1&resourceVersion=1")).await;
    assert!(api.tasks.shutdown(std::time::Duration::from_secs(1)).await);
    watch.seen();
    assert!(watch.0.frame().await.is_none());
}
