//! How long a container that ended waits before it runs again, and how that outlives the process.
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>
//!
//! Nothing is stored for it: the level can be read back from the status that everybody sees.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};
use runtime::Backoff;

use super::seen::Exit;

/// 10 s, 20 s, … 5 min: the kubelet's. The first restart does not wait.
pub(crate) const BACKOFF: Backoff =
    Backoff { base: Duration::from_secs(10), max: Duration::from_secs(300) };
/// A run this long forgives all before it, as with the kubelet (twice the longest back-off).
pub(crate) const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// The level after one more run has ended.
#[must_use]
pub(crate) fn level_after(failures: u32, exit: &Exit) -> u32 {
    let ran = exit.finished_at.duration_since(exit.started_at);
    let forgiven = Duration::try_from(ran).is_ok_and(|it| FORGIVEN_AFTER <= it);
    if forgiven { 1 } else { failures.saturating_add(1) }
}

/// How long to wait at a level: none after the first end.
#[must_use]
pub(crate) fn delay(failures: u32) -> Duration {
    BACKOFF.delay(failures.saturating_sub(1))
}

/// What is left of the wait that began at `finished_at`. Never more than the whole wait, even if
/// the time of day was set back.
#[must_use]
pub(crate) fn remaining(failures: u32, finished_at: Timestamp, now: Timestamp) -> Duration {
    let delay = delay(failures);
    let passed = Duration::try_from(now.duration_since(finished_at)).unwrap_or_default();
    delay.saturating_sub(passed)
}

/// The waiting message of the kubelet; [`recover`] reads it back.
#[must_use]
pub(crate) fn message(failures: u32, container: &str, pod: &str) -> String {
    let wait = go_duration(delay(failures));
    format!("back-off {wait} restarting failed container={container} pod={pod}")
}

/// The level of a container whose status was written by an earlier process: from the wait it
/// names, else from the gap between its last two runs.
#[must_use]
pub(crate) fn recover(status: &ContainerStatus) -> u32 {
    let state = status.state.as_ref();
    if let Some(waiting) = state.and_then(|it| it.waiting.as_ref()) {
        let message = waiting.message.as_deref().unwrap_or_default();
        return (2..=LEVEL_MAX).find(|it| message.starts_with(&stated(*it))).unwrap_or_default();
    }
    let started = state.and_then(started_at);
    let finished = status.last_state.as_ref().and_then(|it| it.terminated.as_ref());
    let finished = finished.and_then(|it| it.finished_at.as_ref());
    let (Some(started), Some(finished)) = (started, finished) else { return 0 };
    let gap = Duration::try_from(started.duration_since(finished.0)).unwrap_or_default();
    // Time stamps of the API are cut to seconds, so a gap may look one second too short.
    let gap = gap + Duration::from_secs(1);
    (1..=LEVEL_MAX).rev().find(|it| delay(*it) <= gap).unwrap_or_default()
}

/// The level at which the wait is the longest.
const LEVEL_MAX: u32 = 7;

fn stated(failures: u32) -> String {
    format!("back-off {} ", go_duration(delay(failures)))
}

fn started_at(state: &ContainerState) -> Option<Timestamp> {
    let running = state.running.as_ref().and_then(|it| it.started_at.as_ref());
    let ended = state.terminated.as_ref().and_then(|it| it.started_at.as_ref());
    running.or(ended).map(|it| it.0)
}

/// As Go prints durations: `10s`, `1m20s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use k8s_openapi::{
        api::core::v1::{ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting},
        apimachinery::pkg::apis::meta::v1::Time,
    };

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn exit(started: i64, finished: i64) -> Exit {
        Exit {
            attempt: 0,
            code: 1,
            reason: "Error".to_owned(),
            message: None,
            started_at: at(started),
            finished_at: at(finished),
        }
    }

    #[test]
    fn waits_of_the_kubelet() {
        let waits: Vec<u64> = (0..9).map(|it| delay(it).as_secs()).collect();
        assert_eq!(waits, [0, 0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(delay(LEVEL_MAX), BACKOFF.max);
    }

    #[test]
    fn long_runs_are_forgiven() {
        assert_eq!(level_after(5, &exit(0, 599)), 6);
        assert_eq!(level_after(5, &exit(0, 600)), 1);
        assert_eq!(level_after(5, &exit(600, 0)), 6, "the clock was set back");
    }

    #[test]
    fn a_clock_set_back_does_not_prolong_the_wait() {
        assert_eq!(remaining(2, at(1000), at(0)), Duration::from_secs(10));
        assert_eq!(remaining(2, at(0), at(3)), Duration::from_secs(7));
        assert_eq!(remaining(2, at(0), at(30)), Duration::ZERO);
    }

    #[test]
    fn message_has_the_kubelets_words() {
        assert_eq!(
            message(5, "app", "web_shop(1234)"),
            "back-off 1m20s restarting failed container=app pod=web_shop(1234)"
        );
    }

    #[test]
    fn level_survives_the_process() {
        for level in 2..=LEVEL_MAX {
            let waiting = ContainerStateWaiting {
                reason: Some("CrashLoopBackOff".to_owned()),
                message: Some(message(level, "app", "web_shop(1234)")),
            };
            let status = ContainerStatus {
                state: Some(ContainerState { waiting: Some(waiting), ..Default::default() }),
                ..Default::default()
            };
            assert_eq!(recover(&status), level);
        }
        for level in 1..=LEVEL_MAX {
            let gap = SignedDuration::try_from(delay(level)).unwrap().as_secs();
            for slip in [-1, 0, 1] {
                let ended = ContainerStateTerminated {
                    finished_at: Some(Time(at(100))),
                    ..Default::default()
                };
                let running =
                    ContainerStateRunning { started_at: Some(Time(at(100 + gap + slip))) };
                let status = ContainerStatus {
                    state: Some(ContainerState { running: Some(running), ..Default::default() }),
                    last_state: Some(ContainerState {
                        terminated: Some(ended),
                        ..Default::default()
                    }),
                    ..Default::default()
                };
                assert_eq!(recover(&status), level, "gap of {gap} s and {slip} s");
            }
        }
        assert_eq!(recover(&ContainerStatus::default()), 0);
    }
}
