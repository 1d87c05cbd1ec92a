//! The Kubernetes API over HTTP: routing, defaulting, validation, patch, watch, discovery.
//!
//! Only this crate opens the store. It does not know what a controller is: nothing here reacts to
//! an object, it only keeps them.

pub mod kinds;
pub mod schema;
