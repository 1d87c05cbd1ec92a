//! `kubectl logs`: which run of which container is meant, and its lines as a stream.
//!
//! Reads what shims write; writes nothing.

mod files;
mod line;
mod watch;

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{Stream, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use tokio::sync::watch as channel;

use crate::pod::status::attempt_of;

pub(crate) use files::{log_files, tail};
pub(crate) use line::{Format, Formatter};
pub(crate) use watch::Watcher;

use files::Files;
use watch::Changes;

/// What a reader asks for: `PodLogOptions`.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// The run before the present one.
    pub previous: bool,
    /// Only so many of the last lines.
    pub tail_lines: Option<u64>,
    /// Only what is not older.
    pub since: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why there is no log to read, in the words that users of kubectl know.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The request does not fit the pod, or not yet: HTTP 400.
    #[error("{0}")]
    BadRequest(String),
    /// The pod is not on this node: HTTP 404.
    #[error("pods \"{0}\" not found")]
    NotFound(String),
    /// The machine: HTTP 500.
    #[error("read log `{path}`")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The name of the container that is meant: the one asked for, or the only one.
pub(crate) fn choose_container(pod: &Pod, asked: Option<&str>) -> Result<String, LogsError> {
    let spec = pod.spec.as_ref();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let names = |init: bool| -> Vec<&str> {
        let all = crate::pod::seen::containers(pod);
        all.filter(|(role, _)| (*role != crate::pod::seen::Role::Main) == init)
            .map(|(_, it)| it.name.as_str())
            .collect()
    };
    let (init, main) = (names(true), names(false));
    match asked.filter(|it| !it.is_empty()) {
        Some(asked) if init.contains(&asked) || main.contains(&asked) => Ok(asked.to_owned()),
        Some(asked) => {
            Err(LogsError::BadRequest(format!("container {asked} is not valid for pod {name}")))
        }
        None => match (main.as_slice(), spec) {
            ([only], _) => Ok((*only).to_owned()),
            _ => {
                let mut message = format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    main.join(" ")
                );
                if !init.is_empty() {
                    let init = init.join(" ");
                    message += &format!(" or one of the init containers: [{init}]");
                }
                Err(LogsError::BadRequest(message))
            }
        },
    }
}

/// Which run's log is meant: the kubelet's `validateContainerLogStatus`.
pub(crate) fn choose_attempt(
    status: &PodStatus,
    pod: &str,
    container: &str,
    previous: bool,
) -> Result<u32, LogsError> {
    let refuse = |words: String| Err(LogsError::BadRequest(words));
    let Some(status) = find(status, container) else {
        return refuse(format!(
            "container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating"
        ));
    };
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        let ended = state.as_ref()?.terminated.as_ref()?;
        attempt_of(ended.container_id.as_deref()?)
    };
    let last = ended(&status.last_state);
    if previous {
        return match last {
            Some(attempt) => Ok(attempt),
            None => refuse(format!(
                "previous terminated container \"{container}\" in pod \"{pod}\" not found"
            )),
        };
    }
    let state = status.state.as_ref();
    let running = state.is_some_and(|it| it.running.is_some());
    let current = status.container_id.as_deref().and_then(attempt_of).filter(|_| running);
    if let Some(attempt) = current.or_else(|| ended(&status.state)).or(last) {
        return Ok(attempt);
    }
    let waiting = state.and_then(|it| it.waiting.as_ref()).and_then(|it| it.reason.as_deref());
    let reason = waiting.unwrap_or("ContainerCreating");
    refuse(format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}"))
}

fn find<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    let main = status.container_statuses.iter().flatten();
    init.chain(main).find(|it| it.name == container)
}

fn is_running(status: &PodStatus, container: &str, attempt: u32) -> bool {
    find(status, container).is_some_and(|it| {
        let running = it.state.as_ref().is_some_and(|it| it.running.is_some());
        running && it.container_id.as_deref().and_then(attempt_of) == Some(attempt)
    })
}

/// One run of a container, as its log is read.
#[derive(Debug)]
pub(crate) struct Source {
    /// The current log file.
    pub(crate) path: PathBuf,
    /// Container and attempt.
    pub(crate) run: (String, u32),
    /// The pod's status, to know when the run ends.
    pub(crate) status: channel::Receiver<PodStatus>,
}

/// The lines of `source`.
pub(crate) fn read(
    source: Source,
    options: &LogOptions,
    watcher: &Watcher,
) -> Result<impl Stream<Item = Bytes> + Send + use<>, LogsError> {
    let failed = |error| LogsError::Io { path: source.path.clone(), source: error };
    // Watched before the first read, so that no change falls between.
    let changes = match source.path.parent().filter(|_| options.follow) {
        Some(folder) => Some(watcher.folder(folder).map_err(failed)?),
        None => None,
    };
    let files = Files::open(source.path.clone(), options.tail_lines).map_err(failed)?;
    let LogOptions { since, timestamps, limit_bytes, .. } = *options;
    let formatter = Formatter::new(Format { since, timestamps, limit_bytes });
    let reading = Reading { source, files, formatter, changes };
    Ok(stream::unfold(reading, Reading::next))
}

struct Reading {
    source: Source,
    files: Files,
    formatter: Formatter,
    changes: Option<Changes>,
}

impl Reading {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        while !self.formatter.is_full() {
            let (container, attempt) = &self.source.run;
            // Looked at before reading: what was written until then is read below.
            let running = is_running(&self.source.status.borrow_and_update(), container, *attempt);
            let mut records = Vec::new();
            let read = match self.changes {
                Some(_) => self.files.read(&mut records),
                None => self.files.read_written(&mut records),
            };
            let more = match read {
                Ok(more) => more,
                Err(error) => {
                    tracing::warn!(path = %self.source.path.display(), %error, "log is unreadable");
                    return None;
                }
            };
            let mut lines = Vec::with_capacity(records.len());
            self.formatter.feed(&records, &mut lines);
            if !lines.is_empty() {
                return Some((lines.into(), self));
            }
            if more {
                continue;
            }
            let changes = self.changes.as_mut().filter(|_| running)?;
            tokio::select! {
                () = changes.next() => {}
                // The worker is gone: so is the container.
                gone = self.source.status.changed() => gone.ok()?,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use runtime::Tasks;
    use serde_json::{Value, json};

    use super::*;

    fn pod(init: &[&str], main: &[&str]) -> Pod {
        let list =
            |names: &[&str]| names.iter().map(|it| json!({ "name": it })).collect::<Vec<_>>();
        let spec = json!({ "initContainers": list(init), "containers": list(main) });
        serde_json::from_value(json!({ "metadata": { "name": "web" }, "spec": spec })).unwrap()
    }

    #[test]
    fn container_is_chosen_or_asked_for() {
        let choose = |pod: &Pod, asked| choose_container(pod, asked).map_err(|it| it.to_string());
        assert_eq!(choose(&pod(&[], &["a"]), None), Ok("a".to_owned()));
        assert_eq!(choose(&pod(&["i"], &["a"]), Some("i")), Ok("i".to_owned()));
        assert_eq!(
            choose(&pod(&["i"], &["a", "b"]), None).unwrap_err(),
            "a container name must be specified for pod web, choose one of: [a b] \
             or one of the init containers: [i]"
        );
        let refused = choose(&pod(&[], &["a"]), Some("x")).unwrap_err();
        assert_eq!(refused, "container x is not valid for pod web");
    }

    fn attempt(status: Value, previous: bool) -> Result<u32, String> {
        let status = json!({ "containerStatuses": [status] });
        let status: PodStatus = serde_json::from_value(status).unwrap();
        choose_attempt(&status, "web", "a", previous).map_err(|it| it.to_string())
    }

    fn status(state: Value, last: Value) -> Value {
        json!({ "name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": "coracle://u.a.3", "state": state, "lastState": last })
    }

    #[test]
    fn run_is_chosen_as_the_kubelet_does() {
        let running = json!({ "running": {} });
        let ended = |attempt| json!({ "terminated": { "exitCode": 1, "containerID": format!("coracle://u.a.{attempt}") } });
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        assert_eq!(attempt(status(running.clone(), ended(2)), false), Ok(3));
        assert_eq!(attempt(status(running.clone(), ended(2)), true), Ok(2));
        assert_eq!(attempt(status(waiting.clone(), ended(3)), false), Ok(3));
        assert_eq!(attempt(status(waiting.clone(), ended(3)), true), Ok(3));
        assert_eq!(attempt(status(ended(3), ended(2)), false), Ok(3));
        assert_eq!(
            attempt(status(running, json!({})), true).unwrap_err(),
            "previous terminated container \"a\" in pod \"web\" not found"
        );
        assert_eq!(
            attempt(status(waiting, json!({})), false).unwrap_err(),
            "container \"a\" in pod \"web\" is waiting to start: CrashLoopBackOff"
        );
    }

    #[tokio::test]
    async fn follow_goes_on_until_the_container_ends() {
        let tasks = Tasks::default();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("3.log");
        let of = |state| -> PodStatus {
            let status = json!({ "containerStatuses": [status(state, json!({}))] });
            serde_json::from_value(status).unwrap()
        };
        let (sender, receiver) = channel::channel(of(json!({ "running": {} })));
        let source = Source { path: path.clone(), run: ("a".to_owned(), 3), status: receiver };
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let watcher = Watcher::new(&tasks).unwrap();
        let mut lines = Box::pin(read(source, &options, &watcher).unwrap());
        let mut text = "2026-11-21T15:00:00Z stdout F one\n".to_owned();
        std::fs::write(&path, &text).unwrap();
        assert_eq!(lines.next().await.unwrap(), "one\n");
        text.push_str("2026-11-21T15:00:00Z stdout F two\n");
        std::fs::write(&path, &text).unwrap();
        assert_eq!(lines.next().await.unwrap(), "two\n");
        text.push_str("2026-11-21T15:00:00Z stdout F three\n");
        std::fs::write(&path, &text).unwrap();
        sender.send_replace(of(json!({ "terminated": { "exitCode": 0 } })));
        assert_eq!(lines.next().await.unwrap(), "three\n");
        assert_eq!(lines.next().await, None);
    }
}
