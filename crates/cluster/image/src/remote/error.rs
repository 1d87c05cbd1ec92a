//! Why an image did not come from a registry, or did not get there.

use std::{fmt, io, time::Duration};

use crate::{ImageError, store};

/// Why an image was not pulled or pushed. The text names the image, the registry and what to do.
#[derive(Debug)]
pub struct Error {
    /// The image, in full.
    pub image: String,
    /// What happened.
    pub kind: Box<Kind>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.image, self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

/// What happened.
#[derive(Debug, thiserror::Error)]
pub enum Kind {
    /// There is no such image. A registry may also say so of one that this user may not see.
    #[error(
        "{registry} has no such image: look for a misspelt name or tag, or for credentials that are missing"
    )]
    NotFound {
        /// Who said so.
        registry: String,
    },
    /// The registry wants to know who asks, or does not believe it.
    #[error(
        "{registry} refuses {who}{hint}: log in (`docker login`, `podman login`), or give the pod a pull secret"
    )]
    Unauthorized {
        /// Who said so.
        registry: String,
        /// As whom was asked.
        who: String,
        /// What else is known of credentials.
        hint: String,
    },
    /// This user may not.
    #[error("{registry} does not allow it to {who}: {message}")]
    Denied {
        /// Who said so.
        registry: String,
        /// As whom was asked.
        who: String,
        /// What the registry says.
        message: String,
    },
    /// Too many requests, and it did not get better.
    #[error("{registry} wants no more requests for now: {message}; wait, log in, or use a mirror")]
    TooManyRequests {
        /// Who said so.
        registry: String,
        /// What the registry says.
        message: String,
    },
    /// Nothing was heard.
    #[error(
        "{registry} cannot be reached: {cause}; look for a misspelt host, the network, a proxy"
    )]
    Unreachable {
        /// Who.
        registry: String,
        /// Why.
        cause: String,
    },
    /// Its certificate is not accepted.
    #[error(
        "the certificate of {registry} is not trusted: {cause}; if it is right, put its authority into \
         /etc/containers/certs.d/{registry}/ca.crt or ~/.config/containers/certs.d/{registry}/ca.crt"
    )]
    Untrusted {
        /// Who.
        registry: String,
        /// Why.
        cause: String,
    },
    /// It began to answer and stopped.
    #[error(
        "{registry} sent nothing for {after:?}, {attempts} times in a row; what has come is kept for the next try"
    )]
    Stalled {
        /// Who.
        registry: String,
        /// How long was waited.
        after: Duration,
        /// How often.
        attempts: u32,
    },
    /// It broke off, again and again.
    #[error(
        "{registry} broke off {attempts} times in a row: {cause}; what has come is kept for the next try"
    )]
    BrokenOff {
        /// Who.
        registry: String,
        /// How it broke off.
        cause: String,
        /// How often.
        attempts: u32,
    },
    /// Content is not what was asked for.
    #[error(
        "{registry} sent something else than was asked for: it, or somebody in between, lies or is broken: {cause}"
    )]
    Lied {
        /// Who.
        registry: String,
        /// What it was.
        cause: String,
    },
    /// It leads to a place where it is not followed.
    #[error("{registry} redirects to `{to}`, which is not followed: {reason}")]
    Redirected {
        /// Who.
        registry: String,
        /// Where.
        to: String,
        /// Why not.
        reason: &'static str,
    },
    /// It answered with something else.
    #[error("{registry} answered {status} to {request}: {message}")]
    Refused {
        /// Who.
        registry: String,
        /// What was asked.
        request: String,
        /// The HTTP status.
        status: u16,
        /// What the registry says.
        message: String,
    },
    /// The configuration forbids it.
    #[error("registries.conf blocks it")]
    Blocked,
    /// It is there, and cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Something of this machine failed.
    #[error("{what}")]
    Local {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Kind {
    pub(crate) fn of(self, image: &impl fmt::Display) -> Error {
        // An error of an image may well be one of the store.
        let kind = match self {
            Self::Image(ImageError::Store(error)) => Self::Store(error),
            other => other,
        };
        Error { image: image.to_string(), kind: Box::new(kind) }
    }

    /// Whether another credential may change it.
    pub(crate) const fn is_about_credentials(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Denied { .. } | Self::NotFound { .. })
    }

    /// Whether another registry would not change it.
    pub(crate) const fn is_ours(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Local { .. } | Self::Blocked)
    }
}
