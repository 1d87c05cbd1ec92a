//! Runs the commands of a build, each in a container of a shim on the host's network.

use std::{
    fs, io,
    os::unix::{fs::DirBuilderExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use ::image::{IdMap, Owners, build::Step};
use anyhow::{Context as _, bail};
use shim::{
    Client, Nursery, NurseryCommand,
    wire::{self, ContainerSpec, PodSpec, ProcessSpec, Root, SpareSpec, User},
};

use crate::{directories::Directories, output};

/// Begins the name of a build's run folder. No name of a cluster begins so.
const PREFIX: &str = ".build-";

/// The only container of a step.
const NAME: &str = "run";

/// Runs containers, one after the other.
#[derive(Debug)]
pub(crate) struct Containers<'a> {
    directories: &'a Directories,
}

impl<'a> Containers<'a> {
    /// Nothing is started yet.
    pub(crate) fn new(directories: &'a Directories) -> Self {
        Self { directories }
    }

    /// Runs a command to its end, prints what it has printed, and gives its exit code.
    pub(crate) fn run(&self, step: &Step<'_>) -> anyhow::Result<i32> {
        let parent = self.directories.run.parent().context("the run folder has no parent")?;
        remove_leftovers(parent).context("remove what a killed build has left")?;
        let run = RunFolder::new(parent).context("make a run folder")?;
        let (nursery, mut process) = start_nursery(&run.path).context("start the nursery")?;
        let ended = self.run_in(&nursery, &run.path, step);
        drop(nursery);
        process.wait().context("wait for the nursery")?;
        ended
    }

    fn run_in(&self, nursery: &Nursery, run: &Path, step: &Step<'_>) -> anyhow::Result<i32> {
        let (pod, place) = (run.join("pod"), run.join("place"));
        for folder in [&pod, &place] {
            fs::DirBuilder::new().mode(0o700).create(folder)?;
        }
        let state = self.directories.state.parent().map(Path::to_path_buf);
        let masked = state.into_iter().filter(|it| it.exists()).chain([run.to_owned()]).collect();
        let cgroups = Vec::new();
        let spec = SpareSpec { masked, place, cgroups, host_ipc: false, users: None };
        let spare = nursery.spare(&spec, None)?;
        let mut client = Client::from_socket(spare);
        let (pid, _) = client.ready().context("make the container's namespaces")?;
        let process = shim::Process::open(pid)?;
        let (name, hostname) = ("image/build".to_owned(), "build".to_owned());
        client.pod(PodSpec { name, dir: pod.clone(), hostname, sysctls: Vec::new() })?;
        let log = run.join("log");
        let code = run_to_end(&mut client, &pod, (step, run, &log));
        show(&log).context("read what the command has printed")?;
        // After one that could not be started there is nothing to remove.
        client.remove(NAME).ok();
        client.exit()?;
        drop(process);
        code
    }
}

/// Whatever fails here, the shim is still to be ended.
fn run_to_end(
    client: &mut Client,
    pod: &Path,
    (step, run, log): (&Step<'_>, &Path, &Path),
) -> anyhow::Result<i32> {
    let explained = |error| explained(error, step);
    client.create(container(step, log.to_owned())?).map_err(explained)?;
    let mut exits = Client::connect(pod)?;
    exits.subscribe()?;
    let seccomp = node::default_seccomp(run)?;
    client.start(NAME, command(step, seccomp)).map_err(explained)?;
    let _stopper = Stopper::new(pod)?;
    Ok(exits.exited()?.code)
}

/// Why the container of a step could not be made or started, where its root is why.
fn explained(error: shim::Error, step: &Step<'_>) -> anyhow::Error {
    match node::no_overlays(step.writable) {
        Ok(Some(why)) => anyhow::Error::from(error).context(format!(
            "RUN needs overlays, and {why}: keep the images on another disk (`XDG_DATA_HOME`), or build as root"
        )),
        // What else may be wrong says the error itself.
        Ok(None) | Err(_) => error.into(),
    }
}

fn container(step: &Step<'_>, log: PathBuf) -> anyhow::Result<ContainerSpec> {
    let owners = Owners::of_process()?;
    let host = |path: &str| Some(PathBuf::from(path)).filter(|it| it.exists());
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
    Ok(ContainerSpec {
        id: NAME.to_owned(),
        root: Root::Layers {
            layers: step.layers.to_vec(),
            writable: step.writable.to_owned(),
            read_only: false,
        },
        resolv_conf: host("/etc/resolv.conf"),
        hosts: host("/etc/hosts"),
        shm_bytes: wire::SHM_BYTES,
        log,
        user_namespace: user_namespace(&owners, step),
        masked_paths: paths(&wire::MASKED_PATHS),
        read_only_paths: paths(&wire::READ_ONLY_PATHS),
        ..ContainerSpec::default()
    })
}

/// The whole map where there is one; else the container has the one identity that it runs as.
fn user_namespace(owners: &Owners, step: &Step<'_>) -> Option<wire::IdMap> {
    if let Owners::Single { .. } = owners {
        return Some(wire::IdMap::default());
    }
    let (uids, gids) = owners.nested(step.user.uid, step.user.gid)?;
    let range = |IdMap { inside, outside, count }| wire::IdRange { inside, outside, count };
    let ranges = |it: Vec<IdMap>| it.into_iter().map(range).collect();
    Some(wire::IdMap { uids: ranges(uids), gids: ranges(gids) })
}

fn command(step: &Step<'_>, seccomp: PathBuf) -> ProcessSpec {
    let ::image::build::User { uid, gid, groups, .. } = step.user;
    ProcessSpec {
        argv: step.arguments.to_vec(),
        env: step.env.to_vec(),
        cwd: Some(PathBuf::from(step.workdir)),
        user: Some(User::Ids { uid: *uid, gid: *gid, groups: groups.clone() }),
        seccomp: Some(seccomp),
        ..ProcessSpec::default()
    }
}

/// Prints the text of a log and of those before it: lines are `TIME STREAM P|F TEXT`.
fn show(log: &Path) -> io::Result<()> {
    let rotated = (1..=4).rev().map(|it| format!("{}.{it}", log.display()));
    for path in rotated.map(PathBuf::from).chain([log.to_owned()]) {
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in String::from_utf8_lossy(&text).lines() {
            output::note(line.splitn(4, ' ').nth(3).unwrap_or_default());
        }
    }
    Ok(())
}

/// A nursery whose shims stay on this process's network.
fn start_nursery(dir: &Path) -> io::Result<(Nursery, Child)> {
    let mut child = None;
    let nursery = Nursery::start_on_host(dir, |command| {
        let NurseryCommand { arguments, stdin, stderr } = command;
        // By name: what runs this process is of a mount namespace that it has left.
        let mut command = Command::new(std::env::current_exe()?);
        if let Some((name, arguments)) = arguments.split_first() {
            command.arg0(name).args(arguments);
        }
        command.env_clear().stdin(stdin).stdout(Stdio::null()).stderr(stderr);
        child = Some(command.spawn()?);
        Ok(())
    })?;
    child.map(|it| (nursery, it)).ok_or_else(|| io::Error::other("it was not started"))
}

/// Kills the container when the user wants the build to end: it is in a session of its own.
struct Stopper {
    /// Ends the thread when this is dropped.
    _end: tokio::sync::oneshot::Sender<()>,
}

impl Stopper {
    fn new(pod: &Path) -> anyhow::Result<Self> {
        let (end, ended) = tokio::sync::oneshot::channel();
        let pod = pod.to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let wait = async move {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = ended => return Ok(()),
                done = tokio::signal::ctrl_c() => done?,
                _ = terminate.recv() => {}
            }
            const SIGKILL: i32 = 9;
            Client::connect(&pod)?.stop(NAME, SIGKILL, 0).map_err(io::Error::other)
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(wait) {
                output::note(&format!("cannot end the command: {error}"));
            }
        })?;
        Ok(Self { _end: end })
    }
}

/// A folder for sockets, locked as long as its build lives.
struct RunFolder {
    path: PathBuf,
    _lock: fs::File,
}

impl RunFolder {
    fn new(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let lock = fs::File::open(&path)?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            output::note(&format!("`{}` stays: {error}", self.path.display()));
        }
    }
}

/// Ends the shims of builds that were killed, with their containers, and removes their folders.
fn remove_leftovers(parent: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().map(|it| it.to_string_lossy().into_owned());
        if !name.is_some_and(|it| it.starts_with(PREFIX)) {
            continue;
        }
        let Ok(folder) = fs::File::open(&path) else { continue };
        if folder.try_lock().is_err() {
            continue;
        }
        if let Ok(mut client) = Client::connect(&path.join("pod")) {
            const SIGKILL: i32 = 9;
            client.stop(NAME, SIGKILL, 0).ok();
            let mut exits = Client::connect(&path.join("pod"))?;
            exits.subscribe()?;
            if exits.exited()?.id != NAME {
                bail!("a shim of a build has another container");
            }
            client.remove(NAME)?;
            client.exit()?;
        }
        fs::remove_dir_all(&path)?;
    }
    Ok(())
}
