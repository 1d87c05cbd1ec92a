//! `coracle events`: what happened lately, oldest first.

use std::process::ExitCode;

use k8s_openapi::{api::core::v1::Event, jiff::Timestamp};
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::json;

use crate::{cli::Format, directories::Directories, output, session};

/// Prints the events of one namespace, or of all.
pub(crate) fn run(
    directories: &Directories,
    namespace: Option<&str>,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let mut events = session::run(directories, async |session| {
        let api: Api<Event> = match namespace {
            Some(namespace) => Api::namespaced(session.client, namespace),
            None => Api::all(session.client),
        };
        Ok(api.list(&ListParams::default()).await?.items)
    })?;
    events.sort_by_key(|it| (last_seen(it), it.name_any()));
    match format {
        Format::Text => output::line(&output::table(&rows(&events)))?,
        Format::Json => output::line(&format!("{:#}", json!(events)))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let seen = event.last_timestamp.as_ref().map(|it| it.0);
    let seen = seen.or_else(|| event.event_time.as_ref().map(|it| it.0));
    seen.or_else(|| event.metadata.creation_timestamp.as_ref().map(|it| it.0))
}

fn rows(events: &[Event]) -> Vec<Vec<String>> {
    let header = ["TIME", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned).to_vec();
    let row = |event: &Event| {
        let object = &event.involved_object;
        let kind = object.kind.clone().unwrap_or_default().to_lowercase();
        let time = last_seen(event).map(|it| it.strftime("%H:%M:%S").to_string());
        let count = event.count.filter(|it| *it > 1).map(|it| format!(" (x{it})"));
        vec![
            time.unwrap_or_default(),
            event.type_.clone().unwrap_or_default(),
            event.reason.clone().unwrap_or_default(),
            format!("{kind}/{}", object.name.clone().unwrap_or_default()),
            event.message.clone().unwrap_or_default() + &count.unwrap_or_default(),
        ]
    };
    std::iter::once(header).chain(events.iter().map(row)).collect()
}
