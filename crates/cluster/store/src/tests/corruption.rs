//! Files that are not as they were written: refused by name and place, or cut if it is the tail.

use bytes::Bytes;
use expect_test::{Expect as Snapshot, expect};
use futures_util::FutureExt;
use proptest::prelude::*;

use super::{
    disk::Disk,
    model::{entries, open},
};
use crate::{Durability, Expect, OpenError, Revision, Store};

fn put(store: &Store, key: &str, size: usize) {
    let value = |revision: Revision| Bytes::from(vec![revision.get().to_le_bytes()[0]; size]);
    let key = Bytes::copy_from_slice(key.as_bytes());
    store.put(key, Expect::Any, value).now_or_never().unwrap().unwrap();
}

/// Three writes in one log file, at bytes 48, 112 and 176.
fn three_writes() -> Disk {
    let disk = Disk::new(0);
    let store = open(&disk, Durability::Disk).unwrap();
    for key in ["a", "b", "c"] {
        put(&store, key, 20);
    }
    disk
}

/// Changes a file and shows what opening says.
fn check(disk: &Disk, change: impl FnOnce(&mut Vec<(String, Vec<u8>)>), expected: &Snapshot) {
    let mut files = disk.files();
    change(&mut files);
    let disk = Disk::holding(&files);
    let shown = match open(&disk, Durability::Disk) {
        Ok(store) => {
            let keys: Vec<_> = entries(&store).into_keys().collect();
            format!("{keys:?} at revision {}", store.revision())
        }
        Err(error) => {
            assert_eq!(disk.files(), files, "a refused folder is not touched");
            error.to_string()
        }
    };
    expected.assert_eq(&shown);
}

#[test]
fn the_tail_is_cut_and_the_middle_refused() {
    let disk = three_writes();
    check(&disk, |_| (), &expect![[r#"[b"a", b"b", b"c"] at revision 3"#]]);
    // The value of the last record.
    check(&disk, |files| files[0].1[220] ^= 1, &expect![[r#"[b"a", b"b"] at revision 2"#]]);
    // Of the last, nothing has arrived but its end.
    check(&disk, |files| files[0].1[176..220].fill(0), &expect![[r#"[b"a", b"b"] at revision 2"#]]);
    check(&disk, |files| files[0].1.truncate(200), &expect![[r#"[b"a", b"b"] at revision 2"#]]);
    // The second: the third says that it had been durable.
    check(
        &disk,
        |files| files[0].1[112 + 50] ^= 1,
        &expect![
            "`/store/0000000000000001.log` is corrupt at byte 112: a record does not match its checksum"
        ],
    );
    check(
        &disk,
        |files| files[0].1[112] = 0,
        &expect!["`/store/0000000000000001.log` is corrupt at byte 112: a record has no length"],
    );
    check(
        &disk,
        |files| files[0].1[114] = 0xff,
        &expect!["`/store/0000000000000001.log` is corrupt at byte 112: a record is too long"],
    );
}

#[test]
fn headers() {
    let disk = three_writes();
    check(
        &disk,
        |files| files[0].1[24] ^= 1,
        &expect![
            "`/store/0000000000000001.log` is corrupt at byte 0: the header does not match its checksum"
        ],
    );
    check(
        &disk,
        |files| files[0].1[8] = 2,
        &expect![
            "`/store/0000000000000001.log` has format version 2, and this program reads up to 1"
        ],
    );
    check(
        &disk,
        |files| files[0].1.fill(0),
        &expect![
            "`/store/0000000000000001.log` is corrupt at byte 0: this is not a file of the store"
        ],
    );
    check(
        &disk,
        |files| files[0].0 = "0000000000000002.log".to_owned(),
        &expect!["`/store/0000000000000001.log` is missing"],
    );
    check(
        &disk,
        |files| {
            let bytes = files[0].1.clone();
            files.push(("0000000000000002.log".to_owned(), bytes));
        },
        &expect![
            "`/store/0000000000000002.log` is corrupt at byte 0: the header belongs to a file of another name"
        ],
    );
}

#[test]
fn strange_files_are_left_alone() {
    let disk = three_writes();
    disk.touch("notes.txt");
    disk.touch("0000000000000003.log.tmp");
    drop(open(&disk, Durability::Disk).unwrap());
    let names: Vec<_> = disk.files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["0000000000000001.log", "notes.txt"]);
}

/// Several log files and a snapshot.
fn compacted() -> Disk {
    let disk = Disk::new(0);
    let store = open(&disk, Durability::Disk).unwrap();
    for turn in 0..40 {
        put(&store, ["a", "b", "c"][turn % 3], 100);
    }
    disk
}

#[test]
fn compaction_leaves_one_snapshot_and_the_files_after_it() {
    let disk = compacted();
    let files = disk.files();
    let sizes: Vec<_> =
        files.iter().map(|(name, bytes)| format!("{name} {}", bytes.len())).collect();
    expect![[r#"
        [
            "0000000000000004.log 1056",
            "0000000000000004.snapshot 520",
            "0000000000000005.log 1056",
            "0000000000000006.log 1024",
        ]
    "#]]
    .assert_debug_eq(&sizes);
    check(
        &disk,
        |files| files.retain(|(name, _)| name.ends_with("snapshot")),
        &expect!["`/store/0000000000000004.log` is missing"],
    );
    check(
        &disk,
        |files| files.retain(|(name, _)| name.ends_with("log")),
        &expect!["`/store/0000000000000001.log` is missing"],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// One flipped bit is refused, or harmless, or takes away the last write alone.
    #[test]
    fn one_flipped_bit(which: prop::sample::Index, at: prop::sample::Index, bit in 0..8) {
        let disk = compacted();
        let whole = entries(&open(&disk, Durability::Disk).unwrap());
        let mut files = disk.files();
        let count = files.len();
        let (_, bytes) = &mut files[which.index(count)];
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        match open(&Disk::holding(&files), Durability::Disk) {
            Ok(store) if store.revision() == Revision::new(40) => {
                prop_assert_eq!(entries(&store), whole);
            }
            Ok(store) => {
                prop_assert_eq!(store.revision(), Revision::new(39));
                let differing = entries(&store).into_iter().filter(|(key, it)| whole[key] != *it);
                prop_assert_eq!(differing.count(), 1);
            }
            Err(OpenError::Corrupt { .. } | OpenError::Newer { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}
