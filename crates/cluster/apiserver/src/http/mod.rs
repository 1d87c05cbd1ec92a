//! HTTP without Kubernetes objects: paths, queries, media types, bodies, responses.

pub(crate) mod body;
pub(crate) mod compress;
pub(crate) mod content;
pub(crate) mod duration;
pub(crate) mod outgoing;
pub(crate) mod path;
pub(crate) mod query;
pub(crate) mod respond;
mod warnings;
