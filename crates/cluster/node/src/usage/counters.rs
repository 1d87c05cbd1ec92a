//! How much CPU time and memory something has used: of the files of its control groups, of `/proc`
//! where there are none, and of the whole machine. Reads; computes no rates.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::cgroups::detect::{Controller, Version};

/// Nanoseconds in one of the ticks in which the kernel tells CPU time: `USER_HZ` is 100 on every
/// architecture that there is a build for.
const TICK: u64 = 10_000_000;

/// Bytes of a kilobyte as the kernel means it.
const KILO: u64 = 1024;

/// What was used up to some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// CPU time since the beginning, in nanoseconds.
    pub(super) cpu_nanos: u64,
    /// The working set, in bytes: what could not be had back without somebody noticing.
    pub(super) memory_bytes: u64,
}

/// Of control groups: one folder of each hierarchy.
pub(super) fn of_groups(folders: &[(Version, &[Controller], PathBuf)]) -> io::Result<Counters> {
    let mut counters = Counters::default();
    for (version, controllers, folder) in folders {
        if controllers.contains(&Controller::Cpuacct) {
            counters.cpu_nanos = match version {
                Version::One => number(&folder.join("cpuacct.usage"))?,
                Version::Two => keyed(&folder.join("cpu.stat"), "usage_usec")?.saturating_mul(1000),
            };
        }
        if controllers.contains(&Controller::Memory) {
            let (usage, inactive) = match version {
                Version::One => ("memory.usage_in_bytes", "total_inactive_file"),
                Version::Two => ("memory.current", "inactive_file"),
            };
            let usage = number(&folder.join(usage))?;
            let inactive = keyed(&folder.join("memory.stat"), inactive)?;
            counters.memory_bytes = usage.saturating_sub(inactive);
        }
    }
    Ok(counters)
}

/// Of the whole machine.
pub(super) fn of_machine() -> io::Result<Counters> {
    let stat = fs::read_to_string("/proc/stat")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let cpu = cpu_of_machine(&stat).ok_or_else(|| unreadable(Path::new("/proc/stat")))?;
    let memory =
        memory_of_machine(&memory).ok_or_else(|| unreadable(Path::new("/proc/meminfo")))?;
    Ok(Counters { cpu_nanos: cpu, memory_bytes: memory })
}

/// user, nice, system, idle, iowait, irq, softirq, steal: all but waiting.
fn cpu_of_machine(stat: &str) -> Option<u64> {
    const IDLE: [usize; 2] = [3, 4];
    const COUNTED: usize = 8;
    let line = stat.lines().find_map(|it| it.strip_prefix("cpu "))?;
    let fields = line.split_whitespace().take(COUNTED).enumerate();
    let busy = fields.filter(|(index, _)| !IDLE.contains(index));
    let ticks = busy.map(|(_, it)| it.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(ticks.saturating_mul(TICK))
}

fn memory_of_machine(meminfo: &str) -> Option<u64> {
    let field = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let used = field("MemTotal")?.saturating_sub(field("MemFree")?);
    Some(used.saturating_sub(field("Inactive(file)")?).saturating_mul(KILO))
}

/// Of the PID namespaces that these processes are the first ones of, by process id: what is in
/// `/proc` of all processes that are there. `proc` is `/proc`.
pub(super) fn of_namespaces(proc: &Path, first: &[u32]) -> BTreeMap<u32, Counters> {
    let namespace = |pid: &str| fs::read_link(proc.join(pid).join("ns/pid")).ok();
    let mut by_namespace: BTreeMap<PathBuf, (u32, Counters)> = first
        .iter()
        .filter_map(|pid| Some((namespace(&pid.to_string())?, (*pid, Counters::default()))))
        .collect();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|it| it.bytes().all(|it| it.is_ascii_digit())) else {
            continue;
        };
        // Of others, or just ended.
        let Some(namespace) = namespace(pid) else { continue };
        let Some((_, counters)) = by_namespace.get_mut(&namespace) else { continue };
        let read = |file| fs::read(entry.path().join(file)).ok();
        let (stat, status) = (read("stat"), read("status"));
        counters.cpu_nanos += stat.and_then(|it| cpu_of_process(&it)).unwrap_or_default();
        counters.memory_bytes += status.map(|it| memory_of_process(&it)).unwrap_or_default();
    }
    by_namespace.into_values().collect()
}

/// utime, stime, and those of children that were waited for, which no longer count themselves:
/// fields 14 to 17 of proc(5).
fn cpu_of_process(stat: &[u8]) -> Option<u64> {
    /// The first field behind the name is the third.
    const BEFORE: usize = 14 - 3;
    const COUNTED: usize = 4;
    // The name in field 2 may contain anything: count after its closing parenthesis.
    let end = stat.iter().rposition(|it| *it == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let times = rest.split_ascii_whitespace().skip(BEFORE).take(COUNTED);
    let ticks = times.map(|it| it.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(ticks.saturating_mul(TICK))
}

/// What is its own: pages of files are anybody's, and may be had back.
fn memory_of_process(status: &[u8]) -> u64 {
    let status = String::from_utf8_lossy(status);
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|it| it.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let fields = ["RssAnon:", "RssShmem:"].into_iter().filter_map(field);
    fields.sum::<u64>().saturating_mul(KILO)
}

fn number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(|_| unreadable(path))
}

fn keyed(path: &Path, key: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let value = text.lines().find_map(|it| it.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|it| it.trim().parse().ok()).ok_or_else(|| unreadable(path))
}

fn unreadable(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is not understood", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn groups_of_both_versions_are_read() {
        let (cpu, memory) = (
            folder(&[("cpuacct.usage", "1234567890\n")]),
            folder(&[
                ("memory.usage_in_bytes", "10000\n"),
                ("memory.stat", "cache 7\ninactive_file 1\ntotal_inactive_file 3000\n"),
            ]),
        );
        let one = [
            (Version::One, [Controller::Cpuacct].as_slice(), cpu.path().to_owned()),
            (Version::One, [Controller::Memory].as_slice(), memory.path().to_owned()),
        ];
        let expected = Counters { cpu_nanos: 1_234_567_890, memory_bytes: 7000 };
        assert_eq!(of_groups(&one).unwrap(), expected);
        let dir = folder(&[
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\n"),
            ("memory.current", "100\n"),
            // Files may be counted as inactive before they are as used.
            ("memory.stat", "anon 1\ninactive_file 200\n"),
        ]);
        let all = [Controller::Cpuacct, Controller::Memory];
        let two = [(Version::Two, all.as_slice(), dir.path().to_owned())];
        assert_eq!(of_groups(&two).unwrap(), Counters { cpu_nanos: 5000, memory_bytes: 0 });
        fs::write(dir.path().join("cpu.stat"), "nonsense").unwrap();
        assert_eq!(of_groups(&two).unwrap_err().kind(), io::ErrorKind::InvalidData);
        fs::remove_file(dir.path().join("cpu.stat")).unwrap();
        assert_eq!(of_groups(&two).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn processes_are_summed_up_by_their_namespace() {
        let stat = |name: &str, times: &str| {
            format!("7 ({name}) S 1 7 7 0 -1 4194560 131 0 0 0 {times} 20 0 1 0 123 0 0\n")
        };
        let status = |anon: u64| {
            format!(
                "Name:\tx\nVmRSS:\t  9999 kB\nRssAnon:\t{anon:8} kB\nRssFile:\t 500 kB\nRssShmem:\t 1 kB\n"
            )
        };
        let dir = folder(&[
            ("10/stat", &stat("a", "1 2 30 40")),
            ("10/status", &status(100)),
            ("11/stat", &stat("evil) S 1 (", "100 0 0 0")),
            ("11/status", &status(50)),
            ("12/stat", &stat("b", "5 0 0 0")),
            ("12/status", &status(7)),
            ("13/stat", &stat("other", "5000 0 0 0")),
            ("13/status", &status(7000)),
            ("meminfo", ""),
        ]);
        for (pid, namespace) in [(10, "pid:[1]"), (11, "pid:[1]"), (12, "pid:[2]"), (13, "pid:[3]")]
        {
            let folder = dir.path().join(format!("{pid}/ns"));
            fs::create_dir(&folder).unwrap();
            std::os::unix::fs::symlink(namespace, folder.join("pid")).unwrap();
        }
        let counters = of_namespaces(dir.path(), &[10, 12, 99]);
        let expected = [
            (10, Counters { cpu_nanos: 173 * TICK, memory_bytes: 152 * KILO }),
            (12, Counters { cpu_nanos: 5 * TICK, memory_bytes: 8 * KILO }),
        ];
        assert_eq!(counters, BTreeMap::from(expected));
    }

    #[test]
    fn machine_is_read() {
        let stat = "cpu  100 20 30 4000 500 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(cpu_of_machine(stat), Some(171 * TICK));
        let memory =
            "MemTotal: 1000 kB\nMemFree: 300 kB\nInactive:  400 kB\nInactive(file):  200 kB\n";
        assert_eq!(memory_of_machine(memory), Some(500 * KILO));
        assert_eq!((cpu_of_machine(""), memory_of_machine("")), (None, None));
        let machine = of_machine().unwrap();
        assert!(0 < machine.cpu_nanos && 0 < machine.memory_bytes);
    }
}
