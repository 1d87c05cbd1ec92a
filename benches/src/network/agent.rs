//! What this program is in a pod: a server, or a client that does what it is told over a connection of its
//! own, one line each, and answers with a line of numbers. Times are in seconds.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail, ensure};
use runtime::{OnExit, Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

use super::question::Asker;
use crate::egress::{self, CONTROL, asked, open};

/// First argument of this program as a client; then the address of whom to obey, and its name there.
pub(crate) const CLIENT: &str = "network-client";
/// First argument as a server that counts bytes or sends them back; then its port.
pub(crate) const SERVER: &str = "network-server";
/// First argument as a server of HTTP that always says the same; then its port.
pub(crate) const WEB: &str = "network-web";

/// Files that a client or a server wants.
const FILES: u64 = 16_384;
/// Between two attempts to reach what is not there yet; bounds the error of these figures.
const POLL: Duration = Duration::from_micros(30);
/// How long something that comes within milliseconds is awaited.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the server of HTTP answers.
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n";
/// Ends the head of a request; those that come here have no body.
const END: &[u8] = b"\r\n\r\n";

/// Whether these arguments are for what is in here, and what came of it.
pub(crate) fn run(words: &[String]) -> Option<anyhow::Result<()>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [CLIENT, address, name] => Some(client(address, name)),
        [SERVER, port] => Some(server(port, serve)),
        [WEB, port] => Some(server(port, web)),
        _ => None,
    }
}

/// Runs a server on one thread.
fn server<F>(port: &str, serve: fn(tokio::net::TcpListener, Tasks) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    runtime::raise_files(FILES);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.parse()?)).context("listen")?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        serve(listener, Tasks::default()).await
    })
}

async fn serve(listener: tokio::net::TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    // Nobody is told of connections for orders: it gets none.
    let (told, _clients) = mpsc::channel(1);
    egress::serve(listener, told, tasks).await
}

async fn web(listener: tokio::net::TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tasks.spawn("web-connection", OnExit::Log, |_| async move {
            let mut head = Vec::new();
            while stream.read_buf(&mut head).await? > 0 {
                while let Some(end) = head.windows(END.len()).position(|it| it == END) {
                    head.drain(..end + END.len());
                    stream.write_all(ANSWER).await?;
                }
            }
            Ok(())
        });
    }
}

/// Obeys until it is told to end.
fn client(address: &str, name: &str) -> anyhow::Result<()> {
    runtime::raise_files(FILES);
    let mut control = open(address, CONTROL)?;
    writeln!(control, "{name}")?;
    for line in BufReader::new(control.try_clone()?).lines() {
        let line = line?;
        if line == "end" {
            return Ok(());
        }
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match obey(&words) {
            Ok(numbers) => numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" "),
            // No number: so whoever gave the order hears of it.
            Err(error) => format!("{error:#}").replace('\n', " "),
        };
        writeln!(control, "{answer}")?;
    }
    Ok(())
}

fn obey(words: &[&str]) -> anyhow::Result<Vec<f64>> {
    Ok(match words {
        // How long it takes to get bytes through one connection.
        ["send", address, bytes] => vec![egress::send(address, bytes.parse()?)?.parse()?],
        // A connection each, to the addresses in turn: connect, and a byte there and back.
        ["open", addresses, count] => {
            let addresses: Vec<&str> = addresses.split(',').collect();
            let mut addresses = addresses.iter().cycle();
            timed(count, || {
                let address = addresses.next().context("no address")?;
                asked(address).map(drop)
            })?
        }
        // One connection: a byte there and back.
        ["ask", address, count] => {
            let mut stream = asked(address)?;
            timed(count, || {
                stream.write_all(&[7])?;
                Ok(stream.read_exact(&mut [0])?)
            })?
        }
        ["reach", address] => {
            let address: SocketAddr = address.parse()?;
            vec![since_epoch(|| Ok(TcpStream::connect(address).is_ok()))?]
        }
        ["resolve", server, name, address] => {
            let (mut asker, address) = (Asker::new(server, name)?, address.parse()?);
            vec![since_epoch(|| asker.ask().map(|it| it.contains(&address)))?]
        }
        // One question after the other.
        ["lookup", server, name, count] => {
            let mut asker = Asker::new(server, name)?;
            timed(count, || {
                ensure!(!asker.ask()?.is_empty(), "`{name}` has no address");
                Ok(())
            })?
        }
        // As many questions at a time as `window` says.
        ["flood", server, name, window, count] => {
            let took = Asker::new(server, name)?.flood(window.parse()?, count.parse()?)?;
            vec![took.as_secs_f64()]
        }
        _ => bail!("that is unknown"),
    })
}

/// The median and the 99th percentile of what each of `count` times takes.
#[expect(clippy::disallowed_methods, reason = "measures")]
fn timed(count: &str, mut what: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..count.parse()? {
        let start = Instant::now();
        what()?;
        times.push(start.elapsed());
    }
    let times = crate::report::Samples::new(times);
    Ok([50, 99].map(|it| times.percentile(it).as_secs_f64()).to_vec())
}

/// The time of day at which it was so for the first time. All programs of a machine have the same clock.
#[expect(clippy::disallowed_methods, reason = "measures")]
fn since_epoch(mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<f64> {
    let start = Instant::now();
    while !is_so()? {
        ensure!(start.elapsed() < PATIENCE, "in vain for {} s", PATIENCE.as_secs());
        std::thread::sleep(POLL);
    }
    now()
}

/// The time of day, in seconds; exact to less than a microsecond.
#[expect(clippy::disallowed_methods, reason = "compared with what another program saw")]
pub(super) fn now() -> anyhow::Result<f64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64())
}
