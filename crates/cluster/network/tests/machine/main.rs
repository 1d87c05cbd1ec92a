//! The network in real namespaces: two pods, a cluster and a host, each a network namespace.
//!
//! Every test runs in a process of its own, as the user who runs the tests and, if that is root,
//! also as an ordinary one. Nothing outside those namespaces is touched.
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
mod namespace;
mod world;

mod outside;
mod pods;
mod restart;
mod routing;

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use libtest_mimic::{Arguments, Failed, Trial};

/// A test: its name and what it does, in the namespace of the cluster.
type Test = (&'static str, fn());

/// Every module's tests.
const TESTS: &[&[Test]] = &[pods::TESTS, restart::TESTS, routing::TESTS, outside::TESTS];

/// User and group `nobody` and `nogroup`.
const NOBODY: u32 = 65534;

/// First argument of the process that runs one test.
const CHILD: &str = "run-in-namespaces";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, name] = arguments.as_slice()
        && first == CHILD
    {
        let test = TESTS.iter().copied().flatten().find(|(it, _)| it == name);
        tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
        namespace::enter_new();
        test.unwrap().1();
        return ExitCode::SUCCESS;
    }
    let is_root = rustix::process::geteuid().is_root();
    let mut trials = Vec::new();
    for &(name, _) in TESTS.iter().copied().flatten() {
        if is_root {
            trials.push(Trial::test(format!("{name}_as_root"), move || run(name, None)));
        }
        let user = is_root.then_some(NOBODY);
        trials.push(Trial::test(format!("{name}_as_user"), move || run(name, user)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn run(name: &str, user: Option<u32>) -> Result<(), Failed> {
    let mut command = Command::new("/proc/self/exe");
    command.args([CHILD, name]);
    if let Some(id) = user {
        command.gid(id).uid(id);
    }
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}\n{shown}", output.status).into())
}
