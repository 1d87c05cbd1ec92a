//! A folder for what is on its way into a layer: in the store's staging folder, where what a killed
//! build leaves is removed by the store's next collection.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::{Store, unpack};

/// The folder. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    /// Locked: a collection leaves it alone as long as this process lives.
    folder: fs::File,
}

impl Scratch {
    pub(super) fn new(store: &Store) -> io::Result<Self> {
        let path = store.fresh_staging_path().map_err(io::Error::other)?;
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let folder = fs::File::open(&path)?;
        folder.lock()?;
        Ok(Self { path, folder })
    }

    /// An empty folder of that name.
    pub(super) fn empty(&self, name: &str) -> io::Result<PathBuf> {
        self.clear(name)?;
        let path = self.path.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// Removes what has that name.
    pub(super) fn clear(&self, name: &str) -> io::Result<()> {
        Ok(unpack::remove(&self.folder, name.as_bytes())?)
    }

    fn remove(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            unpack::remove(&self.folder, std::os::unix::ffi::OsStrExt::as_bytes(name.as_os_str()))?;
        }
        fs::remove_dir(&self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(path = %self.path.display(), %error, "a build's folder stays");
        }
    }
}
