//! Subresources: scale, binding, log, status; and what Services are given.

use expect_test::expect;

use super::{Api, pick, text};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test(start_paused = true)]
async fn scale() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let body = r#"{"metadata":{"name":"d"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
    api.value(&format!("POST {deployments}"), body).await;
    let scale = format!("{deployments}/d/scale");
    api.check(&format!("GET {scale}"), "", expect![[r#"200 {"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","name":"d","namespace":"default","resourceVersion":"9","uid":"8e5ff226-dfa3-4096-8797-822bdf007245"},"spec":{"replicas":2},"status":{"replicas":0,"selector":"a=b"}}"#]]).await;
    let fields = &["/spec/replicas", "/status/replicas", "/metadata/name"];
    let after = api.value(&format!("PATCH+merge {scale}"), r#"{"spec":{"replicas":5}}"#).await;
    assert_eq!(pick(&after, fields), "5 0 d");
    let after = api.value(&format!("PUT {scale}"), r#"{"spec":{"replicas":1}}"#).await;
    assert_eq!(pick(&after, fields), "1 0 d");
    let stale = r#"{"metadata":{"resourceVersion":"1"},"spec":{"replicas":7}}"#;
    api.check(&format!("PUT {scale}"), stale, expect![[r#"409 Conflict Operation cannot be fulfilled on deployments.apps "d": the object has been modified; please apply your changes to the latest version and try again"#]]).await;
    let negative = r#"{"spec":{"replicas":-1}}"#;
    api.check(&format!("PATCH+merge {scale}"), negative, expect![[r#"422 Invalid Deployment.apps "d" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"#]]).await;
    api.check(
        &format!("GET {PODS}/p/scale"),
        "",
        expect!["404 NotFound the server could not find the requested resource"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn binding() {
    let api = Api::new().await;
    let bound = api.pod("p", Some("n1")).await;
    expect!["n1 PodScheduled"]
        .assert_eq(&pick(&bound, &["/spec/nodeName", "/status/conditions/0/type"]));
    let bind = format!("POST {PODS}/p/binding");
    api.check(&bind, r#"{"target":{"name":"n2"}}"#, expect![[r#"409 Conflict Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1", not to "n2""#]]).await;
    api.check(
        &bind,
        r#"{"target":{}}"#,
        expect!["400 BadRequest binding: target.name: Required value"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn log() {
    let api = Api::new().await;
    api.pod("unbound", None).await;
    api.check(&format!("GET {PODS}/unbound/log"), "", expect!["200 "]).await;
    api.pod("p", Some("n1")).await;
    let query = "container=c&follow=true&tailLines=5&sinceSeconds=9&timestamps=1";
    let (_, answer) = text(api.send(&format!("GET {PODS}/p/log?{query}"), "").await).await;
    expect![[r#"
        n1 default/p/c LogOptions { follow: true, previous: false, timestamps: true, tail_lines: Some(5), since_seconds: Some(9), since_time: None, limit_bytes: None }
    "#]].assert_eq(&answer);
    api.check(
        &format!("GET {PODS}/p/log?container=x"),
        "",
        expect!["400 BadRequest container x is not valid for pod p"],
    )
    .await;
    api.check(&format!("GET {PODS}/p/log?tailLines=-1"), "", expect![[r#"422 Invalid PodLogOptions "p" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"#]]).await;
    api.check(
        &format!("GET {PODS}/none/log"),
        "",
        expect![[r#"404 NotFound pods "none" not found"#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn status_is_written_apart() {
    let api = Api::new().await;
    api.pod("p", None).await;
    let fields = &["/status/phase", "/metadata/labels", "/spec/containers/0/image"];
    let main = r#"{"metadata":{"labels":{"a":"b"}},"status":{"phase":"Running"}}"#;
    let after = api.value(&format!("PATCH+merge {PODS}/p"), main).await;
    expect![[r#"Pending {"a":"b"} i"#]].assert_eq(&pick(&after, fields));
    let status = r#"{"status":{"phase":"Running"}}"#;
    let after = api.value(&format!("PATCH+merge {PODS}/p/status"), status).await;
    expect![[r#"Running {"a":"b"} i"#]].assert_eq(&pick(&after, fields));
}

#[tokio::test(start_paused = true)]
async fn services_get_addresses() {
    let api = Api::new().await;
    let services = "/api/v1/namespaces/default/services";
    let fields = &["/spec/clusterIP", "/spec/ports/0/nodePort", "/spec/type"];
    let make = async |name: &str, spec: &str| {
        let body = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{spec}}}"#);
        pick(&api.value(&format!("POST {services}"), &body).await, fields)
    };
    assert_eq!(make("a", r#"{"ports":[{"port":80}]}"#).await, "10.96.1.0 - ClusterIP");
    assert_eq!(
        make("b", r#"{"type":"NodePort","ports":[{"port":80}]}"#).await,
        "10.96.1.1 30000 NodePort"
    );
    assert_eq!(
        make("c", r#"{"clusterIP":"None","ports":[{"port":80}]}"#).await,
        "None - ClusterIP"
    );
    let taken =
        r#"{"metadata":{"name":"d"},"spec":{"clusterIP":"10.96.0.1","ports":[{"port":80}]}}"#;
    api.check(&format!("POST {services}"), taken, expect![[r#"422 Invalid Service "d" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.1"]: failed to allocate IP 10.96.0.1: provided IP is already allocated"#]]).await;
    // An update that does not speak of the address keeps it; another type gives up the port.
    let put = r#"{"metadata":{"name":"b"},"spec":{"type":"ClusterIP","ports":[{"port":80}]}}"#;
    let after = api.value(&format!("PUT {services}/b"), put).await;
    assert_eq!(pick(&after, fields), "10.96.1.1 - ClusterIP");
    let change = r#"{"spec":{"clusterIP":"10.96.7.7","clusterIPs":["10.96.7.7"]}}"#;
    api.check(&format!("PATCH+merge {services}/a"), change, expect![[r#"422 Invalid Service "a" is invalid: spec.clusterIPs[0]: Invalid value: ["10.96.7.7"]: may not change once set"#]]).await;
    api.value(&format!("DELETE {services}/a"), "").await;
    let spec = r#"{"clusterIP":"10.96.1.0","ports":[{"port":80}]}"#;
    assert_eq!(make("again", spec).await, "10.96.1.0 - ClusterIP");
}

#[tokio::test(start_paused = true)]
async fn the_service_of_the_api_is_always_there() {
    let api = Api::new().await;
    let service = "/api/v1/namespaces/default/services/kubernetes";
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    for path in [service, slice] {
        api.value(&format!("DELETE {path}"), "").await;
        super::pass(1).await;
        api.value(&format!("GET {path}"), "").await;
    }
}
