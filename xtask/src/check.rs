//! `cargo xtask test`: everything that must hold before a change is taken, in named and timed
//! steps that stop at the first failure. What a step checks is written where it is checked; here
//! is only what is run, with which programs, as which user.

pub(crate) mod as_user;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{
    process, tidy,
    tools::{self, Api, Queue, Toxiproxy},
};

/// One step: its name for the command line, and what it does.
struct Step {
    name: &'static str,
    run: fn(&mut Run<'_>) -> anyhow::Result<()>,
}

/// All steps, the quick ones first.
const STEPS: &[Step] = &[
    Step { name: "format", run: format },
    Step { name: "tidy", run: |run| tidy::check(run.root) },
    Step { name: "dependencies", run: dependencies },
    Step { name: "clippy", run: clippy },
    Step { name: "unit", run: unit },
    Step { name: "build", run: |run| run.coracle().map(drop) },
    Step { name: "example", run: example },
    Step { name: "load", run: load },
    Step { name: "fault", run: fault },
    Step { name: "queue", run: queue },
    Step { name: "images", run: images },
    Step { name: "clients", run: clients },
    Step { name: "api", run: api },
    Step { name: "machine", run: machine },
    Step { name: "clients-as-user", run: clients_as_user },
    Step { name: "machine-as-user", run: machine_as_user },
];

/// Workspaces of their own: examples, which a user copies away.
const EXAMPLES: [&str; 2] = [SENSORS, "examples/sensors/2-queue"];
const EXAMPLES_FOLDER: &str = "examples/sensors";
/// The one that the machine tests run.
const SENSORS: &str = "examples/sensors/1-http";
/// One more: a client of the queue, whose dependencies are not ours. It is not linted: to check them all
/// takes as long as to build them.
const QUEUE_CLIENT: &str = "tests/clients/queue/tokio-nsq";
/// Tests that need the built binary: package and test. They are no part of `cargo test`.
const WHOLE: [(&str, &str); 9] =
    [CLIENTS, KUSTOMIZE, API, TOXIPROXY, QUEUE, IMAGES, KILLS, MACHINE, GRADED];
const CLIENTS: (&str, &str) = ("coracle-clients", "scripts");
/// Kustomizations beside kubectl's own.
const KUSTOMIZE: (&str, &str) = ("coracle-clients", "kustomize");
const API: (&str, &str) = ("coracle-clients", "api");
/// The program with the tests of a Rust client.
const KUBE_RS: &str = "coracle_kube_rs";
const TOXIPROXY: (&str, &str) = ("coracle-clients", "toxiproxy");
const QUEUE: (&str, &str) = ("coracle-clients", "queue");
const IMAGES: (&str, &str) = ("coracle-clients", "images");
pub(crate) const KILLS: (&str, &str) = ("coracle-machine", "kills");
pub(crate) const MACHINE: (&str, &str) = ("coracle-machine", "machine");
const GRADED: (&str, &str) = ("coracle-graded", "graded");

/// What the steps share.
struct Run<'a> {
    root: &'a Path,
    coracle: Option<PathBuf>,
    passed: u64,
    failed: u64,
}

/// Runs the steps called `names`, or all.
pub(crate) fn run(root: &Path, names: &[&str]) -> anyhow::Result<()> {
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|it| it.name != **name)) {
        let known: Vec<&str> = STEPS.iter().map(|it| it.name).collect();
        bail!("no step `{unknown}`; there are: {}", known.join(", "));
    }
    let mut run = Run { root, coracle: None, passed: 0, failed: 0 };
    let (mut times, mut outcome) = (Vec::new(), Ok(()));
    for step in STEPS.iter().filter(|it| names.is_empty() || names.contains(&it.name)) {
        println!("\n=== {}", step.name);
        let (done, time) = timed(|| (step.run)(&mut run));
        println!("=== {} {} in {:.1} s", step.name, verdict(&done), time.as_secs_f64());
        times.push((step.name, time));
        if done.is_err() {
            outcome = done.with_context(|| format!("step `{}`", step.name));
            break;
        }
    }
    report(&run, &times, &outcome);
    outcome
}

/// The last lines: where the time went, and the sum of all tests as `cargo test` words it.
fn report(run: &Run<'_>, times: &[(&str, Duration)], outcome: &anyhow::Result<()>) {
    println!();
    for (name, time) in times {
        println!("{name:<16} {:>7.1} s", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    let result = if outcome.is_ok() { "ok" } else { "FAILED" };
    // A step that ends before its tests report, or has none, counts as one.
    let failed = if outcome.is_err() { run.failed.max(1) } else { run.failed };
    println!(
        "\ntest result: {result}. {} passed; {failed} failed; 0 ignored; 0 measured; \
         0 filtered out; finished in {:.2}s",
        run.passed,
        total.as_secs_f64(),
    );
}

#[expect(clippy::disallowed_methods, reason = "times chores, where no test sets the clock")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

fn verdict(done: &anyhow::Result<()>) -> &'static str {
    if done.is_ok() { "passed" } else { "FAILED" }
}

fn format(run: &mut Run<'_>) -> anyhow::Result<()> {
    process::run(process::cargo(run.root).args(["fmt", "--all", "--check"]))?;
    for alone in EXAMPLES.iter().chain([&QUEUE_CLIENT]) {
        process::run(process::cargo(&run.root.join(alone)).args(["fmt", "--check"]))?;
    }
    Ok(())
}

/// Licences, duplicates and sources of all dependencies. Not advisories: those would fail a change
/// that has nothing to do with them.
fn dependencies(run: &mut Run<'_>) -> anyhow::Result<()> {
    let mut command = Command::new(tools::install(run.root)?.join("cargo-deny"));
    command.current_dir(run.root).args(["--log-level=error", "--locked", "check"]);
    process::run(command.args(["bans", "licenses", "sources"]))
}

fn clippy(run: &mut Run<'_>) -> anyhow::Result<()> {
    let mut command = process::cargo(run.root);
    command.args(["clippy", "--quiet", "--locked", "--workspace", "--all-targets"]);
    process::run(command.args(["--", "--deny=warnings"]))?;
    for (package, test) in WHOLE {
        let mut command = process::cargo(run.root);
        command.args(["clippy", "--quiet", "--locked", "--package", package, "--test", test]);
        process::run(command.args(["--", "--deny=warnings"]))?;
    }
    for example in EXAMPLES {
        let mut command = process::cargo(&run.root.join(example));
        command.args(["clippy", "--quiet", "--locked", "--all-targets"]);
        // An example keeps clippy's own rules: what clippy.toml bans here is no user's concern.
        command.env("CLIPPY_CONF_DIR", "/");
        process::run(command.args(["--", "--deny=warnings"]))?;
    }
    Ok(())
}

/// What scenarios and tests of the machine run in their containers and use: packages of Debian, and their
/// programs.
const SCENARIOS: [(&str, &str); 2] = [("busybox-static", "busybox"), ("uidmap", "newuidmap")];

/// What asks as a user would, beside kubectl.
const ASKERS: [(&str, &str); 2] = [("curl", "curl"), ("openssl", "openssl")];

/// The fast tests: no binary, no other user, no network.
fn unit(run: &mut Run<'_>) -> anyhow::Result<()> {
    tools::debian(&SCENARIOS)?;
    let mut command = process::cargo(run.root);
    run.test(command.args(["test", "--quiet", "--locked", "--workspace", "--no-fail-fast"]))
}

/// The examples' own tests, which may start programs of the binary, and their build.
fn example(run: &mut Run<'_>) -> anyhow::Result<()> {
    let coracle = run.coracle()?;
    for example in EXAMPLES {
        let mut command = process::cargo(&run.root.join(example));
        command.env("CORACLE", &coracle);
        run.test(command.args(["test", "--quiet", "--locked"]))?;
        build_example(&run.root.join(example))?;
    }
    Ok(())
}

/// Builds an example the way its `coracle.yaml` does. Returns the folder of its programs.
fn build_example(example: &Path) -> anyhow::Result<PathBuf> {
    let mut command = process::cargo(example);
    command.args(["install", "--quiet", "--debug", "--locked", "--path", ".", "--root", "target"]);
    process::run(&mut command)?;
    Ok(example.join("target/bin"))
}

/// Builds the examples as their READMEs do it for images, but not for release. That the programs need no
/// library is what this workspace's own configuration of cargo says.
fn build_for_images(root: &Path) -> anyhow::Result<()> {
    for example in EXAMPLES {
        let mut command = process::cargo(&root.join(example));
        command.args(["install", "--quiet", "--debug", "--locked", "--path", ".", "--root"]);
        process::run(command.args(["target/static", "--target", "host-tuple"]))?;
    }
    Ok(())
}

/// The load generator graded by its judge, against the clock: one to three minutes on a machine with
/// nothing else to do, six at most.
fn load(run: &mut Run<'_>) -> anyhow::Result<()> {
    let mut command = run.whole(GRADED)?;
    run.test(&mut command)
}

/// The fault proxy's API, as Toxiproxy's own clients speak it.
fn fault(run: &mut Run<'_>) -> anyhow::Result<()> {
    let Toxiproxy { python, of_python, of_node } = tools::toxiproxy(run.root)?;
    let mut command = run.whole(TOXIPROXY)?;
    command.env("PYTHON", python);
    command.env("TOXIPROXY_PYTHON", of_python).env("TOXIPROXY_NODE", of_node);
    run.test(&mut command)
}

/// The queue: as NSQ's own clients use it; and as a process that is killed, and clients in large numbers:
/// 20 kills, `cargo xtask soak` does a thousand.
fn queue(run: &mut Run<'_>) -> anyhow::Result<()> {
    let Queue { python, of_python, of_node } = tools::queue(run.root)?;
    let mut build = process::cargo(&run.root.join(QUEUE_CLIENT));
    let built = process::build(build.args(["build", "--locked"]))?;
    let client = built.into_iter().find(|it| it.name == "tokio-nsq-client");
    let mut command = run.whole(QUEUE)?;
    command.env("PYTHON", python).env("QUEUE_PYTHON", of_python).env("QUEUE_NODE", of_node);
    command.env("QUEUE_RUST", client.context("cargo built no client")?.path);
    run.test(&mut command)?;
    let mut command = run.whole(KILLS)?;
    run.test(&mut command)
}

/// Programs that images are judged by, or made of: packages of Debian, and their programs.
const JUDGES: [(&str, &str); 6] = [
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("podman", "podman"),
    ("buildah", "buildah"),
    ("containerd", "containerd"),
    ("busybox-static", "busybox"),
];

/// Images, builds and the registry, judged by those.
fn images(run: &mut Run<'_>) -> anyhow::Result<()> {
    tools::debian(&JUDGES)?;
    let mut command = run.whole(IMAGES)?;
    run.test(&mut command)
}

/// Scripts of what a user types, with the real clients.
fn clients(run: &mut Run<'_>) -> anyhow::Result<()> {
    tools::debian(&ASKERS)?;
    let mut command = run.whole(KUSTOMIZE)?;
    run.test(&mut command)?;
    let mut command = run.whole(CLIENTS)?;
    run.test(&mut command)
}

/// The API as other clients use it than kubectl of today.
fn api(run: &mut Run<'_>) -> anyhow::Result<()> {
    let Api { python, of_python, of_node, older_kubectl, helm } = tools::api(run.root)?;
    let mut command = run.whole(API)?;
    command.env("PYTHON", python).env("API_PYTHON", of_python).env("API_NODE", of_node);
    command.env("OLDER_KUBECTL", older_kubectl).env("HELM", helm);
    // Of the whole workspace, as the step `unit` does it: alone it would want its dependencies with other
    // features, which takes a minute.
    let mut build = process::cargo(run.root);
    build.args(["test", "--no-run", "--locked", "--workspace"]);
    let built = process::build(&mut build)?.into_iter().find(|it| it.name == KUBE_RS);
    command.env("KUBE_RS", built.context("cargo built no tests of kube")?.path);
    run.test(&mut command)
}

/// What needs namespaces, as whoever runs this.
fn machine(run: &mut Run<'_>) -> anyhow::Result<()> {
    tools::debian(&SCENARIOS)?;
    let mut command = run.whole(MACHINE)?;
    command.env("SENSORS", build_example(&run.root.join(SENSORS))?);
    build_for_images(run.root)?;
    command.env("EXAMPLES", run.root.join(EXAMPLES_FOLDER));
    command.env("SYSTEMS", tools::systems(run.root)?);
    run.test(&mut command)
}

/// The scripts as a user without any privilege. Not the one that builds the example: that user has no
/// toolchain, and the machine tests have it run what is built.
fn clients_as_user(run: &mut Run<'_>) -> anyhow::Result<()> {
    tools::debian(&ASKERS)?;
    let Some(stage) = run.whole_as_user(CLIENTS)? else { return Ok(()) };
    let mut command = stage.command();
    // Where cargo, which starts the tests otherwise, says that their files are.
    let files = run.root.join("tests/clients");
    for folder in ["scripts", "fixtures"] {
        stage.folder(&files.join(folder))?;
    }
    command.env("CARGO_MANIFEST_DIR", stage.path());
    run.test(command.args(["--skip", "sensors"]))
}

/// What needs namespaces, as that user; then what that user can do with subordinate ids.
fn machine_as_user(run: &mut Run<'_>) -> anyhow::Result<()> {
    let Some(stage) = run.whole_as_user(MACHINE)? else { return Ok(()) };
    let mut command = stage.command();
    let example = run.root.join(SENSORS);
    build_example(&example)?;
    command.env("SENSORS", stage.example(&example)?);
    build_for_images(run.root)?;
    command.env("EXAMPLES", stage.images(EXAMPLES.map(|it| run.root.join(it)))?);
    command.env("SYSTEMS", stage.folder(&tools::systems(run.root)?)?);
    run.test(&mut command)?;
    tools::debian(&SCENARIOS)?;
    run.test(&mut stage.command_with_range()?)
}

impl Run<'_> {
    /// The release binary; built once.
    fn coracle(&mut self) -> anyhow::Result<PathBuf> {
        if self.coracle.is_none() {
            self.coracle = Some(process::build_coracle(self.root)?);
        }
        self.coracle.clone().context("no release binary")
    }

    fn kubectl(&self) -> anyhow::Result<PathBuf> {
        Ok(tools::install(self.root)?.join("kubectl"))
    }

    /// The command for tests of the whole, with the programs under test in its environment.
    fn whole(&mut self, (package, test): (&str, &str)) -> anyhow::Result<Command> {
        let mut command = process::cargo(self.root);
        command.args(["test", "--quiet", "--locked", "--package", package, "--test", test]);
        command.env("CORACLE", self.coracle()?).env("KUBECTL", self.kubectl()?);
        Ok(command)
    }

    /// The same for a user without any privilege: where that user has the programs. Only root can
    /// become another user; for anybody else, who has just been that ordinary user, it is `None`.
    fn whole_as_user(
        &mut self,
        (package, test): (&str, &str),
    ) -> anyhow::Result<Option<as_user::Stage>> {
        if !as_user::is_root()? {
            println!(
                "not root: the same ran as an ordinary user before; run this as root for both"
            );
            return Ok(None);
        }
        let mut command = process::cargo(self.root);
        command.args(["test", "--no-run", "--locked", "--package", package, "--test", test]);
        let built = process::build(&mut command)?.into_iter().find(|it| it.name == test);
        let programs = [("CORACLE", self.coracle()?), ("KUBECTL", self.kubectl()?)];
        let test = built.context("cargo built no test")?.path;
        as_user::Stage::new(&test, &programs).map(Some)
    }

    /// Runs a test program or `cargo test`, shows its output and counts what it reports.
    fn test(&mut self, command: &mut Command) -> anyhow::Result<()> {
        let line = process::line(command);
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("start `{line}`"))?;
        let output = child.stdout.take().context("standard output of the tests")?;
        for line in BufReader::new(output).lines() {
            let line = line.context("read the output of the tests")?;
            if let Some((passed, failed)) = counts(&line) {
                self.passed += passed;
                self.failed += failed;
            }
            println!("{line}");
        }
        let status = child.wait().with_context(|| format!("wait for `{line}`"))?;
        if !status.success() {
            bail!("`{line}` ended with {status}");
        }
        Ok(())
    }
}

/// Passed and failed tests of a line such as `test result: ok. 3 passed; 0 failed; …`.
fn counts(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| {
        let part = counts.split("; ").find_map(|it| it.strip_suffix(name))?;
        part.trim().parse().ok()
    };
    Some((count("passed")?, count("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_cargo_test_reports() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; \
                    0 filtered out; finished in 0.00s";
        assert_eq!(counts(line), Some((12, 3)));
        assert_eq!(counts("running 3 tests"), None);
    }
}
