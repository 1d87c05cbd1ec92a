//! Images that come and go, with what is seen of it.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use ::image::{
    Digest, Image, Reference, Store,
    load::{self, Loaded, Local, Options},
    remote::{Client, Keyring, Patience, User},
};
use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::runtime::Runtime;

use super::{find, shown::Parts};
use crate::{cli::Format, directories::Environment, output};

/// Gets images from their registries.
pub(super) fn pull(
    store: &Store,
    environment: &Environment,
    images: &[String],
    insecure: &[String],
    format: Format,
) -> anyhow::Result<ExitCode> {
    let references: Result<Vec<Reference>, _> = images.iter().map(|it| it.parse()).collect();
    let (client, keyring) = client(environment, insecure)?;
    let runtime = runtime()?;
    for reference in references? {
        let parts = Parts::start();
        let note = |it| parts.note(it);
        let image = runtime.block_on(client.pull(store, &reference, &keyring, &note))?;
        tell(&[reference], &image.target.digest, Some(&image), format)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Gets the image that a build begins with.
pub(super) fn pull_one(
    store: &Store,
    environment: &Environment,
    reference: &Reference,
) -> anyhow::Result<Image> {
    let (client, keyring) = client(environment, &[])?;
    let parts = Parts::start();
    let note = |it| parts.note(it);
    Ok(runtime()?.block_on(client.pull(store, reference, &keyring, &note))?)
}

/// Sends an image, by its name here, to its name there.
pub(super) fn push(
    store: &Store,
    environment: &Environment,
    (image, to): (&str, &str),
    insecure: &[String],
    format: Format,
) -> anyhow::Result<ExitCode> {
    let (image, to) = (find(store, image)?, to.parse::<Reference>()?);
    let (client, keyring) = client(environment, insecure)?;
    let parts = Parts::start();
    let note = |it| parts.note(it);
    let digest = runtime()?.block_on(client.push(store, &image, &to, &keyring, &note))?;
    tell(&[to], &digest, Some(&image), format)?;
    Ok(ExitCode::SUCCESS)
}

/// The store of another program: `podman`, `docker=/FOLDER`.
pub(super) fn local(text: &str, environment: &Environment) -> anyhow::Result<Local> {
    let (program, folder) = match text.split_once('=') {
        Some((program, folder)) => (program, Some(PathBuf::from(folder))),
        None => (text, None),
    };
    let below_home = || environment.home.as_ref().map(|it| it.join(".local/share"));
    match (program, folder) {
        ("podman", Some(folder)) => Ok(Local::Podman(folder)),
        ("docker", folder) => {
            Ok(Local::Docker(folder.unwrap_or_else(|| PathBuf::from("/var/lib/docker"))))
        }
        ("containerd", folder) => {
            Ok(Local::Containerd(folder.unwrap_or_else(|| PathBuf::from("/var/lib/containerd"))))
        }
        ("podman", None) if environment.uid == 0 => {
            Ok(Local::Podman(PathBuf::from("/var/lib/containers/storage")))
        }
        ("podman", None) => {
            let data = environment.data_home.clone().or_else(below_home);
            let data = data.context("neither XDG_DATA_HOME nor HOME is set")?;
            Ok(Local::Podman(data.join("containers/storage")))
        }
        _ => bail!("--from `{text}`: it is podman, docker or containerd, with =FOLDER or without"),
    }
}

/// Gets images from a file, a folder, standard input or another program.
pub(super) fn load(
    store: &Store,
    (path, local): (&Path, Option<&Local>),
    tag: Option<&str>,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let name: Option<Reference> = tag.map(str::parse).transpose()?;
    let parts = Parts::start();
    let note = |it| parts.note(it);
    let options = Options { name: name.as_ref(), progress: &note };
    let loaded = if let Some(local) = local {
        let image = path.to_string_lossy().parse()?;
        vec![load::load_local(store, local, &image, options)?]
    } else if path == Path::new("-") {
        load::load_stream(store, &mut io::stdin(), options)?
    } else {
        load::load(store, path, options)?
    };
    for Loaded { names, target, image } in &loaded {
        if let Err(error) = image {
            output::note(&format!("warning: {error}; it can be pushed, and not run here"));
        }
        tell(names, &target.digest, image.as_ref().ok(), format)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(
    names: &[Reference],
    digest: &Digest,
    image: Option<&Image>,
    format: Format,
) -> io::Result<()> {
    match format {
        Format::Json => {
            let names: Vec<String> = names.iter().map(Reference::to_string).collect();
            let id = image.map(|it| it.id);
            output::line(&json!({"names": names, "digest": digest, "id": id}).to_string())
        }
        Format::Text => names.iter().try_for_each(|it| output::line(&format!("{it} {digest}"))),
    }
}

/// A client with what the user's files say of registries.
fn client(environment: &Environment, insecure: &[String]) -> anyhow::Result<(Client, Keyring)> {
    let user = User::new(&environment.registries, environment.uid);
    let mut keyring = Keyring::default();
    user.add_credentials(&mut keyring)?;
    let mut registries = user.registries()?;
    for host in insecure {
        registries.add_insecure(host);
    }
    let proxies = user.proxies()?;
    Ok((Client::new(registries, proxies, Patience::default())?, keyring))
}

fn runtime() -> anyhow::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("start the runtime")
}
