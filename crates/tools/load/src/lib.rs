//! A load generator that does not lie: requests are meant to start when a schedule says so, and
//! latency counts from then, however late the answer or the generator itself was.
//!
//! In the order of a run: a [`plan`] says what is to be sent and when; an engine sends it through
//! drivers; [`exchange`] is what went over the wire; [`results`] is what was measured, and whether
//! it may be believed. Nothing here knows of Kubernetes.

pub mod cli;
mod drivers;
pub mod engine;
pub mod exchange;
pub mod judge;
pub mod plan;
pub mod report;
pub mod results;
pub mod scenario;
pub mod schedule;
