//! What can be given on the command line, and how it is written.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use http::{HeaderName, HeaderValue, Method};

use crate::{
    judge,
    plan::{Spacing, Stage},
    report::compare,
    scenario::{
        Threshold,
        arrival::FACTOR_MAX,
        units::{Rate, parse_duration},
    },
};

/// Arguments of `coracle load`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(
    after_help = "Exit codes: 0 measured, and every threshold reached; 1 nothing succeeded, a \
threshold missed, percentiles withheld that a threshold needs, a target that cannot be reached, or \
results that could not be written; 2 unusable arguments, such as a file that cannot be written."
)]
pub struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) run: RunArguments,
}

/// What there is beside a run.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Grade a generator of load: a server that misbehaves by a law, and what must have been seen.
    Judge {
        #[command(subcommand)]
        command: judge::cli::Arguments,
    },
    /// Compare two runs by their JSON reports.
    Compare(compare::cli::Arguments),
}

/// Arguments of a run.
#[derive(Clone, Debug, Args)]
pub(super) struct RunArguments {
    /// What to load: a URL, a file with a scenario, or `-` for a scenario on standard input.
    #[arg(value_name = "URL|FILE", required = true)]
    pub(super) target: Option<String>,
    #[command(flatten)]
    pub(super) arrival: ArrivalArguments,
    #[command(flatten)]
    pub(super) request: RequestArguments,
    #[command(flatten)]
    pub(super) connection: ConnectionArguments,
    #[command(flatten)]
    pub(super) output: OutputArguments,
    /// What must be reached, such as `p99 < 50ms` or `errors == 0`; may be given again.
    #[arg(long = "threshold", value_name = "CONDITION")]
    pub(super) thresholds: Vec<Threshold>,
    /// Same seed, same starts and same choices. The results tell which it was.
    #[arg(long)]
    pub(super) seed: Option<u64>,
}

/// When requests are meant to start.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "When")]
pub(super) struct ArrivalArguments {
    /// How many are meant to start: `500/s`, `30/m`, `7200/h`, or from one to another:
    /// `100/s..1000/s`. [default: 10/s]
    #[arg(long, conflicts_with_all = ["closed", "stages", "replay"])]
    pub(super) rate: Option<Span>,
    /// For how long they are meant to start. [default: 10s]
    #[arg(long = "for", value_name = "DURATION", value_parser = some_duration)]
    #[arg(conflicts_with = "stages")]
    pub(super) duration: Option<Duration>,
    /// One rate after the other: `100/s:30s,100/s..1000/s:1m,0/s:10s`.
    #[arg(long, value_name = "RATE:DURATION,…", value_delimiter = ',')]
    #[arg(conflicts_with_all = ["closed", "replay"])]
    pub(super) stages: Vec<Piece>,
    /// A recorded series of rates: numbers of requests per second, or a CSV file with them in its
    /// last column.
    #[arg(long, value_name = "FILE", conflicts_with = "closed")]
    pub(super) replay: Option<PathBuf>,
    /// The time that one number of the record counts.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = some_duration)]
    #[arg(requires = "replay")]
    pub(super) replay_every: Duration,
    /// How much faster than recorded time goes; rates stay.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = factor)]
    #[arg(requires = "replay")]
    pub(super) replay_speed: f64,
    /// By what recorded rates are multiplied.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = factor)]
    #[arg(requires = "replay")]
    pub(super) replay_scale: f64,
    /// How much of the record is passed over, in its own time.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    #[arg(requires = "replay")]
    pub(super) replay_skip: Duration,
    /// Space starts at random, as independent users would, instead of evenly.
    #[arg(long, conflicts_with = "closed")]
    pub(super) poisson: bool,
    /// Closed loop: this many users, each of whom waits for its answer before it asks again. What it
    /// measures says nothing about those who would have come meanwhile.
    #[arg(long, value_name = "USERS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) closed: Option<u32>,
}

/// What is sent to a URL.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What (of a URL)")]
pub(super) struct RequestArguments {
    /// Method of the request. [default: GET, or POST with a body]
    #[arg(short = 'X', long)]
    pub(super) method: Option<Method>,
    /// A header, `NAME: VALUE`; may be given again.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = parse_header)]
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Body of the request.
    #[arg(short = 'd', long, value_name = "TEXT", conflicts_with = "body_file")]
    pub(super) body: Option<String>,
    /// File with the body of the request.
    #[arg(long, value_name = "FILE")]
    pub(super) body_file: Option<PathBuf>,
    /// After how long a request is given up, counted from its actual start. [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = some_duration)]
    pub(super) timeout: Option<Duration>,
}

/// How connections are made.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "How")]
pub(super) struct ConnectionArguments {
    /// Speak HTTP/2: by ALPN over TLS, by prior knowledge without it.
    #[arg(long)]
    pub(super) http2: bool,
    /// Connections that may be open at once; if not given, as many as descriptors allow.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) connections: Option<u32>,
    /// Believe any certificate.
    #[arg(long, conflicts_with = "ca")]
    pub(super) insecure: bool,
    /// PEM file of the authorities to believe, instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// PEM file of the client's certificate.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// PEM file of the client's key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(super) key: Option<PathBuf>,
    /// The target is not this machine, and you may load it.
    #[arg(long)]
    pub(super) i_may: bool,
}

/// What is said about a run, and where.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Results")]
pub(super) struct OutputArguments {
    /// Format of the results on standard output.
    #[arg(short, long, default_value = "text")]
    pub(super) output: Format,
    /// No live view and no lines while it runs.
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// File for an HdrHistogram log, one line a second.
    #[arg(long, visible_alias = "histogram-log", value_name = "FILE")]
    pub(super) hdr: Option<PathBuf>,
    /// File for the results as a page with charts.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// File for the results as JSON, as `-o json` prints them.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}

/// A format of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// From one rate to another, or the same all the time: arrivals per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    from: f64,
    to: f64,
}

impl Span {
    pub(super) const fn constant(rate: f64) -> Self {
        Self { from: rate, to: rate }
    }

    pub(super) const fn stage(self, duration: Duration, spacing: Spacing) -> Stage {
        Stage { duration, from: self.from, to: self.to, spacing }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = |it: &str| it.parse::<Rate>().map(Rate::per_second);
        match text.split_once("..") {
            Some((from, to)) => Ok(Self { from: rate(from)?, to: rate(to)? }),
            None => Ok(Self::constant(rate(text)?)),
        }
    }
}

/// A rate for a while: `100/s:30s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) span: Span,
    pub(super) duration: Duration,
}

impl FromStr for Piece {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no stage; write it as `100/s:30s`");
        let (span, duration) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self { span: span.parse()?, duration: some_duration(duration)? })
    }
}

/// A duration that is not nothing.
fn some_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err(format!("`{text}` is nothing")),
        duration => Ok(duration),
    }
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor <= FACTOR_MAX => Ok(factor),
        Ok(_) | Err(_) => Err(format!("a number above 0, at most {FACTOR_MAX}, is needed")),
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `NAME: VALUE`")?;
    let name = name.trim().parse().map_err(|_| format!("`{name}` is no name of a header"))?;
    let value = value.trim().parse().map_err(|_| format!("`{value}` is no value of a header"))?;
    Ok((name, value))
}
