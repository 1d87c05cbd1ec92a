//! A cluster with this program in its pods: servers, and clients that are told what to do.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use hyper::Method;
use runtime::{OnExit, Tasks};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufStream},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use super::agent;
use crate::{
    cluster::Cluster,
    egress,
    http::{Connection, Endpoint},
    pods::{Events, PODS, service_account},
};

pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
/// Port of the servers in pods, and of the Services before them.
pub(crate) const PORT: u16 = 9000;
/// How long a pod or an object of a controller may take to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what somebody else writes.
const LOOK: Duration = Duration::from_millis(5);

/// Programs of the machine that stand for images, with their first arguments. What begins with `SELF` is
/// this program.
const LINKS: &[(&str, &[&str])] = &[
    ("client", &["SELF", agent::CLIENT]),
    ("server", &["SELF", agent::SERVER]),
    ("web", &["SELF", agent::WEB]),
    ("run", &["/usr/bin/env"]),
    ("idle", &["sleep", "infinity"]),
];

/// The cluster, and how to reach it.
pub(crate) struct Lab {
    pub(crate) cluster: Cluster,
    pub(crate) api: Connection,
    pub(crate) events: Events,
    arrivals: mpsc::Receiver<TcpStream>,
    port: u16,
}

/// A client in a pod.
pub(crate) struct Client(BufStream<TcpStream>);

impl Client {
    /// Has it do something; the numbers that it answers.
    pub(crate) async fn ask(&mut self, order: &str) -> anyhow::Result<Vec<f64>> {
        egress::ask(&mut self.0, order).await.with_context(|| format!("of a pod: {order}"))
    }

    /// The median and the 99th percentile of something that takes time.
    pub(crate) async fn both(&mut self, order: &str) -> anyhow::Result<(f64, f64)> {
        match self.ask(order).await?.as_slice() {
            [p50, p99] => Ok((*p50, *p99)),
            other => bail!("`{order}` is answered by {other:?}"),
        }
    }

    /// One number.
    pub(crate) async fn one(&mut self, order: &str) -> anyhow::Result<f64> {
        self.ask(order).await?.first().copied().with_context(|| format!("`{order}`: no answer"))
    }
}

impl Lab {
    pub(crate) async fn new(coracle: &Path, tasks: &Tasks) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let port = listener.local_addr()?.port();
        let (told, arrivals) = mpsc::channel(2);
        let connections = tasks.clone();
        tasks.spawn("lab", OnExit::Log, |_| egress::serve(listener, told, connections));
        let cluster = Cluster::new(coracle)?;
        cluster.up(tasks).await?;
        let endpoint = Endpoint::new(&cluster.kubeconfig())?;
        let mut api = endpoint.connect(tasks).await?;
        service_account(&mut api).await?;
        let events = Events::open(&endpoint, tasks).await?;
        let mut lab = Self { cluster, api, events, arrivals, port };
        lab.link().await.context("link the programs")?;
        Ok(lab)
    }

    async fn link(&mut self) -> anyhow::Result<()> {
        let program = std::env::current_exe()?;
        let program = program.to_str().context("a path in UTF-8")?;
        let links = LINKS.iter().map(|(name, words)| {
            let run: Vec<&str> =
                words.iter().map(|it| if *it == "SELF" { program } else { it }).collect();
            let link = json!({"image": format!("bench/{name}"), "directory": "/", "run": run});
            (format!("bench-{name}"), link.to_string())
        });
        let links: BTreeMap<String, String> = links.collect();
        let path = "/api/v1/namespaces/kube-system/configmaps";
        self.create(
            path,
            &json!({"metadata": {"name": "coracle-links", "namespace": "kube-system"}, "data": links}),
        )
        .await
    }

    pub(crate) async fn create(&mut self, path: &str, object: &Value) -> anyhow::Result<()> {
        let body = Bytes::from(object.to_string());
        self.api.succeed(Method::POST, path, body).await.map(drop)
    }

    /// Changes one place of an object.
    pub(crate) async fn replace(
        &mut self,
        path: &str,
        place: &str,
        value: &Value,
    ) -> anyhow::Result<()> {
        let body = json!([{"op": "replace", "path": place, "value": value}]);
        let kinds = ("application/json-patch+json", "application/json");
        let answer =
            self.api.send(Method::PATCH, path, kinds, Bytes::from(body.to_string())).await?;
        let status = answer.status();
        let said = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&said));
        Ok(())
    }

    /// Creates a pod and waits until it runs.
    pub(crate) async fn start(
        &mut self,
        name: &str,
        labels: &Value,
        (image, arguments): (&str, &[&str]),
    ) -> anyhow::Result<()> {
        self.create(PODS, &pod(name, labels, (image, arguments))).await?;
        let runs = tokio::time::timeout(PATIENCE, self.events.running(name)).await;
        runs.with_context(|| format!("pod `{name}` does not run"))?
    }

    /// The address of a pod that runs.
    pub(crate) async fn address(&mut self, name: &str) -> anyhow::Result<Ipv4Addr> {
        let pod = self.api.get(&format!("{PODS}/{name}")).await?;
        let address = pod.pointer("/status/podIP").and_then(Value::as_str);
        Ok(address.with_context(|| format!("pod `{name}` has no address"))?.parse()?)
    }

    /// Starts a pod with a server, and waits until it listens.
    pub(crate) async fn server(&mut self, name: &str, labels: &Value) -> anyhow::Result<Ipv4Addr> {
        self.start(name, labels, ("server", &[&PORT.to_string()])).await?;
        self.address(name).await
    }

    /// Starts a pod with a client.
    pub(crate) async fn client(&mut self, name: &str) -> anyhow::Result<Client> {
        let whom = format!("host.coracle.internal:{}", self.port);
        self.start(name, &json!({}), ("client", &[&whom, name])).await?;
        let stream = tokio::time::timeout(PATIENCE, self.arrivals.recv()).await;
        let stream = stream.context("the client does not come")?.context("the lab has ended")?;
        let mut client = BufStream::new(stream);
        let mut line = String::new();
        client.read_line(&mut line).await?;
        ensure!(line.trim_end() == name, "`{line}` comes in place of `{name}`");
        Ok(Client(client))
    }

    /// Makes a Service; its address.
    pub(crate) async fn service(
        &mut self,
        name: &str,
        selector: Option<&Value>,
    ) -> anyhow::Result<Ipv4Addr> {
        let mut spec = json!({"ports": [{"port": PORT}]});
        if let (Some(selector), Some(spec)) = (selector, spec.as_object_mut()) {
            spec.insert("selector".to_owned(), selector.clone());
        }
        self.create(SERVICES, &json!({"metadata": {"name": name}, "spec": spec})).await?;
        let service = self.api.get(&format!("{SERVICES}/{name}")).await?;
        let address = service.pointer("/spec/clusterIP").and_then(Value::as_str);
        Ok(address.context("a Service without an address")?.parse()?)
    }

    /// Waits until the endpoints of a Service are as many as wanted.
    pub(crate) async fn endpoints(&mut self, service: &str, count: usize) -> anyhow::Result<()> {
        let path = format!("{SLICES}?labelSelector=kubernetes.io/service-name%3D{service}");
        let there = async {
            loop {
                let slices = self.api.get(&path).await?;
                let listed = |it: &Value, key| it.get(key).and_then(Value::as_array).cloned();
                let slices = listed(&slices, "items").unwrap_or_default();
                let endpoints = slices.iter().flat_map(|it| listed(it, "endpoints")).flatten();
                let ready = |it: &Value| it.pointer("/conditions/ready") == Some(&json!(true));
                if endpoints.filter(ready).count() == count {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let there = tokio::time::timeout(PATIENCE, there).await;
        there.with_context(|| format!("`{service}` does not get {count} endpoints"))?
    }
}

/// A pod of a linked program.
pub(crate) fn pod(name: &str, labels: &Value, (image, arguments): (&str, &[&str])) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "it", "image": format!("bench/{image}"), "args": arguments}],
        },
    })
}

/// A slice of a Service that nobody else writes to.
pub(crate) fn slice(name: &str, service: &str, addresses: &[Ipv4Addr]) -> Value {
    let ready = json!({"ready": true});
    let endpoints: Vec<Value> =
        addresses.iter().map(|it| json!({"addresses": [it], "conditions": ready})).collect();
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": PORT, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}
