//! What the kernel tells of this process.

use serde::Serialize;

/// Figures of this process. What the machine does not tell is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    /// Bytes of memory in use.
    pub(crate) resident_bytes: u64,
    /// Bytes of address space.
    pub(crate) virtual_bytes: u64,
    /// Files open.
    pub(crate) files: u64,
    /// How many there may be.
    pub(crate) files_max: u64,
    /// Seconds of processor time, of user and system.
    pub(crate) processor_seconds: f64,
}

/// The original's figures of its garbage collector. Here nothing is collected: only the bytes in
/// use have a meaning, the rest is 0 for the tools that read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    pub(crate) heap_objects: u64,
    pub(crate) heap_idle_bytes: u64,
    pub(crate) heap_in_use_bytes: u64,
    pub(crate) heap_released_bytes: u64,
    pub(crate) gc_pause_usec_100: u64,
    pub(crate) gc_pause_usec_99: u64,
    pub(crate) gc_pause_usec_95: u64,
    pub(crate) next_gc_bytes: u64,
    pub(crate) gc_total_runs: u64,
}

impl Memory {
    /// Each figure and what the original calls it.
    pub(crate) const fn figures(&self) -> [(&'static str, u64); 9] {
        [
            ("heap_objects", self.heap_objects),
            ("heap_idle_bytes", self.heap_idle_bytes),
            ("heap_in_use_bytes", self.heap_in_use_bytes),
            ("heap_released_bytes", self.heap_released_bytes),
            ("gc_pause_usec_100", self.gc_pause_usec_100),
            ("gc_pause_usec_99", self.gc_pause_usec_99),
            ("gc_pause_usec_95", self.gc_pause_usec_95),
            ("next_gc_bytes", self.next_gc_bytes),
            ("gc_total_runs", self.gc_total_runs),
        ]
    }
}

/// Ticks of a second in `/proc/self/stat`: the kernel promises this number to programs.
const TICKS: f64 = 100.0;

impl Process {
    /// The figures now.
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            resident_bytes: kilobytes(&status, "VmRSS:") * 1024,
            virtual_bytes: kilobytes(&status, "VmSize:") * 1024,
            files: u64::try_from(files).unwrap_or(u64::MAX),
            files_max: limit.current.unwrap_or(u64::MAX),
            processor_seconds: processor_seconds(&stat),
        }
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory { heap_in_use_bytes: self.resident_bytes, ..Memory::default() }
    }
}

fn kilobytes(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|it| it.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Time of user and system: the 12th and 13th word after the program's name, which is in brackets
/// and may have anything in it.
fn processor_seconds(stat: &str) -> f64 {
    let words = stat.rsplit_once(')').map(|(_, words)| words).unwrap_or_default();
    let ticks = words.split_whitespace().skip(11).take(2);
    ticks.filter_map(|it| it.parse::<u32>().ok()).map(f64::from).sum::<f64>() / TICKS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_this_process() {
        let process = Process::now();
        assert!(process.resident_bytes > 100_000 && process.virtual_bytes > process.resident_bytes);
        assert!(process.files >= 3 && process.files_max > process.files);
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert!((processor_seconds(stat) - 2.0).abs() < 1e-9);
        assert_eq!(kilobytes("Name: x\nVmRSS:\t  12 kB\n", "VmRSS:"), 12);
        assert_eq!(kilobytes("", "VmRSS:"), 0);
    }
}
