//! Which `oom_score_adj` this process may give to others: see proc(5).

use std::fs;

use rustix::thread::CapabilitySet;

/// Inode of the machine's first user namespace: PROC_USER_INIT_INO of linux/proc_ns.h.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// The least value there is.
const LEAST: i32 = -1000;

/// What may be asked of the kernel's killer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OomScores {
    least: i32,
}

impl OomScores {
    /// Of this process: below its own value it may only go with a capability.
    pub(crate) fn permitted() -> Self {
        let own = fs::read_to_string("/proc/self/oom_score_adj");
        let own = own.ok().and_then(|it| it.trim().parse().ok()).unwrap_or_default();
        let capable = rustix::thread::capabilities(None)
            .is_ok_and(|it| it.effective.contains(CapabilitySet::SYS_RESOURCE));
        let initial = rustix::fs::stat("/proc/self/ns/user")
            .is_ok_and(|it| it.st_ino == INITIAL_USER_NAMESPACE);
        Self { least: if capable && initial { LEAST } else { own } }
    }

    /// The value to give, if this one is wanted; `None` leaves it as it is.
    #[must_use]
    pub(crate) fn grant(self, wanted: i32) -> Option<i32> {
        (self.least <= wanted).then_some(wanted)
    }

    /// What is not permitted, in words.
    #[must_use]
    pub(crate) fn describe(self) -> Option<String> {
        let refused = self.least != LEAST;
        refused.then(|| format!("oom_score_adj not below {} (CAP_SYS_RESOURCE)", self.least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_values_than_permitted_are_left_out() {
        let some = OomScores { least: 0 };
        assert_eq!([-997, 0, 1000].map(|it| some.grant(it)), [None, Some(0), Some(1000)]);
        assert!(some.describe().unwrap().contains("below 0"));
        let all = OomScores { least: LEAST };
        assert_eq!((all.grant(-997), all.describe()), (Some(-997), None));
    }

    #[test]
    fn what_is_permitted_can_be_done() {
        // A child may give itself what it has; this process stays as it is.
        let permitted = OomScores::permitted();
        let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let own: i32 = own.trim().parse().unwrap();
        assert_eq!(permitted.grant(own), Some(own));
        let script = format!("echo {LEAST} > /proc/self/oom_score_adj");
        let lowered = std::process::Command::new("/bin/sh")
            .args(["-c", &script])
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(lowered.success(), permitted.grant(LEAST).is_some());
    }
}
