//! Who asks.

use std::collections::BTreeMap;

/// Group whose members may do everything.
pub(crate) const MASTERS: &str = "system:masters";
/// Group of everybody who is somebody.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// Group of everybody who is nobody in particular.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Name of nobody in particular.
pub(crate) const ANONYMOUS: &str = "system:anonymous";

/// Who a request is from. The names are those of Kubernetes' `user.Info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Never empty but in a review that asks about a group alone.
    pub(crate) name: String,
    pub(crate) uid: String,
    /// All of them: [`AUTHENTICATED`] or [`UNAUTHENTICATED`] too.
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// Who presented nothing, or nothing that our CA has signed.
    pub(crate) fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Somebody who is known, by name and by the groups that their certificate names.
    pub(crate) fn user(name: String, mut groups: Vec<String>) -> Self {
        groups.push(AUTHENTICATED.to_owned());
        Self { name, groups, ..Self::default() }
    }

    /// The identity of callers in this process.
    pub(crate) fn in_process() -> Self {
        Self::user("system:apiserver".to_owned(), vec![MASTERS.to_owned()])
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|it| it == group)
    }
}

/// Why a bearer token is nobody's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// It was not given out by this server.
    #[error("invalid bearer token")]
    Unknown,
}

/// Whose bearer token this is. Requests and TokenReviews ask here. This server gives out no tokens
/// yet, so it knows none.
pub(crate) fn of_token(token: &str) -> Result<Identity, TokenError> {
    tracing::debug!(bytes = token.len(), "bearer token of nobody");
    Err(TokenError::Unknown)
}
