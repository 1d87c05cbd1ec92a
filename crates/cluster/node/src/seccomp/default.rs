//! The profile `RuntimeDefault`: that of Docker and containerd. What it allows to everybody by name is in
//! `names`; here is what depends on arguments and capabilities.

use super::{
    compile::{ALLOW, Comparison, Condition, ERRNO, Rule, Rules},
    names,
};

/// What fails otherwise, with EPERM.
const REFUSED: u32 = ERRNO | libc::EPERM.cast_unsigned();

/// `AF_VSOCK`, which reaches the machine that a virtual machine runs on.
const VSOCK: u64 = 40;

/// Flags of clone(2) that make namespaces: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACES: u64 = 0x7E02_0000;

/// What personality(2) may be asked for: the present one, and Linux with or without a short address space
/// or an old version number.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

/// Calls that come with a capability.
const WITH: [(&str, &[&str]); 14] = [
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        ADMIN,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount2",
            "unshare",
        ],
    ),
    ("SYS_BOOT", &["reboot"]),
    ("SYS_CHROOT", &["chroot"]),
    ("SYS_MODULE", &["delete_module", "init_module", "finit_module"]),
    ("SYS_PACCT", &["acct"]),
    ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("SYS_RAWIO", &["iopl", "ioperm"]),
    ("SYS_TIME", &["settimeofday", "clock_settime"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
    ("SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("SYSLOG", &["syslog"]),
    ("BPF", &["bpf"]),
    ("PERFMON", &["perf_event_open"]),
];

/// The capability that nearly everything comes with.
const ADMIN: &str = "SYS_ADMIN";

/// The rules for a process with these capabilities; `ALL` is every one.
pub(super) fn rules(capabilities: &[String]) -> Rules {
    let short = |it: &String| it.strip_prefix("CAP_").unwrap_or(it).to_owned();
    let owned: Vec<String> = capabilities.iter().map(short).collect();
    let has = |name: &str| owned.iter().any(|it| it == name || it == "ALL");
    let mut rules = Rules { default: REFUSED, calls: std::collections::BTreeMap::new() };
    let always = |action| vec![Rule { action, conditions: Vec::new() }];
    rules.calls.extend(names::allowed().map(|it| (it, always(ALLOW))));
    let by_arguments = [
        ("socket", vec![when(Comparison::NotEqual, VSOCK)]),
        ("clone", vec![when(Comparison::Masked(NAMESPACES), 0)]),
        ("personality", PERSONALITIES.map(|it| when(Comparison::Equal, it)).to_vec()),
    ];
    for (name, alternatives) in by_arguments {
        rules.calls.extend(names::number(name).map(|it| (it, alternatives)));
    }
    // Programs try the older call when they are told that there is no such one; its flags cannot be seen.
    let no_such_call = ERRNO | libc::ENOSYS.cast_unsigned();
    rules.calls.extend(names::number("clone3").map(|it| (it, always(no_such_call))));
    let granted = WITH.iter().filter(|(capability, _)| has(capability)).flat_map(|it| it.1);
    rules.calls.extend(granted.filter_map(|it| names::number(it)).map(|it| (it, always(ALLOW))));
    rules
}

/// Allows a call by its first argument.
fn when(comparison: Comparison, value: u64) -> Rule {
    Rule { action: ALLOW, conditions: vec![Condition { index: 0, comparison, value }] }
}

#[cfg(test)]
mod tests {
    use super::{
        super::compile::{compile, tests::call},
        *,
    };

    const NO_SUCH_CALL: u32 = ERRNO | libc::ENOSYS.cast_unsigned();

    #[track_caller]
    fn check(capabilities: &[&str], name: &str, arguments: &[u64], expected: u32) {
        let capabilities: Vec<String> = capabilities.iter().map(|it| (*it).to_owned()).collect();
        let program = compile(&rules(&capabilities)).unwrap();
        assert_eq!(call(&program, names::number(name).unwrap(), arguments), expected, "{name}");
    }

    #[test]
    fn ordinary_programs_are_not_hindered() {
        for name in
            ["read", "openat", "execve", "futex", "epoll_wait", "ptrace", "landlock_add_rule"]
        {
            check(&[], name, &[], ALLOW);
        }
        check(&[], "socket", &[2, 1, 0], ALLOW);
        check(&[], "clone", &[0x0100_0011], ALLOW);
        check(&[], "personality", &[0xffff_ffff], ALLOW);
    }

    #[test]
    fn what_reaches_out_is_refused() {
        for name in ["mount", "unshare", "setns", "bpf", "keyctl", "io_uring_setup", "kexec_load"] {
            check(&[], name, &[], REFUSED);
        }
        check(&[], "socket", &[VSOCK, 1, 0], REFUSED);
        check(&[], "clone", &[0x1000_0000], REFUSED);
        check(&[], "clone", &[0x1000_0011], REFUSED);
        check(&[], "clone3", &[], NO_SUCH_CALL);
        check(&[], "personality", &[0x0040_0000], REFUSED);
    }

    #[test]
    fn capabilities_bring_calls() {
        check(&["CHOWN", "SYS_CHROOT"], "chroot", &[], ALLOW);
        check(&["CHOWN"], "chroot", &[], REFUSED);
        check(&["CAP_SYS_ADMIN"], "mount", &[], ALLOW);
        check(&["CAP_SYS_ADMIN"], "clone", &[0x1000_0000], ALLOW);
        check(&["SYS_ADMIN"], "clone3", &[], ALLOW);
        check(&["ALL"], "reboot", &[], ALLOW);
        check(&["ALL"], "kexec_load", &[], REFUSED);
    }

    #[test]
    fn every_call_is_known() {
        for name in WITH.iter().flat_map(|it| it.1) {
            let here = cfg!(target_arch = "x86_64") || !["iopl", "ioperm"].contains(name);
            assert_eq!(names::number(name).is_some(), here, "{name}");
        }
    }
}
