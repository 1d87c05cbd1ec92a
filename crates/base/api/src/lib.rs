//! The vocabulary: names, selectors, quantities, links and annotations of Kubernetes objects.
//!
//! Parses and prints; does no IO and knows of no server.

pub mod annotation;
pub mod link;
pub mod names;
pub mod quantity;
pub mod selector;
pub mod status;
