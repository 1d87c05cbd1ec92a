//! From a command line to an exit code: reads the flags, begins the log, runs the program until a
//! signal, ends it.

use std::{io, process::ExitCode, time::Duration};

use anyhow::Context as _;
use runtime::{Clock, OnExit, Tasks};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    flags::{Asked, Given, Outside, Program, Rest},
    logging::{self, Verbosity},
    nsqadmin, nsqd, nsqlookupd,
    words::{Level, hostname},
};
use crate::{
    admin,
    lookupd::{self, Found},
    nsqd as node,
};

/// What Go's programs exit with when they do not understand their flags.
const MISUNDERSTOOD: u8 = 2;

/// How long what serves clients may take to end.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// What every program has flags for.
trait Common: Default {
    fn log(&self) -> (&str, Level);
}

impl Common for nsqd::Options {
    fn log(&self) -> (&str, Level) {
        (&self.log_prefix, self.log_level.0)
    }
}

impl Common for nsqlookupd::Options {
    fn log(&self) -> (&str, Level) {
        (&self.log_prefix, self.log_level.0)
    }
}

impl Common for nsqadmin::Options {
    fn log(&self) -> (&str, Level) {
        (&self.log_prefix, self.log_level.0)
    }
}

/// Runs `nsqd` until SIGINT or SIGTERM. `arguments` are without the program's name.
#[must_use]
pub fn main_nsqd(arguments: &[String]) -> ExitCode {
    run(&nsqd::NSQD, arguments, |options, _, verbosity| nsqd_until_signal(options, verbosity))
}

/// How an nsqlookupd comes to know producers that do not register.
#[derive(Debug)]
pub struct Finder<F> {
    /// What is asked of the user for it.
    pub flags: &'static [Outside],
    /// Begins to find them, as the flags that were given say, in tasks that stop with the program;
    /// `None` if the flags do not ask for it. An error ends the program before it serves anybody.
    pub find: F,
}

/// Runs `nsqlookupd` until SIGINT or SIGTERM. `arguments` are without the program's name.
#[must_use]
pub fn main_nsqlookupd<F, R>(arguments: &[String], finder: Finder<F>) -> ExitCode
where
    F: FnOnce(Given, Tasks) -> R,
    R: Future<Output = anyhow::Result<Option<watch::Receiver<Vec<Found>>>>>,
{
    let program = Program { outside: finder.flags, ..nsqlookupd::NSQLOOKUPD };
    run(&program, arguments, |options, given, _| {
        nsqlookupd_until_signal(options, |tasks| (finder.find)(given, tasks))
    })
}

/// Runs `nsqadmin` until SIGINT or SIGTERM. `arguments` are without the program's name.
#[must_use]
pub fn main_nsqadmin(arguments: &[String]) -> ExitCode {
    run(&nsqadmin::NSQADMIN, arguments, |options, _, verbosity| {
        nsqadmin_until_signal(options, verbosity)
    })
}

async fn nsqd_until_signal(options: nsqd::Options, verbosity: Verbosity) -> anyhow::Result<()> {
    let ending = ending()?;
    let nsqd = node::build(options, Clock::system()).await?;
    let tasks = Tasks::default();
    let running = nsqd.run(&tasks, move |level| verbosity.set(level));
    let asked = ending.wait(&tasks).await;
    let ended = running.end().await;
    asked.and(ended)
}

async fn nsqlookupd_until_signal<R>(
    options: nsqlookupd::Options,
    find: impl FnOnce(Tasks) -> R,
) -> anyhow::Result<()>
where
    R: Future<Output = anyhow::Result<Option<watch::Receiver<Vec<Found>>>>>,
{
    let ending = ending()?;
    let tasks = Tasks::default();
    let config = lookupd::Config {
        tcp_address: options.tcp_address,
        http_address: options.http_address,
        broadcast_address: options.broadcast_address,
        inactive_producer_timeout: options.inactive_producer_timeout,
        tombstone_lifetime: options.tombstone_lifetime,
        found: find(tasks.clone()).await?,
        ..lookupd::Config::new(&hostname())
    };
    lookupd::build(config, Clock::system()).await?.run(&tasks);
    let asked = ending.wait(&tasks).await;
    if !tasks.shutdown(END_TIME_MAX).await {
        tracing::warn!("some connections did not end in time");
    }
    asked
}

async fn nsqadmin_until_signal(
    options: nsqadmin::Options,
    verbosity: Verbosity,
) -> anyhow::Result<()> {
    let ending = ending()?;
    let http_client_tls = options.tls()?;
    let config = admin::Config {
        http_address: options.http_address,
        base_path: options.base_path,
        lookupd_http_addresses: options.lookupd_http_address,
        nsqd_http_addresses: options.nsqd_http_address,
        http_client_connect_timeout: options.http_client_connect_timeout,
        http_client_request_timeout: options.http_client_request_timeout,
        http_client_tls,
        allow_config_from_cidr: options.allow_config_from_cidr,
        notification_http_endpoint: options.notification_http_endpoint,
        acl_http_header: options.acl_http_header,
        admin_users: options.admin_user,
        log_level: options.log_level.0,
        ..admin::Config::new(&hostname())
    };
    let tasks = Tasks::default();
    let admin = admin::build(config, Clock::system()).await?;
    let mut level = admin.handle().log_level();
    tasks.spawn("nsqadmin-log", OnExit::Log, move |stop| async move {
        let follow = async {
            while level.changed().await.is_ok() {
                verbosity.set(*level.borrow_and_update());
            }
        };
        stop.run_until_cancelled(follow).await;
        Ok(())
    });
    admin.run(&tasks);
    let asked = ending.wait(&tasks).await;
    if !tasks.shutdown(END_TIME_MAX).await {
        tracing::warn!("some connections did not end in time");
    }
    asked
}

fn run<O: Common, F>(
    program: &Program<O>,
    arguments: &[String],
    work: impl FnOnce(O, Given, Verbosity) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    let (options, Rest { notes, given }) = match program.parse(arguments) {
        Ok(Asked::Run(options, rest)) => (*options, rest),
        Ok(Asked::Print(text)) => return say(&mut io::stdout(), &text, ExitCode::SUCCESS),
        Err(error) => {
            let text = format!("{error}\n{}", program.help());
            return say(&mut io::stderr(), &text, MISUNDERSTOOD.into());
        }
    };
    let clock = Clock::system();
    let (prefix, level) = options.log();
    let prefix = prefix.to_owned();
    let verbosity = logging::start(&prefix, level, clock.clone());
    tracing::info!("{}", super::version(program.name).trim_end());
    for note in notes {
        tracing::warn!("{note}");
    }
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match built.context("cannot start threads") {
        Ok(runtime) => runtime.block_on(work(options, given, verbosity)),
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = logging::fatal(&prefix, &clock, &format!("{error:#}"));
            say(&mut io::stderr(), &line, ExitCode::FAILURE)
        }
    }
}

/// Writes to a person. If there is nobody to read, the exit code still tells.
fn say(to: &mut impl io::Write, text: &str, code: ExitCode) -> ExitCode {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The signals that end a program. Made before anything else, so that none is missed.
struct Ending {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

fn ending() -> anyhow::Result<Ending> {
    let listen = |kind| signal(kind).context("cannot wait for signals");
    let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
    Ok(Ending { interrupt: listen(interrupt)?, terminate: listen(terminate)? })
}

impl Ending {
    /// Waits until the program is to end; an error if that is because it cannot go on.
    async fn wait(mut self, tasks: &Tasks) -> anyhow::Result<()> {
        tokio::select! {
            () = tasks.failed() => anyhow::bail!("a part of the program failed; see above"),
            _ = self.interrupt.recv() => tracing::info!("ending: interrupted"),
            _ = self.terminate.recv() => tracing::info!("ending: asked to"),
        }
        Ok(())
    }
}
