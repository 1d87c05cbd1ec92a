//! An nsqd as a process of its own: `coracle queue nsqd` on a folder of the disk. Knows what it
//! logs, and ends it by whatever signal.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal};

/// Longest start and longest orderly end, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks whether the process has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a killed process may leave, and what its successor may say of that.
const EXPECTED: &str = "cut the torn end";

/// A process that was started. It is killed when this is dropped.
pub(crate) struct Nsqd {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

/// Where one listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) tcp: SocketAddr,
    pub(crate) http: SocketAddr,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    ended: bool,
}

impl Nsqd {
    /// Starts one; it may not serve yet.
    pub(crate) fn spawn(folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::var_os("CORACLE").context("CORACLE is the program to test")?;
        let mut command = Command::new(program);
        command.args(["queue", "nsqd", "-tcp-address=127.0.0.1:0", "-http-address=127.0.0.1:0"]);
        command.arg(format!("-data-path={}", folder.display())).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start nsqd")?;
        let stderr = child.stderr.take().context("its standard error")?;
        let log = Arc::new(Log::default());
        let of_reader = Arc::clone(&log);
        let reader = Some(std::thread::spawn(move || of_reader.read(stderr)));
        Ok(Self { child, log, reader })
    }

    /// Waits until it serves.
    pub(crate) fn ready(&self) -> anyhow::Result<Addresses> {
        let tcp = self.log.wait("serving clients address=")?;
        let http = self.log.wait("serving HTTP address=")?;
        Ok(Addresses { tcp, http })
    }

    /// Whether it has logged a line with `text`.
    pub(crate) fn said(&self, text: &str) -> bool {
        self.log.lock().all.iter().any(|it| it.contains(text))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("kill nsqd")?;
        self.child.wait().context("wait for nsqd")?;
        Ok(())
    }

    /// Asks it to end (SIGTERM); it must do so in order.
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.wait()?;
        ensure!(status.success(), "asked to end, nsqd ended with {status}");
        Ok(())
    }

    fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().context("wait for nsqd")? {
                return Ok(status);
            }
            ensure!(now() < deadline, "nsqd does not end");
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// All that it logged which it should not have. To be asked when it has ended.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            return vec!["the thread that reads its log panicked".to_owned()];
        }
        let bad = |line: &&String| {
            let level = [" ERROR: ", " FATAL: ", " WARNING: ", "panicked"];
            level.iter().any(|it| line.contains(it)) && !line.contains(EXPECTED)
        };
        self.log.lock().all.iter().filter(bad).cloned().collect()
    }
}

impl Drop for Nsqd {
    fn drop(&mut self) {
        // It may have ended long ago.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

impl Log {
    fn read(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).lines() {
            // What is not UTF-8 is a complaint, too.
            let line = line.unwrap_or_else(|error| format!("panicked? unreadable log: {error}"));
            self.lock().all.push(line);
            self.more.notify_all();
        }
        self.lock().ended = true;
        self.more.notify_all();
    }

    /// The address behind `what`, when it is logged.
    fn wait(&self, what: &str) -> anyhow::Result<SocketAddr> {
        let deadline = now() + PATIENCE;
        let mut lines = self.lock();
        loop {
            let found = lines.all.iter().find_map(|it| it.split_once(what));
            if let Some((_, rest)) = found {
                let address = rest.split(' ').next().unwrap_or_default().trim_matches('"');
                return address.parse().with_context(|| format!("address `{address}`"));
            }
            let left = deadline.saturating_duration_since(now());
            if lines.ended || left.is_zero() {
                bail!("nsqd does not serve; it says:\n{}", lines.all.join("\n"));
            }
            let waited = self.more.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "the test is of a process, whose time nobody sets")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
