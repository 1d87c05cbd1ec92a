//! An OCI layout, as a folder or in a tar: `index.json` lists what is in it.

use std::collections::BTreeSet;

use super::{Error, Found, IMAGES_MAX, Into, archive::Archive};
use crate::{
    Descriptor, Digest,
    image::{Document, check_document_size},
    spec::{ANNOTATION_FULL_NAME, ANNOTATION_NAME, Index, media},
};

/// How deep indexes stand in indexes.
const DEPTH_MAX: usize = 4;

/// Puts all images of a layout into the store.
pub(super) fn images(into: Into<'_>, archive: &Archive) -> Result<Vec<Found>, Error> {
    const PART: &str = "index.json";
    let malformed = |reason| Error::Malformed { part: PART.to_owned(), reason };
    let index: Index = serde_json::from_slice(&archive.document(into, PART)?)
        .map_err(|error| malformed(error.to_string()))?;
    if index.manifests.len() > IMAGES_MAX {
        return Err(malformed(format!("more than {IMAGES_MAX} images")));
    }
    let mut loader = Loader { into, archive, partial: false, done: BTreeSet::new() };
    let mut found: Vec<Found> = Vec::new();
    for mut entry in index.manifests {
        let full = entry.annotations.remove(ANNOTATION_FULL_NAME);
        let name = full.or_else(|| entry.annotations.remove(ANNOTATION_NAME));
        loader.tree(&entry, 0)?;
        // The same image under several names has an entry for each.
        match found.iter_mut().find(|it| it.target.digest == entry.digest) {
            Some(known) => known.names.extend(name),
            None => {
                let target = into.store.descriptor_of(&entry.digest)?;
                let target = target.ok_or_else(|| Error::Missing(path_of(&entry.digest)))?;
                found.push(Found { target, names: name.into_iter().collect() });
            }
        }
    }
    Ok(found)
}

/// Puts one image into the store, of which the blobs are there for some platforms only.
pub(super) fn image(
    into: Into<'_>,
    archive: &Archive,
    digest: &Digest,
) -> Result<Descriptor, Error> {
    let path = path_of(digest);
    let bytes = archive.document(into, &path)?;
    let media_type = match Document::read(digest, &bytes)? {
        Document::Index(_) => media::INDEX,
        Document::Manifest(_) => media::MANIFEST,
    };
    let descriptor = Descriptor::new(media_type, *digest, bytes.len() as u64);
    Loader { into, archive, partial: true, done: BTreeSet::new() }.tree(&descriptor, 0)?;
    into.store.descriptor_of(digest)?.ok_or(Error::Missing(path))
}

struct Loader<'a> {
    into: Into<'a>,
    archive: &'a Archive,
    /// Whether a manifest may be there whose layers are not.
    partial: bool,
    done: BTreeSet<Digest>,
}

impl Loader<'_> {
    /// Puts a manifest or index into the store, after all that it refers to.
    fn tree(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(), Error> {
        let part = path_of(&descriptor.digest);
        if depth > DEPTH_MAX {
            let reason = format!("more than {DEPTH_MAX} indexes in one another");
            return Err(Error::Malformed { part, reason });
        }
        if !self.done.insert(descriptor.digest) {
            return Ok(());
        }
        check_document_size(descriptor)?;
        let bytes = self.archive.document(self.into, &part)?;
        match Document::read(&descriptor.digest, &bytes)? {
            Document::Index(index) => {
                for child in &index.manifests {
                    // A layout may have some platforms only.
                    if self.archive.has(&path_of(&child.digest)) && self.is_whole(child)? {
                        self.tree(child, depth + 1)?;
                    }
                }
            }
            Document::Manifest(manifest) => {
                check_document_size(&manifest.config)?;
                for part in manifest.layers.iter().chain([&manifest.config]) {
                    self.blob(part)?;
                }
            }
        }
        self.blob(descriptor)
    }

    /// Whether an entry of an index has all that it refers to, where that is not to be expected.
    fn is_whole(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        if !self.partial {
            return Ok(true);
        }
        check_document_size(descriptor)?;
        let bytes = self.archive.document(self.into, &path_of(&descriptor.digest))?;
        Ok(match Document::read(&descriptor.digest, &bytes)? {
            Document::Index(_) => true,
            Document::Manifest(manifest) => {
                let mut parts = manifest.layers.iter().chain([&manifest.config]);
                parts.all(|it| self.archive.has(&path_of(&it.digest)))
            }
        })
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<(), Error> {
        self.archive.ingest_as(self.into, &path_of(&descriptor.digest), descriptor)
    }
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
