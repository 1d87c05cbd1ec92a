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
    process::{Signal, WaitStatus},
    thread::{LinkNameSpaceType, ThreadNameSpaceType},
};

use crate::{
    channel::{Channel, News},
    child::{self, Pod, Stdio},
    container::{self, ClientId, Outcome},
    sys::{self, New},
    time::Moment,
    wire::{ExecSpec, Finished, Reply, Stage, StartError},
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
    /// Starts a process; the answer comes through the channel. `container` is the container's
    /// first process, `own` the shim's PID namespace.
    pub(crate) fn start(
        pod: &Pod,
        own: &OwnedFd,
        container: &OwnedFd,
        spec: &ExecSpec,
        stdio: Option<[OwnedFd; 3]>,
        client: ClientId,
    ) -> Result<Self, StartError> {
        let started = || -> io::Result<Self> {
            let (capture, [stdin, stdout, stderr]) = match (stdio, spec.output_max) {
                (Some(stdio), None) => (None, stdio),
                (_, max) => {
                    let (pipe, writer) = container::pipe()?;
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
            let forked = in_pid_namespace(own, container, || {
                if let Some(process) = sys::fork(New::Nothing)? {
                    return Ok(process);
                }
                let stdio =
                    Stdio { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
                child::exec(pod, container, &spec.process, &child_end, stdio)
            });
            let process = forked?;
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
        started().map_err(|it| container::failed(Stage::Fork, "cannot start a process", &it))
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

    pub(crate) fn kill(&self) {
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

/// Makes children of `fork` begin in the PID namespace of a container, of which the shim itself
/// never is.
fn in_pid_namespace<T>(
    own: &OwnedFd,
    container: &OwnedFd,
    fork: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let kind = ThreadNameSpaceType::PROCESS_ID;
    rustix::thread::move_into_thread_name_spaces(container.as_fd(), kind)?;
    let forked = fork();
    rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
    forked
}
