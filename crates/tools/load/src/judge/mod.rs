//! A judge for load generators: a server that misbehaves by a known law and keeps a record, and the
//! arithmetic that says what an honest client of it must have seen.
//!
//! In the order of use: a [`law`] says when each arrival is answered; the [`server`] obeys it and
//! writes a [`record`]; from the record [`expect`] computes what an open-loop client has seen, and
//! [`grade`] compares that with what a generator reports. [`ks`] says whether arrivals are a Poisson
//! process. Shares no code with the engine that it judges.

pub mod cli;
pub mod expect;
pub mod grade;
pub mod ks;
pub mod law;
pub mod record;
pub mod server;
