//! Backups: files, folders, stores in memory.

use bytes::Bytes;
use expect_test::expect;
use proptest::prelude::*;

use crate::{
    Backup, BackupError, Config, Expect, InstallError, Range, Revision, Store, WatchError,
};

async fn put(store: &Store, key: &str, value: &str) {
    let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
    store.put(key, Expect::Any, |_| value).await.unwrap();
}

fn shown(store: &Store) -> String {
    let page = store.range(Range::prefix(b""));
    let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
    let entries = page
        .entries
        .iter()
        .map(|it| format!(" {}={} {}/{}", text(&it.key), text(&it.value), it.created, it.modified));
    format!("{}:{}", page.revision, entries.collect::<String>())
}

async fn filled() -> Store {
    let store = Store::in_memory().unwrap();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
        put(&store, key, value).await;
    }
    store.delete(b"b", Expect::Any, |_, it| it.value.clone()).await.unwrap();
    store
}

fn file(backup: &Backup) -> Vec<u8> {
    backup.pieces().flatten().collect()
}

#[tokio::test]
async fn a_store_in_memory_forks_and_the_two_go_apart() {
    let one = filled().await;
    let two = one.backup().into_memory().unwrap();
    put(&one, "a", "one").await;
    put(&two, "d", "two").await;
    expect!["6: a=one 1/6 c=4 4/4"].assert_eq(&shown(&one));
    expect!["6: a=3 1/3 c=4 4/4 d=two 6/6"].assert_eq(&shown(&two));
    assert!(two.watch(b"", Revision::new(5)).is_ok());
    assert!(matches!(two.watch(b"", Revision::new(4)), Err(WatchError::Compacted { .. })));
}

#[tokio::test]
async fn a_backup_becomes_a_folder_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("store");
    let backup = Backup::read(&file(&filled().await.backup())).unwrap();
    backup.install(&folder).unwrap();
    assert!(matches!(backup.install(&folder), Err(InstallError::Exists { .. })));
    let store = Store::open(&Config::new(folder.clone())).unwrap();
    expect!["5: a=3 1/3 c=4 4/4"].assert_eq(&shown(&store));
    put(&store, "d", "5").await;
    drop(store);
    let store = Store::open(&Config::new(folder)).unwrap();
    expect!["6: a=3 1/3 c=4 4/4 d=5 6/6"].assert_eq(&shown(&store));
    let names: Vec<_> = dir.path().read_dir().unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["store"]);
}

#[tokio::test]
async fn what_replaces_a_store_goes_on_after_it() {
    let backup = filled().await.backup();
    assert_eq!(backup.clone().no_earlier_than(Revision::new(3)).revision(), Revision::new(5));
    let later = backup.no_earlier_than(Revision::new(100));
    let store = Backup::read(&file(&later)).unwrap().into_memory().unwrap();
    put(&store, "d", "5").await;
    expect!["101: a=3 1/3 c=4 4/4 d=5 101/101"].assert_eq(&shown(&store));
}

#[tokio::test]
async fn no_byte_of_a_file_can_change_or_be_missing() {
    let whole = file(&filled().await.backup());
    for position in 0..whole.len() {
        let mut changed = whole.clone();
        *changed.get_mut(position).unwrap() ^= 1;
        // Padding after a record means nothing, and says nothing wrong.
        if let Ok(read) = Backup::read(&changed) {
            assert_eq!(file(&read), whole, "byte {position}");
        }
        let cut = Backup::read(whole.get(..position).unwrap());
        assert!(cut.is_err(), "cut at {position}");
    }
    let longer = [whole.as_slice(), &[0; 8]].concat();
    assert!(matches!(Backup::read(&longer), Err(BackupError::Corrupt { .. })));
}

proptest! {
    #[test]
    fn files_of_any_size_read_back(sizes in prop::collection::vec(0_usize..200_000, 0..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = Store::in_memory().unwrap();
        for (number, size) in sizes.iter().enumerate() {
            runtime.block_on(put(&store, &format!("{number:02}"), &"x".repeat(*size)));
        }
        let backup = store.backup();
        let read = Backup::read(&file(&backup)).unwrap();
        prop_assert_eq!(read.len(), sizes.len());
        prop_assert_eq!(shown(&read.into_memory().unwrap()), shown(&store));
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Backup::read(&bytes).is_err());
    }
}
