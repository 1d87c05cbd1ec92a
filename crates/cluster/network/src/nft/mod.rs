//! The one nftables table of the cluster: what is in it, and how it is read and changed.
//!
//! Services are elements of two maps; there is no chain per service. Knows nothing of Services and
//! EndpointSlices, which are turned into elements by `services`.

mod batch;
mod elements;
mod expressions;
mod layout;
mod table;

pub(crate) use elements::{Change, Contents, Frontend, SLOTS, Selection, Slots, Transport};
pub(crate) use layout::Layout;
pub(crate) use table::Table;
