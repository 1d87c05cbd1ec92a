//! One run: a judge's server, the generator, the verdict.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use load::{
    judge::{
        expect::{self, Meant, Piece},
        grade::{self, Grade, Report},
        law::Outcome,
        record::Record,
    },
    plan::{Spacing, Stage},
    schedule::{self, Schedule},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cases::{self, Case, Load};

/// Seed of laws and schedules: a run that is repeated is the same run. Its Poisson schedule is a middling
/// one (p = 0.53): one that by itself is close to [`cases::P_MIN`] would leave the machine no room.
const SEED: &str = "4";

/// Share of a run in which the machine stood still, as the judge saw it, above which a wrong figure, or
/// none, may be the machine's doing and says nothing of the generator.
pub(crate) const DISTURBED: f64 = 0.005;

/// A run and what became of it.
pub(crate) struct Graded {
    pub(crate) grade: Grade,
    /// What the server saw.
    pub(crate) record: Record,
    /// What the generator says, as it said it.
    pub(crate) said: Value,
    pub(crate) report: Report,
}

impl Graded {
    /// Expected and reported figures in a line.
    pub(crate) fn summary(&self) -> String {
        if !self.report.withheld.is_empty() {
            return format!("withheld: {}", self.report.withheld.join("; "));
        }
        let figure = |it: &grade::Line| {
            let error = it.error().unwrap_or(f64::NAN) * 100.0;
            format!("{} {:.1?} {error:+.2} %", it.name, it.expected)
        };
        self.grade.lines.iter().map(figure).collect::<Vec<_>>().join(", ")
    }

    /// Whether the machine stood still for so long that the run proves nothing.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.record.paused_share() > DISTURBED
    }

    /// The same in words.
    pub(crate) fn disturbance(&self) -> String {
        format!("the machine stood still {:.1} % of the time", self.record.paused_share() * 100.0)
    }

    /// How many answers of the server were so.
    pub(crate) fn count_of(&self, outcome: Outcome) -> u64 {
        self.record.entries.iter().filter(|it| it.outcome == outcome).count() as u64
    }

    /// A count in the generator's report.
    pub(crate) fn count(&self, pointer: &str) -> anyhow::Result<u64> {
        let count = self.said.pointer(pointer).and_then(Value::as_u64);
        count.with_context(|| format!("no `{pointer}` in {}", self.said))
    }
}

/// Runs a case once.
pub(crate) fn once(case: &Case) -> anyhow::Result<Graded> {
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(case, folder.path())?;
    let said = generate(case, &server.url, folder.path())?;
    let record = server.stop()?;
    let report = Report::read(said.as_bytes())?;
    let grade = grade::grade(&record, &meant(&case.course)?, &report);
    Ok(Graded { grade, record, said: serde_json::from_str(&said)?, report })
}

/// What the judge is told of when requests were meant.
fn meant(course: &cases::Course) -> anyhow::Result<Meant> {
    Ok(match *course {
        cases::Course::Even(pieces) => {
            let piece = |&(seconds, from, to)| Piece { seconds, from, to };
            Meant::Course(expect::Course(pieces.iter().map(piece).collect()))
        }
        cases::Course::Poisson { seconds, rate } => {
            let duration = Duration::from_secs_f64(seconds);
            let stage = Stage { duration, from: rate, to: rate, spacing: Spacing::Poisson };
            // The seed of the first flow.
            let seed = schedule::derive(SEED.parse()?, 0);
            Meant::Moments(Schedule::new(vec![stage], seed).collect())
        }
        cases::Course::Unknown => Meant::Arrivals,
    })
}

fn coracle() -> anyhow::Result<Command> {
    let path = env::var_os("CORACLE").context("CORACLE must name the built binary")?;
    let mut command = Command::new(path);
    command.arg("load").stdin(Stdio::null());
    Ok(command)
}

/// Runs the generator and returns its report.
fn generate(case: &Case, target: &str, folder: &Path) -> anyhow::Result<String> {
    let mut command = coracle()?;
    let certificate = folder.join("certificate");
    match case.load {
        Load::Plain(arguments) => command.arg(target).args(arguments.split_whitespace()),
        Load::Tls(arguments) => {
            command.arg(target).args(arguments.split_whitespace()).arg("--ca").arg(certificate)
        }
        Load::Stopped(arguments, _) => command.arg(target).args(arguments.split_whitespace()),
        Load::Scenario(text) => {
            let path = folder.join("scenario.yaml");
            fs::write(&path, text.replace("TARGET", target))?;
            fs::write(folder.join("rates.txt"), RATES)?;
            command.arg(path)
        }
    };
    command.args(["--seed", SEED, "-o", "json"]);
    let output = match case.load {
        Load::Stopped(_, length) => stop_for(length, &mut command)?,
        Load::Plain(_) | Load::Tls(_) | Load::Scenario(_) => command.output()?,
    };
    let said = String::from_utf8(output.stdout)?;
    if !said.starts_with('{') {
        bail!("{command:?}: {}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}

/// Runs the generator and keeps it from running for a while, as soon as it says how it goes: about a
/// second after its first start.
fn stop_for(length: Duration, command: &mut Command) -> anyhow::Result<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut says = BufReader::new(child.stderr.take().context("its standard error")?);
    let mut line = String::new();
    says.read_line(&mut line)?;
    let process = Pid::from_child(&child);
    kill_process(process, Signal::STOP)?;
    thread::sleep(length);
    kill_process(process, Signal::CONT)?;
    // So that it can go on saying things.
    io::copy(&mut says, &mut io::sink())?;
    Ok(child.wait_with_output()?)
}

/// What the case of a replay replays: requests of each second.
const RATES: &str = "100\n300\n200\n400\n50\n250\n";

/// A server of the judge's; killed when dropped.
struct Server {
    child: Child,
    record: PathBuf,
    url: String,
}

impl Server {
    fn start(case: &Case, folder: &Path) -> anyhow::Result<Self> {
        let record = folder.join("record");
        let mut command = coracle()?;
        command.args(["judge", "serve", "--law", case.law, "--seed", SEED, "--record"]);
        command.arg(&record).stdout(Stdio::piped());
        if let Load::Tls(_) = case.load {
            command.args(["--tls", "--certificate"]).arg(folder.join("certificate"));
        }
        let mut child = command.spawn().context("start the judge's server")?;
        let output = child.stdout.take().context("standard output of the judge's server")?;
        let mut server = Self { child, record, url: String::new() };
        BufReader::new(output).read_line(&mut server.url)?;
        server.url.truncate(server.url.trim_end().len());
        if server.url.is_empty() {
            bail!("the judge's server does not say where it listens");
        }
        Ok(server)
    }

    fn stop(&mut self) -> anyhow::Result<Record> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the judge's server: {status}");
        }
        Record::read(BufReader::new(File::open(&self.record)?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Harmless if it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
