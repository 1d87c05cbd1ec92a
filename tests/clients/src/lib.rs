//! Runs scripts of what a user types and sees, with the real clients, each against a cluster of its
//! own. What the scripts say is in `scripts/`; this knows no command and no answer.
//!
//! A script is a text file. A line `$ COMMAND` is typed into a shell, a here-document goes with it;
//! what follows, up to the next `$` or `#` at the beginning of a line, is what is seen on standard
//! output and error, and `[exit N]` if the command failed. `UPDATE_EXPECT=1` writes down what was
//! seen.

mod cluster;
mod redact;
mod script;

use std::{ffi::OsStr, fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, bail};

use cluster::Cluster;
use redact::Redactor;
use script::Script;

/// Runs `FOLDER/NAME.txt` and compares.
pub fn run(of: &str, name: &str) -> anyhow::Result<()> {
    let path = folder(of).join(name).with_extension("txt");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut script = Script::parse(&text);
    let cluster = Cluster::new(name)?;
    let redactor = Redactor::new(&cluster)?;
    let mut differences = String::new();
    for step in &mut script.steps {
        let seen = redactor.redact(&cluster.shell(&step.command)?);
        if seen != step.expected {
            write!(
                differences,
                "\n$ {}\n--- expected\n{}\n--- seen\n{seen}\n",
                step.command, step.expected
            )?;
            // What follows a command that should have worked would only fail as well.
            let broken = seen.contains("[exit") && !step.expected.contains("[exit");
            step.expected = seen;
            if broken && !update() {
                break;
            }
        }
    }
    let log = cluster.log();
    cluster.delete()?;
    if differences.is_empty() {
        return Ok(());
    }
    if update() {
        return fs::write(&path, script.to_string()).context("write the script");
    }
    bail!("{}:{differences}\n{log}", path.display())
}

fn update() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some_and(|it| it != OsStr::new("0"))
}

/// Every script there is in a folder.
pub fn scripts(of: &str) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder(of)).context("list the scripts")? {
        let path = entry.context("list the scripts")?.path();
        if path.extension() == Some(OsStr::new("txt")) {
            let name = path.file_stem().context("name of a script")?;
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// A folder of this package, where cargo says at run time that it is: tests that another user runs
/// have a copy.
fn folder(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join(name)
}
