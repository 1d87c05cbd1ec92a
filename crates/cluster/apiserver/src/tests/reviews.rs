//! Who one is, what one may do, and whom requests are from.

use bytes::Bytes;
use expect_test::{Expect, expect};
use http::Request;
use http_body_util::Full;
use tower::ServiceExt as _;

use super::{Api, text};

const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1";
const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

/// Sends as somebody else.
async fn check_as(api: &Api, who: &str, request: &str, body: &str, expect: Expect) {
    let (method, path) = request.split_once(' ').unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("impersonate-user", who)
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    let answer = api.server.service().oneshot(request).await.unwrap();
    let (code, text) = text(answer).await;
    expect.assert_eq(&format!("{code} {text}"));
}

#[tokio::test(start_paused = true)]
async fn who_am_i() {
    let api = Api::new().await;
    let ask = format!("POST {AUTHENTICATION}/selfsubjectreviews");
    api.check(&ask, "{}", expect![[r#"201 {"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z"},"status":{"userInfo":{"groups":["system:masters","system:authenticated"],"username":"system:apiserver"}}}"#]]).await;
    // It is nothing that has columns.
    api.check(
        &format!("POST+only-table {AUTHENTICATION}/selfsubjectreviews"),
        "{}",
        expect!["406 NotAcceptable only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"],
    )
    .await;
    check_as(&api, "ann", &ask, "{}", expect![[r#"201 {"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z"},"status":{"userInfo":{"groups":["system:authenticated"],"username":"ann"}}}"#]]).await;
    api.check(
        &format!("GET {AUTHENTICATION}/selfsubjectreviews"),
        "",
        expect![
            "405 MethodNotAllowed the server does not allow this method on the requested resource"
        ],
    )
    .await;
    api.check(
        &format!("POST {AUTHENTICATION}/namespaces/default/selfsubjectreviews"),
        "{}",
        expect!["404 NotFound the server could not find the requested resource"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_review_says_what_becomes_of_a_request() {
    let api = Api::new().await;
    let pods = r#"{"spec":{"resourceAttributes":{"namespace":"default","verb":"list","resource":"pods"}}}"#;
    let ask = format!("POST {AUTHORIZATION}/selfsubjectaccessreviews");
    api.check(&ask, pods, expect![[r#"201 {"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","metadata":{},"spec":{"resourceAttributes":{"namespace":"default","resource":"pods","verb":"list"}},"status":{"allowed":true}}"#]]).await;
    check_as(&api, "ann", &ask, pods, expect![[r#"201 {"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","metadata":{},"spec":{"resourceAttributes":{"namespace":"default","resource":"pods","verb":"list"}},"status":{"allowed":false}}"#]]).await;
    check_as(&api, "ann", "GET /api/v1/namespaces/default/pods", "", expect![[r#"403 {"apiVersion":"v1","code":403,"details":{"kind":"pods"},"kind":"Status","message":"pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"","metadata":{},"reason":"Forbidden","status":"Failure"}"#]]).await;
    let path = r#"{"spec":{"nonResourceAttributes":{"verb":"get","path":"/openapi/v2"}}}"#;
    check_as(&api, "ann", &ask, path, expect![[r#"201 {"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","metadata":{},"spec":{"nonResourceAttributes":{"path":"/openapi/v2","verb":"get"}},"status":{"allowed":true}}"#]]).await;
    api.check(&ask, "{}", expect![[r#"422 Invalid SelfSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn others_are_asked_about_by_who_may() {
    let api = Api::new().await;
    let ask = format!("POST {AUTHORIZATION}/subjectaccessreviews");
    let about = |who: &str| {
        format!(r#"{{"spec":{{{who},"resourceAttributes":{{"verb":"get","resource":"nodes"}}}}}}"#)
    };
    api.check(&ask, &about(r#""user":"ann""#), expect![[r#"201 {"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","metadata":{},"spec":{"resourceAttributes":{"resource":"nodes","verb":"get"},"user":"ann"},"status":{"allowed":false}}"#]]).await;
    api.check(&ask, &about(r#""groups":["system:masters"]"#), expect![[r#"201 {"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","metadata":{},"spec":{"groups":["system:masters"],"resourceAttributes":{"resource":"nodes","verb":"get"}},"status":{"allowed":true}}"#]]).await;
    check_as(&api, "ann", &ask, &about(r#""user":"ann""#), expect![[r#"403 {"apiVersion":"v1","code":403,"details":{"group":"authorization.k8s.io","kind":"subjectaccessreviews"},"kind":"Status","message":"subjectaccessreviews.authorization.k8s.io is forbidden: User \"ann\" cannot create resource \"subjectaccessreviews\" in API group \"authorization.k8s.io\" at the cluster scope","metadata":{},"reason":"Forbidden","status":"Failure"}"#]]).await;
    let ask = format!("POST {AUTHORIZATION}/namespaces/default/localsubjectaccessreviews");
    let local = r#"{"spec":{"user":"ann","resourceAttributes":{"namespace":"default","verb":"get","resource":"pods"}}}"#;
    api.check(&ask, local, expect![[r#"201 {"apiVersion":"authorization.k8s.io/v1","kind":"LocalSubjectAccessReview","metadata":{"namespace":"default"},"spec":{"resourceAttributes":{"namespace":"default","resource":"pods","verb":"get"},"user":"ann"},"status":{"allowed":false}}"#]]).await;
    api.check(&ask, &about(r#""user":"ann""#), expect![[r#"422 Invalid LocalSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: Invalid value: "": must match metadata.namespace"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn all_that_somebody_may_do() {
    let api = Api::new().await;
    let ask = format!("POST {AUTHORIZATION}/selfsubjectrulesreviews");
    check_as(&api, "ann", &ask, r#"{"spec":{"namespace":"default"}}"#, expect![[r#"201 {"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectRulesReview","metadata":{},"spec":{"namespace":"default"},"status":{"incomplete":false,"nonResourceRules":[{"nonResourceURLs":["/api","/api/*","/apis","/apis/*","/openapi","/openapi/*"],"verbs":["get"]},{"nonResourceURLs":["/healthz","/healthz/*","/livez","/livez/*","/readyz","/readyz/*","/version","/version/"],"verbs":["get"]}],"resourceRules":[{"apiGroups":["authentication.k8s.io"],"resources":["selfsubjectreviews"],"verbs":["create"]},{"apiGroups":["authorization.k8s.io"],"resources":["selfsubjectaccessreviews","selfsubjectrulesreviews"],"verbs":["create"]}]}}"#]]).await;
    api.check(&ask, "{}", expect!["400 BadRequest no namespace on request"]).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_has_a_token() {
    let api = Api::new().await;
    let ask = format!("POST {AUTHENTICATION}/tokenreviews");
    api.check(&ask, r#"{"spec":{"token":"t"}}"#, expect![[r#"201 {"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","metadata":{},"spec":{"token":"t"},"status":{"error":"invalid bearer token","user":{}}}"#]]).await;
    api.check(
        &ask,
        "{}",
        expect!["400 BadRequest token is required for TokenReview in authentication"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_binding_of_its_own() {
    let api = Api::new().await;
    api.pod("p", None).await;
    let bind = "POST /api/v1/namespaces/default/bindings";
    let body = r#"{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n"}}"#;
    api.check(
        &format!("{bind}?dryRun=All"),
        body,
        expect![[
            r#"201 {"apiVersion":"v1","code":201,"kind":"Status","metadata":{},"status":"Success"}"#
        ]],
    )
    .await;
    api.check(
        bind,
        body,
        expect![[
            r#"201 {"apiVersion":"v1","code":201,"kind":"Status","metadata":{},"status":"Success"}"#
        ]],
    )
    .await;
    api.check(bind, body, expect![[r#"409 Conflict Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n""#]]).await;
    api.check(bind, &body.replace('p', "q"), expect![[r#"404 NotFound pods "q" not found"#]]).await;
    let other = r#"{"metadata":{"name":"q"},"target":{"kind":"Node","name":"n"}}"#;
    api.check(
        "POST /api/v1/namespaces/default/pods/p/binding",
        other,
        expect!["400 BadRequest name in URL does not match name in Binding object"],
    )
    .await;
}
