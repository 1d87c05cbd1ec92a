//! Scenarios: who arrives when, does what, and what must come of it. Durations, rates and
//! thresholds are written the same way in a file and on the command line.
//!
//! In the order of a scenario's life: `document` is its YAML with lines; `arrival`, `flow`,
//! `request` and `examine` compile it into a `program`, or say what is wrong and where; a `user`
//! walks through it. What can be found wrong is found before the first request.

mod answer;
pub(crate) mod arrival;
mod cookies;
mod data;
mod document;
mod error;
mod examine;
mod file;
mod flow;
mod json_path;
mod program;
mod request;
mod single;
pub mod target;
mod template;
mod threshold;
pub mod units;
mod user;
mod verdict;

#[cfg(test)]
mod tests;

pub use error::Error;
pub(crate) use file::Files;
pub use file::{Overrides, Scenario, read, read_from};
pub use single::single;
pub use target::Target;
pub use threshold::Threshold;
