//! NSQ's own clients, of PyPI, npm and crates.io, against `nsqd` and `nsqlookupd`: what their users do,
//! and that nothing acknowledged is lost when nsqd is killed. What they do is in `../../queue`; the
//! clients are installed by `cargo xtask tools`, and `cargo xtask test queue` says where.
//!
//! A script prints what it sees, which is compared. A line that begins with `@` is a request to the
//! servers (see `nsq::Nsq::obey`), answered on standard input when it is done.

mod nsq;

use std::{
    env,
    ffi::OsString,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::RwLock,
};

use anyhow::{Context as _, bail};
use expect_test::{Expect, expect};

use nsq::Nsq;

/// Longest a client may take, in seconds: more than ten times what it takes.
const SECONDS_MAX: &str = "120";
/// How many times nsqjs's own tests may lose a race. Of 20 runs one did, on a machine that was very busy.
const RACES_MAX: usize = 4;

/// Held by what wants to run without the others, and shared by those.
static QUIET: RwLock<()> = RwLock::new(());

pub(crate) fn variable(name: &str) -> anyhow::Result<PathBuf> {
    let value = env::var_os(name).map(PathBuf::from);
    value.with_context(|| format!("no {name}: run `cargo xtask test queue`, which sets it"))
}

/// A file or folder of `../../queue`.
fn file(name: &str) -> PathBuf {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    package.join("queue").join(name)
}

/// The command that runs a program for a while at most, where it finds the clients.
fn bounded(program: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", SECONDS_MAX]).arg(program);
    command.env("PYTHONPATH", variable("QUEUE_PYTHON")?).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("NODE_PATH", variable("QUEUE_NODE")?);
    // The way to the outside, where one is set up, is not for this.
    command.env("NO_PROXY", "*").env("no_proxy", "*");
    Ok(command)
}

/// Runs a program, does what it asks for, and compares what it prints.
fn check(program: &Path, script: Option<&str>, expected: Expect) -> anyhow::Result<()> {
    let _with_others = QUIET.read();
    let mut nsq = Nsq::start()?;
    let mut command = bounded(program)?;
    command.args(script.map(file)).arg(nsq.shown());
    // What clients log is of interest only if they fail.
    let log = tempfile::NamedTempFile::new()?;
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.reopen()?).spawn();
    let mut child = child.with_context(|| format!("start {}", program.display()))?;
    let mut answers = child.stdin.take().context("standard input of a client")?;
    let output = child.stdout.take().context("standard output of a client")?;
    let mut seen = String::new();
    let talked = talk(BufReader::new(output), &mut answers, &mut nsq, &mut seen);
    drop(answers);
    let status = child.wait()?;
    if let (true, Ok(())) = (status.success(), &talked) {
        nsq.stop()?;
        expected.assert_eq(&seen);
        return Ok(());
    }
    let said = std::fs::read_to_string(log.path())?;
    let refused = talked.err().map(|it| format!("{it:#}\n")).unwrap_or_default();
    bail!("{status}\n{refused}{seen}--- client\n{said}--- servers\n{}", nsq.log())
}

/// Listens to a client until it has nothing more to say.
fn talk(
    output: BufReader<impl std::io::Read>,
    answers: &mut impl std::io::Write,
    nsq: &mut Nsq,
    seen: &mut String,
) -> anyhow::Result<()> {
    for line in output.lines() {
        let line = line?;
        if let Some(request) = line.strip_prefix('@') {
            let words: Vec<&str> = request.split_whitespace().collect();
            nsq.obey(&words).with_context(|| line.clone())?;
            writeln!(answers, "done")?;
        } else {
            seen.push_str(&line);
            seen.push('\n');
        }
    }
    Ok(())
}

#[test]
fn pynsq() -> anyhow::Result<()> {
    check(
        &variable("PYTHON")?,
        Some("pynsq_client.py"),
        expect![[r#"
        # Publishing and consuming
        published: OK
        consumed: one, attempt 1
        requeued: one, attempt 2
        several: OK
        consumed: x y z
        deferred: OK
        consumed: later, attempt 1 in time

        # Through nsqlookupd
        published: OK
        consumed: found, attempt 1

        # Killed
        published: OK
        consumed: 5
        published: OK
        consumed: all that were left

        # TLS
        published: OK OK
        consumed: the same

        # Snappy
        published: OK OK
        consumed: the same

        # Deflate
        published: OK OK
        consumed: the same

        # TLS and Snappy
        published: OK OK
        consumed: the same

        # TLS and Deflate
        published: OK OK
        consumed: the same

        # With a secret
        published: OK
        consumed: for me, attempt 1
        a wrong one: E_AUTH_FAILED AUTH failed
    "#]],
    )
}

#[test]
fn gnsq() -> anyhow::Result<()> {
    check(
        &variable("PYTHON")?,
        Some("gnsq_client.py"),
        expect![[r#"
        # Publishing and consuming
        published: OK
        consumed: one, attempt 1
        requeued: one, attempt 2
        several: OK
        consumed: x y z
        deferred: OK
        consumed: later, attempt 1 in time

        # Through nsqlookupd
        published: OK
        consumed: found, attempt 1

        # Killed
        published: OK
        consumed: 5
        published: OK
        consumed: all that were left

        # TLS
        published: OK OK
        consumed: the same

        # Snappy
        published: OK OK
        consumed: the same

        # Deflate
        published: OK OK
        consumed: the same

        # TLS and Snappy
        published: OK OK
        consumed: the same

        # TLS and Deflate
        published: OK OK
        consumed: the same

        # With a secret
        published: OK
        consumed: for me, attempt 1
        a wrong one: NSQAuthFailed: AUTH failed
    "#]],
    )
}

#[test]
fn asyncnsq() -> anyhow::Result<()> {
    check(
        &variable("PYTHON")?,
        Some("asyncnsq_client.py"),
        expect![[r#"
        # Publishing and consuming
        published: OK
        consumed: one, attempt 1
        requeued: one, attempt 2
        several: OK
        consumed: x y z
        deferred: OK
        consumed: later, attempt 1 in time

        # Through nsqlookupd
        published: OK
        consumed: found, attempt 1

        # Killed
        published: OK
        consumed: 5
        published: OK
        consumed: all that were left

        # Snappy
        published: OK OK
        consumed: the same

        # Deflate
        published: OK OK
        consumed: the same

        # With a secret
        published: OK
        consumed: for me, attempt 1
        a wrong one: NSQAuthFailed: b'AUTH failed'
    "#]],
    )
}

#[test]
fn ansq() -> anyhow::Result<()> {
    check(
        &variable("PYTHON")?,
        Some("ansq_client.py"),
        expect![[r#"
        # Publishing and consuming
        published: OK
        consumed: one, attempt 1
        requeued: one, attempt 2
        several: OK
        consumed: x y z
        deferred: OK
        consumed: later, attempt 1 in time

        # Through nsqlookupd
        published: OK
        consumed: found, attempt 1

        # Killed
        published: OK
        consumed: 5
        published: OK
        consumed: all that were left

        # With a secret
        said: {"identity":"ali","identity_url":"","permission_count":1}
        a wrong one: E_AUTH_FAILED AUTH failed
    "#]],
    )
}

#[test]
fn nsqjs() -> anyhow::Result<()> {
    check(
        Path::new("node"),
        Some("nsqjs_client.mjs"),
        expect![[r#"
        # Publishing and consuming
        published: OK
        consumed: one, attempt 1
        requeued: one, attempt 2
        several: OK
        consumed: x y z
        deferred: OK
        consumed: later, attempt 1 in time

        # Through nsqlookupd
        published: OK
        consumed: found, attempt 1

        # Killed
        published: OK
        consumed: 5
        published: OK
        consumed: all that were left

        # TLS
        published: OK OK
        consumed: the same

        # Snappy
        published: OK OK
        consumed: the same

        # Deflate
        published: OK OK
        consumed: the same

        # TLS and Snappy
        published: OK OK
        consumed: the same

        # TLS and Deflate
        published: OK OK
        consumed: the same

        # With a secret
        published: OK
        consumed: for me, attempt 1
        a wrong one: E_AUTH_FAILED AUTH failed
    "#]],
    )
}

#[test]
fn tokio_nsq() -> anyhow::Result<()> {
    check(
        &variable("QUEUE_RUST")?,
        None,
        expect![[r#"
        # Publishing and consuming
        published: OK
        consumed: one, attempt 1
        requeued: one, attempt 2
        several: OK
        consumed: x y z
        deferred: OK
        consumed: later, attempt 1 in time

        # Through nsqlookupd
        published: OK
        consumed: found, attempt 1

        # Killed
        published: OK
        consumed: 5
        published: OK
        consumed: all that were left

        # TLS
        published: OK OK
        consumed: the same

        # Snappy
        published: OK OK
        consumed: the same

        # Deflate
        published: OK OK
        consumed: the same

        # TLS and Snappy
        published: OK OK
        consumed: the same

        # TLS and Deflate
        published: OK OK
        consumed: the same

        # With a secret
        published: OK
        consumed: for me, attempt 1
    "#]],
    )
}

/// HTTPS and Unix sockets.
#[test]
fn doors() -> anyhow::Result<()> {
    check(
        &variable("PYTHON")?,
        Some("doors_client.py"),
        expect![[r#"
        # HTTPS
        ping: 200 OK
        published: 200 OK 200 OK
        waiting: {'doors': 3}
        unknown: 404 {"message":"NOT_FOUND"}
        a bad topic: 400 {"message":"INVALID_TOPIC"}
        not trusted: SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED

        # Unix sockets
        ping: 200 OK
        published: 200 OK
        published: OK
        started again: {'doors': 2}
        consumed: (['over HTTP', "over TCP's protocol"], 'CLOSE_WAIT')
        left: {'doors': 0}
    "#]],
    )
}

/// The integration tests that nsqjs comes with. They start `nsqd` themselves, on ports that they choose: so
/// in a network of their own. Some close a writer as soon as its message has come to a reader, and fail if
/// nsqd's `OK` has not come before, which no nsqd promises: so with nothing else to do for the machine, and
/// if that is what was wrong, once more.
#[test]
fn tests_of_nsqjs() -> anyhow::Result<()> {
    let _alone = QUIET.write();
    let mut seen = run_tests_of_nsqjs()?;
    for _ in 1..RACES_MAX {
        let is_race = ["not ok", "done() called multiple times", "nsqd connection closed"];
        if !is_race.iter().all(|it| seen.contains(it)) {
            break;
        }
        seen = run_tests_of_nsqjs()?;
    }
    expect![[r#"
        ok 1 integration stream compression and encryption reader with compression (deflate) and tls (false) should send and receive a message
        ok 2 integration stream compression and encryption reader with compression (deflate) and tls (false) should send and receive a large message
        ok 3 integration stream compression and encryption reader with compression (snappy) and tls (false) should send and receive a message
        ok 4 integration stream compression and encryption reader with compression (snappy) and tls (false) should send and receive a large message
        ok 5 integration stream compression and encryption reader with compression (none) and tls (true) should send and receive a message
        ok 6 integration stream compression and encryption reader with compression (none) and tls (true) should send and receive a large message
        ok 7 integration stream compression and encryption reader with compression (snappy) and tls (true) should send and receive a message
        ok 8 integration stream compression and encryption reader with compression (snappy) and tls (true) should send and receive a large message
        ok 9 integration stream compression and encryption reader with compression (deflate) and tls (true) should send and receive a message
        ok 10 integration stream compression and encryption reader with compression (deflate) and tls (true) should send and receive a large message
        ok 11 integration end to end should send and receive a string
        ok 12 integration end to end should send and receive a String object
        ok 13 integration end to end should send and receive a Buffer
        ok 14 integration end to end should not receive messages when immediately paused
        ok 15 integration end to end should not receive any new messages when paused
        ok 16 integration end to end should not receive any requeued messages when paused
        ok 17 integration end to end should start receiving messages again after unpause async
        ok 18 integration end to end should successfully publish a message before fully connected
        ok 19 failures Writer nsqd disconnect before publish should fail to publish a message
        # tests 19
        # pass 19
        # fail 0
        1..19
    "#]].assert_eq(&seen);
    Ok(())
}

/// What they report.
fn run_tests_of_nsqjs() -> anyhow::Result<String> {
    let programs = nsq::programs()?;
    let modules = variable("QUEUE_NODE")?;
    let mut command = bounded(Path::new("unshare"))?;
    command.args(["--user", "--map-root-user", "--net", "--"]).arg(variable("PYTHON")?);
    command.arg(file("alone.py")).arg("node").arg(modules.join("mocha/bin/mocha"));
    command.args(["--reporter=tap", "test/z_integration_test.js"]);
    let mut path = OsString::from(programs.path());
    if let Some(others) = env::var_os("PATH") {
        path.push(":");
        path.push(others);
    }
    command.env("PATH", path).current_dir(modules.join("nsqjs"));
    // They listen on 127.0.0.1 and ask `localhost`.
    command.env("NODE_OPTIONS", "--dns-result-order=ipv4first");
    let output = command.stdin(Stdio::null()).output().context("start unshare")?;
    let mut seen = String::from_utf8_lossy(&output.stdout).into_owned();
    seen.push_str(&String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        seen.push_str(&format!("[{}]\n", output.status));
    }
    Ok(seen)
}
