//! From starting the command to an API that is ready, and to a ready node.

use std::path::Path;

use runtime::Tasks;
use tokio::time::Instant;

use crate::{
    cluster::Cluster,
    report::{Aim, Figure, Samples},
};

/// Goal for a first start, in milliseconds.
const AIM: Aim = Aim::AtMost(50.0);

/// Starts `count` new clusters, each twice: the first start makes keys and folders.
pub(crate) async fn measure(
    coracle: &Path,
    count: usize,
    tasks: &Tasks,
) -> anyhow::Result<Vec<Figure>> {
    let (mut api, mut node, mut again, mut stop) = (vec![], vec![], vec![], vec![]);
    for _ in 0..count {
        let cluster = Cluster::new(coracle)?;
        let started = cluster.up(tasks).await?;
        api.push(started.api);
        node.push(started.node);
        let start = Instant::now();
        cluster.down().await?;
        stop.push(start.elapsed());
        // The node in the store is still ready from before, so only the API can be timed.
        again.push(cluster.up(tasks).await?.api);
        cluster.delete().await?;
    }
    let p50 = |samples| Samples::new(samples).percentile(50);
    Ok(vec![
        Figure::time("command to /readyz, first start, p50", p50(api)).aim(AIM),
        Figure::time("command to ready node, first start, p50", p50(node)).aim(AIM),
        Figure::time("command to /readyz, later start, p50", p50(again)).aim(AIM),
        Figure::time("down of an empty cluster, p50", p50(stop)),
    ])
}
