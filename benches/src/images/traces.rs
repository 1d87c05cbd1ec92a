//! What of a pod there is in the machine: processes, control groups, mounts and files. A pod is gone when
//! none of it is left, which is some time after its object is.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};

/// Between two looks; bounds the error of the figure.
const POLL: Duration = Duration::from_micros(200);

/// What was found of a pod.
pub(super) struct Traces {
    paths: Vec<PathBuf>,
    uid: String,
    /// The mounts that the cluster process sees.
    mounts: PathBuf,
}

impl Traces {
    /// Looks in all of the machine for a pod that has so many processes, or will have in a moment.
    /// `folders` are the cluster's, `server` is its process.
    pub(super) async fn find(
        uid: &str,
        processes: usize,
        folders: &[&Path],
        server: u32,
    ) -> anyhow::Result<Self> {
        let mut paths = self::processes(uid)?;
        while paths.len() < processes {
            tokio::time::sleep(POLL).await;
            paths = self::processes(uid)?;
        }
        for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
            for group in entries(&hierarchy) {
                paths.push(group.join(format!("pod{uid}")));
            }
        }
        paths.extend(folders.iter().map(|it| it.join("pods").join(uid)));
        paths.retain(|it| it.exists());
        ensure!(paths.len() > processes, "the pod {uid} has no folder");
        let mounts = PathBuf::from(format!("/proc/{server}/mountinfo"));
        Ok(Self { paths, uid: uid.to_owned(), mounts })
    }

    /// Waits until all of it is gone.
    pub(super) async fn gone(&self) -> anyhow::Result<()> {
        while self.paths.iter().any(|it| it.exists()) || self.is_mounted()? {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn is_mounted(&self) -> anyhow::Result<bool> {
        let read = fs::read_to_string(&self.mounts);
        let mounts = read.with_context(|| format!("read `{}`", self.mounts.display()))?;
        Ok(mounts.contains(&self.uid))
    }
}

/// The folders of processes whose command line or mounts name the pod: its shim's and its containers'.
fn processes(uid: &str) -> anyhow::Result<Vec<PathBuf>> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let is_process = name.to_string_lossy().parse::<u32>().is_ok();
        if !is_process || name.to_string_lossy() == own {
            continue;
        }
        // It may end while we look, or be a thread of the kernel.
        let names_it = |file| {
            let text = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(uid)
        };
        if names_it("cmdline") || names_it("mountinfo") && !is_shared(&entry.path()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether a process is of the cluster and not of a pod: they see the mounts of all pods.
fn is_shared(process: &Path) -> bool {
    let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments);
    let mut words = arguments.split('\0').skip(1);
    words.next().is_some_and(|it| ["cluster", "keeper", "shim"].contains(&it))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|it| it.path()).filter(|it| it.is_dir()).collect()
}
