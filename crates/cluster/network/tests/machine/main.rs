//! The network in real namespaces: two pods, a cluster and a host, each a network namespace.
//!
//! Nothing outside those namespaces is touched.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test program, which clippy does not know for one without #[test]"
)]

mod sys;

mod api;
mod holder;
mod namespace;
mod world;

mod balancers;
mod cuts;
mod faults_six;
mod host_ports;
mod host_routes;
mod near;
mod outside;
mod outside_six;
mod pods;
mod policies;
mod policies_six;
mod restart;
mod routing;
mod shaping;
mod six;

use std::{path::Path, process::ExitCode};

/// A test: its name and what it does, in the namespace of the cluster.
type Test = (&'static str, fn());

/// Every module's tests.
const TESTS: &[&[Test]] = &[
    pods::TESTS,
    restart::TESTS,
    routing::TESTS,
    balancers::TESTS,
    near::TESTS,
    host_ports::TESTS,
    outside::TESTS,
    outside_six::TESTS,
    host_routes::TESTS,
    policies::TESTS,
    policies_six::TESTS,
    cuts::TESTS,
    shaping::TESTS,
    faults_six::TESTS,
    six::TESTS,
];

fn main() -> ExitCode {
    let names: Vec<&str> = TESTS.iter().copied().flatten().map(|it| it.0).collect();
    scenarios::main(&names, test)
}

fn test(name: &str, folder: &Path) {
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let (_, test) = TESTS.iter().copied().flatten().find(|it| name == it.0).unwrap();
    world::set_folder(folder);
    namespace::enter_new();
    test();
}
