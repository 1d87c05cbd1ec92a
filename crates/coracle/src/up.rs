//! `coracle up`: builds what is linked, starts the cluster, applies the manifests or what a Procfile
//! means, waits until all is ready, follows the logs; Ctrl-C stops what it started.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use api::link::{self, Link};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use runtime::OnExit;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    apply::{self, Marks, Target},
    apply_set::{self, Set},
    cli::UpArguments,
    directories::Directories,
    down,
    ended::{self, Ended},
    lock::{self, Running},
    logs,
    manifest::{self, Object},
    nodes,
    output::{self, Progress},
    procfile,
    progress::{self, Waiting},
    project::Project,
    prune,
    session::{self, Session},
    start,
};

/// Runs the command.
pub(crate) fn run(directories: &Directories, arguments: &UpArguments) -> anyhow::Result<ExitCode> {
    let mut progress = Progress::start();
    let (objects, mut project) = match &arguments.path {
        Some(path) => match procfile::find(path)? {
            Some(file) if arguments.no_links => {
                bail!("`{}` has no images to run: leave --no-links out", file.display());
            }
            Some(file) => procfile::read(&file)?,
            None => (in_order(manifest::read(path)?), Project::read(path)?),
        },
        None => (Vec::new(), Project::default()),
    };
    let set = match &arguments.path {
        Some(path) => Set::of(path, arguments.part_of.as_deref())?,
        None => None,
    };
    let unlinked = if arguments.no_links { project.unlink() } else { Vec::new() };
    project.build(|text| progress.say(text))?;
    // What may be wrong with the folder is said by `ensure`.
    if !matches!(lock::running(&directories.run), Ok(Some(_))) {
        progress.say(&format!("starting cluster `{}`", directories.name));
    }
    let (running, started) = start::ensure(directories, &arguments.start)?;
    let up = Up { directories, arguments, objects, set, project, unlinked, running, started };
    let ended = session::run(directories, async |session| up.follow(session, progress).await)?;
    match ended {
        End::Code(code) => Ok(code),
        End::Interrupted => stop(directories),
    }
}

/// How following ended.
enum End {
    Code(ExitCode),
    /// The user wants what this command started to stop.
    Interrupted,
}

/// Stops the cluster, unless the user has enough of that too.
fn stop(directories: &Directories) -> anyhow::Result<ExitCode> {
    output::note("stopping; Ctrl-C again leaves what is left to end by itself");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            done = down::stop(directories, false) => done.map(|()| ExitCode::SUCCESS),
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::FAILURE),
        }
    })
}

struct Up<'a> {
    directories: &'a Directories,
    arguments: &'a UpArguments,
    objects: Vec<Object>,
    /// What the objects become part of, and what is gone from it is deleted.
    set: Option<Set>,
    project: Project,
    /// Links that are not to be used.
    unlinked: Vec<String>,
    running: Running,
    started: bool,
}

impl Up<'_> {
    async fn follow(&self, session: Session, mut progress: Progress) -> anyhow::Result<End> {
        let mut interrupts = interrupts(&session)?;
        let set = self.open(&session).await?;
        self.link(&session).await?;
        nodes::arrange(&session, self.arguments, &mut progress).await?;
        let namespaces = self.apply(&session, &mut progress, set).await?;
        let lines = if self.arguments.detach || self.objects.is_empty() {
            None
        } else {
            let look = logs::look();
            let wanted = logs::Wanted { namespaces, follow: true, look, ..Default::default() };
            Some(logs::start(&session, wanted))
        };
        let waited = tokio::select! {
            biased;
            _ = interrupts.recv() => return Ok(self.interrupted(progress)),
            waited = self.wait(&session, &mut progress, lines) => waited?,
        };
        let failed: Vec<Ended> = waited.ended.into_iter().filter(|it| it.failed).collect();
        if !waited.waiting.is_empty() {
            drop(progress);
            self.say_not_ready(&waited.waiting);
            say_failed(&session, &failed).await;
            return Ok(End::Code(ExitCode::FAILURE));
        }
        self.say_ready(&progress, &failed);
        drop(progress);
        let Some(mut lines) = waited.lines else {
            say_failed(&session, &failed).await;
            let all = failed.is_empty();
            return Ok(End::Code(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }));
        };
        loop {
            tokio::select! {
                biased;
                _ = interrupts.recv() => return Ok(self.interrupted(Progress::start())),
                line = lines.recv() => match line {
                    Some(line) => output::line(&line)?,
                    None => return Ok(End::Code(ExitCode::SUCCESS)),
                },
            }
        }
    }

    /// Says in the cluster what belongs together, before any of it is there.
    async fn open(&self, session: &Session) -> anyhow::Result<Option<apply_set::Open>> {
        let Some(set) = self.set.clone() else { return Ok(None) };
        let links = self.project.links(&self.directories.commands)?.into_keys().collect();
        Ok(Some(set.open(&session.client, &self.objects, links).await?))
    }

    /// Tells the cluster which images are linked to local source.
    async fn link(&self, session: &Session) -> anyhow::Result<()> {
        let links: BTreeMap<String, Link> = self.project.links(&self.directories.commands)?;
        if links.is_empty() && self.unlinked.is_empty() {
            return Ok(());
        }
        // Null takes away what an earlier command may have said.
        let mut data: BTreeMap<String, Option<String>> =
            self.unlinked.iter().map(|it| (it.clone(), None)).collect();
        for (name, link) in links {
            data.insert(name, Some(serde_json::to_string(&link).context("print a link")?));
        }
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": link::CONFIG_MAP, "namespace": link::NAMESPACE},
            "data": data,
        });
        apply::merge(&session.client, &object).await.context("tell the cluster of the links")
    }

    async fn apply(
        &self,
        session: &Session,
        progress: &mut Progress,
        set: Option<apply_set::Open>,
    ) -> anyhow::Result<BTreeSet<String>> {
        let mut namespaces = BTreeSet::new();
        let mut applied = Vec::new();
        for object in &self.objects {
            let target = Target::find(&session.client, object).await?;
            let namespace = target.namespace.clone().unwrap_or_default();
            let part_of = set.as_ref().map(|it| it.id.as_str());
            let mut marks = Marks { annotations: Vec::new(), part_of };
            if object.kind() == "Service" {
                let published = self.project.published(&namespace, object.name());
                let published: Vec<String> = published.iter().map(ToString::to_string).collect();
                if !published.is_empty() {
                    marks.annotations.push((api::annotation::PUBLISH, published.join(",")));
                }
            }
            let done = apply::apply(&session.client, &target, object, &marks).await?;
            progress.keep(&format!("{target} {done}"));
            applied.push(done.object);
            if target.namespace.is_some() {
                namespaces.insert(namespace);
            }
        }
        if let Some(set) = set {
            for line in set.prune(&session.client, &applied).await? {
                progress.keep(&line);
            }
        }
        Ok(namespaces)
    }

    /// Waits until all that was applied is ready or has ended for good, printing log lines meanwhile.
    async fn wait(
        &self,
        session: &Session,
        progress: &mut Progress,
        mut lines: Option<mpsc::Receiver<String>>,
    ) -> anyhow::Result<Waited> {
        let deployments = session.caches.of::<Deployment>();
        let pods = session.caches.of::<Pod>();
        let mut of_deployments = deployments.subscribe();
        let mut of_pods = pods.subscribe();
        tokio::join!(deployments.synced(), pods.synced());
        let timeout = tokio::time::sleep(self.arguments.timeout);
        tokio::pin!(timeout);
        let mut said = BTreeSet::new();
        loop {
            let (seen, all_pods) = (deployments.list(), pods.list());
            let applied: Vec<&Deployment> = seen
                .iter()
                .map(AsRef::as_ref)
                .filter(|it: &&Deployment| self.applied("Deployment", &it.metadata))
                .collect();
            let ours: Vec<&Pod> = all_pods
                .iter()
                .map(AsRef::as_ref)
                .filter(|it: &&Pod| {
                    it.metadata.owner_references.is_some() || self.applied("Pod", &it.metadata)
                })
                .collect();
            let waiting = progress::waiting(&applied, &ours);
            let ended = ended::ended(&ours);
            for it in ended.iter().map(Ended::line) {
                if said.insert(it.clone()) {
                    progress.keep(&it);
                }
            }
            if waiting.is_empty() {
                return Ok(Waited { lines, ended, waiting });
            }
            progress.say(&summary(&waiting));
            let advance: Vec<&str> =
                waiting.iter().filter_map(|it| it.advance.as_deref()).collect();
            if !advance.is_empty() {
                progress.say_advance(&advance.join(" · "));
            }
            tokio::select! {
                _ = of_deployments.next() => {}
                _ = of_pods.next() => {}
                Some(line) = next_line(&mut lines) => output::line(&line)?,
                () = &mut timeout, if self.arguments.detach => {
                    return Ok(Waited { lines, ended, waiting });
                }
            }
        }
    }

    fn applied(
        &self,
        kind: &str,
        metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    ) -> bool {
        let (name, namespace) = (metadata.name.as_deref(), metadata.namespace.as_deref());
        self.objects.iter().any(|it| {
            it.kind() == kind
                && Some(it.name()) == name
                && Some(it.namespace().unwrap_or("default")) == namespace
        })
    }

    fn say_ready(&self, progress: &Progress, failed: &[Ended]) {
        let name = &self.directories.name;
        let ready = if failed.is_empty() { "ready" } else { "ready but for what has failed" };
        progress.keep(&format!(
            "{ready}; API at https://127.0.0.1:{}, for kubectl: export KUBECONFIG={}",
            self.running.port,
            self.directories.kubeconfig().display()
        ));
        if self.arguments.detach {
            progress.keep(&format!("`coracle down --name {name}` stops it"));
        }
    }

    fn say_not_ready(&self, waiting: &[Waiting]) {
        let seconds = self.arguments.timeout.as_secs();
        output::note(&format!("error: not ready after {seconds} s; all of it goes on running:"));
        for it in waiting {
            output::note(&format!("  {}", it.line()));
        }
    }

    /// What Ctrl-C means here: who started the cluster also stops it.
    fn interrupted(&self, progress: Progress) -> End {
        drop(progress);
        if self.started {
            return End::Interrupted;
        }
        let name = &self.directories.name;
        output::note(&format!(
            "cluster `{name}` ran before and runs on; `coracle down --name {name}` stops it"
        ));
        End::Code(ExitCode::SUCCESS)
    }
}

/// How waiting ended.
struct Waited {
    lines: Option<mpsc::Receiver<String>>,
    /// What will not run again.
    ended: Vec<Ended>,
    /// What is not ready although the time is over; nothing if all is.
    waiting: Vec<Waiting>,
}

/// What has failed for good, why, and how to have it run again.
async fn say_failed(session: &Session, failed: &[Ended]) {
    if failed.is_empty() {
        return;
    }
    output::note("error: failed, and not started again:");
    for it in failed {
        output::note(&format!("  {}", it.line()));
        for line in it.last_lines(&session.client).await {
            output::note(&format!("    {line}"));
        }
        output::note(&format!("  to run it anew: `{}`, then `coracle up`", it.removal()));
    }
}

async fn next_line(lines: &mut Option<mpsc::Receiver<String>>) -> Option<String> {
    match lines {
        Some(lines) => lines.recv().await,
        None => None,
    }
}

fn summary(waiting: &[Waiting]) -> String {
    let lines: Vec<String> =
        waiting.iter().map(|it| format!("{}: {}", it.object, it.reason)).collect();
    format!("waiting for {}", lines.join(" · "))
}

/// Every Ctrl-C or SIGTERM that comes, for as long as the session lives.
fn interrupts(session: &Session) -> anyhow::Result<mpsc::Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let (sender, receiver) = mpsc::channel(1);
    session.tasks.spawn("signals", OnExit::Log, |stop| async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if sender.send(()).await.is_err() {
                return Ok(());
            }
        }
    });
    Ok(receiver)
}

fn in_order(mut objects: Vec<Object>) -> Vec<Object> {
    objects.sort_by_key(|it| prune::rank(it.kind()));
    objects
}
