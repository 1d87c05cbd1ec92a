//! What the proxy costs, beside a direct connection of the same run, how exact its delays are, and how
//! fast the checkers are. Prints lines; docs/fault-proxy.md has the figures.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use coracle_fault::{
    Change, Config, Handle, Mode, RouteConfig, build,
    history::{Delivery, DeliveryRules, Operation, Register},
    text,
};
use runtime::Tasks;
use tokio::time::Instant;

/// Bytes of one measurement of the rate.
const BYTES: u64 = 4 << 30;
/// Questions of one measurement of the latency.
const QUESTIONS: usize = 20_000;
/// Things of one measurement of a checker.
const THINGS: u64 = 5_000_000;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let tasks = Tasks::default();
    let (sink, echo) = (serve(sink)?, serve(echo)?);
    let _entered = runtime.enter();
    let route = |name: &str, upstream: SocketAddr| RouteConfig {
        name: name.to_owned(),
        listen: "127.0.0.1:0".to_owned(),
        upstream: upstream.to_string(),
        enabled: true,
        mode: Mode::Forward,
        connections_max: 0,
        faults: Vec::new(),
    };
    let routes = vec![route("sink", sink), route("echo", echo)];
    let proxy = build(Config { routes, ..Config::default() }, &tasks)?;
    let handle = proxy.handle();
    proxy.run();
    let address = |name| handle.get(name)?.listen.parse::<SocketAddr>().context("an address");
    let (by_sink, by_echo) = (address("sink")?, address("echo")?);
    for _ in 0..3 {
        let (direct, proxied) = (rate(sink)?, rate(by_sink)?);
        println!("rate: direct {direct:.2} GB/s, proxied {proxied:.2} GB/s");
    }
    for _ in 0..3 {
        let (direct, proxied) = (latency(echo)?, latency(by_echo)?);
        println!("round trip: direct {direct}, proxied {proxied}");
    }
    for delay in ["1ms", "5ms", "100ms"] {
        println!("delay {delay}: {}", delayed(&handle, by_echo, delay)?);
    }
    println!("delivery: {:.1} million things a second", deliveries());
    println!("register: {:.1} million operations a second", registers());
    Ok(())
}

/// Serves every connection in a thread.
fn serve(with: fn(TcpStream)) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| drop(thread::spawn(move || with(stream))));
    });
    Ok(address)
}

/// Reads all there is, and says at the end that it has.
fn sink(mut stream: TcpStream) {
    let mut buffer = vec![0; 256 << 10];
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
    drop(stream.write_all(b"."));
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    drop(stream.set_nodelay(true));
    while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer).is_ok() {}
}

/// Gigabytes a second in one direction of one connection.
fn rate(address: SocketAddr) -> anyhow::Result<f64> {
    let mut stream = TcpStream::connect(address)?;
    let buffer = vec![7; 256 << 10];
    let start = Instant::now();
    for _ in 0..BYTES / buffer.len() as u64 {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    Ok(BYTES as f64 / 1e9 / start.elapsed().as_secs_f64())
}

fn latency(address: SocketAddr) -> anyhow::Result<String> {
    round_trips(address, QUESTIONS)
}

fn delayed(handle: &Handle, address: SocketAddr, delay: &str) -> anyhow::Result<String> {
    let Change::Faults(faults) = text::change(&format!("latency upstream delay={delay}"))? else {
        anyhow::bail!("no fault");
    };
    for fault in faults {
        handle.set_fault("echo", fault)?;
    }
    let seen = round_trips(address, 50);
    handle.clear_faults("echo")?;
    seen
}

fn round_trips(address: SocketAddr, times: usize) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 64];
    let mut seen = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
        seen.push(start.elapsed());
    }
    seen.sort_unstable();
    let at = |share: usize| seen.get(seen.len() * share / 100).copied().unwrap_or_default();
    Ok(format!("p50 {:?} p99 {:?}", at(50), at(99)))
}

/// Things that are sent, acknowledged and received, of 1000 keys.
fn deliveries() -> f64 {
    let mut delivery = Delivery::new(DeliveryRules { ordered: true, ..DeliveryRules::default() });
    let start = Instant::now();
    for thing in 0..THINGS {
        let (key, id, at) = (thing % 1000, thing / 1000, Duration::from_nanos(thing * 10));
        delivery.sent(&key, id, at);
        delivery.acknowledged(&key, id, at + Duration::from_nanos(1));
        delivery.received(&key, id, at + Duration::from_nanos(2));
    }
    let report = delivery.finish();
    let rate = per_microsecond(THINGS, start);
    println!("  {report}");
    rate
}

fn registers() -> f64 {
    let mut register = Register::new();
    let start = Instant::now();
    for thing in 0..THINGS {
        let (key, value, at) = (thing % 1000, thing / 2000 + 1, Duration::from_nanos(thing * 10));
        let write = thing / 1000 % 2 == 0;
        register.begins(&key, at);
        let operation = if write { Operation::Write(value) } else { Operation::Read(value) };
        register.ends(&key, operation, at, at + Duration::from_nanos(5));
    }
    let report = register.finish();
    let rate = per_microsecond(THINGS, start);
    println!("  {report}");
    rate
}

fn per_microsecond(things: u64, start: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let things = things as f64;
    things / 1e6 / start.elapsed().as_secs_f64()
}
