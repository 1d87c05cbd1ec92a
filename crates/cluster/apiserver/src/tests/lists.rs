//! Lists: selectors, pages, resource versions, forms.

use std::io::Read as _;

use expect_test::{Expect, expect};
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::{Api, pick, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> String {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|it| it["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[tokio::test(start_paused = true)]
async fn selectors() {
    let api = Api::new().await;
    api.config_map("a", r#""app":"x","n":"1""#).await;
    api.config_map("b", r#""app":"y""#).await;
    api.pod("p", Some("n1")).await;
    let check = async |path: &str, expect: Expect| {
        expect.assert_eq(&names(&api.value(&format!("GET {path}"), "").await));
    };
    check(&format!("{MAPS}?labelSelector=app%3Dx"), expect!["a"]).await;
    check(&format!("{MAPS}?labelSelector=app%20in%20(x,y),!n"), expect!["b"]).await;
    check(&format!("{MAPS}?fieldSelector=metadata.name%3Da"), expect!["a"]).await;
    check(&format!("{MAPS}?fieldSelector=metadata.name!%3Da"), expect!["b"]).await;
    check("/api/v1/configmaps?fieldSelector=metadata.namespace=default", expect!["a b"]).await;
    check("/api/v1/configmaps?fieldSelector=metadata.namespace=kube-system", expect![""]).await;
    check("/api/v1/pods?fieldSelector=spec.nodeName=n1,status.phase!=Failed", expect!["p"]).await;
    check("/api/v1/pods?fieldSelector=spec.nodeName=n2", expect![""]).await;
    api.check(
        &format!("GET {MAPS}?fieldSelector=data=x"),
        "",
        expect!["400 BadRequest field label not supported: data"],
    )
    .await;
    api.check(&format!("GET {MAPS}?labelSelector=a%20b"), "", expect!["400 BadRequest unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"]).await;
}

#[tokio::test(start_paused = true)]
async fn pages_are_of_one_moment() {
    let api = Api::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        api.config_map(name, "").await;
    }
    let first = api.value(&format!("GET {MAPS}?limit=2"), "").await;
    assert_eq!(names(&first), "a b");
    assert_eq!(pick(&first, &["/metadata/remainingItemCount"]), "3");
    // What happens between the pages is not seen.
    api.config_map("bb", "").await;
    api.value(&format!("DELETE {MAPS}/c"), "").await;
    api.value(&format!("PATCH+merge {MAPS}/d"), r#"{"data":{"new":"1"}}"#).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = api.value(&format!("GET {MAPS}?limit=2&continue={token}"), "").await;
    assert_eq!(names(&second), "c d");
    assert_eq!(pick(&second, &["/items/1/data"]), "-");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = api.value(&format!("GET {MAPS}?limit=2&continue={token}"), "").await;
    assert_eq!(names(&third), "e");
    assert_eq!(pick(&third, &["/metadata/continue"]), "-");
    let exact = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = format!("GET {MAPS}?resourceVersion={exact}&resourceVersionMatch=Exact");
    assert_eq!(names(&api.value(&exact, "").await), "a b c d e");
    assert_eq!(names(&api.value(&format!("GET {MAPS}"), "").await), "a b bb d e");
}

#[tokio::test(start_paused = true)]
async fn pages_through_selectors() {
    let api = Api::new().await;
    for (index, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        api.config_map(name, if index % 2 == 0 { r#""x":"1""# } else { "" }).await;
    }
    let list = format!("GET {MAPS}?labelSelector=x&limit=2");
    let first = api.value(&list, "").await;
    assert_eq!(names(&first), "a c");
    assert_eq!(pick(&first, &["/metadata/remainingItemCount"]), "-");
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = api.value(&format!("{list}&continue={token}"), "").await;
    assert_eq!(names(&second), "e");
    assert_eq!(pick(&second, &["/metadata/continue"]), "-");
}

#[tokio::test(start_paused = true)]
async fn the_past_ends() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    api.config_map("b", "").await;
    let first = api.value(&format!("GET {MAPS}?limit=1"), "").await;
    for index in 0..100 {
        let body = format!(r#"{{"data":{{"n":"{index}"}}}}"#);
        api.value(&format!("PUT {MAPS}/a"), &body).await;
    }
    let token = first["metadata"]["continue"].as_str().unwrap();
    api.check(&format!("GET {MAPS}?limit=1&continue={token}"), "", expect!["410 Expired The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."]).await;
    // The answer says how to go on, if need be with what is newest.
    let lost = api.send(&format!("GET {MAPS}?limit=1&continue={token}"), "").await;
    let lost: Value = serde_json::from_str(&text(lost).await.1).unwrap();
    let token = lost["metadata"]["continue"].as_str().unwrap();
    let rest = api.value(&format!("GET {MAPS}?limit=1&continue={token}"), "").await;
    assert_eq!(names(&rest), "b");
    api.check(
        &format!("GET {MAPS}?continue=rubbish"),
        "",
        expect!["400 BadRequest invalid continue token: continue key is not valid: invalid character '®' looking for beginning of value"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn resource_versions() {
    let api = Api::new().await;
    for query in [
        "resourceVersion=0",
        "resourceVersion=1",
        "resourceVersion=1&resourceVersionMatch=NotOlderThan",
    ] {
        api.value(&format!("GET {MAPS}?{query}"), "").await;
    }
    let check = async |query: &str, expect: Expect| {
        api.check(&format!("GET {MAPS}?{query}"), "", expect).await;
    };
    check("resourceVersion=x", expect![[r#"400 BadRequest invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax"#]]).await;
    check(
        "resourceVersion=999999",
        expect!["504 Timeout Timeout: Too large resource version: 999999, current: 30"],
    )
    .await;
    check("resourceVersionMatch=Exact", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#]]).await;
    check("resourceVersion=0&resourceVersionMatch=Exact", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0""#]]).await;
}

#[tokio::test(start_paused = true)]
async fn forms() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    api.check(&format!("GET {MAPS}"), "", expect![[r#"200 {"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"31"},"items":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","name":"a","namespace":"default","resourceVersion":"31","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}]}"#]]).await;
    api.check(&format!("GET+table {MAPS}"), "", expect![[r#"200 {"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"31"},"columnDefinitions":[{"description":"Name of the object, unique among its kind in its namespace.","format":"name","name":"Name","priority":0,"type":"string"},{"description":"Number of keys.","format":"","name":"Data","priority":0,"type":"integer"},{"description":"Time since the object was created.","format":"","name":"Age","priority":0,"type":"string"}],"rows":[{"cells":["a",0,"0s"],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","name":"a","namespace":"default","resourceVersion":"31","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}}]}"#]]).await;
    api.check(&format!("GET+partials {MAPS}"), "", expect![[r#"200 {"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"31"},"items":[{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","name":"a","namespace":"default","resourceVersion":"31","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}]}"#]]).await;
    api.check(&format!("GET+table {MAPS}?includeObject=None&limit=1"), "", expect![[r#"200 {"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"31"},"columnDefinitions":[{"description":"Name of the object, unique among its kind in its namespace.","format":"name","name":"Name","priority":0,"type":"string"},{"description":"Number of keys.","format":"","name":"Data","priority":0,"type":"integer"},{"description":"Time since the object was created.","format":"","name":"Age","priority":0,"type":"string"}],"rows":[{"cells":["a",0,"0s"],"object":null}]}"#]]).await;
    api.check("GET /api/v1/nodes", "", expect![[r#"200 {"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"31"},"items":[]}"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_list_comes_in_pieces() {
    const OBJECTS: usize = 40;
    let api = Api::new().await;
    let value = "x".repeat(30_000);
    for number in 0..OBJECTS {
        let map = format!(r#"{{"metadata":{{"name":"m{number:02}"}},"data":{{"v":"{value}"}}}}"#);
        api.value(&format!("POST {MAPS}"), &map).await;
    }
    let expected: Vec<String> = (0..OBJECTS).map(|it| format!("m{it:02}")).collect();
    // Nothing but the items, in their order, in every form.
    let forms = [("GET", "items"), ("GET+table", "rows"), ("GET+partials", "items")];
    for (method, items) in forms {
        let answer = api.send(&format!("{method} {MAPS}"), "").await;
        assert!(answer.body().comes_in_pieces(), "{method}");
        let answer: Value = serde_json::from_str(&text(answer).await.1).unwrap();
        let items = answer[items].as_array().unwrap().iter();
        let names: Vec<&str> = items.map(|it| name(it.get("object").unwrap_or(it))).collect();
        assert_eq!(names, expected, "{method}");
    }
    let long = text(api.send(&format!("GET {MAPS}"), "").await).await.1;
    let one = text(api.send(&format!("GET {MAPS}/m07"), "").await).await.1;
    assert!(long.contains(&one));
    let packed = api.send(&format!("GET+gzip {MAPS}"), "").await;
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = packed.into_body().collect().await.unwrap().to_bytes();
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(packed.as_ref()).read_to_string(&mut unpacked).unwrap();
    assert!(unpacked == long);
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}
