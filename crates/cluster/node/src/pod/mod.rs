//! One pod: from what is seen to what is done.
//!
//! Read in this order: [`seen`] (facts), [`decide`] (what to do), [`status`] (what to tell),
//! `worker` (the loop), `stage` (what a pod's place is made of).

pub(crate) mod seen;

pub(crate) mod crash_loop;
pub(crate) mod decide;
pub(crate) mod qos;
pub(crate) mod status;

pub(crate) mod worker;

mod acts;
mod admission;
pub(crate) mod facts;
mod imaging;
mod last_words;
mod launch;
pub(crate) mod privileges;
mod probing;
mod stop_signal;
mod tries;
mod unsupported;

pub(crate) mod events;
mod report;

pub(crate) mod shim;
pub(crate) mod stage;
mod stages;

#[cfg(test)]
mod model;
