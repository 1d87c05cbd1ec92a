//! Bodies and answers in protobuf, as client-go sends and asks for them.

use expect_test::expect;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::Api;
use crate::protobuf;

const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// The object of a protobuf answer, and its status.
async fn object(response: http::Response<crate::Body>) -> (StatusCode, Value) {
    assert_eq!(response.headers()["content-type"], protobuf::MEDIA_TYPE);
    let code = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, protobuf::decode(&body).unwrap())
}

fn config_map(name: &str) -> Vec<u8> {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"a": "b"}});
    protobuf::encode(object.to_string().as_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_object_goes_in_and_comes_out() {
    let api = Api::new().await;
    let (code, made) = object(api.send_bytes("POST+protobuf", PATH, config_map("m")).await).await;
    assert_eq!((code, &made["kind"]), (StatusCode::CREATED, &json!("ConfigMap")));
    let path = format!("{PATH}/m");
    let stored = api.value(&format!("GET {path}"), "").await;
    assert_eq!(stored, made);
    let (_, list) = object(api.send_bytes("GET+protobuf", PATH, Vec::new()).await).await;
    assert_eq!(list["kind"], "ConfigMapList");
    let item = &list["items"][0];
    assert_eq!((&item["data"], &item["metadata"]["name"]), (&json!({"a": "b"}), &json!("m")));
    let options = json!({"apiVersion": "meta.k8s.io/v1", "kind": "DeleteOptions",
        "preconditions": {"uid": "other"}});
    let options = protobuf::encode(options.to_string().as_bytes()).unwrap();
    let (code, status) = object(api.send_bytes("DELETE+protobuf", &path, options).await).await;
    assert_eq!((code, &status["reason"]), (StatusCode::CONFLICT, &json!("Conflict")));
    let (code, status) = object(api.send_bytes("DELETE+protobuf", &path, Vec::new()).await).await;
    assert_eq!((code, &status["status"]), (StatusCode::OK, &json!("Success")));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused() {
    let api = Api::new().await;
    let response = api.send_bytes("POST+protobuf", PATH, b"{}".to_vec()).await;
    let (code, status) = object(response).await;
    expect![[r#"400 Bad Request "the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]""#]]
    .assert_eq(&format!("{code} {}", status["message"]));
    let pods = "/api/v1/namespaces/default/pods";
    let (code, status) = object(api.send_bytes("POST+protobuf", pods, config_map("m")).await).await;
    expect![[r#"400 Bad Request "ConfigMap in version \"v1\" cannot be handled as a Pod: the kind in the data (ConfigMap) does not match the expected kind (Pod)""#]]
    .assert_eq(&format!("{code} {}", status["message"]));
}

#[tokio::test(start_paused = true)]
async fn events_come_in_frames() {
    let api = Api::new().await;
    api.config_map("m", "").await;
    let path = format!(
        "{PATH}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&\
         allowWatchBookmarks=true"
    );
    let response = api.send_bytes("GET+protobuf", &path, Vec::new()).await;
    let content_type = "application/vnd.kubernetes.protobuf;stream=watch";
    assert_eq!(response.headers()["content-type"], content_type);
    let mut body = response.into_body();
    let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let mut rest = chunk.as_ref();
    let mut seen = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let (event, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        rest = after;
        // Field 1: the type. Field 2: an extension whose field 1 is the object.
        let kind = std::str::from_utf8(&event[2..2 + usize::from(event[1])]).unwrap();
        let at = event.windows(4).position(|it| it == b"k8s\0").unwrap();
        let object = protobuf::decode(&event[at..]).unwrap();
        seen.push(format!("{kind} {} {}", object["kind"], object["metadata"]["annotations"]));
    }
    expect![[r#"
        ADDED "ConfigMap" null
        BOOKMARK "ConfigMap" {"k8s.io/initial-events-end":"true"}"#]]
    .assert_eq(&seen.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn metadata_alone_and_no_tables() {
    let api = Api::new().await;
    api.config_map("m", r#""a":"b""#).await;
    let (_, list) = object(api.send_bytes("GET+protobuf-partial", PATH, Vec::new()).await).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["labels"], json!({"a": "b"}));
    api.check(
        "GET+protobuf-table /api/v1/namespaces/default/configmaps",
        "",
        expect![
            "406 NotAcceptable only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        ],
    )
    .await;
}
