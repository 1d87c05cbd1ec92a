//! The nftables tables of the cluster: that of Services, and in `policy` that of NetworkPolicies; what is in
//! them, and how they are read and changed.
//!
//! Services are elements of two maps; there is no chain per service. This knows nothing of Services and
//! EndpointSlices, which are turned into elements by `services`.

mod batch;
mod elements;
mod expressions;
mod layout;
pub(crate) mod policy;
mod table;

pub(crate) use elements::{Change, Contents, Frontend, SLOTS, Selection, Slots, Transport};
pub(crate) use layout::Layout;
pub(crate) use table::Table;
