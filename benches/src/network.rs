//! Services, names and policies, as pods find them: what a Service costs beside the pod itself, how soon a
//! change has its effect, what the name server does in a second.
//!
//! The clients and servers are this program again, in pods.

pub(crate) mod agent;
mod changes;
pub(crate) mod lab;
mod names;
mod path;
mod policies;
mod question;
pub(crate) mod watch;

use std::{net::Ipv4Addr, path::Path};

use anyhow::Context as _;
use runtime::Tasks;
use serde_json::Value;

use self::{lab::Lab, watch::Watch};
use crate::report::{Aim, Figure};
pub(crate) use names::find_server;

/// Measures all of it in one cluster.
pub(crate) async fn measure(coracle: &Path, tasks: &Tasks) -> anyhow::Result<Vec<Figure>> {
    let mut lab = Lab::new(coracle, tasks).await?;
    let mut client = lab.client("client").await?;
    let mut figures = Vec::new();
    let names = name_server(&mut lab).await?;
    let server = path::measure(&mut lab, &mut client, &mut figures).await?;
    figures.extend(names::measure(&mut lab, &mut client, names).await?);
    figures.extend(changes::ready(&mut lab, &mut client, (server, names)).await?);
    if rustix::process::geteuid().is_root() {
        let watch = Watch::start(&lab.cluster).await;
        let mut watch = watch.context("listen in the cluster's network")?;
        figures.extend(changes::many(&mut lab, &mut watch).await?);
        figures.extend(policies::measure(&mut lab, &mut watch).await?);
    } else {
        eprintln!(
            "an ordinary user's program does not hear what the kernel does: no changes of rules"
        );
    }
    lab.cluster.delete().await?;
    Ok(figures)
}

/// Where the cluster's name server is.
async fn name_server(lab: &mut Lab) -> anyhow::Result<Ipv4Addr> {
    let service = lab.api.get("/api/v1/namespaces/default/services/kubernetes").await?;
    let address = service.pointer("/spec/clusterIP").and_then(Value::as_str);
    let address: Ipv4Addr = address.context("the API's Service has no address")?.parse()?;
    let [first, second, third, _] = address.octets();
    Ok(Ipv4Addr::new(first, second, third, 10))
}

/// The middle one of an odd number of values.
pub(crate) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median and the 99th percentile of seconds, which may be before nought: what a client sees may come
/// before the answer that it belongs to.
fn percentiles(what: &str, mut seconds: Vec<f64>, aim: Option<Aim>) -> Vec<Figure> {
    seconds.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let rank = (seconds.len() * percent).div_ceil(100).saturating_sub(1);
        seconds.get(rank).map(|it| it * 1e3)
    };
    let p50 = at(50).map(|it| Figure::new(format!("{what}, p50"), it, "ms"));
    let p50 = p50.map(|it| Figure { aim, ..it });
    let p99 = at(99).map(|it| Figure::new(format!("{what}, p99"), it, "ms"));
    p50.into_iter().chain(p99).collect()
}
