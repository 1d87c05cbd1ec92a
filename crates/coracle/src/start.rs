//! Starts what of a cluster does not run: the keeper on the host's side, the cluster process, or both.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use keeper::{FailureKind, SpawnError};
use serde::{Deserialize, Serialize};

use crate::{
    cli::{Durability, StartArguments},
    directories::Directories,
    lock::{self, Lock, Running},
};

/// How much of a log is shown when a process ends without a word, in bytes.
const LOG_TAIL_BYTES: u64 = 4096;

/// Largest log file of the cluster's own processes that a start appends to, in bytes; a larger one is
/// kept as `.old` and a new one begun.
const LOG_BYTES_MAX: u64 = 10 << 20;

/// The one line that a cluster process says on its standard output when its start is decided.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It serves, and this is where.
    Ready(Running),
    /// It could not start, and these are the reasons, the outermost first.
    Failed(Vec<String>),
}

/// Makes sure that the cluster runs. Returns it and whether this call started it.
pub(crate) fn ensure(
    directories: &Directories,
    arguments: &StartArguments,
) -> anyhow::Result<(Running, bool)> {
    directories.create()?;
    let _lifecycle = Lock::wait(&directories.run, lock::LIFECYCLE)?;
    if let Some(running) = lock::running(&directories.run)? {
        ensure_keeper(directories, &running)?;
        return Ok((running, false));
    }
    let new_keeper = match keeper::Client::connect(&directories.run) {
        Ok(_) => None,
        Err(_) => Some(new_keeper(directories)?),
    };
    match (spawn_cluster(directories, arguments), new_keeper) {
        (Ok(running), _) => Ok((running, true)),
        // What this call started it also ends; what ran before runs on.
        (Err(error), Some(keeper))
            if shim::live(&directories.run).is_ok_and(|it| it.is_empty()) =>
        {
            if let Err(failed) = keeper.exit() {
                tracing::warn!(error = %failed, "the keeper stays");
            }
            Err(error)
        }
        (Err(error), _) => Err(error),
    }
}

/// Makes sure that the cluster that runs has a keeper: its process replaces one that dies, but not
/// all of them at once.
fn ensure_keeper(directories: &Directories, running: &Running) -> anyhow::Result<()> {
    if keeper::Client::connect(&directories.run).is_ok() {
        return Ok(());
    }
    let adopt = keeper::Process::of(running.pid.cast_unsigned());
    let adopt = adopt.with_context(|| format!("find cluster process {}", running.pid))?;
    match spawn_keeper(directories, Some(adopt)) {
        Err(SpawnError::Keeper(keeper::Error::Failed(failure)))
            if failure.kind == FailureKind::AnotherKeeper =>
        {
            // One of its standbys was about to take over, and now has.
            Ok(())
        }
        done => done.map(drop).context("start another keeper"),
    }
}

/// Starts the keeper of a cluster that does not run. Pods that outlived everything else have the
/// namespaces; without any, it makes new ones.
fn new_keeper(directories: &Directories) -> anyhow::Result<keeper::Client> {
    let live = shim::live(&directories.run).context("look for pods that run")?;
    let adopt = live.first().map(|it| keeper::Process {
        pid: it.pid,
        start_time: it.start_time,
        cluster_net: it.cluster_net,
    });
    spawn_keeper(directories, adopt).context("start the keeper")
}

fn spawn_keeper(
    directories: &Directories,
    adopt: Option<keeper::Process>,
) -> Result<keeper::Client, SpawnError> {
    let spawn = keeper::Spawn {
        executable: Path::new("/proc/self/exe"),
        name: &directories.name,
        run_dir: &directories.run,
        log: Some(&directories.keeper_log()),
        adopt,
    };
    keeper::spawn(&spawn)
}

fn spawn_cluster(directories: &Directories, arguments: &StartArguments) -> anyhow::Result<Running> {
    let log = directories.state.join("cluster.log");
    let mut command = own_command(&log)?;
    command.args(["cluster", "--name", &directories.name, "--durability"]);
    command.arg(match arguments.durability {
        Durability::Disk => "disk",
        Durability::Process => "process",
    });
    if let Some(port) = arguments.port {
        command.args(["--port", &port.to_string()]);
    }
    let ranges = [("--pod-cidr", arguments.pod_cidr), ("--service-cidr", arguments.service_cidr)];
    for (flag, range) in ranges {
        command.args(range.map(|it| format!("{flag}={it}")));
    }
    let said = first_line(&mut command).context("start the cluster process")?;
    match serde_json::from_str(&said) {
        Ok(Answer::Ready(running)) => Ok(running),
        Ok(Answer::Failed(reasons)) => {
            let mut reasons = reasons.into_iter().rev();
            let innermost = anyhow::anyhow!(reasons.next().unwrap_or_default());
            Err(reasons.fold(innermost, anyhow::Error::context))
                .with_context(|| format!("cluster `{}` could not start", directories.name))
        }
        Err(_) => {
            bail!("the cluster process ended without a word: see `{}`{}", log.display(), tail(&log))
        }
    }
}

/// This program again, detached from the terminal, its standard error going to `log`.
fn own_command(log: &Path) -> anyhow::Result<Command> {
    if fs::metadata(log).is_ok_and(|it| it.len() > LOG_BYTES_MAX) {
        fs::rename(log, log.with_extension("log.old"))
            .with_context(|| format!("put aside log `{}`", log.display()))?;
    }
    let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(log);
    let file = file.with_context(|| format!("open log `{}`", log.display()))?;
    // By descriptor, so that a binary replaced meanwhile does not matter.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("coracle").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
    Ok(command)
}

/// Starts the command, which stays, and returns the first line of its standard output; empty if it
/// ended without one.
fn first_line(command: &mut Command) -> anyhow::Result<String> {
    let mut child = command.spawn().context("start this program again")?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).context("hear from it")?;
    }
    Ok(line.trim_end().to_owned())
}

fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) if !text.trim().is_empty() => format!(", which ends with:\n{}", text.trim_end()),
        _ => String::new(),
    }
}
