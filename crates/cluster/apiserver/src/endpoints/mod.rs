//! Everything that is not about objects: health, version, discovery, OpenAPI, snapshots,
//! metrics.

pub(crate) mod discovery;
mod document;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod snapshot;
pub(crate) mod version;
