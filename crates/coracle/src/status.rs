//! `coracle status`: what runs, and whether it is ready.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod, Service},
};
use serde_json::{Value, json};

use crate::{
    cli::Format,
    directories::Directories,
    ended::{self, Ended},
    lock::{self, Running},
    output,
    progress::{self, Waiting},
    published,
    session::{self, Session},
    urls::{self, Url},
};

/// Exit code when the cluster does not run, as `systemctl status` has it.
const EXIT_NOT_RUNNING: u8 = 3;

/// Between two looks of who watches: nothing is asked of the cluster for them.
const WATCH_PERIOD: Duration = Duration::from_millis(250);
/// Clears a terminal, and goes to its first place.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Prints the status; with `watch`, whenever it changes.
pub(crate) fn run(
    directories: &Directories,
    format: Format,
    watch: bool,
) -> anyhow::Result<ExitCode> {
    let Some(running) = lock::running(&directories.run)? else {
        let text = format!("cluster `{}` does not run", directories.name);
        match format {
            Format::Text => output::line(&text)?,
            Format::Json => {
                output::line(&json!({"name": directories.name, "running": false}).to_string())?;
            }
        }
        return Ok(ExitCode::from(EXIT_NOT_RUNNING));
    };
    let clears = watch && format == Format::Text && io::stdout().is_terminal();
    session::run(directories, async |session| {
        let mut last = String::new();
        loop {
            let seen = observe(&session).await;
            let text = match format {
                Format::Text => text(directories, &running, &seen),
                Format::Json if watch => json_of(directories, &running, &seen).to_string(),
                Format::Json => format!("{:#}", json_of(directories, &running, &seen)),
            };
            if text != last {
                output::line(&if clears { format!("{CLEAR}{text}") } else { text.clone() })?;
                last = text;
            }
            if !watch {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(WATCH_PERIOD).await;
        }
    })
}

struct Seen {
    node_ready: bool,
    /// What the node says of its pods' limits.
    limits: String,
    /// Whether the host has routes to pods and Services.
    routes: String,
    /// Which of the host's own routes are in the way of these; empty if none are.
    clash: String,
    /// How many of these ask for some.
    limited: usize,
    pods: usize,
    rows: Vec<Row>,
    urls: Vec<Url>,
    waiting: Vec<Waiting>,
    /// What has failed, and nobody starts again.
    failed: Vec<Ended>,
}

struct Row {
    namespace: String,
    name: String,
    ready: i32,
    wanted: i32,
    published: String,
}

async fn observe(session: &Session) -> Seen {
    let nodes = session.caches.of::<Node>();
    let deployments = session.caches.of::<Deployment>();
    let pods = session.caches.of::<Pod>();
    let services = session.caches.of::<Service>();
    tokio::join!(nodes.synced(), deployments.synced(), pods.synced(), services.synced());
    let (deployments, pods, services) = (deployments.list(), pods.list(), services.list());
    let deployments: Vec<&Deployment> = deployments.iter().map(AsRef::as_ref).collect();
    let pods: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
    let services: Vec<&Service> = services.iter().map(AsRef::as_ref).collect();
    let nodes = nodes.list();
    let urls = urls::all(session).await;
    let said = |annotation| {
        let said = |it: &Arc<Node>| it.metadata.annotations.as_ref()?.get(annotation).cloned();
        nodes.iter().find_map(said).unwrap_or_default()
    };
    Seen {
        limits: said(api::annotation::CGROUPS),
        routes: said(api::annotation::HOST_ROUTES),
        clash: said(api::annotation::RANGE_CLASH),
        limited: pods.iter().filter(|it| is_limited(it)).count(),
        node_ready: nodes.iter().any(|it| is_ready(it)),
        pods: pods.len(),
        rows: deployments.iter().map(|it| row(it, &services)).collect(),
        urls,
        waiting: progress::waiting(&deployments, &pods),
        failed: ended::ended(&pods).into_iter().filter(|it| it.failed).collect(),
    }
}

fn is_limited(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|it| &it.containers);
    let limits = containers.filter_map(|it| it.resources.as_ref()?.limits.as_ref());
    limits.into_iter().any(|it| !it.is_empty())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|it| it.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}

fn row(deployment: &Deployment, services: &[&Service]) -> Row {
    let status = deployment.status.as_ref();
    let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
    let name = deployment.metadata.name.clone().unwrap_or_default();
    Row {
        ready: status.and_then(|it| it.available_replicas).unwrap_or(0),
        wanted: deployment.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1),
        published: published::of_deployment(deployment, services).join(" "),
        namespace,
        name,
    }
}

fn text(directories: &Directories, running: &Running, seen: &Seen) -> String {
    let mut text = format!(
        "cluster `{}` runs (process {}, version {}), API at https://127.0.0.1:{}, node {}, {} pods",
        directories.name,
        running.pid,
        running.version,
        running.port,
        if seen.node_ready { "ready" } else { "not ready" },
        seen.pods,
    );
    // Where everything is enforced, or nobody asks for it, nobody need hear of it.
    if seen.limited != 0 && seen.limits.contains("not limited") {
        let (pods, limits) = (seen.limited, &seen.limits);
        text.push_str(&format!("\n{pods} pods have limits; {limits}"));
    }
    if !seen.clash.is_empty() {
        text.push_str(&format!("\n{}", seen.clash));
    }
    if !seen.rows.is_empty() {
        let header = ["NAMESPACE", "DEPLOYMENT", "READY", "PUBLISHED"].map(str::to_owned).to_vec();
        let row = |it: &Row| {
            let ready = format!("{}/{}", it.ready, it.wanted);
            vec![it.namespace.clone(), it.name.clone(), ready, it.published.clone()]
        };
        let rows: Vec<Vec<String>> =
            std::iter::once(header).chain(seen.rows.iter().map(row)).collect();
        text.push_str("\n\n");
        text.push_str(&output::table(&rows));
    }
    if !seen.urls.is_empty() {
        let header = vec!["URL".to_owned(), "LEADS TO".to_owned()];
        let row = |it: &Url| vec![it.url.clone(), it.object.clone()];
        let rows: Vec<Vec<String>> =
            std::iter::once(header).chain(seen.urls.iter().map(row)).collect();
        text.push_str("\n\n");
        text.push_str(&output::table(&rows));
    }
    for waiting in &seen.waiting {
        text.push_str(&format!("\n{}", waiting.line()));
    }
    for failed in &seen.failed {
        text.push_str(&format!("\n{}", failed.line()));
    }
    text
}

fn json_of(directories: &Directories, running: &Running, seen: &Seen) -> Value {
    let row = |it: &Row| {
        json!({"namespace": it.namespace, "name": it.name, "ready": it.ready,
               "replicas": it.wanted, "published": it.published})
    };
    let waiting = |it: &Waiting| json!({"object": it.object, "reason": it.reason, "advance": it.advance, "failing": it.failing});
    let url = |it: &Url| json!({"url": it.url, "object": it.object});
    let failed = |it: &Ended| json!({"object": it.object, "reason": it.how});
    json!({
        "name": directories.name,
        "running": true,
        "pid": running.pid,
        "version": running.version,
        "server": format!("https://127.0.0.1:{}", running.port),
        "nodeReady": seen.node_ready,
        "pods": seen.pods,
        "limits": seen.limits,
        "hostRoutes": seen.routes,
        "rangeClash": seen.clash,
        "deployments": seen.rows.iter().map(row).collect::<Vec<Value>>(),
        "urls": seen.urls.iter().map(url).collect::<Vec<Value>>(),
        "waiting": seen.waiting.iter().map(waiting).collect::<Vec<Value>>(),
        "failed": seen.failed.iter().map(failed).collect::<Vec<Value>>(),
    })
}
