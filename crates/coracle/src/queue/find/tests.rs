//! Tests against the real API server and its controllers, in this process.

use client::{Api, DeleteParams, Patch, PatchParams, PostParams};
use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service as ServiceObject};
use runtime::Clock;
use serde_json::{Value, json};

use super::*;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    tasks: Tasks,
    server: apiserver::Server,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::default());
        let mut config = store::Config::new(folder.path().join("store"));
        config.durability = store::Durability::Process;
        let store = store::Store::open(&config).unwrap();
        let config = apiserver::Config::new(folder.path().join("pki"), 1);
        let server = apiserver::Server::build(config, store, &tasks).await.unwrap();
        let world = Self { tasks, server, _folder: folder };
        let client = world.client();
        let caches = Caches::new(client.clone(), &world.tasks);
        let config = controllers::Config { root_ca: "none".to_owned(), clock: Clock::system() };
        controllers::run(config, &caches, &client, &world.tasks);
        world
    }

    fn client(&self) -> Client {
        client::in_process(self.server.service())
    }

    async fn namespace(&self, name: &str) {
        let object: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::all(self.client()).create(&PostParams::default(), &object).await.unwrap();
    }

    async fn service(&self, namespace: &str, name: &str, ports: &Value) {
        let object: ServiceObject = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": ports},
        }))
        .unwrap();
        let services = Api::namespaced(self.client(), namespace);
        services.create(&PostParams::default(), &object).await.unwrap();
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client(), namespace)
    }

    /// A pod of the Service, which has an address and is ready or not.
    async fn pod(&self, namespace: &str, service: &str, name: &str, address: &str, ready: bool) {
        let object: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"app": service}},
            "spec": {"nodeName": "n", "containers": [{"name": "nsqd", "image": "nsqd"}]},
        }))
        .unwrap();
        self.pods(namespace).create(&PostParams::default(), &object).await.unwrap();
        let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]});
        self.change(namespace, name, &json!({"status": status})).await;
        self.ready(namespace, name, ready).await;
    }

    async fn ready(&self, namespace: &str, name: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
        self.change(namespace, name, &json!({"status": status})).await;
    }

    async fn change(&self, namespace: &str, name: &str, change: &Value) {
        let (params, change) = (PatchParams::default(), Patch::Strategic(change));
        self.pods(namespace).patch_status(name, &params, &change).await.unwrap();
    }

    fn follow(&self, services: &[&str]) -> watch::Receiver<Vec<Found>> {
        let services = services.iter().map(|it| Service::parse(it).unwrap()).collect();
        follow(services, &self.client(), &self.tasks)
    }

    async fn stop(self) {
        assert!(self.tasks.shutdown(PATIENCE).await);
    }
}

/// Waits until these are found, `address tcp-port http-port` each.
async fn until(found: &mut watch::Receiver<Vec<Found>>, wanted: &[&str]) {
    let shown = |it: &Found| format!("{} {} {}", it.address, it.tcp_port, it.http_port);
    let is_so = |it: &Vec<Found>| it.iter().map(shown).eq(wanted.iter().copied());
    let waited = tokio::time::timeout(PATIENCE, found.wait_for(is_so)).await;
    let seen = waited.is_ok();
    drop(waited);
    assert!(seen, "{wanted:?} is not {:?}", *found.borrow());
}

#[tokio::test]
async fn ready_endpoints_of_a_service_are_found() {
    let world = World::start().await;
    world.namespace("other").await;
    let ports = json!([{"name": "tcp", "port": 4150}, {"name": "http", "port": 4251}]);
    world.service("default", "nsqd", &ports).await;
    let mut found = world.follow(&["nsqd", "other/nsqd"]);
    world.pod("default", "nsqd", "a", "10.244.0.1", true).await;
    world.pod("default", "nsqd", "b", "10.244.0.2", false).await;
    world.pod("default", "web", "c", "10.244.0.3", true).await;
    until(&mut found, &["10.244.0.1 4150 4251"]).await;
    world.ready("default", "b", true).await;
    until(&mut found, &["10.244.0.1 4150 4251", "10.244.0.2 4150 4251"]).await;
    world.ready("default", "a", false).await;
    until(&mut found, &["10.244.0.2 4150 4251"]).await;
    // A Service that comes later, with other ports, in another namespace.
    world.service("other", "nsqd", &json!([{"name": "tcp", "port": 5150}])).await;
    world.pod("other", "nsqd", "a", "10.244.0.4", true).await;
    until(&mut found, &["10.244.0.2 4150 4251", "10.244.0.4 5150 4151"]).await;
    // Asked to go: out before it is gone.
    world.pods("default").delete("b", &DeleteParams::default()).await.unwrap();
    until(&mut found, &["10.244.0.4 5150 4151"]).await;
    let pod = world.pods("default").get("b").await.unwrap();
    assert!(pod.metadata.deletion_timestamp.is_some(), "it is still there");
    world.stop().await;
}

#[track_caller]
fn check(flags: &[(&'static str, &str)], expected: &Expect) {
    let given = flags.iter().map(|(flag, value)| (*flag, (*value).to_owned())).collect();
    let shown = match Asked::read(given) {
        Ok(asked) => format!("{asked:?}"),
        Err(error) => format!("error: {error:#}"),
    };
    expected.assert_eq(&shown);
}

#[test]
fn flags_are_read() {
    check(&[], &expect!["Asked { services: [], kubeconfig: None }"]);
    check(
        &[(SERVICE, "nsqd"), (KUBECONFIG, "/k"), (SERVICE, "a-b/nsqd-2")],
        &expect![[
            r#"Asked { services: [Service { namespace: None, name: "nsqd" }, Service { namespace: Some("a-b"), name: "nsqd-2" }], kubeconfig: Some("/k") }"#
        ]],
    );
    check(
        &[(KUBECONFIG, "/k")],
        &expect!["error: --kubeconfig is for --kubernetes-service, which is not given"],
    );
    for bad in ["", "a/", "/b", "a/b/c", "A/b", "a/b_c"] {
        let asked = Asked::read(vec![(SERVICE, bad.to_owned())]);
        assert!(format!("{:#}", asked.unwrap_err()).contains(bad), "{bad}");
    }
    let many = vec![(SERVICE, "nsqd".to_owned()); SERVICES_MAX + 1];
    assert!(Asked::read(many).is_err());
}

#[tokio::test]
async fn without_a_way_to_the_api_it_says_what_would_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment { home: Some(folder.path().to_owned()), ..Default::default() };
    let given = vec![(SERVICE, "nsqd".to_owned())];
    let failed = find(given, &environment, &Tasks::default()).await.unwrap_err();
    let text = format!("{failed:#}").replace(folder.path().to_str().unwrap(), "HOME");
    expect!["find nsqds by --kubernetes-service: no way to the API: no token of a ServiceAccount at /var/run/secrets/kubernetes.io/serviceaccount/token (a cluster of Coracle does not put one into its pods yet), no kubeconfig at HOME/.kube/config; --kubeconfig=FILE gives one"].assert_eq(&text);
    let asked = vec![(SERVICE, "nsqd".to_owned()), (KUBECONFIG, "/nowhere".to_owned())];
    let failed = find(asked, &environment, &Tasks::default()).await.unwrap_err();
    assert!(format!("{failed:#}").contains("/nowhere"), "{failed:#}");
    let none = find(Given::new(), &environment, &Tasks::default()).await.unwrap();
    assert!(none.is_none());
}
