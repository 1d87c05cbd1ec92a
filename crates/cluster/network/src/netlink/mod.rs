//! Talking to the kernel: sockets, the byte format, and the messages of rtnetlink and conntrack.
//!
//! Blocking on purpose: the kernel works through a request inside the `send` call and the answer
//! lies ready when it returns. Async callers use `spawn_blocking`.

pub(crate) mod conntrack;
pub(crate) mod modules;
pub(crate) mod route;
mod socket;
pub(crate) mod wire;

pub(crate) use socket::{Family, Reply, Socket};

use std::io;

use self::modules::Modules;

/// The kernel refused something, or could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}{}", missing.as_ref().map(|it| format!(": {it}")).unwrap_or_default())]
pub struct Error {
    action: String,
    /// What of the kernel is probably missing.
    missing: Option<Modules>,
    #[source]
    source: io::Error,
}

impl Error {
    pub(crate) fn new(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { action: action.into(), missing: None, source: source.into() }
    }
}

/// What [`Error::new`] is mostly used for.
pub(crate) trait Doing<T> {
    /// Says what was being done when the error came.
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, Error>;

    /// The same of an action that needs these.
    fn doing_with(self, modules: Modules, action: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::new(action(), source))
    }

    fn doing_with(self, modules: Modules, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.doing(action).map_err(|it| Error { missing: modules.missing(&it.source), ..it })
    }
}
