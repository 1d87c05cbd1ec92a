//! The vocabulary: names, selectors, quantities, links and annotations of Kubernetes objects.
//!
//! Parses and prints; does no IO and knows of no server.

pub mod annotation;
pub mod duration;
pub mod gateway;
pub mod link;
pub mod localhost;
pub mod names;
pub mod nodes;
pub mod quantity;
pub mod selector;
pub mod status;

/// The Kubernetes release whose API and node behaviour this is.
pub const KUBERNETES_VERSION: &str = "v1.36.0";

/// Domain of the cluster's DNS names, Kubernetes' own default.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
