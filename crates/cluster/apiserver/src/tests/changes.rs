//! Patches through the API: media types, strictness, conflicts.

use expect_test::{Expect, expect};

use super::{Api, pick};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(start_paused = true)]
async fn languages() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    let check = async |language: &str, body: &str, expect: Expect| {
        let answer = api.value(&format!("PATCH+{language} {MAPS}/a"), body).await;
        expect.assert_eq(&pick(&answer, &["/data"]));
    };
    check("merge", r#"{"data":{"a":"1","b":"2"}}"#, expect![[r#"{"a":"1","b":"2"}"#]]).await;
    check(
        "json",
        r#"[{"op":"replace","path":"/data/a","value":"3"}]"#,
        expect![[r#"{"a":"3","b":"2"}"#]],
    )
    .await;
    check("strategic", r#"{"data":{"$patch":"replace","c":"4"}}"#, expect![[r#"{"c":"4"}"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn refusals() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    let check = async |request: &str, body: &str, expect: Expect| {
        let (method, query) = request.split_once(' ').unwrap_or((request, ""));
        api.check(&format!("{method} {MAPS}/a{query}"), body, expect).await;
    };
    check("PATCH", "{}", expect!["415 UnsupportedMediaType the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"]).await;
    check("PATCH+apply", "{}", expect![[r#"422 Invalid PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#]]).await;
    check(
        "PATCH+merge",
        "{",
        expect![
            "400 BadRequest error decoding patch: EOF while parsing an object at line 1 column 1"
        ],
    )
    .await;
    check(
        "PATCH+json",
        r#"[{"op":"test","path":"/data","value":1}]"#,
        expect!["422 Invalid the server rejected our request due to an error in our request"],
    )
    .await;
    check("PATCH+json", r#"[{"op":"jump","path":"/data"}]"#, expect!["400 BadRequest error decoding patch: unknown variant `jump`, expected one of `add`, `remove`, `replace`, `move`, `copy`, `test` at line 1 column 13"]).await;
    check(
        "PATCH+strategic",
        r#"{"metadata":{"$patch":"jump"}}"#,
        expect![[r#"400 BadRequest `"jump"` is not a value of directive `$patch`"#]],
    )
    .await;
    check("PATCH+merge", "[]", expect!["400 BadRequest the patch leaves no object"]).await;
    check("PATCH+merge", r#"{"metadata":{"name":"b"}}"#, expect![[r#"422 Invalid ConfigMap "a" is invalid: metadata.name: Invalid value: "b": field is immutable"#]]).await;
    check("PATCH+merge", r#"{"metadata":{"resourceVersion":"1"}}"#, expect![[r#"409 Conflict Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#]]).await;
    check("PATCH+merge", r#"{"kind":"Secret"}"#, expect![[r#"400 BadRequest Secret in version "v1" cannot be handled as a ConfigMap: the kind in the data (Secret) does not match the expected kind (ConfigMap)"#]]).await;
    check("PATCH+merge", r#"{"data":{"a":1}}"#, expect![[r#"422 Invalid  "" is invalid: patch: Invalid value: "{\"data\":{\"a\":1}}": json: cannot unmarshal number into Go struct field ConfigMap.data of type string"#]]).await;
    check("PATCH+merge ?fieldValidation=Strict", r#"{"foo":1}"#, expect![[r#"422 Invalid  "" is invalid: patch: Invalid value: "{\"foo\":1}": strict decoding error: unknown field "foo""#]]).await;
    check("PATCH+merge", r#"{"foo":1}"#, expect![[r#"
        200 {"apiVersion":"v1","kind":"ConfigMap","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","name":"a","namespace":"default","resourceVersion":"31","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}
        warning: 299 - "unknown field \"foo\"""#]]).await;
    api.check(
        &format!("PATCH+merge {MAPS}/none"),
        "{}",
        expect![[r#"404 NotFound configmaps "none" not found"#]],
    )
    .await;
    api.check(
        &format!("PATCH+merge {MAPS}"),
        "{}",
        expect![
            "405 MethodNotAllowed the server does not allow this method on the requested resource"
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn patches_at_once_all_count() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    let patches = (0..20).map(|index| {
        let api = &api;
        async move {
            let body = format!(r#"{{"data":{{"k{index}":"v"}}}}"#);
            api.value(&format!("PATCH+merge {MAPS}/a"), &body).await;
        }
    });
    futures_util::future::join_all(patches).await;
    let map = api.value(&format!("GET {MAPS}/a"), "").await;
    assert_eq!(map["data"].as_object().unwrap().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn warnings_of_what_is_changed() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let body = |image: &str| {
        format!(
            r#"{{"metadata":{{"name":"a.b"}},"spec":{{"selector":{{"matchLabels":{{"a":"b"}}}},"template":{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[{{"name":"c","image":"{image}","ports":[{{"containerPort":80}},{{"containerPort":80,"hostPort":8080}}]}}]}}}}}}}}"#
        )
    };
    let heard = async |request: &str, body: &str| {
        let answer = api.send(request, body).await;
        let warnings = answer.headers().get_all("warning").iter();
        let warnings: Vec<_> = warnings.map(|it| it.to_str().unwrap().to_owned()).collect();
        format!("{}\n{}", answer.status().as_u16(), warnings.join("\n"))
    };
    expect![[r#"
        201
        299 - "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"
        299 - "spec.template.spec.containers[0].ports[1]: overlapping port definition with spec.template.spec.containers[0].ports[0]""#]].assert_eq(&heard(&format!("POST {deployments}"), &body("i")).await);
    let one = format!("{deployments}/a.b");
    expect![[r#"
        200
        299 - "spec.template.spec.containers[0].ports[1]: overlapping port definition with spec.template.spec.containers[0].ports[0]""#]].assert_eq(&heard(&format!("PUT {one}"), &body("j")).await);
    // What changes nothing of the specification is not looked at again.
    let label = r#"{"metadata":{"labels":{"a":"b"}}}"#;
    expect![[r#"
        200
    "#]]
    .assert_eq(&heard(&format!("PATCH+merge {one}"), label).await);
    let replicas = r#"{"spec":{"replicas":3}}"#;
    expect![[r#"
        200
        299 - "spec.template.spec.containers[0].ports[1]: overlapping port definition with spec.template.spec.containers[0].ports[0]""#]].assert_eq(&heard(&format!("PATCH+merge {one}"), replicas).await);
    let applied =
        r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":3,"paused":true}}"#;
    let apply = format!("PATCH+apply {one}?fieldManager=m");
    expect![[r#"
        200
        299 - "spec.template.spec.containers[0].ports[1]: overlapping port definition with spec.template.spec.containers[0].ports[0]""#]].assert_eq(&heard(&apply, applied).await);
    let scaled = r#"{"spec":{"replicas":4}}"#;
    expect![[r#"
        200
    "#]]
    .assert_eq(&heard(&format!("PATCH+merge {one}/scale"), scaled).await);
}
