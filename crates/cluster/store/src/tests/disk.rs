//! A disk in memory that fails on request and shows what a crash may leave.
//!
//! It promises no more than [`Backend`] does: after a crash, of everything that was not flushed
//! any sector may or may not be there, and any name may or may not have changed.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::backend::{Backend, BackendFile, Mode};

/// What the disk writes at once, if at all.
const SECTOR_BYTES: usize = 64;

/// A shared handle to the disk.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Clone, Debug)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    random: fastrand::Rng,
    /// How many calls succeed before one fails.
    fails_after: Option<usize>,
    /// Bytes that all files together may have.
    capacity: usize,
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Make(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            fails_after: None,
            capacity: usize::MAX,
        })))
    }

    /// A disk that holds these files.
    pub(super) fn holding(files: &[(String, Vec<u8>)]) -> Self {
        let disk = Self::new(0);
        for (name, bytes) in files {
            disk.open(name, Mode::Create).unwrap().write_at(0, bytes).unwrap();
        }
        disk
    }

    /// Makes an empty file.
    pub(super) fn touch(&self, name: &str) {
        drop(self.open(name, Mode::Create).unwrap());
    }

    /// A coin.
    pub(super) fn toss(&self) -> bool {
        self.lock().random.bool()
    }

    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }

    /// All files as they are now.
    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let state = self.lock();
        state.names.iter().map(|(name, id)| (name.clone(), state.files[*id].now.clone())).collect()
    }

    /// Lets `calls` calls succeed, then one fail, then all succeed again.
    pub(super) fn fail_after(&self, calls: Option<usize>) {
        self.lock().fails_after = calls;
    }

    /// Lets all files together grow by so much more.
    pub(super) fn leave_room(&self, bytes: Option<usize>) {
        let mut state = self.lock();
        let used: usize = state.names.values().map(|it| state.files[*it].now.len()).sum();
        state.capacity = bytes.map_or(usize::MAX, |it| used + it);
    }

    /// What the disk may hold after losing power now.
    pub(super) fn crashed(&self) -> Self {
        let mut state = self.lock();
        let seed = state.random.u64(..);
        let mut image = state.clone();
        drop(state);
        image.random = fastrand::Rng::with_seed(seed);
        image.fails_after = None;
        // Sometimes everything or nothing of it has arrived, which chance alone would never do.
        let share = [0.0, 0.5, 0.9, 1.0][image.random.usize(..4)];
        for change in std::mem::take(&mut image.name_changes) {
            if image.random.f64() < share {
                change.apply(&mut image.durable_names);
            }
        }
        image.names = image.durable_names.clone();
        for content in &mut image.files {
            content.crash(&mut image.random, share);
        }
        Self(Arc::new(Mutex::new(image)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn call(&mut self) -> io::Result<()> {
        match self.fails_after {
            Some(0) => {
                self.fails_after = None;
                Err(io::Error::other("injected"))
            }
            Some(calls) => {
                self.fails_after = Some(calls - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        self.call()?;
        change.apply(&mut self.names);
        self.name_changes.push(change);
        Ok(())
    }

    fn write(&mut self, id: usize, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let outcome = self.call();
        let used: usize = self.names.values().map(|it| self.files[*it].now.len()).sum();
        let room = self.capacity.saturating_sub(used);
        let fits = (self.files[id].now.len() + room).saturating_sub(offset).min(bytes.len());
        // A failed write may have written anything up to all of it.
        let written = if outcome.is_ok() { fits } else { self.random.usize(..=fits) };
        let change = Change::Write { offset, bytes: bytes[..written].to_vec() };
        self.files[id].change(change);
        outcome?;
        if written < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Make(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: new } => {
                bytes.resize(bytes.len().max(offset + new.len()), 0);
                bytes[*offset..offset + new.len()].copy_from_slice(new);
            }
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }

    /// Its parts that arrive on the disk independently of each other.
    fn sectors(self) -> Vec<Self> {
        let Self::Write { offset, bytes } = self else { return vec![self] };
        let mut sectors = Vec::new();
        let mut rest = &bytes[..];
        let mut at = offset;
        while !rest.is_empty() {
            let size = (SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len());
            sectors.push(Self::Write { offset: at, bytes: rest[..size].to_vec() });
            (at, rest) = (at + size, &rest[size..]);
        }
        sectors
    }
}

impl Content {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.changes.push(change);
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.now);
        self.changes.clear();
    }

    fn crash(&mut self, random: &mut fastrand::Rng, share: f64) {
        for change in std::mem::take(&mut self.changes) {
            for part in change.sectors() {
                if random.f64() < share {
                    part.apply(&mut self.durable);
                }
            }
        }
        self.now.clone_from(&self.durable);
    }
}

impl Backend for Disk {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.call()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut state = self.lock();
        state.call()?;
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.files[id].now.clone())
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn BackendFile>> {
        let mut state = self.lock();
        let known = state.names.get(name).copied();
        let id = match (known, mode) {
            (Some(id), Mode::Existing) => {
                state.call()?;
                id
            }
            (None, Mode::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (Some(id), Mode::Create) => {
                state.call()?;
                state.files[id].change(Change::SetLen(0));
                id
            }
            (None, Mode::Create) => {
                let id = state.files.len();
                state.files.push(Content::default());
                state.change_name(NameChange::Make(name.to_owned(), id))?;
                id
            }
        };
        drop(state);
        Ok(Box::new(Handle { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.lock().change_name(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock().change_name(NameChange::Remove(name.to_owned()))
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.call()?;
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        Ok(())
    }
}

#[derive(Debug)]
struct Handle {
    disk: Disk,
    id: usize,
}

impl BackendFile for Handle {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.lock().write(self.id, usize::try_from(offset).unwrap(), bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.call()?;
        state.files[self.id].change(Change::SetLen(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.call()?;
        state.files[self.id].sync();
        Ok(())
    }
}
