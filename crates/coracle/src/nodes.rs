//! How many nodes the cluster is to have: tells it, and waits until it has them.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use api::nodes::{CONFIG_MAP, COUNT, LEASE_SECONDS, NAMESPACE};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::{apply, cli::UpArguments, output::Progress, session::Session};

/// Makes the cluster have as many nodes as the arguments say, if they say it.
pub(crate) async fn arrange(
    session: &Session,
    arguments: &UpArguments,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let said = [(COUNT, arguments.nodes), (LEASE_SECONDS, arguments.node_lease)];
    let data: BTreeMap<&str, String> =
        said.into_iter().filter_map(|(key, it)| Some((key, it?.to_string()))).collect();
    if data.is_empty() {
        return Ok(());
    }
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": NAMESPACE},
        "data": data,
    });
    apply::merge(&session.client, &object)
        .await
        .context("tell the cluster how many nodes it has")?;
    let Some(count) = arguments.nodes else { return Ok(()) };
    let nodes = session.caches.of::<Node>();
    let mut changes = nodes.subscribe();
    nodes.synced().await;
    let come = async {
        loop {
            let all = nodes.list();
            let ready =
                all.iter().filter(|it| is_ready(it) && it.metadata.deletion_timestamp.is_none());
            let (ready, all) = (ready.count(), all.len());
            if u32::try_from(ready) == Ok(count) && all == ready {
                return;
            }
            progress.say(&format!("{ready} of {all} nodes are ready, {count} are to be"));
            changes.next().await;
        }
    };
    if tokio::time::timeout(arguments.timeout, come).await.is_ok() {
        return Ok(());
    }
    let names: Vec<String> =
        nodes.list().iter().filter_map(|it| it.metadata.name.clone()).collect();
    bail!(
        "there are not {count} nodes after {} seconds, but {}: `kubectl describe nodes` and `kubectl get pods -A -o wide` \
         say more; a range of pods smaller than /20 has room for fewer than 16 nodes",
        arguments.timeout.as_secs(),
        names.join(", ")
    )
}

/// Whether the node says that it is ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|it| it.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}
