//! Pods of images, beside the programs of others that run containers on this machine in the same run:
//! starts, ends, memory; a large image that is loaded, and a changed program that is built and pushed.

mod builds;
mod load;
mod most;
mod peers;
mod pods;
mod room;
mod traces;

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use runtime::Tasks;
use serde_json::json;

pub(crate) use most::measure as measure_most;

use crate::{
    cluster::Cluster,
    http::{Connection, Endpoint},
    pods::service_account,
    report::Figure,
};

/// A program that does nothing, and the image of it with the libraries that it needs.
const IDLE: &str = "docker.io/bench/idle:1";
/// One that ends when SIGTERM comes: what does not handle it as the first process of a container does
/// not get it.
const HEEDS: &str = "docker.io/bench/heeds:1";
const HEEDING: &str = "trap 'exit 0' TERM; sleep infinity & wait";

/// Containers that are wanted at the same moment.
const CROWD: usize = 100;

/// Longest wait for one pod of many.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures all of it, ours in a cluster of its own.
pub(crate) async fn measure(
    coracle: &Path,
    count: usize,
    tasks: &Tasks,
) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::new(coracle)?;
    pack(&cluster).await?;
    let (endpoint, mut connection) = up(&cluster, tasks).await?;
    let mut figures = pods::measure(&cluster, &mut connection, &endpoint, count, tasks).await?;
    let room = room::Room::open(cluster.folder()).await?;
    let beside = async {
        figures.extend(load::measure(&cluster, &mut connection, &endpoint, &room, tasks).await?);
        cluster.down().await?;
        figures.extend(builds::measure(&cluster, &room).await?);
        figures.extend(peers::measure(&cluster, &room).await?);
        anyhow::Ok(())
    };
    let measured = beside.await;
    room.close().await?;
    measured?;
    cluster.delete().await?;
    Ok(figures)
}

/// Makes the images in the cluster's store.
async fn pack(cluster: &Cluster) -> anyhow::Result<()> {
    let idle = ["image", "pack", "/bin/sleep", "--tag", IDLE, "--cmd", "infinity"];
    cluster.run(&idle).await.context("pack an image")?;
    let words = ["/bin/sh", "-c", HEEDING];
    let mut heeds =
        vec!["image", "pack", "/bin/sh", "--tag", HEEDS, "--add", "/bin/sleep:/bin/sleep"];
    heeds.extend(words.iter().flat_map(|it| ["--entrypoint", it]));
    cluster.run(&heeds).await.context("pack an image")
}

async fn up(cluster: &Cluster, tasks: &Tasks) -> anyhow::Result<(Endpoint, Connection)> {
    cluster.up(tasks).await?;
    let endpoint = Endpoint::new(&cluster.kubeconfig())?;
    let mut connection = endpoint.connect(tasks).await?;
    service_account(&mut connection).await?;
    Ok((endpoint, connection))
}

/// A pod of an image. Without a grace period it has Kubernetes' 30 seconds.
fn pod(name: &str, image: &str, grace: Option<u32>) -> bytes::Bytes {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": grace,
            "containers": [{ "name": "it", "image": image }],
        },
    });
    object.to_string().into()
}

async fn within<T>(wait: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, wait).await.context("it does not come")?
}
