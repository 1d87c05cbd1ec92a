//! What other load generators say of a server that is frozen for two seconds, beside what their users
//! saw. Uses those that are installed and names the others; installs nothing.
//!
//! Each sends, or is set up so that it would send, 1 000 requests a second: by its own limit where it
//! has one, else with ten connections to a server that answers after 10 ms.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use load::judge::{
    expect::{self, Course, Meant},
    law::{Law, Stall},
    record::LATE_SHARE_MAX,
    server::{Options, Server},
};
use serde_json::Value;
use tokio::process::Command;

use crate::report::Figure;

/// How long each generator sends.
const PERIOD: Duration = Duration::from_secs(12);
/// When the server freezes, and for how long.
const STALL: Stall = Stall { at: Duration::from_secs(5), length: Duration::from_secs(2) };
/// What it does otherwise.
const LAW: &str = "constant:10ms";
/// Requests a second.
const RATE: f64 = 1_000.0;
/// After this long a generator has hung.
const PATIENCE: Duration = Duration::from_secs(60);
const SEED: u64 = 1;
/// How often ours may find the machine too busy.
const TRIES: u32 = 4;

/// A load generator of others.
struct Peer {
    program: &'static str,
    /// Where it comes from.
    install: &'static str,
    /// Arguments, separated by blanks; `URL` stands for the server, `HOST` for the same
    /// without a path, `SCRIPT` for locust's script.
    arguments: &'static str,
    /// Finds the 99th percentile in what it prints, or what it says in place of one.
    read: fn(&str) -> Option<Said>,
}

/// What a generator says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    /// The 99th percentile.
    P99(Duration),
    /// No percentile; this is the longest.
    Longest(Duration),
}

const PEERS: &[Peer] = &[
    Peer {
        program: "wrk",
        install: "apt-get install wrk",
        arguments: "-t1 -c10 -d12s --latency URL",
        read: |it| Some(Said::P99(with_unit(after(it, "99%")?)?)),
    },
    Peer {
        program: "hey",
        install: "apt-get install hey",
        arguments: "-z 12s -c 10 -q 100 URL",
        read: |it| Some(Said::P99(seconds(after(it, "99% in")?)?)),
    },
    Peer {
        program: "ab",
        install: "apt-get install apache2-utils",
        arguments: "-k -c 10 -t 12 -n 1000000 URL",
        read: |it| Some(Said::P99(seconds(after(it, "99%")?)?.div_f64(1e3))),
    },
    Peer {
        program: "siege",
        install: "apt-get install siege",
        arguments: "-b -c 10 -t 12S URL",
        read: |it| Some(Said::Longest(seconds(after(it, "\"longest_transaction\":")?)?)),
    },
    Peer {
        program: "locust",
        install: "pip install locust",
        arguments: "-f SCRIPT --headless --only-summary -u 10 -r 10 -t 12s --json -H HOST",
        read: |it| Some(Said::P99(locust(it)?)),
    },
    Peer {
        program: "autocannon",
        install: "npm install --global autocannon",
        arguments: "-c 10 -d 12 -R 1000 -j URL",
        read: |it| {
            let said: Value = serde_json::from_str(it.get(it.find('{')?..)?.trim()).ok()?;
            Some(Said::P99(milliseconds(said.pointer("/latency/p99")?)?))
        },
    },
    Peer {
        program: "oha",
        install: "cargo install oha",
        arguments: "-z 12s -c 10 -q 1000 --no-tui --output-format json URL",
        read: |it| {
            let said: Value = serde_json::from_str(it).ok()?;
            let seconds = said.pointer("/latencyPercentiles/p99")?.as_f64()?;
            Some(Said::P99(Duration::try_from_secs_f64(seconds).ok()?))
        },
    },
];

/// Ten users, each of whom begins a request every 10 ms, if it has ended its last.
const LOCUST: &str = "\
from locust import FastHttpUser, constant_throughput, task

class Visitor(FastHttpUser):
    wait_time = constant_throughput(100)

    @task
    def visit(self):
        self.client.get('/')
";

/// Runs every generator that is installed, and ours.
pub(crate) async fn measure(coracle: &Path) -> anyhow::Result<Vec<Figure>> {
    let work = tempfile::tempdir()?;
    let script = work.path().join("visitor.py");
    fs::write(&script, LOCUST)?;
    let mut figures = ours(coracle).await?;
    for peer in PEERS {
        let Some(program) = find(peer.program) else {
            eprintln!("{} is not installed ({})", peer.program, peer.install);
            continue;
        };
        let frozen = Frozen::start()?;
        let words = peer.arguments.split(' ').map(|it| match it {
            "URL" => frozen.url(),
            "HOST" => frozen.url().trim_end_matches('/').to_owned(),
            "SCRIPT" => script.display().to_string(),
            other => other.to_owned(),
        });
        let text = run(Command::new(program).args(words).env("HOME", work.path())).await;
        let text = text.with_context(|| peer.program)?;
        let said = (peer.read)(&text);
        let said = said.with_context(|| format!("{} says no p99: {text}", peer.program))?;
        figures.extend(frozen.figures(peer.program, said)?);
    }
    Ok(figures)
}

/// What ours says. It withholds its figures when the machine was too busy: then once more.
async fn ours(coracle: &Path) -> anyhow::Result<Vec<Figure>> {
    for _ in 0..TRIES {
        let frozen = Frozen::start()?;
        let mut command = Command::new(coracle);
        command.args(["load", &frozen.url(), "--rate", "1000/s", "--for", "12s", "-o", "json"]);
        let said: Value = serde_json::from_str(&run(&mut command).await?)?;
        if let Some(p99) = said.pointer("/total/latency/p99_seconds").and_then(Value::as_f64) {
            let p99 = Said::P99(Duration::try_from_secs_f64(p99)?);
            return frozen.figures("coracle load", p99);
        }
        let withheld = said.pointer("/withheld").and_then(Value::as_array);
        for reason in withheld.into_iter().flatten().filter_map(|it| it.get("message")) {
            eprintln!("coracle load withholds its figures: {reason}");
        }
    }
    bail!("coracle load withheld its figures {TRIES} times: this machine is too busy to measure on")
}

/// A server that will freeze.
struct Frozen(Server);

impl Frozen {
    fn start() -> anyhow::Result<Self> {
        let mut law: Law = LAW.parse()?;
        law.stalls.push(STALL);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self(Server::start(Options { listen, law, seed: SEED, tls: None })?))
    }

    fn url(&self) -> String {
        // Siege wants a path.
        format!("http://{}/", self.0.address())
    }

    /// What a generator says, what it should, and what it sent while the server was frozen.
    fn figures(self, name: &str, said: Said) -> anyhow::Result<Vec<Figure>> {
        let record = self.0.stop()?;
        for reason in record.unfit(LATE_SHARE_MAX) {
            eprintln!("while {name} ran: {reason}");
        }
        let seen = expect::expect(&record, &Meant::Course(Course::even(RATE, PERIOD)));
        let said = match said {
            Said::P99(it) => Figure::time(format!("{name}: p99 reported"), it),
            Said::Longest(it) => Figure::time(format!("{name}: no p99; longest reported"), it),
        };
        let sent = seen.arrivals.stalled_arrived as f64;
        Ok(vec![
            said,
            Figure::time(format!("{name}: p99 expected"), seen.quantile(0.99)),
            Figure::new(format!("{name}: sent of 2000 during the stall"), sent, ""),
        ])
    }
}

/// Where a program is, by `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|it| it.join(program)).find(|it| it.is_file())
}

/// Runs a generator and returns what it prints; some say half of it on standard error.
pub(crate) async fn run(command: &mut Command) -> anyhow::Result<String> {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.with_context(|| format!("{:?} does not end", command.as_std()))?;
    let output = output.with_context(|| format!("run {:?}", command.as_std()))?;
    let (text, errors) =
        (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{:?}: {}: {text}{errors}", command.as_std(), output.status);
    }
    Ok(text)
}

/// The first word behind the last line's `key` that has one.
fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().rev().find_map(|it| it.trim_start().strip_prefix(key))?;
    Some(line.split_whitespace().next()?.trim_end_matches(','))
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

fn milliseconds(value: &Value) -> Option<Duration> {
    Duration::try_from_secs_f64(value.as_f64()? / 1e3).ok()
}

/// A time as wrk writes it: `36.12ms`, `1.91s`, `870.00us`.
fn with_unit(text: &str) -> Option<Duration> {
    load::scenario::units::parse_duration(text).ok()
}

/// The 99th percentile of locust's counts by rounded milliseconds.
fn locust(text: &str) -> Option<Duration> {
    let said: Value = serde_json::from_str(text.get(text.find('[')?..)?.trim()).ok()?;
    let mut counts: Vec<(f64, u64)> = said
        .pointer("/0/response_times")?
        .as_object()?
        .iter()
        .map(|(time, count)| Some((time.parse().ok()?, count.as_u64()?)))
        .collect::<Option<_>>()?;
    counts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let rank = counts.iter().map(|(_, count)| count).sum::<u64>() * 99 / 100;
    let mut sum = 0;
    let found = counts.iter().find(|(_, count)| {
        sum += count;
        sum > rank
    });
    Duration::try_from_secs_f64(found?.0 / 1e3).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(program: &str, text: &str, expected: Option<Said>) {
        let peer = PEERS.iter().find(|it| it.program == program).unwrap();
        assert_eq!((peer.read)(text), expected, "{program}");
        assert_eq!((peer.read)("no connection"), None, "{program}");
    }

    fn p99(milliseconds: u64) -> Option<Said> {
        Some(Said::P99(Duration::from_millis(milliseconds)))
    }

    #[test]
    fn what_each_prints() {
        check("wrk", "     90%   11.02ms\n     99%   36.00ms\n  9502 requests in 12.01s", p99(36));
        check("hey", "  95% in 0.0121 secs\n  99% in 0.0160 secs\n", p99(16));
        check("ab", "  98%     13\n  99%     14\n 100%   2008 (longest request)\n", p99(14));
        check(
            "siege",
            "{\t\"transactions\":\t8490,\n\t\"longest_transaction\":\t\t2.02,\n}",
            Some(Said::Longest(Duration::from_millis(2_020))),
        );
        check("autocannon", r#"{"latency":{"p50":7,"p99":1887}}"#, p99(1_887));
        check(
            "oha",
            r#"{"latencyPercentiles":{"p99":0.0047}}"#,
            Some(Said::P99(Duration::from_micros(4_700))),
        );
        let times = r#"[{"response_times":{"10":9800,"11":150,"2000":10}}]"#;
        check("locust", times, p99(11));
    }
}
