//! Where overlays cannot be mounted, containers of images run with copies. All of this test's folders are on
//! an overlay, on which the kernel mounts no other: the program is started again in a mount namespace of its
//! own for that, as root.

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};

use crate::{
    clean::unchanged,
    cluster::{Cluster, eventually},
    host::Snapshot,
};

/// What `busybox-static` installs.
const BUSYBOX: &str = "/bin/busybox";

/// What is built: two layers, of which the upper hides a file of the lower.
const BUILT: &str = "test/copied:1";
const DOCKERFILE: &str = "FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/sh
COPY lower /srv/
COPY upper /srv/
";

/// One container that ends once and is started again, and one beside it that stays.
const POD: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: copied}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: again
    image: test/copied:1
    command: [/bin/sh, -c]
    args:
    - |
      busybox cat /srv/file
      [ -e /written ] && echo stale || echo fresh
      echo again > /written
      [ -e /shared/ended ] && echo shown && exec busybox sleep 1000
      echo > /shared/ended; exit 3
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: beside
    image: test/copied:1
    command: [/bin/sh, -c]
    args:
    - |
      echo beside > /written; busybox rm /srv/file
      echo shown; exec busybox sleep 1000
  - name: shut
    image: test/copied:1
    securityContext: {readOnlyRootFilesystem: true}
    command: [/bin/sh, -c]
    args: ['echo > /written || echo refused; echo shown; exec busybox sleep 1000']
  volumes: [{name: shared, emptyDir: {}}]
"#;

/// Starts the test where its folders are on an overlay. What is mounted ends with the namespace.
pub(crate) fn pods_run_where_overlays_cannot_be_mounted() -> anyhow::Result<()> {
    let before = Snapshot::take()?;
    let folder = tempfile::tempdir()?;
    for name in ["lower", "upper", "work", "tmp"] {
        fs::create_dir(folder.path().join(name))?;
    }
    let script = r#"cd "$1" && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work tmp &&
        exec "$2" --quiet --exact on_an_overlay"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(folder.path());
    command.arg(std::env::current_exe()?).env("TMPDIR", folder.path().join("tmp"));
    let output = command.env("ON_OVERLAY", "1").output().context("start unshare")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("1 passed"), "{said}");
    unchanged(&before)
}

/// Whether this program was started so.
pub(crate) fn is_on_overlay() -> bool {
    std::env::var_os("ON_OVERLAY").is_some()
}

/// The test.
pub(crate) fn on_an_overlay() -> anyhow::Result<()> {
    let cluster = Cluster::new("copied")?;
    build(&cluster)?;
    run_is_refused(&cluster)?;
    cluster.write("app.yaml", POD)?;
    cluster.up()?;
    let said = |container: &str, previous: bool| {
        let previous = format!("--previous={previous}");
        cluster.kubectl(&["logs", "copied", "--container", container, &previous])
    };
    for container in ["again", "beside", "shut"] {
        eventually(
            "the container has shown all",
            || Ok(said(container, false)?.contains("shown")),
        )?;
    }
    // What one has written neither its next run nor another container finds.
    for previous in [true, false] {
        let log = said("again", previous)?;
        ensure!(log.starts_with("upper\nfresh\n"), "previous {previous}:\n{log}");
    }
    let log = said("shut", false)?;
    ensure!(log.contains("refused"), "the root was written to:\n{log}");
    let roots = r"jsonpath={.items[0].metadata.annotations.coracle\.dev/image-roots}";
    let roots = cluster.kubectl(&["get", "nodes", "--output", roots])?;
    ensure!(roots.starts_with("copy: overlays cannot be used in"), "{roots}");

    // The image stays as long as a pod has been made of it, and nothing of its copies longer.
    let layers = cluster.data().join("coracle/images/layers");
    let count = || walk(&layers);
    cluster.coracle(&["image", "rm", BUILT])?;
    ensure!(count()? != 0, "the layers of a running pod are gone");
    cluster.kubectl(&["delete", "pod", "copied"])?;
    let pods = cluster.state().join("pods");
    eventually("the copies are gone", || Ok(fs::read_dir(&pods)?.count() == 0))?;
    cluster.coracle(&["image", "prune"])?;
    ensure!(count()? == 0, "layers are left");
    Ok(())
}

/// What a command has changed is found in an overlay only.
fn run_is_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let context = cluster.data().join("run");
    fs::create_dir_all(&context)?;
    fs::write(context.join("Dockerfile"), format!("FROM {BUILT}\nRUN echo built\n"))?;
    let said = cluster.refused(&["image", "build", &context.display().to_string()])?;
    let words = ["RUN needs overlays, and overlays cannot be used in", "XDG_DATA_HOME"];
    ensure!(words.iter().all(|it| said.contains(it)), "{said}");
    Ok(())
}

fn build(cluster: &Cluster) -> anyhow::Result<()> {
    let context = cluster.data().join("context");
    for layer in ["lower", "upper"] {
        fs::create_dir_all(context.join(layer))?;
        fs::write(context.join(layer).join("file"), format!("{layer}\n"))?;
    }
    fs::copy(BUSYBOX, context.join("busybox")).context("copy busybox (busybox-static)")?;
    fs::write(context.join("Dockerfile"), DOCKERFILE)?;
    cluster.coracle(&["image", "build", "-t", BUILT, &context.display().to_string()])?;
    Ok(())
}

/// How many regular files there are below a folder.
fn walk(folder: &std::path::Path) -> anyhow::Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        found += if kind.is_dir() { walk(&entry.path())? } else { usize::from(kind.is_file()) };
    }
    Ok(found)
}
