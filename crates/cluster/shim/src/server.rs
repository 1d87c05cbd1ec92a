//! The shim's process: one thread, one `poll`, woken only by requests, output and ends.
//!
//! Begins and ends the process, and finds out what has happened; what is done then is in `shim`.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::PathBuf,
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{
    cgroups::Cgroups,
    container::{ClientId, OutputIndex},
    draft::Ahead,
    files::{self, OwnRecord},
    nursery::{self, Newborn},
    pod::{self, Pod},
    process::{self, Process},
    seal,
    shim::Shim,
    sys,
    time::Moment,
    title,
    wire::{Failure, FailureKind, PodSpec, Reply, Request, SpareSpec},
};

/// Connections not yet accepted; the kernel makes further clients wait.
const BACKLOG: i32 = 64;

/// The signals the shim is told of by descriptor: ended children, and the machine's shutdown.
const SIGNALS: [i32; 4] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// `coracle shim nursery …`: the nursery, and every shim that it forks. Serves until told to exit.
/// The arguments are for people only; standard input is the control socket.
#[must_use]
pub fn main(_arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match seal::seal().and_then(|()| detach()).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not eprintln: standard error may be closed, and that is no reason to panic.
            drop(writeln!(io::stderr(), "coracle shim: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(requests: OwnedFd) -> io::Result<()> {
    let Some(Newborn { control, spec, beside }) = nursery::raise(&requests)? else {
        return Ok(());
    };
    // Open here, it would keep its other end from noticing the nursery's end.
    drop(requests);
    let mut control = Control { socket: control, failed: false };
    match begin((spec, beside), &mut control) {
        Ok(Some((mut shim, dir))) => {
            drop(control);
            let served = serve(&mut shim);
            files::remove_own(&dir)?;
            served
        }
        Ok(None) => Ok(()),
        Err(error) => {
            control.fail(FailureKind::Other, &error);
            Err(error)
        }
    }
}

/// The connection to whoever asked for the shim.
struct Control {
    socket: OwnedFd,
    failed: bool,
}

impl Control {
    fn fail(&mut self, kind: FailureKind, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(0);
        let failure = Failure { kind, errno, message: format!("cannot be a shim: {error}") };
        if !self.failed {
            self.failed = true;
            // Nobody may be there to be told; standard error is told as well.
            crate::wire::send(&self.socket, &Reply::Failed(failure), &[]).ok();
        }
    }
}

/// Leaves the caller's session, folder and limits, and returns the control socket it gave us as
/// standard input, which becomes /dev/null.
fn detach() -> io::Result<OwnedFd> {
    sys::close_inherited()?;
    rustix::thread::set_name(c"coracle shim")?;
    // Fails only for the leader of a process group, who then is detached already.
    rustix::process::setsid().ok();
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::process::chdir("/")?;
    rustix::process::umask(Mode::from_bits_retain(0o077));
    Ok(control)
}

/// Makes everything a shim has, and the run folder of its pod; `None` if there is nothing to do.
fn begin(
    (spec, beside): (SpareSpec, Option<OwnedFd>),
    control: &mut Control,
) -> io::Result<Option<(Shim, PathBuf)>> {
    // The nursery leads a session of its own; a signal to that is not for its shims.
    rustix::process::setsid()?;
    let cgroups = spec.cgroups.clone();
    let ground = pod::prepare(spec, beside)?;
    let cgroups = Cgroups::open(&cgroups);
    let ready = Reply::Ready { pid: std::process::id() };
    crate::wire::send(&control.socket, &ready, &[ground.net()])?;
    // Without it the first container is begun when it is asked for, and what is wrong is told then.
    let ahead = match &ground.users {
        None => cgroups.and_then(|it| Ahead::fork(&ground, it)).ok(),
        // What is made ahead is of use to those who are in no user namespace.
        Some(_) => None,
    };
    let mut decoder = crate::wire::Decoder::default();
    let Some(request) = crate::wire::receive::<Request>(&control.socket, &mut decoder)? else {
        // Whoever wanted a shim is gone, and nobody else knows of this one.
        return Ok(None);
    };
    let Request::Pod(PodSpec { name, dir, hostname, sysctls }) = request else {
        return Err(io::Error::other("the first message is not `pod`"));
    };
    let Some(lock) = files::lock(&dir)? else {
        let error = io::Error::other(format!("the pod has one already, in `{}`", dir.display()));
        control.fail(FailureKind::AnotherShim, &error);
        return Err(error);
    };
    rustix::stdio::dup2_stderr(files::diagnostics(&dir)?)?;
    let words = ["coracle", "shim", &name, "--dir"].map(OsStr::new);
    // Refused where /proc cannot be written; then people see the nursery's arguments.
    title::set(&[&words[..], &[dir.as_os_str()]].concat()).ok();
    let cluster_net = ground.cluster_net();
    let pod = Pod::new(dir.clone(), hostname, &sysctls, ground)?;
    let boot = process::boot()?;
    let own = Process::of(std::process::id(), &boot)?;
    let listener = files::listen(&dir, BACKLOG)?;
    files::write_own(&dir, &OwnRecord { pod: name, process: own, cluster_net })?;
    let signals = sys::signal_fd(&SIGNALS)?;
    let mut shim = Shim::new(pod, ahead, boot, listener, signals, lock);
    shim.adopt(control.socket.try_clone()?)?;
    Ok(Some((shim, dir)))
}

/// What has happened.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// A child has ended, or the machine shuts down.
    Signals,
    /// A new client.
    Listener,
    /// A client has sent something, or is gone.
    Client(ClientId),
    /// A new process has something to say: by its process id.
    Channel(u32),
    /// A container has written something: by the process id of its first process.
    Output(u32, OutputIndex),
    /// An exec'd process has written something: by its process id.
    ExecOutput(u32),
}

fn serve(shim: &mut Shim) -> io::Result<()> {
    while shim.goes_on() {
        for source in wait(shim)? {
            shim.handle(source)?;
        }
        shim.expire(Moment::now());
    }
    Ok(())
}

/// Waits until something happens or a deadline passes.
fn wait(shim: &Shim) -> io::Result<Vec<Source>> {
    let (sources, mut fds): (Vec<Source>, Vec<PollFd<'_>>) = shim
        .sources()
        .map(|(source, fd)| (source, PollFd::from_borrowed_fd(fd, PollFlags::IN)))
        .unzip();
    let timeout = shim.deadline().map(|it| {
        let wait = it.since(Moment::now());
        Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        }
    });
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let ready = sources.into_iter().zip(&fds).filter(|(_, it)| !it.revents().is_empty());
    Ok(ready.map(|(source, _)| source).collect())
}
