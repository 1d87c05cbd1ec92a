//! Why namespaces could not be made, in words that say what to do: a pure function of what the
//! host's settings are.
//!
//! Only texts; the settings are read by `Facts::read`, and nothing is changed.

use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::wire::{Failure, FailureKind};

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Fork,
    User,
    Map,
    Mount,
    Propagation,
    Net,
    Open,
}

impl Step {
    fn text(self) -> &'static str {
        match self {
            Self::Fork => "start a process that makes namespaces",
            Self::User => "make a user namespace",
            Self::Map => "map the user into a user namespace",
            Self::Mount => "make a mount namespace",
            Self::Propagation => "keep mounts to the mount namespace",
            Self::Net => "make a network namespace",
            Self::Open => "hold the namespaces",
        }
    }

    /// The setting that limits how many of these a user may have.
    fn limit(self) -> Option<&'static str> {
        match self {
            Self::User | Self::Map => Some("user.max_user_namespaces"),
            Self::Mount | Self::Propagation => Some("user.max_mnt_namespaces"),
            Self::Net => Some("user.max_net_namespaces"),
            Self::Fork | Self::Open => None,
        }
    }
}

/// What the host says about namespaces.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// `kernel.apparmor_restrict_unprivileged_userns`: Ubuntu 23.10 and later.
    apparmor_restricts: bool,
    /// `kernel.unprivileged_userns_clone` is 0: older Debian, Arch's hardened kernel.
    clone_forbidden: bool,
    /// The limit that belongs to the step.
    limit: Option<u64>,
    /// The effective user id.
    uid: u32,
    /// This binary.
    executable: PathBuf,
}

impl Facts {
    fn read(step: Step) -> Self {
        let number = |name: &str| -> Option<u64> {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        Self {
            apparmor_restricts: number("kernel.apparmor_restrict_unprivileged_userns") == Some(1),
            clone_forbidden: number("kernel.unprivileged_userns_clone") == Some(0),
            limit: step.limit().and_then(number),
            uid: rustix::process::geteuid().as_raw(),
            executable: std::fs::read_link("/proc/self/exe").unwrap_or_default(),
        }
    }
}

/// The failure of a step, explained.
pub(crate) fn failure(step: Step, errno: i32) -> Failure {
    explain(step, errno, &Facts::read(step))
}

fn explain(step: Step, errno: i32, facts: &Facts) -> Failure {
    let error = Errno::from_raw_os_error(errno);
    let denied = matches!(error, Errno::PERM | Errno::ACCESS);
    let (kind, advice) = if error == Errno::NOSPC || (denied && facts.limit == Some(0)) {
        (FailureKind::LimitReached, limit(step, facts))
    } else if denied && facts.clone_forbidden {
        (FailureKind::NamespacesForbidden, CLONE_FORBIDDEN.to_owned())
    } else if denied && facts.apparmor_restricts {
        (FailureKind::NamespacesForbidden, apparmor(facts))
    } else if denied && facts.uid == 0 {
        (FailureKind::NamespacesForbidden, CONTAINER_ROOT.to_owned())
    } else if denied {
        (FailureKind::NamespacesForbidden, CONTAINER_USER.to_owned())
    } else if matches!(error, Errno::INVAL | Errno::NOSYS) {
        (FailureKind::NamespacesForbidden, KERNEL.to_owned())
    } else {
        (FailureKind::Other, String::new())
    };
    let cause = match errno {
        0 => "it ended unexpectedly".to_owned(),
        errno => std::io::Error::from_raw_os_error(errno).to_string(),
    };
    let separator = if advice.is_empty() { "" } else { "\n" };
    let message = format!("cannot {}: {cause}{separator}{advice}", step.text());
    Failure { kind, errno, message }
}

const CLONE_FORBIDDEN: &str = "\
this kernel lets only root make user namespaces (kernel.unprivileged_userns_clone is 0). Allow it:
  sudo sysctl -w kernel.unprivileged_userns_clone=1
and for good:
  echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/60-coracle.conf
or run coracle as root";

const CONTAINER_ROOT: &str = "\
root lacks CAP_SYS_ADMIN here, as inside an ordinary container. Start that container with \
--privileged, or run coracle outside of it";

const CONTAINER_USER: &str = "\
something forbids it that the kernel's settings do not show: inside a container it is the \
container's seccomp or AppArmor profile (docker run --security-opt seccomp=unconfined \
--security-opt apparmor=unconfined); elsewhere, ask the administrator or run coracle as root";

const KERNEL: &str = "\
this kernel was built without it: coracle needs user, mount, network, PID, IPC and UTS namespaces \
(CONFIG_NAMESPACES, CONFIG_USER_NS, CONFIG_NET_NS)";

fn limit(step: Step, facts: &Facts) -> String {
    let name = step.limit().unwrap_or("the number of namespaces");
    let now = facts.limit.map_or_else(String::new, |it| format!(" (now {it})"));
    format!(
        "the limit {name}{now} is reached. Raise it:\n  sudo sysctl -w {name}=15000\nand for \
         good:\n  echo {name}=15000 | sudo tee /etc/sysctl.d/60-coracle.conf"
    )
}

fn apparmor(facts: &Facts) -> String {
    let executable = facts.executable.display();
    format!(
        "AppArmor keeps user namespaces from programs that have no profile \
         (kernel.apparmor_restrict_unprivileged_userns is 1: Ubuntu 23.10 and later). Give this \
         program one:
  sudo tee /etc/apparmor.d/coracle <<'EOF'
abi <abi/4.0>,
include <tunables/global>
profile coracle {executable} flags=(unconfined) {{
  userns,
}}
EOF
  sudo apparmor_parser -r /etc/apparmor.d/coracle
or allow every program:
  sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0
or run coracle as root"
    )
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(step: Step, error: Errno, facts: Facts, expected: Expect) {
        let failure = explain(step, error.raw_os_error(), &facts);
        expected.assert_eq(&format!("{:?}: {}\n", failure.kind, failure.message));
    }

    fn user() -> Facts {
        let executable = "/home/ann/.cargo/bin/coracle".into();
        Facts { uid: 1000, executable, limit: Some(63_000), ..Facts::default() }
    }

    #[test]
    fn apparmor_restriction() {
        let facts = Facts { apparmor_restricts: true, ..user() };
        check(
            Step::Map,
            Errno::PERM,
            facts,
            expect![[r#"
            NamespacesForbidden: cannot map the user into a user namespace: Operation not permitted (os error 1)
            AppArmor keeps user namespaces from programs that have no profile (kernel.apparmor_restrict_unprivileged_userns is 1: Ubuntu 23.10 and later). Give this program one:
              sudo tee /etc/apparmor.d/coracle <<'EOF'
            abi <abi/4.0>,
            include <tunables/global>
            profile coracle /home/ann/.cargo/bin/coracle flags=(unconfined) {
              userns,
            }
            EOF
              sudo apparmor_parser -r /etc/apparmor.d/coracle
            or allow every program:
              sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0
            or run coracle as root
        "#]],
        );
    }

    #[test]
    fn setting_of_debian() {
        let facts = Facts { clone_forbidden: true, ..user() };
        check(
            Step::User,
            Errno::PERM,
            facts,
            expect![[r#"
            NamespacesForbidden: cannot make a user namespace: Operation not permitted (os error 1)
            this kernel lets only root make user namespaces (kernel.unprivileged_userns_clone is 0). Allow it:
              sudo sysctl -w kernel.unprivileged_userns_clone=1
            and for good:
              echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/60-coracle.conf
            or run coracle as root
        "#]],
        );
    }

    #[test]
    fn limit_reached() {
        check(
            Step::User,
            Errno::NOSPC,
            Facts { limit: Some(0), ..user() },
            expect![[r#"
            LimitReached: cannot make a user namespace: No space left on device (os error 28)
            the limit user.max_user_namespaces (now 0) is reached. Raise it:
              sudo sysctl -w user.max_user_namespaces=15000
            and for good:
              echo user.max_user_namespaces=15000 | sudo tee /etc/sysctl.d/60-coracle.conf
        "#]],
        );
        check(
            Step::Net,
            Errno::NOSPC,
            user(),
            expect![[r#"
            LimitReached: cannot make a network namespace: No space left on device (os error 28)
            the limit user.max_net_namespaces (now 63000) is reached. Raise it:
              sudo sysctl -w user.max_net_namespaces=15000
            and for good:
              echo user.max_net_namespaces=15000 | sudo tee /etc/sysctl.d/60-coracle.conf
        "#]],
        );
    }

    #[test]
    fn inside_a_container() {
        check(
            Step::User,
            Errno::PERM,
            user(),
            expect![[r#"
            NamespacesForbidden: cannot make a user namespace: Operation not permitted (os error 1)
            something forbids it that the kernel's settings do not show: inside a container it is the container's seccomp or AppArmor profile (docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined); elsewhere, ask the administrator or run coracle as root
        "#]],
        );
        check(
            Step::Mount,
            Errno::PERM,
            Facts { uid: 0, ..user() },
            expect![[r#"
            NamespacesForbidden: cannot make a mount namespace: Operation not permitted (os error 1)
            root lacks CAP_SYS_ADMIN here, as inside an ordinary container. Start that container with --privileged, or run coracle outside of it
        "#]],
        );
    }

    #[test]
    fn old_kernel_and_the_rest() {
        check(
            Step::Net,
            Errno::INVAL,
            user(),
            expect![[r#"
            NamespacesForbidden: cannot make a network namespace: Invalid argument (os error 22)
            this kernel was built without it: coracle needs user, mount, network, PID, IPC and UTS namespaces (CONFIG_NAMESPACES, CONFIG_USER_NS, CONFIG_NET_NS)
        "#]],
        );
        check(
            Step::Fork,
            Errno::NOMEM,
            user(),
            expect![[r#"
            Other: cannot start a process that makes namespaces: Cannot allocate memory (os error 12)
        "#]],
        );
    }
}
