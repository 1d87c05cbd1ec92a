//! What the disk takes by itself, to stand beside the time of a durable create.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use tokio::time::Instant;

use crate::report::{Figure, Samples};

/// About what a small object takes in the log.
const RECORD: [u8; 1 << 10] = [1; 1 << 10];
const TURNS: u64 = 2_000;

/// Overwrites zeros that are there, one record at a time, each flushed.
pub(crate) fn measure(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let path = folder.join("flush");
    let file = File::create(&path)?;
    for turn in 0..TURNS {
        file.write_all_at(&[0; RECORD.len()], turn * RECORD.len() as u64)?;
    }
    file.sync_all()?;
    let mut samples = Vec::new();
    for turn in 0..TURNS {
        let start = Instant::now();
        file.write_all_at(&RECORD, turn * RECORD.len() as u64)?;
        file.sync_data()?;
        samples.push(start.elapsed());
    }
    std::fs::remove_file(path)?;
    let samples = Samples::new(samples);
    Ok(vec![
        Figure::time("write and fdatasync of 1 KiB, p50", samples.percentile(50)),
        Figure::time("write and fdatasync of 1 KiB, p99", samples.percentile(99)),
    ])
}
