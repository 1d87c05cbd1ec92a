//! The command line: flags, exit codes, and which module does what.
//!
//! Exit codes: 0 done, 1 failed (the message says why), 2 unusable arguments; 3 is neither yes nor no:
//! of `status`, that the cluster does not run, and of `load judge grade`, that there is no verdict.

use std::{env, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use network::Subnet;
use regex_lite::Regex;

use crate::{
    chaos::{self, ChaosArguments},
    cluster,
    directories::{Directories, Environment},
    down, events,
    fault::{self, FaultArguments},
    image::{self, ImageArguments},
    kubeconfig, logs, open, output,
    queue::{self, QueueArguments},
    registry::{self, RegistryArguments},
    snapshot::{self, Existing},
    status, top, up,
};

/// Name of the cluster where none is given.
pub(crate) const DEFAULT_NAME: &str = "default";

/// A Kubernetes one person can carry: runs a folder of manifests on this machine.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Cluster to use; several live side by side.
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the cluster if needed, apply manifests, wait until all is ready, follow logs.
    Up(UpArguments),
    /// Stop the pods and the cluster; volumes and state stay.
    Down {
        /// Remove volumes and state too: nothing is left.
        #[arg(long)]
        delete: bool,
    },
    /// What runs, and whether it is ready.
    Status {
        /// Format of the answer.
        #[arg(short, long, default_value = "text")]
        output: Format,
        /// Go on, and show it anew whenever it changes, until Ctrl-C or the cluster's end.
        #[arg(short, long)]
        watch: bool,
    },
    /// Print the logs of pods.
    Logs(LogsArguments),
    /// List what happened lately, oldest first.
    Events {
        /// Namespace; all of them if not given.
        #[arg(short, long)]
        namespace: Option<String>,
        /// Format of the answer.
        #[arg(short, long, default_value = "text")]
        output: Format,
    },
    /// What nodes and pods use of processors and memory, the busiest first.
    Top {
        /// Namespace of the pods; all of them if not given.
        #[arg(short, long)]
        namespace: Option<String>,
        /// Format of the answer.
        #[arg(short, long, default_value = "text")]
        output: Format,
    },
    /// Open a Service, an Ingress or an HTTPRoute in the browser.
    Open {
        /// Its name, or NAMESPACE/NAME.
        object: String,
        /// Only print the address.
        #[arg(long)]
        print: bool,
    },
    /// Print what a shell needs to complete this command's arguments.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Print the administrator's kubeconfig, or merge it into the user's own.
    Kubeconfig {
        /// Add or renew the context `coracle` (`coracle-NAME`) in `$KUBECONFIG` or `~/.kube/config`
        /// and make it the current one.
        #[arg(long)]
        merge: bool,
    },
    /// Write all objects of a cluster into a file, as of one moment.
    Snapshot {
        /// The file, or `-` for standard output.
        file: PathBuf,
    },
    /// Make a cluster of a snapshot, or give a cluster that does not run its objects.
    Restore {
        /// The file, or `-` for standard input.
        file: PathBuf,
        /// Replace the objects that the cluster has.
        #[arg(long)]
        replace: bool,
    },
    /// Make another cluster with the same objects.
    Fork {
        /// Name of the new cluster.
        new: String,
    },
    /// Images of containers: get, list, remove and send them.
    Image(ImageArguments),
    /// A registry of images, for this machine: what clusters pull from and others push to.
    Registry(RegistryArguments),
    /// Load a server, and measure what its users would see.
    Load(Box<load::cli::Arguments>),
    /// Let things go wrong on purpose: kill, pause or cut off pods and nodes, delay and lose packets, fill
    /// volumes. All is undone when the command ends.
    Chaos(ChaosArguments),
    /// A TCP proxy that misbehaves on request: delays, rates, resets, black holes.
    Fault(FaultArguments),
    /// NSQ's nsqd, nsqlookupd and nsqadmin, with messages that are safe and can be replayed.
    Queue(QueueArguments),
    /// The cluster process itself; `up` starts it.
    #[command(hide = true)]
    Cluster(ClusterArguments),
}

/// A format of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Arguments of `up`.
#[derive(Clone, Debug, Args)]
pub(crate) struct UpArguments {
    /// Folder or file of manifests, or `-` for standard input; or a Procfile, or a folder with one and
    /// without manifests. Without it the cluster is started and nothing applied.
    pub(crate) path: Option<PathBuf>,
    /// Name of what belongs together; if not given, the path is. What an earlier `up` of the same applied and
    /// is no longer there is deleted. Of standard input without a name nothing is.
    #[arg(long, value_name = "NAME", value_parser = parse_part_of, requires = "path")]
    pub(crate) part_of: Option<String>,
    /// Return when all is ready instead of following logs.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// With --detach: give up waiting after this many seconds; what runs goes on running.
    #[arg(long, default_value = "300", value_parser = parse_seconds)]
    pub(crate) timeout: Duration,
    /// Run the images themselves where `coracle.yaml` links local source in their place.
    #[arg(long)]
    pub(crate) no_links: bool,
    /// How many nodes the cluster has on this machine, from 1 to 16; it keeps them until told otherwise. Also
    /// of effect on a cluster that runs: what there are too many of is drained, and goes.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) nodes: Option<u32>,
    /// How many seconds a node that is lost counts as there, a little less than what passes until it is said to be
    /// unreachable; if never given, 40, as in Kubernetes.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) node_lease: Option<u32>,
    #[command(flatten)]
    pub(crate) start: StartArguments,
}

/// How a cluster process is started; of no effect on one that runs already.
#[derive(Clone, Debug, Args)]
pub(crate) struct StartArguments {
    /// Port of 127.0.0.1 for the API; if not given, the one used last, else 6443 or the next free.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// When a write is acknowledged: `disk` after it was flushed to the disk, `process` after it was
    /// handed to the kernel (survives kill -9, not a power cut).
    #[arg(long, default_value = "disk")]
    pub(crate) durability: Durability,
    /// Range of the pods' addresses, such as 10.244.0.0/16, of a cluster that is made; if not given, one
    /// that the host has no route to.
    #[arg(long)]
    pub(crate) pod_cidr: Option<Subnet>,
    /// Range of the Services' addresses, such as 10.96.0.0/16, of a cluster that is made; if not given, one
    /// that the host has no route to.
    #[arg(long)]
    pub(crate) service_cidr: Option<Subnet>,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// After it was flushed to the disk.
    Disk,
    /// After it was handed to the kernel.
    Process,
}

/// Arguments of `logs`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArguments {
    /// Only pods whose name begins so; all pods if not given.
    pub(crate) prefix: Option<String>,
    /// Namespace; all of them if not given.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Go on with what comes.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only this many lines from the end of each container's log.
    #[arg(long)]
    pub(crate) tail: Option<u32>,
    /// Only what is younger: a number of seconds, or a time such as 10m or 1h30m.
    #[arg(long, value_parser = parse_age)]
    pub(crate) since: Option<Duration>,
    /// Only lines in which this regular expression is found.
    #[arg(short, long)]
    pub(crate) grep: Option<Regex>,
    /// On a terminal, too, show lines of JSON as they are.
    #[arg(long)]
    pub(crate) raw: bool,
}

/// Variables of the invoking user that linked programs get: who they are, and where their tools lie.
const INHERITED: [&str; 7] = ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "USER"];

/// What says how registries are reached: where credentials are (containers-auth.json(5), Docker's
/// `config.json`) and through which proxy.
const REGISTRIES: &[&str] = &[
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "REGISTRY_AUTH_FILE",
    "DOCKER_CONFIG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Arguments of the cluster process.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterArguments {
    #[command(flatten)]
    pub(crate) start: StartArguments,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).map_err(|error| format!("`{text}`: {error}"))
}

fn parse_age(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    let age = seconds.or_else(|| api::duration::parse(text));
    age.ok_or_else(|| format!("`{text}` is no time, such as 90, 10m or 1h30m"))
}

/// Longest name of what belongs together: it becomes part of an object's name.
const PART_OF_MAX: usize = 63;

fn parse_part_of(text: &str) -> Result<String, String> {
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    let ends = text.starts_with('-') || text.ends_with('-');
    if text.is_empty() || text.len() > PART_OF_MAX || ends || !text.bytes().all(plain) {
        return Err(format!(
            "`{text}`: up to {PART_OF_MAX} lower-case letters, digits and `-` within"
        ));
    }
    Ok(text.to_owned())
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let environment = read_environment();
    let done = Directories::resolve(&cli.name, &environment)
        .and_then(|directories| run(cli.command, &directories, &environment));
    match done {
        Ok(code) => code,
        // A reader such as `head` has heard enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => output::failure(&error),
    }
}

fn run(
    command: Command,
    directories: &Directories,
    environment: &Environment,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(arguments) => up::run(directories, &arguments),
        Command::Down { delete } => {
            down::run(directories, delete)?;
            if delete {
                kubeconfig::unmerge(directories, &environment.user_kubeconfig())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Status { output, watch } => status::run(directories, output, watch),
        Command::Logs(arguments) => logs::run(directories, &arguments),
        Command::Events { namespace, output } => {
            events::run(directories, namespace.as_deref(), output)
        }
        Command::Top { namespace, output } => top::run(directories, namespace.as_deref(), output),
        Command::Open { object, print } => open::run(directories, &object, print),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "coracle", &mut script);
            std::io::stdout().lock().write_all(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Kubeconfig { merge } => {
            let user = environment.user_kubeconfig();
            kubeconfig::run(directories, merge.then_some(user.as_deref()))
        }
        Command::Snapshot { file } => snapshot::save(directories, &file),
        Command::Restore { file, replace } => {
            let existing = if replace { Existing::Replace } else { Existing::Refuse };
            snapshot::restore(directories, &file, existing)
        }
        Command::Fork { new } => {
            snapshot::fork(directories, &Directories::resolve(&new, environment)?)
        }
        Command::Image(arguments) => image::run(&arguments, directories, environment),
        Command::Registry(arguments) => registry::run(&arguments, directories),
        Command::Load(arguments) => load::cli::run(&arguments),
        Command::Chaos(arguments) => chaos::run(directories, &arguments),
        Command::Fault(arguments) => fault::run(&arguments),
        Command::Queue(arguments) => Ok(queue::run(&arguments)),
        Command::Cluster(arguments) => cluster::main(directories, &arguments, environment),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |it: &std::io::Error| it.kind() == std::io::ErrorKind::BrokenPipe;
    error.downcast_ref::<std::io::Error>().is_some_and(broken)
}

/// Reads what of the environment matters here.
pub(crate) fn read_environment() -> Environment {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let text = |key: &str| env::var(key).ok().filter(|it| !it.is_empty());
    let path = |key: &str| text(key).map(PathBuf::from);
    Environment {
        data_home: path("XDG_DATA_HOME"),
        runtime_dir: path("XDG_RUNTIME_DIR"),
        home: path("HOME"),
        kubeconfig: path("KUBECONFIG"),
        inherited: INHERITED.iter().filter_map(|it| Some(((*it).to_owned(), text(it)?))).collect(),
        registries: REGISTRIES
            .iter()
            .filter_map(|it| Some(((*it).to_owned(), text(it)?)))
            .collect(),
        time: text("SOURCE_DATE_EPOCH").and_then(|it| it.parse().ok()),
        uid: rustix::process::geteuid().as_raw(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
