//! Faults on purpose: an object [`Fault`] says what goes wrong with whom and for how long; the controller
//! here chooses the pods, does it, says so in status and Events, and undoes it.
//!
//! What is done is a function of the objects ([`decide`]), so whoever comes after a kill -9 goes on where
//! the last one was. Who does it is [`Machine`]: this crate touches no process and no network.

mod controller;
mod decide;
mod fault;
mod target;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    time::Duration,
};

use client::{Caches, Client};
use futures_util::future::BoxFuture;
use runtime::{Clock, Tasks};

pub use fault::{
    Action, Fault, Fill, Lease, Network, Phase, PodId, Spec, Status, Target, TargetKind,
};

/// What is done to the processes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// They end, as if by a crash.
    Kill,
    /// They stop.
    Pause,
    /// They go on.
    Resume,
}

impl Signal {
    fn verb(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// How a node is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Its pods run on, but nobody hears of it.
    Silent,
    /// As by a power loss: its pods end as well.
    Dead,
}

/// What is wrong with traffic to some pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Disturbance {
    /// Addresses of the pods.
    pub to: BTreeSet<Ipv4Addr>,
    /// Addresses of the pods that the traffic comes from; from everybody if it is none.
    pub from: Option<BTreeSet<Ipv4Addr>>,
    /// What becomes of it.
    pub impairment: Impairment,
}

/// What becomes of traffic.
#[derive(Clone, Debug, PartialEq)]
pub enum Impairment {
    /// Nothing passes, in either direction.
    Cut,
    /// Packets towards the pods are late, lost, slowed or spoiled.
    Shape(Shape),
}

/// What becomes of packets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// How late they are.
    pub delay: Duration,
    /// By how much the delay differs at most.
    pub jitter: Duration,
    /// Which part of them, from 0 to 1, never arrives.
    pub loss: f64,
    /// Which part arrives twice.
    pub duplicate: f64,
    /// Which part arrives with a wrong byte.
    pub corrupt: f64,
    /// How many bytes of them arrive at most.
    pub bytes_per_second: Option<u64>,
}

/// Whoever carries faults out. Each step may be repeated.
pub trait Machine: fmt::Debug + Send + Sync {
    /// Does that to all processes of a pod's containers. Fine if the pod has none.
    fn signal<'a>(&'a self, pod: &'a PodId, signal: Signal) -> BoxFuture<'a, anyhow::Result<()>>;

    /// Disturbs traffic so, and no other.
    fn disturb(&self, all: Vec<Disturbance>) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Loses these nodes, and no others.
    fn lose(&self, nodes: BTreeMap<String, Loss>) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Fills a volume of a pod with this many bytes.
    fn fill<'a>(
        &'a self,
        pod: &'a PodId,
        volume: &'a str,
        bytes: u64,
    ) -> BoxFuture<'a, anyhow::Result<()>>;

    /// Takes away what [`Self::fill`] wrote. Fine if there is nothing.
    fn empty<'a>(&'a self, pod: &'a PodId, volume: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// Starts the controller in `tasks`.
pub fn run(
    machine: std::sync::Arc<dyn Machine>,
    caches: &Caches,
    client: &Client,
    clock: Clock,
    tasks: &Tasks,
) {
    controller::start(machine, caches, client, clock, tasks);
}
