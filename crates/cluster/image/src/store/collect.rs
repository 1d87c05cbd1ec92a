//! What nobody needs is removed: content without a name, and names when the disk is nearly full.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    Error, Store,
    lease::{files, remove},
    names::Named,
};
use crate::{
    Digest, Platform,
    image::{Document, Image},
    spec::ImageConfig,
    unpack::chain_id,
};

/// How long the rest of an interrupted download stays to be gone on with.
const REST_AGE_MAX: Duration = Duration::from_hours(24);

/// How long an image must not have been used for a full disk to take it: it may have come for a pod that
/// is about to claim it. The kubelet's `imageMinimumGCAge`.
const USED_AGO_MIN: Duration = Duration::from_mins(2);

/// What is removed beside content that nothing refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: all that has a name stays.
    Nameless,
    /// Names that are not in use, least recently used first, while the disk is fuller than `high`
    /// percent and until it is at most `low` percent full. The kubelet's are 85 and 80.
    Pressure {
        /// When it begins.
        high: u8,
        /// When it ends.
        low: u8,
    },
    /// All names that are not in use.
    Unused,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Names of images.
    pub names: Vec<String>,
    /// Blobs.
    pub blobs: usize,
    /// Bytes of blobs; what layers had is not counted.
    pub bytes: u64,
    /// Unpacked layers.
    pub layers: usize,
    /// What this user may not remove outside of a user namespace that maps its subordinate ids: folders
    /// with files of those. The next collection inside of one removes them.
    pub left: Vec<PathBuf>,
}

impl Store {
    /// Removes what neither a name, a claim, a living lease nor `keep` refers to, and what `policy`
    /// adds. `keep` has digests of manifests or indexes.
    ///
    /// Safe while others pull, unpack and run: what they hold by lease or claim stays.
    ///
    /// # Errors
    ///
    /// What the system says. What was removed until then is removed.
    pub fn collect(&self, keep: &BTreeSet<Digest>, policy: Policy) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        if let Policy::Pressure { high, .. } = policy
            && self.used_percent()? <= u64::from(high)
        {
            // What nothing refers to may be of use to the next build or pull.
            return Ok(collected);
        }
        self.sweep(keep, policy != Policy::Nameless, &mut collected)?;
        loop {
            let removed = match policy {
                Policy::Nameless => false,
                Policy::Unused => {
                    self.forget(keep, (usize::MAX, Duration::ZERO), &mut collected)?
                }
                Policy::Pressure { high, low } => {
                    // Once begun, it goes on to the low mark.
                    let mark = if collected.names.is_empty() { high } else { low };
                    self.used_percent()? > u64::from(mark)
                        && self.forget(keep, (1, USED_AGO_MIN), &mut collected)?
                }
            };
            if !removed {
                return Ok(collected);
            }
            self.sweep(keep, true, &mut collected)?;
        }
    }

    /// How full the disk of the store is, as an ordinary user sees it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn used_percent(&self) -> Result<u64, Error> {
        let found = rustix::fs::statvfs(&*self.folder)
            .map_err(|error| Error::io("look at the disk of", &self.folder, error.into()))?;
        let free = u128::from(found.f_bavail) * 100 / u128::from(found.f_blocks.max(1));
        Ok(100 - u64::try_from(free).unwrap_or(100).min(100))
    }

    /// Takes the names of up to `count` images away that were not used for `age`, least recently used
    /// first; whether there were any.
    fn forget(
        &self,
        keep: &BTreeSet<Digest>,
        (count, age): (usize, Duration),
        collected: &mut Collected,
    ) -> Result<bool, Error> {
        let _lock = self.lock()?;
        let mut used = keep.clone();
        used.extend(self.claimed()?);
        used.extend(self.leased()?);
        let names = self.list()?;
        let mut unused: BTreeMap<(Option<SystemTime>, Digest), Vec<&Named>> = BTreeMap::new();
        for named in &names {
            // Who needs an image names it; a blob is also another image's.
            if self.manifests(named.target.digest).is_disjoint(&used) {
                let path = self.blob_path(&named.target.digest);
                let touched = fs::metadata(path).and_then(|it| it.modified()).ok();
                if age > touched.and_then(|it| it.elapsed().ok()).unwrap_or(age) {
                    continue;
                }
                unused.entry((touched, named.target.digest)).or_default().push(named);
            }
        }
        let gone: Vec<&Named> = unused.into_values().take(count).flatten().collect();
        if gone.is_empty() {
            return Ok(false);
        }
        collected.names.extend(gone.iter().map(|it| it.name.clone()));
        let kept: Vec<Named> = names.iter().filter(|it| !gone.contains(it)).cloned().collect();
        self.write_names(&kept).map(|()| true)
    }

    fn sweep(
        &self,
        keep: &BTreeSet<Digest>,
        rests_too: bool,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        let trash = {
            let _lock = self.lock()?;
            let mut needed = BTreeSet::new();
            let roots = self.list()?.into_iter().map(|it| it.target.digest);
            for root in roots.chain(keep.iter().copied()).chain(self.claimed()?) {
                self.reach(root, &mut needed);
            }
            for root in self.leased()? {
                self.reach(root, &mut needed);
            }
            self.sweep_blobs(&needed, collected)?;
            self.sweep_records()?;
            self.sweep_layers(&needed, collected)?
        };
        let mut leftovers = self.leftovers(rests_too)?;
        leftovers.extend(trash);
        leftovers.sort();
        leftovers.dedup();
        collected.left.clear();
        for path in leftovers {
            match remove_tree(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    collected.left.push(path);
                }
                Err(source) => return Err(Error::io("remove", &path, source)),
            }
        }
        Ok(())
    }

    fn sweep_blobs(
        &self,
        needed: &BTreeSet<Digest>,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        for path in files(&self.folder.join("blobs/sha256"))? {
            if !is_needed(&path, needed) {
                collected.bytes += fs::metadata(&path).map_or(0, |it| it.len());
                collected.blobs += 1;
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes what is noted of images that are no more.
    fn sweep_records(&self) -> Result<(), Error> {
        for path in files(&self.records_folder())? {
            let here = match digest_in(&path) {
                Some(image) => self.blob_size(&image)?.is_some(),
                None => false,
            };
            if !here {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Moves layers out of the way, which is quick; to remove them takes longer than the lock is held.
    fn sweep_layers(
        &self,
        needed: &BTreeSet<Digest>,
        collected: &mut Collected,
    ) -> Result<Vec<PathBuf>, Error> {
        let mut trash = Vec::new();
        for path in files(&self.layers_folder())? {
            if !is_needed(&path, needed) {
                let away = self.fresh_staging_path()?;
                fs::rename(&path, &away).map_err(|it| Error::io("move away", &path, it))?;
                collected.layers += 1;
                trash.push(away);
            }
        }
        Ok(trash)
    }

    /// What lies in the staging folder and belongs to no living process. Rests of downloads are left
    /// for a day, unless `rests_too`.
    fn leftovers(&self, rests_too: bool) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        for path in files(&self.staging_folder())? {
            let file = match fs::File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(Error::io("open", &path, source)),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => continue,
                Err(fs::TryLockError::Error(source)) => {
                    return Err(Error::io("lock", &path, source));
                }
            }
            // A file's age is asked of the file system, whose clock gave it its time.
            let age = file.metadata().and_then(|it| it.modified()).ok();
            let old = age.and_then(|it| it.elapsed().ok()).is_some_and(|it| it > REST_AGE_MAX);
            if digest_in(&path).is_none() || rests_too || old {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// All that a digest refers to, itself first: manifests of an index, configuration and layers of a
    /// manifest, unpacked layers of a configuration. What is not there refers to nothing.
    fn reach(&self, root: Digest, reached: &mut BTreeSet<Digest>) {
        let mut next = vec![root];
        while let Some(digest) = next.pop() {
            if !reached.insert(digest) {
                continue;
            }
            let Ok(bytes) = self.document(&digest) else {
                continue;
            };
            match Document::parse(&bytes) {
                Some(Document::Index(index)) => {
                    next.extend(index.manifests.iter().map(|it| it.digest));
                }
                Some(Document::Manifest(manifest)) => {
                    reached.extend(manifest.layers.iter().map(|it| it.digest));
                    next.push(manifest.config.digest);
                }
                None => {
                    if let Ok(config) = serde_json::from_slice::<ImageConfig>(&bytes) {
                        let diff_ids = &config.rootfs.diff_ids;
                        reached.extend(diff_ids);
                        // Some layers are unpacked for those below them only.
                        let mut below = None;
                        for diff_id in diff_ids {
                            let chain = chain_id(below.as_ref(), diff_id);
                            reached.insert(chain);
                            below = Some(chain);
                        }
                    }
                }
            }
        }
    }

    /// A manifest or index, and the manifests in the index.
    fn manifests(&self, root: Digest) -> BTreeSet<Digest> {
        let mut found = BTreeSet::new();
        let mut next = vec![root];
        while let Some(digest) = next.pop() {
            if !found.insert(digest) {
                continue;
            }
            let bytes = self.document(&digest).unwrap_or_default();
            if let Some(Document::Index(index)) = Document::parse(&bytes) {
                next.extend(index.manifests.iter().map(|it| it.digest));
            }
        }
        found
    }

    /// How many bytes an image has in blobs, and when it was used last. For lists.
    ///
    /// # Errors
    ///
    /// As [`Image::read`], or what the system says.
    pub fn size_and_use(
        &self,
        named: &Named,
    ) -> Result<(u64, SystemTime), crate::image::ImageError> {
        let image = Image::read(self, &named.target, &Platform::host())?;
        let path = self.blob_path(&named.target.digest);
        let used = fs::metadata(&path)
            .and_then(|it| it.modified())
            .map_err(|source| Error::io("look at", &path, source))?;
        Ok((image.size(), used))
    }
}

fn is_needed(path: &Path, needed: &BTreeSet<Digest>) -> bool {
    digest_in(path).is_some_and(|it| needed.contains(&it))
}

fn digest_in(path: &Path) -> Option<Digest> {
    path.file_name().and_then(OsStr::to_str).and_then(|it| Digest::from_hex(it).ok())
}

/// Removes a file, or a folder with all that is in it, also where its folders may not be written to.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.is_dir() {
        return fs::remove_file(path);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn make_writable(folder: &Path) -> io::Result<()> {
    let mut next = vec![folder.to_owned()];
    while let Some(folder) = next.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                next.push(entry.path());
            }
        }
    }
    Ok(())
}
