//! Where the programs of others run: in mount and network namespaces of their own, so that none of
//! their files, bridges and rules stay on the machine. There is one version of control groups only,
//! as crun wants it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::Instant,
};

/// Where CNI's plug-ins keep which addresses they gave.
const CNI: &str = "/var/lib/cni";

const GROUPS: &str = "/sys/fs/cgroup";

/// The files that they would leave are in memory and go with the namespaces.
const SCRIPT: &str = "\
set -e
for it in unified systemd; do
    if [ -e /sys/fs/cgroup/unified ] && [ -e /sys/fs/cgroup/$it ]; then umount /sys/fs/cgroup/$it; fi
done
for it in /run /dev/shm /var/lib/cni; do mount -t tmpfs tmpfs $it; done
echo made
exec cat
";

/// After this long a program has hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// The namespaces; they are there as long as a process that does nothing.
pub(super) struct Room {
    holder: Child,
    id: u32,
    folder: PathBuf,
    made_cni: bool,
    /// Control groups that were there before.
    groups: BTreeSet<PathBuf>,
}

/// Which network a program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// That of the room, which leads nowhere.
    Own,
    /// The machine's.
    Machine,
}

impl Room {
    /// Makes it. `folder` is on the disk, for what they keep.
    pub(super) async fn open(folder: &Path) -> anyhow::Result<Self> {
        let made_cni = fs::create_dir(CNI).is_ok();
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "sh", "-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("run unshare")?;
        let id = holder.id().context("unshare has ended")?;
        let output = holder.stdout.take().context("the output of unshare")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await?;
        ensure!(line.trim() == "made", "no namespaces of their own for the programs of others");
        let folder = folder.join("room");
        fs::create_dir(&folder)?;
        Ok(Self { holder, id, folder, made_cni, groups: groups() })
    }

    /// A folder on the disk for them.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program with its arguments in it.
    fn command(&self, network: Network, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id.to_string(), "--mount"]);
        if network == Network::Own {
            command.arg("--net");
        }
        command.arg("--").args(words).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs programs one after the other, which must succeed, and returns how long they took. What a
    /// container inherits of them stays open, so they write to a file.
    pub(super) async fn run(
        &self,
        network: Network,
        commands: &[Vec<String>],
    ) -> anyhow::Result<Duration> {
        let file = tempfile::NamedTempFile::new_in(&self.folder)?;
        let start = Instant::now();
        for words in commands {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let mut command = self.command(network, &words);
            command.stdout(Stdio::null()).stderr(file.reopen()?);
            let status = tokio::time::timeout(PATIENCE, command.status()).await;
            let status = status.with_context(|| format!("{words:?} does not end"))?;
            if !status.with_context(|| format!("run {words:?}"))?.success() {
                let said = fs::read_to_string(file.path())?;
                bail!("`{}`: {}", words.join(" "), said.trim());
            }
        }
        Ok(start.elapsed())
    }

    /// Runs a program that starts no container and must succeed, and returns what it says.
    pub(super) async fn read(&self, network: Network, words: &[String]) -> anyhow::Result<String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = self.command(network, &words).output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`{}`: {}", words.join(" "), said.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Ends it, and removes the control groups that they left.
    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        self.holder.kill().await?;
        if self.made_cni {
            fs::remove_dir(CNI).with_context(|| format!("remove `{CNI}`"))?;
        }
        // Those below first.
        for group in groups().difference(&self.groups).collect::<Vec<_>>().into_iter().rev() {
            fs::remove_dir(group).with_context(|| format!("remove `{}`", group.display()))?;
        }
        Ok(())
    }
}

/// All groups that are there with one of their names, those above first.
fn groups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut next: Vec<PathBuf> = Vec::new();
    for hierarchy in folders(Path::new(GROUPS)) {
        let names = ["libpod_parent", "conmon", super::peers::GROUP].map(|it| hierarchy.join(it));
        next.extend(names.into_iter().filter(|it| it.is_dir()));
    }
    while let Some(group) = next.pop() {
        next.extend(folders(&group));
        found.insert(group);
    }
    found
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    entries.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()).collect()
}
