//! The way to a pod by its Service's address beside the way to the pod itself, in turns, as the machine's
//! speed changes from one second to the next. Of each ratio the middle one counts.

use std::net::Ipv4Addr;

use serde_json::json;

use super::{
    lab::{Client, Lab, PORT},
    middle,
};
use crate::report::{Aim, Figure};

/// How often both have their turn; an odd number.
const ROUNDS: usize = 9;
/// What one connection carries.
const BYTES: u64 = 1 << 30;
/// Connections one after the other, and questions on one.
const CONNECTIONS: usize = 1_000;
const QUESTIONS: usize = 10_000;
/// The aim of every ratio.
const AIM: f64 = 0.95;
/// Endpoints of the large Service, and Services of the full cluster.
const ENDPOINTS: usize = 100;
const SERVICES: usize = 1_000;

/// Measures with few Services first, then with many; the address of the first server.
pub(super) async fn measure(
    lab: &mut Lab,
    client: &mut Client,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<Ipv4Addr> {
    let one = json!({"app": "server", "which": "first"});
    let first = lab.server("server-0", &one).await?;
    let small = lab.service("small", Some(&one)).await?;
    lab.endpoints("small", 1).await?;
    let name = |services, endpoints| format!("{services} Services, {endpoints} endpoints");
    figures.extend(compare(client, &name(1, 1), &[first], small).await?);

    let all = json!({"app": "server"});
    let mut servers = vec![first];
    for number in 1..ENDPOINTS {
        servers.push(lab.server(&format!("server-{number}"), &all).await?);
    }
    let large = lab.service("large", Some(&all)).await?;
    lab.endpoints("large", ENDPOINTS).await?;
    figures.extend(compare(client, &name(1, ENDPOINTS), &servers, large).await?);

    for number in 2..SERVICES {
        lab.service(&format!("other-{number}"), Some(&one)).await?;
    }
    lab.endpoints(&format!("other-{}", SERVICES - 1), 1).await?;
    figures.extend(compare(client, &name(SERVICES, 1), &[first], small).await?);
    figures.extend(compare(client, &name(SERVICES, ENDPOINTS), &servers, large).await?);
    Ok(first)
}

/// What is measured of either way.
#[derive(Default)]
struct Way {
    rate: Vec<f64>,
    open: Vec<f64>,
    ask: Vec<f64>,
}

async fn compare(
    client: &mut Client,
    name: &str,
    servers: &[Ipv4Addr],
    service: Ipv4Addr,
) -> anyhow::Result<Vec<Figure>> {
    let (mut direct, mut by_service) = (Way::default(), Way::default());
    for round in 0..ROUNDS {
        // Who comes second finds caches filled, or the core warm.
        if round % 2 == 0 {
            turn(client, servers, &mut direct).await?;
            turn(client, &[service], &mut by_service).await?;
        } else {
            turn(client, &[service], &mut by_service).await?;
            turn(client, servers, &mut direct).await?;
        }
    }
    let mut figures = Vec::new();
    let mut add = |what: &str, direct: Vec<f64>, service: Vec<f64>, unit| {
        let more_is_better = unit == "MB/s";
        let ratios = direct.iter().zip(&service);
        let ratios = ratios.map(|(direct, service)| match more_is_better {
            true => service / direct,
            false => direct / service,
        });
        let ratio = middle(ratios.collect());
        figures.push(Figure::new(format!("{name}: {what}, direct"), middle(direct), unit));
        figures.push(Figure::new(format!("{name}: {what}, by Service"), middle(service), unit));
        let ratio = Figure::new(format!("{name}: {what}, ratio"), ratio, "");
        figures.push(ratio.aim(Aim::AtLeast(AIM)));
    };
    add("one connection", direct.rate, by_service.rate, "MB/s");
    add("connect and ask, p50", direct.open, by_service.open, "µs");
    add("ask, p50", direct.ask, by_service.ask, "µs");
    Ok(figures)
}

async fn turn(client: &mut Client, targets: &[Ipv4Addr], way: &mut Way) -> anyhow::Result<()> {
    let targets: Vec<String> = targets.iter().map(|it| format!("{it}:{PORT}")).collect();
    let Some(first) = targets.first() else { return Ok(()) };
    let seconds = client.one(&format!("send {first} {BYTES}")).await?;
    way.rate.push(BYTES as f64 / 1e6 / seconds);
    let (open, _) = client.both(&format!("open {} {CONNECTIONS}", targets.join(","))).await?;
    way.open.push(open * 1e6);
    let (ask, _) = client.both(&format!("ask {first} {QUESTIONS}")).await?;
    way.ask.push(ask * 1e6);
    Ok(())
}
