//! What lists, gets and watches may be asked for, combination by combination, and what a client
//! hears that asks wrongly: the words are those of Kubernetes 1.36.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use expect_test::{Expect, expect};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::{Api, pass, pick, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What came of it in a word or two: code, and names with the version of the list, or the message.
async fn told(api: &Api, request: &str) -> String {
    let (code, text) = text(api.send(request, "").await).await;
    let value: Value = serde_json::from_str(&text).unwrap();
    match value["items"].as_array() {
        None if code == 200 => format!("{code} {}", pick(&value, &["/metadata/name"])),
        None => format!("{code} {}", pick(&value, &["/reason", "/message"])),
        Some(items) => {
            let names = items.iter().map(|it| it["metadata"]["name"].as_str().unwrap());
            let names = names.collect::<Vec<_>>().join(" ");
            let rest = pick(&value, &["/metadata/resourceVersion", "/metadata/remainingItemCount"]);
            format!("{code} {names} @{rest}")
        }
    }
}

/// What a watch brings at first: `TYPE name`, or the failure.
async fn begun(api: &Api, query: &str) -> String {
    let response = api.send(&format!("GET {MAPS}?watch=1&{query}"), "").await;
    if response.status() != 200 {
        let (code, text) = text(response).await;
        let value: Value = serde_json::from_str(&text).unwrap();
        return format!("{code} {}", pick(&value, &["/reason", "/message"]));
    }
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(Some(Ok(frame))) = body.frame().now_or_never() {
        let bytes = frame.into_data().unwrap();
        for line in std::str::from_utf8(&bytes).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            all.push(pick(
                &event,
                match event["type"].as_str() {
                    Some("ERROR") => {
                        &["/type", "/object/code", "/object/reason", "/object/message"]
                    }
                    Some("BOOKMARK") => &["/type", "/object/metadata/annotations"],
                    _ => &["/type", "/object/metadata/name"],
                },
            ));
        }
    }
    all.join(", ")
}

/// Two ConfigMaps, then `n` changes of the first.
async fn with_history(n: usize) -> Api {
    let api = Api::new().await;
    api.config_map("a", "").await;
    api.config_map("b", "").await;
    for index in 0..n {
        let body = format!(r#"{{"data":{{"n":"{index}"}}}}"#);
        api.value(&format!("PUT {MAPS}/a"), &body).await;
    }
    api
}

#[tokio::test(start_paused = true)]
async fn versions_of_a_list() {
    let api = with_history(100).await;
    let check = async |query: &str, expect: Expect| {
        expect.assert_eq(&told(&api, &format!("GET {MAPS}?{query}")).await);
    };
    // The table of the documentation: nothing, `0`, a version; alone, with a limit, with a match.
    check("", expect!["200 a b @132 -"]).await;
    check("limit=1", expect!["200 a @132 1"]).await;
    check("resourceVersion=0", expect!["200 a b @132 -"]).await;
    // All of it: "any" state comes out of a cache there, whole.
    check("resourceVersion=0&limit=1", expect!["200 a b @132 -"]).await;
    check("resourceVersion=0&resourceVersionMatch=NotOlderThan", expect!["200 a b @132 -"]).await;
    check("resourceVersion=1", expect!["200 a b @132 -"]).await;
    check("resourceVersion=1&resourceVersionMatch=NotOlderThan&limit=1", expect!["200 a @132 1"])
        .await;
    check("resourceVersion=100", expect!["200 a b @132 -"]).await;
    check("resourceVersion=100&limit=1", expect!["200 a @100 1"]).await;
    check("resourceVersion=100&resourceVersionMatch=Exact", expect!["200 a b @100 -"]).await;
    check("resourceVersion=100&resourceVersionMatch=Exact&limit=1", expect!["200 a @100 1"]).await;
    check("resourceVersion=100&limit=1&fieldSelector=metadata.name=a", expect!["200 a @132 -"])
        .await;
    // Too old.
    check(
        "resourceVersion=1&limit=1",
        expect!["410 Expired The resourceVersion for the provided list is too old."],
    )
    .await;
    check(
        "resourceVersion=1&resourceVersionMatch=Exact",
        expect!["410 Expired The resourceVersion for the provided list is too old."],
    )
    .await;
    // Too new.
    check(
        "resourceVersion=999",
        expect!["504 Timeout Timeout: Too large resource version: 999, current: 132"],
    )
    .await;
    check(
        "resourceVersion=999&limit=1",
        expect!["504 Timeout Timeout: Too large resource version: 999, current: 132"],
    )
    .await;
    check(
        "resourceVersion=999&resourceVersionMatch=NotOlderThan",
        expect!["504 Timeout Timeout: Too large resource version: 999, current: 132"],
    )
    .await;
    check(
        "resourceVersion=999&resourceVersionMatch=Exact",
        expect!["504 Timeout Timeout: Too large resource version: 999, current: 132"],
    )
    .await;
    // No version at all.
    check("resourceVersion=x", expect![[r#"400 BadRequest invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax"#]]).await;
    check("resourceVersion=-1", expect![[r#"400 BadRequest invalid resource version: resourceVersion: Invalid value: "-1": strconv.ParseUint: parsing "-1": invalid syntax"#]]).await;
    check("resourceVersion=%2B1", expect![[r#"400 BadRequest invalid resource version: resourceVersion: Invalid value: "+1": strconv.ParseUint: parsing "+1": invalid syntax"#]]).await;
    check("resourceVersion=99999999999999999999", expect![[r#"400 BadRequest invalid resource version: resourceVersion: Invalid value: "99999999999999999999": strconv.ParseUint: parsing "99999999999999999999": value out of range"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn too_large_a_version_says_when_to_come_back() {
    let api = Api::new().await;
    for request in [
        format!("GET {MAPS}?resourceVersion=999"),
        format!("GET {MAPS}?resourceVersion=999&resourceVersionMatch=Exact"),
        "GET /api/v1/namespaces/default?resourceVersion=999".to_owned(),
        format!("GET {MAPS}?watch=1&resourceVersion=999"),
    ] {
        let response = api.send(&request, "").await;
        assert_eq!(response.headers()["retry-after"], "1", "{request}");
        let (code, text) = text(response).await;
        assert_eq!(code, 504, "{request}");
        let status: Value = serde_json::from_str(&text).unwrap();
        let details = r#"{"causes":[{"message":"Too large resource version","reason":"ResourceVersionTooLarge"}],"retryAfterSeconds":1}"#;
        assert_eq!(status["details"].to_string(), details, "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn versions_of_a_get() {
    let api = with_history(100).await;
    let check = async |query: &str, expect: Expect| {
        expect.assert_eq(&told(&api, &format!("GET {MAPS}/a?{query}")).await);
    };
    check("resourceVersion=0", expect!["200 a"]).await;
    check("resourceVersion=1", expect!["200 a"]).await;
    check(
        "resourceVersion=999",
        expect!["504 Timeout Timeout: Too large resource version: 999, current: 132"],
    )
    .await;
    check("resourceVersion=x", expect![[r#"400 BadRequest resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax"#]]).await;
    // A get knows no match and no watch; what it knew once, it refuses.
    check("resourceVersionMatch=Exact&watch=1", expect!["200 a"]).await;
    check(
        "export=true",
        expect![
            "400 BadRequest the export parameter, deprecated since v1.14, is no longer supported"
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn options_of_a_list_that_exclude_each_other() {
    let api = Api::new().await;
    let check = async |query: &str, expect: Expect| {
        expect.assert_eq(&told(&api, &format!("GET {MAPS}?{query}")).await);
    };
    check("resourceVersionMatch=Exact", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#]]).await;
    check("resourceVersionMatch=NotOlderThan&continue=x", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided]"#]]).await;
    check("resourceVersion=0&resourceVersionMatch=Exact", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0""#]]).await;
    check("resourceVersion=1&resourceVersionMatch=exact", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Unsupported value: "exact": supported values: "Exact", "NotOlderThan", """#]]).await;
    check("sendInitialEvents=false", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"#]]).await;
    check("limit=x", expect![[r#"400 BadRequest strconv.ParseInt: parsing "x": invalid syntax"#]])
        .await;
    check("limit=", expect![[r#"400 BadRequest strconv.ParseInt: parsing "": invalid syntax"#]])
        .await;
    check(
        "timeoutSeconds=1.5",
        expect![[r#"400 BadRequest strconv.ParseInt: parsing "1.5": invalid syntax"#]],
    )
    .await;
    // Neither a limit nor a time of a list means anything below one.
    check("limit=-1&timeoutSeconds=-1", expect!["200  @30 -"]).await;
    let response = api.send(&format!("GET {MAPS}?resourceVersionMatch=x"), "").await;
    let status: Value = serde_json::from_str(&text(response).await.1).unwrap();
    expect![[r#"{"causes":[{"field":"resourceVersionMatch","message":"Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided","reason":"FieldValueForbidden"},{"field":"resourceVersionMatch","message":"Unsupported value: \"x\": supported values: \"Exact\", \"NotOlderThan\", \"\"","reason":"FieldValueNotSupported"}],"group":"meta.k8s.io","kind":"ListOptions"}"#]].assert_eq(&status["details"].to_string());
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_refused() {
    let api = Api::new().await;
    let check = async |token: &str, expect: Expect| {
        expect.assert_eq(&told(&api, &format!("GET {MAPS}?continue={token}")).await);
    };
    let written = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    check("rubbish", expect!["400 BadRequest invalid continue token: continue key is not valid: invalid character '®' looking for beginning of value"]).await;
    check("x", expect!["400 BadRequest invalid continue token: continue key is not valid: illegal base64 data at input byte 0"]).await;
    check("eyJ2IjoibWV0YSJ9=", expect!["400 BadRequest invalid continue token: continue key is not valid: illegal base64 data at input byte 16"]).await;
    check(&written("x"), expect!["400 BadRequest invalid continue token: continue key is not valid: invalid character 'x' looking for beginning of value"]).await;
    check(&written(r#"{"v":"v2","rv":1,"start":"a"}"#), expect!["400 BadRequest invalid continue token: continue key is not valid: server does not recognize this encoded version v2"]).await;
    check(&written(r#"{"v":"meta.k8s.io/v1","start":"a"}"#), expect!["400 BadRequest invalid continue token: continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)"]).await;
    check(&written(r#"{"v":"meta.k8s.io/v1","rv":1}"#), expect!["400 BadRequest invalid continue token: continue key is not valid: encoded start key empty (version meta.k8s.io/v1)"]).await;
    check(
        &written(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../../secrets/"}"#),
        expect!["400 BadRequest invalid continue token: continue key is not valid: ../../secrets/"],
    )
    .await;
    let good = written(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"a\u0000"}"#);
    check(&good, expect!["200  @30 -"]).await;
    check(
        &format!("{good}&resourceVersion=1"),
        expect!["400 BadRequest specifying resource version is not allowed when using continue"],
    )
    .await;
    check(&format!("{good}&resourceVersion=0"), expect!["200  @30 -"]).await;
    let future = written(r#"{"v":"meta.k8s.io/v1","rv":999,"start":"a\u0000"}"#);
    check(&future, expect!["504 Timeout Timeout: Too large resource version: 999, current: 30"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_token_lives_five_minutes() {
    let api = with_history(0).await;
    api.config_map("c", "").await;
    let first = api.value(&format!("GET {MAPS}?limit=1"), "").await;
    let token = |list: &Value| list["metadata"]["continue"].as_str().unwrap().to_owned();
    pass(299).await;
    let next = format!("GET {MAPS}?limit=1&continue={}", token(&first));
    // The second page does not begin the time anew.
    let second = api.value(&next, "").await;
    pass(2).await;
    for (list, expected) in [(&first, "200 b @33 1"), (&second, "200 c @33 -")] {
        let (code, text) =
            text(api.send(&format!("GET {MAPS}?limit=1&continue={}", token(list)), "").await).await;
        assert_eq!(code, 410, "{text}");
        let lost: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(lost["reason"], "Expired");
        let rest = format!("GET {MAPS}?limit=1&continue={}", token(&lost));
        assert_eq!(told(&api, &rest).await, expected);
    }
    // What goes on with the newest is a list of a new moment, with a time of its own.
    let lost = api.send(&next, "").await;
    let lost: Value = serde_json::from_str(&text(lost).await.1).unwrap();
    let page = format!("GET {MAPS}?limit=1&continue={}", token(&lost));
    let page = api.value(&page, "").await;
    pass(299).await;
    let rest = format!("GET {MAPS}?limit=1&continue={}", token(&page));
    assert_eq!(told(&api, &rest).await, "200 c @33 -");
}

#[tokio::test(start_paused = true)]
async fn how_a_watch_begins() {
    let api = with_history(100).await;
    let check = async |query: &str, expect: Expect| {
        expect.assert_eq(&begun(&api, query).await);
    };
    let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let none = "sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
    check("", expect!["ADDED a, ADDED b"]).await;
    check("resourceVersion=0", expect!["ADDED a, ADDED b"]).await;
    // Since there are streamed lists, these two are ones.
    check(
        "allowWatchBookmarks=true",
        expect![[r#"ADDED a, ADDED b, BOOKMARK {"k8s.io/initial-events-end":"true"}"#]],
    )
    .await;
    check(
        "resourceVersion=0&allowWatchBookmarks=true",
        expect![[r#"ADDED a, ADDED b, BOOKMARK {"k8s.io/initial-events-end":"true"}"#]],
    )
    .await;
    check("resourceVersion=129", expect!["MODIFIED a, MODIFIED a, MODIFIED a"]).await;
    check("resourceVersion=1", expect!["ERROR 410 Expired too old resource version: 1 (68)"]).await;
    check(
        "resourceVersion=999",
        expect!["504 Timeout Timeout: Too large resource version: 999, current: 132"],
    )
    .await;
    check("resourceVersion=x", expect![[r#"400 BadRequest resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax"#]]).await;
    check(initial, expect!["ADDED a, ADDED b"]).await;
    check(
        &format!("{initial}&allowWatchBookmarks=1"),
        expect![[r#"ADDED a, ADDED b, BOOKMARK {"k8s.io/initial-events-end":"true"}"#]],
    )
    .await;
    check(
        &format!("{initial}&allowWatchBookmarks=1&resourceVersion=100"),
        expect![[r#"ADDED a, ADDED b, BOOKMARK {"k8s.io/initial-events-end":"true"}"#]],
    )
    .await;
    check(
        &format!("{initial}&allowWatchBookmarks=1&resourceVersion=999"),
        expect!["ERROR 504 Timeout Timeout: Too large resource version: 999, current: 132"],
    )
    .await;
    check(none, expect![]).await;
    check(&format!("{none}&allowWatchBookmarks=1&resourceVersion=0"), expect![]).await;
    check(&format!("{none}&resourceVersion=130"), expect!["MODIFIED a, MODIFIED a"]).await;
    check(
        &format!("{none}&resourceVersion=1"),
        expect!["ERROR 410 Expired too old resource version: 1 (68)"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn options_of_a_watch_that_exclude_each_other() {
    let api = Api::new().await;
    let check = async |query: &str, expect: Expect| {
        expect.assert_eq(&begun(&api, query).await);
    };
    check("sendInitialEvents=true", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"#]]).await;
    check("sendInitialEvents=true&resourceVersionMatch=Exact", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan, resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"]"#]]).await;
    check("resourceVersionMatch=NotOlderThan", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"#]]).await;
    check("resourceVersionMatch=Exact&resourceVersion=1", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided, resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"]"#]]).await;
    check("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided"#]]).await;
    check(
        "timeoutSeconds=x",
        expect![[r#"400 BadRequest strconv.ParseInt: parsing "x": invalid syntax"#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_lives_as_long_as_it_was_asked_to() {
    let api = Api::new().await;
    let open = async |query: &str| {
        let response = api.send(&format!("GET {MAPS}?watch=1&{query}"), "").await;
        response.into_body()
    };
    assert!(open("timeoutSeconds=-5").await.frame().await.is_none());
    let mut long = open("").await;
    pass(1_799).await;
    assert!(long.frame().now_or_never().is_none(), "half an hour at least");
    pass(1_801).await;
    assert!(long.frame().now_or_never().unwrap().is_none(), "an hour at most");
}

#[tokio::test(start_paused = true)]
async fn watches_by_path() {
    let api = with_history(0).await;
    let check = async |request: &str, expect: Expect| {
        let response = api.send(request, "").await;
        let code = response.status().as_u16();
        let (_, text) = text(response).await;
        let first = text.lines().map(|it| serde_json::from_str::<Value>(it).unwrap());
        let pointers = ["/type", "/object/metadata/name", "/reason", "/message"];
        let told: Vec<String> = first.map(|it| pick(&it, &pointers)).collect();
        expect.assert_eq(&format!("{code} {}", told.join(", ")));
    };
    let all = "timeoutSeconds=1";
    check(&format!("GET /api/v1/watch/configmaps?{all}"), expect!["200 ADDED a - -, ADDED b - -"])
        .await;
    check(
        &format!("GET /api/v1/watch/namespaces/default/configmaps?{all}"),
        expect!["200 ADDED a - -, ADDED b - -"],
    )
    .await;
    check(
        &format!("GET /api/v1/watch/namespaces/default/configmaps/a?{all}"),
        expect!["200 ADDED a - -"],
    )
    .await;
    check(&format!("GET /api/v1/watch/namespaces/default?{all}"), expect!["200 ADDED default - -"])
        .await;
    let named = "/api/v1/watch/namespaces/default/configmaps/a?fieldSelector=metadata.name";
    check(&format!("GET {named}=a&{all}"), expect!["200 ADDED a - -"]).await;
    check(
        &format!("GET {named}=b"),
        expect!["400 - - BadRequest fieldSelector metadata.name doesn't match requested name"],
    )
    .await;
    check(
        "GET /api/v1/watch/namespaces/default/pods/a/log",
        expect!["404 - - NotFound the server could not find the requested resource"],
    )
    .await;
    check("POST /api/v1/watch/configmaps", expect!["405 - - MethodNotAllowed the server does not allow this method on the requested resource"]).await;
    check(
        "GET /api/v1/watch/nonsense",
        expect!["404 - - NotFound the server could not find the requested resource"],
    )
    .await;
}
