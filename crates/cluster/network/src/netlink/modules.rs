//! Parts of the kernel that it loads when they are asked for, and what it answers if it has them not: an
//! error that is about something else in anybody's eyes.

use std::{fmt, io};

use rustix::io::Errno;

/// Parts of the kernel that an action needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modules {
    /// As `modprobe` knows them.
    names: &'static [&'static str],
    /// What the kernel answers without one of them.
    answers: &'static [Errno],
}

/// For any message to netfilter.
pub(crate) const NETFILTER: Modules =
    Modules { names: &["nfnetlink"], answers: &[Errno::PROTONOSUPPORT] };

/// For any message of nftables.
pub(crate) const NFTABLES: Modules =
    Modules { names: &["nf_tables"], answers: &[Errno::INVAL, Errno::OPNOTSUPP] };

/// For the chains and rules of the table.
pub(crate) const RULES: Modules = Modules {
    names: &["nft_chain_nat", "nft_ct", "nft_hash", "nft_nat", "nft_numgen", "nft_reject_ipv4"],
    answers: &[Errno::NOENT, Errno::OPNOTSUPP],
};

/// For the tracked connections.
pub(crate) const CONNTRACK: Modules =
    Modules { names: &["nf_conntrack_netlink"], answers: &[Errno::INVAL, Errno::OPNOTSUPP] };

/// For the links of pods.
pub(crate) const VETH: Modules = Modules { names: &["veth"], answers: &[Errno::OPNOTSUPP] };

impl Modules {
    /// These, if that is what the kernel has answered without them.
    pub(super) fn missing(self, error: &io::Error) -> Option<Self> {
        let answer = error.raw_os_error().map(Errno::from_raw_os_error);
        self.answers.iter().any(|it| Some(*it) == answer).then_some(self)
    }
}

impl fmt::Display for Modules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.join(" ");
        match self.names {
            [_] => write!(
                f,
                "the kernel has no module `{names}`: load it as root (`modprobe {names}`), or boot a kernel \
                 that has it"
            ),
            _ => write!(
                f,
                "the kernel lacks a module: load them as root (`modprobe -a {names}`), or boot a kernel that \
                 has them"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::netlink::Doing as _;

    #[track_caller]
    fn check(modules: Modules, answer: Errno, expected: Expect) {
        let result: Result<(), io::Error> = Err(answer.into());
        let error = result.doing_with(modules, || "make the thing `a`".to_owned()).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap();
        expected.assert_eq(&format!("{error}; because: {cause}"));
    }

    #[test]
    fn missing_modules_are_named() {
        check(
            NETFILTER,
            Errno::PROTONOSUPPORT,
            expect![
                "cannot make the thing `a`: the kernel has no module `nfnetlink`: load it as root (`modprobe nfnetlink`), or boot a kernel that has it; because: Protocol not supported (os error 93)"
            ],
        );
        check(
            NFTABLES,
            Errno::INVAL,
            expect![
                "cannot make the thing `a`: the kernel has no module `nf_tables`: load it as root (`modprobe nf_tables`), or boot a kernel that has it; because: Invalid argument (os error 22)"
            ],
        );
        check(
            RULES,
            Errno::NOENT,
            expect![
                "cannot make the thing `a`: the kernel lacks a module: load them as root (`modprobe -a nft_chain_nat nft_ct nft_hash nft_nat nft_numgen nft_reject_ipv4`), or boot a kernel that has them; because: No such file or directory (os error 2)"
            ],
        );
        check(
            VETH,
            Errno::OPNOTSUPP,
            expect![
                "cannot make the thing `a`: the kernel has no module `veth`: load it as root (`modprobe veth`), or boot a kernel that has it; because: Operation not supported (os error 95)"
            ],
        );
    }

    #[test]
    fn another_error_is_what_it_is() {
        check(
            NFTABLES,
            Errno::PERM,
            expect!["cannot make the thing `a`; because: Operation not permitted (os error 1)"],
        );
    }
}
