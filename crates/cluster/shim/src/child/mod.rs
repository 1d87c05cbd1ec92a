//! What a forked child does until it runs the container's program: everything here happens in a
//! process of its own, with one thread, that ends by `execve` or by reporting why not.
//!
//! Does not fork, wait or log: the parent's side is in `container` and `exec`.

mod launch;
mod mounts;
mod privileges;
mod root;
mod terminal;
mod user;
mod volumes;

use std::{
    fmt::Display,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    process::Signal,
    thread::{LinkNameSpaceType, ThreadNameSpaceType},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use launch::Setting;
pub(crate) use privileges::{Users, set_oom_score_adj};

use crate::{
    cgroups::Cgroups,
    sys,
    users::{self, PodUsers},
    wire::{self, ContainerSpec, Decoder, ProcessSpec, Stage, StartError},
};

/// What the child says to the shim. That the program runs it says by closing its end, as `execve`
/// does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The root is made; the process may be sent. Beside it: the shim's end of the terminal, if there
    /// is one. Of a [`maker`], to the first process, the root.
    Prepared,
    /// The end.
    Failed(StartError),
}

/// What all containers of a pod share, known before it is known which pod it is.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) masked: Vec<PathBuf>,
    /// Where roots are mounted while they are made.
    pub(crate) place: PathBuf,
    /// The network namespace; of IPC and UTS the shim's own are the pod's.
    pub(crate) net: Net,
    /// Whether the namespace of IPC is the machine's.
    pub(crate) host_ipc: bool,
    /// The mount namespace of the cluster, and of the shim.
    pub(crate) mounts: OwnedFd,
    /// Whether this is the machine's first user namespace, not one of ours.
    pub(crate) initial_user_namespace: bool,
    /// The user namespace that the pod has for itself.
    pub(crate) users: Option<PodUsers>,
}

/// The network of a pod.
#[derive(Debug)]
pub(crate) enum Net {
    /// Its own.
    Own(OwnedFd),
    /// The one that the shim is in: the host's. Held is that of the cluster, so that it outlives
    /// everybody else and is found through this process.
    Host(OwnedFd),
}

impl Ground {
    /// The network namespace that others are given: see [`crate::wire::Reply::Netns`].
    pub(crate) fn net(&self) -> BorrowedFd<'_> {
        match &self.net {
            Net::Own(it) | Net::Host(it) => it.as_fd(),
        }
    }

    /// The descriptor of the cluster's network namespace, if this process is not in it.
    pub(crate) fn cluster_net(&self) -> Option<i32> {
        match &self.net {
            Net::Own(_) => None,
            Net::Host(cluster) => Some(cluster.as_raw_fd()),
        }
    }
}

/// The standard streams of a new process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stdio<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
}

/// What a container's first process begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin<'a> {
    /// What the roots of all linked containers have, before it is told of its container.
    Early,
    /// Its container.
    Told,
    /// Its container, in the pod's own user namespace, where it has no right to make the root. That does
    /// [`maker`], at the other end of this socket.
    Inside(&'a OwnedFd),
}

/// The first process of a container: makes what every root has, awaits the host name and the
/// container, makes the rest, awaits the process to run, and runs it.
pub(crate) fn container(
    ground: &Ground,
    begin: Begin<'_>,
    cgroups: &Cgroups,
    channel: &OwnedFd,
    stdio: Stdio<'_>,
) -> ! {
    let launched = cgroups
        .join()
        .map_err(failed(Stage::Cgroups, "cannot join the control groups"))
        .and_then(|()| prepare_and_launch(ground, begin, channel, stdio));
    let error = match launched {
        Ok(error) | Err(error) => error,
    };
    report(channel, error)
}

fn prepare_and_launch(
    ground: &Ground,
    begin: Begin<'_>,
    channel: &OwnedFd,
    stdio: Stdio<'_>,
) -> Result<StartError, StartError> {
    let mut decoder = Decoder::default();
    let last = match begin {
        Begin::Early | Begin::Told => ground.mounts.as_fd(),
        Begin::Inside(maker) => maker.as_fd(),
    };
    detach(&[channel.as_fd(), ground.net(), last], stdio)?;
    if let Begin::Inside(_) = begin {
        users::become_root()
            .map_err(failed(Stage::Namespaces, "cannot become root of the pod's users"))?;
    }
    join_network(ground)?;
    let early = match begin {
        Begin::Early => Some(root::Root::begin_host(ground, wire::PidNamespace::Own)?),
        Begin::Told | Begin::Inside(_) => None,
    };
    let hostname: String = told(channel, &mut decoder)?;
    let spec: ContainerSpec = told(channel, &mut decoder)?;
    let root = match begin {
        Begin::Early | Begin::Told => {
            early.map_or_else(|| root::Root::begin(ground, &spec), Ok)?.make(&hostname, &spec)?
        }
        Begin::Inside(maker) => {
            root::own_cgroups()?;
            made(maker)?
        }
    };
    root::enter(root)?;
    let failed = failed(Stage::Fork, "cannot talk to the shim");
    if let Some(stdin) = decoder.take_fd() {
        rustix::stdio::dup2_stdin(stdin).map_err(io::Error::from).map_err(&failed)?;
    }
    let terminal = if spec.tty { Some(terminal::open()?) } else { None };
    let beside: Vec<BorrowedFd<'_>> = terminal.iter().map(OwnedFd::as_fd).collect();
    wire::send(channel, &Report::Prepared, &beside).map_err(&failed)?;
    drop(terminal);
    let process: ProcessSpec = told(channel, &mut decoder)?;
    let seccomp = decoder.take_fd();
    let mut keep = vec![channel.as_fd()];
    keep.extend(seccomp.iter().map(OwnedFd::as_fd));
    // Nothing of the cluster is held by who goes on to be the user's.
    sys::close_others(&keep).map_err(&failed)?;
    let initial = ground.initial_user_namespace;
    let users = match (&ground.users, &spec.user_namespace) {
        (Some(_), _) => Users::Pod,
        (None, Some(map)) => Users::New(map),
        (None, None) => Users::Cluster { initial },
    };
    let setting = Setting { users, image: spec.root != wire::Root::Host, seccomp };
    Ok(launch::launch(setting, &process))
}

fn join_network(ground: &Ground) -> Result<(), StartError> {
    let Net::Own(net) = &ground.net else { return Ok(()) };
    let kind = Some(LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(net.as_fd(), kind)
        .map_err(failed(Stage::Namespaces, "cannot join the pod's network namespace"))
}

/// What the maker of the root says.
fn made(maker: &OwnedFd) -> Result<OwnedFd, StartError> {
    let mut decoder = Decoder::default();
    let report = wire::receive::<Report>(maker, &mut decoder)
        .map_err(failed(Stage::Root, "cannot talk to the process that makes the root"))?;
    match (report, decoder.take_fd()) {
        (Some(Report::Prepared), Some(root)) => Ok(root),
        (Some(Report::Failed(error)), _) => Err(error),
        _ => {
            let message = "the process that makes the container's root was killed".to_owned();
            Err(refused(Stage::Root, message))
        }
    }
}

/// Makes the root of a container whose first process, `first`, is in the pod's own user namespace: in
/// that one's mount namespace, but with the rights of the shim. The caller has seen to it that this
/// child is in its PID namespace and control groups.
pub(crate) fn maker(
    ground: &Ground,
    first: &OwnedFd,
    (hostname, spec): (&str, &ContainerSpec),
    channel: &OwnedFd,
    stdio: Stdio<'_>,
) -> ! {
    let made = || -> Result<OwnedFd, StartError> {
        let mut keep = vec![channel.as_fd(), first.as_fd(), ground.net(), ground.mounts.as_fd()];
        keep.extend(ground.users.iter().map(PodUsers::as_fd));
        detach(&keep, stdio)?;
        rustix::thread::move_into_thread_name_spaces(first.as_fd(), ThreadNameSpaceType::MOUNT)
            .map_err(failed(Stage::Namespaces, "cannot join the container's mount namespace"))?;
        join_network(ground)?;
        ground
            .users
            .as_ref()
            .map_or(Ok(()), PodUsers::own_new_files)
            .map_err(failed(Stage::Namespaces, "cannot make files of the pod's users"))?;
        root::Root::begin(ground, spec)?.make(hostname, spec)
    };
    // Without the first process there is nobody to be told.
    match made() {
        Ok(root) => wire::send(channel, &Report::Prepared, &[root.as_fd()]).ok(),
        Err(error) => wire::send(channel, &Report::Failed(error), &[]).ok(),
    };
    sys::exit(0)
}

/// What the shim says next.
fn told<M: DeserializeOwned>(channel: &OwnedFd, decoder: &mut Decoder) -> Result<M, StartError> {
    let message = wire::receive(channel, decoder);
    match message.map_err(failed(Stage::Fork, "cannot talk to the shim"))? {
        Some(message) => Ok(message),
        // Nobody is left to tell: the shim is gone, or has given the container up.
        None => sys::exit(1),
    }
}

/// A further process of a running container, `container` being its first one. The caller has seen to
/// it that this child is in the container's PID namespace.
pub(crate) fn exec(
    ground: &Ground,
    container: &OwnedFd,
    setting: Setting<'_>,
    process: &ProcessSpec,
    channel: &OwnedFd,
    stdio: Stdio<'_>,
) -> ! {
    let joined = || -> Result<(), StartError> {
        let mut keep = vec![channel.as_fd(), container.as_fd()];
        keep.extend(setting.seccomp.iter().map(OwnedFd::as_fd));
        keep.extend(ground.users.iter().map(PodUsers::as_fd));
        detach(&keep, stdio)?;
        let mut kinds = ThreadNameSpaceType::MOUNT;
        // A process on the host's network is there, and without root could not go there.
        if let Net::Own(_) = ground.net {
            kinds |= ThreadNameSpaceType::NETWORK;
        }
        if has_namespace("cgroup") {
            kinds |= ThreadNameSpaceType::CONTROL_GROUP;
        }
        rustix::thread::move_into_thread_name_spaces(container.as_fd(), kinds)
            .map_err(failed(Stage::Namespaces, "cannot join the container's namespaces"))?;
        // Before anything of the container is looked at: with no more rights than those in it have.
        ground
            .users
            .as_ref()
            .map_or(Ok(()), |users| users.join().and_then(|()| users::become_root()))
            .map_err(failed(Stage::Namespaces, "cannot join the pod's user namespace"))
    };
    let error = match joined() {
        Ok(()) => launch::launch(setting, process),
        Err(error) => error,
    };
    report(channel, error)
}

fn report(channel: &OwnedFd, error: StartError) -> ! {
    // A shim that is gone needs no report.
    wire::send(channel, &Report::Failed(error), &[]).ok();
    sys::exit(1)
}

/// Leaves everything of the shim behind but these descriptors: session, signals, output.
fn detach(keep: &[BorrowedFd<'_>], stdio: Stdio<'_>) -> Result<(), StartError> {
    let done = || -> io::Result<()> {
        // Without its shim nobody would read the container's output or learn of its end.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        rustix::process::setsid()?;
        rustix::stdio::dup2_stdin(stdio.stdin)?;
        rustix::stdio::dup2_stdout(stdio.stdout)?;
        rustix::stdio::dup2_stderr(stdio.stderr)?;
        sys::close_others(keep)?;
        rustix::process::umask(Mode::empty());
        sys::reset_signals()
    };
    done().map_err(failed(Stage::Fork, "cannot detach from the shim"))
}

/// Makes a [`StartError`] of a system's error: `what: cause`.
fn failed<E: Into<io::Error>>(stage: Stage, what: impl Display) -> impl Fn(E) -> StartError {
    move |error| {
        let error: io::Error = error.into();
        let errno = error.raw_os_error().unwrap_or(0);
        StartError { stage, errno, message: format!("{what}: {}", cause(&error)) }
    }
}

/// The system's words without Rust's `(os error 2)`, in lower case as elsewhere in Kubernetes.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |it| it.to_lowercase().chain(letters).collect())
}

/// A [`StartError`] without a system's error.
fn refused(stage: Stage, message: String) -> StartError {
    StartError { stage, errno: 0, message }
}

/// Whether the kernel has namespaces of this kind.
fn has_namespace(name: &str) -> bool {
    Path::new("/proc/self/ns").join(name).exists()
}

/// A namespace of this process.
pub(crate) fn open_namespace(name: &str) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/ns/{name}");
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens something only to name it.
fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}
