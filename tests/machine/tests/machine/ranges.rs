//! An ordinary user with subordinate ids: a build and a pod have all the users that an image has, and what
//! belongs to them goes without a cluster.
//!
//! `RANGE` says which ids those are: `FIRST COUNT`.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::{
    clean::{belongings, unchanged},
    cluster::{Cluster, eventually},
    host::Snapshot,
};

/// The image that is built.
const BUILT: &str = "test/owners:1";

/// What `busybox-static` installs.
const BUSYBOX: &str = "/bin/busybox";

/// `--chown` and `chown` give files away, and a folder that only another user may look into.
const DOCKERFILE: &str = r#"FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY --chown=1000:1001 given /srv/given
RUN echo root:x:0:0:root:/:/bin/sh > /etc/passwd && echo web:x:1000:1001:web:/srv:/bin/sh >> /etc/passwd
RUN touch /srv/taken && chown 33:34 /srv/taken && mkdir -m 700 /srv/shut && \
    touch /srv/shut/file && chown -R 500:600 /srv/shut && stat -c 'built %n %u:%g' /srv/*
WORKDIR /srv
"#;

/// Runs as a user of the image, with a group of the volume's, and beside it as root.
const POD: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: owners}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  containers:
  - name: web
    image: test/owners:1
    securityContext: {runAsUser: 1000}
    command: [/bin/sh, -c]
    args:
    - |
      id
      stat -c '%n %u:%g' /bin/busybox given taken shut
      cat shut/file || echo shut is shut
      echo mine > given && echo given is mine
      touch /shared/file && stat -c '%n %u:%g' /shared/file
      chown 5 given || echo given stays
      echo shown
      exec sleep 1000
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: root
    image: test/owners:1
    command: [/bin/sh, -c]
    args:
    - |
      cat shut/file && echo shut is open
      chown 5:6 taken && stat -c '%n %u:%g' taken
      mkdir -m 700 /own /shared/own && touch /own/file /shared/own/file && chown -R 7:8 /own /shared/own
      chown 70000 taken || echo no such user
      echo shown
      exec sleep 1000
    volumeMounts: [{name: shared, mountPath: /shared}]
  volumes: [{name: shared, emptyDir: {}}]
"#;

/// The subordinate ids that the user was given for these tests.
#[expect(clippy::disallowed_methods, reason = "how the tests are told")]
pub(crate) fn range() -> Option<(u32, u32)> {
    let text = std::env::var("RANGE").ok()?;
    let (first, count) = text.split_once(' ')?;
    Some((first.parse().ok()?, count.parse().ok()?))
}

/// The owners of all files below `folder` that can be seen.
fn owners(folder: &Path) -> anyhow::Result<Vec<u32>> {
    let mut found = vec![fs::symlink_metadata(folder)?.uid()];
    // Another user's folder may be shut.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(owners(&entry.path())?);
        } else {
            found.push(entry.metadata()?.uid());
        }
    }
    Ok(found)
}

fn lines(cluster: &Cluster, container: &str, expected: &[&str]) -> anyhow::Result<()> {
    let mut log = String::new();
    eventually("the container has shown all", || {
        log = cluster.kubectl(&["logs", "owners", "--container", container])?;
        Ok(log.contains("shown"))
    })?;
    for line in expected {
        ensure!(log.lines().any(|it| it == *line), "{container} says no `{line}`:\n{log}");
    }
    Ok(())
}

fn in_staging_and_layers(images: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(images)? {
        let path = entry?.path();
        let is_one = |it: &str| it.starts_with("layers") || it.starts_with("staging");
        if path.file_name().and_then(|it| it.to_str()).is_some_and(is_one) {
            for entry in fs::read_dir(&path)? {
                found.push(entry?.path());
            }
        }
    }
    Ok(found)
}

/// Built, run, and removed.
pub(crate) fn users_of_an_image_are_users() -> anyhow::Result<()> {
    let (first, count) = range().context("RANGE")?;
    let before = Snapshot::take()?;
    let cluster = Cluster::new("owners")?;
    let context = cluster.data().join("context");
    fs::create_dir(&context)?;
    fs::copy(BUSYBOX, context.join("busybox")).context("copy busybox (busybox-static)")?;
    fs::write(context.join("given"), "")?;
    fs::write(context.join("Dockerfile"), DOCKERFILE)?;
    let said = cluster.coracle(&["image", "build", "-t", BUILT, &context.display().to_string()])?;
    for line in ["built /srv/given 1000:1001", "built /srv/taken 33:34", "built /srv/shut 500:600"]
    {
        ensure!(said.lines().any(|it| it == line), "no `{line}`:\n{said}");
    }
    cluster.write("app.yaml", POD)?;
    cluster.up()?;
    lines(
        &cluster,
        "web",
        &[
            "uid=1000(web) gid=1001 groups=1001,2000",
            "/bin/busybox 0:0",
            "given 1000:1001",
            "taken 33:34",
            "shut 500:600",
            "shut is shut",
            "given is mine",
            "/shared/file 1000:2000",
            "given stays",
        ],
    )?;
    lines(&cluster, "root", &["shut is open", "taken 5:6", "no such user"])?;
    let condition = r#"jsonpath={.status.conditions[?(@.type=="coracle.dev/ImageOwners")].status}"#;
    let lost = cluster.kubectl(&["get", "pod", "owners", "--output", condition])?;
    ensure!(lost.is_empty() || lost == "True", "owners are lost: {lost}");
    let images = cluster.data().join("coracle/images");
    let of_range = |it: &u32| (first..first + count).contains(it);
    ensure!(owners(&images)?.iter().any(of_range), "no layer has a file of the range");

    cluster.coracle(&["down", "--delete"])?;
    eventually("all processes are gone", || Ok(belongings(&cluster)?.is_empty()))?;
    ensure!(!cluster.state().exists() && !cluster.run_folder().exists(), "folders are left");
    let said = cluster.coracle(&["image", "rm", BUILT])?;
    ensure!(said.trim().is_empty(), "{said}");
    let said = cluster.coracle(&["image", "prune"])?;
    ensure!(!said.contains("stay"), "{said}");
    let left = in_staging_and_layers(&images)?;
    ensure!(left.is_empty(), "left are {left:?}");
    ensure!(!owners(&images)?.iter().any(of_range), "files of the range are left");
    unchanged(&before)
}
