//! Whether an image can be run now, and what is to be done about it: pure.
//!
//! The kubelet's rules of pull policies and of back-off:
//! <https://kubernetes.io/docs/concepts/containers/images/>

use std::time::Duration;

use runtime::Backoff;

/// Waits after failed pulls: the kubelet's, which double from ten seconds to five minutes.
const BACK_OFF: Backoff = Backoff { base: Duration::from_secs(10), max: Duration::from_secs(300) };
/// How long a failure is shown as such before it is shown as a back-off. A kubelet shows it until it
/// looks at the pod again.
const SHOWN_AS_ERROR: Duration = Duration::from_secs(2);

/// A container's `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The registry is asked before each run.
    Always,
    /// Only what is missing is pulled.
    IfNotPresent,
    /// Nothing is pulled.
    Never,
}

/// What the machine has of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// Nothing.
    Absent,
    /// Its blobs, not unpacked yet.
    Packed,
    /// All that a container needs.
    Ready,
}

/// An image, as one moment finds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// On the clock that every duration here is of.
    pub(crate) now: Duration,
    /// What is wanted.
    pub(crate) policy: Policy,
    /// Since when a container waits to run.
    pub(crate) wanted: Duration,
    pub(crate) local: Local,
    /// It was loaded or built on this machine: no registry knows a newer one.
    pub(crate) made_here: bool,
    /// Who wants it may run it without asking a registry: it was fetched for him before, or is
    /// everybody's.
    pub(crate) admitted: bool,
    /// When a registry was last asked with success: the beginning of that work.
    pub(crate) confirmed: Option<Duration>,
    /// What is being done about it at the moment.
    pub(crate) work: Work,
}

/// Where the work on an image stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// None, or the last was successful.
    Idle,
    /// It is being fetched or unpacked.
    Going,
    /// It failed.
    Failed {
        /// When.
        at: Duration,
        /// How often in a row, from 1.
        failures: u32,
    },
}

/// What to do, and what to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It can be run.
    Run,
    /// Wait for the work that goes on.
    Wait,
    /// Begin work: ask the registry whatever is there (`fresh`), or do only what is missing.
    Begin {
        /// Whether the registry is to be asked for what the name stands for now.
        fresh: bool,
    },
    /// It failed: `ErrImagePull`. To be looked at again at this time.
    Error(Duration),
    /// It failed: `ImagePullBackOff`. To be looked at again at this time.
    BackOff(Duration),
    /// It is not there, and must not be fetched: `ErrImageNeverPull`.
    Never,
    /// It is there, fetched for others, and no registry must be asked: `ErrImageNeverPull`.
    Forbidden,
}

/// Decides.
#[must_use]
pub(crate) fn decide(seen: &Seen) -> Verdict {
    let here = seen.local != Local::Absent;
    let asked = seen.confirmed.is_some_and(|it| seen.wanted <= it);
    let of_others = here && !seen.admitted && !asked;
    if of_others && seen.policy == Policy::Never {
        return Verdict::Forbidden;
    }
    let fresh = of_others || seen.policy == Policy::Always && !(seen.made_here && here);
    if seen.local == Local::Ready && (!fresh || asked) {
        return Verdict::Run;
    }
    if seen.policy == Policy::Never && seen.local == Local::Absent {
        return Verdict::Never;
    }
    match seen.work {
        Work::Going => Verdict::Wait,
        Work::Idle => Verdict::Begin { fresh },
        Work::Failed { at, failures } => {
            let (shown, again) = (at + SHOWN_AS_ERROR, at + BACK_OFF.delay(failures));
            if seen.now < shown.min(again) {
                Verdict::Error(shown.min(again))
            } else if seen.now < again {
                Verdict::BackOff(again)
            } else {
                Verdict::Begin { fresh }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEEN: Seen = Seen {
        now: Duration::from_secs(100),
        policy: Policy::IfNotPresent,
        wanted: Duration::from_secs(90),
        local: Local::Absent,
        made_here: false,
        admitted: true,
        confirmed: None,
        work: Work::Idle,
    };

    #[test]
    fn policies() {
        let with = |policy, local| decide(&Seen { policy, local, ..SEEN });
        assert_eq!(with(Policy::IfNotPresent, Local::Absent), Verdict::Begin { fresh: false });
        assert_eq!(with(Policy::IfNotPresent, Local::Packed), Verdict::Begin { fresh: false });
        assert_eq!(with(Policy::IfNotPresent, Local::Ready), Verdict::Run);
        assert_eq!(with(Policy::Never, Local::Absent), Verdict::Never);
        assert_eq!(with(Policy::Never, Local::Packed), Verdict::Begin { fresh: false });
        assert_eq!(with(Policy::Never, Local::Ready), Verdict::Run);
        assert_eq!(with(Policy::Always, Local::Ready), Verdict::Begin { fresh: true });
    }

    #[test]
    fn always_means_asked_since_it_was_wanted() {
        let seen = Seen { policy: Policy::Always, local: Local::Ready, ..SEEN };
        let asked = |at| decide(&Seen { confirmed: Some(Duration::from_secs(at)), ..seen });
        assert_eq!(asked(89), Verdict::Begin { fresh: true });
        assert_eq!(asked(90), Verdict::Run);
        // What was built here is newer than what any registry has.
        assert_eq!(decide(&Seen { made_here: true, ..seen }), Verdict::Run);
    }

    #[test]
    fn what_was_fetched_for_others_is_asked_for() {
        for local in [Local::Packed, Local::Ready] {
            let seen = Seen { admitted: false, local, ..SEEN };
            assert_eq!(decide(&seen), Verdict::Begin { fresh: true });
            assert_eq!(decide(&Seen { made_here: true, ..seen }), Verdict::Begin { fresh: true });
            assert_eq!(decide(&Seen { policy: Policy::Never, ..seen }), Verdict::Forbidden);
        }
        let absent = Seen { admitted: false, ..SEEN };
        assert_eq!(decide(&absent), Verdict::Begin { fresh: false });
        let asked = |at| {
            let confirmed = Some(Duration::from_secs(at));
            decide(&Seen { admitted: false, local: Local::Ready, confirmed, ..SEEN })
        };
        assert_eq!((asked(89), asked(90)), (Verdict::Begin { fresh: true }, Verdict::Run));
    }

    #[test]
    fn failures_back_off() {
        let at = |now, failures| {
            let work = Work::Failed { at: Duration::from_secs(100), failures };
            decide(&Seen { now: Duration::from_secs(now), work, ..SEEN })
        };
        assert_eq!(at(100, 1), Verdict::Error(Duration::from_secs(102)));
        assert_eq!(at(102, 1), Verdict::BackOff(Duration::from_secs(110)));
        assert_eq!(at(110, 1), Verdict::Begin { fresh: false });
        assert_eq!(at(110, 2), Verdict::BackOff(Duration::from_secs(120)));
        assert_eq!(at(400, 60), Verdict::Begin { fresh: false });
        assert_eq!(at(399, 60), Verdict::BackOff(Duration::from_secs(400)));
    }

    proptest! {
        /// Whoever waits for a time gets another verdict at that time.
        #[test]
        fn no_wait_is_for_ever(
            now in 0_u64..1000, failures in 1_u32..40, ago in 0_u64..400, always in any::<bool>(),
        ) {
            let at = Duration::from_secs(now.saturating_sub(ago));
            let policy = if always { Policy::Always } else { Policy::IfNotPresent };
            let work = Work::Failed { at, failures };
            let mut seen = Seen { now: Duration::from_secs(now), policy, work, ..SEEN };
            for _ in 0..3 {
                match decide(&seen) {
                    Verdict::Error(at) | Verdict::BackOff(at) => {
                        prop_assert!(seen.now < at);
                        seen.now = at;
                    }
                    verdict => {
                        prop_assert_eq!(verdict, Verdict::Begin { fresh: always });
                        return Ok(());
                    }
                }
            }
            prop_assert!(false, "still waits");
        }
    }
}
