//! A disk in memory that fails on request and shows what a power cut may leave.
//!
//! It promises no more than [`Disk`] does: after a power cut, of everything that was not flushed
//! any sector may or may not be there, and any name may or may not have changed. One seed gives
//! one history, as long as its callers are as reproducible.
//!
//! ```ignore
//! let disk = Simulated::new(seed);
//! let log = open(disk.arc(), …);          // `Arc<dyn Disk>`
//! disk.fail_after(Some(3));               // three calls succeed, one fails, then all succeed
//! disk.leave_room(Some(1_000));           // the disk is full after so many more bytes
//! let disk = disk.power_cut();            // what a new machine finds; the old one is unaffected
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{Disk, DiskFile, Held, Mode};

/// What the disk writes at once, if at all. Smaller than a real one's, so that small tests have
/// many.
const SECTOR_BYTES: usize = 64;

/// A shared handle to the disk.
#[derive(Clone, Debug)]
pub(crate) struct Simulated(Arc<Mutex<State>>);

#[derive(Clone, Debug)]
struct State {
    files: Vec<Content>,
    names: Names,
    durable_names: Names,
    name_changes: Vec<NameChange>,
    locked: BTreeSet<PathBuf>,
    random: fastrand::Rng,
    boot: u64,
    /// How many calls succeed before one fails.
    fails_after: Option<usize>,
    /// Bytes that all files together may have.
    capacity: usize,
    /// Whether nobody is told how much room there is.
    secretive: bool,
}

type Names = BTreeMap<PathBuf, Entry>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Folder,
    File(usize),
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
    Make(PathBuf, Entry),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Simulated {
    pub(crate) fn new(seed: u64) -> Self {
        let names = Names::from([(PathBuf::from("/"), Entry::Folder)]);
        Self(Arc::new(Mutex::new(State {
            files: Vec::new(),
            durable_names: names.clone(),
            names,
            name_changes: Vec::new(),
            locked: BTreeSet::new(),
            random: fastrand::Rng::with_seed(seed),
            boot: 1,
            fails_after: None,
            capacity: usize::MAX,
            secretive: false,
        })))
    }

    /// As the users of a disk take it.
    pub(crate) fn arc(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// All files as they are now.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.lock_state();
        state.files().map(|(path, id)| (path.clone(), state.files[id].now.clone())).collect()
    }

    /// Gives a file this content, durably; its folder must be there. For tests of damage.
    pub(crate) fn put(&self, file: &Path, bytes: &[u8]) {
        let handle = self.open(file, Mode::Create).unwrap();
        handle.write_at(0, bytes).unwrap();
        handle.sync().unwrap();
        self.sync_folder(file.parent().unwrap()).unwrap();
    }

    /// Lets `calls` calls that change or flush something succeed, then one fail, then all succeed
    /// again. A write that fails may have written any part.
    pub(crate) fn fail_after(&self, calls: Option<usize>) {
        self.lock_state().fails_after = calls;
    }

    /// Lets all files together grow by so much more.
    pub(crate) fn leave_room(&self, bytes: Option<usize>) {
        let mut state = self.lock_state();
        state.capacity = bytes.map_or(usize::MAX, |it| state.used() + it);
    }

    /// Has [`Disk::free_bytes`] fail from now on, so that a full disk comes as a surprise.
    pub(crate) fn hide_room(&self) {
        self.lock_state().secretive = true;
    }

    /// What the disk may hold after losing power now; this disk goes on. Each call throws the
    /// dice anew.
    pub(crate) fn power_cut(&self) -> Self {
        let mut state = self.lock_state();
        let seed = state.random.u64(..);
        let mut image = state.clone();
        drop(state);
        image.random = fastrand::Rng::with_seed(seed);
        image.fails_after = None;
        image.locked.clear();
        image.boot += 1;
        // Sometimes everything or nothing of it has arrived, which chance alone would never do.
        let share = [0.0, 0.5, 0.9, 1.0][image.random.usize(..4)];
        for change in std::mem::take(&mut image.name_changes) {
            if image.random.f64() < share {
                change.apply(&mut image.durable_names);
            }
        }
        image.names = image.durable_names.clone();
        image.drop_unreachable();
        for content in &mut image.files {
            content.lose_power(&mut image.random, share);
        }
        Self(Arc::new(Mutex::new(image)))
    }

    /// The same disk seen by a new process after the old one was killed: nothing is lost, and
    /// nobody holds a lock.
    pub(crate) fn killed(&self) -> Self {
        let mut image = self.lock_state().clone();
        image.locked.clear();
        image.fails_after = None;
        Self(Arc::new(Mutex::new(image)))
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
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

    fn files(&self) -> impl Iterator<Item = (&PathBuf, usize)> {
        self.names.iter().filter_map(|(path, entry)| match entry {
            Entry::Folder => None,
            Entry::File(id) => Some((path, *id)),
        })
    }

    fn used(&self) -> usize {
        self.files().map(|(_, id)| self.files[id].now.len()).sum()
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        self.call()?;
        change.apply(&mut self.names);
        self.name_changes.push(change);
        Ok(())
    }

    fn folder_of(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|it| self.names.get(it)) {
            Some(Entry::Folder) => Ok(()),
            Some(Entry::File(_)) | None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn children<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a Entry)> {
        self.names.iter().filter(move |(path, _)| path.parent() == Some(folder))
    }

    fn sync_names(&mut self, folder: &Path) {
        for change in std::mem::take(&mut self.name_changes) {
            if change.path().parent() == Some(folder) {
                change.apply(&mut self.durable_names);
            } else {
                self.name_changes.push(change);
            }
        }
    }

    /// Takes away what is in a folder that is not there.
    fn drop_unreachable(&mut self) {
        let all = self.names.clone();
        let there = |path: &Path| {
            path.ancestors().skip(1).all(|above| all.get(above) == Some(&Entry::Folder))
        };
        self.names.retain(|path, _| there(path));
        self.durable_names.clone_from(&self.names);
    }

    fn write(&mut self, id: usize, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let outcome = self.call();
        let room = self.capacity.saturating_sub(self.used());
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
    fn path(&self) -> &Path {
        match self {
            Self::Make(path, _) | Self::Rename(path, _) | Self::Remove(path) => path,
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Make(name, entry) => {
                names.insert(name.clone(), *entry);
            }
            Self::Rename(from, to) => {
                if let Some(entry) = names.remove(from) {
                    names.insert(to.clone(), entry);
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
            Self::Write { offset, bytes: new } if !new.is_empty() => {
                bytes.resize(bytes.len().max(offset + new.len()), 0);
                bytes[*offset..offset + new.len()].copy_from_slice(new);
            }
            Self::Write { .. } => {}
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

    fn lose_power(&mut self, random: &mut fastrand::Rng, share: f64) {
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

impl Disk for Simulated {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let mut paths: Vec<&Path> = folder.ancestors().collect();
        paths.reverse();
        for path in paths {
            let mut state = self.lock_state();
            match state.names.get(path) {
                Some(Entry::Folder) => {}
                Some(Entry::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    state.change_name(NameChange::Make(path.to_owned(), Entry::Folder))?;
                    state.call()?;
                    state.sync_names(path.parent().unwrap());
                }
            }
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.lock_state();
        if state.names.get(folder) != Some(&Entry::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = state.children(folder).filter_map(|(path, _)| path.file_name());
        Ok(names.map(|it| it.to_str().unwrap().to_owned()).collect())
    }

    fn open(&self, file: &Path, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock_state();
        state.folder_of(file)?;
        let id = match (state.names.get(file).copied(), mode) {
            (Some(Entry::File(id)), Mode::Read | Mode::Write) => id,
            (Some(Entry::File(id)), Mode::Create) => {
                state.call()?;
                state.files[id].change(Change::SetLen(0));
                id
            }
            (None, Mode::Create) => {
                let id = state.files.len();
                state.files.push(Content::default());
                state.change_name(NameChange::Make(file.to_owned(), Entry::File(id)))?;
                id
            }
            (Some(Entry::Folder), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (None, Mode::Read | Mode::Write) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Box::new(Handle { disk: self.clone(), id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "a rename stays in its folder");
        let mut state = self.lock_state();
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        match state.names.get(file) {
            Some(Entry::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            Some(Entry::File(_)) => state.change_name(NameChange::Remove(file.to_owned())),
            None => Ok(()),
        }
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        for name in match self.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        } {
            self.remove(&folder.join(name))?;
        }
        self.lock_state().change_name(NameChange::Remove(folder.to_owned()))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        if state.names.get(folder) != Some(&Entry::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.call()?;
        state.sync_names(folder);
        Ok(())
    }

    fn lock(&self, file: &Path) -> io::Result<Option<Box<dyn Held>>> {
        if !self.lock_state().names.contains_key(file) {
            drop(self.open(file, Mode::Create)?);
        }
        let free = self.lock_state().locked.insert(file.to_owned());
        let lock = || Lock { disk: self.clone(), path: file.to_owned() };
        Ok(free.then(|| Box::new(lock()) as Box<dyn Held>))
    }

    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        let state = self.lock_state();
        if state.secretive {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(state.capacity.saturating_sub(state.used()) as u64)
    }

    fn boot(&self) -> u64 {
        self.lock_state().boot
    }
}

#[derive(Debug)]
struct Handle {
    disk: Simulated,
    id: usize,
}

impl DiskFile for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock_state().files[self.id].now.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.lock_state();
        let rest = state.files[self.id].now.get(usize::try_from(offset).unwrap()..);
        let rest = rest.unwrap_or_default();
        let read = rest.len().min(bytes.len());
        bytes[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.lock_state().write(self.id, usize::try_from(offset).unwrap(), bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock_state();
        state.call()?;
        state.files[self.id].change(Change::SetLen(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock_state();
        state.call()?;
        state.files[self.id].sync();
        Ok(())
    }
}

#[derive(Debug)]
struct Lock {
    disk: Simulated,
    path: PathBuf,
}

impl Held for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.lock_state().locked.remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What may be in the one file after a power cut, over many throws of the dice.
    fn outcomes(disk: &Simulated) -> BTreeSet<Option<Vec<u8>>> {
        (0..200)
            .map(|_| disk.power_cut())
            .map(|it| it.list(Path::new("/d")).is_ok().then(|| it.read(Path::new("/d/f")).ok()))
            .map(Option::flatten)
            .collect()
    }

    #[test]
    fn keeps_what_was_flushed_and_perhaps_more() {
        let disk = Simulated::new(1);
        disk.create_folder(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/f"), Mode::Create).unwrap();
        file.write_at(0, b"a").unwrap();
        assert_eq!(outcomes(&disk), [None, Some(vec![]), Some(b"a".to_vec())].into());
        file.sync().unwrap();
        assert_eq!(outcomes(&disk), [None, Some(b"a".to_vec())].into());
        disk.sync_folder(Path::new("/d")).unwrap();
        assert_eq!(outcomes(&disk), [Some(b"a".to_vec())].into());
        disk.remove_folder(Path::new("/d")).unwrap();
        assert_eq!(outcomes(&disk), [None, Some(b"a".to_vec())].into());
        disk.sync_folder(Path::new("/")).unwrap();
        assert_eq!(outcomes(&disk), [None].into());
    }

    #[test]
    fn what_was_written_later_may_arrive_alone() {
        let disk = Simulated::new(1);
        disk.create_folder(Path::new("/d")).unwrap();
        disk.put(Path::new("/d/f"), b"");
        let file = disk.open(Path::new("/d/f"), Mode::Write).unwrap();
        file.write_at(0, &[1; SECTOR_BYTES]).unwrap();
        file.write_at(SECTOR_BYTES as u64, b"b").unwrap();
        let mut alone = vec![0; SECTOR_BYTES];
        alone.push(b'b');
        assert!(outcomes(&disk).contains(&Some(alone)));
    }

    #[test]
    fn fails_on_request() {
        let disk = Simulated::new(1);
        let file = disk.arc().open(Path::new("/f"), Mode::Create).unwrap();
        disk.fail_after(Some(1));
        file.write_at(0, b"a").unwrap();
        assert!(file.sync().is_err() && file.sync().is_ok());
        disk.leave_room(Some(2));
        let error = file.write_at(1, b"bcd").unwrap_err();
        assert!(super::super::is_full(&error));
        assert_eq!(disk.files(), [("/f".into(), b"abc".to_vec())].into());
        assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 0);
    }

    #[test]
    fn a_lock_ends_with_its_holder() {
        let disk = Simulated::new(1);
        let held = disk.lock(Path::new("/l")).unwrap();
        assert!(held.is_some() && disk.lock(Path::new("/l")).unwrap().is_none());
        assert!(disk.killed().lock(Path::new("/l")).unwrap().is_some());
        drop(held);
        assert!(disk.lock(Path::new("/l")).unwrap().is_some());
    }
}
