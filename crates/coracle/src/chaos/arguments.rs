//! What people type, as a fault.

use ::chaos::{Action, Fill, Network, Spec, Target};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use client::Client;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::target;
use crate::cli::Format;

/// What a TARGET is, for every command's help.
const TARGET: &str = "pod/NAME, deployment/NAME, service/NAME, node/NAME, or labels such as app=web; \
    several names with commas between them";

/// Arguments of `chaos`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChaosArguments {
    #[command(subcommand)]
    pub(super) command: Command,
    /// Namespace of pods, Deployments and Services.
    #[arg(short, long, global = true, default_value = "default")]
    pub(super) namespace: String,
    /// Name of the fault; one is found if it is not given.
    #[arg(long = "as", global = true, value_name = "NAME")]
    pub(super) fault_name: Option<String>,
}

/// What goes wrong.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Kill the processes of pods, or lose nodes as by a power cut.
    Kill {
        #[arg(help = TARGET)]
        target: String,
        /// How many of the pods, taken by chance; all of them if not given.
        #[arg(long)]
        count: Option<i32>,
        #[command(flatten)]
        time: Time,
    },
    /// Stop the processes of pods or nodes as they stand.
    Pause {
        #[arg(help = TARGET)]
        target: String,
        /// How many of the pods, taken by chance; all of them if not given.
        #[arg(long)]
        count: Option<i32>,
        #[command(flatten)]
        time: Time,
    },
    /// Let nothing pass between pods and others, or between nodes and the rest.
    Partition {
        #[command(flatten)]
        sides: Sides,
        #[command(flatten)]
        time: Time,
    },
    /// Let packets to pods be late.
    Delay {
        #[command(flatten)]
        sides: Sides,
        /// How late, such as 100ms.
        by: String,
        /// By how much that differs at most.
        #[arg(long, value_name = "TIME")]
        jitter: Option<String>,
        #[command(flatten)]
        time: Time,
    },
    /// Lose packets to pods.
    Loss {
        #[command(flatten)]
        sides: Sides,
        /// How many of a hundred, such as 10 or 0.5.
        percent: f64,
        #[command(flatten)]
        time: Time,
    },
    /// Let only so many bytes to pods pass.
    Bandwidth {
        #[command(flatten)]
        sides: Sides,
        /// How many bytes a second, such as 100Ki or 1M.
        rate: String,
        #[command(flatten)]
        time: Time,
    },
    /// Fill an emptyDir of pods.
    Fill {
        #[arg(help = TARGET)]
        target: String,
        /// Name of the volume in the pod.
        volume: String,
        /// How many bytes, such as 500Mi. At least a gigabyte of the machine's disk stays free.
        size: String,
        #[command(flatten)]
        time: Time,
    },
    /// What goes wrong on purpose, or did lately.
    List {
        /// Format of the answer.
        #[arg(short, long, default_value = "text")]
        output: Format,
    },
    /// Undo faults.
    Stop {
        /// Their names; all of them if none is given.
        faults: Vec<String>,
    },
}

/// Who is disturbed with whom.
#[derive(Clone, Debug, Args)]
pub(super) struct Sides {
    #[arg(help = TARGET)]
    target: String,
    /// Only what comes from these: a target as well.
    #[arg(long, value_name = "TARGET")]
    from: Option<String>,
}

/// How long it goes on.
#[derive(Clone, Debug, Args)]
pub(super) struct Time {
    /// For how long, such as 30s or 5m.
    #[arg(long = "for", value_name = "TIME")]
    duration: Option<String>,
    /// Return at once; it goes on until its time is over or `coracle chaos stop`. Otherwise it ends with
    /// this command.
    #[arg(short, long)]
    detach: bool,
}

/// How long a command stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Until it is done, which is at once.
    Once,
    /// Until it has begun.
    Detached,
    /// As long as it goes on, which is as long as the command.
    WhileRunning,
}

/// The fault that a command asks for.
pub(super) async fn spec(
    client: &Client,
    command: &Command,
    namespace: &str,
) -> anyhow::Result<(Spec, Hold)> {
    let (action, to, time) = match command {
        Command::Kill { target, time, .. } => (Action::Kill, target, time),
        Command::Pause { target, time, .. } => (Action::Pause, target, time),
        Command::Partition { sides, time } => (Action::Partition, &sides.target, time),
        Command::Delay { sides, time, .. }
        | Command::Loss { sides, time, .. }
        | Command::Bandwidth { sides, time, .. } => (Action::Network, &sides.target, time),
        Command::Fill { target, time, .. } => (Action::Fill, target, time),
        Command::List { .. } | Command::Stop { .. } => anyhow::bail!("this makes no fault"),
    };
    let mut spec = Spec {
        action,
        target: target::read(client, to, namespace).await.context("read the target")?,
        duration: time.duration.clone(),
        ..Spec::default()
    };
    match command {
        Command::Kill { count, .. } | Command::Pause { count, .. } => spec.count = *count,
        Command::Partition { sides, .. } => spec.from = from(client, sides, namespace).await?,
        Command::Delay { sides, by, jitter, .. } => {
            spec.from = from(client, sides, namespace).await?;
            let (delay, jitter) = (Some(by.clone()), jitter.clone());
            spec.network = Some(Network { delay, jitter, ..Network::default() });
        }
        Command::Loss { sides, percent, .. } => {
            spec.from = from(client, sides, namespace).await?;
            let loss_percent = Some(*percent);
            spec.network = Some(Network { loss_percent, ..Network::default() });
        }
        Command::Bandwidth { sides, rate, .. } => {
            spec.from = from(client, sides, namespace).await?;
            let bytes_per_second = Some(Quantity(rate.clone()));
            spec.network = Some(Network { bytes_per_second, ..Network::default() });
        }
        Command::Fill { volume, size, .. } => {
            spec.fill = Some(Fill { volume: volume.clone(), size: Quantity(size.clone()) });
        }
        Command::List { .. } | Command::Stop { .. } => {}
    }
    let once = action == Action::Kill && spec.target.kind != ::chaos::TargetKind::Node;
    let hold = match (once, time.detach) {
        (true, _) => Hold::Once,
        (false, true) => Hold::Detached,
        (false, false) => Hold::WhileRunning,
    };
    Ok((spec, hold))
}

async fn from(client: &Client, sides: &Sides, namespace: &str) -> anyhow::Result<Option<Target>> {
    let Some(from) = &sides.from else { return Ok(None) };
    let read = target::read(client, from, namespace).await;
    Ok(Some(read.context("read the target of --from")?))
}
