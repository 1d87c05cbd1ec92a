//! The node agents: each does on this machine what a kubelet does on its own. It registers its Node,
//! drives every pod bound to it through its life, and reports. What they share is the [`Site`].
//!
//! Containers are the shims' children and outlive this process; whoever comes next adopts them.
//! It knows nothing of services beyond their variables, chooses no pods, and talks to nobody but the
//! API, the shims and [`PodNetwork`].

mod site;

mod agent;
mod handle;

mod cgroups;
mod context;
mod fill;
mod floods;
mod forks;
mod ids;
mod machine;
mod news;
mod processes;
mod references;
mod register;
mod roots;
mod spares;
mod usage;

mod pod;

mod environment;
mod files;
mod images;
mod links;
mod logs;
mod probe;
mod quantity;
mod seccomp;
mod volumes;

pub use agent::Agent;
pub use cgroups::remove_cgroups;
pub use context::{HostProcesses, PodAddress, PodNetwork};
pub use files::{Dns, HostResolver};
pub use fill::FillError;
pub use handle::Handle;
pub use ids::sweep as sweep_ids;
pub use logs::{LogOptions, LogsError};
pub use processes::{SignalError, Signalled};
pub use roots::no_overlays;
pub use seccomp::{Error as SeccompError, default_program as default_seccomp};
pub use site::{BuildError, Config, Division, NodeConfig, Peers, Site};
pub use usage::{PodUsage, Usage, Used};
