//! Starting other programs: one way to spell a command, run it and say what failed. It knows
//! nothing of the chores that use it.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// `cargo`, the one that runs this program, in the folder `directory`.
///
/// What `cargo run` tells this program about itself is taken out of the environment: build
/// scripts that watch `CARGO_PKG_…` (ring's does) would be run again for nothing.
pub(crate) fn cargo(directory: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(directory);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let about_xtask = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|it| text.starts_with(it));
        if about_xtask || text == "CARGO" || text == "CARGO_PRIMARY_PACKAGE" {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs `command` with this program's own output and waits for it.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = line(command);
    let status = command.status().with_context(|| format!("start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs `command` and returns what it printed on standard output.
pub(crate) fn read(command: &mut Command) -> anyhow::Result<String> {
    let line = line(command);
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}: {}", String::from_utf8_lossy(&stderr).trim());
    }
    String::from_utf8(stdout).with_context(|| format!("output of `{line}`"))
}

/// The command as one would type it, for messages.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy);
    words.collect::<Vec<_>>().join(" ")
}

/// A program that cargo built.
#[derive(Debug)]
pub(crate) struct Executable {
    /// Name of the binary or of the test.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Runs a `cargo build` or `cargo test --no-run` and returns what it built.
pub(crate) fn build(command: &mut Command) -> anyhow::Result<Vec<Executable>> {
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let mut built = Vec::new();
    for line in read(command)?.lines() {
        let message: Value = serde_json::from_str(line).context("message of cargo")?;
        let name = message.get("target").and_then(|it| it.get("name")).and_then(Value::as_str);
        let path = message.get("executable").and_then(Value::as_str);
        if let (Some(name), Some(path)) = (name, path) {
            built.push(Executable { name: name.to_owned(), path: path.into() });
        }
    }
    Ok(built)
}

/// The `coracle` that users get, built if it is not up to date.
pub(crate) fn build_coracle(root: &Path) -> anyhow::Result<PathBuf> {
    let mut command = cargo(root);
    let built = build(command.args(["build", "--release", "--package", "coracle"]))?;
    let coracle = built.into_iter().find(|it| it.name == "coracle");
    Ok(coracle.context("cargo built no `coracle`")?.path)
}
