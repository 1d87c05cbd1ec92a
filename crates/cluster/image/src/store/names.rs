//! The names of images: `index.json`, as an OCI layout has it.

use std::{fs, io, path::PathBuf};

use super::{Error, Store};
use crate::{
    Digest, Reference,
    image::kind_of,
    spec::{ANNOTATION_NAME, Descriptor, Index},
};

/// An image that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name in full, as [`Reference`] shows it.
    pub name: String,
    /// What it stands for: a manifest or an index.
    pub target: Descriptor,
}

impl Store {
    /// All names, in order.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], or what the system says.
    pub fn list(&self) -> Result<Vec<Named>, Error> {
        let path = self.index_path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::io("read", &path, source)),
        };
        let index: Index =
            serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path, source })?;
        let named = index.manifests.into_iter().filter_map(|mut target| {
            let name = target.annotations.remove(ANNOTATION_NAME)?;
            Some(Named { name, target })
        });
        Ok(named.collect())
    }

    /// Gives a name to an image that is in the store, and takes it from the one that had it. After
    /// this the image and its name are on the disk, and everybody may run it by this name.
    ///
    /// # Errors
    ///
    /// [`Error::NoBlob`] if the image is not there, or what the system says.
    pub fn tag(&self, reference: &Reference, target: &Descriptor) -> Result<(), Error> {
        self.open_to_everybody(reference, target)?;
        self.name(reference, target)
    }

    /// The same without a word on who may run it.
    pub(crate) fn name(&self, reference: &Reference, target: &Descriptor) -> Result<(), Error> {
        let _lock = self.lock()?;
        if self.blob_size(&target.digest)?.is_none() {
            return Err(Error::NoBlob(target.digest));
        }
        self.touch(&target.digest)?;
        let blobs = self.folder.join("blobs/sha256");
        fs::File::open(&blobs)
            .and_then(|it| it.sync_all())
            .map_err(|source| Error::io("flush", &blobs, source))?;
        let name = reference.to_string();
        let mut names = self.list()?;
        names.retain(|it| it.name != name);
        names.push(Named { name, target: target.clone() });
        self.write_names(&names)
    }

    /// Takes a name away; the image stays until it is collected. Says whether there was such a name.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn untag(&self, reference: &Reference) -> Result<bool, Error> {
        let _lock = self.lock()?;
        let name = reference.to_string();
        let mut names = self.list()?;
        let before = names.len();
        names.retain(|it| it.name != name);
        if names.len() == before {
            return Ok(false);
        }
        self.write_names(&names).map(|()| true)
    }

    /// A descriptor of a manifest or index that is there, with a name or without.
    pub(crate) fn descriptor_of(&self, digest: &Digest) -> Result<Option<Descriptor>, Error> {
        let Some(size) = self.blob_size(digest)? else {
            return Ok(None);
        };
        let bytes = match self.document(digest) {
            Ok(bytes) => bytes,
            // Nobody names a layer.
            Err(Error::TooLarge { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(kind_of(&bytes).map(|media_type| Descriptor::new(&media_type, *digest, size)))
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.folder.join("index.json")
    }

    /// Writes the table. The caller holds the lock.
    pub(super) fn write_names(&self, names: &[Named]) -> Result<(), Error> {
        let mut names: Vec<&Named> = names.iter().collect();
        names.sort_by(|one, other| one.name.cmp(&other.name));
        let entry = |it: &Named| {
            let mut entry = it.target.clone();
            entry.annotations.insert(ANNOTATION_NAME.to_owned(), it.name.clone());
            entry
        };
        let index = Index::of(names.into_iter().map(entry).collect());
        let path = self.index_path();
        let bytes = serde_json::to_vec(&index)
            .map_err(|source| Error::Damaged { path: path.clone(), source })?;
        self.replace(&path, &bytes)
    }
}
