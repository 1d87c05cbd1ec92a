//! Bodies that say a thing twice, and bodies that are more than they look: refused in little time and
//! memory, with Kubernetes' errors, and the server goes on.

use expect_test::{Expect, expect};

use super::{Api, text};
use crate::limits::{BODY_BYTES_MAX, DEPTH_MAX};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Status, reason and message, and the warnings.
async fn check(api: &Api, request: &str, body: &str, expect: Expect) {
    let response = api.send(request, body).await;
    let warnings = response.headers().get_all("warning").into_iter();
    let warnings: Vec<_> =
        warnings.map(|it| String::from_utf8(it.as_bytes().to_vec()).unwrap()).collect();
    let (code, text) = text(response).await;
    let answer: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    let message = answer["message"].as_str().unwrap_or("-");
    expect.assert_eq(
        &[format!("{code} {message}")].into_iter().chain(warnings).collect::<Vec<_>>().join("\n"),
    );
}

#[tokio::test(start_paused = true)]
async fn yaml_keys_that_occur_twice() {
    let api = Api::new().await;
    let body = "metadata:\n  name: a\n  größe: 1\ndata:\n  k: v\n  k: w\n";
    let with = |mode: &str| format!("POST+yaml {MAPS}?dryRun=All&fieldValidation={mode}");
    check(&api, &with("Strict"), body, expect![[r#"
        400 ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal errors:
          line 6: key "k" already set in map, unknown field "metadata.größe""#]]).await;
    check(
        &api,
        &with("Warn"),
        body,
        expect![[r#"
        201 -
        299 - "line 6: key \"k\" already set in map"
        299 - "unknown field \"metadata.größe\"""#]],
    )
    .await;
    check(&api, &with("Ignore"), body, expect!["201 -"]).await;
    let apply = |mode: &str| {
        format!("PATCH+apply {MAPS}/a?fieldManager=me&dryRun=All&fieldValidation={mode}")
    };
    let body = format!("apiVersion: v1\nkind: ConfigMap\n{}", body.replace("  größe: 1\n", ""));
    check(
        &api,
        &apply("Strict"),
        &body,
        expect![[r#"
        400 error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:
          line 7: key "k" already set in map"#]],
    )
    .await;
    check(
        &api,
        &apply("Warn"),
        &body,
        expect![[r#"
        201 -
        299 - "line 7: key \"k\" already set in map""#]],
    )
    .await;
    check(&api, &apply("Ignore"), &body, expect!["201 -"]).await;
}

#[tokio::test(start_paused = true)]
async fn warnings_are_bounded() {
    let api = Api::new().await;
    let unknown: String = (0..200).map(|it| format!(",\"{}{it}\":1", "x".repeat(300))).collect();
    let body = format!("{{\"metadata\":{{\"name\":\"a\"}}{unknown}}}");
    let response = api.send(&format!("POST {MAPS}?dryRun=All"), &body).await;
    assert_eq!(response.status(), 201);
    let letters: usize = response.headers().get_all("warning").into_iter().map(|it| it.len()).sum();
    assert!((4_000..5_000).contains(&letters), "{letters}");
}

#[tokio::test(start_paused = true)]
async fn what_is_nested_too_deep() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    let deep = |levels: usize, inner: &str| {
        format!(
            "{{\"metadata\":{{\"name\":\"a\"}},\"data\":{}{inner}{}}}",
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    // The most that a body has room for, and the least that is too much.
    for levels in [BODY_BYTES_MAX / 2 - 50, DEPTH_MAX] {
        let body = deep(levels, "");
        for request in [
            format!("POST {MAPS}"),
            format!("PUT {MAPS}/a"),
            format!("PATCH+merge {MAPS}/a"),
            format!("PATCH+strategic {MAPS}/a"),
            format!("PATCH+apply {MAPS}/a?fieldManager=me"),
            format!("POST+yaml {MAPS}"),
        ] {
            let (code, text) = text(api.send(&request, &body).await).await;
            assert!([400, 422].contains(&code), "{request}: {code} {text:.200}");
        }
        let patch = format!(
            r#"[{{"op":"add","path":"/data","value":{}{}}}]"#,
            "[".repeat(levels),
            "]".repeat(levels)
        );
        let (code, _) = text(api.send(&format!("PATCH+json {MAPS}/a"), &patch).await).await;
        assert_eq!(code, 400);
    }
    api.value(&format!("GET {MAPS}/a"), "").await;
}

#[tokio::test(start_paused = true)]
async fn bombs_in_yaml() {
    let api = Api::new().await;
    let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..10 {
        let below = [format!("*a{}", level - 1).as_str(); 10].join(",");
        laughs += &format!("a{level}: &a{level} [{below}]\n");
    }
    check(&api, &format!("POST+yaml {MAPS}"), &laughs, expect!["400 the object provided is unrecognized (must be of type ConfigMap): yaml: document contains excessive aliasing"]).await;
    let apply = format!("PATCH+apply {MAPS}/a?fieldManager=me");
    check(&api, &apply, &laughs, expect!["400 error decoding YAML: error converting YAML to JSON: yaml: document contains excessive aliasing"]).await;
    check(&api, &apply, &"- ".repeat(1_000), expect!["400 error decoding YAML: error converting YAML to JSON: yaml: line 1: exceeded max depth of 64"]).await;
}
