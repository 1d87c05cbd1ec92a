//! Tells of containers that write their logs faster than anybody reads them, so that the older part of what
//! they say is dropped: a log has a few files of a fixed size.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use client::{EventType, Events};
use runtime::{OnExit, Tasks};
use shim::{LOG_FILE_BYTES_MAX, LOG_FILES_MAX};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{handle::Registry, news::News, pod::events::about};

/// Time between two looks at the names of each container's log files.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A log all of whose files but the one being written were filled within this is one that nobody reads: more
/// than half a megabyte a second.
const FILLED_WITHIN: Duration = Duration::from_mins(1);

/// Reason of the event. Kubernetes has none for it.
const REASON: &str = "LogFlood";

/// What it needs.
#[derive(Debug)]
pub(crate) struct Floods {
    pub(crate) registry: Arc<Registry>,
    pub(crate) events: Events,
}

impl Floods {
    pub(crate) fn start(self, tasks: &Tasks) {
        tasks.spawn("floods", OnExit::StopProcess, |stop| self.run(stop));
    }

    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut told = News::new();
        loop {
            let next = async {
                self.registry.occupied().await;
                tokio::time::sleep(LOOK_EVERY).await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = next => {}
            }
            self.look(&mut told).await?;
        }
    }

    /// Looks at the logs of each pod, and tells of those that have been flooded since the last time.
    async fn look(&self, told: &mut News<PathBuf>) -> anyhow::Result<()> {
        let pods = self.registry.list();
        told.retain(|log| pods.iter().any(|(_, it)| log.starts_with(&it.folders.logs)));
        let folders: Vec<PathBuf> = pods.iter().map(|(_, it)| it.folders.logs.clone()).collect();
        let found = move || folders.iter().map(|it| floods(it)).collect::<Vec<_>>();
        for (of_pod, (_, registered)) in tokio::task::spawn_blocking(found).await?.iter().zip(&pods)
        {
            for Flood { container, written_at, seconds } in of_pod {
                let log = registered.folders.logs.join(container);
                if told.is_news(log, *written_at, Instant::now()) {
                    let about = about(&registered.pod, Some(container));
                    self.events.record(
                        about,
                        EventType::Warning,
                        REASON,
                        note(container, *seconds),
                    );
                }
            }
        }
        Ok(())
    }
}

fn note(container: &str, seconds: u64) -> String {
    let [kept, filled] = [LOG_FILES_MAX, LOG_FILES_MAX - 1]
        .map(|it| u64::from(it) * LOG_FILE_BYTES_MAX / (1024 * 1024));
    format!(
        "container {container} has written {filled} MiB of log within {seconds} s; the newest {kept} MiB are \
         kept, and what it wrote before is dropped"
    )
}

/// A log that is written too fast.
#[derive(Debug, PartialEq, Eq)]
struct Flood {
    container: String,
    /// When its newest file was written last, in seconds since 1970.
    written_at: u64,
    /// How long it took to fill all files but that one.
    seconds: u64,
}

/// Those below a pod's folder of logs, which has a folder for each container.
fn floods(logs: &Path) -> Vec<Flood> {
    // A pod without logs has no folder, and one that goes loses it.
    let containers = fs::read_dir(logs).into_iter().flatten().flatten();
    let of_container = |folder: PathBuf| -> Option<Flood> {
        let container = folder.file_name()?.to_str()?.to_owned();
        let oldest = format!(".log.{}", LOG_FILES_MAX - 1);
        let files = fs::read_dir(&folder).ok()?.flatten();
        let runs = files
            .filter_map(|it| it.file_name().to_str()?.strip_suffix(&oldest)?.parse::<u64>().ok());
        let run = runs.max()?;
        let written = |name: String| fs::metadata(folder.join(name)).ok()?.modified().ok();
        let newest = written(format!("{run}.log"))?;
        let took = newest.duration_since(written(format!("{run}{oldest}"))?).ok()?;
        let since = newest.duration_since(std::time::UNIX_EPOCH).ok()?;
        (took < FILLED_WITHIN).then_some(Flood {
            container,
            written_at: since.as_secs(),
            seconds: took.as_secs().max(1),
        })
    };
    containers.filter_map(|it| of_container(it.path())).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        time::{SystemTime, UNIX_EPOCH},
    };

    use super::*;

    /// The last writes of the files of a container's log, in seconds, the newest file first.
    fn log(folder: &Path, container: &str, run: u64, written: &[u64]) {
        fs::create_dir_all(folder.join(container)).unwrap();
        for (number, seconds) in written.iter().enumerate() {
            let suffix = if number == 0 { String::new() } else { format!(".{number}") };
            let path = folder.join(container).join(format!("{run}.log{suffix}"));
            let time: SystemTime = UNIX_EPOCH + Duration::from_secs(*seconds);
            File::create(path).unwrap().set_modified(time).unwrap();
        }
    }

    #[test]
    fn a_log_that_is_filled_within_a_minute_is_a_flood() {
        let folder = tempfile::tempdir().unwrap();
        log(folder.path(), "quick", 0, &[1000, 1, 1, 1, 1]);
        log(folder.path(), "quick", 3, &[1050, 1040, 1030, 1020, 1010]);
        log(folder.path(), "slow", 0, &[1070, 1060, 1050, 1040, 1010]);
        log(folder.path(), "short", 0, &[1003, 1002, 1001, 1000]);
        log(folder.path(), "silent", 0, &[1000]);
        let expected = Flood { container: "quick".to_owned(), written_at: 1050, seconds: 40 };
        assert_eq!(floods(folder.path()), [expected]);
        assert_eq!(floods(&folder.path().join("nothing")), []);
        assert_eq!(
            note("quick", 40),
            "container quick has written 40 MiB of log within 40 s; the newest 50 MiB are kept, and what it \
             wrote before is dropped"
        );
    }
}
