//! What stands in the store although no client could have put it there: it is passed over where it is
//! one of many, and nothing else suffers.

use bytes::Bytes;
use expect_test::expect;
use http_body_util::BodyExt as _;
use store::{Expect, Store};

use super::{Api, pick};
use crate::protobuf;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server on a store that has this.
async fn holding(key: &'static str, value: &'static str) -> Api {
    let store = Store::in_memory().unwrap();
    let key = Bytes::from_static(key.as_bytes());
    let value = Bytes::from_static(value.as_bytes());
    store.put(key, Expect::Absent, |_| value.clone()).await.unwrap();
    Api::on(store).await
}

#[tokio::test(start_paused = true)]
async fn a_list_in_protobuf_leaves_out_what_cannot_be_written_so() {
    // A number where the type has a text.
    let api = holding(
        "/registry/core/configmaps/default/bad",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"bad","resourceVersion":"1"},"data":{"a":1}}"#,
    )
    .await;
    api.config_map("after", "").await;
    let listed = async |flavour: &str| {
        let response = api.send_bytes(&format!("GET{flavour}"), MAPS, Vec::new()).await;
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap().to_bytes()
    };
    let list: serde_json::Value = serde_json::from_slice(&listed("").await).unwrap();
    assert_eq!(pick(&list, &["/items/0/metadata/name", "/items/1/metadata/name"]), "after bad");
    let list = protobuf::decode(&listed("+protobuf").await).unwrap();
    let shown = ["/kind", "/metadata/resourceVersion", "/items/0/metadata/name", "/items/1"];
    let version = pick(&list, &["/metadata/resourceVersion"]);
    assert!(version.parse::<u64>().unwrap() > 1);
    assert_eq!(pick(&list, &shown), format!("ConfigMapList {version} after -"));
}

#[tokio::test(start_paused = true)]
async fn a_broken_budget_does_not_keep_pods_from_going() {
    let api = holding("/registry/policy/poddisruptionbudgets/default/bad", "{\"metadata\":").await;
    api.pod("a", Some("n1")).await;
    let status = r#"{"status":{"phase":"Running"}}"#;
    api.value("PATCH+merge /api/v1/namespaces/default/pods/a/status", status).await;
    let eviction = r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"a"}}"#;
    api.check(
        "POST /api/v1/namespaces/default/pods/a/eviction",
        eviction,
        expect![[
            r#"201 {"apiVersion":"v1","code":201,"kind":"Status","metadata":{},"status":"Success"}"#
        ]],
    )
    .await;
}
