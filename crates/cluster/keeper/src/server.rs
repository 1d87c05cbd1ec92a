//! The keeper's process: one thread, one `poll`, woken only by requests.
//!
//! Owns the socket in the run folder and the namespaces; makes nothing itself (`make`, `sockets`).
//! What the process is before it is the keeper: `standby`.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    ops::ControlFlow,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
    net::{SocketFlags, sockopt},
};

use crate::{
    enter::Namespaces,
    inside, make, sockets,
    spawn::Arguments,
    standby::{self, Copy},
    sys,
    wire::{self, Failure, FailureKind, Reply, Request},
};

/// Most clients at once: the cluster process, a few commands. A further one is turned away by
/// closing its connection, and can try again.
const CLIENTS_MAX: usize = 32;

/// How often the lock is tried, with [`LOCK_PAUSE`] between: half a second, a thousand times what the
/// kernel needs to close a dead process's files.
const LOCK_TRIES: u32 = 250;

/// Two milliseconds.
const LOCK_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Connections not yet accepted; the kernel makes further clients wait.
const BACKLOG: i32 = 32;

/// The keeper makes a lock, a log and a socket: mode 0600 from the first moment.
const UMASK: Mode = Mode::RWXG.union(Mode::RWXO).union(Mode::XUSR);

/// `coracle keeper …`: serves until told to exit. `arguments` are those after `keeper`; standard
/// input is the control socket.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Arguments::parse(arguments).map_err(io::Error::other).and_then(|it| run(&it)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not eprintln: standard error may be closed, and that is no reason to panic.
            drop(writeln!(io::stderr(), "coracle keeper: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// One turn is one life as the keeper: of the process that was started, and, in each of its copies, of
/// the standby that follows it.
fn run(arguments: &Arguments) -> io::Result<()> {
    let mut control = detach()?;
    let mut namespaces = match arguments.adopt {
        Some(process) => make::adopt(process),
        None => make::make(),
    };
    loop {
        rustix::thread::set_name(c"coracle keeper")?;
        let mut keeper = match namespaces.and_then(|it| Keeper::start(&arguments.run_dir, it)) {
            Ok(keeper) => keeper,
            Err(failure) => {
                let error = io::Error::other(failure.to_string());
                drop(wire::send(&control, &Reply::Failed(failure), &[]));
                return Err(error);
            }
        };
        let ready = Reply::Ready { pid: std::process::id() };
        if wire::send(&control, &ready, &[]).is_ok() {
            keeper.clients.push(control);
        }
        let End::Copied(of_standby) = keeper.serve()? else { return keeper.end() };
        // A copy must hold nothing of the keeper's, above all not its lock.
        drop(keeper);
        let Some(taken) = standby::run(of_standby)? else { return Ok(()) };
        (control, namespaces) = (taken.control, Ok(taken.namespaces));
    }
}

/// Leaves the caller's session and folder, and returns the control socket it gave us as standard
/// input, which becomes /dev/null.
fn detach() -> io::Result<OwnedFd> {
    sys::close_inherited()?;
    sys::ignore_children();
    // Fails only for the leader of a process group, who then is detached already.
    rustix::process::setsid().ok();
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::process::chdir("/")?;
    rustix::process::umask(UMASK);
    Ok(control)
}

struct Keeper<'a> {
    run_dir: &'a Path,
    namespaces: Namespaces,
    // Let go of in this order: a client that sees its connection end may start the next keeper.
    listener: OwnedFd,
    /// Held, not used: who has it is the keeper of this run folder.
    _lock: OwnedFd,
    clients: Vec<OwnedFd>,
}

/// What becomes of a client, or of the keeper, after a request.
enum Next {
    Serve,
    Close,
    End(End),
}

/// How serving ends.
enum End {
    /// A client said so.
    Told,
    /// This is a copy, which is a standby from now on and has this control socket.
    Copied(OwnedFd),
}

impl<'a> Keeper<'a> {
    fn start(run_dir: &'a Path, namespaces: Namespaces) -> Result<Self, Failure> {
        let lock = lock(run_dir)?;
        let listener = bind(run_dir).map_err(|error| Failure {
            kind: FailureKind::Other,
            errno: error.raw_os_error().unwrap_or(0),
            message: format!(
                "cannot listen on `{}`: {error}",
                run_dir.join(wire::SOCKET).display()
            ),
        })?;
        Ok(Self { run_dir, namespaces, listener, clients: Vec::new(), _lock: lock })
    }

    fn serve(&mut self) -> io::Result<End> {
        loop {
            for index in self.await_ready()? {
                match self.clients.get(index).map(|it| self.answer(it)) {
                    Some(Next::End(end)) => return Ok(end),
                    // The last one takes its place, and was asked before: indices fall.
                    Some(Next::Close) => drop(self.clients.swap_remove(index)),
                    Some(Next::Serve) | None => {}
                }
            }
        }
    }

    /// Waits, accepts new clients, and returns which clients have something to say, last first.
    fn await_ready(&mut self) -> io::Result<Vec<usize>> {
        let mut fds: Vec<PollFd<'_>> =
            self.clients.iter().map(|it| PollFd::new(it, PollFlags::IN)).collect();
        fds.push(PollFd::new(&self.listener, PollFlags::IN));
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |it: &(usize, &PollFd<'_>)| !it.1.revents().is_empty();
        let mut ready: Vec<usize> =
            fds.iter().enumerate().filter(is_ready).map(|(index, _)| index).collect();
        if ready.last() == Some(&self.clients.len()) {
            ready.pop();
            self.accept();
        }
        ready.reverse();
        Ok(ready)
    }

    /// Takes a client of the same user; any other is turned away by closing.
    fn accept(&mut self) {
        // A client that went away meanwhile, or no descriptor left: there is nobody to tell.
        let Ok(client) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) else {
            return;
        };
        let same_user =
            sockopt::socket_peercred(&client).is_ok_and(|it| it.uid == rustix::process::geteuid());
        if same_user && self.clients.len() < CLIENTS_MAX {
            self.clients.push(client);
        }
    }

    fn answer(&self, client: &OwnedFd) -> Next {
        let (request, fds) = match wire::receive::<Request>(client) {
            Ok(Some(received)) => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Next::Serve,
            Ok(None) | Err(_) => return Next::Close,
        };
        let (reply, fd) = match self.execute(&request, fds) {
            ControlFlow::Continue(done) => done,
            ControlFlow::Break(end) => return Next::End(end),
        };
        let fds: Vec<BorrowedFd<'_>> = match &reply {
            Reply::Namespaces { .. } => self.namespaces.fds().collect(),
            _ => fd.iter().map(AsFd::as_fd).collect(),
        };
        let sent = send_now(client, &reply, &fds);
        match (reply, sent) {
            (Reply::Exiting, _) => Next::End(End::Told),
            (_, Ok(())) => Next::Serve,
            (_, Err(_)) => Next::Close,
        }
    }

    /// The reply and what goes beside it; breaks off where nobody is to be replied to.
    fn execute(
        &self,
        request: &Request,
        fds: Vec<OwnedFd>,
    ) -> ControlFlow<End, (Reply, Option<OwnedFd>)> {
        let socket = |it: Result<OwnedFd, Failure>| match it {
            Ok(socket) => (Reply::Socket, Some(socket)),
            Err(failure) => (Reply::Failed(failure), None),
        };
        ControlFlow::Continue(match request {
            Request::Namespaces => {
                (Reply::Namespaces { rootless: self.namespaces.user.is_some() }, None)
            }
            Request::Listen { address } => socket(sockets::listen(*address)),
            Request::ConnectTcp { address } => socket(sockets::connect_tcp(*address)),
            Request::ConnectUdp { address } => socket(sockets::connect_udp(*address)),
            Request::ConnectIcmp { address } => socket(sockets::connect_icmp(*address)),
            Request::BindUdp { address } => socket(sockets::bind_udp(*address)),
            Request::Spawn { arguments } => {
                let spawned = inside::spawn(&self.namespaces, arguments, fds);
                (spawned.map_or_else(Reply::Failed, |()| Reply::Spawned), None)
            }
            Request::Standby => match standby::copy() {
                Ok(Copy::Original(control)) => (Reply::Standby, Some(control)),
                Ok(Copy::Standby(control)) => return ControlFlow::Break(End::Copied(control)),
                Err(failure) => (Reply::Failed(failure), None),
            },
            Request::Ping => (Reply::Pong { pid: std::process::id() }, None),
            Request::Exit => (Reply::Exiting, None),
            Request::TakeOver { .. } => {
                (Reply::Failed(Failure::bad_request("this keeper is active already")), None)
            }
        })
    }

    fn end(&self) -> io::Result<()> {
        std::fs::remove_file(self.run_dir.join(wire::SOCKET))
    }
}

/// Answers without ever waiting: a client that does not read what it asked for is closed.
fn send_now(client: &OwnedFd, reply: &Reply, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut poll = [PollFd::new(client, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut poll, Some(&now)) {
        Ok(0) => Err(Errno::AGAIN.into()),
        Ok(_) => wire::send(client, reply, fds),
        Err(error) => Err(error.into()),
    }
}

/// The one lock of the run folder. The kernel closes a dead keeper's connections before its lock, so
/// whoever hears of its end may be here a moment too early.
fn lock(run_dir: &Path) -> Result<OwnedFd, Failure> {
    let path = run_dir.join(wire::LOCK);
    let failed = |error: Errno| {
        let kind = match error {
            Errno::WOULDBLOCK => FailureKind::AnotherKeeper,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => FailureKind::PermissionDenied,
            _ => FailureKind::Other,
        };
        let path = path.display();
        let message = match error {
            Errno::WOULDBLOCK => format!("another keeper is active: it holds `{path}`"),
            error => format!("cannot lock `{path}`: {}", io::Error::from(error)),
        };
        Failure { kind, errno: error.raw_os_error(), message }
    };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    for _ in 1..LOCK_TRIES {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) => {
                rustix::event::poll(&mut [], Some(&LOCK_PAUSE)).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(failed)?;
    Ok(file)
}

/// The listening socket, in place of one that a dead keeper left. The caller has the lock.
fn bind(run_dir: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(run_dir.join(wire::SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = wire::socket(SocketFlags::NONBLOCK)?;
    let (address, _dir) = wire::address(run_dir, wire::SOCKET)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}
