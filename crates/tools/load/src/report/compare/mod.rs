//! Two runs beside each other: what changed, and whether the change is more than noise.
//!
//! **Method.** The seconds of each run are cut into at most [`BLOCKS_MAX`] blocks of consecutive
//! seconds. Blocks are drawn with replacement, as many as there are, and every figure is computed
//! anew from what was drawn, [`RESAMPLES`] times for both runs (a block bootstrap: seconds, not
//! requests, because requests that wait in the same queue are not independent). The middle 99 % of the
//! ratios is the interval; a change is called one only if the interval leaves out "no change". This
//! knows the noise within the two runs and nothing of what differs from run to run: who
//! wants to be sure repeats both.
//!
//! Runs whose percentiles are withheld are not compared, nor an open with a closed loop.

pub mod cli;
mod decide;
mod print;
mod resample;

pub use decide::{Change, Comparison, Refusal, Row, Run, compare};
pub(crate) use print::{HEADER, NAMES, cells, describe, method};
pub use print::{json, text};
pub use resample::{BLOCKS_MAX, BLOCKS_MIN, RESAMPLES};
