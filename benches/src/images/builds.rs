//! A program that changes, built into an image and pushed to a registry of ours with a folder of its own: by
//! ours, and by podman and buildah if they are installed.

use std::{fs, path::Path, process::Stdio, time::Duration};

use anyhow::Context as _;
use tokio::time::Instant;

use super::{
    peers::{podman, with_store, words_of},
    room::{Network, Room},
};
use crate::{
    cluster::Cluster,
    peers::find,
    report::{Aim, Figure, Samples},
};

/// Bytes of the program that is changed and built again.
const PROGRAM_BYTES: usize = 20 << 20;

/// How often it is.
const BUILDS: usize = 5;

pub(super) async fn measure(cluster: &Cluster, room: &Room) -> anyhow::Result<Vec<Figure>> {
    let folder = cluster.folder().join("context");
    fs::create_dir(&folder)?;
    fs::write(
        folder.join("Dockerfile"),
        "FROM scratch\nCOPY program /bin/program\nENTRYPOINT [\"/bin/program\"]\n",
    )?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let listen = format!("127.0.0.1:{port}");
    let of_registry = cluster.folder().join("registry").display().to_string();
    let mut registry =
        cluster.command(&["registry", "--listen", &listen, "--folder", &of_registry]);
    let mut registry =
        registry.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let label =
        |who: &str| format!("{who}{} MB changed, built and pushed, p50", PROGRAM_BYTES >> 20);
    let (context, ours) = (folder.display().to_string(), format!("localhost:{port}/bench/ours:1"));
    let mut samples = Vec::new();
    for number in 0..=BUILDS {
        change(&folder, number)?;
        let start = Instant::now();
        cluster.run(&["image", "build", "--tag", &ours, &context]).await.context("build")?;
        cluster.run(&["image", "push", &ours]).await.context("push")?;
        samples.push(start.elapsed());
    }
    let mut figures = vec![Figure::time(label(""), warm(samples)).aim(Aim::AtMost(1000.0))];
    for program in ["podman", "buildah"] {
        if find(program).is_none() {
            eprintln!("{program} is not installed");
            continue;
        }
        let name = format!("localhost:{port}/bench/{program}:1");
        match by(program, room, &folder, &name).await {
            Ok(samples) => {
                figures.push(Figure::time(label(&format!("{program}: ")), warm(samples)));
            }
            Err(error) => eprintln!("{program}: not measured: {error:#}"),
        }
    }
    registry.kill().await?;
    Ok(figures)
}

async fn by(
    program: &str,
    room: &Room,
    folder: &Path,
    name: &str,
) -> anyhow::Result<Vec<Duration>> {
    let words = |more: &str| {
        let mut words = match program {
            "podman" => podman(room, None),
            _ => with_store(program, room),
        };
        words.extend(words_of(more));
        words
    };
    let build = words(&format!("build --quiet --tag {name} {}", folder.display()));
    let push = words(&format!("push --quiet --tls-verify=false {name}"));
    let mut samples = Vec::new();
    for number in 0..=BUILDS {
        change(folder, number)?;
        samples.push(room.run(Network::Machine, &[build.clone(), push.clone()]).await?);
    }
    Ok(samples)
}

/// What a linker writes: neither all the same nor without any order.
fn change(folder: &Path, number: usize) -> anyhow::Result<()> {
    let mut program = fs::read("/proc/self/exe")?;
    program.resize(PROGRAM_BYTES, 0);
    let changed = u8::try_from(number)?;
    program.iter_mut().step_by(4096).for_each(|it| *it = changed);
    Ok(fs::write(folder.join("program"), &program)?)
}

/// Without the first, which finds the registry starting, and the store empty.
fn warm(samples: Vec<Duration>) -> Duration {
    Samples::new(samples.into_iter().skip(1).collect()).percentile(50)
}
