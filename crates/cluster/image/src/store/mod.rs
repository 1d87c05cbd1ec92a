//! The content-addressed store: blobs, the names of images, unpacked layers, and who needs what.
//!
//! The folder is an OCI image layout, so other programs can read it as it is:
//!
//! ```text
//! format            version of what is beside the layout
//! oci-layout        version of the layout
//! index.json        the names: a descriptor of each image, with the full name as an annotation
//! blobs/sha256/HEX  content by digest, complete and verified: what is there is right
//! layers/HEX/       layers unpacked, by diff id; made by `unpack`
//! pulled/HEX        who may run the image with this configuration, if not everybody may
//! staging/          what is being written; a blob's rest is gone on with by whoever wants it next
//! claims/NAME       images that somebody needs until he says otherwise: a cluster's pods
//! leases/           content that a living process needs; each file is locked by its process
//! lock              held while names, claims or leases change, and while a sweep decides
//! ```
//!
//! Several processes may use one folder, and any may be killed at any moment: content is written
//! elsewhere, verified, flushed and renamed. Nothing here knows registries or Kubernetes.

mod access;
mod blob;
mod collect;
mod lease;
mod names;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) use access::{Grant, Holder};
pub use blob::{Blob, Writer};
pub use collect::{Collected, Policy};
pub use lease::Lease;
pub use names::Named;

use crate::{
    Digest, Image, Platform, Reference,
    image::ImageError,
    spec::{DOCUMENT_BYTES_MAX, Descriptor},
};

/// Version of the folder. A newer one is refused.
const FORMAT_VERSION: u32 = 1;

/// What `oci-layout` holds.
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk is full, or the user's share of it.
    #[error("no space left for `{path}`: remove images (`coracle image prune`), or free the disk", path = path.display())]
    Full {
        /// What was being written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("{what} `{path}`", path = path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder is of a newer version of this program.
    #[error(
        "image store `{path}` has format {found}, and this program knows formats up to {known}: use the \
         newer coracle that made it",
        path = path.display(), known = FORMAT_VERSION
    )]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A file of the store does not hold what it must.
    #[error("`{path}` is damaged: remove the image and pull it again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What reading it said.
        source: serde_json::Error,
    },
    /// Content is not what its digest says.
    #[error("content has digest {found}, not {expected}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Content is longer or shorter than was said.
    #[error("content {digest} has {found} bytes, not {expected}")]
    Size {
        /// What was asked for.
        digest: Digest,
        /// What was said.
        expected: u64,
        /// What came; of too long content, what had come when that was seen.
        found: u64,
    },
    /// The blob is not in the store.
    #[error("content {0} is not in the store")]
    NoBlob(Digest),
    /// A document is too large.
    #[error("content {digest} has {size} bytes, and a document at most {DOCUMENT_BYTES_MAX}")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// How large it is.
        size: u64,
    },
}

impl Error {
    /// An error of the system.
    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path, source }
            }
            _ => Self::Io { what, path, source },
        }
    }
}

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    folder: Arc<Path>,
}

impl Store {
    /// Opens the store in `folder`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::NewerFormat`], or what the system says.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let this = Self { folder: folder.into() };
        for sub in ["blobs/sha256", "layers", "pulled", "staging", "claims", "leases"] {
            let path = folder.join(sub);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| Error::io("make folder", &path, source))?;
        }
        let _lock = this.lock()?;
        this.check_format()?;
        let layout = folder.join("oci-layout");
        if !layout.exists() {
            this.replace(&layout, LAYOUT.as_bytes())?;
        }
        if !this.index_path().exists() {
            this.write_names(&[])?;
        }
        Ok(this)
    }

    /// Where the store is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of unpacked layers.
    #[must_use]
    pub fn layers_folder(&self) -> PathBuf {
        self.folder.join("layers")
    }

    /// Where the layer with this diff id is when it is unpacked.
    #[must_use]
    pub fn layer_folder(&self, diff_id: &Digest) -> PathBuf {
        self.layers_folder().join(diff_id.hex())
    }

    /// Where things are made that are renamed when they are complete. What lies there and belongs to
    /// no living process is removed by [`Store::collect`].
    #[must_use]
    pub fn staging_folder(&self) -> PathBuf {
        self.folder.join("staging")
    }

    /// The image of this name that is here in full and runs on this machine.
    ///
    /// A digest decides over a tag, and is found whatever name its image was pulled by.
    ///
    /// # Errors
    ///
    /// [`ImageError`] if there is an image of this name that cannot be used; nothing is what is not
    /// here, or not in full.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Image>, ImageError> {
        let target = match reference.digest() {
            Some(digest) => self.descriptor_of(&digest)?,
            None => self.find(reference)?,
        };
        let Some(target) = target else {
            return Ok(None);
        };
        match Image::read(self, &target, &Platform::host()) {
            Ok(image) => Ok(Some(image)),
            Err(ImageError::Incomplete { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether there is nothing in it, and nobody who uses it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn is_unused(&self) -> Result<bool, Error> {
        let mut used = !self.list()?.is_empty();
        for folder in ["blobs/sha256", "layers", "staging", "claims", "leases"] {
            let path = self.folder.join(folder);
            let mut entries =
                fs::read_dir(&path).map_err(|source| Error::io("list", &path, source))?;
            used |= entries.next().is_some();
        }
        Ok(!used)
    }

    /// Notes that an image was used now: what was used least recently is removed first when the disk
    /// is full.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn note_use(&self, image: &Image) -> Result<(), Error> {
        self.touch(&image.target.digest)
    }

    fn touch(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.blob_path(digest);
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty())
            .map_err(|error| Error::io("touch", &path, error.into()))
    }

    /// Replaces a small file, by way of another and a rename; what is there after a crash is either.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = self.folder.join(format!(".{name}.new"));
        let write = || {
            let mut file = fs::File::create(&temporary)?;
            io::Write::write_all(&mut file, bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            fs::File::open(path.parent().unwrap_or(&self.folder))?.sync_all()
        };
        write().map_err(|source| Error::io("write", path, source))
    }

    /// Waits until no other process or thread changes names, claims or leases, or sweeps; all of
    /// these are short.
    pub(crate) fn lock(&self) -> Result<fs::File, Error> {
        let path = self.folder.join("lock");
        let open = || {
            let file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(|source| Error::io("lock", &path, source))
    }

    fn check_format(&self) -> Result<(), Error> {
        let path = self.folder.join("format");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().parse().is_ok_and(|it: u32| it <= FORMAT_VERSION) => Ok(()),
            Ok(text) => Err(Error::NewerFormat {
                path: self.folder.to_path_buf(),
                found: text.trim().to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.replace(&path, format!("{FORMAT_VERSION}\n").as_bytes())
            }
            Err(source) => Err(Error::io("read", &path, source)),
        }
    }

    fn find(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        let name = reference.to_string();
        let names = self.list()?;
        Ok(names.into_iter().find(|it| it.name == name).map(|it| it.target))
    }
}

#[cfg(test)]
mod tests;
