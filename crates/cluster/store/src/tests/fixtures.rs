//! Data folders of every released format version: they must open, and today's code must still
//! write the same bytes, or it is time for a new version.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use expect_test::expect;
use futures_util::FutureExt;

use super::{
    disk::Disk,
    model::{entries, open},
};
use crate::{Durability, Expect, Range, Revision, Store};

fn folder(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{version}"))
}

pub(super) fn committed(version: u32) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder(version))
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn put(store: &Store, key: &str, value: &str) {
    let value = Bytes::copy_from_slice(value.as_bytes());
    let key = Bytes::copy_from_slice(key.as_bytes());
    store.put(key, Expect::Any, |_| value).now_or_never().unwrap().unwrap();
}

/// Makes a folder with a snapshot and two log files, with every kind of record.
fn written_now() -> Vec<(String, Vec<u8>)> {
    let disk = Disk::new(0);
    let store = open(&disk, Durability::Disk).unwrap();
    put(&store, "/registry/empty", "");
    for turn in 0..30 {
        put(&store, "/registry/often", &"often ".repeat(turn));
    }
    put(&store, "/registry/gone", "for a while");
    let last = |revision: Revision, _: &_| Bytes::from(format!("gone at {revision}"));
    store.delete(b"/registry/gone", Expect::Any, last).now_or_never().unwrap().unwrap();
    put(&store, "/registry/last", "last");
    disk.files()
}

#[test]
fn format_1_opens() {
    let store = open(&Disk::holding(&committed(1)), Durability::Disk).unwrap();
    let page = store.range(Range::default());
    let shown: Vec<_> = page
        .entries
        .iter()
        .map(|it| {
            let key = String::from_utf8_lossy(&it.key);
            format!("{key} {} bytes, {} to {}", it.value.len(), it.created, it.modified)
        })
        .collect();
    expect![[r#"
        [
            "/registry/empty 0 bytes, 1 to 1",
            "/registry/last 4 bytes, 34 to 34",
            "/registry/often 174 bytes, 2 to 31",
        ]
    "#]]
    .assert_debug_eq(&shown);
    let mut watch = store.watch(b"/registry/gone", Revision::new(32)).unwrap();
    let event = watch.next().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(event.entry.value, "gone at 33");
    put(&store, "/registry/new", "");
    assert_eq!((page.revision.get(), store.revision().get()), (34, 35));
    assert_eq!(entries(&store).len(), 4);
}

#[test]
fn format_1_is_what_is_written() {
    assert!(written_now() == committed(1), "the format has changed without a new version");
}
