//! Images that containerd keeps, read only: for Docker (all that it keeps since version 29 on a new
//! machine), for nerdctl and for Kubernetes. Their blobs are as they were pulled; names are in a database.
//!
//! The database is containerd's `metadata` store: `v1` / NAMESPACE / `images` / NAME / `target`.

use std::{io, path::Path};

use super::{
    Error, Into,
    archive::Archive,
    bolt::{Bucket, Database, Entry},
    oci,
};
use crate::{Descriptor, Digest, Reference};

const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";
const CONTENT: &str = "io.containerd.content.v1.content";
/// The namespace of Docker's images.
pub(super) const OF_DOCKER: &str = "moby";

/// Whether this is a folder of containerd's.
pub(super) fn is_there(root: &Path) -> bool {
    root.join(DATABASE).exists()
}

/// Puts an image into the store, if one of this name is there: in `namespace`, or else in any.
pub(super) fn image(
    into: Into<'_>,
    root: &Path,
    namespace: Option<&str>,
    name: &Reference,
) -> Result<Option<Descriptor>, Error> {
    let path = root.join(DATABASE);
    let found = target(&path, namespace, &name.to_string());
    let found = found.map_err(|source| Error::Read { path: path.clone(), source })?;
    let Some(digest) = found else { return Ok(None) };
    let malformed = |reason: String| Error::Malformed { part: path.display().to_string(), reason };
    let digest: Digest =
        digest.parse().map_err(|_| malformed(format!("`{digest}` is no digest")))?;
    oci::image(into, &Archive::of_folder(&root.join(CONTENT)), &digest).map(Some)
}

/// The digest that a name stands for.
fn target(path: &Path, namespace: Option<&str>, name: &str) -> io::Result<Option<String>> {
    let database = Database::read(path)?;
    let Some(version) = database.root()?.bucket("v1")? else { return Ok(None) };
    let namespaces = match namespace {
        Some(it) => version.bucket(it)?.into_iter().collect(),
        None => buckets(version)?,
    };
    for namespace in namespaces {
        let Some(images) = namespace.bucket("images")? else { continue };
        let Some(image) = images.bucket(name)? else { continue };
        let Some(target) = image.bucket("target")? else { continue };
        if let Some(Entry::Value(digest)) = target.get("digest")? {
            return Ok(Some(String::from_utf8_lossy(digest).into_owned()));
        }
    }
    Ok(None)
}

fn buckets(of: Bucket<'_>) -> io::Result<Vec<Bucket<'_>>> {
    let entries = of.entries()?.into_iter();
    Ok(entries
        .filter_map(|(_, entry)| match entry {
            Entry::Bucket(bucket) => Some(bucket),
            Entry::Value(_) => None,
        })
        .collect())
}
