//! Scenarios: who arrives when, does what, and what must come of it. Durations, rates and
//! thresholds are written the same way in a file and on the command line.

mod error;
mod threshold;
pub mod units;
mod verdict;

pub use error::Error;
pub use threshold::Threshold;
pub use verdict::Verdict;
