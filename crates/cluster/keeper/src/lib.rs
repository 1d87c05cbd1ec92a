//! The keeper: a process on the host's side of a cluster that makes and holds the cluster's user,
//! mount and network namespaces, and opens sockets on the host for processes inside them.
//!
//! It does almost nothing, for ever, so that it can outlive everything else: one thread, one
//! `poll`, no configuration beyond a folder. When it dies nothing stops: the cluster process makes
//! a *standby* the next keeper and hands it the namespaces. When all of them are dead, whoever
//! starts the next keeper names a process that lives in the namespaces: the cluster process or a
//! shim. It knows nothing of Kubernetes, nor what happens inside the namespaces.
//!
//! `coracle keeper` runs [`main`]; everybody else uses [`spawn`], [`Client`], [`Standby`] and
//! [`enter`].

pub mod wire;

mod client;
mod enter;
mod explain;
mod inside;
mod make;
mod own;
mod server;
mod sockets;
mod spawn;
mod standby;
mod subordinate;
mod sys;

pub use client::{Client, Error, Standby};
pub use enter::{EnterError, Namespaces, enter};
pub use own::{OwnError, enter_own};
pub use server::main;
pub use spawn::{Process, Spawn, SpawnError, spawn};
pub use wire::{Failure, FailureKind};
