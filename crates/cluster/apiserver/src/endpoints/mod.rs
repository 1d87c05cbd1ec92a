//! Everything that is not about objects: health, version, discovery, OpenAPI.

pub(crate) mod discovery;
mod document;
pub(crate) mod health;
pub(crate) mod openapi;
pub(crate) mod version;
