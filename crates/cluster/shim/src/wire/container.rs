//! What a client says of a container, as far as it does not concern the process in it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Size of /dev/shm where nobody says otherwise, in bytes: the default of container runtimes.
pub const SHM_BYTES: u64 = 64 << 20;

/// What tells of the machine what no container should know, for [`ContainerSpec::masked_paths`]:
/// containerd's list.
pub const MASKED_PATHS: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];

/// Where root in a container must not write, for [`ContainerSpec::read_only_paths`]: containerd's
/// list.
pub const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container, as far as it does not concern the process in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// Unique among all containers the pod ever had, such as `web.0`, `web.1`: letters, digits,
    /// `-`, `_` and `.`, not beginning with `.`; it names files.
    pub id: String,
    /// What the container sees as `/`.
    pub root: Root,
    /// Mounted in this order.
    pub mounts: Vec<Mount>,
    /// Files of the host that stand for these in the container: `/etc/resolv.conf` …
    pub resolv_conf: Option<PathBuf>,
    /// … and `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// Size of /dev/shm, in bytes.
    pub shm_bytes: u64,
    /// The log file (CRI format); its folder is made. Rotated files are `LOG.1` (the newest) to
    /// `LOG.4`.
    pub log: PathBuf,
    /// Folders of control groups, at most one of each hierarchy, that every process of the container
    /// is in from its first instruction on. What is left in them at its end is killed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<PathBuf>,
    /// The container's own user namespace, inside the cluster's; `None` is the cluster's. Not for
    /// [`Root::Host`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_namespace: Option<IdMap>,
    /// Files and folders that show nothing: `/proc/kcore` … Those that are missing are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked_paths: Vec<PathBuf>,
    /// Files and folders that nobody in the container can write: `/proc/sys` … Those that are missing
    /// are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_only_paths: Vec<PathBuf>,
    /// Whose processes it sees.
    #[serde(default, skip_serializing_if = "PidNamespace::is_own")]
    pub pid: PidNamespace,
    /// All devices of the host, a `/sys` that can be written, and devices on any file system. The
    /// capabilities are the process's, [`super::ProcessSpec::capabilities`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// What standard input is.
    #[serde(default, skip_serializing_if = "Stdin::is_empty")]
    pub stdin: Stdin,
    /// Whether standard input, output and error are a terminal; its output is logged as `stdout`. Not
    /// for [`Root::Host`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
}

/// Where a container's root comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Root {
    /// Linked source: the machine's own root.
    #[default]
    Host,
    /// An image: an overlay of its layers.
    Layers {
        /// Unpacked layers, the topmost first; at most 127. Without any, the root is empty.
        layers: Vec<PathBuf>,
        /// An existing folder on one disk, in which `upper` and `work` are made, for one container only:
        /// the kernel takes them once. What the container changes is in `upper`, and lost when the
        /// machine crashes.
        writable: PathBuf,
        /// Whether programs in the container cannot write to it.
        read_only: bool,
    },
    /// An image: a folder with a copy of its files, where an overlay cannot be mounted.
    Folder {
        /// The folder; what the container changes is changed there.
        path: PathBuf,
        /// Whether programs in the container cannot write to it.
        read_only: bool,
    },
}

/// A mount in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// What is mounted.
    pub source: Source,
    /// Where, as an absolute path in the container. A missing mount point is made without writing
    /// to the host.
    pub target: PathBuf,
    /// Whether, and with everything below it, it can only be read.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// A folder or file of the host, with everything mounted below it.
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
    },
    /// What is below a folder of the host, with everything mounted below it. Nothing above the folder is
    /// reached, whatever links somebody puts in the way.
    BindBelow {
        /// Absolute path of the folder on the host.
        folder: PathBuf,
        /// Relative path in it.
        path: PathBuf,
    },
    /// A file system in memory, gone with the container.
    Tmpfs {
        /// Its size in bytes.
        size_bytes: u64,
    },
}

/// Which users and groups there are in a container, and who they are in the cluster's user
/// namespace.
///
/// Without any range there is one: the user and group that the container's process runs as are those
/// of the cluster's process, and no others can be had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMap {
    /// Users; at most 340 ranges, see user_namespaces(7).
    pub uids: Vec<IdRange>,
    /// Groups; likewise.
    pub gids: Vec<IdRange>,
}

/// Numbers one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdRange {
    /// The first, in the container.
    pub inside: u32,
    /// The first, in the cluster's user namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// What a container's standard input is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// At its end from the beginning.
    #[default]
    Empty,
    /// Open as long as the container runs, whoever attaches to it and goes away (`stdin`).
    Open,
    /// At its end when the first client that was attached to it goes away (`stdinOnce`).
    Once,
}

impl Stdin {
    /// For serde.
    fn is_empty(&self) -> bool {
        *self == Self::Empty
    }
}

/// Whose processes a container sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidNamespace {
    /// Its own.
    #[default]
    Own,
    /// Those of all containers of the pod that say so.
    Pod,
    /// The machine's.
    Host,
}

impl PidNamespace {
    /// For serde.
    fn is_own(&self) -> bool {
        *self == Self::Own
    }
}
