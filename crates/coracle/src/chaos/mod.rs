//! `coracle chaos`: makes a fault, holds it while the command runs, and takes it back. What a fault does
//! is the cluster's business.

mod arguments;
mod target;

use std::{process::ExitCode, time::Duration};

use ::chaos::{Fault, Lease, Phase, Spec};
use anyhow::{Context as _, bail};
use client::Cache;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{cli::Format, directories::Directories, output, session, session::Session};

pub(crate) use arguments::ChaosArguments;
use arguments::{Command, Hold};

/// For how long a command that holds a fault may be silent before the fault ends: it was killed.
const LEASE_SECONDS: i32 = 5;
/// How often it says that it is there: four times in that time, so that a busy machine ends nothing.
const RENEW_EVERY: Duration = Duration::from_millis(1250);

/// Does what was asked for.
pub(crate) fn run(
    directories: &Directories,
    arguments: &ChaosArguments,
) -> anyhow::Result<ExitCode> {
    session::run(directories, async |session| match &arguments.command {
        Command::List { output } => list(&session, *output).await,
        Command::Stop { faults } => stop(&session, faults).await,
        other => {
            let namespace = &arguments.namespace;
            let (spec, hold) = arguments::spec(&session.client, other, namespace).await?;
            inject(&session, spec, hold, arguments.fault_name.clone()).await
        }
    })
}

async fn inject(
    session: &Session,
    mut spec: Spec,
    hold: Hold,
    name: Option<String>,
) -> anyhow::Result<ExitCode> {
    let faults: Api<Fault> = Api::all(session.client.clone());
    let cache = session.caches.of::<Fault>();
    cache.synced().await;
    if hold == Hold::WhileRunning {
        let holder = Some(format!("coracle chaos, process {}", std::process::id()));
        let renew_time = MicroTime(Timestamp::now());
        spec.lease = Some(Lease { holder, renew_time, seconds: LEASE_SECONDS });
    }
    let made = faults.create(&PostParams::default(), &Fault::new(name, spec)).await;
    let made = match made {
        // What the API says is for people; the rest of such an error is not.
        Err(kube::Error::Api(status)) => bail!("{}", status.message),
        other => other.context("make the fault")?,
    };
    let name = made.name_any();
    let held = async {
        let settled = |it: &Fault| {
            !message(it).is_empty() || matches!(phase(it), Some(Phase::Active | Phase::Ended))
        };
        let Some(begun) = until(&cache, &name, settled).await else { return Ok(gone(&name)) };
        say(&begun);
        let nothing =
            begun.status.as_ref().is_none_or(|it| it.pods.is_empty() && it.nodes.is_empty());
        match hold {
            _ if phase(&begun) == Some(Phase::Beginning) => {
                take_back(session, std::slice::from_ref(&name)).await?;
                Ok(ExitCode::FAILURE)
            }
            Hold::Once if nothing => Ok(ExitCode::FAILURE),
            Hold::Once => Ok(ExitCode::SUCCESS),
            Hold::Detached => {
                output::note(&format!("`coracle chaos stop {name}` undoes it"));
                Ok(ExitCode::SUCCESS)
            }
            Hold::WhileRunning => {
                match until(&cache, &name, |it| phase(it) == Some(Phase::Ended)).await {
                    Some(ended) => say(&ended),
                    None => return Ok(gone(&name)),
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    };
    if hold != Hold::WhileRunning {
        return held.await;
    }
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        done = held => done,
        error = renew(&faults, &name) => Err(error),
        _ = terminate.recv() => take_back(session, &[name]).await,
        done = tokio::signal::ctrl_c() => {
            done.context("listen for Ctrl-C")?;
            take_back(session, &[name]).await
        }
    }
}

/// Says again and again that somebody holds the fault; ends if that cannot be said.
async fn renew(faults: &Api<Fault>, name: &str) -> anyhow::Error {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let patch = json!({"spec": {"lease": {"renewTime": MicroTime(Timestamp::now())}}});
        let renewed = faults.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        match renewed {
            Err(error) if !client::is_not_found(&error) => {
                let text = format!("hold fault `{name}`, which ends without that");
                return anyhow::Error::new(error).context(text);
            }
            _ => {}
        }
    }
}

/// Somebody else took it back.
fn gone(name: &str) -> ExitCode {
    output::note(&format!("{name}: undone: it was taken back"));
    ExitCode::SUCCESS
}

/// The fault once it is as wanted; none if it is gone before.
async fn until(cache: &Cache<Fault>, name: &str, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
    let mut changes = cache.subscribe();
    let mut seen = false;
    loop {
        let change = changes.next().await;
        let of_it = change.key.name == name;
        match change.latest() {
            Some(fault) if of_it && wanted(fault) => return Some(fault.clone()),
            Some(_) if of_it => seen = true,
            None if of_it && seen => return None,
            _ => {}
        }
    }
}

/// Takes faults back and waits until they are undone.
async fn take_back(session: &Session, names: &[String]) -> anyhow::Result<ExitCode> {
    let faults: Api<Fault> = Api::all(session.client.clone());
    let cache = session.caches.of::<Fault>();
    cache.synced().await;
    let mut changes = cache.subscribe();
    for name in names {
        let deleted = faults.delete(name, &DeleteParams::default()).await;
        deleted.with_context(|| format!("take fault `{name}` back"))?;
    }
    let is_there = |name: &String| cache.get(&client::Key::cluster(name)).is_some();
    while names.iter().any(is_there) {
        changes.next().await;
    }
    for name in names {
        output::line(&format!("{name}: undone"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn stop(session: &Session, names: &[String]) -> anyhow::Result<ExitCode> {
    let mut names = names.to_vec();
    if names.is_empty() {
        let faults: Api<Fault> = Api::all(session.client.clone());
        let all = faults.list(&kube::api::ListParams::default()).await.context("list faults")?;
        names =
            all.iter().filter(|it| phase(it) != Some(Phase::Ended)).map(Fault::name_any).collect();
        if names.is_empty() {
            output::note("nothing goes wrong on purpose");
            return Ok(ExitCode::SUCCESS);
        }
    }
    take_back(session, &names).await
}

async fn list(session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let faults: Api<Fault> = Api::all(session.client.clone());
    let all = faults.list(&kube::api::ListParams::default()).await.context("list faults")?.items;
    match format {
        Format::Json => output::line(&format!("{:#}", json!(all)))?,
        Format::Text => {
            let header = ["NAME", "ACTION", "PHASE", "WHAT"].map(str::to_owned).to_vec();
            let row = |it: &Fault| {
                let phase = phase(it).map_or_else(String::new, |it| format!("{it:?}"));
                vec![it.name_any(), format!("{:?}", it.spec.action), phase, message(it)]
            };
            let rows: Vec<_> = std::iter::once(header).chain(all.iter().map(row)).collect();
            output::line(&output::table(&rows))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn phase(fault: &Fault) -> Option<Phase> {
    fault.status.as_ref()?.phase
}

fn message(fault: &Fault) -> String {
    fault.status.as_ref().and_then(|it| it.message.clone()).unwrap_or_default()
}

fn say(fault: &Fault) {
    output::note(&format!("{}: {}", fault.name_any(), message(fault)));
}
