//! Our load generator itself: what a request takes of a core beside wrk, what a user takes beside
//! locust, how exactly it starts, what ten thousand connections take of memory. The server is the
//! judge's in its fast mode, on a thread of this program.

use std::{fs, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use load::judge::{
    law::Law,
    server::{Options, Server},
};
use serde_json::Value;
use tokio::{process::Command, time::Instant};

use crate::{
    peers::{find, run},
    report::{Aim, Figure},
};

/// Connections of the closed loops.
const CONNECTIONS: &str = "50";
/// How often ours and wrk take turns, and for how long each time.
const ROUNDS: u32 = 5;
const ROUND: &str = "3s";
/// How long each of the other loops runs.
const PERIOD: &str = "8s";
/// Starts a second whose error is measured.
const STARTS: &str = "10000/s";
/// Connections whose memory is measured: half of the descriptors that a process usually may have.
const MANY: usize = 10_000;
/// A user of locust's as quick as it can be, and the same of ours.
const LOCUST: &str = "\
from locust import FastHttpUser, task

class Visitor(FastHttpUser):
    @task
    def visit(self):
        self.client.get('/')
";

/// Measures the generator.
pub(crate) async fn measure(coracle: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut figures = beside_wrk(coracle).await?;
    figures.extend(beside_locust(coracle).await?);
    figures.extend(starts(coracle).await?);
    figures.push(memory(coracle).await?);
    Ok(figures)
}

fn serve(law: &str) -> anyhow::Result<(Server, String)> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let law: Law = law.parse()?;
    let server = Server::start(Options { listen, law, seed: 1, tls: None })?;
    let url = format!("http://{}/", server.address());
    Ok((server, url))
}

/// What a loop did: requests, and seconds of processor that the program took, start included.
struct Loop {
    requests: f64,
    processor: f64,
}

impl Loop {
    /// Requests per second of one core.
    fn per_core(&self) -> f64 {
        self.requests / self.processor
    }
}

/// Runs a generator to its end and counts its processor time.
async fn looped(
    command: &mut Command,
    requests: impl FnOnce(&str) -> Option<f64>,
) -> anyhow::Result<Loop> {
    let before = children()?;
    let text = run(command).await?;
    let processor = children()? - before;
    let requests = requests(&text).with_context(|| format!("no count of requests in: {text}"))?;
    ensure!(processor > 0.0, "{:?} took no time", command.as_std());
    Ok(Loop { requests, processor })
}

/// Ours in a closed loop.
async fn ours(coracle: &Path, arguments: &[&str]) -> anyhow::Result<Loop> {
    let mut command = Command::new(coracle);
    command.arg("load").args(arguments).args(["-o", "json"]);
    looped(&mut command, |it| count(it, "/total/succeeded")).await
}

/// Ours and wrk in turns, as the machine's speed changes from one second to the next; of each the
/// middle one.
async fn beside_wrk(coracle: &Path) -> anyhow::Result<Vec<Figure>> {
    let (server, url) = serve("none")?;
    let wrk = find("wrk");
    if wrk.is_none() {
        eprintln!("wrk is not installed: nothing to compare the closed loop with");
    }
    // Ours has a worker on each core. With fewer threads either has fewer switches to pay for.
    let cores = std::thread::available_parallelism().context("count the cores")?.get();
    let (mut own, mut alike, mut single) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        own.push(ours(coracle, &[&url, "--closed", CONNECTIONS, "--for", ROUND]).await?.per_core());
        if let Some(wrk) = &wrk {
            alike.push(wrk_loop(wrk, cores, &url).await?.per_core());
            single.push(wrk_loop(wrk, 1, &url).await?.per_core());
        }
    }
    drop(server.stop()?);
    let ratios: Vec<f64> = own.iter().zip(&alike).map(|(own, alike)| own / alike).collect();
    let mut figures = Vec::new();
    let mut add = |name, values, unit| {
        let middle = middle(values).map(|it| Figure::new(name, it, unit));
        figures.extend(middle);
    };
    add("closed loop, requests per second of a core", own, "1/s");
    add("the same, wrk with as many threads", alike, "1/s");
    add("the same, wrk with one thread", single, "1/s");
    let ratio = middle(ratios).map(|it| Figure::new("the same, ours by wrk's", it, ""));
    figures.extend(ratio.map(|it| it.aim(Aim::AtLeast(1.0))));
    Ok(figures)
}

/// The middle one of an odd number of values.
fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

async fn wrk_loop(wrk: &Path, threads: usize, url: &str) -> anyhow::Result<Loop> {
    let mut command = Command::new(wrk);
    command.arg(format!("-t{threads}")).args(["-c", CONNECTIONS, "-d", ROUND, url]);
    let done = looped(&mut command, |it| {
        let line = it.lines().find(|it| it.contains(" requests in "))?;
        line.split_whitespace().next()?.parse().ok()
    });
    done.await
}

async fn beside_locust(coracle: &Path) -> anyhow::Result<Vec<Figure>> {
    let (server, url) = serve("none")?;
    let work = tempfile::tempdir()?;
    let scenario = work.path().join("visitor.yaml");
    fs::write(
        &scenario,
        format!(
            "target: {}\nclosed: {CONNECTIONS}\nfor: {PERIOD}\nsteps:\n- get: /\n  check: {{status: 200}}\n",
            url.trim_end_matches('/')
        ),
    )?;
    let ours = ours(coracle, &[&scenario.display().to_string()]).await?;
    let mut figures =
        vec![Figure::new("scenario, steps per second of a core", ours.per_core(), "1/s")];
    if let Some(locust) = find("locust") {
        let script = work.path().join("visitor.py");
        fs::write(&script, LOCUST)?;
        let mut command = Command::new(locust);
        command.arg("-f").arg(script).args(["--headless", "--only-summary", "--json"]);
        command.args(["-u", CONNECTIONS, "-r", CONNECTIONS, "-t", PERIOD]);
        command.args(["-H", url.trim_end_matches('/')]);
        let locust = looped(&mut command, |it| {
            let said: Value = serde_json::from_str(it.get(it.find('[')?..)?.trim()).ok()?;
            said.pointer("/0/num_requests")?.as_f64()
        });
        let locust = locust.await?.per_core();
        let ratio = ours.per_core() / locust;
        figures.push(Figure::new("the same, locust", locust, "1/s"));
        figures.push(Figure::new("the same, ours by locust's", ratio, "").aim(Aim::AtLeast(20.0)));
    } else {
        eprintln!("locust is not installed: nothing to compare scenarios with");
    }
    drop(server.stop()?);
    Ok(figures)
}

/// How late starts are, at a high rate. Never withheld: it is what withholding goes by.
async fn starts(coracle: &Path) -> anyhow::Result<Vec<Figure>> {
    let (server, url) = serve("none")?;
    let mut command = Command::new(coracle);
    command.args(["load", &url, "--rate", STARTS, "--for", PERIOD, "-o", "json"]);
    let said: Value = serde_json::from_str(&report(&mut command).await?)?;
    drop(server.stop()?);
    let lag = |key: &str| {
        let seconds = said.pointer(&format!("/own/lag/{key}")).and_then(Value::as_f64);
        let seconds = seconds.with_context(|| format!("no {key} of the lag in {said}"))?;
        Ok::<_, anyhow::Error>(Duration::try_from_secs_f64(seconds)?)
    };
    Ok(vec![
        Figure::time("error of 10000 starts/s, p50", lag("p50_seconds")?),
        Figure::time("error of 10000 starts/s, p99.9", lag("p99_9_seconds")?).aim(Aim::AtMost(1.0)),
    ])
}

/// Memory of the generator while ten thousand requests are under way, each on a connection of its
/// own: the server answers after longer than it takes to send them.
async fn memory(coracle: &Path) -> anyhow::Result<Figure> {
    let (server, url) = serve("constant:10s")?;
    let mut command = Command::new(coracle);
    command.args(["load", &url, "--rate", "2000/s", "--for", "5s", "--timeout", "30s"]);
    command.args(["-o", "json"]).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().context("start the generator")?;
    let id = child.id().context("it has ended")?;
    // All are sent after five seconds, and the first is answered after ten.
    let measured = Instant::now() + Duration::from_secs(8);
    tokio::time::sleep_until(measured).await;
    let descriptors = fs::read_dir(format!("/proc/{id}/fd"))?.count();
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    child.kill().await?;
    drop(server.stop()?);
    ensure!(descriptors >= MANY, "only {descriptors} descriptors were open, not {MANY}");
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let resident = line.and_then(|it| it.split_whitespace().next()?.parse().ok());
    Ok(Figure::size("memory with 10000 connections", resident.context("no VmRSS")?))
}

/// Runs ours, whose exit code also says whether it withholds.
async fn report(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.stdout.starts_with(b"{"), "{:?}: {errors}", command.as_std());
    Ok(String::from_utf8(output.stdout)?)
}

fn count(report: &str, pointer: &str) -> Option<f64> {
    serde_json::from_str::<Value>(report).ok()?.pointer(pointer)?.as_f64()
}

/// Seconds of processor of the children of this program that have ended: proc(5).
fn children() -> anyhow::Result<f64> {
    /// The kernel's unit of these fields.
    const TICKS: f64 = 100.0;
    let text = fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may hold blanks.
    let (_, rest) = text.rsplit_once(')').context("proc(5)")?;
    let ticks: f64 =
        rest.split_whitespace().skip(13).take(2).filter_map(|it| it.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS)
}
