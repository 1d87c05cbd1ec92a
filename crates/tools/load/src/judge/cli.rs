//! `coracle load judge`: the server, and the verdict, on the command line.
//!
//! Exit codes of `grade`: 0 right, 1 wrong, 3 no verdict (the server was too slow, or the generator
//! withholds).

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    judge::{
        expect::{Course, Meant, Piece},
        grade::{self, Report, Verdict},
        ks,
        law::Law,
        record::Record,
        server::{Certificate, Options, Server},
    },
    scenario::units::{Rate, parse_duration},
};

/// Exit code of a run that nobody can be judged by.
const NO_VERDICT: u8 = 3;
/// Between two looks at whether the server is quiet.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `judge`.
#[derive(Clone, Debug, Subcommand)]
pub enum Arguments {
    /// Serve by a law and keep a record, until Ctrl-C.
    Serve(ServeArguments),
    /// Compare what a generator reports with what it must have seen.
    Grade(GradeArguments),
}

/// A format of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Arguments of `judge serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArguments {
    /// Where to listen; port 0 for any that is free.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What to do to requests, such as `lognormal:20ms/0.8,stall:2s@5s,errors:1%`; `none` answers at
    /// once and records nothing.
    #[arg(long)]
    law: Law,
    /// Seed of the law.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Encrypt, with a certificate made for this run.
    #[arg(long)]
    tls: bool,
    /// Where to write that certificate, for clients to trust.
    #[arg(long, requires = "tls")]
    certificate: Option<PathBuf>,
    /// Where to write the record at the end.
    #[arg(long)]
    record: Option<PathBuf>,
    /// End when no request has come for this long after the last; if not given, only on Ctrl-C.
    #[arg(long, value_parser = parse_duration)]
    quiet: Option<Duration>,
    /// Format of the line that says where it listens.
    #[arg(short, long, default_value = "text")]
    output: Format,
}

/// Arguments of `judge grade`.
#[derive(Clone, Debug, Args)]
pub struct GradeArguments {
    /// The record of `judge serve`.
    #[arg(long)]
    record: PathBuf,
    /// The generator's report: that of `coracle load -o json`, or an object with some of
    /// `p50_seconds`, `p90_seconds`, `p99_seconds`, `p99_9_seconds`, `max_seconds`.
    #[arg(long)]
    report: PathBuf,
    /// The rate that it was asked for; with `--to` the one at the beginning. Without it, what
    /// arrived is taken for what was meant.
    #[arg(long, requires = "duration")]
    rate: Option<Rate>,
    /// The rate at the end of a ramp.
    #[arg(long, requires = "rate")]
    to: Option<Rate>,
    /// How long it was asked to send.
    #[arg(long = "for", value_parser = parse_duration, requires = "rate")]
    duration: Option<Duration>,
    /// Also test whether the arrivals are a Poisson process of constant rate.
    #[arg(long)]
    poisson: bool,
    /// Format of the verdict.
    #[arg(short, long, default_value = "text")]
    output: Format,
}

/// Runs a command of the judge.
///
/// # Errors
///
/// Addresses, files and reports that cannot be used.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match arguments {
        Arguments::Serve(arguments) => serve(arguments).map(|()| ExitCode::SUCCESS),
        Arguments::Grade(arguments) => judge(arguments),
    }
}

fn serve(arguments: &ServeArguments) -> anyhow::Result<()> {
    // Before anything runs whose record would be lost.
    let file = arguments.record.as_deref().map(create).transpose()?;
    let tls = if arguments.tls { Some(Certificate::new()?) } else { None };
    if let (Some(path), Some(certificate)) = (&arguments.certificate, &tls) {
        create(path)?.write_all(certificate.pem().as_bytes()).context("write the certificate")?;
    }
    let (law, seed) = (arguments.law.clone(), arguments.seed);
    let server = Server::start(Options { listen: arguments.listen, law, seed, tls })?;
    let scheme = if arguments.tls { "https" } else { "http" };
    let url = format!("{scheme}://{}", server.address());
    say(&match arguments.output {
        Format::Text => url,
        Format::Json => json!({
            "url": url,
            "address": server.address(),
            "law": arguments.law.to_string(),
            "seed": seed,
        })
        .to_string(),
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(end(&server, arguments.quiet))?;
    let record = server.stop()?;
    if let Some(file) = file {
        let mut file = BufWriter::new(file);
        record.write(&mut file).and_then(|()| file.flush()).context("write the record")?;
    }
    Ok(())
}

/// Waits until the server is to stop: Ctrl-C, SIGTERM, or nothing to do.
async fn end(server: &Server, quiet: Option<Duration>) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let over = async {
        let mut look = tokio::time::interval(LOOK);
        while !server.has_ended() && quiet.is_none_or(|it| server.quiet().is_none_or(|is| is < it))
        {
            look.tick().await;
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = over => {}
    }
    Ok(())
}

fn judge(arguments: &GradeArguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.record;
    let record =
        File::open(path).map_err(Into::into).and_then(|it| Record::read(BufReader::new(it)));
    let record = record.with_context(|| format!("read the record `{}`", path.display()))?;
    let path = &arguments.report;
    let report = std::fs::read(path).map_err(Into::into).and_then(|it| Report::read(&it));
    let report = report.with_context(|| format!("read the report `{}`", path.display()))?;
    let meant = match (arguments.rate, arguments.duration) {
        (Some(rate), Some(duration)) => Meant::Course(Course(vec![Piece {
            seconds: duration.as_secs_f64(),
            from: rate.per_second(),
            to: arguments.to.unwrap_or(rate).per_second(),
        }])),
        _ => Meant::Arrivals,
    };
    let grade = grade::grade(&record, &meant, &report);
    let poisson = if arguments.poisson { Some(poisson(&record)?) } else { None };
    match arguments.output {
        Format::Text => {
            let text = grade.text();
            say(text.trim_end())?;
            if let Some(ks::Poisson { times, gaps }) = poisson {
                for (name, ks::Test { n, d, p }) in [("times", times), ("gaps", gaps)] {
                    say(&format!("poisson   {name} of {n}: D = {d:.4}, p = {p:.4}"))?;
                }
            }
        }
        Format::Json => {
            let mut json = grade.json();
            if let (Some(ks::Poisson { times, gaps }), Some(json)) = (poisson, json.as_object_mut())
            {
                let test = |it: ks::Test| json!({ "n": it.n, "d": it.d, "p": it.p });
                json.insert("poisson".into(), json!({ "times": test(times), "gaps": test(gaps) }));
            }
            say(&format!("{json:#}"))?;
        }
    }
    Ok(match grade.verdict {
        Verdict::Right => ExitCode::SUCCESS,
        Verdict::Wrong => ExitCode::FAILURE,
        Verdict::Withheld | Verdict::NoVerdict => ExitCode::from(NO_VERDICT),
    })
}

fn poisson(record: &Record) -> anyhow::Result<ks::Poisson> {
    let Some(test) = ks::poisson(&record.arrivals()) else {
        bail!("too few arrivals to say whether they are a Poisson process");
    };
    Ok(test)
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("create `{}`", path.display()))
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
