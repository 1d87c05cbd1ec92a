//! An archive of 1 GB, as `docker save` writes it, is loaded: beside `dd`, which copies and flushes it and
//! does nothing else, and podman, if it is installed. Ours unpacks a layer when a pod needs it first, so
//! that is measured too; podman has it unpacked then.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command as Plain,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hyper::Method;
use runtime::Tasks;
use serde_json::json;
use tokio::{process::Command, time::Instant};

use super::{
    IDLE, peers, pod,
    room::{Network, Room},
    within,
};
use crate::{
    cluster::Cluster,
    http::{Connection, Endpoint},
    peers::find,
    pods::{Events, PODS},
    report::{Figure, Samples},
};

/// Bytes that cannot be compressed, in MiB.
const MEBIBYTES: u64 = 1024;

/// How often each has its turn. Podman, which takes ten times as long, has one.
const TURNS: usize = 3;

const IMAGE: &str = "docker.io/bench/large:1";

pub(super) async fn measure(
    cluster: &Cluster,
    connection: &mut Connection,
    endpoint: &Endpoint,
    room: &Room,
    tasks: &Tasks,
) -> anyhow::Result<Vec<Figure>> {
    let archive = archive(cluster, room.folder())?;
    let path = archive.display().to_string();
    let copy = room.folder().join("copy");
    let (mut disk, mut ours) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let of = format!("of={}", copy.display());
        let dd = ["dd", &format!("if={path}"), &of, "bs=1M", "conv=fdatasync", "status=none"];
        disk.push(timed(&mut command(&dd)).await?);
        fs::remove_file(&copy)?;
        ours.push(timed(&mut cluster.command(&["image", "load", &path])).await?);
        if turn + 1 < TURNS {
            cluster.run(&["image", "rm", IMAGE]).await?;
            cluster.run(&["image", "prune"]).await?;
        }
    }
    let [disk, ours] = [disk, ours].map(|it| Samples::new(it).percentile(50));
    let mut figures = vec![
        Figure::time("dd of 1 GB with a flush", disk),
        Figure::time("load of 1 GB", ours),
        Figure::new("load of 1 GB, of dd's time", ours.as_secs_f64() / disk.as_secs_f64(), ""),
    ];
    let mut events = Events::open(endpoint, tasks).await?;
    let start = Instant::now();
    connection.succeed(Method::POST, PODS, pod("large", IMAGE, Some(0))).await?;
    within(events.running("large")).await?;
    figures.push(Figure::time("first pod of 1 GB, created to running", start.elapsed()));
    connection.succeed(Method::DELETE, &format!("{PODS}/large"), Bytes::new()).await?;
    within(events.gone("large")).await?;
    if find("podman").is_some() {
        let mut words = peers::podman(room, None);
        words.extend(["load".to_owned(), "--quiet".to_owned(), format!("--input={path}")]);
        sync().await?;
        match room.run(Network::Own, &[words]).await {
            Ok(time) => figures.push(Figure::time("podman: load of 1 GB", time)),
            Err(error) => eprintln!("podman: not measured: {error:#}"),
        }
    }
    fs::remove_file(archive)?;
    Ok(figures)
}

/// Runs a command when the disk has nothing else to do.
async fn timed(command: &mut Command) -> anyhow::Result<Duration> {
    sync().await?;
    let start = Instant::now();
    let output = command.output().await.with_context(|| format!("run {:?}", command.as_std()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {}", command.as_std(), said.trim());
    Ok(start.elapsed())
}

async fn sync() -> anyhow::Result<()> {
    ensure!(Command::new("sync").status().await?.success(), "`sync` fails");
    Ok(())
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words.first().copied().unwrap_or_default());
    command.args(words.get(1..).unwrap_or_default());
    command
}

/// Makes the archive: one layer, of the program that does nothing and of noise.
fn archive(cluster: &Cluster, folder: &Path) -> anyhow::Result<PathBuf> {
    let work = folder.join("large");
    fs::create_dir(&work)?;
    let root = work.join("root");
    peers::unpack(&cluster.images(), IDLE, &root)?;
    let noise = root.join("noise").display().to_string();
    let count = format!("count={MEBIBYTES}");
    plain(
        &["dd", "if=/dev/urandom", &format!("of={noise}"), "bs=1M", &count, "status=none"],
        &work,
    )?;
    plain(&["tar", "--owner=0", "--group=0", "-cf", "layer.tar", "-C", "root", "."], &work)?;
    fs::remove_dir_all(&root)?;
    let digest = plain(&["sha256sum", "layer.tar"], &work)?;
    let digest = digest.split_whitespace().next().context("a digest")?;
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": { "Entrypoint": ["/bin/sleep", "infinity"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    fs::write(work.join("config.json"), config.to_string())?;
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    fs::write(work.join("manifest.json"), manifest.to_string())?;
    let archive = folder.join("large.tar");
    let to = archive.display().to_string();
    plain(&["tar", "-cf", &to, "manifest.json", "config.json", "layer.tar"], &work)?;
    fs::remove_dir_all(&work)?;
    Ok(archive)
}

/// This machine's, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn plain(words: &[&str], folder: &Path) -> anyhow::Result<String> {
    let mut command = Plain::new(words.first().copied().unwrap_or_default());
    command.args(words.get(1..).unwrap_or_default()).current_dir(folder);
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(String::from_utf8(output.stdout)?)
}
