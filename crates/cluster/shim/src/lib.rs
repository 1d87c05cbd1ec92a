//! The shim: one process per pod, parent of the pod's containers. It makes the pod's network, IPC
//! and UTS namespaces, starts containers, pumps their output into log files, runs processes in
//! them, and keeps exit codes, so that pods go on whatever happens to the cluster process.
//!
//! It lives in the cluster's user, mount and network namespaces, has one thread, and knows nothing
//! of Kubernetes beyond the words of its messages: no restart policy, no probes, no volumes other
//! than paths. When it is killed, its containers are killed with it.
//!
//! `coracle shim` runs [`main`], the [`Nursery`] that shims are forked from; everybody else uses that,
//! [`Client`] and the files of a pod's run folder ([`exits`], [`live`], [`leftovers`]).

pub mod wire;

mod cgroups;
mod channel;
mod child;
mod client;
mod connection;
mod container;
mod draft;
mod exec;
mod files;
mod inside;
mod leftovers;
mod log;
mod nursery;
mod pod;
mod process;
mod seal;
mod server;
mod shim;
mod spawn;
mod stragglers;
mod streams;
mod sys;
mod time;
mod title;
mod users;

pub use client::{Client, Error, Started, connect};
pub use files::{Live, exits, first_process, live};
pub use leftovers::{Leftover, LeftoversError, leftovers};
pub use log::{FILE_BYTES_MAX as LOG_FILE_BYTES_MAX, FILES_MAX as LOG_FILES_MAX};
pub use pod::{SysctlScope, sysctl_scope};
pub use server::main;
pub use spawn::{Nursery, NurseryCommand, Process};
