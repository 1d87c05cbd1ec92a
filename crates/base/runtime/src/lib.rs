//! What every component of the process is made of: tasks and their end, wall-clock time, back-off, host names;
//! and what several of them would write alike.
//!
//! Knows nothing of Kubernetes.

mod backoff;
mod clock;
mod files;
mod names;
mod sys;
mod tasks;
mod tls;

pub use backoff::Backoff;
pub use clock::Clock;
pub use files::{Room, Taken, raise_files, reserve_files};
pub use names::{Names, NamesError};
pub use sys::watch_descriptor;
pub use tasks::{OnExit, Tasks};
pub use tls::AnyCertificate;
