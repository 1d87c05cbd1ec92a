//! Layers of images as folders that an overlay mount stacks: unpacked once for all containers,
//! verified while they are read, complete or not there.
//!
//! ```text
//! layers/HEX/OWNERS/tree      the folder that is mounted
//! layers/HEX/OWNERS/complete  what came of unpacking it; without this file it is not there
//! layers/HEX/OWNERS.partial   being unpacked by whoever holds the lock of layers/HEX
//! ```
//!
//! HEX is the layer's diff id. A layer that names files in folders it does not describe gets those
//! folders' owners and modes from the layers below; HEX is the chain id of all these then. OWNERS
//! says how ids are kept ([`Owners`]).
//!
//! Nothing here mounts. Files are made with the rights of the calling process, which must be in the
//! user namespace that the containers' mounts are made in.

mod copy;
mod decompress;
mod layer;
mod limits;
mod tree;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use copy::copy;
pub(crate) use decompress::open as decompress;
pub(crate) use tree::{OPAQUE, is_opaque, remove};

use crate::{Digest, Image, Layer, Owners, Store, store, tarball};

/// The layers of an image, unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    /// Folders for an overlay mount, topmost first; none for an image without layers. What a layer
    /// hides as a whole is not among them.
    pub folders: Vec<PathBuf>,
    /// What of the image this machine does not have.
    pub lost: Lost,
    /// Markers that hold until the machine's next start only.
    unsettled: Vec<PathBuf>,
}

/// How much of an image was read and could not be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Files whose owner or group is the user's own now.
    pub owners: u64,
    /// Device files, which are never made: a container's devices are not the image's to say.
    pub devices: u64,
    /// Extended attributes.
    pub attributes: u64,
}

/// Why the layers of an image could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer, for a reason of its own.
    #[error("cannot unpack layer {layer}")]
    Layer {
        /// Its diff id.
        layer: Digest,
        /// The reason.
        source: Box<Self>,
    },
    /// The layer's bytes cannot be read, or are not a tar.
    #[error("the layer cannot be read")]
    Stream(#[source] tarball::Error),
    /// The layer's bytes cannot be read or decompressed.
    #[error("the layer cannot be decompressed")]
    Decompress(#[source] io::Error),
    /// The layer's tar is not the one that the image's configuration names.
    #[error("its contents have the digest {found}")]
    Digest {
        /// What was read.
        found: Digest,
    },
    /// One entry.
    #[error("entry `{name}`")]
    Entry {
        /// Its name, shortened.
        name: String,
        /// What is wrong with it.
        source: Refusal,
    },
    /// Too many entries.
    #[error("the layer has more than {} entries", limits::ENTRIES_MAX)]
    Entries,
    /// Too many bytes.
    #[error("the layer has more than {} bytes", limits::BYTES_MAX)]
    Bytes,
    /// The disk would be full.
    #[error("the disk has no room for the layer")]
    Disk,
    /// The disk does not say how full it is.
    #[error("cannot ask the disk for its room")]
    Look(#[source] io::Error),
    /// A folder of the store, or where a copy goes.
    #[error("cannot use `{path}`", path = path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is wrong with one entry of a layer.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// `..` in a name.
    #[error("the name leads out of the image")]
    Outside,
    /// A symbolic link among the folders of a name.
    #[error("the name leads through a symbolic link")]
    ThroughLink,
    /// A file among the folders of a name.
    #[error("the name leads through what is no folder")]
    NoFolder,
    /// A name with a NUL.
    #[error("there is a NUL in a name")]
    Nul,
    /// Too many folders in each other.
    #[error("more than {} folders in each other", tree::DEPTH_MAX)]
    Deep,
    /// Too many folders.
    #[error("the names of the layer's folders are too long in all")]
    Folders,
    /// Something other than a folder as the root.
    #[error("the image's root is no folder")]
    Root,
    /// A name that begins with `.wh.` and means nothing.
    #[error("names beginning with .wh. are for whiteouts")]
    Whiteout,
    /// A hard link to nothing.
    #[error("a hard link to what the layer does not have")]
    NoTarget,
    /// The file system has no attributes, without which an overlay cannot hide a folder.
    #[error("the disk cannot mark a folder as opaque")]
    Opaque(#[source] io::Error),
    /// The stream ended.
    #[error("the layer ends within it")]
    Short,
    /// The stream failed.
    #[error("it cannot be read")]
    Stream(#[source] io::Error),
    /// The disk would be full.
    #[error("there is no room for it")]
    Disk(#[source] Box<Error>),
    /// The system said no.
    #[error("it cannot be made")]
    System(#[source] io::Error),
}

impl From<rustix::io::Errno> for Refusal {
    fn from(error: rustix::io::Errno) -> Self {
        Self::System(error.into())
    }
}

/// The file that says that a layer is complete.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    /// The start of the machine that it holds for: until [`Layers::settle`] the disk may lose what
    /// was written. `None`: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// Nothing of lower layers is seen.
    opaque: bool,
    lost: Lost,
}

/// Unpacks what is not there of the image's layers. What is there already costs the reading of one
/// small file a layer.
///
/// Several processes and threads may do this at once, and any may be killed: a layer is unpacked by
/// one of them while the others wait for it. The caller holds a [`store::Lease`] or a claim of the
/// image for as long as it uses the folders.
///
/// Layers come up to their digests, or this fails; limits are the constants of this module. A
/// device's file is not made, nor are attributes other than `user.*` and `security.capability`.
///
/// # Errors
/// [`Error`]: the layer and what is wrong with it.
pub fn ensure(store: &Store, image: &Image, owners: Owners) -> Result<Layers, Error> {
    of_layers(store, &image.layers, owners)
}

/// As [`ensure`], for what is not an image yet.
pub(crate) fn of_layers(store: &Store, layers: &[Layer], owners: Owners) -> Result<Layers, Error> {
    let layers = gather(store, layers, owners, |place, lowers| place.ensure(lowers).map(Some))?;
    // None is missing after it was ensured.
    Ok(layers.unwrap_or_default())
}

/// The layers, if all of them are unpacked; reads one small file a layer.
///
/// # Errors
/// [`Error`], if what is there cannot be read.
pub fn find(store: &Store, image: &Image, owners: Owners) -> Result<Option<Layers>, Error> {
    gather(store, &image.layers, owners, |place, _| place.find())
}

/// What is known of a layer that is unpacked: its folder, and what came of it.
type Found = (PathBuf, Marker);

/// Puts the layers of an image together; nothing if `of` has nothing for one of them.
fn gather(
    store: &Store,
    all: &[Layer],
    owners: Owners,
    of: impl Fn(&Place<'_>, &[PathBuf]) -> Result<Option<Found>, Error>,
) -> Result<Option<Layers>, Error> {
    let boot = boot_id()?;
    let mut layers = Layers::default();
    let mut chain: Option<Digest> = None;
    for layer in all {
        let below = chain_id(chain.as_ref(), &layer.diff_id);
        chain = Some(below);
        let place = Place { store, layer, chain: below, owners, boot: &boot };
        let found = of(&place, &layers.folders).map_err(|source| match source {
            Error::Store(error) => Error::Store(error),
            other => Error::Layer { layer: layer.diff_id, source: Box::new(other) },
        })?;
        let Some((folder, marker)) = found else { return Ok(None) };
        if marker.opaque {
            layers.folders.clear();
        }
        if marker.boot.is_some() {
            layers.unsettled.push(folder.join(COMPLETE));
        }
        layers.folders.insert(0, folder.join(TREE));
        layers.lost.owners += marker.lost.owners;
        layers.lost.devices += marker.lost.devices;
        layers.lost.attributes += marker.lost.attributes;
    }
    Ok(Some(layers))
}

impl Layers {
    /// Makes sure that what was unpacked outlasts a power cut, which takes as long as the disk needs;
    /// what is not settled is unpacked again after the machine's next start. The folders can be used
    /// before.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn settle(&self) -> Result<(), Error> {
        let Some(first) = self.unsettled.first() else { return Ok(()) };
        let failed = |source| Error::Folder { path: first.clone(), source };
        let disk = fs::File::open(first).map_err(failed)?;
        rustix::fs::syncfs(&disk).map_err(|it| failed(it.into()))?;
        for path in &self.unsettled {
            let failed = |source| Error::Folder { path: path.clone(), source };
            let text = fs::read(path).map_err(failed)?;
            let mut marker: Marker =
                serde_json::from_slice(&text).map_err(|it| failed(it.into()))?;
            marker.boot = None;
            write_marker(path, &marker).map_err(failed)?;
        }
        Ok(())
    }
}

/// What names a layer together with all those below it.
///
/// Ref: OCI image specification, "Layer ChainID".
#[must_use]
pub fn chain_id(below: Option<&Digest>, diff_id: &Digest) -> Digest {
    below.map_or(*diff_id, |below| Digest::of(format!("{below} {diff_id}").as_bytes()))
}

const TREE: &str = "tree";
const COMPLETE: &str = "complete";

/// One layer of one image.
struct Place<'a> {
    store: &'a Store,
    layer: &'a Layer,
    chain: Digest,
    owners: Owners,
    boot: &'a str,
}

impl Place<'_> {
    /// The folder of the layer, and what came of it. `lowers` are the trees below, topmost first.
    fn ensure(&self, lowers: &[PathBuf]) -> Result<Found, Error> {
        if let Some(found) = self.find()? {
            return Ok(found);
        }
        let home = self.store.layer_folder(&self.layer.diff_id);
        make_folder(&home)?;
        let failed = |source| Error::Folder { path: home.clone(), source };
        let lock = tree::open_root(&home).map_err(|it| failed(it.into()))?;
        let lock = fs::File::from(lock);
        lock.lock().map_err(failed)?;
        // Somebody else may have done it meanwhile.
        if let Some(found) = self.find()? {
            return Ok(found);
        }
        self.unpack(&home, &lock, lowers)
    }

    /// What is there, whether it is the layer's own or one of this chain only.
    fn find(&self) -> Result<Option<Found>, Error> {
        for hex in [&self.chain, &self.layer.diff_id] {
            let folder = self.store.layer_folder(hex).join(self.owners.name());
            let path = folder.join(COMPLETE);
            match fs::read(&path) {
                Ok(text) => {
                    // A power cut may have left nothing of it.
                    let marker: Option<Marker> = serde_json::from_slice(&text).ok();
                    let holds = |it: &Marker| it.boot.as_deref().is_none_or(|it| it == self.boot);
                    if let Some(marker) = marker.filter(holds) {
                        return Ok(Some((folder, marker)));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Folder { path, source }),
            }
        }
        Ok(None)
    }

    fn unpack(&self, home: &Path, lock: &fs::File, lowers: &[PathBuf]) -> Result<Found, Error> {
        let partial = format!("{}.partial", self.owners.name());
        let clear = |name: &str| {
            remove(lock, name.as_bytes())
                .map_err(|it| Error::Folder { path: home.join(name), source: it.into() })
        };
        clear(&partial)?;
        let partial = home.join(partial);
        make_folder(&partial.join(TREE))?;
        let blob = self.store.blob(&self.layer.digest)?;
        let (applied, found) = decompress::decompressed(
            blob,
            |stream| layer::apply(stream, &partial.join(TREE), self.owners, lowers),
            Error::Decompress,
        )?;
        if found != self.layer.diff_id {
            return Err(Error::Digest { found });
        }
        let marker = Marker {
            boot: Some(self.boot.to_owned()),
            opaque: applied.is_opaque,
            lost: applied.lost,
        };
        let path = partial.join(COMPLETE);
        write_marker(&path, &marker).map_err(|source| Error::Folder { path, source })?;
        let hex = if applied.is_of_chain { &self.chain } else { &self.layer.diff_id };
        let home = self.store.layer_folder(hex);
        make_folder(&home)?;
        let folder = home.join(self.owners.name());
        let failed = |source| Error::Folder { path: folder.clone(), source };
        // One whose marker no longer holds.
        let home = tree::open_root(&home).map_err(|it| failed(it.into()))?;
        remove(&home, self.owners.name().as_bytes()).map_err(|it| failed(it.into()))?;
        fs::rename(&partial, &folder).map_err(failed)?;
        Ok((folder, marker))
    }
}

/// Only the user's own: there are files in it that run as whoever owns them.
fn make_folder(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::Folder { path: path.to_owned(), source })
}

fn write_marker(path: &Path, marker: &Marker) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(marker)?)?;
    fs::rename(new, path)
}

fn boot_id() -> Result<String, Error> {
    let path = PathBuf::from("/proc/sys/kernel/random/boot_id");
    let id = fs::read_to_string(&path).map_err(|source| Error::Folder { path, source })?;
    Ok(id.trim().to_owned())
}

#[cfg(test)]
mod tests;
