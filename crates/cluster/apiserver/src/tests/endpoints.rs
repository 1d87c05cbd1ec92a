//! Health, version, discovery, OpenAPI, unknown paths.

use std::{collections::BTreeSet, io::Read as _};

use bytes::Bytes;
use expect_test::expect;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tower::ServiceExt as _;

use super::{Api, pick, text};
use crate::kinds::{KINDS, Kind};

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
async fn the_root_lists_what_is_served() {
    let api = Api::new().await;
    let root = api.value("GET /", "").await;
    let paths: Vec<&str> =
        root["paths"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert!(paths.is_sorted());
    for path in &paths {
        let response = api.send(&format!("GET {path}"), "").await;
        assert_eq!(response.status(), 200, "{path}");
    }
    for path in ["/api/v1", "/apis/apps", "/apis/apps/v1", "/metrics", "/openapi/v2", "/livez/ping"]
    {
        assert!(paths.contains(&path), "{path}");
    }
    let of_kinds = KINDS.iter().filter(|it| !it.group.is_empty());
    for kind in of_kinds {
        let path = format!("/apis/{}/{}", kind.group, kind.version);
        assert!(paths.contains(&path.as_str()), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn plain_discovery() {
    let api = Api::new().await;
    api.check("GET /api/", "", expect![[r#"200 {"kind":"APIVersions","serverAddressByClientCIDRs":[{"clientCIDR":"0.0.0.0/0","serverAddress":"127.0.0.1:6443"}],"versions":["v1"]}"#]]).await;
    api.check("GET /apis", "", expect![[r#"200 {"apiVersion":"v1","groups":[{"name":"apps","preferredVersion":{"groupVersion":"apps/v1","version":"v1"},"versions":[{"groupVersion":"apps/v1","version":"v1"}]},{"name":"events.k8s.io","preferredVersion":{"groupVersion":"events.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"events.k8s.io/v1","version":"v1"}]},{"name":"authentication.k8s.io","preferredVersion":{"groupVersion":"authentication.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"authentication.k8s.io/v1","version":"v1"}]},{"name":"authorization.k8s.io","preferredVersion":{"groupVersion":"authorization.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"authorization.k8s.io/v1","version":"v1"}]},{"name":"autoscaling","preferredVersion":{"groupVersion":"autoscaling/v2","version":"v2"},"versions":[{"groupVersion":"autoscaling/v2","version":"v2"},{"groupVersion":"autoscaling/v1","version":"v1"}]},{"name":"batch","preferredVersion":{"groupVersion":"batch/v1","version":"v1"},"versions":[{"groupVersion":"batch/v1","version":"v1"}]},{"name":"certificates.k8s.io","preferredVersion":{"groupVersion":"certificates.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"certificates.k8s.io/v1","version":"v1"}]},{"name":"networking.k8s.io","preferredVersion":{"groupVersion":"networking.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"networking.k8s.io/v1","version":"v1"}]},{"name":"policy","preferredVersion":{"groupVersion":"policy/v1","version":"v1"},"versions":[{"groupVersion":"policy/v1","version":"v1"}]},{"name":"rbac.authorization.k8s.io","preferredVersion":{"groupVersion":"rbac.authorization.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"rbac.authorization.k8s.io/v1","version":"v1"}]},{"name":"storage.k8s.io","preferredVersion":{"groupVersion":"storage.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"storage.k8s.io/v1","version":"v1"}]},{"name":"admissionregistration.k8s.io","preferredVersion":{"groupVersion":"admissionregistration.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"admissionregistration.k8s.io/v1","version":"v1"}]},{"name":"scheduling.k8s.io","preferredVersion":{"groupVersion":"scheduling.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"scheduling.k8s.io/v1","version":"v1"}]},{"name":"coordination.k8s.io","preferredVersion":{"groupVersion":"coordination.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"coordination.k8s.io/v1","version":"v1"}]},{"name":"node.k8s.io","preferredVersion":{"groupVersion":"node.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"node.k8s.io/v1","version":"v1"}]},{"name":"discovery.k8s.io","preferredVersion":{"groupVersion":"discovery.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"discovery.k8s.io/v1","version":"v1"}]},{"name":"resource.k8s.io","preferredVersion":{"groupVersion":"resource.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"resource.k8s.io/v1","version":"v1"}]},{"name":"flowcontrol.apiserver.k8s.io","preferredVersion":{"groupVersion":"flowcontrol.apiserver.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"flowcontrol.apiserver.k8s.io/v1","version":"v1"}]},{"name":"coracle.dev","preferredVersion":{"groupVersion":"coracle.dev/v1alpha1","version":"v1alpha1"},"versions":[{"groupVersion":"coracle.dev/v1alpha1","version":"v1alpha1"}]},{"name":"gateway.networking.k8s.io","preferredVersion":{"groupVersion":"gateway.networking.k8s.io/v1","version":"v1"},"versions":[{"groupVersion":"gateway.networking.k8s.io/v1","version":"v1"},{"groupVersion":"gateway.networking.k8s.io/v1beta1","version":"v1beta1"}]},{"name":"metrics.k8s.io","preferredVersion":{"groupVersion":"metrics.k8s.io/v1beta1","version":"v1beta1"},"versions":[{"groupVersion":"metrics.k8s.io/v1beta1","version":"v1beta1"}]}],"kind":"APIGroupList"}"#]]).await;
    api.check("GET /apis/apps/", "", expect![[r#"200 {"apiVersion":"v1","kind":"APIGroup","name":"apps","preferredVersion":{"groupVersion":"apps/v1","version":"v1"},"versions":[{"groupVersion":"apps/v1","version":"v1"}]}"#]]).await;
    api.check("GET /apis/apps/v1", "", expect![[r#"200 {"apiVersion":"v1","groupVersion":"apps/v1","kind":"APIResourceList","resources":[{"kind":"ControllerRevision","name":"controllerrevisions","namespaced":true,"singularName":"controllerrevision","verbs":["create","delete","deletecollection","get","list","patch","update","watch"]},{"categories":["all"],"kind":"DaemonSet","name":"daemonsets","namespaced":true,"shortNames":["ds"],"singularName":"daemonset","verbs":["create","delete","deletecollection","get","list","patch","update","watch"]},{"kind":"DaemonSet","name":"daemonsets/status","namespaced":true,"singularName":"","verbs":["get","patch","update"]},{"categories":["all"],"kind":"Deployment","name":"deployments","namespaced":true,"shortNames":["deploy"],"singularName":"deployment","verbs":["create","delete","deletecollection","get","list","patch","update","watch"]},{"kind":"Deployment","name":"deployments/status","namespaced":true,"singularName":"","verbs":["get","patch","update"]},{"group":"autoscaling","kind":"Scale","name":"deployments/scale","namespaced":true,"singularName":"","verbs":["get","patch","update"],"version":"v1"},{"categories":["all"],"kind":"ReplicaSet","name":"replicasets","namespaced":true,"shortNames":["rs"],"singularName":"replicaset","verbs":["create","delete","deletecollection","get","list","patch","update","watch"]},{"kind":"ReplicaSet","name":"replicasets/status","namespaced":true,"singularName":"","verbs":["get","patch","update"]},{"group":"autoscaling","kind":"Scale","name":"replicasets/scale","namespaced":true,"singularName":"","verbs":["get","patch","update"],"version":"v1"},{"categories":["all"],"kind":"StatefulSet","name":"statefulsets","namespaced":true,"shortNames":["sts"],"singularName":"statefulset","verbs":["create","delete","deletecollection","get","list","patch","update","watch"]},{"kind":"StatefulSet","name":"statefulsets/status","namespaced":true,"singularName":"","verbs":["get","patch","update"]},{"group":"autoscaling","kind":"Scale","name":"statefulsets/scale","namespaced":true,"singularName":"","verbs":["get","patch","update"],"version":"v1"}]}"#]]).await;
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
    let groups: BTreeSet<&str> =
        KINDS.iter().map(|it| it.group).filter(|it| !it.is_empty()).collect();
    assert_eq!(answer["items"].as_array().unwrap().len(), groups.len());
    let core = api.value("GET+discovery /api", "").await;
    let resources = core["items"][0]["versions"][0]["resources"].as_array().unwrap();
    let pods = resources.iter().find(|it| it["resource"] == "pods").unwrap();
    expect![[r#"{"categories":["all"],"resource":"pods","responseKind":{"group":"","kind":"Pod","version":"v1"},"scope":"Namespaced","shortNames":["po"],"singularResource":"pod","subresources":[{"responseKind":{"group":"","kind":"Pod","version":"v1"},"subresource":"status","verbs":["get","patch","update"]},{"responseKind":{"group":"","kind":"Pod","version":"v1"},"subresource":"log","verbs":["get"]},{"responseKind":{"group":"","kind":"PodProxyOptions","version":"v1"},"subresource":"proxy","verbs":["create","delete","get","patch","update"]},{"responseKind":{"group":"","kind":"Binding","version":"v1"},"subresource":"binding","verbs":["create"]},{"responseKind":{"group":"","kind":"Pod","version":"v1"},"subresource":"ephemeralcontainers","verbs":["get","patch","update"]},{"responseKind":{"group":"policy","kind":"Eviction","version":"v1"},"subresource":"eviction","verbs":["create"]},{"responseKind":{"group":"","kind":"Pod","version":"v1"},"subresource":"resize","verbs":["get","patch","update"]}],"verbs":["create","delete","deletecollection","get","list","patch","update","watch"]}"#]].assert_eq(&pods.to_string());
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

/// The path below which a kind is, without the first slash.
fn root(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_is_served_discovered_and_described() {
    let api = Api::new().await;
    for kind in KINDS {
        let root = root(kind);
        let discovery = api.value(&format!("GET /{root}"), "").await;
        let resources = discovery["resources"].as_array().unwrap();
        let listed = resources.iter().find(|it| it["name"] == kind.plural).expect(kind.kind);
        assert_eq!(
            pick(listed, &["/kind", "/singularName"]),
            format!("{} {}", kind.kind, kind.singular)
        );
        let document = api.value(&format!("GET /openapi/v3/{root}"), "").await;
        assert!(document["components"]["schemas"].get(kind.schema).is_some(), "{}", kind.kind);
        if !kind.verbs.contains(&"list") {
            continue;
        }
        let list = api.value(&format!("GET /{root}/{}", kind.plural), "").await;
        assert_eq!(list["kind"], format!("{}List", kind.kind));
        assert_eq!(list["apiVersion"], kind.api_version());
        let table = api.value(&format!("GET+table /{root}/{}", kind.plural), "").await;
        let columns = table["columnDefinitions"].as_array().unwrap();
        assert_eq!(columns.len(), kind.columns.len(), "{}", kind.kind);
        let namespace = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let path = format!("/{root}{namespace}/{}/{{name}}", kind.plural);
        assert!(document["paths"][&path].get("get").is_some(), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn openapi() {
    let api = Api::new().await;
    let index = api.value("GET /openapi/v3", "").await;
    let paths: Vec<_> = index["paths"].as_object().unwrap().keys().collect();
    let expected: BTreeSet<String> = KINDS.iter().map(|it| root(it)).collect();
    assert_eq!(paths, expected.iter().collect::<Vec<_>>());
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = api.value(&format!("GET {url}"), "").await;
    // This parameter is what `kubectl apply` looks for.
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|it| it["name"] == "fieldValidation"));
    // A link to an older document leads to the present one.
    let old = api.send("GET /openapi/v3/apis/apps/v1?hash=0", "").await;
    assert_eq!((old.status().as_u16(), old.headers()["location"].to_str().unwrap()), (301, url));
    let document = api.value("GET /openapi/v2", "").await;
    assert_eq!(document["swagger"], "2.0");
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|it| it["name"] == "fieldValidation" && it["type"] == "string"));
}

#[tokio::test(start_paused = true)]
async fn large_answers_are_compressed_for_who_takes_them() {
    let api = Api::new().await;
    let answer = async |path: &str, accept: &str, encoding: &str| {
        let request = Request::get(path).header("accept", accept);
        let request = request.header("accept-encoding", encoding).body(Full::new(Bytes::new()));
        api.server.service().oneshot(request.unwrap()).await.unwrap()
    };
    let json = answer("/openapi/v2", "application/json", "deflate").await;
    assert_eq!(json.headers().get("content-encoding"), None);
    let json = text(json).await.1;
    let packed = answer("/openapi/v2", "application/json", "deflate, gzip").await;
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = packed.into_body().collect().await.unwrap().to_bytes();
    assert!(packed.len() < json.len() / 5);
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(packed.as_ref()).read_to_string(&mut unpacked).unwrap();
    assert!(unpacked == json);
    let small = answer("/api", "application/json", "gzip").await;
    assert_eq!(small.headers().get("content-encoding"), None);
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let message = answer("/openapi/v2", accept, "").await;
    assert_eq!(
        message.headers()["content-type"],
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    );
    let refused = answer("/openapi/v2", "text/html", "").await;
    assert_eq!(refused.status().as_u16(), 406);
    let map = format!(r#"{{"metadata":{{"name":"m"}},"data":{{"a":"{}"}}}}"#, "b".repeat(200_000));
    api.value("POST /api/v1/namespaces/default/configmaps", &map).await;
    let list = answer("/api/v1/configmaps", "application/json", "gzip").await;
    assert_eq!(list.headers()["content-encoding"], "gzip");
    assert_eq!(list.headers()["vary"], "Accept-Encoding");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there() {
    let api = Api::new().await;
    api.check(
        "GET /metrics/slis",
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
