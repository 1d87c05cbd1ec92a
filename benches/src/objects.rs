//! Creates and gets of ConfigMaps over TLS, HTTP/1.1 and keep-alive, by our load generator.
//!
//! Closed loop: each connection waits for an answer before it asks again. The generator runs in this
//! process, on the same cores as the server.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use load::{
    engine,
    exchange::{Exchange, Keep, Origin, Request},
    plan::{Arrival, Behaviour, Flow, Identity, Next, Plan, StepId, Transport, Trust, User},
    results::Results,
    scenario::Target,
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    kubeconfig,
    processes::{Moment, Process},
    report::{Aim, Figure},
};

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const CONNECTIONS: [usize; 2] = [1, 32];
/// Characters of data in each; with its metadata an object is then about half a KiB.
const DATA: usize = 256;
/// When a request is given up: it is then an error, and there is no figure.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last answers are waited for.
const GRACE: Duration = Duration::from_secs(10);
/// The only step of either load.
const STEP: StepId = StepId(0);

/// Runs each load for `period` against the API that a kubeconfig names. Of the `servers`, it says
/// what they took of the cores.
pub(crate) async fn measure(
    kubeconfig: &Path,
    servers: &[Process],
    period: Duration,
) -> anyhow::Result<Vec<Figure>> {
    let endpoint = Endpoint::new(kubeconfig)?;
    let mut figures = Vec::new();
    // So that runs against the same server do not meet.
    let run = std::process::id();
    for connections in CONNECTIONS {
        let many = connections > 1;
        let creates = Arc::new(Creates {
            steps: ["create".to_owned()],
            prefix: format!("bench-{run}-{connections}"),
            request: endpoint.request(Method::POST),
            created: Mutex::default(),
        });
        let before = Before::now(servers)?;
        let plan = endpoint.plan(Arc::clone(&creates) as Arc<dyn Behaviour>, connections, period);
        let results = run_plan(plan).await?;
        let aim = many.then_some(Aim::AtLeast(20_000.0));
        figures.extend(shown("creates", connections, &results, period, aim));
        figures.extend(before.spent("creates", connections, &results)?);
        let gets = Gets {
            steps: ["get".to_owned()],
            paths: creates.paths(),
            request: endpoint.request(Method::GET),
        };
        let before = Before::now(servers)?;
        let results = run_plan(endpoint.plan(Arc::new(gets), connections, period)).await?;
        let aim = many.then_some(Aim::AtLeast(60_000.0));
        figures.extend(shown("gets", connections, &results, period, aim));
        figures.extend(before.spent("gets", connections, &results)?);
    }
    Ok(figures)
}

/// An API server, and the files by which the generator and it know each other.
struct Endpoint {
    origin: Arc<Origin>,
    transport: Transport,
    _files: TempDir,
}

impl Endpoint {
    fn new(kubeconfig: &Path) -> anyhow::Result<Self> {
        let credentials = kubeconfig::read(kubeconfig)?;
        let target: Target = credentials.server.parse().map_err(anyhow::Error::msg)?;
        let files = tempfile::tempdir()?;
        let file = |name: &str, content: &[u8]| {
            let path = files.path().join(name);
            fs::write(&path, content).with_context(|| format!("write `{}`", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        let identity = Identity {
            certificate: file("certificate", &credentials.certificate)?,
            key: file("key", &credentials.key)?,
        };
        let trust = Trust::File(file("authority", &credentials.authority)?);
        let transport = Transport { trust, identity: Some(identity), ..Transport::default() };
        Ok(Self { origin: Arc::new(target.origin), transport, _files: files })
    }

    /// What all requests of a load share.
    fn request(&self, method: Method) -> Request {
        let mut headers = HeaderMap::new();
        let format = HeaderValue::from_static("application/json");
        headers.insert(header::ACCEPT, format.clone());
        headers.insert(header::CONTENT_TYPE, format);
        Request {
            origin: Arc::clone(&self.origin),
            method,
            path: Bytes::from_static(PATH.as_bytes()),
            headers: Arc::new(headers),
            body: Bytes::new(),
            keep: Keep::default(),
            timeout: TIMEOUT,
        }
    }

    fn plan(&self, behaviour: Arc<dyn Behaviour>, users: usize, duration: Duration) -> Plan {
        Plan {
            seed: 1,
            flows: vec![Flow {
                name: "objects".to_owned(),
                arrival: Arrival::Closed { users, duration },
                behaviour,
            }],
            grace: GRACE,
            connections_max: None,
            targets: vec![Origin::clone(&self.origin)],
            transport: self.transport.clone(),
        }
    }
}

/// Carries out a plan. A single failure is no figure.
async fn run_plan(plan: Plan) -> anyhow::Result<Results> {
    let run = move || engine::run(plan, std::future::pending(), |_| {});
    let results = tokio::task::spawn_blocking(run).await??;
    let failures = &results.total.failures;
    ensure!(failures.is_empty() && results.own.unanswered == 0, "requests failed: {failures:?}");
    Ok(results)
}

/// Each user creates one ConfigMap.
struct Creates {
    steps: [String; 1],
    prefix: String,
    request: Request,
    /// Users whose object is there.
    created: Mutex<Vec<u64>>,
}

impl Creates {
    fn name(&self, number: u64) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// Where what was created is.
    fn paths(&self) -> Vec<Bytes> {
        let created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        created.iter().map(|it| Bytes::from(format!("{PATH}/{}", self.name(*it)))).collect()
    }
}

/// Each user reads one of them.
struct Gets {
    steps: [String; 1],
    paths: Vec<Bytes>,
    request: Request,
}

/// A behaviour's user of one request.
struct Once {
    request: Option<Request>,
}

impl User for Once {
    fn next(&mut self) -> Next {
        self.request.take().map_or(Next::Leave, |it| Next::Send(STEP, it))
    }

    fn receive(&mut self, _exchange: &Exchange) -> Result<(), String> {
        Ok(())
    }
}

impl Behaviour for Creates {
    fn steps(&self) -> &[String] {
        &self.steps
    }

    fn arrive(&self, number: u64, _seed: u64) -> Box<dyn User> {
        // Whoever arrives creates: a run in which one does not is thrown away.
        self.created.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        let body = config_map(&self.name(number));
        Box::new(Once { request: Some(Request { body, ..self.request.clone() }) })
    }
}

impl Behaviour for Gets {
    fn steps(&self) -> &[String] {
        &self.steps
    }

    fn arrive(&self, number: u64, _seed: u64) -> Box<dyn User> {
        let place = usize::try_from(number).unwrap_or_default() % self.paths.len().max(1);
        let path = self.paths.get(place).cloned().unwrap_or_default();
        Box::new(Once { request: Some(Request { path, ..self.request.clone() }) })
    }
}

/// What the servers had taken of the cores before a load.
struct Before<'a> {
    servers: &'a [Process],
    server: Moment,
}

impl<'a> Before<'a> {
    fn now(servers: &'a [Process]) -> anyhow::Result<Self> {
        Ok(Self { servers, server: Moment::now(servers)? })
    }

    /// What generator and servers have taken since, for each request. Where load from elsewhere makes
    /// the rates vary, this stays.
    fn spent(
        &self,
        what: &str,
        connections: usize,
        results: &Results,
    ) -> anyhow::Result<Vec<Figure>> {
        let figure = |who: &str, seconds: f64| {
            let each = seconds * 1e6 / results.total.succeeded.max(1) as f64;
            Figure::new(format!("{what}, {connections} connections, {who}'s processor"), each, "µs")
        };
        let mut figures = vec![figure("client", results.own.cpu.as_secs_f64())];
        if !self.servers.is_empty() {
            let server = Moment::now(self.servers)?.since(&self.server);
            figures.push(figure("server", server.cpu_nanoseconds as f64 / 1e9));
        }
        Ok(figures)
    }
}

fn shown(
    what: &str,
    connections: usize,
    results: &Results,
    period: Duration,
    aim: Option<Aim>,
) -> [Figure; 3] {
    let rate = results.total.succeeded as f64 / period.as_secs_f64();
    let rate = Figure::new(format!("{what}, {connections} connections"), rate, "1/s");
    let time = |percent: u32| {
        let time = results.total.latency.value_at_quantile(f64::from(percent) / 100.0);
        let what = format!("{what}, {connections} connections, p{percent}");
        Figure::time(what, Duration::from_nanos(time))
    };
    [aim.map_or(rate.clone(), |it| rate.aim(it)), time(50), time(99)]
}

fn config_map(name: &str) -> Bytes {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name },
        "data": { "key": "v".repeat(DATA) },
    });
    Bytes::from(object.to_string())
}
