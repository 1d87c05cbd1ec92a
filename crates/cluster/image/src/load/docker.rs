//! Docker's archive: `manifest.json` lists configurations and layers by path. There is no manifest in
//! it, so one is made; the same archive always gives the same.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Error, Found, IMAGES_MAX, Into, archive::Archive};
use crate::{
    Compression, Descriptor, Digest, ImageConfig,
    spec::{LAYERS_MAX, Manifest, media},
    store::Blob,
};

/// An image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// Puts all images of an archive into the store.
pub(super) fn images(into: Into<'_>, archive: &Archive) -> Result<Vec<Found>, Error> {
    const PART: &str = "manifest.json";
    let malformed = |reason| Error::Malformed { part: PART.to_owned(), reason };
    let entries: Vec<Entry> = serde_json::from_slice(&archive.document(into, PART)?)
        .map_err(|error| malformed(error.to_string()))?;
    if entries.len() > IMAGES_MAX {
        return Err(malformed(format!("more than {IMAGES_MAX} images")));
    }
    let mut loader = Loader { into, archive, known: BTreeMap::new() };
    entries.into_iter().map(|it| loader.image(it)).collect()
}

struct Loader<'a> {
    into: Into<'a>,
    archive: &'a Archive,
    /// Layers of images before, by path.
    known: BTreeMap<String, Descriptor>,
}

impl Loader<'_> {
    fn image(&mut self, entry: Entry) -> Result<Found, Error> {
        let part = entry.config;
        let bytes = self.archive.document(self.into, &part)?;
        let malformed = |reason: String| Error::Malformed { part: part.clone(), reason };
        let config: ImageConfig =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let (paths, diff_ids) = (entry.layers.unwrap_or_default(), config.rootfs.diff_ids);
        if paths.len() != diff_ids.len() || paths.len() > LAYERS_MAX {
            let (paths, ids) = (paths.len(), diff_ids.len());
            let reason = format!(
                "{ids} layers, and the archive lists {paths}; at most {LAYERS_MAX} can be stacked"
            );
            return Err(malformed(reason));
        }
        let layers: Result<Vec<Descriptor>, Error> =
            paths.iter().zip(&diff_ids).map(|(path, id)| self.layer(path, id)).collect();
        let target = assemble(self.into, &part, &bytes, layers?)?;
        Ok(Found { target, names: entry.repo_tags.unwrap_or_default() })
    }

    fn layer(&mut self, path: &str, diff_id: &Digest) -> Result<Descriptor, Error> {
        if let Some(known) = self.known.get(path) {
            return check(path, diff_id, known.clone());
        }
        let Self { into, archive, .. } = *self;
        let compression = Compression::of_bytes(&archive.magic(into, path)?);
        let media_type = compression.layer_media_type();
        // A tar as it is has the diff id as its digest, so it is known whether it is here.
        into.lease.hold([*diff_id])?;
        let here =
            if compression == Compression::None { into.store.blob_size(diff_id)? } else { None };
        let descriptor = match here {
            Some(size) => {
                (into.options.progress)(crate::Event::Present { part: path.to_owned() });
                Descriptor::new(media_type, *diff_id, size)
            }
            None => {
                let Blob { digest, size } = archive.ingest(into, path)?;
                Descriptor::new(media_type, digest, size)
            }
        };
        self.known.insert(path.to_owned(), descriptor.clone());
        check(path, diff_id, descriptor)
    }
}

/// A compressed layer is checked when it is unpacked; to read it twice here would be for nothing.
fn check(path: &str, diff_id: &Digest, layer: Descriptor) -> Result<Descriptor, Error> {
    if layer.media_type == media::LAYER && layer.digest != *diff_id {
        let (part, expected, found) = (path.to_owned(), *diff_id, layer.digest);
        return Err(Error::Layer { part, expected, found });
    }
    Ok(layer)
}

/// Makes the manifest that an image has not, and puts both into the store.
pub(super) fn assemble(
    into: Into<'_>,
    part: &str,
    config: &[u8],
    layers: Vec<Descriptor>,
) -> Result<Descriptor, Error> {
    let put = |media_type: &str, bytes: &[u8]| -> Result<Descriptor, Error> {
        into.lease.hold([Digest::of(bytes)])?;
        let Blob { digest, size } = into.store.put(bytes)?;
        Ok(Descriptor::new(media_type, digest, size))
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.to_owned()),
        artifact_type: None,
        config: put(media::CONFIG, config)?,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|error| Error::Malformed { part: part.to_owned(), reason: error.to_string() })?;
    put(media::MANIFEST, &bytes)
}
