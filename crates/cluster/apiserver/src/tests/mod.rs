//! The API as a client sees it, over the router in process, on a paused clock: what goes in, what
//! comes out.

mod bodies;
mod bootstrap;
mod changes;
mod deletes;
mod endpoints;
mod https;
mod lists;
mod load;
mod malformed;
mod measured;
mod metrics;
mod objects;
mod options;
mod owners;
mod parts;
mod protobuf;
mod proxy;
mod reviews;
mod slow;
mod snapshot;
mod versions;
mod watches;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use expect_test::Expect;
use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use runtime::{Clock, Tasks};
use serde_json::Value;
use store::{Durability, Store};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use crate::{
    Answer, Body, Config, LogRequest, LogStream, NodeConnector, PodUsage, Router, Server, Usage,
    Used, http::outgoing::Outgoing, identity::Identity, registry::Registry,
};

/// A server on a clock that begins at noon of the first day of 2026.
pub(crate) struct Api {
    pub(crate) server: Server,
    pub(crate) tasks: Tasks,
    router: Router,
    /// Not of a fork, which keeps nothing.
    _folder: Option<tempfile::TempDir>,
}

/// A node whose logs repeat the question, and whose pods are all on this machine.
#[derive(Debug)]
struct Echo;

impl NodeConnector for Echo {
    fn logs(&self, request: LogRequest) -> Answer<'_, LogStream> {
        let LogRequest { namespace, pod, node, container, options, .. } = request;
        let text = format!("{node} {namespace}/{pod}/{container} {options:?}\n");
        let stream: LogStream = Box::pin(futures_util::stream::iter([Ok(Bytes::from(text))]));
        Box::pin(std::future::ready(Ok(stream)))
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(TcpStream::connect((Ipv4Addr::LOCALHOST, to.port())))
    }

    fn usage(&self) -> Answer<'_, Vec<Usage>> {
        let used = |cpu_nanos, memory_bytes| Used {
            at: "2026-01-01T12:00:00Z".parse().unwrap(),
            window: Duration::from_millis(15_032),
            cpu_nanos,
            memory_bytes,
        };
        let pod = |name: &str| PodUsage {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            containers: vec![("app".to_owned(), used(250_000_000, 12 << 20))],
        };
        let all = used(1_234_567_890, 3 << 30);
        let usage = Usage { node: "one".to_owned(), all, pods: vec![pod("a"), pod("gone")] };
        Box::pin(std::future::ready(Ok(vec![usage])))
    }
}

impl Api {
    pub(crate) async fn new() -> Self {
        let noon: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        Self::with_clock(Clock::following_tokio(noon)).await
    }

    pub(crate) async fn with_clock(clock: Clock) -> Self {
        Self::with_config(|config| config.clock = clock).await
    }

    pub(crate) async fn with_config(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store::Config::new(folder.path().join("store"));
        store.durability = Durability::Process;
        store.history_events_max = 64;
        let store = Store::open(&store).unwrap();
        let tasks = Tasks::default();
        let mut config = Config::new(folder.path().join("pki"), 1);
        config.node_connector = Arc::new(Echo);
        change(&mut config);
        let server = Server::build(config, store, &tasks).await.unwrap();
        Self { router: server.service(), server, tasks, _folder: Some(folder) }
    }

    /// A server on a store that has been used.
    pub(crate) async fn on(store: Store) -> Self {
        let tasks = Tasks::default();
        let server = Server::build(Config::in_memory(2), store, &tasks).await.unwrap();
        Self { router: server.service(), server, tasks, _folder: None }
    }

    pub(crate) async fn fork(&self) -> Self {
        let tasks = Tasks::default();
        let server = self.server.fork(&tasks).await.unwrap();
        Self { router: server.service(), server, tasks, _folder: None }
    }

    /// The same over a connection, whose limits it has.
    pub(crate) fn outside(&self) -> Router {
        self.router.clone().over(&Outgoing::new())
    }

    pub(crate) fn outside_as(&self, identity: Identity) -> Router {
        self.outside().of(identity)
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.server.registry()
    }

    /// Sends `METHOD[+flavour] PATH`. Flavours: for bodies `merge`, `json`, `strategic`, `apply`,
    /// `yaml`, `protobuf`; for answers `table`, `partial`, `partials`, `discovery`, `yaml`,
    /// `protobuf` (both ways), `protobuf-body` (a body alone), `protobuf-partial`, `protobuf-table`,
    /// `gzip`; `only-table` takes nothing else.
    pub(crate) async fn send(&self, request: &str, body: &str) -> http::Response<Body> {
        let (method, path) = request.split_once(' ').unwrap();
        self.send_bytes(method, path, body.to_owned().into_bytes()).await
    }

    /// The same with a body that is no text; `method` may have a flavour.
    pub(crate) async fn send_bytes(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> http::Response<Body> {
        let (method, flavour) = method.split_once('+').unwrap_or((method, ""));
        let content_type = match flavour {
            "merge" => "application/merge-patch+json",
            "json" => "application/json-patch+json",
            "strategic" => "application/strategic-merge-patch+json",
            "apply" => "application/apply-patch+yaml",
            "yaml" => "application/yaml",
            "protobuf" | "protobuf-body" => "application/vnd.kubernetes.protobuf",
            _ => "application/json",
        };
        let accept = match flavour {
            "table" => "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            "only-table" => "application/json;as=Table;v=v1;g=meta.k8s.io",
            "partial" => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            "partials" => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "protobuf" => "application/vnd.kubernetes.protobuf,application/json",
            "protobuf-partial" => {
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
            }
            "protobuf-table" => "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
            "discovery" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            "yaml" => "application/yaml",
            _ => "application/json",
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .header("accept", accept)
            .header("accept-encoding", if flavour == "gzip" { "gzip" } else { "identity" })
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Sends and must succeed; the answer.
    pub(crate) async fn value(&self, request: &str, body: &str) -> Value {
        let (code, text) = text(self.send(request, body).await).await;
        assert!(code < 300, "{request}: {code} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Sends, and compares status and body. Of a failure, only reason and message are shown.
    pub(crate) async fn check(&self, request: &str, body: &str, expect: Expect) {
        let response = self.send(request, body).await;
        let warnings: String = response
            .headers()
            .get_all("warning")
            .iter()
            .map(|it| format!("\nwarning: {}", it.to_str().unwrap()))
            .collect();
        let (code, text) = text(response).await;
        let shown = match serde_json::from_str::<Value>(&text) {
            Ok(value) if value["status"] == "Failure" => format!(
                "{} {}",
                value["reason"].as_str().unwrap_or("-"),
                value["message"].as_str().unwrap()
            ),
            _ => text,
        };
        expect.assert_eq(&format!("{code} {shown}{warnings}"));
    }

    /// Makes a ConfigMap in `default`.
    pub(crate) async fn config_map(&self, name: &str, labels: &str) -> Value {
        let body = format!(r#"{{"metadata":{{"name":"{name}","labels":{{{labels}}}}}}}"#);
        self.value("POST /api/v1/namespaces/default/configmaps", &body).await
    }

    /// Makes a pod in `default`, bound to node `n1` if `bound`.
    pub(crate) async fn pod(&self, name: &str, node: Option<&str>) -> Value {
        let body = format!(
            r#"{{"metadata":{{"name":"{name}"}},"spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}"#
        );
        self.value("POST /api/v1/namespaces/default/pods", &body).await;
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        if let Some(node) = node {
            let body = format!(r#"{{"target":{{"name":"{node}"}}}}"#);
            self.value(&format!("POST {path}/binding"), &body).await;
        }
        self.value(&format!("GET {path}"), "").await
    }
}

/// Status and body of an answer that ends.
pub(crate) async fn text(response: http::Response<Body>) -> (u16, String) {
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(bytes.to_vec()).unwrap())
}

/// What is left of an object when only some of it matters: values by JSON pointer.
pub(crate) fn pick(value: &Value, pointers: &[&str]) -> String {
    let texts = pointers.iter().map(|it| match value.pointer(it) {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    });
    texts.collect::<Vec<_>>().join(" ")
}

/// Lets the server's tasks run, then some time pass.
pub(crate) async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
