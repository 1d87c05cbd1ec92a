//! The documents of images as they are in registries and archives: indexes, manifests and
//! configurations of OCI's image specification, and Docker's schema 2, which has the same fields.
//!
//! What is not needed here is not read, and never written back: a document's digest is that of its
//! bytes, so what was pulled is passed on as it came. These types make documents anew only for images
//! that are built here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Largest manifest, index or configuration. Registries take manifests up to 4 MiB; larger ones are
/// not of this world.
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// Most layers of an image: overlayfs stacks no more (`OVL_MAX_STACK`).
pub const LAYERS_MAX: usize = 500;

/// Most manifests of an index: several times what any image is built for.
pub const MANIFESTS_MAX: usize = 1000;

/// The annotation by which an entry of an OCI layout's `index.json` has a name.
pub const ANNOTATION_NAME: &str = "org.opencontainers.image.ref.name";

/// containerd's annotation of the same place with the whole name.
pub const ANNOTATION_FULL_NAME: &str = "io.containerd.image.name";

/// Names of media types.
pub mod media {
    /// A manifest of OCI.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An index of OCI.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// A configuration of OCI.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A layer: a tar as it is.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A layer with gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer with Zstandard.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// A manifest of Docker, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// A manifest list of Docker.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A configuration of Docker.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// A layer of Docker: a tar as it is.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// A layer of Docker with gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// A layer of Docker with Zstandard.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Schema 1, signed: no longer pulled by anybody.
    pub const DOCKER_SCHEMA_1_SIGNED: &str =
        "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// Schema 1.
    pub const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    /// What an artifact has that has no configuration.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
}

/// How a layer is compressed, as its media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// The compression of a layer's media type; nothing if it is not a layer that may be unpacked:
    /// foreign ones (which registries do not have), encrypted ones, things that are not layers.
    #[must_use]
    pub fn of_layer(media_type: &str) -> Option<Self> {
        match media_type {
            media::LAYER | media::DOCKER_LAYER => Some(Self::None),
            media::LAYER_GZIP | media::DOCKER_LAYER_GZIP => Some(Self::Gzip),
            media::LAYER_ZSTD | media::DOCKER_LAYER_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What the first bytes of a file say.
    #[must_use]
    pub fn of_bytes(first: &[u8]) -> Self {
        if first.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::None
        }
    }

    /// OCI's media type of a layer that is compressed so.
    #[must_use]
    pub const fn layer_media_type(self) -> &'static str {
        match self {
            Self::None => media::LAYER,
            Self::Gzip => media::LAYER_GZIP,
            Self::Zstd => media::LAYER_ZSTD,
        }
    }
}

/// Points at content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is. Docker's archives may leave it out.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Other places to get it from. Never followed: they make a layer foreign.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// What an image in an index is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// What kind of artifact it is, of entries in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// Of these bytes.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// With nothing more.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            platform: None,
            annotations: BTreeMap::new(),
            artifact_type: None,
        }
    }
}

/// What machine an image is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// As Go names it: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// As Go names it: `linux`.
    #[serde(default)]
    pub os: String,
    /// Of the architecture: `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The machine that this program was compiled for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// Whether what was made for `self` runs on `host`. The variant says nothing on the architectures
    /// that we run on: all of arm64 is v8, and amd64's levels are not told apart by the kernel.
    #[must_use]
    pub fn runs_on(&self, host: &Self) -> bool {
        self.os == host.os && self.architecture == host.architecture
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|it| write!(f, "/{it}"))
    }
}

/// A manifest: one image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What it is; OCI allows to leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What kind of artifact it is, if it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// What it is about, of artifacts that belong to another manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

/// An index: images by platform, or the names of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What it is; OCI allows to leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests, or indexes again.
    #[serde(default, deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An index of OCI of these manifests.
    #[must_use]
    pub fn of(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media::INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// The configuration of an image: what its layers are, and how it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made, as RFC 3339 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// As Go names it; empty in some images that hold no program.
    #[serde(default)]
    pub architecture: String,
    /// As Go names it.
    #[serde(default)]
    pub os: String,
    /// Of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How it runs.
    #[serde(default, deserialize_with = "or_default")]
    pub config: Config,
    /// What its layers are, unpacked.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How each layer came to be; more entries than layers, as some steps make none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub history: Vec<History>,
}

/// How an image runs. Names as in the documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// `USER`, `USER:GROUP`, by name or number; empty is root.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub user: String,
    /// `80/tcp`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// What is run.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// Its arguments, or what is run if there is no entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// Paths that want a volume.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, Empty>,
    /// Where it begins; empty is `/`.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub working_dir: String,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// How it is asked to stop: a name (`SIGQUIT`) or a number; empty is SIGTERM.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub stop_signal: String,
    /// How its health is asked for. Docker's; Kubernetes ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What runs commands that are text. Docker's.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub shell: Vec<String>,
    /// Steps for whoever builds upon it. Docker's.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub on_build: Vec<String>,
}

/// An object without fields, as the values of Go's sets are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// How the health of a container is asked for; durations in nanoseconds, 0 is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`, or `CMD` and words, or `CMD-SHELL` and a text.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub test: Vec<String>,
    /// Between two.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Of one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// In which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two while starting.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row until it is unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers, unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the layers' tars without compression, lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// How a layer came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, as RFC 3339 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The step of the Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Go writes empty lists and maps as `null`.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_writes_is_read() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Hostname":"","User":"",
            "ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin"],"Cmd":["sh"],"Entrypoint":null,
            "Volumes":null,"Labels":null,"OnBuild":null},"rootfs":{"type":"layers","diff_ids":[
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
            "history":[{"created":"2026-01-01T00:00:00Z","created_by":"ADD","empty_layer":true}]}"#;
        let read: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(read.config.cmd, ["sh"]);
        assert!(read.config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(read.rootfs.diff_ids.len(), 1);
        let again = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<ImageConfig>(&again).unwrap(), read);
    }

    #[test]
    fn foreign_and_encrypted_layers_are_not_for_unpacking() {
        for media_type in [
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "text/plain",
        ] {
            assert_eq!(Compression::of_layer(media_type), None, "{media_type}");
        }
        assert_eq!(Compression::of_layer(media::LAYER_ZSTD), Some(Compression::Zstd));
    }
}
