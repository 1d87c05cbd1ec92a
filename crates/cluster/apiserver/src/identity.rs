//! Who asks, and whether they may.

/// Group that may do everything, as in Kubernetes.
const MASTERS: &str = "system:masters";

/// Who a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Presented nothing, or nothing that our CA has signed.
    Anonymous,
    /// The common name and the organisations of a client certificate.
    User { name: String, groups: Vec<String> },
}

impl Identity {
    /// The identity of callers in this process.
    pub(crate) fn in_process() -> Self {
        Self::User { name: "system:apiserver".to_owned(), groups: vec![MASTERS.to_owned()] }
    }

    /// Whether everything is allowed. Roles are not implemented: who is not in `system:masters`
    /// may do nothing.
    pub(crate) fn may_do_everything(&self) -> bool {
        match self {
            Self::Anonymous => false,
            Self::User { groups, .. } => groups.iter().any(|it| it == MASTERS),
        }
    }

    /// The user name in messages.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Anonymous => "system:anonymous",
            Self::User { name, .. } => name,
        }
    }
}
