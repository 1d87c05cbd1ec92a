//! `coracle load`: from the command line to a plan, a run and what is said about it.
//!
//! Exit codes: 0 measured, and every threshold reached; 1 not (nothing succeeded, a threshold was
//! missed, a target cannot be reached); 2 unusable arguments.

mod arguments;
mod single;
mod target;

use std::{io::Write as _, process::ExitCode, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;

pub use self::arguments::Arguments;
use self::single::Single;
use crate::{
    engine,
    exchange::{Keep, Request},
    plan::{Arrival, Flow, Identity, Plan, Protocol, Reach, Spacing, Stage, Transport, Trust},
    report,
};

/// Exit code of arguments that cannot be used, as clap has it.
const UNUSABLE: u8 = 2;

/// Runs `coracle load`.
///
/// # Errors
///
/// What went wrong, for the user.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let plan = match plan(arguments) {
        Ok(plan) => plan,
        Err(error) => {
            writeln!(std::io::stderr().lock(), "error: {error}")?;
            return Ok(ExitCode::from(UNUSABLE));
        }
    };
    let results = engine::run(plan, interrupt(), |_| {})?;
    write!(std::io::stdout().lock(), "{}", report::text(&results))?;
    Ok(if results.total.succeeded > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits for Ctrl-C.
async fn interrupt() {
    // Without a handler the signal ends the process, as it always did.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn plan(arguments: &Arguments) -> anyhow::Result<Plan> {
    let (origin, path) = target::parse(&arguments.target)?;
    let mut headers = HeaderMap::new();
    for (name, value) in &arguments.headers {
        headers.append(name, value.clone());
    }
    let body = match (&arguments.body, &arguments.body_file) {
        (Some(text), _) => Bytes::from(text.clone()),
        (None, Some(path)) => Bytes::from(std::fs::read(path)?),
        (None, None) => Bytes::new(),
    };
    let origin = Arc::new(origin);
    let request = Request {
        origin: Arc::clone(&origin),
        method: arguments.method.clone(),
        path,
        headers: Arc::new(headers),
        body,
        keep: Keep::default(),
        timeout: arguments.timeout,
    };
    let rate = arguments.rate.per_second();
    let spacing = if arguments.poisson { Spacing::Poisson } else { Spacing::Even };
    let stage = Stage { duration: arguments.duration, from: rate, to: rate, spacing };
    let arrival = match arguments.closed {
        Some(users) => Arrival::Closed { users: users as usize, duration: arguments.duration },
        None => Arrival::Open(vec![stage]),
    };
    let behaviour = Arc::new(Single::new(request));
    Ok(Plan {
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        flows: vec![Flow { name: "url".to_owned(), arrival, behaviour }],
        grace: arguments.timeout,
        connections_max: arguments.connections.map(|it| it as usize),
        targets: vec![(*origin).clone()],
        transport: transport(arguments),
    })
}

fn transport(arguments: &Arguments) -> Transport {
    let trust = match &arguments.ca {
        _ if arguments.insecure => Trust::Anyone,
        Some(path) => Trust::File(path.clone()),
        None => Trust::System,
    };
    let pair = arguments.cert.clone().zip(arguments.key.clone());
    Transport {
        protocol: Protocol::Http1,
        trust,
        identity: pair.map(|(certificate, key)| Identity { certificate, key }),
        reach: if arguments.i_may { Reach::Anywhere } else { Reach::ThisMachine },
    }
}
