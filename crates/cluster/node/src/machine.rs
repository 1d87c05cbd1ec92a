//! What the machine is and has: read from the kernel, told as the Node object tells it.

use std::{fs, io, path::Path};

use rustix::{fs::statvfs, system::uname};

/// Facts that do not change while the process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Host name in lower case: the node's name.
    pub name: String,
    /// CPUs this process may use, in thousandths.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Size of the file system with the state folder, in bytes.
    pub storage_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Name of the distribution.
    pub os_image: String,
    /// Go's name of the architecture: `amd64`, `arm64`.
    pub architecture: &'static str,
    /// /etc/machine-id.
    pub machine_id: String,
    /// Differs after each boot.
    pub boot_id: String,
}

/// What is left of the machine now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Memory that can be had without swapping, in bytes.
    pub memory_bytes: u64,
    /// Room on the file system with the state folder, in bytes.
    pub storage_bytes: u64,
    /// Processes that can still be started.
    pub processes: u64,
}

impl Machine {
    /// Reads the facts; `state` is any folder on the file system that holds volumes and logs.
    pub(crate) fn read(state: &Path) -> io::Result<Self> {
        let system = uname();
        let file_system = statvfs(state)?;
        let cpus = std::thread::available_parallelism()?.get();
        Ok(Self {
            name: system.nodename().to_string_lossy().to_ascii_lowercase(),
            cpu_millis: u64::try_from(cpus).unwrap_or(u64::MAX).saturating_mul(1000),
            memory_bytes: meminfo("MemTotal")?,
            storage_bytes: file_system.f_blocks.saturating_mul(file_system.f_frsize),
            kernel: system.release().to_string_lossy().into_owned(),
            os_image: os_image(),
            architecture: architecture(),
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        })
    }
}

impl Machine {
    /// What of it is a node's where there are so many.
    pub(crate) fn share(&self, nodes: u32) -> Self {
        let part = |whole: u64| whole / u64::from(nodes.max(1));
        Self {
            cpu_millis: part(self.cpu_millis),
            memory_bytes: part(self.memory_bytes),
            storage_bytes: part(self.storage_bytes),
            ..self.clone()
        }
    }
}

impl Left {
    /// Reads what is left now.
    pub(crate) fn read(state: &Path) -> io::Result<Self> {
        let file_system = statvfs(state)?;
        Ok(Self {
            memory_bytes: meminfo("MemAvailable")?,
            storage_bytes: file_system.f_bavail.saturating_mul(file_system.f_frsize),
            processes: processes_left().unwrap_or(u64::MAX),
        })
    }
}

/// A field of /proc/meminfo, in bytes.
fn meminfo(field: &str) -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|it| it.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|it| it.split_whitespace().next()).and_then(|it| it.parse().ok());
    let kilobytes: u64 = number.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("no {field} in /proc/meminfo"))
    })?;
    Ok(kilobytes.saturating_mul(1024))
}

/// The fourth field of /proc/loadavg is `running/all`.
fn processes_left() -> Option<u64> {
    let limit: u64 = line("/proc/sys/kernel/pid_max").parse().ok()?;
    let load = line("/proc/loadavg");
    let all: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(limit.saturating_sub(all))
}

fn os_image() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|it| it.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |it| it.trim_matches('"').to_owned())
}

/// The file's only line; empty if there is none to read (a container without a machine id).
fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::read(Path::new("/")).unwrap();
        assert!(!machine.name.is_empty() && !machine.kernel.is_empty());
        assert!(1000 <= machine.cpu_millis);
        let left = Left::read(Path::new("/")).unwrap();
        assert!(0 < left.memory_bytes && left.memory_bytes <= machine.memory_bytes);
        assert!(left.storage_bytes <= machine.storage_bytes);
        assert!(0 < left.processes);
    }
}
