//! The nftables tables of the cluster: that of Services, in `policy` that of NetworkPolicies, and that of
//! faults; what is in them, and how they are read and changed.
//!
//! Services are elements of maps; there is no chain per service. This knows nothing of Services and
//! EndpointSlices, which are turned into elements by `services`.

mod batch;
mod elements;
mod expressions;
mod faults;
mod layout;
mod picker;
pub(crate) mod policy;
mod table;

pub(crate) use elements::{Change, Clients, Contents, Entry, Frontend, Port, Slots, Transport};
pub(crate) use faults::{FaultTable, Faults, Marked};
pub(crate) use layout::{ANSWERED_HERE, Layout, TAKEN_HERE};
pub(crate) use picker::{ENDPOINTS_MAX, Picker};
pub(crate) use table::Table;
