//! What a shim and its clients say to each other, with its types and their meaning.
//!
//! How the messages travel is in `frames`; what is done about them is not here.

mod container;
mod frames;
mod process;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use container::{
    ContainerSpec, IdMap, IdRange, MASKED_PATHS, Mount, PidNamespace, READ_ONLY_PATHS, Root,
    SHM_BYTES, Source, Stdin,
};
pub use frames::{Decoder, FDS_MAX, MESSAGE_MAX, encode, receive, send};
pub use process::{ProcessSpec, Rlimit, RlimitResource, User};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Only to a nursery: a further shim, whose first client is at the other end of the socket
    /// beside it. Of a nursery on the host's network, the shim's pod shares that; then the network
    /// namespace of the cluster comes second. Of a pod with users of its own, a descriptor may come
    /// second that is open as long as the shim lives. Answer, from the new shim on that socket: `Ready`.
    Spare(SpareSpec),
    /// Only as the first message to a new shim: which pod it is for. Answer: `Done`.
    Pod(PodSpec),
    /// The pod's network namespace. Answer: `Netns`, with the descriptor beside it.
    Netns,
    /// Prepares a container up to, but not including, its first instruction: namespaces, root,
    /// mounts, log. Answer: `Created`.
    Create(ContainerSpec),
    /// Runs a created container's process. Answer: `Started`.
    Start {
        /// The container.
        id: String,
        /// What it runs.
        process: ProcessSpec,
    },
    /// A signal to a container's first process. Answer: `Done`.
    Signal {
        /// The container.
        id: String,
        /// Its number, see signal(7).
        signal: i32,
    },
    /// A signal now, and SIGKILL for the whole container after the grace period; a second stop can
    /// only bring the end nearer. Answer: `Done` at once; the end comes as an exit.
    Stop {
        /// The container.
        id: String,
        /// Its number, see signal(7): usually SIGTERM.
        signal: i32,
        /// How long the container has, in milliseconds. 0 is SIGKILL at once.
        grace_ms: u64,
    },
    /// Forgets a container that has exited, with its files. Answer: `Done`.
    Remove {
        /// The container.
        id: String,
    },
    /// Runs a process in a running container. Beside it: its standard input, output and error,
    /// unless `output_max` is given. Answer: `Executed` when it runs and `Finished` when it has
    /// ended; closing the connection before kills it.
    Exec(ExecSpec),
    /// What the shim knows. Answer: `Status`.
    Status,
    /// From now on this connection is told of every exit; those that were before come first.
    /// Answers: `Exited`, without end.
    Subscribe,
    /// The shim removes its socket and ends. Refused while a container runs. Answer: `Done`.
    Exit,
}

/// What all pods of a cluster share, so that a shim can get ready before it has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpareSpec {
    /// Folders of the host that no container may see: state and run folder.
    pub masked: Vec<PathBuf>,
    /// A folder, for instance the run folder, over which each container has its root mounted while it
    /// is made, in its own mount namespace only.
    pub place: PathBuf,
    /// Control groups for the first process of the pod's first container, so that it joins them ahead
    /// of need. They may be renamed as soon as there is `Ready`; if they are not those of that
    /// container by then, the process is not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<PathBuf>,
    /// Whether the pod shares the IPC namespace of the machine, with its message queues and shared
    /// memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_ipc: bool,
    /// The users of a pod that has a user namespace for all its containers (`hostUsers: false`), and who
    /// they are outside: only of a cluster of root's, for containers of images, with both kinds of
    /// namespaces its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<IdMap>,
}

/// Which pod a shim is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodSpec {
    /// `NAMESPACE/NAME`, for people who read `ps`.
    pub name: String,
    /// The pod's run folder: it exists, is the user's own and has mode 0700.
    pub dir: PathBuf,
    /// Host name inside; at most 64 bytes.
    pub hostname: String,
    /// Kernel parameters of the pod's own namespaces, set before it has any container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<Sysctl>,
}

/// A kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sysctl {
    /// Its name with dots or slashes, such as `net.core.somaxconn`: of the network (`net.`), of IPC
    /// (`kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.`); any other is refused.
    pub name: String,
    /// What is written.
    pub value: String,
}

/// A process to run in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// The container.
    pub id: String,
    /// What to run.
    pub process: ProcessSpec,
    /// Instead of descriptors: standard input is empty, and the first so many bytes of output and
    /// error together come with `Finished`; the rest is read and dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_max: Option<u32>,
    /// Killed after so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What the shim answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// A pod's namespaces are there. Beside it: the network namespace, or, if the pod shares the
    /// host's, the cluster's.
    Ready {
        /// The shim's process id.
        pid: u32,
    },
    /// Beside it: the network namespace, or, if the pod shares the host's, the cluster's.
    Netns,
    /// The container is prepared.
    Created {
        /// Process id of its first process, seen from the host.
        pid: u32,
    },
    /// The container runs.
    Started {
        /// Process id of its first process, seen from the host.
        pid: u32,
        /// When, RFC 3339 with nanoseconds.
        started_at: String,
    },
    /// The request is carried out.
    Done,
    /// The exec'd process runs.
    Executed {
        /// Its process id, seen from the host.
        pid: u32,
    },
    /// The exec'd process has ended.
    Finished(Finished),
    /// What the shim knows.
    Status(Status),
    /// A container has exited.
    Exited(Exit),
    /// A container or an exec'd process could not be started.
    StartFailed(StartError),
    /// The request failed.
    Failed(Failure),
}

/// How an exec'd process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    /// Exit code; 128 + signal if a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was killed because its time was up.
    pub timed_out: bool,
    /// The first bytes of its output, with anything that is not UTF-8 replaced; only with
    /// `output_max`.
    pub output: Option<String>,
}

/// What a shim knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The shim's process id.
    pub pid: u32,
    /// In the order of their creation.
    pub containers: Vec<ContainerStatus>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerStatus {
    /// The container.
    pub id: String,
    /// What it does.
    pub state: State,
    /// Why its log is not complete, if it is not (a full disk).
    pub log_error: Option<String>,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    /// Prepared, not started.
    Created {
        /// Process id of its first process, seen from the host.
        pid: u32,
    },
    /// Running.
    Running {
        /// Process id of its first process, seen from the host.
        pid: u32,
        /// When, RFC 3339 with nanoseconds.
        started_at: String,
    },
    /// Ended.
    Exited(Exit),
}

/// How a container ended. The same in its `.exit` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    /// The container.
    pub id: String,
    /// Exit code; 128 + signal if a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When it was started, RFC 3339 with nanoseconds; `None` if it never was.
    pub started_at: Option<String>,
    /// When it ended, RFC 3339 with nanoseconds.
    pub finished_at: String,
    /// Whether the kernel killed a process of it for want of memory; `None` without a control group
    /// that tells.
    pub oom_killed: Option<bool>,
}

/// Why a container or process could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct StartError {
    /// At which step.
    pub stage: Stage,
    /// The system's error number, 0 if there was none.
    pub errno: i32,
    /// For people, in the words container runtimes use where they have some.
    pub message: String,
}

/// A step of starting a container, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The specification contradicts itself.
    Spec,
    /// The log file.
    Log,
    /// The new process.
    Fork,
    /// Joining the control groups.
    Cgroups,
    /// Joining the pod's namespaces.
    Namespaces,
    /// The container's root.
    Root,
    /// One of the mounts.
    Mount,
    /// Going into the new root.
    Pivot,
    /// Limits, user, groups, capabilities.
    Privileges,
    /// The working directory.
    Cwd,
    /// Running the program.
    Exec,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The cause, for callers that act on it.
    pub kind: FailureKind,
    /// The system's error number, 0 if there was none.
    pub errno: i32,
    /// For people.
    pub message: String,
}

/// What a caller can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// There is no such container.
    NotFound,
    /// There is one with this id already.
    AlreadyExists,
    /// The container is not in the state the request needs.
    WrongState,
    /// Another shim is there for the pod.
    AnotherShim,
    /// The request makes no sense here or now.
    BadRequest,
    /// Anything else the system said: see `errno`.
    Other,
}
