//! Measures the release binary from outside, as a user's machine sees it: start, idle cost, the
//! API over TLS, pods. The figures and what they mean are in docs/benchmarks.md.
//!
//! Run by `cargo xtask bench`. Starts clusters of its own in folders of its own and removes them.
//! With `--kubeconfig` it measures the objects part against any Kubernetes API.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod api;
mod cluster;
mod disk;
mod egress;
mod fault;
mod generator;
mod http;
mod idle;
mod images;
mod kubeconfig;
mod network;
mod objects;
mod peers;
mod pods;
mod processes;
mod proxy;
mod queue;
mod report;
mod start;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use runtime::Tasks;

use crate::{cluster::Cluster, http::Endpoint, report::Report};

/// Measures Coracle.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// The release binary; if not given, the environment variable CORACLE names it.
    #[arg(long)]
    coracle: Option<PathBuf>,
    /// Measure only creates and gets, against the API that this kubeconfig names.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Parts to measure; all of them if not given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// How many times a cluster is started.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// How long an empty cluster is watched, in seconds.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// How long each of the loads runs, in seconds.
    #[arg(long, default_value_t = 5)]
    load_seconds: u64,
    /// How many pods are started.
    #[arg(long, default_value_t = 50)]
    pods: usize,
    /// Format of the figures.
    #[arg(short, long, default_value = "text")]
    output: Format,
}

/// Pods of images that are started one after another.
const IMAGE_PODS: usize = 50;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Process start to an API that is ready, and to a ready node.
    Start,
    /// Memory, CPU and wake-ups of an empty cluster.
    Idle,
    /// From creating a pod to its running; memory of a pod.
    Pods,
    /// Pods of images, a load and builds, beside podman, crun and runc.
    Images,
    /// As many idle pods as the node takes. Takes minutes: only when it is named.
    Most,
    /// Creates and gets over TLS.
    Objects,
    /// Lists, tables, events, applies and a snapshot of a full cluster.
    Api,
    /// What load generators of others say of a server that hangs, beside what is true.
    Peers,
    /// Our load generator: what it takes of processor and memory, and how exactly it starts.
    Generator,
    /// The fault proxy: what it costs without a fault, and how exact its delays are.
    Fault,
    /// Connections from a pod to the machine, and what they cost.
    Egress,
    /// Services beside direct addresses, changes, names, policies; name servers of others if installed.
    Network,
    /// The proxy beside nginx and haproxy, if they are installed; what held connections take.
    Proxy,
    /// The queue: publishing and consuming, beside nats-server.
    Queue,
    /// The queue: ten million messages waiting and replayed, ten thousand clients.
    Backlog,
}

/// A format of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Text,
    /// One JSON document.
    Json,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(ended) = elsewhere(&words) {
        return match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let arguments = Arguments::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let measured = runtime.map_err(anyhow::Error::new).and_then(|it| it.block_on(run(&arguments)));
    match measured {
        Ok(report) => {
            match arguments.output {
                Format::Text => print!("{}", report.text()),
                Format::Json => println!("{:#}", report.json()),
            }
            if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What this program does where it is started to be measured.
fn elsewhere(words: &[String]) -> Option<anyhow::Result<()>> {
    match words {
        [first, address] if first == egress::CLIENT => Some(egress::client(address)),
        [first] if first == network::watch::WATCH => Some(network::watch::run()),
        _ => network::agent::run(words),
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<Report> {
    let tasks = Tasks::default();
    let load = Duration::from_secs(arguments.load_seconds);
    if let Some(kubeconfig) = &arguments.kubeconfig {
        let mut report = Report::default();
        report.add("objects", objects::measure(kubeconfig, &[], load).await);
        return Ok(report);
    }
    let coracle = arguments
        .coracle
        .clone()
        .or_else(|| std::env::var_os("CORACLE").map(PathBuf::from))
        .context("which binary? name it with --coracle or in the environment variable CORACLE")?;
    let coracle =
        coracle.canonicalize().with_context(|| format!("find `{}`", coracle.display()))?;
    measure(arguments, &coracle, load, &tasks).await
}

/// What needs no running cluster, or its own.
async fn without_cluster(
    report: &mut Report,
    wanted: impl Fn(Part) -> bool,
    starts: usize,
    coracle: &std::path::Path,
    tasks: &Tasks,
) {
    if wanted(Part::Start) {
        progress("starting and stopping clusters");
        report.add("start", start::measure(coracle, starts, tasks).await);
    }
    if wanted(Part::Peers) {
        progress("loading a server that hangs, with every generator that is installed");
        report.add("peers", peers::measure(coracle).await);
    }
    if wanted(Part::Generator) {
        progress("measuring the load generator");
        report.add("generator", generator::measure(coracle).await);
    }
    if wanted(Part::Fault) {
        progress("measuring the fault proxy");
        report.add("fault", fault::measure(coracle).await);
    }
    if wanted(Part::Queue) {
        progress("measuring the queue, beside nats-server if it is installed");
        report.add("queue", queue::measure(coracle).await);
    }
    if wanted(Part::Backlog) {
        progress("measuring what waits in the queue");
        report.add("backlog", queue::measure_backlog(coracle).await);
    }
    if wanted(Part::Images) {
        progress("starting pods of images and building some, beside others' if they are installed");
        report.add("images", images::measure(coracle, IMAGE_PODS, tasks).await);
    }
    if wanted(Part::Most) {
        progress("filling a cluster with idle pods");
        report.add("most", images::measure_most(coracle, tasks).await);
    }
    if wanted(Part::Api) {
        progress("filling a cluster");
        report.add("api", api::measure(coracle, tasks).await);
    }
}

async fn measure(
    arguments: &Arguments,
    coracle: &std::path::Path,
    load: Duration,
    tasks: &Tasks,
) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let wanted = |part: Part| {
        arguments.only.contains(&part) || arguments.only.is_empty() && part != Part::Most
    };
    without_cluster(&mut report, &wanted, arguments.starts, coracle, tasks).await;
    if wanted(Part::Egress) {
        progress("measuring the way out of a cluster");
        report.add("egress", egress::measure(coracle, tasks).await);
    }
    if wanted(Part::Network) {
        progress("measuring the network");
        report.add("network", network::measure(coracle, tasks).await);
    }
    if wanted(Part::Proxy) {
        progress("measuring the proxy");
        report.add("proxy", proxy::measure(coracle, tasks).await);
    }
    if !(wanted(Part::Idle) || wanted(Part::Pods) || wanted(Part::Objects)) {
        return Ok(report);
    }
    let cluster = Cluster::new(coracle)?;
    cluster.up(tasks).await?;
    // In this order, so that nobody pays for the objects and pods of the part before.
    if wanted(Part::Idle) {
        progress("watching an empty cluster");
        let period = Duration::from_secs(arguments.idle_seconds);
        report.add("idle", idle::measure(&cluster, period).await);
    }
    let endpoint = Endpoint::new(&cluster.kubeconfig())?;
    if wanted(Part::Pods) {
        progress("starting pods");
        report.add("pods", pods::measure(&cluster, &endpoint, arguments.pods, tasks).await);
    }
    if wanted(Part::Objects) {
        progress("measuring the disk alone");
        report.add("disk", disk::measure(cluster.folder()));
        progress("creating and getting objects");
        report.add(
            "objects",
            objects::measure(&cluster.kubeconfig(), &cluster.servers()?, load).await,
        );
    }
    cluster.delete().await?;
    Ok(report)
}

fn progress(what: &str) {
    eprintln!("{what} …");
}
