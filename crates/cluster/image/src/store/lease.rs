//! Who needs what: leases of living processes, and claims that outlive them.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{Error, Store, blob::is_at};
use crate::Digest;

/// Content that this process needs while the lease lives: blobs and unpacked layers by their digests,
/// there or not yet. A lease ends when it is dropped, or its process dies.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    file: fs::File,
    path: PathBuf,
}

impl Store {
    /// A lease of nothing yet.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn lease(&self) -> Result<Lease, Error> {
        let _lock = self.lock()?;
        let fresh = self.fresh_staging_path()?;
        let path = self.folder.join("leases").join(fresh.file_name().unwrap_or_default());
        let open = || {
            let file = fs::OpenOptions::new().append(true).create_new(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        let file = open().map_err(|source| Error::io("create", &path, source))?;
        Ok(Lease { store: self.clone(), file, path })
    }

    /// Says which images somebody needs until he says otherwise, and replaces what he said before: the
    /// pods of a cluster. `owner` is the name of a file. An empty set removes the claim.
    ///
    /// What is claimed is the digest of a manifest or an index, with all that it refers to. A power cut may
    /// undo it, as it ends what the images were needed for.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn claim(&self, owner: &str, images: &BTreeSet<Digest>) -> Result<(), Error> {
        let _lock = self.lock()?;
        let path = self.folder.join("claims").join(owner);
        if owner.is_empty() || owner.contains('/') || owner.starts_with('.') {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file");
            return Err(Error::io("claim for", &path, source));
        }
        if images.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other.map_err(|source| Error::io("remove", &path, source)),
            };
        }
        let text: String = images.iter().map(|it| format!("{it}\n")).collect();
        let fresh = self.fresh_staging_path()?;
        fs::write(&fresh, text.as_bytes())
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|source| Error::io("write", &path, source))
    }

    /// Removes the claims of all owners whose names begin so: of a cluster that is no more.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn release_all(&self, prefix: &str) -> Result<(), Error> {
        let _lock = self.lock()?;
        for path in files(&self.folder.join("claims"))? {
            let name = path.file_name().unwrap_or_default();
            if name.to_string_lossy().starts_with(prefix) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// What all claims name.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn claimed(&self) -> Result<BTreeSet<Digest>, Error> {
        let mut found = BTreeSet::new();
        for path in files(&self.folder.join("claims"))? {
            found.extend(read_digests(&path)?);
        }
        Ok(found)
    }

    /// What living leases name; the others are removed. The caller holds the lock.
    pub(super) fn leased(&self) -> Result<BTreeSet<Digest>, Error> {
        let mut found = BTreeSet::new();
        for path in files(&self.folder.join("leases"))? {
            let file = match fs::File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(Error::io("open", &path, source)),
            };
            match file.try_lock() {
                Ok(()) => remove(&path)?,
                Err(fs::TryLockError::WouldBlock) => found.extend(read_digests(&path)?),
                Err(fs::TryLockError::Error(source)) => {
                    return Err(Error::io("lock", &path, source));
                }
            }
        }
        Ok(found)
    }
}

impl Lease {
    /// Adds content to the lease. What is there after this, stays there.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn hold(&self, digests: impl IntoIterator<Item = Digest>) -> Result<(), Error> {
        let text: String = digests.into_iter().map(|it| format!("{it}\n")).collect();
        let _lock = self.store.lock()?;
        (&self.file)
            .write_all(text.as_bytes())
            .map_err(|source| Error::io("write", &self.path, source))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Ok(true) = is_at(&self.path, &self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "lease's file stays");
        }
    }
}

/// The files of a folder, in order.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(|source| Error::io("list", folder, source))?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|it| Ok(it?.path())).collect();
    let mut paths = paths.map_err(|source| Error::io("list", folder, source))?;
    paths.sort();
    Ok(paths)
}

pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| Error::io("remove", path, source)),
    }
}

/// The digests in a file, one a line. A line cut off by a kill was never promised to anybody.
fn read_digests(path: &Path) -> Result<Vec<Digest>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|it| it.parse().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::io("read", path, source)),
    }
}
