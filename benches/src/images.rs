//! Pods of images: from the request that creates one to the event that says it runs, from the request
//! that deletes one to the event that it is gone, a hundred at once; and a changed program built into an
//! image and pushed.

use std::{fs, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hyper::Method;
use runtime::Tasks;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    cluster::Cluster,
    http::{Connection, Endpoint},
    pods::{Events, PODS, service_account},
    report::{Aim, Figure, Samples},
};

/// The image: this program of the machine, with the libraries that it needs.
const IMAGE: &str = "bench/sleep:1";
const PROGRAM: &str = "/bin/sleep";

/// Pods that are wanted at the same moment.
const CROWD: usize = 100;

/// Longest wait for one pod, and for the crowd.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the program that is changed and built again.
const PROGRAM_BYTES: usize = 20 << 20;

/// How often it is.
const BUILDS: usize = 5;

/// Measures all of it, in a cluster of its own.
pub(crate) async fn measure(
    coracle: &Path,
    count: usize,
    tasks: &Tasks,
) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::new(coracle)?;
    let pack = ["image", "pack", PROGRAM, "--tag", IMAGE, "--cmd", "infinity"];
    cluster.run(&pack).await.context("pack an image")?;
    cluster.up(tasks).await?;
    let endpoint = Endpoint::new(&cluster.kubeconfig())?;
    let mut connection = endpoint.connect(tasks).await?;
    service_account(&mut connection).await?;
    let mut figures = one_by_one(&mut connection, &endpoint, count, tasks).await?;
    figures.push(crowd(&mut connection, &endpoint, tasks).await?);
    figures.push(builds(&cluster).await?);
    cluster.delete().await?;
    Ok(figures)
}

async fn one_by_one(
    connection: &mut Connection,
    endpoint: &Endpoint,
    count: usize,
    tasks: &Tasks,
) -> anyhow::Result<Vec<Figure>> {
    let mut events = Events::open(endpoint, tasks).await?;
    // The first has the image unpacked.
    create(connection, "first").await?;
    within(events.running("first")).await?;
    let (mut started, mut deleted) = (Vec::new(), Vec::new());
    for number in 0..count {
        let name = format!("one-{number}");
        let start = Instant::now();
        create(connection, &name).await?;
        within(events.running(&name)).await?;
        started.push(start.elapsed());
        let start = Instant::now();
        connection.succeed(Method::DELETE, &format!("{PODS}/{name}"), Bytes::new()).await?;
        within(events.gone(&name)).await?;
        deleted.push(start.elapsed());
    }
    let (started, deleted) = (Samples::new(started), Samples::new(deleted));
    Ok(vec![
        Figure::time("created to running, p50", started.percentile(50)).aim(Aim::AtMost(20.0)),
        Figure::time("created to running, p99", started.percentile(99)),
        Figure::time("deleted to gone, p50", deleted.percentile(50)).aim(Aim::AtMost(10.0)),
        Figure::time("deleted to gone, p99", deleted.percentile(99)),
    ])
}

async fn crowd(
    connection: &mut Connection,
    endpoint: &Endpoint,
    tasks: &Tasks,
) -> anyhow::Result<Figure> {
    let mut events = Events::open(endpoint, tasks).await?;
    let names: Vec<String> = (0..CROWD).map(|it| format!("crowd-{it}")).collect();
    let start = Instant::now();
    for name in &names {
        create(connection, name).await?;
    }
    for name in &names {
        within(events.running(name)).await?;
    }
    let label = format!("{CROWD} created to all running");
    Ok(Figure::time(&label, start.elapsed()).aim(Aim::AtMost(1500.0)))
}

async fn create(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "sleep", "image": IMAGE }],
        },
    });
    connection.succeed(Method::POST, PODS, Bytes::from(object.to_string())).await.map(drop)
}

async fn within(wait: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::time::timeout(PATIENCE, wait).await.context("it does not come")?
}

/// A program that changes, built into an image and pushed to a registry with a folder of its own.
async fn builds(cluster: &Cluster) -> anyhow::Result<Figure> {
    let context = cluster.folder().join("context");
    fs::create_dir(&context)?;
    fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY program /bin/program\nENTRYPOINT [\"/bin/program\"]\n",
    )?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let listen = format!("127.0.0.1:{port}");
    let folder = cluster.folder().join("registry").display().to_string();
    let mut registry = cluster.command(&["registry", "--listen", &listen, "--folder", &folder]);
    let mut registry =
        registry.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let name = format!("localhost:{port}/bench/program:1");
    let mut samples = Vec::new();
    // What a linker writes: neither all the same nor without any order.
    let mut program = fs::read("/proc/self/exe")?;
    program.resize(PROGRAM_BYTES, 0);
    for number in 0..=BUILDS {
        let changed = u8::try_from(number)?;
        program.iter_mut().step_by(4096).for_each(|it| *it = changed);
        fs::write(context.join("program"), &program)?;
        let start = Instant::now();
        let path = context.display().to_string();
        cluster.run(&["image", "build", "--tag", &name, &path]).await.context("build")?;
        cluster.run(&["image", "push", &name]).await.context("push")?;
        // The first finds the registry starting, and the store empty.
        if number != 0 {
            samples.push(start.elapsed());
        }
    }
    registry.kill().await?;
    ensure!(!samples.is_empty(), "nothing was built");
    let label = format!("{} MB changed, built and pushed, p50", PROGRAM_BYTES >> 20);
    let samples = Samples::new(samples);
    Ok(Figure::time(&label, samples.percentile(50)).aim(Aim::AtMost(1000.0)))
}
