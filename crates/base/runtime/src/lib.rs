//! What every component of the process is made of: tasks and their end, wall-clock time, back-off.
//!
//! Knows nothing of Kubernetes.

mod backoff;
mod clock;
mod tasks;

pub use backoff::Backoff;
pub use clock::Clock;
pub use tasks::{OnExit, Tasks};
