//! Measures the log in a folder: `cargo run --release -p coracle-queue --example log -- DIR`.
//!
//! Publishing with each durability, then 10 million messages waiting: the memory they take, how
//! long opening them takes, and reading them all again. Measures the library alone; the protocol on
//! top of it is measured by `benches`. Takes half a minute and 2 GB in the folder, which it leaves
//! empty.

#![expect(clippy::print_stdout, reason = "its output is a table")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use coracle_queue::{
    Durability,
    disk::Folders,
    log::{AppendError, Committers, Log, LogConfig, MemoryLimits, Read, ReadLimit, Retention, Run},
    message::{Nanos, NewMessage},
};
use runtime::Clock;
use tokio::{task::JoinSet, time::Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const PERIOD: Duration = Duration::from_secs(3);
const WAITING: u64 = 10_000_000;

fn main() -> Result<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: log DIR")?);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for durability in [Durability::Disk, Durability::Process, Durability::Memory] {
        for (publishers, batch, bytes) in [
            (64, 1, 100),
            (64, 1, 200),
            (1, 200, 100),
            (8, 200, 100),
            (8, 200, 200),
            (64, 200, 200),
        ] {
            let load = Load { durability, publishers, batch, bytes };
            runtime.block_on(publish(&dir, load))?;
        }
    }
    many_topics(&runtime, &dir)?;
    replay(&dir)
}

#[derive(Clone, Copy, Debug)]
struct Load {
    durability: Durability,
    publishers: usize,
    batch: usize,
    bytes: usize,
}

fn now() -> Nanos {
    Nanos::of(Clock::system().now())
}

fn start() -> std::io::Result<Committers> {
    Committers::start(Arc::new(Folders), MemoryLimits::default(), Committers::THREADS)
}

fn open(committers: &Committers, dir: &Path, durability: Durability) -> Result<Log> {
    let config = LogConfig { durability, retention: Retention::default() };
    Ok(Log::open(committers, dir.join("topic"), config, now())?.0)
}

fn messages(count: usize, bytes: usize) -> Vec<NewMessage> {
    vec![NewMessage::new(Bytes::from(vec![b'x'; bytes])); count]
}

/// Appends a batch and waits until it is committed, again and again.
async fn publisher(log: Log, batch: Vec<NewMessage>, until: Instant) -> Result<Vec<Duration>> {
    let mut samples = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        let appended = loop {
            match log.append(now(), &batch) {
                Err(AppendError::Full) => log.room().await,
                other => break other?,
            }
        };
        appended.committed().await?;
        samples.push(start.elapsed());
        if samples.len() % 64 == 0 {
            // In memory mode nothing else lets others run.
            tokio::task::yield_now().await;
        }
    }
    Ok(samples)
}

async fn publish(dir: &Path, load: Load) -> Result<()> {
    let committers = start()?;
    let log = open(&committers, dir, load.durability)?;
    let mut publishers = JoinSet::new();
    let start = Instant::now();
    for _ in 0..load.publishers {
        let batch = messages(load.batch, load.bytes);
        publishers.spawn(publisher(log.clone(), batch, start + PERIOD));
    }
    let mut samples = Vec::new();
    while let Some(done) = publishers.join_next().await {
        samples.extend(done??);
    }
    let seconds = start.elapsed().as_secs_f64();
    samples.sort_unstable();
    let part = |share: usize| samples.get(samples.len() * share / 100).copied().unwrap_or_default();
    println!(
        "{:7?} {:2} publishers, batches of {:3} x {} bytes: {:9.0} messages/s, p50 {:?}, p99 {:?}",
        load.durability,
        load.publishers,
        load.batch,
        load.bytes,
        (samples.len() * load.batch) as f64 / seconds,
        part(50),
        part(99)
    );
    log.delete()?;
    committers.close();
    Ok(())
}

/// One publisher for each of 1 000 topics.
fn many_topics(runtime: &tokio::runtime::Runtime, dir: &Path) -> Result<()> {
    const TOPICS: usize = 1_000;
    let committers = start()?;
    let begun = Instant::now();
    let logs = (0..TOPICS).map(|it| open(&committers, &dir.join(it.to_string()), Durability::Disk));
    let logs = logs.collect::<Result<Vec<Log>>>()?;
    println!("making {TOPICS} topics: {:?}", begun.elapsed());
    let samples = runtime.block_on(async {
        let mut publishers = JoinSet::new();
        let until = Instant::now() + PERIOD;
        for log in &logs {
            publishers.spawn(publisher(log.clone(), messages(1, 100), until));
        }
        let mut samples = Vec::new();
        while let Some(done) = publishers.join_next().await {
            samples.extend(done??);
        }
        Result::Ok(samples)
    })?;
    let longest = samples.iter().max().copied().unwrap_or_default();
    let rate = samples.len() as f64 / PERIOD.as_secs_f64();
    println!(
        "{TOPICS} topics, a publisher each, with fsync: {rate:.0} messages/s, at most {longest:?}"
    );
    for (number, log) in logs.iter().enumerate() {
        log.delete()?;
        std::fs::remove_dir(dir.join(number.to_string()))?;
    }
    committers.close();
    Ok(())
}

/// Fills a log, opens it anew and reads it all.
fn replay(dir: &Path) -> Result<()> {
    let committers = start()?;
    let log = open(&committers, dir, Durability::Memory)?;
    let batch = messages(200, 100);
    let begun = Instant::now();
    for _ in 0..WAITING / 200 {
        while let Err(error) = log.append(now(), &batch) {
            match error {
                AppendError::Full => log.flush()?,
                other => return Err(other.into()),
            }
        }
    }
    println!("{WAITING} messages appended by one thread: {:?}", begun.elapsed());
    println!("memory while they wait: {} MiB", resident()? >> 20);
    log.close(now())?;
    committers.close();
    drop(log);
    let committers = start()?;
    let begun = Instant::now();
    let log = open(&committers, dir, Durability::Memory)?;
    println!("opening them: {:?}", begun.elapsed());
    let limit = ReadLimit { messages: 1_000, bytes: 1 << 20 };
    let (mut next, mut count) = (log.first(), 0);
    let begun = Instant::now();
    loop {
        match log.read(next, limit)? {
            Read::Messages(runs) => {
                count += runs.iter().map(Run::len).sum::<usize>();
                next = runs.last().map_or(next, Run::end);
            }
            Read::Skipped(damage) => return Err(damage.to_string().into()),
            Read::End => break,
        }
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!("reading {count} again: {:?}, {rate:.0} messages/s", begun.elapsed());
    let begun = Instant::now();
    for step in 0..1_000 {
        let place = log.first().after(step * 7_919 % WAITING);
        log.get(&[place])?.pop().flatten().ok_or("a message is not there")?;
    }
    println!("reading one of them: {:?}", begun.elapsed() / 1_000);
    println!("memory after it: {} MiB", resident()? >> 20);
    log.delete()?;
    committers.close();
    Ok(())
}

/// How many bytes of this process are in memory: proc_pid_statm(5).
fn resident() -> Result<u64> {
    const PAGE_BYTES: u64 = 4096;
    let fields = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = fields.split(' ').nth(1).ok_or("no second field")?.parse()?;
    Ok(pages * PAGE_BYTES)
}
