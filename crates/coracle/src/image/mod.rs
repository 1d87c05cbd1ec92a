//! Images on the command line.

mod worker;

pub(crate) use worker::run as worker;
