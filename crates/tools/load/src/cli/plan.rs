//! From arguments to a plan, or what is wrong with them.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, Method};

use super::arguments::{
    ArrivalArguments, ConnectionArguments, RequestArguments, RunArguments, Span,
};
use crate::{
    exchange::{Keep, Request},
    plan::{Arrival, Flow, Identity, Plan, Protocol, Reach, Spacing, Stage, Transport, Trust},
    scenario::{
        self, Overrides, Target, Threshold,
        arrival::{REPLAY_BYTES_MAX, Replay, expected_arrivals},
    },
};

/// Arrivals per second when nothing is said.
const RATE: f64 = 10.0;
/// For how long, when nothing is said.
const DURATION: Duration = Duration::from_secs(10);
/// When a request is given up, when nothing is said.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The name of the flow, and of its only step, that a plain URL is.
const URL: &str = "url";
const STEP: &str = "request";
/// Largest body.
const BODY_MAX: u64 = 64 * 1024 * 1024;

/// A run as the user wants it.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) plan: Plan,
    pub(super) thresholds: Vec<Threshold>,
    /// What is aimed at, as it was written.
    pub(super) targets: Vec<String>,
}

/// Makes a plan.
pub(super) fn make(arguments: &RunArguments) -> anyhow::Result<Wanted> {
    let target = arguments.target.as_deref().context("what to load? Give a URL or a file")?;
    let mut wanted = if target.contains("://") {
        of_url(target, arguments)?
    } else {
        of_file(target, arguments)?
    };
    let plan = &mut wanted.plan;
    let connection = &arguments.connection;
    plan.transport = transport(connection, plan.transport.protocol);
    if let Some(connections) = connection.connections {
        plan.connections_max = Some(connections as usize);
    }
    Ok(wanted)
}

fn of_url(url: &str, arguments: &RunArguments) -> anyhow::Result<Wanted> {
    let target: Target = url.parse().map_err(anyhow::Error::msg)?;
    let origin = Arc::new(target.origin);
    let given = &arguments.request;
    let mut headers = HeaderMap::new();
    for (name, value) in &given.headers {
        headers.append(name, value.clone());
    }
    let body = body(given)?;
    let implied = if body.is_some() { Method::POST } else { Method::GET };
    let timeout = given.timeout.unwrap_or(TIMEOUT);
    let request = Request {
        origin: Arc::clone(&origin),
        method: given.method.clone().unwrap_or(implied),
        path: Bytes::from(target.path),
        headers: Arc::new(headers),
        body: body.unwrap_or_default(),
        keep: Keep::default(),
        timeout,
    };
    let when = &arguments.arrival;
    let duration = when.duration.unwrap_or(DURATION);
    let arrival = match when.closed {
        Some(users) => Arrival::Closed { users: users as usize, duration },
        None => Arrival::Open(match stages(when)? {
            Some(stages) => stages,
            None => vec![Span::constant(RATE).stage(duration, spacing(when))],
        }),
    };
    let behaviour = scenario::single(STEP, request);
    let plan = Plan {
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        flows: vec![Flow { name: URL.to_owned(), arrival, behaviour }],
        grace: timeout,
        connections_max: None,
        targets: vec![(*origin).clone()],
        transport: Transport::default(),
    };
    let names = format!("{URL}/{STEP}");
    if let Some(scope) = arguments.thresholds.iter().find_map(|it| it.scope.as_ref()) {
        bail!("there is no `{scope}`: a plain URL has only `{names}`, and needs no name");
    }
    Ok(Wanted { plan, thresholds: arguments.thresholds.clone(), targets: vec![url.to_owned()] })
}

fn body(given: &RequestArguments) -> anyhow::Result<Option<Bytes>> {
    match (&given.body, &given.body_file) {
        (Some(text), _) => Ok(Some(Bytes::from(text.clone()))),
        (None, Some(path)) => Ok(Some(Bytes::from(read(path, BODY_MAX)?))),
        (None, None) => Ok(None),
    }
}

fn of_file(file: &str, arguments: &RunArguments) -> anyhow::Result<Wanted> {
    let given = &arguments.request;
    let is_request_given = given.method.is_some()
        || !given.headers.is_empty()
        || given.body.is_some()
        || given.body_file.is_some()
        || given.timeout.is_some();
    if is_request_given {
        bail!("method, headers, body and timeout of a scenario stand in its file");
    }
    let scenario = if file == "-" {
        scenario::read_from("standard input", &mut io::stdin().lock())?
    } else {
        let path = Path::new(file);
        if !path.exists() {
            bail!("there is no file `{file}`; a URL is written as `http://{file}`");
        }
        scenario::read(path)?
    };
    let when = &arguments.arrival;
    let plan = scenario.plan(&Overrides {
        seed: arguments.seed,
        stages: stages(when)?,
        users: when.closed.map(|it| it as usize),
        duration: when.duration,
    })?;
    let mut thresholds = scenario.thresholds().to_vec();
    for threshold in &arguments.thresholds {
        scenario.check_threshold(threshold).map_err(anyhow::Error::msg)?;
        thresholds.push(threshold.clone());
    }
    let targets = plan.targets.iter().map(ToString::to_string).collect();
    Ok(Wanted { plan, thresholds, targets })
}

/// The schedule that is given, if one is.
fn stages(when: &ArrivalArguments) -> anyhow::Result<Option<Vec<Stage>>> {
    let spacing = spacing(when);
    let stages = if let Some(file) = &when.replay {
        let replay = Replay {
            every: when.replay_every,
            scale: when.replay_scale,
            speed: when.replay_speed,
            skip: when.replay_skip,
            length: when.duration,
            spacing,
        };
        let text = String::from_utf8(read(file, REPLAY_BYTES_MAX as u64)?);
        let text = text.with_context(|| {
            format!("`{}` is no text; a packed record is unpacked first", file.display())
        })?;
        let stages = replay.stages(&text);
        stages.map_err(|(line, what)| match line {
            Some(line) => anyhow::anyhow!("{}:{line}: {what}", file.display()),
            None => anyhow::anyhow!("{}: {what}", file.display()),
        })?
    } else if !when.stages.is_empty() {
        when.stages.iter().map(|it| it.span.stage(it.duration, spacing)).collect()
    } else if let Some(span) = when.rate {
        vec![span.stage(when.duration.unwrap_or(DURATION), spacing)]
    } else {
        return Ok(None);
    };
    if expected_arrivals(&stages) < 1.0 {
        bail!("nobody would arrive: the rate is too low for this time");
    }
    Ok(Some(stages))
}

const fn spacing(when: &ArrivalArguments) -> Spacing {
    if when.poisson { Spacing::Poisson } else { Spacing::Even }
}

fn transport(given: &ConnectionArguments, protocol: Protocol) -> Transport {
    let trust = match &given.ca {
        _ if given.insecure => Trust::Anyone,
        Some(path) => Trust::File(path.clone()),
        None => Trust::System,
    };
    let pair = given.cert.clone().zip(given.key.clone());
    Transport {
        protocol: if given.http2 { Protocol::Http2 } else { protocol },
        trust,
        identity: pair.map(|(certificate, key)| Identity { certificate, key }),
        reach: if given.i_may { Reach::Anywhere } else { Reach::ThisMachine },
    }
}

/// A file of at most so many bytes; `-` is standard input.
fn read(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(most + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|it| it.take(most + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("read `{}`", path.display()))?;
    if bytes.len() as u64 > most {
        bail!("`{}` is larger than {} MiB", path.display(), most >> 20);
    }
    Ok(bytes)
}
