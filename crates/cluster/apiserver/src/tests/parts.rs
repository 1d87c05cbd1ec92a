//! Subresources: scale, binding, log, status; and what Services are given.

use expect_test::expect;

use super::{Api, pick, text};
use crate::ServiceRange;

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test(start_paused = true)]
async fn scale() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let body = r#"{"metadata":{"name":"d"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
    api.value(&format!("POST {deployments}"), body).await;
    let scale = format!("{deployments}/d/scale");
    api.check(&format!("GET {scale}"), "", expect![[r#"200 {"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","name":"d","namespace":"default","resourceVersion":"31","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"},"spec":{"replicas":2},"status":{"replicas":0,"selector":"a=b"}}"#]]).await;
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
async fn services_get_addresses_of_both_families() {
    let api = Api::new().await;
    let services = "/api/v1/namespaces/default/services";
    let fields = &["/spec/ipFamilyPolicy", "/spec/clusterIP", "/spec/clusterIPs"];
    let body = |name: &str, policy: &str| {
        let spec = format!(r#"{{"ipFamilyPolicy":"{policy}","ports":[{{"port":80}}]}}"#);
        format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
    };
    let require = body("a", "RequireDualStack");
    // Who only tries gets addresses to see, which stay free.
    let tried = api.value(&format!("POST {services}?dryRun=All"), &require).await;
    assert_eq!(
        pick(&tried, fields),
        r#"RequireDualStack 10.96.1.0 ["10.96.1.0","fd00:10:96::100"]"#
    );
    let made = api.value(&format!("POST {services}"), &require).await;
    assert_eq!(
        pick(&made, fields),
        r#"RequireDualStack 10.96.1.1 ["10.96.1.1","fd00:10:96::101"]"#
    );
    let single = r#"{"spec":{"ipFamilyPolicy":"SingleStack"}}"#;
    let after = api.value(&format!("PATCH+merge {services}/a"), single).await;
    assert_eq!(pick(&after, fields), r#"SingleStack 10.96.1.1 ["10.96.1.1"]"#);
    // What it was made of, once more, brings it back.
    let after = api.value(&format!("PUT {services}/a"), &require).await;
    assert_eq!(
        pick(&after, fields),
        r#"RequireDualStack 10.96.1.1 ["10.96.1.1","fd00:10:96::102"]"#
    );
    let chosen = |ip: &str| {
        let spec = format!(r#"{{"clusterIP":"{ip}","ports":[{{"port":80}}]}}"#);
        format!(r#"{{"metadata":{{"name":"b"}},"spec":{spec}}}"#)
    };
    let taken = chosen("fd00:10:96::102");
    api.check(&format!("POST {services}"), &taken, expect![[r#"422 Invalid Service "b" is invalid: spec.clusterIPs: Invalid value: ["fd00:10:96::102"]: failed to allocate IP fd00:10:96::102: provided IP is already allocated"#]]).await;
    api.value(&format!("DELETE {services}/a"), "").await;
    let made = api.value(&format!("POST {services}"), &taken).await;
    assert_eq!(pick(&made, fields), r#"SingleStack fd00:10:96::102 ["fd00:10:96::102"]"#);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_gets_its_second_range_later() {
    let one = ServiceRange { v6: None, ..ServiceRange::default() };
    let api = Api::with_config(|config| config.service_range = one).await;
    let require = r#"{"metadata":{"name":"a"},"spec":{"ipFamilyPolicy":"RequireDualStack","ports":[{"port":80}]}}"#;
    let services = "/api/v1/namespaces/default/services";
    api.check(&format!("POST {services}"), require, expect![[r#"422 Invalid Service "a" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#]]).await;
    let store = api.registry().store.backup().into_memory().unwrap();
    assert_eq!(ServiceRange::of(&store), Some(one));
    let again = Api::on(store).await;
    assert_eq!(ServiceRange::of(&again.registry().store), Some(ServiceRange::default()));
    let made = again.value(&format!("POST {services}"), require).await;
    assert_eq!(pick(&made, &["/spec/clusterIPs"]), r#"["10.96.1.0","fd00:10:96::100"]"#);
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

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

#[tokio::test(start_paused = true)]
async fn evictions_honour_budgets() {
    let api = Api::new().await;
    api.pod("a", Some("n1")).await;
    api.pod("b", Some("n1")).await;
    let pods = "/api/v1/namespaces/default/pods";
    for name in ["a", "b"] {
        let running = r#"{"metadata":{"labels":{"x":"1"}},"status":{"phase":"Running",
            "conditions":[{"type":"Ready","status":"True"}]}}"#;
        api.value(&format!("PATCH+merge {pods}/{name}"), running).await;
        api.value(&format!("PATCH+merge {pods}/{name}/status"), running).await;
    }
    let budget = r#"{"metadata":{"name":"p"},"spec":{"minAvailable":1,
        "selector":{"matchLabels":{"x":"1"}}}}"#;
    api.value(&format!("POST {BUDGETS}"), budget).await;
    let evict = |name: &str| format!("POST {pods}/{name}/eviction");
    let eviction = r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"a"}}"#;
    // Nobody has looked at the budget yet.
    api.check(
        &evict("a"),
        eviction,
        expect![
            "429 TooManyRequests Cannot evict pod as it would violate the pod's disruption budget."
        ],
    )
    .await;
    let status = r#"{"status":{"observedGeneration":1,"disruptionsAllowed":1,"currentHealthy":2,
        "desiredHealthy":1}}"#;
    api.value(&format!("PATCH+merge {BUDGETS}/p/status"), status).await;
    api.check(
        &evict("b"),
        eviction,
        expect!["400 BadRequest name in URL does not match name in Eviction object"],
    )
    .await;
    api.check(
        &evict("a"),
        eviction,
        expect![[
            r#"201 {"apiVersion":"v1","code":201,"kind":"Status","metadata":{},"status":"Success"}"#
        ]],
    )
    .await;
    let pod = api.value(&format!("GET {pods}/a"), "").await;
    let shown = ["/metadata/deletionTimestamp", "/status/conditions/1/reason"];
    assert_eq!(pick(&pod, &shown), "2026-01-01T12:00:30Z EvictionByEvictionAPI");
    let left = api.value(&format!("GET {BUDGETS}/p"), "").await;
    let shown = ["/status/disruptionsAllowed", "/status/disruptedPods/a"];
    assert_eq!(pick(&left, &shown), "0 2026-01-01T12:00:00Z");
    let refused = api.send(&evict("b"), r#"{"metadata":{"name":"b"}}"#).await;
    let (code, body) = text(refused).await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(code, 429);
    expect!["The disruption budget p does not allow evicting pods currently Cannot evict pod as it would violate the pod's disruption budget."].assert_eq(&pick(&body, &["/details/causes/0/message", "/message"]));
    // Who does not run disturbs nobody.
    api.pod("c", None).await;
    api.value(&format!("PATCH+merge {pods}/c"), r#"{"metadata":{"labels":{"x":"1"}}}"#).await;
    api.value(&evict("c"), "{}").await;
    api.check(&format!("GET {pods}/c"), "", expect![[r#"404 NotFound pods "c" not found"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn containers_are_added_to_pods() {
    let api = Api::new().await;
    api.pod("a", Some("n1")).await;
    let path = "/api/v1/namespaces/default/pods/a/ephemeralcontainers";
    let patch = |it: &str| format!(r#"{{"spec":{{"ephemeralContainers":[{it}],"nodeName":"m"}}}}"#);
    let debug = r#"{"name":"d","image":"i:1","targetContainerName":"c"}"#;
    let pod = api.value(&format!("PATCH+strategic {path}"), &patch(debug)).await;
    let shown = ["/spec/ephemeralContainers/0/imagePullPolicy", "/spec/nodeName"];
    assert_eq!(pick(&pod, &shown), "IfNotPresent n1");
    let bad = r#"{"name":"d","image":"j"},{"name":"c","ports":[{"containerPort":1}],
        "targetContainerName":"x"}"#;
    api.check(&format!("PATCH+merge {path}"), &patch(bad), expect![[r#"
        422 Invalid Pod "a" is invalid: [spec.ephemeralContainers[1].image: Required value, spec.ephemeralContainers[1].name: Duplicate value: "c", spec.ephemeralContainers[1].targetContainerName: Not found: "x", spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container, spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be changed
        - image: "i:1"
        + image: "j"
        - imagePullPolicy: "IfNotPresent"
        + imagePullPolicy: "Always"
        - targetContainerName: "c"
        ]"#]]).await;
    let resize = "/api/v1/namespaces/default/pods/a/resize";
    let cpu = r#"{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"1"}}}]}}"#;
    api.check(&format!("PATCH+strategic {resize}"), cpu, expect![[r#"422 Invalid Pod "a" is invalid: spec: Invalid value: "BestEffort": Pod QOS Class may not change as a result of resizing"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn requests_for_certificates_are_approved() {
    let api = Api::new().await;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let body = r#"{"metadata":{"name":"a"},"spec":{"signerName":"example.com/s","username":"me",
        "usages":["client auth"],"request":"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K"}}"#;
    let made = api.value(&format!("POST {requests}"), body).await;
    assert_eq!(
        pick(&made, &["/spec/username", "/spec/groups"]),
        r#"system:apiserver ["system:masters","system:authenticated"]"#
    );
    let approval = r#"{"status":{"conditions":[{"type":"Approved","status":"True"}]}}"#;
    api.check(&format!("PATCH+merge {requests}/a/status"), approval, expect![[r#"422 Invalid CertificateSigningRequest.certificates.k8s.io "a" is invalid: status.conditions: Forbidden: updates may not add a condition of type "Approved""#]]).await;
    let approved = api.value(&format!("PATCH+merge {requests}/a/approval"), approval).await;
    assert_eq!(pick(&approved, &["/status/conditions/0/type"]), "Approved");
    let issued = r#"{"status":{"certificate":"eA=="}}"#;
    let issued = api.value(&format!("PATCH+merge {requests}/a/status"), issued).await;
    assert_eq!(
        pick(&issued, &["/status/certificate", "/status/conditions/0/type"]),
        "eA== Approved"
    );
}
