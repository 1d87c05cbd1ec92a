//! Who may run an image without asking its registry first: what was fetched with somebody's credentials
//! is not everybody's.
//!
//! An image that was fetched for somebody else than the user has a record, `pulled/HEX`, by the digest of
//! its configuration, which is the same under whatever name or manifest it is found. The record says for each
//! repository who has shown that he may fetch it. It is there before the image is, so whoever is killed
//! in between leaves nothing open. An image without a record came by the user's own hand, and so did a
//! name that the user gave: these are everybody's.
//!
//! Of credentials only a digest is kept, another one for each image.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Store};
use crate::{Descriptor, Digest, Image, Platform, Reference};

/// Most holders that are remembered of an image in a repository; who is forgotten asks the registry again.
const HOLDERS_MAX: usize = 100;

/// Whom an image was given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Everybody: it was given to the user, or to nobody in particular.
    Everybody,
    /// Who has one of these credentials.
    Holders(Vec<Holder>),
}

/// A credential, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Where it was found. What is found there later is as good.
    pub(crate) origin: String,
    /// A digest of it, of the image and of the repository.
    pub(crate) credential: Digest,
}

/// By repository.
type Record = BTreeMap<String, Access>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Access {
    #[serde(default)]
    everybody: bool,
    /// The oldest first.
    #[serde(default)]
    holders: Vec<Holder>,
}

impl Access {
    fn add(&mut self, grant: &Grant) {
        match grant {
            Grant::Everybody => self.everybody = true,
            Grant::Holders(holders) => {
                for holder in holders {
                    if !self.holders.contains(holder) {
                        // Of one place only the last is remembered.
                        self.holders.retain(|it| it.origin != holder.origin);
                        self.holders.push(holder.clone());
                    }
                }
                let excess = self.holders.len().saturating_sub(HOLDERS_MAX);
                self.holders.drain(..excess);
            }
        }
    }
}

impl Store {
    /// Whether this image may be run by a name of this repository without asking there, by who has these
    /// credentials.
    pub(crate) fn admits(
        &self,
        image: &Digest,
        repository: &str,
        holders: &[Holder],
    ) -> Result<bool, Error> {
        let Some(record) = self.record(image)? else { return Ok(true) };
        let Some(access) = record.get(repository) else { return Ok(false) };
        let knows = |one: &Holder| {
            let same = |it: &Holder| it.credential == one.credential || it.origin == one.origin;
            access.holders.iter().any(same)
        };
        Ok(access.everybody || holders.iter().any(knows))
    }

    /// Whether somebody was given an image by this repository, or it is everybody's.
    pub(crate) fn is_of(&self, image: &Digest, repository: &str) -> Result<bool, Error> {
        Ok(self.record(image)?.is_none_or(|it| it.contains_key(repository)))
    }

    /// Notes whom an image was given to. An image without a record stays everybody's, unless this is
    /// about to `bring` it.
    pub(crate) fn admit(
        &self,
        image: &Digest,
        repository: &str,
        grant: &Grant,
        bring: bool,
    ) -> Result<(), Error> {
        let _lock = self.lock()?;
        let known = self.record(image)?;
        if known.is_none() && !bring {
            return Ok(());
        }
        let mut record = known.clone().unwrap_or_default();
        record.entry(repository.to_owned()).or_default().add(grant);
        if known.as_ref() == Some(&record) {
            return Ok(());
        }
        let path = self.record_path(image);
        let bytes = serde_json::to_vec(&record)
            .map_err(|source| Error::Damaged { path: path.clone(), source })?;
        self.replace(&path, &bytes)
    }

    /// The user gives an image a name: by that, it is everybody's.
    pub(super) fn open_to_everybody(
        &self,
        reference: &Reference,
        target: &Descriptor,
    ) -> Result<(), Error> {
        let records = self.records_folder();
        let mut entries =
            fs::read_dir(&records).map_err(|source| Error::io("list", &records, source))?;
        if entries.next().is_none() {
            return Ok(());
        }
        // One for other machines has no record.
        let Ok(image) = Image::read(self, target, &Platform::host()) else { return Ok(()) };
        self.admit(&image.id, &reference.name(), &Grant::Everybody, false)
    }

    /// One that cannot be read knows nobody, so that registries are asked.
    fn record(&self, image: &Digest) -> Result<Option<Record>, Error> {
        let path = self.record_path(image);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::io("read", &path, source)),
        };
        let record = serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "record of an image not understood");
            Record::new()
        });
        Ok(Some(record))
    }

    pub(super) fn records_folder(&self) -> PathBuf {
        self.folder.join("pulled")
    }

    fn record_path(&self, image: &Digest) -> PathBuf {
        self.records_folder().join(image.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(origin: &str, credential: &str) -> Holder {
        Holder { origin: origin.to_owned(), credential: Digest::of(credential.as_bytes()) }
    }

    fn open() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("images")).unwrap();
        (folder, store)
    }

    #[test]
    fn what_was_not_fetched_for_others_is_everybodys() {
        let (_folder, store) = open();
        let image = Digest::of(b"image");
        assert!(store.admits(&image, "r.test/a", &[]).unwrap());
        store.admit(&image, "r.test/a", &Grant::Holders(Vec::new()), false).unwrap();
        assert!(store.admits(&image, "r.test/a", &[]).unwrap());
    }

    #[test]
    fn who_has_shown_a_credential_may_again() {
        let (_folder, store) = open();
        let (image, ann) = (Digest::of(b"image"), holder("ann", "1"));
        store.admit(&image, "r.test/a", &Grant::Holders(vec![ann.clone()]), true).unwrap();
        let admits = |repository: &str, holders: &[Holder]| {
            // As after a restart.
            Store::open(store.folder()).unwrap().admits(&image, repository, holders).unwrap()
        };
        assert!(!admits("r.test/a", &[]));
        assert!(admits("r.test/a", std::slice::from_ref(&ann)));
        assert!(admits("r.test/a", &[holder("bob", "2"), holder("bob", "1")]));
        assert!(admits("r.test/a", &[holder("ann", "changed")]));
        assert!(!admits("r.test/a", &[holder("bob", "2")]));
        // Another repository has not been asked.
        assert!(!admits("r.test/b", std::slice::from_ref(&ann)));
        store.admit(&image, "r.test/a", &Grant::Everybody, false).unwrap();
        assert!(admits("r.test/a", &[]));
    }

    #[test]
    fn a_damaged_record_admits_nobody_and_is_mended() {
        let (_folder, store) = open();
        let image = Digest::of(b"image");
        fs::write(store.record_path(&image), "{").unwrap();
        assert!(!store.admits(&image, "r.test/a", &[holder("ann", "1")]).unwrap());
        let grant = Grant::Holders(vec![holder("ann", "1")]);
        store.admit(&image, "r.test/a", &grant, false).unwrap();
        assert!(store.admits(&image, "r.test/a", &[holder("ann", "1")]).unwrap());
    }

    #[test]
    fn records_are_bounded() {
        let (_folder, store) = open();
        let image = Digest::of(b"image");
        for number in 0..=HOLDERS_MAX {
            let one = holder(&format!("o{number}"), &format!("c{number}"));
            store.admit(&image, "r.test/a", &Grant::Holders(vec![one]), true).unwrap();
        }
        assert!(!store.admits(&image, "r.test/a", &[holder("o0", "c0")]).unwrap());
        assert!(store.admits(&image, "r.test/a", &[holder("o1", "c1")]).unwrap());
    }
}
