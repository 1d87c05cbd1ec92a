//! Tells of pods that may not start more processes, as they have as many as a pod may: a fork bomb, or a
//! server with too many threads. What the container says of it may be anything, or nothing.
//!
//! Looks again and again, as not every kernel gives notice of it in version
//! 1 of control groups. Once a second one small file is read, for all pods together; more only when they
//! have so many processes that one of them may have reached its limit.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use client::{EventType, Events};
use runtime::{OnExit, Tasks};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    cgroups::{Cgroups, POD_PIDS_MAX},
    handle::Registry,
    news::News,
    pod::{events::about, facts::parse_run_id},
};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// With so many processes it is asked whether a pod was refused one: it may have lost some since.
const NEAR: u64 = POD_PIDS_MAX / 2;

/// Reason of the event. Kubernetes has none for it; others of its words begin so.
const REASON: &str = "PIDLimitReached";

/// What it needs.
#[derive(Debug)]
pub(crate) struct Forks {
    pub(crate) registry: Arc<Registry>,
    pub(crate) cgroups: Arc<Cgroups>,
    pub(crate) events: Events,
}

impl Forks {
    /// Starts looking, if processes are counted here.
    pub(crate) fn start(self, tasks: &Tasks) {
        if let Some(groups) = self.cgroups.of_processes() {
            tasks.spawn("forks", OnExit::StopProcess, |stop| self.run(groups, stop));
        }
    }

    async fn run(self, groups: PathBuf, stop: CancellationToken) -> anyhow::Result<()> {
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
            if count(&groups.join("pids.current")).is_ok_and(|it| it < NEAR) {
                continue;
            }
            self.look(&groups, &mut told).await?;
        }
    }

    /// Looks at each pod, and tells of those that were refused a process since the last time.
    async fn look(&self, groups: &Path, told: &mut News<String>) -> anyhow::Result<()> {
        let pods = self.registry.list();
        let uids: BTreeSet<String> = pods.iter().map(|(_, it)| it.folders.uid.clone()).collect();
        told.retain(|uid| uids.contains(uid));
        let groups = groups.to_owned();
        let look = move || {
            let found = uids.into_iter().filter_map(|it| Some((refused(&groups, &it)?, it)));
            found.collect::<Vec<(Refused, String)>>()
        };
        for (refused, uid) in tokio::task::spawn_blocking(look).await? {
            let pod = pods.iter().find(|(_, it)| it.folders.uid == uid);
            if let Some((_, registered)) = pod
                && told.is_news(uid, refused.times, Instant::now())
            {
                let about = about(&registered.pod, refused.container.as_deref());
                self.events.record(about, EventType::Warning, REASON, note(&refused));
            }
        }
        Ok(())
    }
}

fn note(refused: &Refused) -> String {
    let who = match &refused.container {
        Some(container) => format!("; container {container} has the most of them"),
        None => String::new(),
    };
    format!(
        "fork rejected by pids controller: the pod has reached its limit of {POD_PIDS_MAX} processes and \
         threads{who}"
    )
}

/// A pod that may not start more processes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    /// How many were refused.
    times: u64,
    /// The container with the most processes.
    container: Option<String>,
}

/// What of that is so of the pod with this uid. The kernel may count in the group that has the limit or in
/// the one of the process that was refused: both have the file.
fn refused(groups: &Path, uid: &str) -> Option<Refused> {
    let pod = Cgroups::pod_in(groups, uid);
    // It fails if the pod has gone meanwhile.
    count(&pod.join("pids.current")).ok().filter(|it| NEAR <= *it)?;
    let mut times = refusals(&pod);
    let mut most = (0, None);
    for entry in fs::read_dir(&pod).ok()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((container, _)) = parse_run_id(&name).filter(|_| entry.path().is_dir()) else {
            continue;
        };
        times += refusals(&entry.path());
        let processes = count(&entry.path().join("pids.current")).unwrap_or_default();
        if most.0 < processes {
            most = (processes, Some(container.to_owned()));
        }
    }
    (times != 0).then_some(Refused { times, container: most.1 })
}

/// How many processes were refused by this group, or in it. None where there is no such file.
fn refusals(group: &Path) -> u64 {
    let text = fs::read_to_string(group.join("pids.events")).unwrap_or_default();
    let number = text.lines().find_map(|it| it.strip_prefix("max ")?.trim().parse().ok());
    number.unwrap_or_default()
}

fn count(file: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    text.trim().parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: Expect) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join("podu1").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = refused(folder.path(), "u1").map(|it| format!("{}: {}", it.times, note(&it)));
        expected.assert_eq(&found.unwrap_or_default());
    }

    #[test]
    fn counted_in_the_group_of_the_process() {
        check(
            &[
                ("pids.current", "4096\n"),
                ("pids.events", "max 0\n"),
                ("web.0/pids.current", "7\n"),
                ("web.0/pids.events", "max 0\n"),
                ("bomb.12/pids.current", "4089\n"),
                ("bomb.12/pids.events", "max 31\n"),
            ],
            expect![
                "31: fork rejected by pids controller: the pod has reached its limit of 4096 processes and threads; container bomb has the most of them"
            ],
        );
    }

    #[test]
    fn counted_in_the_group_with_the_limit() {
        check(
            &[
                ("pids.current", "4000\n"),
                ("pids.events", "max 9\n"),
                ("bomb.0/pids.current", "4000\n"),
                ("bomb.0/pids.events", "max 0\n"),
            ],
            expect![
                "9: fork rejected by pids controller: the pod has reached its limit of 4096 processes and threads; container bomb has the most of them"
            ],
        );
    }

    #[test]
    fn many_are_not_too_many() {
        check(&[("pids.current", "4000\n"), ("pids.events", "max 0\n")], expect![""]);
    }

    #[test]
    fn nothing_is_asked_of_a_pod_with_few() {
        check(&[("pids.current", "20\n"), ("pids.events", "max 5\n")], expect![""]);
        check(&[], expect![""]);
    }
}
