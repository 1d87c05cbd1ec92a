//! What a container leaves behind when it ends: its exit, and its termination message.
//! <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use k8s_openapi::api::core::v1::Pod;

use super::{
    facts::{exit_of, parse_run_id},
    seen::{Exit, containers},
};
use crate::{
    context::Folders,
    logs::{Format, Formatter, tail},
};

/// Longest message from the file, as with the kubelet.
const MESSAGE_BYTES_MAX: u64 = 4096;
/// Longest message from the log …
const LOG_BYTES_MAX: usize = 2048;
/// … and its lines.
const LOG_LINES_MAX: u64 = 80;

/// The termination message of a run that ended with `code`.
pub(super) fn read(
    folders: &Folders,
    pod: &Pod,
    (name, attempt): (&str, u32),
    code: i32,
) -> Option<String> {
    let path = folders.termination_message(name, attempt);
    let message = logged(read_file(&path), &path).unwrap_or_default();
    if !message.is_empty() {
        return Some(message);
    }
    let container = containers(pod).find(|(_, it)| it.name == name);
    let policy = container.and_then(|(_, it)| it.termination_message_policy.as_deref());
    if code == 0 || policy != Some("FallbackToLogsOnError") {
        return None;
    }
    let path = folders.log(name, attempt);
    let records = logged(tail(&path, LOG_LINES_MAX), &path)?;
    let mut lines = Vec::new();
    Formatter::new(Format::default()).feed(&records, &mut lines);
    let start = lines.len().saturating_sub(LOG_BYTES_MAX);
    Some(String::from_utf8_lossy(lines.get(start..).unwrap_or_default()).into_owned())
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A message that cannot be read is none; only its being missing is nothing to talk about.
fn logged<T>(result: io::Result<T>, path: &Path) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "termination message not read");
            None
        }
    }
}

/// The ends that the pod's run folder has on record, by container.
pub(super) fn read_exits(folders: &Folders, pod: &Pod) -> Vec<(String, Exit)> {
    let exits = logged(shim::exits(&folders.run), &folders.run).unwrap_or_default();
    let of = exits.iter().filter_map(|exit| {
        let (name, attempt) = parse_run_id(&exit.id)?;
        let message = read(folders, pod, (name, attempt), exit.code);
        Some((name.to_owned(), exit_of(attempt, exit, message)))
    });
    of.collect()
}
