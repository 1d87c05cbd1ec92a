//! Where overlays cannot be mounted, containers of images run with copies. All of this test's folders are on
//! an overlay, on which the kernel mounts no other: the program is started again in a mount namespace of its
//! own for that, as root.

use std::{fs, io::Write as _, process::Command, time::Instant};

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

/// The bytes of one file, which each copy would take if it did not share them.
const BIG_BYTES: usize = 64 << 20;

/// An image with that file.
const BIG: &str = "test/big:1";
const BIG_DOCKERFILE: &str = "FROM scratch
COPY busybox /bin/busybox
COPY big /big
";

/// Two copies of it, of which one is changed.
const BIG_POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: big}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: changes
    image: test/big:1
    command: [/bin/busybox, sh, -c]
    args: ['echo other | busybox dd of=/big conv=notrunc; busybox head -c6 /big > /shared/changed; exec busybox sleep 1000']
    volumeMounts: &shared [{name: shared, mountPath: /shared}]
  - name: keeps
    image: test/big:1
    command: [/bin/busybox, sh, -c]
    args: ['until [ -s /shared/changed ]; do busybox sleep 0.1; done; busybox cat /shared/changed; busybox head -c6 /big; echo; exec busybox sleep 1000']
    volumeMounts: *shared
  volumes: [{name: shared, emptyDir: {}}]
";

/// The first words of what the test says of time and room.
const COPIED: &str = "copied: ";

pub(crate) fn pods_run_where_overlays_cannot_be_mounted() -> anyhow::Result<()> {
    start("on_an_overlay").map(drop)
}

/// Where the file system can have one file share the bytes of another.
pub(crate) fn copies_share_their_bytes() -> anyhow::Result<()> {
    let said = start("sharing_on_an_overlay")?;
    let line = said.lines().find(|it| it.starts_with(COPIED)).context("no time is told")?;
    println!("{line}");
    Ok(())
}

/// Whether files in the folder of temporary files can share their bytes.
pub(crate) fn can_share() -> bool {
    let share = || -> anyhow::Result<()> {
        let (mut from, to) = (tempfile::tempfile()?, tempfile::tempfile()?);
        from.write_all(b"shared")?;
        Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
    };
    share().is_ok()
}

/// Starts a test where its folders are on an overlay, and returns what it said. What is mounted ends with
/// the namespace.
fn start(test: &str) -> anyhow::Result<String> {
    let before = Snapshot::take()?;
    let folder = tempfile::tempdir()?;
    for name in ["lower", "upper", "work", "tmp"] {
        fs::create_dir(folder.path().join(name))?;
    }
    let script = r#"cd "$1" && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work tmp &&
        exec "$2" --quiet --exact "$3""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(folder.path());
    command.arg(std::env::current_exe()?).arg(test).env("TMPDIR", folder.path().join("tmp"));
    let output = command.env("ON_OVERLAY", "1").output().context("start unshare")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && said.contains("1 passed"), "{said}");
    unchanged(&before)?;
    Ok(said)
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

/// The disk has room for none of the copies' bytes twice, but for what one has changed.
pub(crate) fn sharing_on_an_overlay() -> anyhow::Result<()> {
    let cluster = Cluster::new("shared")?;
    let context = cluster.data().join("context");
    fs::create_dir_all(&context)?;
    let bytes: Vec<u8> =
        b"a byte of a file that is big\n".iter().copied().cycle().take(BIG_BYTES).collect();
    fs::write(context.join("big"), bytes)?;
    fs::copy(BUSYBOX, context.join("busybox")).context("copy busybox (busybox-static)")?;
    fs::write(context.join("Dockerfile"), BIG_DOCKERFILE)?;
    cluster.coracle(&["image", "build", "-t", BIG, &context.display().to_string()])?;
    cluster.write("app.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none}\n")?;
    cluster.up()?;
    let roots = r"jsonpath={.items[0].metadata.annotations.coracle\.dev/image-roots}";
    let roots = cluster.kubectl(&["get", "nodes", "--output", roots])?;
    ensure!(roots.starts_with("copy: "), "{roots}");
    // The first one has the layers unpacked.
    cluster.apply(&BIG_POD.replace("{name: big}", "{name: first}"))?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/first", "--timeout=60s"])?;
    let before = used(&cluster)?;
    #[expect(clippy::disallowed_methods, reason = "tells how long copies take in real time")]
    let start = Instant::now();
    cluster.apply(BIG_POD)?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/big", "--timeout=60s"])?;
    let time = start.elapsed();
    let more = used(&cluster)?.saturating_sub(before);
    println!(
        "{COPIED}two copies of {BIG_BYTES} bytes take {more}; the pod was ready after {time:?}"
    );
    let mut log = String::new();
    eventually("both have shown theirs", || {
        log = cluster.kubectl(&["logs", "big", "--container", "keeps"])?;
        Ok(log.ends_with("byte\n"))
    })?;
    ensure!(log == "other\na byte\n", "{log}");
    ensure!(more < BIG_BYTES as u64, "two copies of {BIG_BYTES} bytes take {more} more");
    Ok(())
}

/// The bytes that are used on the disk of a cluster, when all is written.
fn used(cluster: &Cluster) -> anyhow::Result<u64> {
    rustix::fs::sync();
    let disk = rustix::fs::statvfs(cluster.data().as_path())?;
    Ok((disk.f_blocks - disk.f_bfree) * disk.f_frsize)
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
