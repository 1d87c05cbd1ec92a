//! When a probe runs and what its results mean: the kubelet's worker as a state machine.
//! <https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/>
//!
//! Sans-IO: time is handed in, on a clock that never jumps; results too.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// First wait of the quick tries; each further one is twice as long.
const QUICK_FIRST: Duration = Duration::from_millis(5);

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Holds the others back until it has succeeded once.
    Startup,
    /// Decides whether traffic is sent.
    Readiness,
    /// Decides whether the container is restarted.
    Liveness,
}

impl Kind {
    /// As in `Readiness probe failed`.
    #[must_use]
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    /// As in `failed liveness probe`.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        }
    }
}

/// What one try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The container is well.
    Success,
    /// It is not; the words are for the event.
    Failure(String),
    /// The try itself failed: says nothing of the container.
    Unknown(String),
}

/// What a result changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// The probe's value is now this.
    Becomes(bool),
}

/// One probe of one run of a container.
#[derive(Clone, Debug)]
pub(crate) struct ProbeState {
    kind: Kind,
    period: Duration,
    thresholds: Thresholds,
    /// Readiness and startup begin with false, liveness with true.
    value: bool,
    same_in_row: u32,
    last: Option<bool>,
    due: Due,
    /// The first period after the initial delay ends then.
    quick_until: Duration,
    quick_wait: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Thresholds {
    success: u32,
    failure: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    At(Duration),
    /// A try is under way; it began then.
    Running(Duration),
    /// Nothing more to find out.
    Never,
}

impl ProbeState {
    /// A probe of a container that was started at `started`.
    #[must_use]
    pub(crate) fn new(kind: Kind, probe: &Probe, started: Duration) -> Self {
        let delay = seconds(probe.initial_delay_seconds, 0);
        let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
        let count =
            |it: Option<i32>, default| it.and_then(|it| u32::try_from(it).ok()).unwrap_or(default);
        let first = started + delay;
        Self {
            kind,
            period,
            thresholds: Thresholds {
                success: count(probe.success_threshold, 1).max(1),
                failure: count(probe.failure_threshold, 3).max(1),
            },
            value: kind == Kind::Liveness,
            same_in_row: 0,
            last: None,
            due: Due::At(first),
            quick_until: first + period,
            quick_wait: QUICK_FIRST,
        }
    }

    /// A probe of a container that was found running: if it was well when last reported, it stays
    /// so until the probe says otherwise.
    #[must_use]
    pub(crate) fn adopted(kind: Kind, probe: &Probe, now: Duration, value: bool) -> Self {
        let mut state = Self::new(kind, probe, now);
        state.value = value;
        state.quick_until = now;
        state.due = match kind {
            Kind::Startup if value => Due::Never,
            Kind::Startup | Kind::Readiness | Kind::Liveness => Due::At(now),
        };
        state
    }

    /// What the probe says now.
    #[cfg(test)]
    pub(crate) fn value(&self) -> bool {
        self.value
    }

    /// When the next try is due; `None` while one is under way or none will be.
    #[must_use]
    pub(crate) fn due(&self) -> Option<Duration> {
        match self.due {
            Due::At(at) => Some(at),
            Due::Running(_) | Due::Never => None,
        }
    }

    /// Begins a try.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.due = Due::Running(now);
    }

    /// Whether a failure at `now` is only a quick try: nobody is told of it, and it does not count.
    ///
    /// A container is rarely ready in the instant it starts; the kubelet's next try would come a
    /// whole period later. So in the first period startup and readiness probes are tried again
    /// after 5 ms, 10 ms, 20 ms, …: only success can come of these.
    #[must_use]
    pub(crate) fn is_quick(&self, now: Duration) -> bool {
        let helps = matches!(self.kind, Kind::Startup | Kind::Readiness);
        helps && !self.value && self.last != Some(true) && now + self.quick_wait < self.quick_until
    }

    /// Takes the result of the try that [`Self::begin`] began.
    pub(crate) fn handle(&mut self, outcome: &Outcome, now: Duration) -> Effect {
        let began = match self.due {
            Due::Running(began) => began,
            Due::At(_) | Due::Never => return Effect::None,
        };
        let success = match outcome {
            Outcome::Success => true,
            Outcome::Failure(_) | Outcome::Unknown(_) if self.is_quick(now) => {
                self.due = Due::At(now + self.quick_wait);
                self.quick_wait = self.quick_wait.saturating_mul(2);
                return Effect::None;
            }
            Outcome::Failure(_) => false,
            Outcome::Unknown(_) => {
                self.due = Due::At(self.next(began, now));
                return Effect::None;
            }
        };
        self.due = Due::At(self.next(began, now));
        self.same_in_row = if self.last == Some(success) { self.same_in_row + 1 } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.thresholds.success } else { self.thresholds.failure };
        if self.same_in_row < threshold {
            return Effect::None;
        }
        self.conclude(success)
    }

    fn conclude(&mut self, success: bool) -> Effect {
        let restarts = !success && self.kind != Kind::Readiness;
        if restarts || (success && self.kind == Kind::Startup) {
            self.due = Due::Never;
        }
        // A startup probe that gives up has never been anything but false.
        if self.value == success && !restarts {
            return Effect::None;
        }
        self.value = success;
        Effect::Becomes(success)
    }

    /// A period after the try began, but not in the past if the try took longer.
    fn next(&self, began: Duration, now: Duration) -> Duration {
        (began + self.period).max(now)
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|it| u64::try_from(it).ok()).unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn probe(value: Value) -> Probe {
        serde_json::from_value(value).unwrap()
    }

    fn failure() -> Outcome {
        Outcome::Failure("no".to_owned())
    }

    /// Runs the next try with `outcome`, at its time. Returns that time in milliseconds.
    fn turn(state: &mut ProbeState, outcome: &Outcome) -> (u128, Effect) {
        let now = state.due().unwrap();
        state.begin(now);
        assert_eq!(state.due(), None, "one at a time");
        (now.as_millis(), state.handle(outcome, now))
    }

    #[test]
    fn readiness_is_tried_at_once_and_quickly_again() {
        let mut state =
            ProbeState::new(Kind::Readiness, &probe(json!({ "periodSeconds": 1 })), Duration::ZERO);
        let times: Vec<u128> = (0..10).map(|_| turn(&mut state, &failure()).0).collect();
        assert_eq!(times, [0, 5, 15, 35, 75, 155, 315, 635, 1635, 2635]);
        assert_eq!(turn(&mut state, &Outcome::Success), (3635, Effect::Becomes(true)));
        assert_eq!(turn(&mut state, &failure()), (4635, Effect::None));
        assert_eq!(turn(&mut state, &failure()), (5635, Effect::None));
        assert_eq!(turn(&mut state, &failure()), (6635, Effect::Becomes(false)));
        assert_eq!(turn(&mut state, &Outcome::Success), (7635, Effect::Becomes(true)));
    }

    #[test]
    fn initial_delay_and_success_threshold() {
        let spec =
            probe(json!({ "initialDelaySeconds": 5, "successThreshold": 2, "periodSeconds": 2 }));
        let mut state = ProbeState::new(Kind::Readiness, &spec, Duration::from_secs(1));
        assert_eq!(turn(&mut state, &Outcome::Success), (6000, Effect::None));
        assert_eq!(turn(&mut state, &Outcome::Success), (8000, Effect::Becomes(true)));
    }

    #[test]
    fn liveness_gives_up_once() {
        let spec = probe(json!({ "failureThreshold": 2, "periodSeconds": 1 }));
        let mut state = ProbeState::new(Kind::Liveness, &spec, Duration::ZERO);
        assert!(state.value());
        assert_eq!(turn(&mut state, &failure()), (0, Effect::None));
        assert_eq!(turn(&mut state, &Outcome::Success), (1000, Effect::None));
        assert_eq!(turn(&mut state, &failure()), (2000, Effect::None));
        assert_eq!(turn(&mut state, &failure()), (3000, Effect::Becomes(false)));
        assert_eq!(state.due(), None);
    }

    #[test]
    fn startup_succeeds_once_or_gives_up() {
        let spec = probe(json!({ "failureThreshold": 1, "periodSeconds": 1 }));
        let mut state = ProbeState::new(Kind::Startup, &spec, Duration::ZERO);
        assert_eq!(turn(&mut state, &Outcome::Success), (0, Effect::Becomes(true)));
        assert_eq!(state.due(), None);
        let mut state = ProbeState::new(Kind::Startup, &spec, Duration::ZERO);
        while state.is_quick(state.due().unwrap()) {
            assert_eq!(turn(&mut state, &failure()).1, Effect::None);
        }
        assert_eq!(turn(&mut state, &failure()).1, Effect::Becomes(false));
        assert_eq!(state.due(), None);
    }

    #[test]
    fn unknown_results_say_nothing() {
        let spec = probe(json!({ "failureThreshold": 1, "periodSeconds": 1 }));
        let mut state = ProbeState::new(Kind::Liveness, &spec, Duration::ZERO);
        for second in 0..5 {
            let unknown = Outcome::Unknown("broken".to_owned());
            assert_eq!(turn(&mut state, &unknown), (second * 1000, Effect::None));
        }
    }

    #[test]
    fn adopted_containers_keep_their_health() {
        let spec = probe(json!({ "failureThreshold": 2, "periodSeconds": 1 }));
        let mut state = ProbeState::adopted(Kind::Readiness, &spec, Duration::ZERO, true);
        assert_eq!(turn(&mut state, &failure()), (0, Effect::None));
        assert!(state.value());
        assert_eq!(turn(&mut state, &failure()), (1000, Effect::Becomes(false)));
        let startup = ProbeState::adopted(Kind::Startup, &spec, Duration::ZERO, true);
        assert_eq!(startup.due(), None);
    }

    proptest! {
        #[test]
        fn value_changes_only_after_the_threshold(
            results in prop::collection::vec(any::<bool>(), 0..40),
            success in 1..4_i32,
            failure_threshold in 1..4_i32,
        ) {
            let spec = probe(json!({ "periodSeconds": 1, "successThreshold": success,
                "failureThreshold": failure_threshold }));
            let mut state = ProbeState::adopted(Kind::Readiness, &spec, Duration::ZERO, false);
            let mut history: Vec<bool> = Vec::new();
            for it in results {
                let outcome = if it { Outcome::Success } else { failure() };
                let before = state.value();
                let (_, effect) = turn(&mut state, &outcome);
                history.push(it);
                let run = history.iter().rev().take_while(|other| **other == it).count();
                let threshold = if it { success } else { failure_threshold };
                let changes = i32::try_from(run).unwrap() >= threshold && before != it;
                prop_assert_eq!(effect == Effect::Becomes(it), changes);
                prop_assert_eq!(state.value(), if changes { it } else { before });
            }
        }
    }
}
