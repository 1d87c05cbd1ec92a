//! Runs the benchmarks of `benches/`, which measure the release binary. What they measure and how
//! is theirs; docs/benchmarks.md holds the figures.

use std::path::Path;

use crate::process;

/// Builds the binary and the benchmarks, then runs them with `arguments`. They find the binary in
/// the environment variable `CORACLE`.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let coracle = process::build_coracle(root)?;
    let mut command = process::cargo(root);
    command.args(["run", "--release", "--package", "coracle-benches", "--"]).args(arguments);
    process::run(command.env("CORACLE", coracle))
}
