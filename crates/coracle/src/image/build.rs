//! `coracle image build`: an image of a Dockerfile. Its commands run in containers on the host's
//! network, in namespaces of the build's own; no cluster is needed.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use ::image::{
    Image, Reference, Store,
    build::{self, Cause, Event, Host, Step},
};
use anyhow::{Context as _, bail};
use clap::Args;

use super::container::Containers;
use crate::{directories::Directories, output};

/// Arguments of `image build`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BuildArguments {
    /// The folder that COPY and ADD take files from.
    context: PathBuf,
    /// The Dockerfile; without it, the one in the context.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Name of the image; may be given several times.
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// A value for an ARG.
    #[arg(long, value_name = "NAME=VALUE")]
    build_arg: Vec<String>,
    /// The stage to build, by name or number, in the place of the last one.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Make every layer anew.
    #[arg(long)]
    no_cache: bool,
    /// Ask the registries for the images that it begins with, even if they are here.
    #[arg(long)]
    pull: bool,
}

/// Gets an image from its registry.
pub(crate) type Pull<'a> = &'a dyn Fn(&Store, &Reference) -> anyhow::Result<Image>;

/// Builds; `time` is `SOURCE_DATE_EPOCH`. The process has one thread until here.
pub(crate) fn run(
    directories: &Directories,
    arguments: &BuildArguments,
    time: Option<i64>,
    pull: Pull<'_>,
) -> anyhow::Result<ExitCode> {
    let names: Result<Vec<Reference>, _> = arguments.tag.iter().map(|it| it.parse()).collect();
    let names = names?;
    let dockerfile = arguments.file.clone();
    let options = build::Options {
        context: arguments.context.clone(),
        dockerfile: dockerfile.unwrap_or_else(|| arguments.context.join("Dockerfile")),
        arguments: values(&arguments.build_arg)?,
        target: arguments.target.clone(),
        is_cached: !arguments.no_cache,
        time,
    };
    keeper::enter_own().context("make the build's own namespaces")?;
    let store = Store::open(&directories.images).context("open the store of images")?;
    let lease = store.lease()?;
    let containers = Containers::new(directories);
    let mut host = OfBuild { store: &store, pull, is_pulled: arguments.pull, containers };
    let target = build::build(&store, &lease, &options, &mut host)?;
    for name in &names {
        store.tag(name, &target)?;
        output::line(&format!("{name} {}", target.digest))?;
    }
    if names.is_empty() {
        output::note(
            "it has no name, and goes with the next `coracle image prune`: give it one by -t",
        );
        output::line(&target.digest.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn values(given: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |it: &String| match it.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => bail!("--build-arg {it}: a value is given as NAME=VALUE"),
    };
    given.iter().map(pair).collect()
}

struct OfBuild<'a> {
    store: &'a Store,
    pull: Pull<'a>,
    is_pulled: bool,
    containers: Containers<'a>,
}

impl Host for OfBuild<'_> {
    fn image(&mut self, name: &Reference) -> Result<Image, Cause> {
        match self.store.resolve(name)? {
            Some(image) if !self.is_pulled => Ok(image),
            _ => Ok((self.pull)(self.store, name)?),
        }
    }

    fn run(&mut self, step: &Step<'_>) -> Result<i32, Cause> {
        Ok(self.containers.run(step)?)
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Step { number, of, text } => output::note(&format!("[{number}/{of}] {text}")),
            Event::Cached => output::note("  as before"),
            Event::Unused { argument } => {
                output::note(&format!("warning: no ARG {argument}, which was given a value"));
            }
        }
    }
}
