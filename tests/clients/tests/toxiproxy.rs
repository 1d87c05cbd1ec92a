//! Toxiproxy's own clients, of PyPI and npm, against the HTTP API of `coracle fault`: what their users
//! do, and its effect on a real connection. What they do is in `../toxiproxy`; the clients are installed
//! by `cargo xtask tools`, and `cargo xtask test fault` says where.

use std::{
    env,
    ffi::OsStr,
    io::{self, BufRead as _, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, ensure};
use expect_test::{Expect, expect};
use rustix::process::{Pid, Signal, kill_process};

/// Longest a client may take, in seconds: more than ten times what it takes.
const SECONDS_MAX: &str = "120";

fn variable(name: &str) -> anyhow::Result<PathBuf> {
    let value = env::var_os(name).map(PathBuf::from);
    value.with_context(|| format!("no {name}: run `cargo xtask test fault`, which sets it"))
}

/// `coracle fault`, without any proxy yet; killed when dropped.
struct Proxy {
    child: Child,
    /// Where the API is, HOST:PORT.
    api: String,
}

impl Proxy {
    fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(variable("CORACLE")?);
        command.args(["fault", "--control", "127.0.0.1:0", "-o", "json"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("standard output of the proxy")?;
        let mut proxy = Self { child, api: String::new() };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let said: serde_json::Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let url = said.get("control").and_then(serde_json::Value::as_str);
        let url = url.context("where the API is")?;
        url.strip_prefix("http://").context("an address")?.clone_into(&mut proxy.api);
        Ok(proxy)
    }

    /// Ends it as a user does.
    fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "coracle fault: {status}");
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Harmless if it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A server that sends back what comes, and ends when its client has.
fn echo() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serve = |stream: TcpStream| io::copy(&mut &stream, &mut &stream);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

/// Runs a script of `../toxiproxy` and compares what it prints.
fn check(
    program: &OsStr,
    script: &str,
    folder: (&str, PathBuf),
    expected: Expect,
) -> anyhow::Result<()> {
    let proxy = Proxy::start()?;
    let scripts = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", SECONDS_MAX]).arg(program);
    command.arg(scripts.join("toxiproxy").join(script)).args([&proxy.api, &echo()?.to_string()]);
    // The way to the outside, where one is set up, is not for this.
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").env(folder.0, folder.1);
    let output = command.stdin(Stdio::null()).output()?;
    let mut seen = String::from_utf8_lossy(&output.stdout).into_owned();
    seen.push_str(&String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        seen.push_str(&format!("[{}]\n", output.status));
    }
    proxy.stop()?;
    expected.assert_eq(&seen);
    Ok(())
}

#[test]
fn python() -> anyhow::Result<()> {
    let python = variable("PYTHON")?;
    let folder = ("PYTHONPATH", variable("TOXIPROXY_PYTHON")?);
    check(
        python.as_os_str(),
        "client.py",
        folder,
        expect![[r#"
        running: True
        version: 2.12.0
        proxies: {}

        # Proxies
        created: echo True True True
        through it: echo
        known: ['echo'] None
        down: refused
        what was open: b''
        up again: echo

        # Toxics
        latency downstream: echo, not before 0.2 s
        and upstream: echo, not before 0.3 s
        {'latency_downstream': ('latency', 'downstream', 1.0, {'distribution': 'uniform', 'jitter': 0, 'latency': 200}), 'latency_upstream': ('latency', 'upstream', 1.0, {'distribution': 'uniform', 'jitter': 0, 'latency': 100})}
        removed: True True
        quick again: True {}
        rate (bandwidth upstream): echo, not before 0.15 s
        back (bandwidth downstream): echo, not before 0.15 s
        slices (slicer upstream): echo, not before 0.04 s
        end (slow_close downstream): hello and the end, not before 0.2 s
        short (limit_data downstream): the first 3 bytes
        silence (timeout upstream): the first 0 bytes, not before 0.1 s
        reset (reset_peer downstream): reset
        on no connection: True 0.0

        # Errors
        ProxyExists: proxy already exists
        NotFound: proxy not found
        InvalidToxic: invalid toxic type
        InvalidToxic: stream was invalid, can be either upstream or downstream
        InvalidToxic: bad request body: latency: "long" is no number from 0
        NotFound: toxic not found
        ['latency_downstream']

        # Many
        populated: ['two', 'three'] of ['echo', 'three', 'two']
        through them: echo refused
        reset: {'echo': (True, {}), 'three': (True, {}), 'two': (True, {})}
        through them: ['echo', 'echo', 'echo']
        removed: True refused ['echo', 'three']
        all: {} refused
    "#]],
    )
}

#[test]
fn node() -> anyhow::Result<()> {
    let folder = ("NODE_PATH", variable("TOXIPROXY_NODE")?);
    check(
        OsStr::new("node"),
        "client.mjs",
        folder,
        expect![[r#"
        version: 2.12.0
        proxies: []

        # Proxies
        created: echo true true
        through it: echo
        known: [ 'echo' ] true
        down: false refused
        what was open has ended: true
        up again: true echo

        # Toxics
        latency: latency_downstream downstream 1 echo, not before 200 ms
        longer: 400 echo, not before 400 ms
        both ways: echo, not before 500 ms
        shown: other latency upstream 1 100 0
        quick again: true
        rate (bandwidth upstream): echo, not before 150 ms
        back (bandwidth downstream): echo, not before 150 ms
        slices (slicer downstream): echo, not before 40 ms
        end (slow_close upstream): hello and the end, not before 200 ms
        short (limit_data downstream): the first 3 bytes
        silence (timeout downstream): the first 0 bytes, not before 100 ms
        reset (reset_peer upstream): reset
        on no connection: true

        # Errors
        ToxiproxyError: Request failed with status code 409
        ToxiproxyError: Request failed with status code 404
        ToxiproxyError: Request failed with status code 400
        ToxiproxyError: Request failed with status code 400
        ToxiproxyError: Request failed with status code 404
        ToxiproxyError: Request failed with status code 404

        # Many
        populated: [ 'two', 'three' ] of [ 'echo', 'three', 'two' ]
        through them: echo refused
        reset: [ 'echo true', 'three true', 'two true' ]
        through them: [ 'echo', 'echo', 'echo' ]
        removed: refused [ 'echo', 'three' ]
        all: [] refused
    "#]],
    )
}
