//! The logs of many pods as one stream of lines, each begun with the name of its pod.

mod line;

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use anstream::{AutoStream, ColorChoice};
use anyhow::{Context as _, bail};
use client::{Client, Key};
use futures_util::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, api::LogParams};
use regex_lite::Regex;
use runtime::OnExit;
use tokio::sync::mpsc;

pub(crate) use line::Look;

use line::Line;

use crate::{
    cli::LogsArguments,
    directories::Directories,
    output,
    session::{self, Session},
};

/// Lines that may wait to be printed. When it is full the streams wait, and the API server with them.
const LINES_MAX: usize = 1024;

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Only pods whose name begins so.
    pub(crate) prefix: String,
    /// Only pods of these namespaces; all if empty.
    pub(crate) namespaces: BTreeSet<String>,
    /// Go on with what comes.
    pub(crate) follow: bool,
    /// Only this many lines from the end of each container's log.
    pub(crate) tail: Option<i64>,
    /// Only what is younger than this many seconds.
    pub(crate) since: Option<i64>,
    /// Only lines in which this is found.
    pub(crate) grep: Option<Regex>,
    /// How they are shown.
    pub(crate) look: Look,
}

/// How lines are shown to whom standard output leads.
pub(crate) fn look() -> Look {
    let stdout = io::stdout();
    Look {
        // Also not where the environment says so (`NO_COLOR`).
        colours: AutoStream::choice(&stdout) != ColorChoice::Never,
        pretty: stdout.is_terminal(),
    }
}

impl Wanted {
    fn fits(&self, key: &Key) -> bool {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        key.name.starts_with(&self.prefix)
            && (self.namespaces.is_empty() || self.namespaces.contains(namespace))
    }
}

/// Prints the logs.
pub(crate) fn run(
    directories: &Directories,
    arguments: &LogsArguments,
) -> anyhow::Result<ExitCode> {
    let wanted = Wanted {
        prefix: arguments.prefix.clone().unwrap_or_default(),
        namespaces: arguments.namespace.clone().into_iter().collect(),
        follow: arguments.follow,
        tail: arguments.tail.map(i64::from),
        since: arguments.since.map(|it| i64::try_from(it.as_secs()).unwrap_or(i64::MAX)),
        grep: arguments.grep.clone(),
        look: if arguments.raw { Look { pretty: false, ..look() } } else { look() },
    };
    session::run(directories, async |session| {
        let pods = session.caches.of::<Pod>();
        pods.synced().await;
        let begun = pods.list().iter().flat_map(|it| instances(it)).any(|it| wanted.fits(&it.pod));
        if !begun && !wanted.follow && !wanted.prefix.is_empty() {
            bail!("no pod whose name begins with `{}` has a log", wanted.prefix);
        }
        let mut lines = start(&session, wanted);
        while let Some(line) = lines.recv().await {
            output::line(&line)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Starts reading; lines come in the order in which they arrive. The channel ends when all that was
/// wanted is read, which is never while following.
pub(crate) fn start(session: &Session, wanted: Wanted) -> mpsc::Receiver<String> {
    let (lines, receiver) = mpsc::channel(LINES_MAX);
    let pods = session.caches.of::<Pod>();
    let (client, tasks) = (session.client.clone(), session.tasks.clone());
    session.tasks.spawn("logs", OnExit::Log, move |stop| async move {
        let mut changes = pods.subscribe();
        pods.synced().await;
        let mut seen = BTreeSet::new();
        let read = |pod: &Pod, seen: &mut BTreeSet<Instance>| {
            for instance in instances(pod).filter(|it| wanted.fits(&it.pod)) {
                if seen.insert(instance.clone()) {
                    let work = stream(client.clone(), instance, wanted.clone(), lines.clone());
                    tasks.spawn("log stream", OnExit::Log, |stop| async move {
                        tokio::select! {
                            done = work => done,
                            () = stop.cancelled() => Ok(()),
                        }
                    });
                }
            }
        };
        for pod in pods.list() {
            read(&pod, &mut seen);
        }
        if !wanted.follow {
            return Ok(());
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                change = changes.next() => match change.new {
                    Some(pod) => read(&pod, &mut seen),
                    None => seen.retain(|it| it.pod != change.key),
                },
            }
        }
    });
    receiver
}

/// One run of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Instance {
    pod: Key,
    uid: String,
    container: String,
    restarts: i32,
    alone: bool,
}

/// The runs of containers that have begun, and so have a log.
fn instances(pod: &Pod) -> impl Iterator<Item = Instance> {
    let status = pod.status.as_ref();
    let initial = status.into_iter().flat_map(|it| it.init_container_statuses.iter().flatten());
    let main = status.into_iter().flat_map(|it| it.container_statuses.iter().flatten());
    let containers: Vec<&ContainerStatus> = initial.chain(main).collect();
    let alone = containers.len() == 1;
    containers.into_iter().filter(|it| has_begun(it)).map(move |it| Instance {
        pod: Key {
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone().unwrap_or_default(),
        },
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        container: it.name.clone(),
        restarts: it.restart_count,
        alone,
    })
}

fn has_begun(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|it| it.running.is_some() || it.terminated.is_some())
}

async fn stream(
    client: Client,
    instance: Instance,
    wanted: Wanted,
    lines: mpsc::Sender<String>,
) -> anyhow::Result<()> {
    let namespace = instance.pod.namespace.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let parameters = LogParams {
        container: Some(instance.container.clone()),
        follow: wanted.follow,
        tail_lines: wanted.tail,
        since_seconds: wanted.since,
        ..LogParams::default()
    };
    let name = &instance.pod.name;
    let label =
        if instance.alone { name.clone() } else { format!("{name}/{}", instance.container) };
    let reader = api.log_stream(name, &parameters).await;
    let mut reader = match reader {
        Ok(reader) => reader.lines(),
        // Gone between the notice and the question: there is nothing to read any more.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read the log of {label}")),
    };
    while let Some(text) = reader.try_next().await.context("read on")? {
        if wanted.grep.as_ref().is_some_and(|it| !it.is_match(&text)) {
            continue;
        }
        let line = Line { label: label.clone(), text };
        if lines.send(line.show(wanted.look)).await.is_err() {
            break;
        }
    }
    Ok(())
}
