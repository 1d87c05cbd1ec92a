//! A TCP proxy that misbehaves on request, and a checker of what a client was promised.
//!
//! A [`Proxy`] has any number of routes, each from a listening address to a server; every direction
//! of every connection goes through a line that delays, slows, cuts, swallows or holds what it
//! carries, as the route's faults say. Faults come from the configuration, from a schedule, from a
//! [`Handle`] in the same process, or over HTTP in Toxiproxy's words. It knows nothing of what the
//! bytes mean.

mod alarm;
mod connection;
mod control;
mod effect;
pub mod history;
mod line;
mod proxy;
mod pump;
mod resolve;
mod route;
mod schedule;
mod statistics;
pub mod text;

pub use connection::How;
pub use effect::{
    DELAY_MAX, Direction, Distribution, Effect, Fault, Invalid, NAME_BYTES_MAX, Trigger,
};
pub use proxy::{BuildError, Config, FAULTS_MAX, Handle, Proxy, ROUTES_MAX, RouteError, build};
pub use route::{Mode, Open, RouteConfig};
pub use schedule::{Change, ENTRIES_MAX, Entry};
pub use statistics::{Flow, Statistics};
