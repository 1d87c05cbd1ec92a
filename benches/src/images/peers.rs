//! What others take to run the same: podman with either of its runtimes, and the runtimes alone with a
//! root that is unpacked already. Uses those that are installed and names the others.
//!
//! A container is started by one command (`podman run -d`) or two (`create`, `start`), and runs when the
//! command has ended. The limits on open files and processes are given, as some machines let nobody
//! raise them.

use std::{fs, ops::Range, path::Path, process::Command as Plain, time::Duration};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    CROWD, HEEDS, IDLE,
    room::{Network, Room},
};
use crate::{
    cluster::Cluster,
    peers::find,
    processes::KernelMemory,
    report::{Figure, Samples},
};

/// The control group of the runtimes' containers.
pub(super) const GROUP: &str = "coracle-bench-peers";

/// How often each starts a container, one after the other.
const COUNT: usize = 10;

/// Commands at once when a crowd is wanted: two for each core did best.
const AT_ONCE: usize = 4;

/// One way to run containers.
struct Peer {
    name: &'static str,
    kind: Kind,
}

enum Kind {
    /// Podman with this runtime and this network.
    Podman { runtime: &'static str, network: &'static str },
    /// This runtime alone.
    Runtime(&'static str),
}

const PEERS: &[Peer] = &[
    Peer {
        name: "podman, crun, no network",
        kind: Kind::Podman { runtime: "crun", network: "none" },
    },
    Peer { name: "podman, crun", kind: Kind::Podman { runtime: "crun", network: "podman" } },
    Peer { name: "podman, runc", kind: Kind::Podman { runtime: "runc", network: "podman" } },
    Peer { name: "crun alone", kind: Kind::Runtime("crun") },
    Peer { name: "runc alone", kind: Kind::Runtime("runc") },
];

pub(super) async fn measure(cluster: &Cluster, room: &Room) -> anyhow::Result<Vec<Figure>> {
    let root = room.folder().join("root");
    unpack(&cluster.images(), IDLE, &root)?;
    let mut pulled = false;
    let mut figures = Vec::new();
    for peer in PEERS {
        if let Some(missing) = peer.programs().into_iter().find(|it| find(it).is_none()) {
            eprintln!("{}: {missing} is not installed", peer.name);
            continue;
        }
        let prepared = match peer.kind {
            Kind::Podman { .. } if pulled => Ok(()),
            Kind::Podman { .. } => pull(cluster, room).await,
            Kind::Runtime(runtime) => bundle(runtime, room, &root),
        };
        pulled |= matches!(peer.kind, Kind::Podman { .. });
        let measured = match prepared {
            Ok(()) => peer.measure(room).await,
            Err(error) => Err(error),
        };
        match measured {
            Ok(more) => figures.extend(more),
            // A peer that does not work here is named, and is no failure of ours.
            Err(error) => eprintln!("{}: not measured: {error:#}", peer.name),
        }
    }
    Ok(figures)
}

impl Peer {
    fn programs(&self) -> Vec<&'static str> {
        match self.kind {
            Kind::Podman { runtime, .. } => vec!["podman", runtime],
            Kind::Runtime(runtime) => vec![runtime],
        }
    }

    async fn measure(&self, room: &Room) -> anyhow::Result<Vec<Figure>> {
        let name = self.name;
        let measured = self.all(room).await;
        if measured.is_err() {
            // What runs would be in the way of the next.
            self.remove_all(room, 0..CROWD).await.ok();
        }
        measured.with_context(|| name)
    }

    async fn all(&self, room: &Room) -> anyhow::Result<Vec<Figure>> {
        let mut figures = Vec::new();
        for (what, image, heeds) in [("killed", IDLE, false), ("heeding SIGTERM", HEEDS, true)] {
            if heeds && matches!(self.kind, Kind::Runtime(_)) {
                continue;
            }
            let (mut started, mut removed) = (Vec::new(), Vec::new());
            for number in 0..=COUNT {
                let start = self.start(room, image, number).await?;
                let remove = self.remove(room, heeds, number).await?;
                // The first warms up.
                if number != 0 {
                    started.push(start);
                    removed.push(remove);
                }
            }
            if !heeds {
                let started = Samples::new(started).percentile(50);
                figures.push(Figure::time(format!("{}: started, p50", self.name), started));
            }
            let removed = Samples::new(removed).percentile(50);
            figures.push(Figure::time(format!("{}: removed, {what}, p50", self.name), removed));
        }
        let before = KernelMemory::now()?;
        let start = Instant::now();
        self.each(0..CROWD, |number| self.start(room, IDLE, number)).await?;
        figures.push(Figure::time(format!("{}: {CROWD} started", self.name), start.elapsed()));
        figures.extend(KernelMemory::now()?.since(&before, self.name, CROWD));
        let removed = self.remove_all(room, 0..CROWD).await?;
        figures.push(Figure::time(format!("{}: {CROWD} removed", self.name), removed));
        Ok(figures)
    }

    async fn each<F>(&self, numbers: Range<usize>, what: impl Fn(usize) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<Duration>>,
    {
        let runs = stream::iter(numbers).map(what).buffer_unordered(AT_ONCE);
        runs.try_for_each(|_| std::future::ready(Ok(()))).await
    }

    async fn start(&self, room: &Room, image: &str, number: usize) -> anyhow::Result<Duration> {
        let id = format!("bench-{number}");
        let commands = match self.kind {
            Kind::Podman { runtime, network } => {
                let mut words = podman(room, Some(runtime));
                words.extend(words_of("run --detach --ulimit nofile=1024 --ulimit nproc=4096"));
                words.extend(["--network", network, "--name", &id, image].map(str::to_owned));
                vec![words]
            }
            Kind::Runtime(runtime) => {
                // Each in a control group of its own.
                let bundle = room.folder().join(runtime);
                let bundle = number_of(&bundle, &id)?;
                vec![
                    words_of(&format!("{runtime} create --bundle {bundle} {id}")),
                    words_of(&format!("{runtime} start {id}")),
                ]
            }
        };
        room.run(Network::Own, &commands).await
    }

    async fn remove(&self, room: &Room, heeds: bool, number: usize) -> anyhow::Result<Duration> {
        let id = format!("bench-{number}");
        let words = match self.kind {
            Kind::Podman { runtime, .. } => {
                let mut words = podman(room, Some(runtime));
                words.extend(words_of("rm --force"));
                if !heeds {
                    words.extend(words_of("--time 0"));
                }
                words.push(id);
                words
            }
            Kind::Runtime(runtime) => words_of(&format!("{runtime} delete --force {id}")),
        };
        room.run(Network::Own, &[words]).await
    }

    async fn remove_all(&self, room: &Room, numbers: Range<usize>) -> anyhow::Result<Duration> {
        let start = Instant::now();
        match self.kind {
            Kind::Podman { runtime, .. } => {
                let mut words = podman(room, Some(runtime));
                words.extend(words_of("rm --force --time 0 --all"));
                room.run(Network::Own, &[words]).await?;
            }
            Kind::Runtime(_) => {
                self.each(numbers, |number| self.remove(room, false, number)).await?;
            }
        }
        Ok(start.elapsed())
    }
}

pub(super) fn words_of(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Podman, or buildah, with a store of its own on the disk.
pub(super) fn with_store(program: &str, room: &Room) -> Vec<String> {
    let store = room.folder().join("store").display().to_string();
    [program, "--root", &store, "--runroot", "/run/bench"].map(str::to_owned).into()
}

pub(super) fn podman(room: &Room, runtime: Option<&str>) -> Vec<String> {
    let mut words = with_store("podman", room);
    words.extend(words_of("--cgroup-manager cgroupfs"));
    if let Some(runtime) = runtime {
        words.extend(["--runtime", runtime].map(str::to_owned));
    }
    words
}

/// Gets both images out of the cluster's store.
async fn pull(cluster: &Cluster, room: &Room) -> anyhow::Result<()> {
    // Its path becomes a name of an image, which has no capitals.
    const STORE: &str = "/run/images";
    let link = ["ln", "--symbolic", &cluster.images().display().to_string(), STORE];
    room.run(Network::Own, &[link.map(str::to_owned).into()]).await?;
    for image in [IDLE, HEEDS] {
        let mut words = podman(room, None);
        words.extend(words_of("pull --quiet"));
        words.push(format!("oci:{STORE}:{image}"));
        let id = room.read(Network::Machine, &words).await?;
        let mut words = podman(room, None);
        words.extend(["tag", id.trim(), image].map(str::to_owned));
        room.run(Network::Own, &[words]).await?;
    }
    Ok(())
}

/// What a runtime is told: its own defaults, without a terminal and with our program.
fn bundle(runtime: &str, room: &Room, root: &Path) -> anyhow::Result<()> {
    let folder = room.folder().join(runtime);
    fs::create_dir(&folder)?;
    let status = Plain::new(runtime).arg("spec").current_dir(&folder).status()?;
    ensure!(status.success(), "`{runtime} spec`: {status}");
    let path = folder.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path)?)?;
    set(&mut spec, ["process", "terminal"], json!(false))?;
    set(&mut spec, ["process", "args"], json!(["/bin/sleep", "infinity"]))?;
    set(&mut spec, ["root", "path"], json!(root))?;
    Ok(fs::write(&path, spec.to_string())?)
}

/// The bundle of one container, made of that of its runtime if it is not there.
fn number_of(bundle: &Path, id: &str) -> anyhow::Result<String> {
    let folder = bundle.join(id);
    if !folder.exists() {
        let mut spec: Value = serde_json::from_slice(&fs::read(bundle.join("config.json"))?)?;
        let linux = spec.get_mut("linux").and_then(Value::as_object_mut).context("linux")?;
        linux.insert("cgroupsPath".to_owned(), json!(format!("/{GROUP}/{id}")));
        fs::create_dir(&folder)?;
        fs::write(folder.join("config.json"), spec.to_string())?;
    }
    Ok(folder.display().to_string())
}

fn set(spec: &mut Value, [part, name]: [&str; 2], value: Value) -> anyhow::Result<()> {
    let found = spec.get_mut(part).and_then(|it| it.get_mut(name));
    *found.with_context(|| format!("no `{part}.{name}` in the runtime's defaults"))? = value;
    Ok(())
}

/// Unpacks an image of an OCI layout. Its layers take nothing away: we made them.
pub(super) fn unpack(layout: &Path, image: &str, root: &Path) -> anyhow::Result<()> {
    let read = |path: &Path| -> anyhow::Result<Value> {
        let text = fs::read(path).with_context(|| format!("read `{}`", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor.get("digest").and_then(Value::as_str).unwrap_or_default();
        layout.join("blobs").join(digest.replace(':', "/"))
    };
    let index = read(&layout.join("index.json"))?;
    let name = |it: &Value| {
        let name = it.pointer("/annotations/org.opencontainers.image.ref.name");
        name.and_then(Value::as_str).map(str::to_owned)
    };
    let is_it = |it: &&Value| name(it).as_deref() == Some(image);
    let found = list(&index, "manifests").iter().find(is_it);
    let manifest = read(&blob(found.with_context(|| format!("no image `{image}`"))?))?;
    fs::create_dir(root)?;
    for layer in list(&manifest, "layers") {
        let status = Plain::new("tar").arg("-xf").arg(blob(layer)).arg("-C").arg(root).status()?;
        ensure!(status.success(), "unpack `{}`: {status}", blob(layer).display());
    }
    Ok(())
}

fn list<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    document.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
