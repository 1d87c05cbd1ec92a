//! `coracle snapshot`, `restore` and `fork`: all objects of a cluster as a file, and a cluster from it.
//!
//! Only objects: what pods have written into volumes is not in a snapshot. Of a cluster that runs,
//! its API gives the snapshot; of one that does not, the store in its folder.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use http_body_util::BodyExt as _;
use store::{Backup, OpenError, Revision, Store};

use crate::{
    directories::Directories,
    lock::{self, Lock},
    output, session,
};

/// Where the API gives the snapshot.
const PATH: &str = "/snapshot";

/// How far a store may have gone on after a snapshot, when it is too damaged to tell: more writes
/// than a cluster of one machine makes in days.
const UNKNOWN_REVISIONS: u64 = 1 << 32;

/// `coracle snapshot FILE`.
pub(crate) fn save(directories: &Directories, file: &Path) -> anyhow::Result<ExitCode> {
    let (backup, bytes) = take(directories)?;
    let shown = if file == Path::new("-") {
        let mut out = io::stdout().lock();
        out.write_all(&bytes).and_then(|()| out.flush()).context("write to standard output")?;
        "standard output".to_owned()
    } else {
        write(file, &bytes).with_context(|| format!("write `{}`", file.display()))?;
        format!("`{}`", file.display())
    };
    let (name, said) = (&directories.name, describe(&backup));
    output::note(&format!("{shown} has {said} of cluster `{name}`, {} bytes", bytes.len()));
    Ok(ExitCode::SUCCESS)
}

/// `coracle restore FILE`.
pub(crate) fn restore(
    directories: &Directories,
    file: &Path,
    existing: Existing,
) -> anyhow::Result<ExitCode> {
    let bytes = read(file)?;
    let backup = Backup::read(&bytes).with_context(|| format!("read `{}`", file.display()))?;
    install(directories, backup, existing)?;
    Ok(ExitCode::SUCCESS)
}

/// `coracle fork NEW`.
pub(crate) fn fork(directories: &Directories, new: &Directories) -> anyhow::Result<ExitCode> {
    let (backup, _) = take(directories)?;
    install(new, backup, Existing::Refuse)?;
    Ok(ExitCode::SUCCESS)
}

/// Puts the file in place, for its owner's eyes only, when all of it is durable: until then, a file of
/// that name is what it was.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    draft.persist(file).map_err(|it| it.error)?;
    fs::File::open(folder)?.sync_all()
}

/// What becomes of the objects that a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is none of our business: nothing is done.
    Refuse,
    /// They go.
    Replace,
}

fn describe(backup: &Backup) -> String {
    format!("{} objects as of resource version {}", backup.len(), backup.revision())
}

/// Everything a cluster holds, also as a file.
fn take(directories: &Directories) -> anyhow::Result<(Backup, Vec<u8>)> {
    if lock::running(&directories.run)?.is_some() {
        let bytes = session::run(directories, async |session| {
            let request = http::Request::get(PATH).body(kube::client::Body::empty())?;
            let answer = session.client.send(request).await.context("ask the API")?;
            if !answer.status().is_success() {
                bail!("`{PATH}` answers {}: is it an older coracle?", answer.status());
            }
            Ok(answer.into_body().collect().await.context("read the answer")?.to_bytes())
        })?;
        let backup = Backup::read(&bytes).context("read the API's snapshot")?;
        return Ok((backup, bytes.into()));
    }
    if !directories.exists() {
        bail!("cluster `{}` does not exist", directories.name);
    }
    directories.create()?;
    // One that starts meanwhile would find its store in use.
    let _lifecycle = Lock::wait(&directories.run, lock::LIFECYCLE)?;
    let backup = open(directories)?.backup();
    let bytes = backup.pieces().flatten().collect();
    Ok((backup, bytes))
}

fn folder(directories: &Directories) -> PathBuf {
    directories.state.join("store")
}

/// The store of a cluster that does not run.
fn open(directories: &Directories) -> anyhow::Result<Store> {
    let folder = folder(directories);
    if !folder.exists() {
        bail!("cluster `{}` does not exist", directories.name);
    }
    let store = Store::open(&store::Config::new(folder.clone()));
    store.with_context(|| format!("open the store in `{}`", folder.display()))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::stdin().lock(), &mut bytes)
            .context("read standard input")?;
        return Ok(bytes);
    }
    fs::read(file).with_context(|| format!("read `{}`", file.display()))
}

/// Makes it what the cluster holds.
fn install(directories: &Directories, backup: Backup, existing: Existing) -> anyhow::Result<()> {
    directories.create()?;
    let _lifecycle = Lock::wait(&directories.run, lock::LIFECYCLE)?;
    let name = &directories.name;
    if lock::running(&directories.run)?.is_some() || !shim::live(&directories.run)?.is_empty() {
        bail!("cluster `{name}` runs: `coracle down --name {name}` stops it");
    }
    let folder = folder(directories);
    let said = describe(&backup);
    match (folder.exists(), existing) {
        (false, _) => backup.install(&folder)?,
        (true, Existing::Replace) => replace(directories, backup, &folder)?,
        (true, Existing::Refuse) => {
            bail!(
                "cluster `{name}` has objects of its own: give another name, or restore --replace"
            )
        }
    }
    output::note(&format!("cluster `{name}` has {said}; `coracle up --name {name}` starts it"));
    Ok(())
}

/// Puts the folder made of `backup` where the old one is, in one step.
fn replace(directories: &Directories, backup: Backup, folder: &Path) -> anyhow::Result<()> {
    // Clients have seen the old one's resource versions: they must find that their place is gone, and
    // must not see a number come back for another object.
    let seen = match open(directories) {
        Ok(store) => store.revision().get(),
        // A damaged store is a reason to restore.
        Err(error) if error.downcast_ref::<OpenError>().is_some_and(is_damage) => {
            output::note(&format!("warning: {error:#}"));
            backup.revision().get() + UNKNOWN_REVISIONS
        }
        Err(error) => return Err(error),
    };
    let beside = directories.state.join("store.new");
    remove(&beside)?;
    backup.no_earlier_than(Revision::new(seen + 1)).install(&beside)?;
    let (here, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
    rustix::fs::renameat_with(here, &beside, here, folder, exchange)
        .with_context(|| format!("exchange `{}` and `{}`", beside.display(), folder.display()))?;
    // The old one goes only when the new one is in its place for good.
    let state = &directories.state;
    fs::File::open(state)
        .and_then(|it| it.sync_all())
        .with_context(|| format!("flush `{}`", state.display()))?;
    remove(&beside)
}

fn is_damage(error: &OpenError) -> bool {
    match error {
        OpenError::Corrupt { .. } | OpenError::Missing { .. } => true,
        OpenError::Locked { .. } | OpenError::Io { .. } | OpenError::Newer { .. } => false,
    }
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove `{}`", folder.display()))
        }
        _ => Ok(()),
    }
}
