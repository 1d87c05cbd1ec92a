//! What /proc says of the processes of a cluster: proc(5).

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;

use crate::report::Figure;

/// What a process is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Cluster,
    /// Also the one that stands by.
    Keeper,
    Shim,
    /// In a container.
    Program,
}

/// A process of a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) role: Role,
    id: u32,
}

/// Sizes, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// Pages that are shared with others count in part.
    pub(crate) proportional: u64,
    /// What would be free if the process were not there.
    pub(crate) private_dirty: u64,
}

/// What threads have done since they started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(crate) cpu_nanoseconds: u64,
    /// Context switches: how often a thread was put on a core.
    pub(crate) switches: u64,
}

/// The activity of some processes at one moment, thread by thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moment(BTreeMap<u32, Activity>);

impl Moment {
    /// What these processes have done until now.
    pub(crate) fn now(processes: &[Process]) -> anyhow::Result<Self> {
        let mut threads = BTreeMap::new();
        for process in processes {
            let path = format!("/proc/{}/task", process.id);
            for thread in fs::read_dir(&path).with_context(|| format!("read `{path}`"))? {
                let thread = thread?;
                let id = thread.file_name().to_str().and_then(|it| it.parse().ok());
                threads.extend(id.map(|it: u32| (it, activity(&thread.path()))));
            }
        }
        Ok(Self(threads))
    }

    /// What has been done since an earlier moment. Of a thread that has ended between, nothing is
    /// known any more: it counts as if it had done nothing.
    pub(crate) fn since(&self, earlier: &Self) -> Activity {
        let mut sum = Activity::default();
        for (id, now) in &self.0 {
            let before = earlier.0.get(id).copied().unwrap_or_default();
            sum.cpu_nanoseconds += now.cpu_nanoseconds.saturating_sub(before.cpu_nanoseconds);
            sum.switches += now.switches.saturating_sub(before.switches);
        }
        sum
    }
}

fn activity(thread: &Path) -> Activity {
    // It may end while we look.
    let read = |name| fs::read_to_string(thread.join(name)).unwrap_or_default();
    let (times, status) = (read("schedstat"), read("status"));
    Activity {
        cpu_nanoseconds: times.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0),
        switches: field(&status, "voluntary_ctxt_switches:")
            + field(&status, "nonvoluntary_ctxt_switches:"),
    }
}

/// The processes in whose environment or arguments one of the folders occurs, and which have a role.
pub(crate) fn of(folders: &[&Path]) -> anyhow::Result<Vec<Process>> {
    let folders: Option<Vec<&str>> = folders.iter().map(|it| it.to_str()).collect();
    let folders = folders.context("folders with names in UTF-8")?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|it| it.parse().ok()) else { continue };
        let read = |name| fs::read(format!("/proc/{id}/{name}")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&read("cmdline")).into_owned();
        let environment = String::from_utf8_lossy(&read("environ")).into_owned();
        if !folders.iter().any(|it| arguments.contains(it) || environment.contains(it)) {
            continue;
        }
        // The program's own name comes first; a container's has none of these words behind it.
        let mut words = arguments.split('\0').skip(1);
        let role = words.find_map(|it| match it {
            "cluster" => Some(Role::Cluster),
            "keeper" => Some(Role::Keeper),
            "shim" => Some(Role::Shim),
            _ => None,
        });
        found.extend(role.map(|role| Process { role, id }));
    }
    Ok(found)
}

/// The processes with this text among their arguments.
pub(crate) fn with_argument(text: &str) -> anyhow::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|it| it.parse().ok()) else { continue };
        let arguments = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(text) {
            found.push(Process::program(id));
        }
    }
    Ok(found)
}

impl Process {
    /// One of others.
    pub(crate) const fn program(id: u32) -> Self {
        Self { role: Role::Program, id }
    }

    pub(crate) const fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let path = format!("/proc/{}/smaps_rollup", self.id);
        let text = fs::read_to_string(&path).with_context(|| format!("read `{path}`"))?;
        Ok(parse_memory(&text))
    }
}

/// The sum over several processes.
pub(crate) fn memory<'a>(
    processes: impl IntoIterator<Item = &'a Process>,
) -> anyhow::Result<Memory> {
    let mut sum = Memory::default();
    for process in processes {
        let memory = process.memory()?;
        sum.resident += memory.resident;
        sum.proportional += memory.proportional;
        sum.private_dirty += memory.private_dirty;
    }
    Ok(sum)
}

/// What runs in the containers of these shims.
pub(crate) fn children(shims: &[Process]) -> Vec<Process> {
    let of = |shim: &Process| {
        let path = format!("/proc/{0}/task/{0}/children", shim.id);
        let text = fs::read_to_string(path).unwrap_or_default();
        let ids: Vec<u32> = text.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        ids.into_iter().map(|id| Process { role: Role::Program, id })
    };
    shims.iter().flat_map(of).collect()
}

/// What the kernel has for itself, and what is left of the machine: /proc/meminfo, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelMemory {
    slab: u64,
    stacks: u64,
    page_tables: u64,
    per_processor: u64,
    available: u64,
}

impl KernelMemory {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/meminfo").context("read `/proc/meminfo`")?;
        Ok(Self {
            slab: field(&text, "Slab:"),
            stacks: field(&text, "KernelStack:"),
            page_tables: field(&text, "PageTables:"),
            per_processor: field(&text, "Percpu:"),
            available: field(&text, "MemAvailable:"),
        })
    }

    /// What each of `count` things that were made since an earlier moment took.
    pub(crate) fn since(&self, before: &Self, what: &str, count: usize) -> Vec<Figure> {
        let each = |now: u64, before: u64| (now as f64 - before as f64) / count as f64;
        let parts = [
            ("slab", self.slab, before.slab),
            ("stacks", self.stacks, before.stacks),
            ("page tables", self.page_tables, before.page_tables),
            ("per-processor data", self.per_processor, before.per_processor),
        ];
        let sum = parts.iter().map(|(_, now, before)| each(*now, *before)).sum();
        let mut figures = vec![Figure::new(format!("{what}: kernel"), sum, "KiB")];
        figures.extend(parts.map(|(name, now, before)| {
            Figure::new(format!("{what}: kernel, {name}"), each(now, before), "KiB")
        }));
        // The other way round: what there is less.
        let less = each(before.available, self.available);
        figures.push(Figure::new(format!("{what}: less memory available"), less, "KiB"));
        figures
    }
}

fn parse_memory(text: &str) -> Memory {
    Memory {
        resident: field(text, "Rss:"),
        proportional: field(text, "Pss:"),
        private_dirty: field(text, "Private_Dirty:"),
    }
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|it| it.strip_prefix(name)).unwrap_or_default();
    rest.split_whitespace().next().and_then(|it| it.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_fields() {
        let text = "00400000-7ffe ---p 00000000 00:00 0    [rollup]\nRss:    1204 kB\nPss:  900 kB\n\
                    Pss_Dirty:  70 kB\nPrivate_Dirty:        60 kB\n";
        let expected = Memory { resident: 1_204, proportional: 900, private_dirty: 60 };
        assert_eq!(parse_memory(text), expected);
    }

    #[test]
    fn this_process_is_measured() {
        let this = Process { role: Role::Cluster, id: std::process::id() };
        assert!(this.memory().unwrap().resident > 0);
        let moment = Moment::now(&[this]).unwrap();
        assert!(moment.since(&Moment::default()).cpu_nanoseconds > 0);
        let later = Moment::now(&[this]).unwrap().since(&moment);
        assert!(later.cpu_nanoseconds < 1_000_000_000);
    }
}
