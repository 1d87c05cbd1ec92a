//! Images out of files: Docker's archive (`docker save`), a folder that is an OCI layout, and a tar of
//! such a folder. Each may be compressed as a whole, and its layers on their own.
//!
//! A layer is read once and written once. What is in the store already is not read at all.

mod archive;
mod bolt;
mod containerd;
mod docker;
mod local;
mod oci;

use std::{
    fs,
    io::{self, Read, Seek as _},
    path::{Path, PathBuf},
};

use archive::Archive;
pub use local::Local;

use crate::{
    Descriptor, Digest, Image, ImageError, Platform, Reference, ReferenceError, Store,
    progress::Progress,
    spec::Compression,
    store::{self, Lease},
};

/// Most images in one archive; more is no archive that people make.
const IMAGES_MAX: usize = 1000;

/// What was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// Its names.
    pub names: Vec<Reference>,
    /// What they stand for.
    pub target: Descriptor,
    /// The image for this machine, or why there is none: it can be pushed, but not run.
    pub image: Result<Image, ImageError>,
}

/// Why nothing was loaded, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The file could not be read.
    #[error("read `{path}`", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "`{path}` is no archive of images: it has neither `manifest.json` (docker save) nor `index.json` \
         (OCI layout)",
        path = path.display()
    )]
    NotAnArchive {
        /// The file.
        path: PathBuf,
    },
    /// A document in it is not as it must be.
    #[error("`{part}` in the archive: {reason}")]
    Malformed {
        /// Which.
        part: String,
        /// What is wrong.
        reason: String,
    },
    /// Something that a document refers to is not there.
    #[error("the archive refers to `{0}`, which is not in it: it was cut off, or made wrongly")]
    Missing(String),
    /// A layer is not what the configuration says.
    #[error("layer `{part}` has digest {found}, and the configuration says {expected}")]
    Layer {
        /// Its path.
        part: String,
        /// What the configuration says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Another program has no such image.
    #[error("image `{name}` is not in the store of {local}")]
    NotThere {
        /// The image.
        name: String,
        /// The program and its folder.
        local: Local,
    },
    /// A part cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A name in it is not a name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Images have no names, and none was given.
    #[error("the archive gives its image no name ({found}): give one")]
    Nameless {
        /// What it has instead.
        found: String,
    },
    /// One name was given, and there are several images.
    #[error("one name cannot stand for several images: load without a name")]
    SeveralNeedNames,
}

/// How to load.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The name, where the archive gives none or another one is wanted. Of a layout whose entries are
    /// only tags, the repository.
    pub name: Option<&'a Reference>,
    /// Told of every part.
    pub progress: Progress<'a>,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Loads all images of a file or folder.
///
/// # Errors
///
/// [`Error`]. Images that were loaded before have their names; parts of others are collected later.
pub fn load(store: &Store, path: &Path, options: Options<'_>) -> Result<Vec<Loaded>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let lease = store.lease()?;
    let into = Into { store, lease: &lease, options };
    if fs::metadata(path).map_err(read)?.is_dir() {
        return into.all(path, Archive::of_folder(path));
    }
    let mut file = fs::File::open(path).map_err(read)?;
    let mut first = [0; 4];
    let known = file.read_exact(&mut first);
    let seekable = file.rewind().is_ok();
    if seekable && known.is_ok() && Compression::of_bytes(&first) == Compression::None {
        let archive = Archive::of_file(file, path)?;
        return into.all(path, archive);
    }
    if !seekable {
        let start = io::Cursor::new(first);
        return into.stream(path, &mut start.chain(file));
    }
    into.stream(path, &mut file)
}

/// Loads all images of a stream, as [`load`] does.
///
/// # Errors
///
/// As [`load`].
pub fn load_stream(
    store: &Store,
    stream: &mut (dyn Read + Send),
    options: Options<'_>,
) -> Result<Vec<Loaded>, Error> {
    let lease = store.lease()?;
    Into { store, lease: &lease, options }.stream(Path::new("-"), stream)
}

/// Takes an image out of the store of Docker or Podman on this machine. Those keep layers unpacked, so
/// tars are put together again and must have the digests that the image's configuration says.
///
/// The manifest is made anew, as neither keeps the compressed layers of the one that it pulled: the image
/// is the same by its id, and not by the digest of its manifest.
///
/// # Errors
///
/// [`Error`], of which [`Error::NotThere`] says that there is no such image.
pub fn load_local(
    store: &Store,
    local: &Local,
    image: &Reference,
    options: Options<'_>,
) -> Result<Loaded, Error> {
    let lease = store.lease()?;
    let into = Into { store, lease: &lease, options };
    let target = local.image(into, image)?;
    let found = Found { target, names: vec![image.to_string()] };
    into.name(found, false)
}

/// Where images go.
#[derive(Clone, Copy)]
struct Into<'a> {
    store: &'a Store,
    lease: &'a Lease,
    options: Options<'a>,
}

/// An image whose parts are in the store, and the names that the archive gives it.
struct Found {
    target: Descriptor,
    names: Vec<String>,
}

impl Into<'_> {
    fn stream(self, path: &Path, stream: &mut (dyn Read + Send)) -> Result<Vec<Loaded>, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let mut first = Vec::new();
        stream.take(4).read_to_end(&mut first).map_err(read)?;
        let compression = Compression::of_bytes(&first);
        let whole = io::Cursor::new(first).chain(stream);
        let mut reader = decompress(compression, whole).map_err(read)?;
        let archive = Archive::of_stream(&mut *reader, path, self)?;
        self.all(path, archive)
    }

    fn all(self, path: &Path, archive: Archive) -> Result<Vec<Loaded>, Error> {
        let found = if archive.has("index.json") {
            oci::images(self, &archive)?
        } else if archive.has("manifest.json") {
            docker::images(self, &archive)?
        } else {
            return Err(Error::NotAnArchive { path: path.to_owned() });
        };
        if found.len() > IMAGES_MAX {
            let reason = format!("more than {IMAGES_MAX} images");
            return Err(Error::Malformed { part: path.display().to_string(), reason });
        }
        let several = found.len() > 1;
        found.into_iter().map(|it| self.name(it, several)).collect()
    }

    /// Gives an image its names.
    fn name(self, found: Found, several: bool) -> Result<Loaded, Error> {
        let Found { target, names } = found;
        let mut references = Vec::new();
        for name in &names {
            references.extend(self.reference(name, several)?);
        }
        match self.options.name {
            Some(name) if !several => references = vec![name.clone()],
            Some(_) if references.is_empty() => return Err(Error::SeveralNeedNames),
            _ => {}
        }
        if references.is_empty() {
            let found = if names.is_empty() { "none at all".to_owned() } else { names.join(", ") };
            return Err(Error::Nameless { found });
        }
        references.sort();
        references.dedup();
        for reference in &references {
            self.store.tag(reference, &target)?;
        }
        let image = Image::read(self.store, &target, &Platform::host());
        Ok(Loaded { names: references, target, image })
    }

    /// The name that an archive's text means. A word alone is only a tag: of the repository that was
    /// asked for, if one was.
    fn reference(self, text: &str, several: bool) -> Result<Option<Reference>, Error> {
        if text.contains([':', '/']) {
            return Ok(Some(text.parse()?));
        }
        match self.options.name {
            Some(name) if several => Ok(Some(name.with_tag(text)?)),
            _ => Ok(None),
        }
    }
}

/// A reader of what is in a compressed one.
pub(crate) fn decompress<'a>(
    compression: Compression,
    reader: impl Read + 'a,
) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        Compression::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(reader);
            Box::new(decoder.map_err(io::Error::other)?)
        }
    })
}

#[cfg(test)]
mod tests;
