//! The built-in proxy beside nginx and haproxy, with the same server behind them and the same generator
//! before them, in turns; and what connections that are held cost.
//!
//! Generator, proxy and server share the machine's cores, so the processor that the proxy takes for a
//! request tells more than how many there are in a second.

mod held;
mod peers;

use std::path::Path;

use anyhow::{Context as _, ensure};
use runtime::Tasks;
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{Duration, Instant},
};

use self::peers::Peer;
use crate::{
    network::{
        lab::{Lab, SERVICES},
        middle,
    },
    peers::run,
    processes::{Moment, Process},
    report::Figure,
};

/// Port of the server behind the proxies, in a pod.
const PORT: u16 = 8000;
/// How often each has its turn, an odd number, and for how long.
const ROUNDS: usize = 5;
const ROUND: &str = "3s";
/// Connections of the generator.
const CONNECTIONS: &str = "50";
/// How long the proxy may take to listen, and between two looks whether it does.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);
const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";

/// Measures both.
pub(crate) async fn measure(coracle: &Path, tasks: &Tasks) -> anyhow::Result<Vec<Figure>> {
    let mut lab = Lab::new(coracle, tasks).await?;
    let web = json!({"app": "web"});
    lab.start("web", &web, ("web", &[&PORT.to_string()])).await?;
    let spec = json!({
        "selector": web,
        "ports": [{"port": PORT}],
    });
    // Published, for the connections that are held.
    let published = held::published(&mut lab, "web", &spec, PORT).await?;
    lab.endpoints("web", 1).await?;
    let backend = json!({"service": {"name": "web", "port": {"number": PORT}}});
    let ingress = json!({"metadata": {"name": "web"}, "spec": {"defaultBackend": backend}});
    lab.create(INGRESSES, &ingress).await?;
    let ports = ports(&mut lab).await?;

    let upstream = format!("{}:{PORT}", lab.address("web").await?);
    let mut loads = Vec::new();
    if rustix::process::geteuid().is_root() {
        // Only root's machine has routes to pods.
        loads.push(Load::new("server itself", format!("http://{upstream}/"), Vec::new()));
    }
    let own = lab.cluster.servers()?;
    loads.push(Load::new("coracle", format!("http://127.0.0.1:{}/", ports.http), own.clone()));
    loads.push(Load::new(
        "coracle, TLS",
        format!("https://127.0.0.1:{}/", ports.https),
        own.clone(),
    ));
    let folder = lab.cluster.folder().join("peers");
    let started = peers::start(&folder, &upstream).await?;
    for peer in &started {
        let Peer { name, http, https, processes, .. } = peer;
        loads.push(Load::new(name, format!("http://127.0.0.1:{http}/"), processes.clone()));
        let name = format!("{name}, TLS");
        loads.push(Load::new(&name, format!("https://127.0.0.1:{https}/"), processes.clone()));
    }
    in_turns(coracle, &mut loads).await?;
    let mut figures: Vec<Figure> = loads.into_iter().flat_map(Load::figures).collect();
    figures.extend(held::measure(("coracle, an Ingress", ports.http), &own).await?);
    figures.extend(held::measure(("coracle, a published port", published), &own).await?);
    for peer in &started {
        figures.extend(held::measure((peer.name, peer.http), &peer.processes).await?);
    }
    drop(started);
    lab.cluster.delete().await?;
    Ok(figures)
}

async fn in_turns(coracle: &Path, loads: &mut [Load]) -> anyhow::Result<()> {
    for load in &mut *loads {
        load.turn(coracle, "1s").await.with_context(|| load.name.clone())?;
    }
    loads.iter_mut().for_each(Load::forget);
    for _ in 0..ROUNDS {
        for load in &mut *loads {
            load.turn(coracle, ROUND).await.with_context(|| load.name.clone())?;
        }
    }
    Ok(())
}

/// Where the proxy listens.
struct Ports {
    http: u16,
    https: u16,
}

/// Waits until the proxy has written where it listens.
async fn ports(lab: &mut Lab) -> anyhow::Result<Ports> {
    let until = Instant::now() + PATIENCE;
    loop {
        let class = lab.api.get("/apis/networking.k8s.io/v1/ingressclasses/coracle").await?;
        let text = class.pointer("/metadata/annotations/coracle.dev~1listens");
        let text = text.and_then(Value::as_str).unwrap_or_default();
        let port = |scheme: &str| {
            let mut parts = text.split(',').filter_map(|it| it.split_once('='));
            parts.find(|(it, _)| *it == scheme).and_then(|(_, port)| port.parse().ok())
        };
        if let (Some(http), Some(https)) = (port("http"), port("https")) {
            return Ok(Ports { http, https });
        }
        ensure!(Instant::now() < until, "the IngressClass says only `{text}` of where it listens");
        tokio::time::sleep(LOOK).await;
    }
}

/// One who is asked.
struct Load {
    name: String,
    url: String,
    processes: Vec<Process>,
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    processor: Vec<f64>,
}

impl Load {
    fn new(name: &str, url: String, processes: Vec<Process>) -> Self {
        let (rate, p50, p99, processor) = Default::default();
        Self { name: name.to_owned(), url, processes, rate, p50, p99, processor }
    }

    /// The first turn only makes caches and connections.
    fn forget(&mut self) {
        for values in [&mut self.rate, &mut self.p50, &mut self.p99, &mut self.processor] {
            values.clear();
        }
    }

    async fn turn(&mut self, coracle: &Path, time: &str) -> anyhow::Result<()> {
        let before = Moment::now(&self.processes)?;
        let mut command = Command::new(coracle);
        command.args(["load", &self.url, "--closed", CONNECTIONS, "--for", time]);
        command.args(["--i-may", "--insecure", "-o", "json"]);
        let said: Value = serde_json::from_str(&run(&mut command).await?)?;
        let spent = Moment::now(&self.processes)?.since(&before);
        let number = |place: &str| {
            let number = said.pointer(place).and_then(Value::as_f64);
            number.with_context(|| format!("no {place} in {said}"))
        };
        let (succeeded, started) = (number("/total/succeeded")?, number("/total/started")?);
        ensure!(succeeded == started, "only {succeeded} of {started} requests succeeded");
        let seconds: f64 = time.trim_end_matches('s').parse()?;
        self.rate.push(succeeded / seconds);
        self.p50.push(number("/total/latency/p50_seconds")? * 1e3);
        self.p99.push(number("/total/latency/p99_seconds")? * 1e3);
        self.processor.push(spent.cpu_nanoseconds as f64 / 1e3 / succeeded);
        Ok(())
    }

    fn figures(self) -> Vec<Figure> {
        let Self { name, rate, p50, p99, processor, processes, .. } = self;
        let mut figures = vec![
            Figure::new(format!("{name}: requests"), middle(rate), "1/s"),
            Figure::new(format!("{name}: p50"), middle(p50), "ms"),
            Figure::new(format!("{name}: p99"), middle(p99), "ms"),
        ];
        if !processes.is_empty() {
            let each = format!("{name}: processor for a request");
            figures.push(Figure::new(each, middle(processor), "µs"));
        }
        figures
    }
}

/// A Service with these ports, and with `annotations`.
async fn service(
    lab: &mut Lab,
    name: &str,
    spec: &Value,
    annotations: &Value,
) -> anyhow::Result<()> {
    let metadata = json!({"name": name, "annotations": annotations});
    lab.create(SERVICES, &json!({"metadata": metadata, "spec": spec})).await
}
