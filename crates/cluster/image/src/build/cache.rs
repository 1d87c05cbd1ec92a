//! Which layer a step made: by digest of all that it depends on. A layer that the store has
//! collected meanwhile is no longer known.

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Compression, Digest, Layer, Store};

/// Most steps that are remembered, some hundred bytes each; the oldest are forgotten.
const STEPS_MAX: usize = 10_000;

/// The steps of a store.
#[derive(Debug)]
pub(super) struct Cache<'a> {
    store: &'a Store,
    folder: PathBuf,
    is_read: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Step {
    digest: Digest,
    diff_id: Digest,
    size: u64,
}

impl<'a> Cache<'a> {
    /// `is_read`: what is remembered is made use of.
    pub(super) fn open(store: &'a Store, is_read: bool) -> io::Result<Self> {
        let folder = store.folder().join("steps");
        fs::create_dir_all(&folder)?;
        Ok(Self { store, folder, is_read })
    }

    /// The layer that a step of this key made, if it is still there.
    pub(super) fn find(&self, key: &Digest) -> Option<Layer> {
        if !self.is_read {
            return None;
        }
        // What cannot be read is made anew.
        let text = fs::read(self.folder.join(key.hex())).ok()?;
        let Step { digest, diff_id, size } = serde_json::from_slice(&text).ok()?;
        let is_there = self.store.blob_size(&digest).ok()? == Some(size);
        is_there.then_some(Layer { digest, diff_id, size, compression: Compression::Gzip })
    }

    /// Remembers what a step made.
    pub(super) fn note(&self, key: &Digest, layer: &Layer) -> io::Result<()> {
        let Layer { digest, diff_id, size, .. } = *layer;
        let path = self.folder.join(key.hex());
        let new = path.with_extension(std::process::id().to_string());
        fs::write(&new, serde_json::to_vec(&Step { digest, diff_id, size })?)?;
        fs::rename(new, path)
    }

    /// Forgets what is no longer there, and the oldest of what is too much.
    pub(super) fn tidy(&self) -> io::Result<()> {
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            let text = fs::read(&path)?;
            let step: Option<Step> = serde_json::from_slice(&text).ok();
            let is_there = |it: &Step| self.store.blob_path(&it.digest).exists();
            // Another build may be writing one that is no step yet.
            if path.extension().is_none() && !step.as_ref().is_some_and(is_there) {
                remove(&path)?;
            } else {
                steps.push((entry.metadata()?.modified()?, path));
            }
        }
        steps.sort();
        let surplus = steps.len().saturating_sub(STEPS_MAX);
        steps.iter().take(surplus).try_for_each(|(_, path)| remove(path))
    }
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
