//! A container, seen from the shim: its first process, its output, and how it ended.
//!
//! What happens inside before the program runs is in `child`; who asked for it and who is told is
//! in `server`.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Signal, WaitStatus},
};

use crate::{
    cgroups::{self, Cgroups},
    channel::{Channel, News},
    child::{self, Begin},
    draft::{Draft, Processes},
    files,
    log::{Lines, Log, Stream},
    pod::Pod,
    process::Process,
    stragglers,
    streams::{self, Output, READS_AT_END, READS_PER_TURN},
    sys,
    time::{self, Moment},
    wire::{
        ContainerSpec, ContainerStatus, Exit, Failure, FailureKind, PidNamespace, ProcessSpec,
        Reply, Root, Stage, StartError, State,
    },
};

/// Longest id: with its extension it is a file name.
const ID_BYTES_MAX: usize = 200;

/// A connection of the shim, as long as it lives.
pub(crate) type ClientId = u64;

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    id: String,
    phase: Phase,
    /// What it runs in; `None` after its end.
    live: Option<Live>,
    log: Log,
    /// Folders of its control groups.
    cgroups: Vec<PathBuf>,
    /// Whether its root is an image's.
    image: bool,
    /// Whether it has a user namespace of its own.
    own_users: bool,
    processes: PidNamespace,
}

#[derive(Debug)]
struct Live {
    pid: u32,
    pidfd: OwnedFd,
    channel: Option<Channel>,
    /// Held, so that the standard input of the container does not end.
    _stdin: Option<OwnedFd>,
    outputs: Vec<Output>,
    /// Its mount namespace, if its processes do not end with the first one.
    mounts: Option<File>,
    /// When it is killed.
    deadline: Option<Moment>,
}

#[derive(Debug)]
enum Phase {
    Creating { client: ClientId },
    Created,
    Starting { client: ClientId, started_at: String },
    Running { started_at: String },
    Exited(Exit),
}

/// A container that runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running<'a> {
    /// Its first process.
    pub(crate) first: &'a OwnedFd,
    /// Whether its root is an image's.
    pub(crate) image: bool,
    /// Whether it has a user namespace of its own.
    pub(crate) own_users: bool,
    /// Whether its PID namespace is the shim's.
    pub(crate) on_host: bool,
}

/// What became of a container that was created or started.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing yet.
    Pending,
    /// Somebody's request is carried out.
    Answer(ClientId, Reply),
    /// Somebody's request failed, and the container is to be forgotten.
    Failed(ClientId, StartError),
}

/// Which output of a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputIndex(usize);

impl Container {
    /// Begins a container, with its first process if there is one that has no container yet; the
    /// answer comes through the channel.
    pub(crate) fn create(
        pod: &Pod,
        boot: &str,
        draft: Option<Draft>,
        spec: &ContainerSpec,
        client: ClientId,
    ) -> Result<Self, StartError> {
        check_id(&spec.id)?;
        check_supported(spec, pod.ground.users.is_some())?;
        let log = Log::open(&spec.log).map_err(|it| {
            failed(Stage::Log, &format!("cannot open the log `{}`", spec.log.display()), &it)
        })?;
        let stdin = streams::stdin(spec)
            .map_err(|it| failed(Stage::Fork, "cannot make the standard input", &it))?;
        let (reader, writer) = stdin.unzip();
        let reader = reader.as_ref().map(OwnedFd::as_fd);
        // A draft that has died meanwhile hears nothing.
        let draft = draft.filter(|it| it.channel.order(&pod.hostname, spec, reader).is_ok());
        let draft = match draft {
            Some(draft) => draft,
            None => begin(pod, spec, reader)?,
        };
        let container = Self {
            id: spec.id.clone(),
            phase: Phase::Creating { client },
            live: Some(Live::of(draft, writer)),
            log,
            cgroups: spec.cgroups.clone(),
            image: spec.root != Root::Host,
            own_users: spec.user_namespace.is_some(),
            processes: spec.pid,
        };
        let recorded = container.record(pod, boot);
        recorded.map_err(|it| {
            // The process ends with the channel that is dropped here.
            failed(Stage::Fork, "cannot record the process", &it)
        })?;
        Ok(container)
    }

    fn record(&self, pod: &Pod, boot: &str) -> io::Result<()> {
        match &self.live {
            Some(live) => files::write_process(&pod.dir, &self.id, &Process::of(live.pid, boot)?),
            None => Ok(()),
        }
    }

    /// Lets the first process run the program; the answer comes through the channel.
    pub(crate) fn start(&mut self, process: &ProcessSpec, client: ClientId) -> Result<(), Failure> {
        let live = self.live.as_ref().and_then(|it| Some((it.pid, it.channel.as_ref()?)));
        let (Phase::Created, Some((pid, channel))) = (&self.phase, live) else {
            return Err(self.wrong_state("start"));
        };
        // From here: in a user namespace of the pod's own it has no right to.
        let scored = process.oom_score_adj.map_or(Ok(()), |it| child::set_oom_score_adj(pid, it));
        let started = scored
            .and_then(|()| open_seccomp(process))
            .and_then(|seccomp| channel.start(process, seccomp));
        started.map_err(|error| Failure {
            kind: FailureKind::Other,
            errno: error.raw_os_error().unwrap_or(0),
            message: format!("cannot start container `{}`: {error}", self.id),
        })?;
        self.phase = Phase::Starting { client, started_at: time::now() };
        Ok(())
    }

    /// Reads the channel, which is readable.
    pub(crate) fn hear(&mut self) -> Outcome {
        let Some(live) = &mut self.live else { return Outcome::Pending };
        let Some(channel) = &mut live.channel else { return Outcome::Pending };
        let pid = live.pid;
        match (channel.read(), &self.phase) {
            (News::Prepared, Phase::Creating { client }) => {
                // A terminal takes the place of both outputs, which end.
                if let Some(terminal) = channel.take_fd()
                    && rustix::io::ioctl_fionbio(&terminal, true).is_ok()
                {
                    let lines = Lines::new(Stream::Stdout);
                    live.outputs.push(Output { pipe: terminal, lines });
                }
                if self.processes != PidNamespace::Own {
                    // It fails only for a process that has just ended, before it ran anything.
                    live.mounts = stragglers::open_mounts(pid).ok();
                }
                let answer = Outcome::Answer(*client, Reply::Created { pid });
                self.phase = Phase::Created;
                answer
            }
            (News::Closed, Phase::Starting { client, started_at }) => {
                let (client, started_at) = (*client, started_at.clone());
                live.channel = None;
                self.phase = Phase::Running { started_at: started_at.clone() };
                Outcome::Answer(client, Reply::Started { pid, started_at })
            }
            (News::Failed(error), Phase::Creating { client } | Phase::Starting { client, .. }) => {
                Outcome::Failed(*client, error)
            }
            (News::Closed, Phase::Creating { client }) => {
                let message = "the new process was killed".to_owned();
                Outcome::Failed(*client, StartError { stage: Stage::Fork, errno: 0, message })
            }
            (News::None, _) => Outcome::Pending,
            // Killed while it waited to be started: its end is reported as that of any process.
            _ => {
                live.channel = None;
                Outcome::Pending
            }
        }
    }

    /// Reads an output, which is readable.
    pub(crate) fn pump(&mut self, index: OutputIndex) {
        let Some(live) = &mut self.live else { return };
        let Some(output) = live.outputs.get_mut(index.0) else { return };
        if output.pump(&mut self.log, READS_PER_TURN).is_break() {
            drop(live.outputs.swap_remove(index.0));
        }
    }

    /// Sends a signal to the first process.
    pub(crate) fn signal(&self, number: i32) -> Result<(), Failure> {
        let Some(live) = &self.live else { return Err(self.wrong_state("signal")) };
        let failed = |kind, errno, cause: &str| Failure {
            kind,
            errno,
            message: format!("cannot send signal {number} to container `{}`: {cause}", self.id),
        };
        let Err(error) = sys::signal(live.pidfd.as_fd(), number) else { return Ok(()) };
        match error.raw_os_error() {
            // It has just ended, which the next thing to be read tells.
            Some(libc::ESRCH) => Ok(()),
            Some(errno @ libc::EINVAL) => {
                Err(failed(FailureKind::BadRequest, errno, "there is no such signal"))
            }
            errno => Err(failed(FailureKind::Other, errno.unwrap_or_default(), &error.to_string())),
        }
    }

    /// Sends a signal, and kills the container at the deadline. Stopping what has ended is done.
    pub(crate) fn stop(&mut self, signal: i32, deadline: Moment) -> Result<(), Failure> {
        let waits = matches!(self.phase, Phase::Running { .. });
        let Some(live) = &mut self.live else { return Ok(()) };
        let deadline = live.deadline.map_or(deadline, |it| it.min(deadline));
        // A process that has not run its program yet heeds no signal but SIGKILL.
        live.deadline = Some(if waits { deadline } else { Moment::now() });
        if waits { self.signal(signal) } else { Ok(()) }
    }

    /// When the container is to be killed.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.live.as_ref().and_then(|it| it.deadline)
    }

    /// Kills the first process, and with it everything in the container.
    pub(crate) fn kill(&mut self) {
        if let Some(live) = &mut self.live {
            live.deadline = None;
            // It fails only if the process has ended already.
            rustix::process::pidfd_send_signal(&live.pidfd, Signal::KILL).ok();
        }
    }

    /// The first process has ended, and with it every other in the container.
    pub(crate) fn end(&mut self, status: WaitStatus) -> Option<&Exit> {
        let mut live = self.live.take()?;
        for output in &mut live.outputs {
            if output.pump(&mut self.log, READS_AT_END).is_continue() {
                output.lines.end(&time::now(), &mut self.log);
            }
        }
        let started_at = match &self.phase {
            Phase::Running { started_at } | Phase::Starting { started_at, .. } => {
                Some(started_at.clone())
            }
            Phase::Creating { .. } | Phase::Created | Phase::Exited(_) => None,
        };
        let (code, signal) = exit_code(status);
        let (id, finished_at) = (self.id.clone(), time::now());
        cgroups::kill(&self.cgroups);
        if let Some(mounts) = live.mounts {
            stragglers::kill(&mounts);
        }
        let oom_killed = cgroups::oom_killed(&self.cgroups);
        let exit = Exit { id, code, signal, started_at, finished_at, oom_killed };
        self.phase = Phase::Exited(exit);
        self.exit()
    }

    /// How it ended.
    pub(crate) fn exit(&self) -> Option<&Exit> {
        match &self.phase {
            Phase::Exited(exit) => Some(exit),
            _ => None,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Process id of the first process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.live.as_ref().map(|it| it.pid)
    }

    /// Folders of its control groups.
    pub(crate) fn cgroups(&self) -> &[PathBuf] {
        &self.cgroups
    }

    /// What a further process can be started in, if the container runs its program.
    pub(crate) fn running(&self) -> Result<Running<'_>, Failure> {
        let Self { image, own_users, processes, .. } = *self;
        let on_host = processes == PidNamespace::Host;
        match (&self.phase, &self.live) {
            (Phase::Running { .. }, Some(live)) => {
                Ok(Running { first: &live.pidfd, image, own_users, on_host })
            }
            _ => Err(self.wrong_state("exec")),
        }
    }

    pub(crate) fn status(&self) -> ContainerStatus {
        let pid = self.pid().unwrap_or_default();
        let state = match &self.phase {
            Phase::Creating { .. } | Phase::Created => State::Created { pid },
            Phase::Starting { started_at, .. } | Phase::Running { started_at } => {
                State::Running { pid, started_at: started_at.clone() }
            }
            Phase::Exited(exit) => State::Exited(exit.clone()),
        };
        let log_error = self.log.error().map(str::to_owned);
        ContainerStatus { id: self.id.clone(), state, log_error }
    }

    /// Whether the channel is open.
    pub(crate) fn channel(&self) -> Option<BorrowedFd<'_>> {
        Some(self.live.as_ref()?.channel.as_ref()?.as_fd())
    }

    /// The outputs that are open.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (OutputIndex, BorrowedFd<'_>)> {
        let outputs = self.live.iter().flat_map(|it| it.outputs.iter().enumerate());
        outputs.map(|(index, it)| (OutputIndex(index), it.pipe.as_fd()))
    }

    /// The refusal of a request that does not fit the state.
    pub(crate) fn wrong_state(&self, request: &str) -> Failure {
        let state = match &self.phase {
            Phase::Creating { .. } => "being created",
            Phase::Created => "created and not started",
            Phase::Starting { .. } => "being started",
            Phase::Running { .. } => "running",
            Phase::Exited(_) => "not running any more",
        };
        let message = format!("cannot {request} container `{}`: it is {state}", self.id);
        Failure { kind: FailureKind::WrongState, errno: 0, message }
    }
}

impl Live {
    fn of(draft: Draft, stdin: Option<OwnedFd>) -> Self {
        let Draft { pid, pidfd, channel, stdout, stderr, .. } = draft;
        let outputs = vec![
            Output { pipe: stdout, lines: Lines::new(Stream::Stdout) },
            Output { pipe: stderr, lines: Lines::new(Stream::Stderr) },
        ];
        Self {
            pid,
            pidfd,
            channel: Some(channel),
            _stdin: stdin,
            outputs,
            mounts: None,
            deadline: None,
        }
    }
}

/// A new first process, which has heard what it is of.
fn begin(
    pod: &Pod,
    spec: &ContainerSpec,
    stdin: Option<BorrowedFd<'_>>,
) -> Result<Draft, StartError> {
    let cgroups = Cgroups::open(&spec.cgroups)
        .map_err(|it| failed(Stage::Cgroups, "cannot open the control groups", &it))?;
    let processes = match (spec.pid, &pod.init) {
        (PidNamespace::Own, _) | (PidNamespace::Pod, None) => Processes::Own,
        (PidNamespace::Pod, Some(init)) => Processes::Of(init),
        (PidNamespace::Host, _) => Processes::Here,
    };
    let begun = Draft::fork(&pod.ground, Begin::Told, cgroups, processes).and_then(|mut draft| {
        draft.make_root(&pod.ground, &pod.hostname, spec)?;
        draft.channel.order(&pod.hostname, spec, stdin)?;
        Ok(draft)
    });
    begun.map_err(|it| failed(Stage::Fork, "cannot start a process", &it))
}

/// Opens the seccomp program of a process, for a child that cannot see it any more.
pub(crate) fn open_seccomp(process: &ProcessSpec) -> io::Result<Option<OwnedFd>> {
    let Some(path) = &process.seccomp else { return Ok(None) };
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    file.map(Some).map_err(|error| {
        let error = io::Error::from(error);
        let path = path.display();
        io::Error::new(error.kind(), format!("seccomp program `{path}`: {error}"))
    })
}

/// Exit code and signal of a process that has ended.
pub(crate) fn exit_code(status: WaitStatus) -> (i32, Option<i32>) {
    /// What shells and container runtimes add to the number of a signal.
    const SIGNALLED: i32 = 128;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code, None),
        (None, Some(signal)) => (SIGNALLED + signal, Some(signal)),
        (None, None) => (SIGNALLED, None),
    }
}

fn check_id(id: &str) -> Result<(), StartError> {
    let allowed = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    let good = !id.is_empty() && !id.starts_with('.') && id.chars().all(allowed);
    if good && id.len() <= ID_BYTES_MAX {
        return Ok(());
    }
    let message = format!("container id `{id}` is not a name of letters, digits, `-`, `_` and `.`");
    Err(StartError { stage: Stage::Spec, errno: 0, message })
}

/// Refuses what this shim does not do, rather than to do something else.
fn check_supported(spec: &ContainerSpec, own_users: bool) -> Result<(), StartError> {
    let linked = spec.root == Root::Host;
    let linked_users = linked && (spec.user_namespace.is_some() || own_users);
    let host_processes = own_users && spec.pid == PidNamespace::Host;
    let unsupported = [
        (linked && spec.tty, "a terminal on the machine's root"),
        (linked_users, "a user namespace on the machine's root"),
        (host_processes, "the machine's processes in a user namespace of the pod's own"),
        (linked && spec.privileged, "privileges on the machine's root"),
    ];
    match unsupported.into_iter().find(|it| it.0) {
        None => Ok(()),
        Some((_, what)) => {
            let message =
                format!("container `{}` asks for {what}, which is not supported", spec.id);
            Err(StartError { stage: Stage::Spec, errno: 0, message })
        }
    }
}

/// A [`StartError`] of a system's error.
pub(crate) fn failed(stage: Stage, what: &str, error: &io::Error) -> StartError {
    let errno = error.raw_os_error().unwrap_or(0);
    StartError { stage, errno, message: format!("{what}: {error}") }
}
