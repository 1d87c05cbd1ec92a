//! Routes from the host to pods and Services, which only root can make.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};

use crate::{
    clean::{belongings, unchanged},
    cluster::{Cluster, eventually},
    host::{Snapshot, kill},
    run::{must, server},
};

/// What there is of the text that our links have.
fn links() -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir("/sys/class/net").context("list links")?;
    let names = entries.map(|it| Ok(it?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<anyhow::Result<_>>()?;
    let is_ours = |it: &String| {
        let alias = Path::new("/sys/class/net").join(it).join("ifalias");
        fs::read_to_string(alias).is_ok_and(|it| it.starts_with("coracle "))
    };
    Ok(names.into_iter().filter(is_ours).collect())
}

fn get(address: &str) -> anyhow::Result<String> {
    let url = format!("http://{address}/");
    must(std::process::Command::new("curl").args([
        "--silent",
        "--show-error",
        "--max-time",
        "5",
        &url,
    ]))
}

/// Without any program of ours they go, and nothing else of the host's is ever changed.
pub(crate) fn the_host_reaches_pods_and_services() -> anyhow::Result<()> {
    let before = Snapshot::take()?;
    let settings = settings()?;
    let cluster = Cluster::running("routes", &server("web", 1))?;
    let of = |arguments: &[&str]| cluster.kubectl(&[&["get"], arguments].concat());
    let pod = of(&["pods", "-o", "jsonpath={.items[0].status.podIP}:8080"])?;
    let service = of(&["service", "web", "-o", "jsonpath={.spec.clusterIP}:80"])?;
    for address in [&pod, &service] {
        let mut said = String::new();
        eventually("the host reaches it", || {
            said = get(address)?;
            Ok(true)
        })?;
        ensure!(said.contains("web"), "{address} says {said}");
    }
    ensure!(links()?.len() == 1, "links of ours are {:?}", links()?);
    ensure!(self::settings()? == settings, "settings of the host have changed");
    // The cluster process is not needed for it.
    kill(cluster.pid()?)?;
    get(&pod)?;
    for pid in belongings(&cluster)? {
        // One may take another with it.
        drop(kill(pid));
    }
    eventually("the link goes with what it led to", || Ok(links()?.is_empty()))?;
    cluster.coracle(&["down", "--delete"])?;
    unchanged(&before)
}

/// What is asked for is had, kept, and goes with the objects.
pub(crate) fn ranges_are_chosen_by_hand() -> anyhow::Result<()> {
    let mut cluster = Cluster::new("by-hand")?;
    let ranges = ["--pod-cidr=10.77.0.0/16", "--service-cidr=10.78.4.0/22"];
    cluster.coracle(&[&["up", "--detach"], ranges.as_slice()].concat())?;
    cluster.write("app.yaml", &server("web", 1))?;
    cluster.up()?;
    let get = |what: &str, path: &str| cluster.kubectl(&["get", what, "-o", path]);
    let pod = get("pods", "jsonpath={.items[0].status.podIP}")?;
    ensure!(pod.starts_with("10.77.0."), "the pod has {pod}");
    let service = get("service/kubernetes", "jsonpath={.spec.clusterIP}")?;
    ensure!(service == "10.78.4.1", "the API has {service}");
    // With IPv6 there are two.
    let path = "jsonpath={.items[*].spec.cidrs[*]}";
    let own = get("servicecidr", path)?;
    ensure!(own.split(' ').next() == Some("10.78.4.0/22"), "Services have {own}");
    cluster.coracle(&["down"])?;
    let said = cluster.refused(&["up", "--detach", "--pod-cidr=10.79.0.0/16"])?;
    ensure!(said.contains("was made with 10.77.0.0/16 for pods"), "{said}");
    let said = cluster.refused(&["up", "--detach", "--service-cidr=10.78.5.0/22"])?;
    ensure!(said.contains("`10.78.4.0/22` is meant"), "{said}");
    // A copy of the objects has the ranges that its Services are in.
    let copy = format!("{}-copy", cluster.name);
    cluster.coracle(&["fork", &copy])?;
    let original = std::mem::replace(&mut cluster.name, copy);
    cluster.coracle(&["up", "--detach"])?;
    let copied = cluster.kubectl(&["get", "servicecidr", "-o", path])?;
    ensure!(copied == own, "the copy's Services have {copied}, not {own}");
    cluster.coracle(&["down", "--delete"])?;
    cluster.name = original;
    Ok(())
}

/// Settings of the host's network that somebody who routes is tempted to change.
fn settings() -> anyhow::Result<Vec<String>> {
    let names = [
        "ip_forward",
        "conf/all/forwarding",
        "conf/all/rp_filter",
        "conf/default/rp_filter",
        "conf/all/accept_local",
        "conf/all/route_localnet",
        "conf/default/forwarding",
    ];
    let read = |name: &&str| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Ok(format!("{name} {text}"))
    };
    names.iter().map(read).collect()
}
