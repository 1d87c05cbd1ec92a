//! Further processes in a running container: exec probes, `kubectl exec`.
//!
//! Each belongs to the connection that asked for it, and is killed when that closes.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    process::{Pid, Signal, WaitStatus},
};

use crate::{
    cgroups::Cgroups,
    channel::{Channel, News},
    child::{self, Ground, Setting, Stdio, Users},
    container::{self, ClientId, Container, Outcome, Running},
    inside::{self, Place},
    streams,
    sys::New,
    time::Moment,
    wire::{ExecSpec, Finished, Reply, Stage},
};

/// Output read at once.
const READ_BYTES: usize = 4 * 1024;

/// A further process of a container.
#[derive(Debug)]
pub(crate) struct Exec {
    client: ClientId,
    pid: u32,
    pidfd: OwnedFd,
    channel: Option<Channel>,
    capture: Option<Capture>,
    deadline: Option<Moment>,
    timed_out: bool,
}

/// The first bytes of an output.
#[derive(Debug)]
struct Capture {
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
    max: usize,
}

impl Exec {
    /// Starts a process in a container that runs; the answer comes through the channel.
    pub(crate) fn start(
        ground: &Ground,
        container: &Container,
        spec: &ExecSpec,
        stdio: Option<[OwnedFd; 3]>,
        client: ClientId,
    ) -> Result<Self, Reply> {
        let Running { first, image, own_users, on_host } = container.running()?;
        let cgroups = Cgroups::open(container.cgroups()).map_err(|it| {
            container::failed(Stage::Cgroups, "cannot open the control groups", &it)
        })?;
        let started = || -> io::Result<Self> {
            let (capture, [stdin, stdout, stderr]) = match (stdio, spec.output_max) {
                (Some(stdio), None) => (None, stdio),
                (_, max) => {
                    let (pipe, writer) = streams::pipe()?;
                    ground.users.as_ref().map_or(Ok(()), |it| it.give(&writer))?;
                    let null = rustix::fs::open(
                        "/dev/null",
                        OFlags::RDONLY | OFlags::CLOEXEC,
                        Mode::empty(),
                    )?;
                    let max = usize::try_from(max.unwrap_or_default()).unwrap_or_default();
                    let capture = Capture { pipe: Some(pipe), bytes: Vec::new(), max };
                    (Some(capture), [null, writer.try_clone()?, writer])
                }
            };
            let (channel, child_end) = Channel::new()?;
            let seccomp = container::open_seccomp(&spec.process)?;
            // Without root, nobody can be put into the machine's own PID namespace who left it.
            let place = Place { first: (!on_host).then_some(first), users: None };
            let oom_score_adj = spec.process.oom_score_adj;
            let forked = inside::fork(place, New::Sibling, &cgroups, oom_score_adj)?;
            let Some(process) = forked else {
                let initial = ground.initial_user_namespace;
                let users = match (&ground.users, own_users) {
                    (Some(_), _) => Users::Pod,
                    (None, true) => Users::Of(first),
                    (None, false) => Users::Cluster { initial },
                };
                let setting = Setting { users, image, seccomp };
                let stdio =
                    Stdio { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
                child::exec(ground, first, setting, &spec.process, &child_end, stdio)
            };
            Ok(Self {
                client,
                pid: process.pid.as_raw_nonzero().get().cast_unsigned(),
                pidfd: process.pidfd,
                channel: Some(channel),
                capture,
                deadline: spec.timeout_ms.map(|it| Moment::now().after_ms(it)),
                timed_out: false,
            })
        };
        let started = started();
        Ok(started.map_err(|it| container::failed(Stage::Fork, "cannot start a process", &it))?)
    }

    /// Reads the channel, which is readable.
    pub(crate) fn hear(&mut self) -> Outcome {
        let Some(channel) = &mut self.channel else { return Outcome::Pending };
        match channel.read() {
            News::Closed => {
                self.channel = None;
                Outcome::Answer(self.client, Reply::Executed { pid: self.pid })
            }
            News::Failed(error) => Outcome::Failed(self.client, error),
            News::None | News::Prepared => Outcome::Pending,
        }
    }

    /// Reads the output, which is readable.
    pub(crate) fn pump(&mut self) {
        if let Some(capture) = &mut self.capture {
            capture.pump();
        }
    }

    /// Its time is up.
    pub(crate) fn time_out(&mut self) {
        self.deadline = None;
        self.timed_out = true;
        self.kill();
    }

    /// Kills the process and what it started: it leads a process group of its own.
    pub(crate) fn kill(&self) {
        // Our child, not yet waited for, so the number can be no other group's. It may fail only
        // when the process has not come to lead one yet.
        if let Some(group) = Pid::from_raw(self.pid.cast_signed()) {
            rustix::process::kill_process_group(group, Signal::KILL).ok();
        }
        // It fails only if the process has ended already.
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
    }

    /// The process has ended: what to answer.
    pub(crate) fn end(mut self, status: WaitStatus) -> Finished {
        self.pump();
        let (code, signal) = container::exit_code(status);
        let output = self.capture.map(|it| String::from_utf8_lossy(&it.bytes).into_owned());
        Finished { code, signal, timed_out: self.timed_out, output }
    }

    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.deadline
    }

    pub(crate) fn channel(&self) -> Option<BorrowedFd<'_>> {
        Some(self.channel.as_ref()?.as_fd())
    }

    pub(crate) fn output(&self) -> Option<BorrowedFd<'_>> {
        Some(self.capture.as_ref()?.pipe.as_ref()?.as_fd())
    }
}

impl Capture {
    fn pump(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let mut bytes = [0; READ_BYTES];
        loop {
            match rustix::io::read(pipe, &mut bytes) {
                Ok(0) => break,
                Ok(count) => {
                    let room = self.max.saturating_sub(self.bytes.len());
                    self.bytes.extend_from_slice(bytes.get(..count.min(room)).unwrap_or_default());
                    if count < READ_BYTES {
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                // Nothing more for now; a pipe has no other errors.
                Err(_) => return,
            }
        }
        self.pipe = None;
    }
}
