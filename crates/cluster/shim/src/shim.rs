//! What a shim has, and what it does when something happens.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    net::{SocketFlags, sockopt},
    process::{WaitOptions, WaitStatus},
};

use crate::{
    connection::Connection,
    container::{self, ClientId, Container, Outcome},
    draft::Ahead,
    exec::Exec,
    files,
    pod::Pod,
    server::Source,
    time::Moment,
    wire::{
        ContainerSpec, ExecSpec, Failure, FailureKind, PidNamespace, Reply, Request, Stage,
        StartError, Status,
    },
};

/// Most clients at once: the node agent with some probes, a few commands. A further one is turned
/// away by closing its connection.
const CLIENTS_MAX: usize = 64;

/// How long containers have to end when the machine shuts down, in milliseconds. Init systems kill
/// what is left after 90 seconds.
const SHUTDOWN_GRACE_MS: u64 = 30_000;

#[derive(Debug)]
pub(crate) struct Shim {
    pod: Pod,
    /// For the first container.
    ahead: Option<Ahead>,
    boot: String,
    listener: OwnedFd,
    signals: OwnedFd,
    /// Held, not used: who has it is the pod's shim.
    _lock: OwnedFd,
    clients: Vec<Connection>,
    clients_ever: ClientId,
    containers: Vec<Container>,
    execs: Vec<Exec>,
    life: Life,
}

/// How the shim ends.
#[derive(Debug, PartialEq, Eq)]
enum Life {
    /// When it is told to.
    Serving,
    /// When no container runs any more.
    Draining,
    /// Now.
    Over,
}

impl Shim {
    pub(crate) fn new(
        pod: Pod,
        ahead: Option<Ahead>,
        boot: String,
        listener: OwnedFd,
        signals: OwnedFd,
        lock: OwnedFd,
    ) -> Self {
        Self {
            pod,
            ahead,
            boot,
            listener,
            signals,
            _lock: lock,
            clients: Vec::new(),
            clients_ever: 0,
            containers: Vec::new(),
            execs: Vec::new(),
            life: Life::Serving,
        }
    }

    /// Makes whoever gave the shim its pod its first client.
    pub(crate) fn adopt(&mut self, socket: OwnedFd) -> io::Result<()> {
        let id = self.add(socket)?;
        self.reply(id, &Reply::Done);
        Ok(())
    }

    /// Whether there is more to do.
    pub(crate) fn goes_on(&self) -> bool {
        let idle = self.containers.iter().all(|it| it.pid().is_none());
        match self.life {
            Life::Serving => true,
            Life::Draining => !idle,
            Life::Over => false,
        }
    }

    /// Where things can happen. What new processes say comes before their end.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>)> {
        let containers = self.containers.iter().filter_map(|it| Some((it, it.pid()?)));
        let channels =
            containers.clone().filter_map(|(it, pid)| Some((Source::Channel(pid), it.channel()?)));
        let outputs = containers.flat_map(|(it, pid)| {
            it.outputs().map(move |(index, fd)| (Source::Output(pid, index), fd))
        });
        let exec_channels =
            self.execs.iter().filter_map(|it| Some((Source::Channel(it.pid()), it.channel()?)));
        let exec_outputs =
            self.execs.iter().filter_map(|it| Some((Source::ExecOutput(it.pid()), it.output()?)));
        let clients = self.clients.iter().map(|it| (Source::Client(it.id), it.as_fd()));
        let own =
            [(Source::Signals, self.signals.as_fd()), (Source::Listener, self.listener.as_fd())];
        channels.chain(exec_channels).chain(outputs).chain(exec_outputs).chain(own).chain(clients)
    }

    /// When something is to be done although nothing happens.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        let containers = self.containers.iter().filter_map(Container::deadline);
        containers.chain(self.execs.iter().filter_map(Exec::deadline)).min()
    }

    /// Does what is to be done at this time.
    pub(crate) fn expire(&mut self, now: Moment) {
        let due = |deadline: Option<Moment>| deadline.is_some_and(|it| it <= now);
        self.containers.iter_mut().filter(|it| due(it.deadline())).for_each(Container::kill);
        self.execs.iter_mut().filter(|it| due(it.deadline())).for_each(Exec::time_out);
    }

    /// Something has happened. What it happened to may be gone by now.
    pub(crate) fn handle(&mut self, source: Source) -> io::Result<()> {
        match source {
            Source::Signals => self.signals()?,
            Source::Listener => self.accept(),
            Source::Client(id) => self.client(id),
            Source::Channel(pid) => self.hear(pid),
            Source::Output(pid, index) => {
                if let Some(container) = self.container_of(pid) {
                    container.pump(index);
                }
            }
            Source::ExecOutput(pid) => {
                self.execs.iter_mut().filter(|it| it.pid() == pid).for_each(Exec::pump);
            }
        }
        Ok(())
    }

    fn container_of(&mut self, pid: u32) -> Option<&mut Container> {
        self.containers.iter_mut().find(|it| it.pid() == Some(pid))
    }

    /// A child has ended, or the machine shuts down.
    fn signals(&mut self) -> io::Result<()> {
        /// Size of struct signalfd_siginfo, whose first field is the signal's number.
        const INFO: usize = 128;
        let mut info = [0; INFO];
        match rustix::io::read(&self.signals, &mut info) {
            Ok(INFO) => {}
            Ok(_) | Err(_) => return Ok(()),
        }
        let number = info.first_chunk::<4>().map(|it| i32::from_ne_bytes(*it));
        if number == Some(libc::SIGCHLD) {
            return self.reap();
        }
        self.life = Life::Draining;
        let deadline = Moment::now().after_ms(SHUTDOWN_GRACE_MS);
        for container in &mut self.containers {
            // It fails only for a container that has just ended.
            container.stop(libc::SIGTERM, deadline).ok();
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    self.ended(pid.as_raw_nonzero().get().cast_unsigned(), status)?;
                }
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn ended(&mut self, pid: u32, status: WaitStatus) -> io::Result<()> {
        // What it said last comes first; it cannot block any more.
        while self.has_channel(pid) {
            self.hear(pid);
        }
        if let Some(index) = self.execs.iter().position(|it| it.pid() == pid) {
            let exec = self.execs.swap_remove(index);
            let client = exec.client();
            self.answer(client, &Reply::Finished(exec.end(status)));
        }
        let Some(container) = self.container_of(pid) else { return Ok(()) };
        let Some(exit) = container.end(status).cloned() else { return Ok(()) };
        // First the exit: one of the two is always there.
        files::write_exit(&self.pod.dir, &exit)?;
        files::remove_process(&self.pod.dir, &exit.id)?;
        let subscribers: Vec<ClientId> =
            self.clients.iter().filter(|it| it.subscribed).map(|it| it.id).collect();
        let news = Reply::Exited(exit);
        subscribers.into_iter().for_each(|id| self.reply(id, &news));
        Ok(())
    }

    fn has_channel(&self, pid: u32) -> bool {
        self.containers.iter().any(|it| it.pid() == Some(pid) && it.channel().is_some())
            || self.execs.iter().any(|it| it.pid() == pid && it.channel().is_some())
    }

    /// A new process has something to say.
    fn hear(&mut self, pid: u32) {
        let outcome = match self.container_of(pid) {
            Some(container) => container.hear(),
            None => match self.execs.iter_mut().find(|it| it.pid() == pid) {
                Some(exec) => exec.hear(),
                None => return,
            },
        };
        match outcome {
            Outcome::Pending => {}
            // An exec'd process is answered once more, when it has ended.
            Outcome::Answer(client, reply @ Reply::Executed { .. }) => self.reply(client, &reply),
            Outcome::Answer(client, reply) => self.answer(client, &reply),
            Outcome::Failed(client, error) => {
                self.forget(pid);
                self.answer(client, &Reply::StartFailed(error));
            }
        }
    }

    /// Forgets a process that did not come to run its program.
    fn forget(&mut self, pid: u32) {
        self.execs.retain(|it| it.pid() != pid);
        let Some(index) = self.containers.iter().position(|it| it.pid() == Some(pid)) else {
            return;
        };
        let mut container = self.containers.remove(index);
        container.kill();
        // A record that stays behind names a process that is gone: harmless.
        files::remove_process(&self.pod.dir, container.id()).ok();
    }

    /// Takes a client of the same user; any other is turned away by closing.
    fn accept(&mut self) {
        // A client that went away meanwhile, or no descriptor left: there is nobody to tell.
        let Ok(socket) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) else {
            return;
        };
        let same_user =
            sockopt::socket_peercred(&socket).is_ok_and(|it| it.uid == rustix::process::geteuid());
        if same_user && self.clients.len() < CLIENTS_MAX {
            // Fails only if it is no socket.
            self.add(socket).ok();
        }
    }

    fn add(&mut self, socket: OwnedFd) -> io::Result<ClientId> {
        self.clients_ever += 1;
        self.clients.push(Connection::new(self.clients_ever, socket)?);
        Ok(self.clients_ever)
    }

    fn connection(&mut self, id: ClientId) -> Option<&mut Connection> {
        self.clients.iter_mut().find(|it| it.id == id)
    }

    /// A client has sent something, or is gone.
    fn client(&mut self, id: ClientId) {
        let gone = self.connection(id).is_some_and(|it| !it.fill());
        self.requests(id);
        if gone {
            self.close(id);
        }
    }

    /// Carries out what a client has asked for, one after the other.
    fn requests(&mut self, id: ClientId) {
        while let Some(connection) = self.connection(id) {
            match connection.request() {
                Ok(Some(request)) => self.carry_out(id, request),
                Ok(None) => return,
                Err(_) => return self.close(id),
            }
        }
    }

    /// Forgets a client, and ends what runs only for it.
    fn close(&mut self, id: ClientId) {
        self.clients.retain(|it| it.id != id);
        self.execs.iter().filter(|it| it.client() == id).for_each(Exec::kill);
    }

    /// Sends a message to a client, if it is still there.
    fn reply(&mut self, id: ClientId, reply: &Reply) {
        let Some(connection) = self.clients.iter().find(|it| it.id == id) else { return };
        let fds = match reply {
            Reply::Netns => vec![self.pod.ground.net()],
            _ => Vec::new(),
        };
        if !connection.send(reply, &fds) {
            self.close(id);
        }
    }

    /// Answers a request that took its time, and goes on with the next ones.
    fn answer(&mut self, id: ClientId, reply: &Reply) {
        self.reply(id, reply);
        if let Some(connection) = self.connection(id) {
            connection.busy = false;
            self.requests(id);
        }
    }

    fn carry_out(&mut self, id: ClientId, request: Request) {
        match self.try_carry_out(id, request) {
            Ok(Some(reply)) => self.reply(id, &reply),
            Ok(None) => {
                if let Some(connection) = self.connection(id) {
                    connection.busy = true;
                }
            }
            Err(reply) => self.reply(id, &reply),
        }
    }

    /// The answer, or `None` if it comes later.
    fn try_carry_out(&mut self, id: ClientId, request: Request) -> Result<Option<Reply>, Reply> {
        match request {
            Request::Netns => return Ok(Some(Reply::Netns)),
            Request::Status => return Ok(Some(Reply::Status(self.status()))),
            Request::Create(spec) => {
                self.create(id, &spec)?;
                return Ok(None);
            }
            Request::Start { id: container, process } => {
                self.container(&container)?.start(&process, id)?;
                return Ok(None);
            }
            Request::Exec(spec) => {
                self.exec(id, &spec)?;
                return Ok(None);
            }
            Request::Subscribe => {
                self.subscribe(id);
                return Ok(None);
            }
            Request::Signal { id, signal } => self.container(&id)?.signal(signal)?,
            Request::Stop { id, signal, grace_ms } => {
                let deadline = Moment::now().after_ms(grace_ms);
                self.container(&id)?.stop(signal, deadline)?;
            }
            Request::Remove { id } => self.remove(&id)?,
            Request::Exit => self.exit()?,
            Request::Spare(_) | Request::Pod(_) => {
                let message = "this shim has its pod already".to_owned();
                let kind = FailureKind::BadRequest;
                return Err(Reply::Failed(Failure { kind, errno: 0, message }));
            }
        }
        Ok(Some(Reply::Done))
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, Failure> {
        self.containers.iter_mut().find(|it| it.id() == id).ok_or_else(|| not_found(id))
    }

    fn create(&mut self, client: ClientId, spec: &ContainerSpec) -> Result<(), Reply> {
        if self.containers.iter().any(|it| it.id() == spec.id) {
            return Err(Reply::Failed(Failure {
                kind: FailureKind::AlreadyExists,
                errno: 0,
                message: format!("there is a container `{}` already", spec.id),
            }));
        }
        let draft = match spec.pid {
            PidNamespace::Own => self.ahead.take().and_then(|it| it.if_current(&spec.cgroups)),
            PidNamespace::Host => None,
            PidNamespace::Pod => {
                self.pod.share_processes().map_err(|error| {
                    let what = "cannot make a PID namespace for the pod";
                    container::failed(Stage::Fork, what, &error)
                })?;
                None
            }
        };
        self.containers.push(Container::create(&self.pod, &self.boot, draft, spec, client)?);
        Ok(())
    }

    fn exec(&mut self, client: ClientId, spec: &ExecSpec) -> Result<(), Reply> {
        let stdio = match spec.output_max {
            Some(_) => None,
            None => self.connection(client).and_then(Connection::take_stdio),
        };
        let bad = || Failure {
            kind: FailureKind::BadRequest,
            errno: 0,
            message: "exec needs standard input, output and error, or `output_max`".to_owned(),
        };
        if stdio.is_none() && spec.output_max.is_none() {
            return Err(bad().into());
        }
        let container = self.containers.iter().find(|it| it.id() == spec.id);
        let container = container.ok_or_else(|| not_found(&spec.id))?;
        let exec = Exec::start(&self.pod.ground, container, spec, stdio, client)?;
        self.execs.push(exec);
        Ok(())
    }

    fn subscribe(&mut self, client: ClientId) {
        let exits: Vec<Reply> =
            self.containers.iter().filter_map(|it| it.exit().cloned().map(Reply::Exited)).collect();
        if let Some(connection) = self.connection(client) {
            connection.subscribed = true;
        }
        exits.iter().for_each(|it| self.reply(client, it));
    }

    fn remove(&mut self, id: &str) -> Result<(), Failure> {
        let Some(index) = self.containers.iter().position(|it| it.id() == id) else {
            return Ok(());
        };
        if let Some(container) = self.containers.get(index).filter(|it| it.exit().is_none()) {
            return Err(container.wrong_state("remove"));
        }
        files::remove_exit(&self.pod.dir, id).map_err(|error| Failure {
            kind: FailureKind::Other,
            errno: error.raw_os_error().unwrap_or(0),
            message: format!("cannot remove the files of container `{id}`: {error}"),
        })?;
        self.containers.remove(index);
        Ok(())
    }

    fn exit(&mut self) -> Result<(), Failure> {
        if let Some(container) = self.containers.iter().find(|it| it.pid().is_some()) {
            return Err(container.wrong_state("exit before"));
        }
        self.life = Life::Over;
        Ok(())
    }

    fn status(&self) -> Status {
        let containers = self.containers.iter().map(Container::status).collect();
        Status { pid: std::process::id(), containers }
    }
}

fn not_found(id: &str) -> Failure {
    Failure {
        kind: FailureKind::NotFound,
        errno: 0,
        message: format!("there is no container `{id}`"),
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StartError> for Reply {
    fn from(error: StartError) -> Self {
        Self::StartFailed(error)
    }
}
