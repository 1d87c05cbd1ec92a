//! An image that is in the store in full: its documents read and checked against each other.

use serde::Deserialize;

use crate::{
    Digest, Platform, Store,
    spec::{
        Compression, DOCUMENT_BYTES_MAX, Descriptor, ImageConfig, Index, LAYERS_MAX, MANIFESTS_MAX,
        Manifest, media,
    },
    store,
};

/// How deep indexes stand in indexes. Nobody builds more than two.
const INDEX_DEPTH_MAX: usize = 4;

/// An image of one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What its name stands for: the manifest, or the index that the manifest was chosen from. Its
    /// digest is what others know the image by (`NAME@DIGEST`).
    pub target: Descriptor,
    /// The manifest.
    pub manifest: Digest,
    /// The configuration: Docker's image id.
    pub id: Digest,
    /// How it runs, and what it is made of.
    pub config: ImageConfig,
    /// The layers, lowest first; never foreign ones.
    pub layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The blob.
    pub digest: Digest,
    /// The digest of the tar in it.
    pub diff_id: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// How the tar is compressed.
    pub compression: Compression,
}

/// Why what a name stands for is not an image that can be run here.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A part is not in the store.
    #[error("image {image} is not here in full: {missing} is missing; pull it again")]
    Incomplete {
        /// The target.
        image: Digest,
        /// The part.
        missing: Digest,
    },
    /// There is no such image for this machine.
    #[error("image {image} is not made for {wanted}, only for {found}")]
    NoSuchPlatform {
        /// The target.
        image: Digest,
        /// This machine.
        wanted: String,
        /// What there is, with commas between.
        found: String,
    },
    /// It is something else, or of a kind that cannot be unpacked.
    #[error("{digest} is not an image that can be run: {reason}")]
    Unusable {
        /// The document.
        digest: Digest,
        /// Why.
        reason: String,
    },
}

fn no_such_platform(image: &Digest, wanted: &Platform, found: &[&Platform]) -> ImageError {
    let mut names: Vec<String> = found.iter().map(|it| it.to_string()).collect();
    names.dedup();
    let found = if names.is_empty() { "no machine at all".to_owned() } else { names.join(", ") };
    ImageError::NoSuchPlatform { image: *image, wanted: wanted.to_string(), found }
}

impl Image {
    /// Reads an image from the store, and checks that all of it is there.
    ///
    /// # Errors
    ///
    /// [`ImageError`].
    pub fn read(
        store: &Store,
        target: &Descriptor,
        platform: &Platform,
    ) -> Result<Self, ImageError> {
        let incomplete = |missing| ImageError::Incomplete { image: target.digest, missing };
        let document = |digest: &Digest| match store.document(digest) {
            Err(store::Error::NoBlob(missing)) => Err(incomplete(missing)),
            other => other.map_err(ImageError::from),
        };
        let mut next = target.clone();
        let mut manifest = None;
        for _ in 0..INDEX_DEPTH_MAX {
            let bytes = document(&next.digest)?;
            match Document::read(&next.digest, &bytes)? {
                Document::Index(index) => next = choose(&target.digest, &index, platform)?.clone(),
                Document::Manifest(it) => {
                    manifest = Some(it);
                    break;
                }
            }
        }
        let manifest =
            manifest.ok_or_else(|| unusable(&target.digest, "index in index in index"))?;
        let config = parse_config(&manifest, &document(&manifest.config.digest)?)?;
        check_platform(&target.digest, &config, platform)?;
        let layers = layers(&manifest, &config)?;
        for layer in &layers {
            if store.blob_size(&layer.digest)? != Some(layer.size) {
                return Err(incomplete(layer.digest));
            }
        }
        let (manifest, id) = (next.digest, manifest.config.digest);
        Ok(Self { target: target.clone(), manifest, id, config, layers })
    }

    /// Bytes of all its blobs that are layers.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|it| it.size).sum()
    }
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// Images by platform.
    Index(Box<Index>),
    /// One image.
    Manifest(Box<Manifest>),
}

/// What tells documents from each other where no media type is given.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<Descriptor>,
}

/// The media type of a document that is a manifest or an index; nothing for other content.
pub(crate) fn kind_of(bytes: &[u8]) -> Option<String> {
    let shape: Shape = serde_json::from_slice(bytes).ok()?;
    let default = match (shape.schema_version, shape.manifests, shape.config) {
        (2, Some(_), None) => media::INDEX,
        (2, None, Some(_)) => media::MANIFEST,
        _ => return None,
    };
    Some(shape.media_type.unwrap_or_else(|| default.to_owned()))
}

impl Document {
    /// A document of the right shape and within the limits, or nothing.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        match kind_of(bytes)?.as_str() {
            media::INDEX | media::DOCKER_INDEX => {
                let index: Index = serde_json::from_slice(bytes).ok()?;
                (index.manifests.len() <= MANIFESTS_MAX).then(|| Self::Index(Box::new(index)))
            }
            media::MANIFEST | media::DOCKER_MANIFEST => {
                let manifest: Manifest = serde_json::from_slice(bytes).ok()?;
                (manifest.layers.len() <= LAYERS_MAX).then(|| Self::Manifest(Box::new(manifest)))
            }
            _ => None,
        }
    }

    /// A document, or why it is none.
    pub(crate) fn read(digest: &Digest, bytes: &[u8]) -> Result<Self, ImageError> {
        Self::parse(bytes).ok_or_else(|| unusable(digest, &why_not(bytes)))
    }
}

/// What is wrong with bytes that are no manifest and no index.
fn why_not(bytes: &[u8]) -> String {
    let shape: Shape = match serde_json::from_slice(bytes) {
        Ok(shape) => shape,
        Err(error) => return format!("it is no JSON of a manifest: {error}"),
    };
    let media_type = shape.media_type.unwrap_or_default();
    if shape.schema_version == 1 {
        return "it is a manifest of Docker's schema 1, which is no longer supported: push the image \
                again with a tool of this decade"
            .to_owned();
    }
    if media_type.is_empty() || media_type.contains("manifest") || media_type.contains("index") {
        let shape = serde_json::from_slice::<Manifest>(bytes).map(|it| it.layers.len());
        return match shape {
            Ok(layers) if layers > LAYERS_MAX => {
                format!("it has {layers} layers, and at most {LAYERS_MAX} can be stacked")
            }
            Ok(_) => format!("its media type `{media_type}` is not known"),
            Err(error) => format!("it is no manifest and no index: {error}"),
        };
    }
    format!("its media type `{media_type}` is not known")
}

fn unusable(digest: &Digest, reason: &str) -> ImageError {
    ImageError::Unusable { digest: *digest, reason: reason.to_owned() }
}

/// The entry of an index that runs on this machine: the first one that says so, or the only one if it
/// says nothing.
pub(crate) fn choose<'a>(
    image: &Digest,
    index: &'a Index,
    platform: &Platform,
) -> Result<&'a Descriptor, ImageError> {
    let named = |it: &&Descriptor| it.platform.as_ref().is_some_and(|it| it.runs_on(platform));
    if let Some(found) = index.manifests.iter().find(named) {
        return Ok(found);
    }
    if let [only] = index.manifests.as_slice()
        && only.platform.is_none()
    {
        return Ok(only);
    }
    // Attestations beside images have the platform `unknown`.
    let known = index.manifests.iter().filter_map(|it| it.platform.as_ref());
    let found: Vec<&Platform> = known.filter(|it| it.os != "unknown").collect();
    Err(no_such_platform(image, platform, &found))
}

/// Reads the configuration of a manifest.
pub(crate) fn parse_config(manifest: &Manifest, bytes: &[u8]) -> Result<ImageConfig, ImageError> {
    let digest = &manifest.config.digest;
    match manifest.config.media_type.as_str() {
        media::CONFIG | media::DOCKER_CONFIG | "" => {}
        other => {
            let reason = format!("it is an artifact: its configuration is of type `{other}`");
            return Err(unusable(digest, &reason));
        }
    }
    serde_json::from_slice(bytes)
        .map_err(|error| unusable(digest, &format!("its configuration cannot be read: {error}")))
}

/// Refuses what was made for another machine. Images without programs may say nothing.
pub(crate) fn check_platform(
    image: &Digest,
    config: &ImageConfig,
    platform: &Platform,
) -> Result<(), ImageError> {
    let found = Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: config.variant.clone(),
    };
    let silent = found.architecture.is_empty() && matches!(found.os.as_str(), "" | "linux");
    if silent || found.runs_on(platform) {
        return Ok(());
    }
    Err(no_such_platform(image, platform, &[&found]))
}

/// The layers of a manifest, beside the diff ids of its configuration.
pub(crate) fn layers(manifest: &Manifest, config: &ImageConfig) -> Result<Vec<Layer>, ImageError> {
    let diff_ids = &config.rootfs.diff_ids;
    if manifest.layers.len() != diff_ids.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        let reason = format!("the manifest has {layers} layers, and the configuration {ids}");
        return Err(unusable(&manifest.config.digest, &reason));
    }
    let layer = |(layer, diff_id): (&Descriptor, &Digest)| {
        let compression = check_layer(layer)?;
        Ok(Layer { digest: layer.digest, diff_id: *diff_id, size: layer.size, compression })
    };
    manifest.layers.iter().zip(diff_ids).map(layer).collect()
}

/// Refuses a layer that is not for unpacking.
pub(crate) fn check_layer(layer: &Descriptor) -> Result<Compression, ImageError> {
    let media_type = &layer.media_type;
    let compression = Compression::of_layer(media_type);
    if !layer.urls.is_empty()
        || media_type.contains("foreign")
        || media_type.contains("nondistributable")
    {
        let reason = format!("`{media_type}` is a foreign layer, to be had from elsewhere only");
        return Err(unusable(&layer.digest, &reason));
    }
    compression.ok_or_else(|| {
        unusable(&layer.digest, &format!("a layer of type `{media_type}` cannot be unpacked"))
    })
}

/// Refuses documents too large to be read into memory.
pub(crate) fn check_document_size(descriptor: &Descriptor) -> Result<(), store::Error> {
    let Descriptor { digest, size, .. } = descriptor;
    if *size > DOCUMENT_BYTES_MAX {
        return Err(store::Error::TooLarge { digest: *digest, size: *size });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Documents that are nearly right: known fields with values of every kind.
    fn documents() -> impl Strategy<Value = String> {
        let digest = format!("\"{}\"", Digest::of(b"x"));
        let descriptor =
            format!(r#"{{"mediaType":"{}","digest":{digest},"size":3}}"#, media::LAYER);
        let value = prop::sample::select(vec![
            "2".to_owned(),
            "-1".to_owned(),
            "null".to_owned(),
            "\"\"".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            format!("\"{}\"", media::INDEX),
            format!("\"{}\"", media::MANIFEST),
            descriptor.clone(),
            format!("[{descriptor}]"),
        ]);
        let name = prop::sample::select(vec![
            "schemaVersion",
            "mediaType",
            "config",
            "layers",
            "manifests",
            "annotations",
            "subject",
        ]);
        prop::collection::btree_map(name, value, 0..7).prop_map(|fields| {
            let field = |(name, value): (&str, String)| format!("\"{name}\":{value}");
            format!("{{{}}}", fields.into_iter().map(field).collect::<Vec<String>>().join(","))
        })
    }

    proptest! {
        #[test]
        fn documents_are_read_or_refused_with_a_reason(text in documents()) {
            match Document::read(&Digest::of(b""), text.as_bytes()) {
                // What is read is written and read as the same.
                Ok(Document::Index(index)) => {
                    let again = serde_json::to_vec(&index).unwrap();
                    prop_assert_eq!(Document::parse(&again), Some(Document::Index(index)));
                }
                Ok(Document::Manifest(manifest)) => {
                    let again = serde_json::to_vec(&manifest).unwrap();
                    prop_assert_eq!(Document::parse(&again), Some(Document::Manifest(manifest)));
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }

        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Document::parse(&bytes), None);
        }
    }
}
