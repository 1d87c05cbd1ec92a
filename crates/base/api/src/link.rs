//! Links from images to local source, as they are kept in the cluster.
//!
//! A link says: a container whose image is `image` does not run that image here but the program
//! built from a folder on this machine. Links live in one ConfigMap so that every part, and the
//! user with kubectl, sees the same ones.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Namespace of the ConfigMap that holds the links.
pub const NAMESPACE: &str = "kube-system";
/// Name of the ConfigMap that holds the links: one key a link, its value a [`Link`] as JSON.
pub const CONFIG_MAP: &str = "coracle-links";

/// One link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Image repository, without tag or digest, that this link stands in for.
    pub image: String,
    /// Absolute folder of the source: the working directory unless the container names one.
    pub directory: PathBuf,
    /// What takes the place of the image's entry point. A relative program path counts from
    /// `directory`. Empty: the container's own `command` says what to run.
    #[serde(default)]
    pub run: Vec<String>,
}

impl Link {
    /// Whether a container with this `image` runs the linked source.
    #[must_use]
    pub fn applies_to(&self, image: &str) -> bool {
        repository(image) == self.image
    }
}

/// The image reference without tag and digest: `registry:5000/team/app:v1` gives
/// `registry:5000/team/app`.
#[must_use]
pub fn repository(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_drops_tag_and_digest() {
        for (image, expected) in [
            ("sensor", "sensor"),
            ("sensor:latest", "sensor"),
            ("localhost:5000/sensor", "localhost:5000/sensor"),
            ("localhost:5000/a/sensor:v1", "localhost:5000/a/sensor"),
            ("sensor:v1@sha256:00", "sensor"),
        ] {
            assert_eq!(repository(image), expected);
        }
    }
}
