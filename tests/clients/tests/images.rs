//! Images and the registry, judged by skopeo, umoci, podman, buildah and containerd of Debian: what those make is
//! loaded, what is stored they read, what goes through the registry is the same on the other side, and
//! what a Dockerfile says is built alike.
//!
//! Nothing of the machine is used but these programs: images are made of nothing, in folders of the test.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest that a program may take, in seconds: more than ten times what it takes.
const SECONDS_MAX: &str = "60";

/// Bytes of the image's only file: several pieces of every copy, and no work to speak of.
const FILE_BYTES: usize = 3 << 20;

fn variable(name: &str) -> anyhow::Result<PathBuf> {
    let value = env::var_os(name).map(PathBuf::from);
    value.with_context(|| format!("no {name}: run `cargo xtask test images`, which sets it"))
}

/// Folders of one test, and the programs in them.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> anyhow::Result<Self> {
        let this = Self { folder: tempfile::tempdir()? };
        // skopeo wants a policy, and Debian's is only there with other packages.
        let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        std::fs::write(this.path("policy.json"), policy)?;
        Ok(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a program in the test's folder; its standard output.
    fn run(&self, program: &Path, line: &str) -> anyhow::Result<String> {
        let mut command = Command::new("timeout");
        command.arg(SECONDS_MAX).arg(program).args(line.split_whitespace());
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["XDG_DATA_HOME", "XDG_RUNTIME_DIR", "HOME", "XDG_CONFIG_HOME"] {
            let folder = self.path(name);
            std::fs::create_dir_all(&folder)?;
            command.env(name, folder);
        }
        let done = command.output().with_context(|| format!("start {}", program.display()))?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        if !done.status.success() {
            let program = program.display();
            let missing = if done.status.code() == Some(127) {
                " (on Debian: apt-get install skopeo umoci podman buildah containerd busybox-static)"
            } else {
                ""
            };
            let error = String::from_utf8_lossy(&done.stderr);
            bail!("`{program} {line}`: {}{missing}\n{said}\n{error}", done.status);
        }
        Ok(said)
    }

    fn coracle(&self, line: &str) -> anyhow::Result<String> {
        self.run(&variable("CORACLE")?, line)
    }

    fn skopeo(&self, line: &str) -> anyhow::Result<String> {
        self.run(Path::new("skopeo"), &format!("--policy policy.json {line}"))
    }

    fn umoci(&self, line: &str) -> anyhow::Result<String> {
        self.run(Path::new("umoci"), line)
    }

    /// The store, as others read it.
    fn store(&self) -> PathBuf {
        self.path("XDG_DATA_HOME").join("coracle/images")
    }

    /// An image of umoci's, of one file: the layout `layout` with the tag `1`.
    fn image(&self) -> anyhow::Result<()> {
        self.umoci("init --layout layout")?;
        self.umoci("new --image layout:1")?;
        std::fs::create_dir(self.path("tree"))?;
        let content: Vec<u8> = (0..FILE_BYTES)
            .map(|it| (it / 7).to_le_bytes().into_iter().fold(0, u8::wrapping_add))
            .collect();
        std::fs::write(self.path("tree/file"), content)?;
        self.umoci("insert --image layout:1 tree /data")?;
        self.umoci("config --image layout:1 --config.entrypoint /data/file --config.env A=b")?;
        Ok(())
    }

    /// The digest that skopeo says an image has.
    fn digest(&self, image: &str) -> anyhow::Result<String> {
        let said = self.skopeo(&format!("inspect --tls-verify=false {image}"))?;
        let said: Value = serde_json::from_str(&said)?;
        let digest = said.get("Digest").and_then(Value::as_str).context("a digest")?;
        Ok(digest.to_owned())
    }

    fn inspect(&self, image: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.coracle(&format!("image inspect {image}"))?)?)
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `coracle registry` over a folder of its own; killed when dropped.
struct Registry {
    child: Child,
    /// HOST:PORT.
    host: String,
}

impl Registry {
    fn start(world: &World) -> anyhow::Result<Self> {
        let mut command = Command::new(variable("CORACLE")?);
        command.args(["registry", "--listen", "127.0.0.1:0", "-o", "json", "--folder"]);
        command.arg(world.path("registry")).env("XDG_DATA_HOME", world.path("unused"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("standard output of the registry")?;
        let mut this = Self { child, host: String::new() };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        text(&said, "/host").clone_into(&mut this.host);
        Ok(this)
    }

    /// Ends it as a user does.
    fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "coracle registry: {status}");
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It has ended already if the test stopped it.
        if self.child.try_wait().is_ok_and(|it| it.is_none()) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// What both build: stages, a user, links, removals, modes, owners, an archive, patterns.
const DOCKERFILE: &str = r#"FROM scratch AS base
COPY bin /bin
COPY passwd group /etc/
ENV PATH=/bin LANG="C.UTF-8"
CMD ["sh"]
FROM base AS run
ARG GREETING=hello
WORKDIR /work/deep
RUN echo $GREETING > /greeting && mkdir -p /data/deep && touch /data/a /data/b && ln /data/a /data/hard && ln -s a /data/soft && chmod 4755 /data/b
RUN rm -r /data/deep && rm /data/a && chown 100:101 /data/b
FROM run
COPY dir /copied
COPY dir/ ./
COPY *.md /md/
COPY --chown=app:app --chmod=640 dir/x /chowned
COPY --chown=app dir /home/user/
ADD archive.tar /added/
COPY --from=run /greeting /again
LABEL a=b "c d"="e f"
EXPOSE 80 81/udp
VOLUME /v
USER app
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "echo"]
"#;

/// What a build needs beside, and a list of a tree: kinds, modes, owners, links, contents.
const CONTEXT: &str = r#"set -e
mkdir -p context/bin context/dir/deep; cd context
cp "$(command -v busybox)" bin/busybox
for name in sh echo mkdir touch ln chmod chown rm; do ln -s busybox bin/$name; done
echo x > dir/x; echo y > dir/deep/y; ln -s x dir/link; echo no > secret.md; echo yes > kept.md
printf '*.md\n!kept.md\nDockerfile\n' > .dockerignore
printf 'root:x:0:0:root:/:/bin/sh\napp:x:100:101::/:/bin/sh\n' > passwd
printf 'root:x:0:\napp:x:101:\n' > group
tar -cf archive.tar dir
"#;

const LIST: &str = r#"set -e
cd "$1/rootfs"
rm -rf dev proc sys run etc/hosts etc/hostname etc/resolv.conf
find . -mindepth 1 -printf '%p %y %m %U:%G %l\n' | sort
find . -type f -print0 | sort -z | xargs -0 sha256sum
find . -type f -links +1 | sort
"#;

/// Buildah mounts over files that it leaves in the image, and labels it; all else is the same.
#[test]
fn buildah_builds_the_same() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("not root: buildah would not keep owners, and nothing is compared");
        return Ok(());
    }
    let world = World::new()?;
    std::fs::write(world.path("context.sh"), CONTEXT)?;
    std::fs::write(world.path("list.sh"), LIST)?;
    world.run(Path::new("sh"), "context.sh")?;
    std::fs::write(world.path("context/Dockerfile"), DOCKERFILE)?;
    world.coracle("image build -t test.example/built context")?;
    let buildah = |line: &str| {
        let folders = "--root buildah --runroot buildah-run --storage-driver vfs";
        world.run(Path::new("buildah"), &format!("{folders} {line}"))
    };
    let policy = "--signature-policy policy.json";
    buildah(&format!("bud -q --isolation chroot {policy} -t built context"))?;
    buildah(&format!("push -q {policy} built oci:theirs:1"))?;
    let ours = format!("{}:test.example/built:latest", world.store().display());
    world.umoci(&format!("unpack --image {ours} of-coracle"))?;
    world.umoci("unpack --image theirs:1 of-buildah")?;
    let list = |tree: &str| world.run(Path::new("sh"), &format!("list.sh {tree}"));
    let (of_coracle, of_buildah) = (list("of-coracle")?, list("of-buildah")?);
    ensure!(of_coracle == of_buildah, "coracle:\n{of_coracle}\nbuildah:\n{of_buildah}");
    ensure!(of_coracle.lines().count() > 40, "{of_coracle}");
    let config = |image: &str| -> anyhow::Result<Value> {
        let said = world.skopeo(&format!("inspect --config {image}"))?;
        let mut said: Value = serde_json::from_str(&said)?;
        if let Some(labels) = said.pointer_mut("/config/Labels").and_then(Value::as_object_mut) {
            labels.remove("io.buildah.version");
        }
        said.pointer("/config").cloned().context("a configuration")
    };
    let (of_coracle, of_buildah) = (config(&format!("oci:{ours}"))?, config("oci:theirs:1")?);
    ensure!(of_coracle == of_buildah, "coracle: {of_coracle}\nbuildah: {of_buildah}");
    Ok(())
}

#[test]
fn archives_of_others_are_loaded_and_the_store_is_read_by_others() -> anyhow::Result<()> {
    let world = World::new()?;
    world.image()?;
    let wanted = world.digest("oci:layout:1")?;
    world.skopeo("copy -q oci:layout:1 docker-archive:docker.tar:test.example/web:docker")?;
    world.skopeo("copy -q oci:layout:1 oci-archive:oci.tar:test.example/web:oci")?;
    world.coracle("image load docker.tar")?;
    world.coracle("image load oci.tar")?;
    world.coracle("image load layout -t test.example/web:layout")?;
    // A layout and its archive have manifests, which stay as they are; Docker's archive has none.
    for tag in ["oci", "layout"] {
        let found = world.inspect(&format!("test.example/web:{tag}"))?;
        ensure!(text(&found, "/digest") == wanted, "{tag}: {found}");
    }
    let of_docker = world.inspect("test.example/web:docker")?;
    let of_oci = world.inspect("test.example/web:oci")?;
    ensure!(of_docker.get("id") == of_oci.get("id"), "{of_docker} {of_oci}");
    ensure!(
        text(&of_docker, "/config/Env/1") == "A=b" || text(&of_docker, "/config/Env/0") == "A=b"
    );
    let store = world.store();
    let named = format!("oci:{}:test.example/web:docker", store.display());
    ensure!(world.digest(&named)? == text(&of_docker, "/digest"));
    let listed = world.umoci(&format!("ls --layout {}", store.display()))?;
    ensure!(listed.lines().count() == 3, "{listed}");
    // What skopeo takes out of the store is whole: it verifies every digest on the way.
    world.skopeo(&format!("copy -q {named} dir:out"))?;
    world.coracle("image rm test.example/web:docker test.example/web:oci")?;
    ensure!(text(&world.inspect("test.example/web:layout")?, "/digest") == wanted);
    world.coracle("image prune --all")?;
    let blobs = std::fs::read_dir(store.join("blobs/sha256"))?.count();
    ensure!(blobs == 0, "{blobs} blobs are left");
    Ok(())
}

/// A containerd with all its folders in a test's; killed when dropped.
struct Containerd(Child);

impl Containerd {
    /// Starts one; it answers when this returns.
    fn start(world: &World) -> anyhow::Result<Self> {
        let at = world.path("containerd");
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{at}/socket\"\n",
            at = at.display()
        );
        std::fs::create_dir(&at)?;
        std::fs::write(at.join("config.toml"), config)?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(at.join("config.toml")).stderr(Stdio::piped());
        let mut child = command.spawn().context("start containerd")?;
        let said = child.stderr.take().context("standard error of containerd")?;
        let this = Self(child);
        let mut lines = BufReader::new(said).lines();
        let mut before = String::new();
        loop {
            let line = lines.next().with_context(|| format!("containerd ended: {before}"))??;
            if line.contains("containerd successfully booted") {
                // Nobody listens any more to what it says.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(this);
            }
            before.push_str(&line);
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Harmless if it has ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn images_come_out_of_a_running_containerd() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("not root: containerd does not run");
        return Ok(());
    }
    let world = World::new()?;
    world.image()?;
    world.skopeo("copy -q oci:layout:1 oci-archive:oci.tar:test.example/web:1")?;
    let _containerd = Containerd::start(&world)?;
    let ctr = |line: &str| {
        world.run(Path::new("ctr"), &format!("--address containerd/socket --namespace moby {line}"))
    };
    ctr("images import --no-unpack oci.tar")?;
    let name = ctr("images ls -q")?;
    // Enough names that the database has more than one page of them.
    for number in 0..200 {
        ctr(&format!("images tag {} test.example/other/{number}:1", name.trim()))?;
    }
    let wanted = world.digest("oci:layout:1")?;
    for number in [7, 199] {
        let image = format!("test.example/other/{number}:1");
        world.coracle(&format!("image load --from containerd=containerd/root {image}"))?;
        ensure!(text(&world.inspect(&image)?, "/digest") == wanted);
    }
    // As Docker has it beside its own folder.
    std::fs::create_dir_all(world.path("var/docker"))?;
    std::os::unix::fs::symlink(world.path("containerd/root"), world.path("var/containerd"))?;
    world.coracle("image load --from docker=var/docker test.example/other/3:1")?;
    let missing = world.coracle("image load --from docker=var/docker test.example/nobody:1");
    ensure!(missing.is_err_and(|it| it.to_string().contains("is not in the store of docker")));
    Ok(())
}

#[test]
fn the_registry_serves_skopeo_and_podman() -> anyhow::Result<()> {
    let world = World::new()?;
    world.image()?;
    let registry = Registry::start(&world)?;
    let there = format!("docker://{}/team/web", registry.host);
    world.skopeo(&format!("copy -q --dest-tls-verify=false oci:layout:1 {there}:oci"))?;
    world.skopeo(&format!(
        "copy -q --dest-tls-verify=false --format v2s2 oci:layout:1 {there}:docker"
    ))?;
    ensure!(world.digest(&format!("{there}:oci"))? == world.digest("oci:layout:1")?);
    let tags: Value =
        serde_json::from_str(&world.skopeo(&format!("list-tags --tls-verify=false {there}"))?)?;
    ensure!(tags.pointer("/Tags/0") == Some(&Value::from("docker")), "{tags}");
    // Both kinds come, and go on to another name.
    let name = format!("{}/team/web", registry.host);
    for tag in ["oci", "docker"] {
        world.coracle(&format!("image pull {name}:{tag}"))?;
        let digest = world.digest(&format!("{there}:{tag}"))?;
        ensure!(text(&world.inspect(&format!("{name}:{tag}"))?, "/digest") == digest);
        world.coracle(&format!("image push {name}:{tag} {name}/again:{tag}"))?;
        ensure!(world.digest(&format!("{there}/again:{tag}"))? == digest);
    }
    let podman = |line: &str| {
        let folders = "--root podman --runroot podman-run --storage-driver vfs";
        world.run(Path::new("podman"), &format!("{folders} {line}"))
    };
    let id =
        podman(&format!("pull -q --tls-verify=false --signature-policy policy.json {name}:oci"))?;
    ensure!(text(&world.inspect(&format!("{name}:oci"))?, "/id").ends_with(id.trim()), "{id}");
    podman(&format!(
        "push -q --tls-verify=false --signature-policy policy.json {name}:oci {name}:podman"
    ))?;
    world.coracle(&format!("image pull {name}:podman"))?;
    ensure!(text(&world.inspect(&format!("{name}:podman"))?, "/id").ends_with(id.trim()));
    // Out of Podman's own store, which keeps layers unpacked.
    let folders = "--root podman-overlay --runroot podman-run --storage-driver overlay";
    let line =
        format!("{folders} pull -q --tls-verify=false --signature-policy policy.json {name}:oci");
    world.run(Path::new("podman"), &line)?;
    world.coracle("image prune --all")?;
    world.coracle(&format!("image load --from podman=podman-overlay {name}:oci"))?;
    ensure!(text(&world.inspect(&format!("{name}:oci"))?, "/id").ends_with(id.trim()));
    world.skopeo(&format!("delete --tls-verify=false {there}:podman"))?;
    let gone = world.skopeo(&format!("inspect --tls-verify=false {there}:podman"));
    ensure!(gone.is_err_and(|it| it.to_string().contains("manifest unknown")));
    registry.stop()
}
