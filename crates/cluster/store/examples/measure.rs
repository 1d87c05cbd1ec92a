//! Measures the store in a folder: `cargo run --release -p coracle-store --example measure -- DIR`.
//!
//! Puts of 1 KiB over 5 000 keys a writer, next to the time that one bare flush takes on the same
//! disk. Measures the library alone; the API on top of it is measured by `benches`.

#![expect(clippy::print_stdout, reason = "its output is a table")]

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, time::Duration};

use bytes::Bytes;
use coracle_store::{Config, Expect, Range, Revision, Store};
use tokio::{task::JoinSet, time::Instant};

const VALUE_BYTES: usize = 1 << 10;
const KEYS: usize = 5_000;
const PERIOD: Duration = Duration::from_secs(3);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).ok_or("usage: measure DIR")?;
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    report("bare write and fdatasync", flushes(dir)?);
    let config = Config::new(dir.join("store"));
    let store = Store::open(&config)?;
    for writers in [1, 16, 32, 64] {
        let samples = runtime.block_on(write(&store, writers));
        report(&format!("puts, {writers} writers"), samples);
    }
    let entries = store.range(Range::default()).entries.len();
    let start = Instant::now();
    drop(store.range(Range::default()));
    println!("list of {entries} entries: {:?}", start.elapsed());
    drop(store);
    let start = Instant::now();
    let store = Store::open(&config)?;
    println!("reopening {entries} entries: {:?}", start.elapsed());
    runtime.block_on(reads(&store));
    Ok(())
}

/// What the disk takes by itself: overwriting zeros that are there, one record at a time.
fn flushes(dir: &Path) -> io::Result<Vec<Duration>> {
    let path = dir.join("flush");
    let file = File::create(&path)?;
    file.write_all_at(&vec![0; 4 << 20], 0)?;
    file.sync_all()?;
    let mut samples = Vec::new();
    for turn in 0..3_000 {
        let start = Instant::now();
        file.write_all_at(&[1; VALUE_BYTES], turn * VALUE_BYTES as u64)?;
        file.sync_data()?;
        samples.push(start.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(samples)
}

async fn write(store: &Store, writers: usize) -> Vec<Duration> {
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            let end = Instant::now() + PERIOD;
            let mut samples = Vec::new();
            let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
            for turn in (0..KEYS).cycle() {
                let start = Instant::now();
                if start > end {
                    break;
                }
                let key = Bytes::from(format!("/registry/bench/{writer}/{turn}"));
                let value = |_: Revision| value.clone();
                if store.put(key, Expect::Any, value).await.is_err() {
                    break;
                }
                samples.push(start.elapsed());
            }
            samples
        });
    }
    tasks.join_all().await.concat()
}

async fn reads(store: &Store) {
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let store = store.clone();
        tasks.spawn(async move {
            for turn in 0..1_000_000 {
                drop(store.get(format!("/registry/bench/0/{}", turn % KEYS).as_bytes()));
            }
        });
    }
    let start = Instant::now();
    tasks.join_all().await;
    println!("gets by 2 readers: {:.0}/s", 2e6 / start.elapsed().as_secs_f64());
}

fn report(what: &str, mut samples: Vec<Duration>) {
    samples.sort();
    let at = |share: usize| samples.get(samples.len() * share / 1_000).copied().unwrap_or_default();
    let rate = samples.len() as f64 / PERIOD.as_secs_f64();
    let rate = if what.starts_with("puts") { format!("{rate:.0}/s") } else { String::new() };
    println!("{what}: {rate} p50 {:?} p99 {:?} p99.9 {:?}", at(500), at(990), at(999));
}
