//! Pods in the network: each has a veth pair of its own, an address, and no bridge between.
//!
//! On a bridge, answers between two pods would not pass the hooks that translate addresses back
//! unless br_netfilter is loaded, which an ordinary user cannot do. Routed links always work.

mod attach;
mod ends;
mod pool;

pub use attach::AttachError;
pub(crate) use attach::{Pods, wait_until_running};
pub(crate) use ends::{End, ends};
