//! Which appends are expected to be quick, so that their thread keeps its other tasks.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::{disk::Disk, model::config};
use crate::{Backend, BackendFile, Durability, Expect, Mode, Store};

/// A disk that can be slow to flush.
#[derive(Clone, Debug)]
struct Slow {
    disk: Arc<dyn Backend>,
    slow: Arc<AtomicBool>,
}

#[derive(Debug)]
struct File(Box<dyn BackendFile>, Slow);

impl Backend for Slow {
    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.disk.read(name)
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn BackendFile>> {
        Ok(Box::new(File(self.disk.open(name, mode)?, self.clone())))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }
}

impl BackendFile for File {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.1.slow.load(Ordering::Relaxed) {
            // What a flush of a rotating disk takes.
            thread::sleep(Duration::from_millis(8));
        }
        self.0.sync()
    }
}

#[test]
fn what_takes_long_is_foreseen() {
    let disk = Slow { disk: Disk::new(0).backend(), slow: Arc::default() };
    let store = Store::open_on(&config(Durability::Disk), Arc::new(disk.clone())).unwrap();
    // Writes a value of so many bytes; says whether that was expected to be quick.
    let put = |bytes: usize| {
        let (key, value) = (Bytes::from_static(b"a"), Bytes::from(vec![b'x'; bytes]));
        let (ticket, _) = store.submit_put(key, Expect::Any, |_| value).unwrap();
        store.shared().commit(ticket.log.unwrap());
        ticket.quick
    };
    assert!(put(1));
    assert!(!put(1 << 20), "there is no room reserved for so much");
    disk.slow.store(true, Ordering::Relaxed);
    put(1);
    assert!(!put(1));
    disk.slow.store(false, Ordering::Relaxed);
    assert!((0..100).any(|_| put(1)), "the disk is fast again");
}
