//! The system under test: its programs as processes of this machine, each with a queue of its own at
//! ports of its own, and what they have said.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest wait for anything that a test expects to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks at something that tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Where the search for free ports begins: below those that the system gives to connections.
const PORT_FIRST: u16 = 22_200;

/// A queue for one test, and the ports that its programs use.
pub struct System {
    data: PathBuf,
    pub tcp: u16,
    http: u16,
    lookupd_tcp: u16,
    lookupd_http: u16,
}

impl System {
    /// Nothing runs yet; the queue is empty.
    pub fn new(name: &str) -> Self {
        let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        if data.exists() {
            fs::remove_dir_all(&data).unwrap();
        }
        fs::create_dir_all(&data).unwrap();
        let [tcp, http, lookupd_tcp, lookupd_http] = [(); 4].map(|()| free_port());
        Self { data, tcp, http, lookupd_tcp, lookupd_http }
    }

    /// One with nsqlookupd and nsqd.
    pub fn running(name: &str) -> (Self, [Program; 2]) {
        let system = Self::new(name);
        let programs = [system.nsqlookupd(), system.nsqd(&[])];
        (system, programs)
    }

    pub fn nsqlookupd(&self) -> Program {
        let mut command = queue("nsqlookupd");
        command.arg(format!("--tcp-address=127.0.0.1:{}", self.lookupd_tcp));
        command.arg(format!("--http-address=127.0.0.1:{}", self.lookupd_http));
        let program = Program::start(command);
        self.answers(self.lookupd_http);
        program
    }

    /// nsqd, with more `flags`.
    pub fn nsqd(&self, flags: &[&str]) -> Program {
        let mut command = queue("nsqd");
        command.arg(format!("--tcp-address=127.0.0.1:{}", self.tcp));
        command.arg(format!("--http-address=127.0.0.1:{}", self.http));
        command.arg(format!("--lookupd-tcp-address=127.0.0.1:{}", self.lookupd_tcp));
        command.arg("--broadcast-address=127.0.0.1");
        command.arg(format!("--data-path={}", self.data.display()));
        let program = Program::start({
            command.args(flags);
            command
        });
        self.answers(self.http);
        program
    }

    pub fn sensor(&self) -> Program {
        self.start(env!("CARGO_BIN_EXE_sensor"), &[])
    }

    pub fn worker(&self) -> Program {
        self.start(env!("CARGO_BIN_EXE_worker"), &[])
    }

    /// A worker that publishes elsewhere.
    pub fn worker_with(&self, nsqd_port: u16) -> Program {
        self.start(
            env!("CARGO_BIN_EXE_worker"),
            &[("NSQD_ADDRESS", &format!("127.0.0.1:{nsqd_port}"))],
        )
    }

    pub fn app(&self) -> Program {
        self.start(env!("CARGO_BIN_EXE_app"), &[])
    }

    /// An app that listens to something else.
    pub fn app_of(&self, topic: &str, channel: &str) -> Program {
        self.start(env!("CARGO_BIN_EXE_app"), &[("TOPIC", topic), ("CHANNEL", channel)])
    }

    fn start(&self, program: &str, variables: &[(&str, &str)]) -> Program {
        let mut command = Command::new(program);
        command.env("NSQD_ADDRESS", format!("127.0.0.1:{}", self.tcp));
        command.env("NSQLOOKUPD_ADDRESS", format!("127.0.0.1:{}", self.lookupd_http));
        command.envs(variables.iter().copied());
        Program::start(command)
    }

    /// POST to nsqd, which must do it; whether it answered.
    pub fn post(&self, path: &str, body: &str) -> bool {
        ureq::post(format!("http://127.0.0.1:{}{path}", self.http)).send(body).is_ok()
    }

    /// Publishes a message, which must be taken.
    pub fn publish(&self, topic: &str, body: &str) {
        assert!(self.post(&format!("/pub?topic={topic}"), body), "{body} was not taken");
    }

    /// What nsqd counts of a channel.
    pub fn channel(&self, topic: &str, channel: &str) -> Value {
        let url = format!(
            "http://127.0.0.1:{}/stats?format=json&topic={topic}&channel={channel}",
            self.http
        );
        let text = ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
        let stats: Value = serde_json::from_str(&text).unwrap();
        stats["topics"][0]["channels"][0].clone()
    }

    fn answers(&self, http: u16) {
        let url = format!("http://127.0.0.1:{http}/ping");
        eventually("it answers", || ureq::get(&url).call().is_ok());
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // In use by nsqd until the test has dropped that, too: what stays goes with the next run.
        drop(fs::remove_dir_all(&self.data));
    }
}

/// A program that runs. Killed when dropped.
pub struct Program {
    child: Child,
    said: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Program {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let said = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                heard.0.lock().unwrap().push(line);
                heard.1.notify_all();
            }
        });
        Self { child, said }
    }

    /// What stands after `prefix` in the lines that begin so.
    pub fn said(&self, prefix: &str) -> Vec<String> {
        after(&self.said.0.lock().unwrap(), prefix)
    }

    /// Waits until `count` lines begin with `prefix`, and returns what stands after it.
    pub fn says(&self, prefix: &str, count: usize) -> Vec<String> {
        let (lines, changed) = &*self.said;
        let few = |lines: &mut Vec<String>| after(lines, prefix).len() < count;
        let lines = lines.lock().unwrap();
        let (lines, waited) = changed.wait_timeout_while(lines, PATIENCE, few).unwrap();
        let said = lines.join("\n");
        assert!(!waited.timed_out(), "waited for {count} lines `{prefix}…` in:\n{said}");
        after(&lines, prefix)
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.child.wait().unwrap()
    }

    pub fn ask_to_stop(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn after(lines: &[String], prefix: &str) -> Vec<String> {
    lines.iter().filter_map(|it| it.strip_prefix(prefix)).map(str::to_owned).collect()
}

/// Waits for a level that nobody announces.
pub fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// One of NSQ's programs: `coracle queue …` of the binary that `CORACLE` names, or the installed one.
fn queue(program: &str) -> Command {
    let coracle = env::var_os("CORACLE").unwrap_or_else(|| "coracle".into());
    let mut command = Command::new(coracle);
    command.args(["queue", program]).stderr(Stdio::null());
    command
}

/// A port of 127.0.0.1 that nobody uses now, and no other test of this program.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(PORT_FIRST);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
