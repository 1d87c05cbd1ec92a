//! What the kernel tells of this process.

use std::fs;

/// Figures of this process; `None` for what the machine does not tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// Seconds of processor time, of user and system.
    pub(crate) processor_seconds: Option<f64>,
    /// Files open.
    pub(crate) files: Option<usize>,
    /// Bytes of memory in use.
    pub(crate) resident_bytes: Option<u64>,
    /// When it began, in seconds since 1970.
    pub(crate) started_seconds: Option<f64>,
}

/// Ticks of a second in `/proc/self/stat`: the kernel promises this number to programs.
const TICKS: f64 = 100.0;

/// Words of `/proc/self/stat` behind the program's name: ticks in user and in system mode, and when
/// the process began, in ticks since the machine did.
const USER: usize = 11;
const SYSTEM: usize = 12;
const STARTED: usize = 19;

impl Process {
    /// The figures now.
    pub(crate) fn now() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let stat = text("/proc/self/stat");
        let started = seconds(&stat, STARTED);
        let booted = number::<f64>(&text("/proc/stat"), "btime ");
        Self {
            processor_seconds: seconds(&stat, USER).zip(seconds(&stat, SYSTEM)).map(|(a, b)| a + b),
            files: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            resident_bytes: number(&text("/proc/self/status"), "VmRSS:").map(|it: u64| it * 1024),
            started_seconds: started.zip(booted).map(|(a, b)| a + b),
        }
    }
}

/// The number behind `key` at the beginning of a line.
fn number<T: std::str::FromStr>(text: &str, key: &str) -> Option<T> {
    let line = text.lines().find_map(|it| it.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A word of `/proc/self/stat` behind the program's name, which is in brackets and may have
/// anything in it.
fn seconds(stat: &str, word: usize) -> Option<f64> {
    let (_, words) = stat.rsplit_once(')')?;
    let ticks: f64 = words.split_whitespace().nth(word)?.parse().ok()?;
    Some(ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_this_process() {
        let process = Process::now();
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.files.unwrap() >= 3);
        assert!(process.processor_seconds.unwrap() < 1e6);
        // Later than 2020.
        assert!(process.started_seconds.unwrap() > 1.577e9);
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 1234 9";
        let shown: Vec<_> = [USER, SYSTEM, STARTED].map(|it| seconds(stat, it)).into();
        assert_eq!(shown, [Some(1.5), Some(0.5), Some(12.34)]);
        assert_eq!(seconds(stat, 30), None);
        assert_eq!(number("Name: x\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        assert_eq!(number::<u64>("", "VmRSS:"), None);
    }
}
