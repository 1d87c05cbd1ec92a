//! `coracle top`: what nodes and pods use, the busiest first.

use std::process::ExitCode;

use anyhow::Context as _;
use api::quantity::Quantity;
use client::Client;
use serde::Deserialize;
use serde_json::json;

use crate::{cli::Format, directories::Directories, output, session};

/// Where the API says it.
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

#[derive(Debug, Deserialize)]
struct List {
    items: Vec<Measured>,
}

/// A NodeMetrics or a PodMetrics.
#[derive(Debug, Deserialize)]
struct Measured {
    metadata: Metadata,
    #[serde(default)]
    usage: Usage,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default)]
    namespace: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Container {
    usage: Usage,
}

#[derive(Debug, Default, Deserialize)]
struct Usage {
    #[serde(default)]
    cpu: String,
    #[serde(default)]
    memory: String,
}

/// What somebody uses.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// Empty for a node.
    namespace: String,
    name: String,
    /// Thousandths of a processor.
    cpu_millis: i64,
    memory_bytes: i64,
}

/// Prints what nodes and the pods of one namespace, or of all, use.
pub(crate) fn run(
    directories: &Directories,
    namespace: Option<&str>,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let (nodes, pods) = session::run(directories, async |session| {
        let of = namespace.map(|it| format!("/namespaces/{it}")).unwrap_or_default();
        let nodes = list(&session.client, format!("{METRICS}/nodes"));
        let pods = list(&session.client, format!("{METRICS}{of}/pods"));
        tokio::try_join!(nodes, pods)
    })?;
    match format {
        Format::Text => output::line(&text(&nodes, &pods))?,
        Format::Json => {
            let row = |it: &Row| {
                json!({"namespace": it.namespace, "name": it.name, "cpuMillis": it.cpu_millis,
                    "memoryBytes": it.memory_bytes})
            };
            let rows = |it: &[Row]| it.iter().map(row).collect::<Vec<_>>();
            output::line(&format!("{:#}", json!({"nodes": rows(&nodes), "pods": rows(&pods)})))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, path: String) -> anyhow::Result<Vec<Row>> {
    let request = http::Request::get(&path).body(Vec::new())?;
    let list: List = client.request(request).await.with_context(|| format!("ask for {path}"))?;
    let mut rows = list.items.into_iter().map(row).collect::<anyhow::Result<Vec<Row>>>()?;
    rows.sort_by(|one, other| {
        let busy = |it: &Row| (it.cpu_millis, it.memory_bytes);
        let place = |it: &Row| (it.namespace.clone(), it.name.clone());
        busy(other).cmp(&busy(one)).then_with(|| place(one).cmp(&place(other)))
    });
    Ok(rows)
}

fn row(measured: Measured) -> anyhow::Result<Row> {
    let Measured { metadata: Metadata { namespace, name }, usage, containers } = measured;
    let (mut cpu_millis, mut memory_bytes) = (0, 0);
    for Usage { cpu, memory } in containers.into_iter().map(|it| it.usage).chain([usage]) {
        cpu_millis += read(&cpu)?.milli_value();
        memory_bytes += read(&memory)?.value();
    }
    Ok(Row { namespace, name, cpu_millis, memory_bytes })
}

fn read(text: &str) -> anyhow::Result<Quantity> {
    let text = if text.is_empty() { "0" } else { text };
    text.parse().with_context(|| format!("read the quantity `{text}`"))
}

fn text(nodes: &[Row], pods: &[Row]) -> String {
    let header = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let used = |it: &Row| [format!("{}m", it.cpu_millis), mebibytes(it.memory_bytes)];
    let mut of_nodes = vec![header(&["NODE", "CPU", "MEMORY"])];
    for it in nodes {
        of_nodes.push([vec![it.name.clone()], used(it).to_vec()].concat());
    }
    let mut of_pods = vec![header(&["NAMESPACE", "POD", "CPU", "MEMORY"])];
    for it in pods {
        of_pods.push([vec![it.namespace.clone(), it.name.clone()], used(it).to_vec()].concat());
    }
    let nodes = output::table(&of_nodes);
    if pods.is_empty() { nodes } else { format!("{nodes}\n\n{}", output::table(&of_pods)) }
}

/// As `kubectl top` has it, with a digit more for little.
fn mebibytes(bytes: i64) -> String {
    const MEBIBYTE: i64 = 1 << 20;
    if bytes < 10 * MEBIBYTE {
        let tenths = bytes * 10 / MEBIBYTE;
        return format!("{}.{}Mi", tenths / 10, tenths % 10);
    }
    format!("{}Mi", bytes / MEBIBYTE)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn containers_of_a_pod_are_added() {
        let list: List = serde_json::from_value(json!({"items": [
            {"metadata": {"name": "web", "namespace": "shop"}, "containers": [
                {"name": "a", "usage": {"cpu": "1500u", "memory": "2560Ki"}},
                {"name": "b", "usage": {"cpu": "250m", "memory": "12Mi"}}]},
            {"metadata": {"name": "young", "namespace": "shop"}, "containers": []},
        ]}))
        .unwrap();
        let pods: Vec<Row> = list.items.into_iter().map(|it| row(it).unwrap()).collect();
        let node = json!({"metadata": {"name": "one"}, "usage": {"cpu": "1", "memory": "3Gi"}});
        let nodes = [row(serde_json::from_value(node).unwrap()).unwrap()];
        expect![[r#"
            NODE   CPU     MEMORY
            one    1000m   3072Mi

            NAMESPACE   POD     CPU    MEMORY
            shop        web     252m   14Mi
            shop        young   0m     0.0Mi"#]]
        .assert_eq(&text(&nodes, &pods));
        expect![[r#"
            NODE   CPU     MEMORY
            one    1000m   3072Mi"#]]
        .assert_eq(&text(&nodes, &[]));
    }
}
