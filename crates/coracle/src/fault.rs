//! `coracle fault`: reads the flags and the file, starts the proxy, says where it listens, and runs
//! until it is told to stop.

use std::{fs, io, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use fault::{Change, Config, Entry, Mode, RouteConfig, text};
use runtime::Tasks;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{cli::Format, output};

/// How long open connections and tasks may take to end.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Largest file that is read, in bytes: thousands of lines.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Arguments of `fault`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FaultArguments {
    /// Where clients connect to; port 0 takes a free one. Once per --to, in the same order.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<String>,
    /// Where the server is.
    #[arg(long, value_name = "HOST:PORT")]
    to: Vec<String>,
    /// Name of the route, once per --to; `1`, `2` and so on if not given.
    #[arg(long, value_name = "NAME")]
    route: Vec<String>,
    /// A fault from the start, on every route: `latency both delay=20ms`, `refuse`.
    #[arg(long, value_name = "FAULT")]
    fault: Vec<String>,
    /// Something that happens later: `at 5s for 2s: blackhole server->client`.
    #[arg(long, value_name = "LINE")]
    at: Vec<String>,
    /// YAML file with routes, faults and a schedule.
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Where the HTTP API listens, which is Toxiproxy's; not at all if not given.
    #[arg(long, value_name = "HOST:PORT")]
    control: Option<String>,
    /// Same seed, same choices [default: that of the file, else 1].
    #[arg(long)]
    seed: Option<u64>,
    /// Format of what is printed.
    #[arg(short, long, default_value = "text")]
    output: Format,
}

/// Runs the proxy until SIGINT or SIGTERM.
pub(crate) fn run(arguments: &FaultArguments) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt().with_ansi(false).with_writer(io::stderr).init();
    let config = config(arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let tasks = Tasks::default();
        let seed = config.seed;
        let proxy = fault::build(config, &tasks)?;
        let (handle, control) = (proxy.handle(), proxy.control());
        let mut interrupt = signal(SignalKind::interrupt()).context("await SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("await SIGTERM")?;
        proxy.run();
        match arguments.output {
            Format::Text => {
                for route in handle.list() {
                    let RouteConfig { name, listen, upstream, .. } = route;
                    output::line(&format!("route {name}: {listen} -> {upstream}"))?;
                }
                if let Some(address) = control {
                    output::line(&format!("control: http://{address}"))?;
                }
            }
            Format::Json => {
                let route = |it: RouteConfig| {
                    json!({ "name": it.name, "listen": it.listen, "upstream": it.upstream })
                };
                let routes: Vec<_> = handle.list().into_iter().map(route).collect();
                let control = control.map(|it| format!("http://{it}"));
                let started = json!({ "routes": routes, "control": control, "seed": seed });
                output::line(&started.to_string())?;
            }
        }
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = tasks.failed() => bail!("a part of the proxy has failed; the log says which"),
        }
        if !tasks.shutdown(STOP_GRACE).await {
            bail!("connections would not end");
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What flags and file say together.
fn config(arguments: &FaultArguments) -> anyhow::Result<Config> {
    let mut routes = routes(arguments)?;
    let (mut schedule, mut seed) = (Vec::new(), None);
    if let Some(path) = &arguments.schedule {
        let name = path.display().to_string();
        let length = fs::metadata(path).with_context(|| format!("read `{name}`"))?.len();
        if length > FILE_BYTES_MAX {
            bail!("`{name}` has {length} bytes, and at most {FILE_BYTES_MAX} are read");
        }
        let file = fs::read_to_string(path).with_context(|| format!("read `{name}`"))?;
        let read = text::parse_file(&name, &file, &routes)?;
        (routes, schedule, seed) = (read.routes, read.schedule, read.seed);
    }
    for line in &arguments.fault {
        let change = text::change(line).with_context(|| format!("--fault `{line}`"))?;
        for route in &mut routes {
            begin(route, &change).with_context(|| format!("--fault `{line}`"))?;
        }
    }
    for line in &arguments.at {
        schedule.push(entry(line, &routes).with_context(|| format!("--at `{line}`"))?);
    }
    if routes.is_empty() && arguments.control.is_none() {
        bail!("nothing to do: give --to HOST:PORT, or a file of routes, or --control to add some");
    }
    let seed = arguments.seed.or(seed).unwrap_or(1);
    Ok(Config { routes, schedule, control: arguments.control.clone(), seed })
}

fn entry(line: &str, routes: &[RouteConfig]) -> anyhow::Result<Entry> {
    let only = match routes {
        [only] => Some(only.name.as_str()),
        _ => None,
    };
    Ok(text::entry(line, only)?)
}

fn begin(route: &mut RouteConfig, change: &Change) -> anyhow::Result<()> {
    match change {
        Change::Faults(faults) => route.faults.extend(faults.iter().cloned()),
        Change::Mode(mode) => route.mode = *mode,
        Change::End(_) => bail!("there is nothing to disconnect at the start: use --at"),
    }
    Ok(())
}

fn routes(arguments: &FaultArguments) -> anyhow::Result<Vec<RouteConfig>> {
    let FaultArguments { listen, to, route, .. } = arguments;
    if listen.len() > to.len() || route.len() > to.len() {
        bail!("more --listen or --route than --to: every route needs --to HOST:PORT");
    }
    let of = |(index, upstream): (usize, &String)| RouteConfig {
        name: route.get(index).cloned().unwrap_or_else(|| (index + 1).to_string()),
        listen: listen.get(index).cloned().unwrap_or_else(|| "127.0.0.1:0".to_owned()),
        upstream: upstream.clone(),
        enabled: true,
        mode: Mode::Forward,
        connections_max: 0,
        faults: Vec::new(),
    };
    Ok(to.iter().enumerate().map(of).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use expect_test::{Expect, expect};

    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        arguments: FaultArguments,
    }

    fn check(line: &str, expected: Expect) {
        let words = std::iter::once("fault").chain(line.split('|').filter(|it| !it.is_empty()));
        let seen = match config(&Program::parse_from(words).arguments) {
            Ok(config) => format!("{config:?}"),
            Err(error) => format!("{error:#}"),
        };
        expected.assert_eq(&seen);
    }

    #[test]
    fn flags() {
        check(
            "--to|127.0.0.1:5432|--fault|latency server->client delay=5ms|--at|at 1s: refuse",
            expect![[
                r#"Config { routes: [RouteConfig { name: "1", listen: "127.0.0.1:0", upstream: "127.0.0.1:5432", enabled: true, mode: Forward, connections_max: 0, faults: [Fault { name: "latency_downstream", direction: Downstream, probability: 1.0, effect: Latency { delay: 5ms, jitter: 0ns, distribution: Uniform } }] }], schedule: [Entry { at: 1s, duration: None, route: "1", change: Mode(Refuse) }], control: None, seed: 1 }"#
            ]],
        );
        check(
            "--control|127.0.0.1:8474|--seed|9",
            expect![[
                r#"Config { routes: [], schedule: [], control: Some("127.0.0.1:8474"), seed: 9 }"#
            ]],
        );
        check(
            "",
            expect![
                "nothing to do: give --to HOST:PORT, or a file of routes, or --control to add some"
            ],
        );
        check(
            "--listen|127.0.0.1:1",
            expect!["more --listen or --route than --to: every route needs --to HOST:PORT"],
        );
        check(
            "--to|127.0.0.1:1|--fault|latncy",
            expect![
                "--fault `latncy`: `latncy` is no fault: latency, bandwidth, slicer, slow_close, timeout, reset_peer, limit_data, blackhole, half_open, refuse, hold, disconnect"
            ],
        );
        check(
            "--to|127.0.0.1:1|--fault|disconnect",
            expect!["--fault `disconnect`: there is nothing to disconnect at the start: use --at"],
        );
        check(
            "--to|127.0.0.1:1|--to|127.0.0.1:2|--at|at 1s: refuse",
            expect!["--at `at 1s: refuse`: which route? at TIME [for TIME] on ROUTE"],
        );
        check(
            "--schedule|nowhere.yaml",
            expect!["read `nowhere.yaml`: No such file or directory (os error 2)"],
        );
    }
}
