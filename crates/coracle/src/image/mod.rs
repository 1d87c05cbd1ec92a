//! `coracle image`: gets images, lists, removes and sends them. What is here is here for all clusters of
//! the user.

mod build;
mod container;
mod list;
mod pack;
mod shown;
mod transfer;
mod worker;

use std::{path::PathBuf, process::ExitCode};

use ::image::{Reference, Store, store::Policy};
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;
pub(crate) use worker::run as worker;

use build::BuildArguments;
use pack::PackArguments;

use crate::{
    cli::Format,
    directories::{Directories, Environment},
    output, removal,
};

/// Arguments of `image`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ImageArguments {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ImageCommand {
    /// Get images from their registries.
    Pull {
        /// `nginx`, `quay.io/team/web:1`, `nginx@sha256:…`
        #[arg(required = true)]
        images: Vec<String>,
        #[command(flatten)]
        reach: Reach,
        /// Format of what is printed.
        #[arg(short, long, default_value = "text")]
        output: Format,
    },
    /// Get images from a file: of `docker save`, or an OCI layout as a folder or an archive; or out of
    /// the store of Podman, Docker or containerd.
    Load {
        /// The file or folder, or `-` for standard input; with --from, the name of the image.
        path: PathBuf,
        /// `podman`, `docker` or `containerd`, each also with the folder of its store:
        /// `podman=/srv/containers`.
        #[arg(long, value_name = "PROGRAM[=FOLDER]")]
        from: Option<String>,
        /// Name of the image, where the file gives it none or another one is wanted.
        #[arg(short, long, value_name = "NAME")]
        tag: Option<String>,
        /// Format of what is printed.
        #[arg(short, long, default_value = "text")]
        output: Format,
    },
    /// Make an image of a Dockerfile. Its commands run in containers on the host's network.
    Build(BuildArguments),
    /// Make an image of a program, with the libraries that it needs, or of a folder.
    Pack(PackArguments),
    /// List the images that are here.
    Ls {
        /// Format of the list.
        #[arg(short, long, default_value = "text")]
        output: Format,
    },
    /// Show how an image runs and what it is made of, as JSON.
    Inspect {
        /// Its name.
        image: String,
    },
    /// Give an image another name.
    Tag {
        /// Its name.
        image: String,
        /// The name that it gets too.
        new: String,
    },
    /// Send an image to a registry.
    Push {
        /// Its name here.
        image: String,
        /// Its name there, if it is another one.
        to: Option<String>,
        #[command(flatten)]
        reach: Reach,
        /// Format of what is printed.
        #[arg(short, long, default_value = "text")]
        output: Format,
    },
    /// Remove images by name. What pods run stays until they end.
    Rm {
        /// Their names.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove what no image has any more.
    Prune {
        /// Also all images that no pod of any cluster runs.
        #[arg(short, long)]
        all: bool,
        /// Format of what is printed.
        #[arg(short, long, default_value = "text")]
        output: Format,
    },
}

/// How registries may be spoken to.
#[derive(Clone, Debug, Args)]
struct Reach {
    /// A registry (`HOST` or `HOST:PORT`) that may be without TLS or have any certificate, as those on
    /// this machine may anyway.
    #[arg(long, value_name = "HOST")]
    insecure: Vec<String>,
}

/// Runs one of the commands.
pub(crate) fn run(
    arguments: &ImageArguments,
    directories: &Directories,
    environment: &Environment,
) -> anyhow::Result<ExitCode> {
    if let ImageCommand::Build(arguments) = &arguments.command {
        let pull = |store: &Store, name: &Reference| transfer::pull_one(store, environment, name);
        return build::run(directories, arguments, environment.time, &pull);
    }
    let store = Store::open(&directories.images).context("open the store of images")?;
    match &arguments.command {
        ImageCommand::Pack(arguments) => pack::run(&store, arguments, environment.time),
        // It opens the store where it is then.
        ImageCommand::Build(_) => Ok(ExitCode::SUCCESS),
        ImageCommand::Pull { images, reach, output } => {
            transfer::pull(&store, environment, images, &reach.insecure, *output)
        }
        ImageCommand::Load { path, from, tag, output } => {
            let local = from.as_deref().map(|it| transfer::local(it, environment)).transpose()?;
            transfer::load(&store, (path, local.as_ref()), tag.as_deref(), *output)
        }
        ImageCommand::Ls { output } => list::ls(&store, *output),
        ImageCommand::Inspect { image } => list::inspect(&store, image),
        ImageCommand::Tag { image, new } => {
            let (found, new) = (find(&store, image)?, new.parse::<Reference>()?);
            store.tag(&new, &found.target)?;
            Ok(ExitCode::SUCCESS)
        }
        ImageCommand::Push { image, to, reach, output } => {
            let to = to.as_deref().unwrap_or(image);
            transfer::push(&store, environment, (image, to), &reach.insecure, *output)
        }
        ImageCommand::Rm { images } => rm(&store, images),
        ImageCommand::Prune { all, output } => {
            prune(&store, if *all { Policy::Unused } else { Policy::Nameless }, *output)
        }
    }
}

/// An image that is here.
fn find(store: &Store, name: &str) -> anyhow::Result<::image::Image> {
    let reference: Reference = name.parse()?;
    match store.resolve(&reference)? {
        Some(image) => Ok(image),
        None => bail!(
            "image `{reference}` is not on this machine: `coracle image ls` lists those that are, and \
             `coracle image pull` gets others"
        ),
    }
}

fn rm(store: &Store, images: &[String]) -> anyhow::Result<ExitCode> {
    for image in images {
        let reference: Reference = image.parse()?;
        if !store.untag(&reference)? {
            bail!("image `{reference}` is not on this machine");
        }
    }
    collect(store, Policy::Nameless).map(|_| ExitCode::SUCCESS)
}

fn prune(store: &Store, policy: Policy, format: Format) -> anyhow::Result<ExitCode> {
    let collected = collect(store, policy)?;
    match format {
        Format::Json => output::line(
            &json!({
                "images": collected.names, "blobs": collected.blobs, "bytes": collected.bytes,
                "layers": collected.layers,
            })
            .to_string(),
        )?,
        Format::Text => {
            for name in &collected.names {
                output::line(&format!("removed {name}"))?;
            }
            output::line(&format!("{} free again", shown::size(collected.bytes)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn collect(store: &Store, policy: Policy) -> anyhow::Result<::image::store::Collected> {
    let collected = store.collect(&std::collections::BTreeSet::new(), policy)?;
    // Files of subordinate ids, as layers have them that were unpacked without root.
    if !collected.left.is_empty()
        && let Err(error) = removal::remove_inside(&collected.left)
    {
        output::note(&format!(
            "{} unpacked layers stay, as they have files of subordinate ids, which cannot be removed: \
             {error:#}; a running cluster removes them later",
            collected.left.len()
        ));
    }
    Ok(collected)
}
