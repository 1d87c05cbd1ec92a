//! The servers of one test: an nsqlookupd, an nsqd that it knows, one that asks an auth server, and
//! that auth server. Each test has a loopback address of its own, so no two tests ever want the same
//! port, nor does a server that is started again find its port taken.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio, id},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::variable;

/// Longest a server may take until it listens: more than ten times what it takes.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often, and how many times, a server is asked for what must become so soon: half a minute.
const ASK_PERIOD: Duration = Duration::from_millis(10);
const ASK_TIMES: usize = 3_000;
/// Ports of the first test. The next has the next ones.
const PORT_FIRST: u16 = 20_000;
const PORTS_OF_ONE: u16 = 20;
/// Who may do everything, by the auth server.
pub(crate) const SECRET: &str = "opensesame";

/// What has a port.
#[derive(Clone, Copy)]
enum Port {
    Tcp,
    Http,
    Https,
    LookupdTcp,
    LookupdHttp,
    Auth,
    GuardedTcp,
    GuardedHttp,
}

pub(crate) struct Nsq {
    host: Ipv4Addr,
    port: u16,
    folder: tempfile::TempDir,
    programs: tempfile::TempDir,
    lookupd: Option<Server>,
    nsqd: Option<Server>,
    guarded: Option<Server>,
    sockets: Option<Server>,
    log: Log,
}

/// What all servers of a test said.
type Log = Arc<Mutex<String>>;

/// A running server; killed when dropped.
struct Server(Child);

impl Nsq {
    pub(crate) fn start() -> anyhow::Result<Self> {
        static TESTS: AtomicU16 = AtomicU16::new(0);
        let test = TESTS.fetch_add(1, Ordering::Relaxed);
        // A process has at most 22 bits of number, and 64 is far from what others use.
        let [_, high, middle, low] = id().to_be_bytes();
        let mut nsq = Self {
            host: Ipv4Addr::new(127, 64 | high, middle, low),
            port: PORT_FIRST + test * PORTS_OF_ONE,
            folder: tempfile::tempdir()?,
            programs: programs()?,
            lookupd: None,
            nsqd: None,
            guarded: None,
            sockets: None,
            log: Log::default(),
        };
        for name in ["data", "guarded-data", "sockets-data"] {
            fs::create_dir(nsq.path(name))?;
        }
        nsq.certify()?;
        nsq.authorize()?;
        nsq.lookupd = Some(nsq.start_server(
            "nsqlookupd",
            &[
                format!("-tcp-address={}", nsq.at(Port::LookupdTcp)),
                format!("-http-address={}", nsq.at(Port::LookupdHttp)),
                format!("-broadcast-address={}", nsq.host),
            ],
            &["listens"],
        )?);
        nsq.guarded = Some(nsq.start_server(
            "nsqd",
            &[
                format!("-tcp-address={}", nsq.at(Port::GuardedTcp)),
                format!("-http-address={}", nsq.at(Port::GuardedHttp)),
                format!("-auth-http-address={}", nsq.at(Port::Auth)),
                format!("-data-path={}", nsq.path("guarded-data").display()),
            ],
            &["serving clients", "serving HTTP "],
        )?);
        nsq.start_nsqd()?;
        Ok(nsq)
    }

    /// Starts the nsqd, on the data that is there.
    fn start_nsqd(&mut self) -> anyhow::Result<()> {
        self.nsqd = Some(self.start_server(
            "nsqd",
            &[
                format!("-tcp-address={}", self.at(Port::Tcp)),
                format!("-http-address={}", self.at(Port::Http)),
                format!("-https-address={}", self.at(Port::Https)),
                format!("-lookupd-tcp-address={}", self.at(Port::LookupdTcp)),
                format!("-broadcast-address={}", self.host),
                format!("-data-path={}", self.path("data").display()),
                format!("-tls-cert={}", self.path("cert.pem").display()),
                format!("-tls-key={}", self.path("key.pem").display()),
            ],
            &["serving clients", "serving HTTP ", "serving HTTPS "],
        )?);
        Ok(())
    }

    /// Starts `coracle` by one of its names and waits until it has said all of `words`.
    fn start_server(
        &self,
        program: &str,
        arguments: &[String],
        words: &'static [&str],
    ) -> anyhow::Result<Server> {
        let mut command = Command::new(self.programs.path().join(program));
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {program}"))?;
        let output = child.stderr.take();
        let server = Server(child);
        let output = output.context("standard error of a server")?;
        let (said, listens) = mpsc::sync_channel(1);
        let log = Arc::clone(&self.log);
        thread::spawn(move || follow(output, &log, words, &said));
        if listens.recv_timeout(START_TIMEOUT).is_err() {
            bail!("{program} does not listen:\n{}", self.log());
        }
        Ok(server)
    }

    /// A certificate of the host for itself. Some clients always ask for `localhost`.
    fn certify(&self) -> anyhow::Result<()> {
        let made =
            rcgen::generate_simple_self_signed([self.host.to_string(), "localhost".to_owned()])?;
        fs::write(self.path("cert.pem"), made.cert.pem())?;
        fs::write(self.path("key.pem"), made.signing_key.serialize_pem())?;
        Ok(())
    }

    /// Starts an auth server that knows one secret. It ends with the test program.
    fn authorize(&self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.at(Port::Auth))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who goes away meanwhile is told nothing.
                answer_auth(stream).ok();
            }
        });
        Ok(())
    }

    /// What a client has to know, as JSON.
    pub(crate) fn shown(&self) -> String {
        serde_json::json!({
            "host": self.host.to_string(),
            "tcp": self.at(Port::Tcp),
            "http": self.at(Port::Http),
            "https": self.at(Port::Https),
            "lookupd": self.at(Port::LookupdHttp),
            "guarded": self.at(Port::GuardedTcp),
            "secret": SECRET,
            "tcp_socket": self.path("tcp.sock"),
            "http_socket": self.path("http.sock"),
            "ca": self.path("cert.pem"),
        })
        .to_string()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does what a script asks for.
    pub(crate) fn obey(&mut self, words: &[&str]) -> anyhow::Result<()> {
        match *words {
            // Dropped, it is killed with SIGKILL, and what it had is as it was at that moment.
            ["kill"] => self.nsqd = None,
            ["start"] => self.start_nsqd()?,
            ["sockets"] => {
                self.sockets = None;
                self.sockets = Some(self.start_server(
                    "nsqd",
                    &[
                        format!("-tcp-address={}", self.path("tcp.sock").display()),
                        format!("-http-address={}", self.path("http.sock").display()),
                        format!("-data-path={}", self.path("sockets-data").display()),
                    ],
                    &["serving clients", "serving HTTP "],
                )?);
            }
            ["topic", topic] => {
                let target = format!("/topic/create?topic={topic}");
                ask(&self.at(Port::Http), "POST", &target)?;
                self.until(&format!("nsqlookupd knows `{topic}`"), |nsq| {
                    let lookup = format!("/lookup?topic={topic}");
                    let said = ask(&nsq.at(Port::LookupdHttp), "GET", &lookup)?;
                    let known = said.get("producers").and_then(serde_json::Value::as_array);
                    Ok(known.is_some_and(|it| !it.is_empty()))
                })?;
            }
            ["subscribed", topic, channel] => {
                self.until(&format!("`{topic}/{channel}` has a client"), |nsq| {
                    Ok(nsq.counts(topic, channel, &["client_count"])? > 0)
                })?;
            }
            ["finished", topic, channel] => self.obey(&["left", topic, channel, "0"])?,
            ["left", topic, channel, count] => {
                let count: u64 = count.parse()?;
                self.until(&format!("{count} are left in `{topic}/{channel}`"), |nsq| {
                    let waiting = ["depth", "in_flight_count", "deferred_count"];
                    Ok(nsq.counts(topic, channel, &waiting)? == count)
                })?;
            }
            _ => bail!("no such request"),
        }
        Ok(())
    }

    /// The sum of these figures of a channel. Of one that is not there yet it is 0.
    fn counts(&self, topic: &str, channel: &str, names: &[&str]) -> anyhow::Result<u64> {
        let stats = format!("/stats?format=json&topic={topic}&channel={channel}");
        let said = ask(&self.at(Port::Http), "GET", &stats)?;
        let Some(channel) = said.pointer("/topics/0/channels/0") else { return Ok(0) };
        let mut sum = 0;
        for name in names {
            let count = channel.get(name).and_then(serde_json::Value::as_u64);
            sum += count.with_context(|| format!("{name} in {said}"))?;
        }
        Ok(sum)
    }

    /// Waits until something is so.
    fn until(&self, what: &str, is: impl Fn(&Self) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        for _ in 0..ASK_TIMES {
            if is(self)? {
                return Ok(());
            }
            thread::sleep(ASK_PERIOD);
        }
        bail!("in vain waited until {what}")
    }

    /// Ends the servers as a user does.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        for server in [self.nsqd.take(), self.guarded.take(), self.lookupd.take()] {
            server.context("a server that nobody killed")?.stop()?;
        }
        if let Some(server) = self.sockets.take() {
            server.stop()?;
        }
        Ok(())
    }

    fn at(&self, port: Port) -> String {
        format!("{}:{}", self.host, self.port + port as u16)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Server {
    fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let status = self.0.wait()?;
        ensure!(status.success(), "a server ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Harmless if it has ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Writes down what a server says, and tells when all of `words` have come.
fn follow(output: ChildStderr, log: &Log, words: &[&str], said: &mpsc::SyncSender<()>) {
    let mut awaited = words.to_vec();
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_str(&line);
        log.push('\n');
        drop(log);
        let before = awaited.len();
        awaited.retain(|it| !line.contains(it));
        if before > 0 && awaited.is_empty() {
            // Nobody listens any more if that took too long.
            said.try_send(()).ok();
        }
    }
}

/// A folder with NSQ's programs: `coracle` is each of them by its name.
pub(crate) fn programs() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let coracle = fs::canonicalize(variable("CORACLE")?)?;
    for name in ["nsqd", "nsqlookupd"] {
        std::os::unix::fs::symlink(&coracle, folder.path().join(name))?;
    }
    Ok(folder)
}

/// What a server answers over HTTP, `null` if nothing.
fn ask(address: &str, method: &str, target: &str) -> anyhow::Result<serde_json::Value> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "{method} {target} HTTP/1.0\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").with_context(|| answer.clone())?;
    if body.is_empty() {
        return Ok(serde_json::Value::Null);
    }
    serde_json::from_str(body).with_context(|| answer.clone())
}

/// Answers one question of nsqd.
fn answer_auth(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().context("a request")??;
    for header in lines {
        if header?.is_empty() {
            break;
        }
    }
    let (status, body) = if request.contains(&format!("secret={SECRET}")) {
        let all = serde_json::json!([
            {"topic": ".*", "channels": [".*"], "permissions": ["subscribe", "publish"]}
        ]);
        ("200 OK", serde_json::json!({"ttl": 3600, "identity": "ali", "authorizations": all}))
    } else {
        ("403 Forbidden", serde_json::json!({"message": "unknown"}))
    };
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )?;
    Ok(())
}
