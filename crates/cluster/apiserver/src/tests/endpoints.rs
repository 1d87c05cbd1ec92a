//! Health, version, discovery, OpenAPI, unknown paths.

use bytes::Bytes;
use expect_test::expect;
use http::Request;
use http_body_util::Full;
use tower::ServiceExt as _;

use super::{Api, pick, text};

#[tokio::test(start_paused = true)]
async fn health() {
    let api = Api::new().await;
    api.check("GET /healthz", "", expect!["200 ok"]).await;
    api.check("GET /livez/ping", "", expect!["200 ok"]).await;
    api.check(
        "GET /readyz?verbose",
        "",
        expect![[r#"
        200 [+]ping ok
        [+]log ok
        [+]etcd ok
        [+]shutdown ok
        readyz check passed
    "#]],
    )
    .await;
    api.check(
        "GET /readyz/nonsense",
        "",
        expect!["404 NotFound the server could not find the requested resource"],
    )
    .await;
    api.tasks.shutdown(std::time::Duration::from_secs(1)).await;
    api.check(
        "GET /readyz",
        "",
        expect![[r#"
        500 [+]ping ok
        [+]log ok
        [+]etcd ok
        [-]shutdown failed: reason withheld
        readyz check failed
    "#]],
    )
    .await;
    api.check("GET /livez", "", expect!["200 ok"]).await;
}

#[tokio::test(start_paused = true)]
async fn version() {
    let api = Api::new().await;
    let version = api.value("GET /version/", "").await;
    assert_eq!(pick(&version, &["/major", "/minor"]), "1 36");
}

#[tokio::test(start_paused = true)]
async fn plain_discovery() {
    let api = Api::new().await;
    api.check("GET /api/", "", expect![[r#"200 {"kind":"APIVersions","serverAddressByClientCIDRs":[{"clientCIDR":"0.0.0.0/0","serverAddress":"127.0.0.1:6443"}],"versions":["v1"]}"#]]).await;
    api.check("GET /apis", "", expect![[r#"200 {"apiVersion":"v1","groups":[{"name":"apps","preferredVersion":{"groupVersion":"apps/v1","version":"v1"},"versions":[{"groupVersion":"apps/v1","version":"v1"}]},{"name":"coordination.k8s.io","preferredVersion":{"groupVersion":"coordination.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"coordination.k8s.io/v1","version":"v1"}]},{"name":"discovery.k8s.io","preferredVersion":{"groupVersion":"discovery.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"discovery.k8s.io/v1","version":"v1"}]}],"kind":"APIGroupList"}"#]]).await;
    api.check("GET /apis/apps/", "", expect![[r#"200 {"apiVersion":"v1","kind":"APIGroup","name":"apps","preferredVersion":{"groupVersion":"apps/v1","version":"v1"},"versions":[{"groupVersion":"apps/v1","version":"v1"}]}"#]]).await;
    api.check("GET /apis/apps/v1", "", expect![[r#"200 {"apiVersion":"v1","groupVersion":"apps/v1","kind":"APIResourceList","resources":[{"categories":["all"],"kind":"Deployment","name":"deployments","namespaced":true,"shortNames":["deploy"],"singularName":"deployment","verbs":["create","delete","deletecollection","get","list","patch","update","watch"]},{"kind":"Deployment","name":"deployments/status","namespaced":true,"singularName":"","verbs":["get","patch","update"]},{"group":"autoscaling","kind":"Scale","name":"deployments/scale","namespaced":true,"singularName":"","verbs":["get","patch","update"],"version":"v1"},{"categories":["all"],"kind":"ReplicaSet","name":"replicasets","namespaced":true,"shortNames":["rs"],"singularName":"replicaset","verbs":["create","delete","deletecollection","get","list","patch","update","watch"]},{"kind":"ReplicaSet","name":"replicasets/status","namespaced":true,"singularName":"","verbs":["get","patch","update"]},{"group":"autoscaling","kind":"Scale","name":"replicasets/scale","namespaced":true,"singularName":"","verbs":["get","patch","update"],"version":"v1"}]}"#]]).await;
    api.check(
        "GET /apis/apps/v2",
        "",
        expect!["404 NotFound the server could not find the requested resource"],
    )
    .await;
    api.check(
        "GET /apis/nonsense",
        "",
        expect!["404 NotFound the server could not find the requested resource"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn aggregated_discovery() {
    let api = Api::new().await;
    let answer = api.value("GET+discovery /apis", "").await;
    assert_eq!(answer["items"].as_array().unwrap().len(), 3);
    let core = api.value("GET+discovery /api", "").await;
    let resources = core["items"][0]["versions"][0]["resources"].as_array().unwrap();
    let pods = resources.iter().find(|it| it["resource"] == "pods").unwrap();
    expect![[r#"{"categories":["all"],"resource":"pods","responseKind":{"group":"","kind":"Pod","version":"v1"},"scope":"Namespaced","shortNames":["po"],"singularResource":"pod","subresources":[{"responseKind":{"group":"","kind":"Pod","version":"v1"},"subresource":"status","verbs":["get","patch","update"]},{"responseKind":{"group":"","kind":"Pod","version":"v1"},"subresource":"log","verbs":["get"]},{"responseKind":{"group":"","kind":"Binding","version":"v1"},"subresource":"binding","verbs":["create"]}],"verbs":["create","delete","deletecollection","get","list","patch","update","watch"]}"#]].assert_eq(&pods.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_known_document_is_not_sent_again() {
    let api = Api::new().await;
    for path in ["/api", "/apis", "/apis/apps/v1", "/openapi/v3", "/openapi/v3/apis/apps/v1"] {
        let first = api.send(&format!("GET {path}"), "").await;
        let etag = first.headers()["etag"].clone();
        let request = Request::get(path).header("if-none-match", etag);
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let second = api.server.service().oneshot(request).await.unwrap();
        assert_eq!(second.status(), 304, "{path}");
        assert_eq!(text(second).await.1, "");
    }
}

#[tokio::test(start_paused = true)]
async fn openapi() {
    let api = Api::new().await;
    let index = api.value("GET /openapi/v3", "").await;
    let paths: Vec<_> = index["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        ["api/v1", "apis/apps/v1", "apis/coordination.k8s.io/v1", "apis/discovery.k8s.io/v1"]
    );
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = api.value(&format!("GET {url}"), "").await;
    // This parameter is what `kubectl apply` looks for.
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|it| it["name"] == "fieldValidation"));
    api.check(
        "GET /openapi/v2",
        "",
        expect![
            "404 NotFound /openapi/v2 is not served yet: use /openapi/v3 (kubectl does since 1.27)"
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there() {
    let api = Api::new().await;
    api.check(
        "GET /metrics",
        "",
        expect!["404 NotFound the server could not find the requested resource"],
    )
    .await;
    api.check(
        "GET /api/v1/widgets",
        "",
        expect!["404 NotFound the server could not find the requested resource"],
    )
    .await;
    api.check(
        "GET /api/v1/namespaces/default/nodes",
        "",
        expect!["404 NotFound the server could not find the requested resource"],
    )
    .await;
    api.check(
        "GET /api/v1/pods/p",
        "",
        expect!["404 NotFound the server could not find the requested resource"],
    )
    .await;
    api.check(
        "POST /api/v1/namespaces/default/pods/p/exec",
        "",
        expect!["404 NotFound the server could not find the requested resource"],
    )
    .await;
    api.check(
        "PUT /api/v1/namespaces/default/pods",
        "{}",
        expect![
            "405 MethodNotAllowed the server does not allow this method on the requested resource"
        ],
    )
    .await;
    api.check(
        "POST /version",
        "",
        expect![
            "405 MethodNotAllowed the server does not allow this method on the requested resource"
        ],
    )
    .await;
}
