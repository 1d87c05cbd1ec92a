//! `cargo xtask soak`: the tests that throw dice, with many more dice than `cargo xtask test` throws.
//! Here is only how many; what is thrown, and how a failure is reproduced, is written in the tests.
//!
//! Each part stops at its first failure, and prints what reproduces it: the name of a history of
//! kills, a seed of a power cut, the smallest input of a property. `SOAK=5000` asks for so many of
//! everything instead of a thousand; `CORACLE` names a binary to kill that is built already.
//!
//! One part throws no dice, and is here as it takes minutes: `v2`, a few tests in a virtual machine.

mod virtual_machine;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{bench, check, process, tools};

/// Kills and power cuts, if nothing else is asked for.
const COUNT: u32 = 1_000;
/// Inputs of a property, for each kill: they are quick.
const INPUTS_PER_KILL: u32 = 5;

/// Inputs of a property of the API, for each kill: they need no server, and so are quicker still.
const PURE_INPUTS_PER_KILL: u32 = 50;

/// One part: its name for the command line, and what it does.
struct Part {
    name: &'static str,
    run: fn(&Soak<'_>) -> anyhow::Result<()>,
}

const PARTS: &[Part] = &[
    Part { name: "kills", run: kills },
    Part { name: "power", run: power },
    Part { name: "store", run: store },
    Part { name: "fuzz", run: fuzz },
    Part { name: "connections", run: connections },
    Part { name: "pods", run: pods },
    Part { name: "v2", run: v2 },
];

/// Idle connections of the API whose both ends are in one process, which may have 20 000 files open.
const CONNECTIONS: u32 = 9_500;

struct Soak<'a> {
    root: &'a Path,
    count: u32,
}

/// Runs the parts called `names`, or all.
pub(crate) fn run(root: &Path, names: &[&str]) -> anyhow::Result<()> {
    if let Some(unknown) = names.iter().find(|name| PARTS.iter().all(|it| it.name != **name)) {
        let known: Vec<&str> = PARTS.iter().map(|it| it.name).collect();
        bail!("no part `{unknown}`; there are: {}", known.join(", "));
    }
    let count = match std::env::var_os("SOAK") {
        None => COUNT,
        Some(it) => it.to_str().and_then(|it| it.parse().ok()).context("SOAK is no number")?,
    };
    let soak = Soak { root, count };
    let mut failed = Vec::new();
    for part in PARTS.iter().filter(|it| names.is_empty() || names.contains(&it.name)) {
        println!("\n=== {}", part.name);
        let (done, time) = timed(|| (part.run)(&soak));
        let verdict = if done.is_ok() { "passed" } else { "FAILED" };
        println!("=== {} {verdict} in {:.1} s", part.name, time.as_secs_f64());
        if let Err(error) = done {
            println!("{error:#}");
            failed.push(part.name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "times chores, where no test sets the clock")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

/// The API with as many idle connections as a test can have.
fn connections(soak: &Soak<'_>) -> anyhow::Result<()> {
    let mut command = soak.test(&["--package", "coracle-apiserver", "--lib", "--"]);
    command.args(["tests::slow::idle_connections", "--nocapture"]);
    process::run(command.env("CONNECTIONS", CONNECTIONS.to_string()))
}

/// As many idle pods as the node takes, and what they take.
fn pods(soak: &Soak<'_>) -> anyhow::Result<()> {
    bench::run(soak.root, &["--only", "most"])
}

/// The queue as a real process, killed under load; and the tests of ten thousand clients.
fn kills(soak: &Soak<'_>) -> anyhow::Result<()> {
    let (package, test) = check::KILLS;
    let mut command = soak.test(&["--package", package, "--test", test]);
    command.env("CORACLE", soak.coracle()?).env("QUEUE_KILLS", soak.count.to_string());
    process::run(&mut command)
}

/// The queue on a simulated disk that loses power: the whole broker, its log and its journal.
fn power(soak: &Soak<'_>) -> anyhow::Result<()> {
    let mut command = soak.test(&["--package", "coracle-queue", "--lib", "--"]);
    command.args(["broker::crash", "log::tests::model", "journal::tests", "--nocapture"]);
    let count = soak.count.to_string();
    process::run(command.env("QUEUE_CRASHES", &count).env("PROPTEST_CASES", &count))
}

/// The apiserver's store in the same way.
fn store(soak: &Soak<'_>) -> anyhow::Result<()> {
    let mut command = soak.test(&["--package", "coracle-store"]);
    process::run(command.env("PROPTEST_CASES", soak.count.to_string()))
}

/// Every frame, request and file of the queue, changed in all ways; and every body, patch, selector and
/// object of the API.
fn fuzz(soak: &Soak<'_>) -> anyhow::Result<()> {
    // Without the power cuts, which are a part of their own.
    let mut command =
        soak.test(&["--package", "coracle-queue", "--", "--skip", "log::tests::model"]);
    let inputs = soak.count.saturating_mul(INPUTS_PER_KILL);
    process::run(command.env("PROPTEST_CASES", inputs.to_string()))?;
    let mut command = soak.test(&["--package", "coracle-apiserver", "--lib", "--", "fuzz::"]);
    let inputs = soak.count.saturating_mul(PURE_INPUTS_PER_KILL);
    process::run(command.env("PROPTEST_CASES", inputs.to_string()))
}

/// Of the tests of the machine, those that have to do with control groups, one of the rest, and those that
/// need AppArmor, reflinks or a machine of their own.
const ON_V2: [&str; 9] = [
    "limits_are_enforced",
    "usage_is_told",
    "processes_make_room",
    "only_delegated_controllers",
    "containers_that_take_all_are_bounded",
    "nothing_is_left_after_killing_everything",
    "profiles_confine_containers",
    "copies_share_their_bytes",
    "users_that_",
];

/// In a virtual machine whose control groups are of version 2 only.
fn v2(soak: &Soak<'_>) -> anyhow::Result<()> {
    tools::debian(&virtual_machine::NEEDED)?;
    let (package, test) = check::MACHINE;
    let mut build = soak.test(&["--no-run", "--package", package, "--test", test]);
    let built = process::build(&mut build)?.into_iter().find(|it| it.name == test);
    let machine = built.context("cargo built no test")?.path;
    let kubectl = tools::install(soak.root)?.join("kubectl");
    let programs: [(&str, &Path); 3] =
        [("coracle", &soak.coracle()?), ("kubectl", &kubectl), ("machine", &machine)];
    let folder = tempfile::tempdir().context("create a folder for the virtual machine")?;
    let mut command = virtual_machine::command(soak.root, folder.path(), &programs, &ON_V2)?;
    let mut child = command.stdout(Stdio::piped()).spawn().context("start the virtual machine")?;
    let output = child.stdout.take().context("output of the virtual machine")?;
    let mut ended = None;
    for line in BufReader::new(output).lines() {
        let line = line.context("read the output of the virtual machine")?;
        println!("{}", line.trim_end());
        ended = ended.or(line.trim_end().strip_prefix(virtual_machine::ENDED).map(str::to_owned));
    }
    let status = child.wait().context("wait for the virtual machine")?;
    match ended.as_deref() {
        Some("0") => Ok(()),
        Some(_) => bail!("tests in the virtual machine failed"),
        None => bail!("the virtual machine ended before its tests, with {status}"),
    }
}

impl Soak<'_> {
    fn coracle(&self) -> anyhow::Result<PathBuf> {
        match std::env::var_os("CORACLE") {
            Some(built) => Ok(PathBuf::from(built)),
            None => process::build_coracle(self.root),
        }
    }

    fn test(&self, arguments: &[&str]) -> Command {
        let mut command = process::cargo(self.root);
        command.args(["test", "--quiet", "--locked"]).args(arguments);
        command
    }
}
