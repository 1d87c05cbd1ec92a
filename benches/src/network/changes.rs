//! How soon a change is where it has an effect: in the kernel, in the name server.

use std::net::Ipv4Addr;

use hyper::Method;
use serde_json::json;

use super::{
    agent::now,
    lab::{Client, Lab, PORT, SERVICES, SLICES, slice},
    percentiles,
    watch::Watch,
};
use crate::report::{Aim, Figure};

/// Endpoints of one Service, and how many a slice has: as many as it may.
const ENDPOINTS: u32 = 10_000;
const SLICE: u32 = 1_000;
/// How often something is changed.
const TIMES: u32 = 40;
/// What the endpoints' addresses begin with: nobody has these.
const ADDRESSES: [u8; 2] = [172, 20];

/// One of many endpoints changes.
pub(super) async fn many(lab: &mut Lab, watch: &mut Watch) -> anyhow::Result<Vec<Figure>> {
    let address = |number: u32| {
        let [.., third, fourth] = number.to_be_bytes();
        let [first, second] = ADDRESSES;
        Ipv4Addr::new(first, second, third, fourth)
    };
    lab.service("many", None).await?;
    for number in 0..ENDPOINTS / SLICE {
        let addresses: Vec<Ipv4Addr> =
            (number * SLICE..(number + 1) * SLICE).map(address).collect();
        lab.create(SLICES, &slice(&format!("many-{number}"), "many", &addresses)).await?;
    }
    watch.first(&address(ENDPOINTS - 1).octets()).await?;
    watch.forget().await?;
    let (mut sent, mut answered) = (Vec::new(), Vec::new());
    for turn in 0..TIMES {
        let path = format!("{SLICES}/many-{}", turn % (ENDPOINTS / SLICE));
        let place = format!("/endpoints/{}/addresses/0", turn * 7 % SLICE);
        let new = address(ENDPOINTS + turn);
        let began = now()?;
        lab.replace(&path, &place, &json!(new)).await?;
        let ended = now()?;
        let there = watch.first(&new.octets()).await?;
        sent.push(there - began);
        answered.push(there - ended);
        watch.forget().await?;
    }
    lab.api.succeed(Method::DELETE, &format!("{SERVICES}/many"), bytes::Bytes::new()).await?;
    for number in 0..ENDPOINTS / SLICE {
        let path = format!("{SLICES}/many-{number}");
        lab.api.succeed(Method::DELETE, &path, bytes::Bytes::new()).await?;
    }
    let name = format!("one of {ENDPOINTS} endpoints changes, until it is in the kernel");
    let mut figures = percentiles(&format!("{name}, from the write"), sent, None);
    figures.extend(percentiles(&format!("{name}, from the answer"), answered, None));
    Ok(figures)
}

/// An endpoint comes to a Service that has none, and goes.
pub(super) async fn ready(
    lab: &mut Lab,
    client: &mut Client,
    (server, names): (Ipv4Addr, Ipv4Addr),
) -> anyhow::Result<Vec<Figure>> {
    let at = lab.service("coming", None).await?;
    let headless = json!({"clusterIP": "None", "ports": [{"port": PORT}]});
    let headless = json!({"metadata": {"name": "coming-names"}, "spec": headless});
    lab.create(SERVICES, &headless).await?;
    let name = "coming-names.default.svc.cluster.local";
    let (mut routed, mut resolvable) = (Vec::new(), Vec::new());
    for (service, order, times) in [
        ("coming", format!("reach {at}:{PORT}"), &mut routed),
        ("coming-names", format!("resolve {names}:53 {name} {server}"), &mut resolvable),
    ] {
        for _ in 0..TIMES {
            let asked = client.one(&order);
            let written = async {
                // So that the client has begun, and finds nothing.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                lab.create(SLICES, &slice(service, service, &[server])).await?;
                now()
            };
            let (seen, written) = tokio::join!(asked, written);
            times.push(seen? - written?);
            let path = format!("{SLICES}/{service}");
            lab.api.succeed(Method::DELETE, &path, bytes::Bytes::new()).await?;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    let aim = Some(Aim::AtMost(1.0));
    let mut figures = percentiles("endpoint written, until it is reached", routed, aim);
    figures.extend(percentiles("endpoint written, until its name is", resolvable, aim));
    Ok(figures)
}
