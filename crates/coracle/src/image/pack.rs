//! `coracle image pack`: an image of a program with the libraries that it needs.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use ::image::{Reference, Store, pack};
use anyhow::{Context as _, bail};
use clap::Args;

use crate::output;

/// Most warnings that are shown: who has more has left out a library that much needs.
const WARNINGS_MAX: usize = 20;

/// Arguments of `image pack`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PackArguments {
    /// The program, or a folder that becomes the image's root.
    source: PathBuf,
    /// Name of the image.
    #[arg(short, long, value_name = "NAME")]
    tag: String,
    /// What is run, one word each time. Without it: the program.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Its arguments, one word each time.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// A variable.
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Where it begins.
    #[arg(short, long, value_name = "PATH", default_value = "")]
    workdir: String,
    /// Whom it runs as.
    #[arg(short, long, default_value = "")]
    user: String,
    /// A port that it listens on.
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// A label.
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// A further file or folder, and where it is in the image.
    #[arg(short, long, value_name = "SOURCE:PATH")]
    add: Vec<String>,
}

/// Packs; `time` is `SOURCE_DATE_EPOCH`.
pub(crate) fn run(
    store: &Store,
    arguments: &PackArguments,
    time: Option<i64>,
) -> anyhow::Result<ExitCode> {
    let name: Reference = arguments.tag.parse()?;
    let mut labels = BTreeMap::new();
    for label in &arguments.label {
        let (name, value) = label.split_once('=').context("--label is NAME=VALUE")?;
        labels.insert(name.to_owned(), value.to_owned());
    }
    if let Some(wrong) = arguments.env.iter().find(|it| !it.contains('=')) {
        bail!("--env {wrong}: a variable is NAME=VALUE");
    }
    let add = arguments.add.iter().map(|it| {
        let (source, path) = it.rsplit_once(':').context("--add is SOURCE:PATH")?;
        Ok((PathBuf::from(source), path.to_owned()))
    });
    let options = pack::Options {
        entrypoint: arguments.entrypoint.clone(),
        cmd: arguments.cmd.clone(),
        env: arguments.env.clone(),
        workdir: arguments.workdir.clone(),
        user: arguments.user.clone(),
        expose: arguments.expose.clone(),
        labels,
        add: add.collect::<anyhow::Result<_>>()?,
        time: time.unwrap_or(0),
    };
    let lease = store.lease()?;
    let packed = pack::pack(store, &lease, &arguments.source, &options)?;
    store.tag(&name, &packed.target)?;
    warn(&packed.warnings);
    output::line(&format!("{name} {}", packed.target.digest))?;
    Ok(ExitCode::SUCCESS)
}

/// Says what is missing in the image, which may never be used.
fn warn(warnings: &[pack::Error]) {
    for warning in warnings.iter().take(WARNINGS_MAX) {
        output::note(&format!("warning: {warning}"));
    }
    if let Some(more) = warnings.len().checked_sub(WARNINGS_MAX).filter(|it| *it != 0) {
        output::note(&format!("warning: and {more} more files of which something is missing"));
    }
}
