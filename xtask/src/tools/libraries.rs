//! Installing libraries of others: each set in a folder of its own in `target/tools`, with all that it
//! needs, every file pinned by its hash.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::process;

/// Where libraries go, made if it is not there.
pub(super) fn folder(root: &Path) -> anyhow::Result<PathBuf> {
    let tools = super::target_directory(root)?.join("tools");
    fs::create_dir_all(&tools).with_context(|| format!("create {}", tools.display()))?;
    Ok(tools)
}

/// The command that installs what `requirements.txt` of the folder says, and nothing else, there.
pub(super) fn pip(python: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "install"]);
    pip.arg("--root-user-action=ignore");
    pip.args(["--no-deps", "--only-binary=:all:", "--require-hashes", "--target", "."]);
    pip.args(["--requirement", "requirements.txt"]);
    pip
}

/// The command that installs what `package.json` and `package-lock.json` of the folder say, there.
pub(super) fn npm() -> anyhow::Result<Command> {
    for program in ["node", "npm"] {
        if process::read(Command::new(program).arg("--version")).is_err() {
            bail!("no {program} found, for a test client; on Debian: apt-get install nodejs npm");
        }
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    Ok(npm)
}

/// Makes the folder `name` with these files and lets `command` fill it, unless it is there already with
/// the same files: they say what is wanted.
pub(super) fn install(
    tools: &Path,
    name: &str,
    files: &[(&str, &str)],
    mut command: Command,
) -> anyhow::Result<PathBuf> {
    let folder = tools.join(name);
    let is = |(file, text): &(&str, &str)| {
        fs::read_to_string(folder.join(file)).is_ok_and(|it| it == *text)
    };
    if files.iter().all(is) {
        return Ok(folder);
    }
    println!("installing {name}");
    let work = tempfile::tempdir_in(tools).context("create a folder in target/tools")?;
    for (file, text) in files {
        fs::write(work.path().join(file), text).with_context(|| format!("write {file}"))?;
    }
    process::run(command.current_dir(work.path()))?;
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("replace {}", folder.display()));
        }
        _ => {}
    }
    // Only what is whole gets its name.
    fs::rename(work.path(), &folder).with_context(|| format!("create {}", folder.display()))?;
    drop(work.keep());
    Ok(folder)
}
