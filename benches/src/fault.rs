//! The fault proxy: what it costs where it has no fault, beside direct connections of the same run, how
//! exact its delays are; and how fast the checkers of histories are. Servers and clients are threads of
//! this program, over loopback.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fault::history::{Delivery, DeliveryRules, Operation, Register, Report};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::Instant,
};

use crate::report::{Figure, Samples};

/// How often direct and proxied are measured, in turns; the median counts.
const ROUNDS: usize = 3;
/// Bytes of one measurement of the throughput: about a second of it.
const BYTES: u64 = 2 << 30;
/// What is written and read at once.
const PIECE: usize = 256 << 10;
/// Bytes of a question, and of its answer.
const QUESTION: usize = 64;
/// Questions of one measurement of round trips.
const QUESTIONS: usize = 20_000;
/// Delays whose exactness is measured, in milliseconds, with so many questions each.
const DELAYS: [u64; 3] = [1, 5, 100];
const DELAYED_QUESTIONS: usize = 50;
/// Things that a checker judges.
const THINGS: u64 = 5_000_000;

/// Measures the proxy, then the checkers.
pub(crate) async fn measure(coracle: &Path) -> anyhow::Result<Vec<Figure>> {
    let (sink, echo) = (serve(sink)?, serve(echo)?);
    let proxy = Proxy::start(coracle, sink, echo).await?;
    let mut figures = throughput(sink, proxy.route("sink")?)?;
    figures.extend(round_trips(echo, proxy.route("echo")?)?);
    for delay in DELAYS {
        let samples = ask(proxy.route(&format!("{delay}ms"))?, DELAYED_QUESTIONS)?;
        let what = format!("round trip with a delay of {delay} ms, p50");
        figures.push(Figure::time(what, samples.percentile(50)));
    }
    drop(proxy);
    figures.push(Figure::new("things judged as delivered", deliveries()?, "M/s"));
    figures.push(Figure::new("operations judged as linearizable", registers()?, "M/s"));
    Ok(figures)
}

/// `coracle fault`; killed when dropped.
struct Proxy {
    routes: Value,
    _child: Child,
}

impl Proxy {
    /// One with the routes `sink` and `echo` without a fault, and one to `echo` for each delay.
    async fn start(coracle: &Path, sink: SocketAddr, echo: SocketAddr) -> anyhow::Result<Self> {
        let mut text =
            format!("routes:\n- {{name: sink, to: '{sink}'}}\n- {{name: echo, to: '{echo}'}}\n");
        for delay in DELAYS {
            text.push_str(&format!(
                "- {{name: {delay}ms, to: '{echo}', faults: [latency upstream delay={delay}ms]}}\n"
            ));
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("faults.yaml");
        fs::write(&file, text)?;
        let mut command = Command::new(coracle);
        command.args(["fault", "-o", "json", "--schedule"]).arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("start the proxy")?;
        let output = child.stdout.take().context("standard output of the proxy")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await?;
        let said: Value = serde_json::from_str(&line).context("what the proxy says")?;
        let routes = said.get("routes").cloned().context("no routes")?;
        Ok(Self { routes, _child: child })
    }

    /// Where a route listens.
    fn route(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let of = |it: &Value, key| it.get(key).and_then(Value::as_str).map(str::to_owned);
        let mut routes = self.routes.as_array().into_iter().flatten();
        let route = routes.find(|it| of(it, "name").is_some_and(|it| it == name));
        let listen = route.and_then(|it| of(it, "listen"));
        Ok(listen.with_context(|| format!("no route `{name}`"))?.parse()?)
    }
}

/// Serves every connection in a thread.
fn serve(with: fn(TcpStream) -> io::Result<()>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // How a connection ends, its client sees.
            thread::spawn(move || with(stream).ok());
        }
    });
    Ok(address)
}

/// Reads all there is, and says at the end that it has.
fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    while stream.read(&mut buffer)? > 0 {}
    stream.write_all(b".")
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; QUESTION];
    loop {
        stream.read_exact(&mut buffer)?;
        stream.write_all(&buffer)?;
    }
}

fn throughput(direct: SocketAddr, proxied: SocketAddr) -> anyhow::Result<Vec<Figure>> {
    let (mut of_direct, mut of_proxied) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_direct.push(send(direct)?);
        of_proxied.push(send(proxied)?);
    }
    let rate = |times| BYTES as f64 / 1e9 / Samples::new(times).percentile(50).as_secs_f64();
    Ok(vec![
        Figure::new("one connection, one direction, direct", rate(of_direct), "GB/s"),
        Figure::new("the same, proxied without a fault", rate(of_proxied), "GB/s"),
    ])
}

/// How long it takes to send all to a sink.
fn send(address: SocketAddr) -> anyhow::Result<Duration> {
    let mut stream = TcpStream::connect(address)?;
    let buffer = vec![7; PIECE];
    let start = Instant::now();
    for _ in 0..BYTES / PIECE as u64 {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    Ok(start.elapsed())
}

fn round_trips(direct: SocketAddr, proxied: SocketAddr) -> anyhow::Result<Vec<Figure>> {
    let (mut of_direct, mut of_proxied) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_direct.push(ask(direct, QUESTIONS)?);
        of_proxied.push(ask(proxied, QUESTIONS)?);
    }
    let median = |rounds: &[Samples], percent| {
        let rounds = rounds.iter().map(|it| it.percentile(percent)).collect();
        Samples::new(rounds).percentile(50).as_secs_f64() * 1e6
    };
    let mut figures = Vec::new();
    for percent in [50, 99] {
        let (direct, proxied) = (median(&of_direct, percent), median(&of_proxied, percent));
        let what = format!("round trip of {QUESTION} bytes, direct, p{percent}");
        figures.push(Figure::new(what, direct, "µs"));
        figures.push(Figure::new("the same, proxied without a fault", proxied, "µs"));
        figures.push(Figure::new("added by the proxy", proxied - direct, "µs"));
    }
    Ok(figures)
}

fn ask(address: SocketAddr, times: usize) -> anyhow::Result<Samples> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; QUESTION];
    let mut seen = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
        seen.push(start.elapsed());
    }
    Ok(Samples::new(seen))
}

/// Things that are sent, acknowledged and received, of 1000 keys: millions a second.
fn deliveries() -> anyhow::Result<f64> {
    let mut delivery = Delivery::new(DeliveryRules { ordered: true, ..DeliveryRules::default() });
    let start = Instant::now();
    for thing in 0..THINGS {
        let (key, id, at) = (thing % 1000, thing / 1000, Duration::from_nanos(thing * 10));
        delivery.sent(&key, id, at);
        delivery.acknowledged(&key, id, at + Duration::from_nanos(1));
        delivery.received(&key, id, at + Duration::from_nanos(2));
    }
    millions(&delivery.finish(), start)
}

/// Writes and reads in turns, of 1000 keys: millions a second.
fn registers() -> anyhow::Result<f64> {
    let mut register = Register::new();
    let start = Instant::now();
    for thing in 0..THINGS {
        let (key, value, at) = (thing % 1000, thing / 2000 + 1, Duration::from_nanos(thing * 10));
        let write = thing / 1000 % 2 == 0;
        register.begins(&key, at);
        let operation = if write { Operation::Write(value) } else { Operation::Read(value) };
        register.ends(&key, operation, at, at + Duration::from_nanos(5));
    }
    millions(&register.finish(), start)
}

fn millions(report: &Report<u64>, start: Instant) -> anyhow::Result<f64> {
    let took = start.elapsed();
    ensure!(report.is_good() && report.operations >= THINGS, "{report}");
    Ok(THINGS as f64 / 1e6 / took.as_secs_f64())
}
