//! The controllers of the cluster: each a module that observes, decides and acts on one kind.
//!
//! They are ordinary API clients, and would work as well against another API server. What a
//! controller does is decided in a pure function, in the file `decide.rs` of its module.

mod owner;
mod pod;

mod deployment;
mod replica_set;

mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;

mod node_lifecycle;
mod taint_eviction;

mod namespace;
mod root_ca;
mod service_account;

mod discovery;
mod garbage;

use client::{Caches, Client, Events};
use runtime::{Clock, Tasks};

/// What the controllers need to know beside the API.
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificates (PEM) by which pods can trust the API server: every namespace gets them as the
    /// ConfigMap `kube-root-ca.crt`.
    pub root_ca: String,
    /// Time of day.
    pub clock: Clock,
}

/// Starts all controllers in `tasks`, which stop them. They read through `caches` and write
/// through `client`; a restart needs nothing but another call.
pub fn run(config: Config, caches: &Caches, client: &Client, tasks: &Tasks) {
    let Config { root_ca, clock } = config;
    let controller =
        Controller { client: client.clone(), caches: caches.clone(), tasks: tasks.clone(), clock };
    deployment::start(&controller);
    replica_set::start(&controller);
    endpoint_slice::start(&controller);
    endpoints::start(&controller);
    endpoint_slice_mirroring::start(&controller);
    node_lifecycle::start(&controller);
    taint_eviction::start(&controller);
    service_account::start(&controller);
    root_ca::start(&controller, root_ca);
    namespace::start(&controller);
    garbage::start(&controller);
}

/// What every controller works with.
#[derive(Clone)]
struct Controller {
    client: Client,
    caches: Caches,
    tasks: Tasks,
    clock: Clock,
}

impl Controller {
    /// A recorder of events that come from `component`, a name of the original's.
    fn events(&self, component: &'static str) -> Events {
        Events::new(self.client.clone(), component, "", self.clock.clone(), &self.tasks)
    }
}
