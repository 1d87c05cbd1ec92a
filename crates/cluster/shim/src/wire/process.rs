//! What a client says of a process in a container.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What runs in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// The program and its arguments. A program without `/` is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// `NAME=value`, exactly as the process gets them.
    pub env: Vec<String>,
    /// Working directory in the container; `None` is `/`. One that an image lacks is made.
    pub cwd: Option<PathBuf>,
    /// The user it runs as. `None` is the invoking user; for an image, user and group 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Limits to set; the others stay as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    /// File mode creation mask; `None` is 022.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Whether programs it runs can gain no privileges (`allowPrivilegeEscalation: false`).
    #[serde(default)]
    pub no_new_privs: bool,
    /// What it and its programs may have at most, and has if it is root: names such as `CHOWN` or
    /// `CAP_CHOWN`, or `ALL`. `None` is the default set of container runtimes. Without root, and
    /// without a user namespace of the container's own, there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// A file of the cluster with a seccomp program: an array of `struct sock_filter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<PathBuf>,
    /// An AppArmor profile that is loaded, or `unconfined`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// How soon the kernel ends it for want of memory, -1000 to 1000. A lower value than the shim's
    /// needs `CAP_SYS_RESOURCE`; without, it is the shim's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
}

/// A user, by numbers or in the image's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum User {
    /// These numbers, whatever the container's `/etc/passwd` says.
    Ids {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary groups.
        groups: Vec<u32>,
    },
    /// A user of the container's `/etc/passwd` and `/etc/group`.
    Named {
        /// `USER` or `USER:GROUP`, each a name or a number; empty is user 0. The group of a user
        /// without one is that of `/etc/passwd`, 0 for a number that is not there.
        text: String,
        /// Another group (`runAsGroup`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gid: Option<u32>,
        /// Further supplementary groups.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<u32>,
        /// Whether the user has no groups by `/etc/group` (`supplementalGroupsPolicy: Strict`).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        strict: bool,
    },
}

/// A resource limit, see getrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// Which.
    pub resource: RlimitResource,
    /// Soft limit; `None` is no limit.
    pub soft: Option<u64>,
    /// Hard limit; `None` is no limit.
    pub hard: Option<u64>,
}

/// Which resource is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names of getrlimit(2)")]
pub enum RlimitResource {
    Core,
    Cpu,
    Data,
    Fsize,
    Memlock,
    Nofile,
    Nproc,
    Stack,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster process may talk to a shim of another version.
    #[test]
    fn old_and_new_messages_are_understood() {
        let old = r#"{"argv":["a"],"env":[],"cwd":null,"no_new_privs":false}"#;
        let read: ProcessSpec = serde_json::from_str(old).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
        let ids: User = serde_json::from_str(r#"{"uid":1,"gid":2,"groups":[3]}"#).unwrap();
        assert_eq!(ids, User::Ids { uid: 1, gid: 2, groups: vec![3] });
        let named: User = serde_json::from_str(r#"{"text":"web"}"#).unwrap();
        let (gid, groups) = (None, Vec::new());
        assert_eq!(named, User::Named { text: "web".to_owned(), gid, groups, strict: false });
    }
}
