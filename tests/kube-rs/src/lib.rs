//! kube-client's and kube's own tests that need a cluster, taken out of their sources by `build.rs` and
//! compiled against the kube that this workspace uses. They are ignored unless somebody asks for them: `cargo xtask test
//! api` does, for a cluster of ours.

/// What the tests find in their own crate.
#[cfg(test)]
pub use kube::{Api, Client, Config, Error, Resource, ResourceExt, client, core, discovery, error};

/// Its `api`, with what they name and do not use when connections are not upgraded.
#[cfg(test)]
pub mod api {
    pub use kube::api::*;

    /// Parameters of `attach`.
    #[derive(Debug)]
    pub enum AttachParams {}

    /// What one is attached to.
    #[derive(Debug)]
    pub enum AttachedProcess {}
}

#[cfg(test)]
mod of_kube_client {
    #![expect(unused, reason = "some of it is not built")]
    #![expect(
        clippy::pedantic,
        clippy::str_to_string,
        let_underscore_drop,
        reason = "it is not ours"
    )]

    include!(concat!(env!("OUT_DIR"), "/kube_client.rs"));
}

#[cfg(test)]
mod of_kube {
    #![expect(
        clippy::allow_attributes_without_reason,
        clippy::str_to_string,
        reason = "it is not ours"
    )]

    include!(concat!(env!("OUT_DIR"), "/kube.rs"));
}
