//! Single operations on a real folder.

use std::{fmt::Write as _, path::Path};

use bytes::Bytes;
use expect_test::expect;
use futures_util::FutureExt;

use crate::{
    Config, Durability, Entry, EventKind, Expect, OpenError, Range, Revision, Store, Watch,
    WatchError, WriteError,
};

fn config(dir: &Path) -> Config {
    Config::new(dir.join("store"))
}

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(&config(dir.path())).unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn put(store: &Store, key: &str, value: &str) -> u64 {
    let value = bytes(value);
    store.put(bytes(key), Expect::Any, |_| value).await.unwrap().modified.get()
}

async fn delete(store: &Store, key: &str) -> u64 {
    let last = |_: Revision, entry: &Entry| entry.value.clone();
    store.delete(key.as_bytes(), Expect::Any, last).await.unwrap().modified.get()
}

fn shown(entry: &Entry) -> String {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let (created, modified) = (entry.created, entry.modified);
    format!("{}={} created {created} modified {modified}", text(&entry.key), text(&entry.value))
}

/// The events that are there already, one a line.
fn drained(watch: &mut Watch) -> String {
    let mut lines = String::new();
    while watch.has_next() {
        match watch.next().now_or_never().unwrap() {
            Some(Ok(event)) => {
                let kind = if event.kind == EventKind::Put { "put" } else { "delete" };
                let previous = event.previous.as_ref().map_or("-".to_owned(), shown);
                writeln!(lines, "{kind} {}, before {previous}", shown(&event.entry)).unwrap();
            }
            Some(Err(lagged)) => writeln!(lines, "{lagged}").unwrap(),
            None => return lines + "end\n",
        }
    }
    lines
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    assert_eq!(put(&store, "a", "1").await, 1);
    assert_eq!(put(&store, "a", "2").await, 2);
    assert_eq!(put(&store, "b", "3").await, 3);
    assert_eq!(delete(&store, "b").await, 4);
    drop(store);
    let store = open(&dir);
    assert_eq!(store.revision(), Revision::new(4));
    assert_eq!(shown(&store.get(b"a").unwrap()), "a=2 created 1 modified 2");
    assert_eq!(store.get(b"b"), None);
    assert_eq!(put(&store, "c", "").await, 5);
}

#[tokio::test]
async fn a_write_happens_only_if_the_key_is_as_expected() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let write = async |expect| match store.put(bytes("a"), expect, |_| bytes("x")).await {
        Ok(entry) => entry.modified.to_string(),
        Err(WriteError::Conflict { current }) => {
            format!("conflict with {}", current.as_ref().map_or("-".to_owned(), shown))
        }
        Err(other) => other.to_string(),
    };
    assert_eq!(write(Expect::Modified(Revision::new(1))).await, "conflict with -");
    assert_eq!(write(Expect::Absent).await, "1");
    assert_eq!(write(Expect::Absent).await, "conflict with a=x created 1 modified 1");
    assert_eq!(write(Expect::Modified(Revision::new(1))).await, "2");
    let stale = write(Expect::Modified(Revision::new(1))).await;
    assert_eq!(stale, "conflict with a=x created 1 modified 2");
    let gone = store.delete(b"b", Expect::Any, |_, _| Bytes::new()).await;
    assert!(matches!(gone, Err(WriteError::Conflict { current: None })));
    assert_eq!(store.revision(), Revision::new(2));
}

#[tokio::test]
async fn the_value_is_made_for_its_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, "a", "1").await;
    let value = |revision: Revision| bytes(&format!("at {revision}"));
    let entry = store.put(bytes("a"), Expect::Any, value).await.unwrap();
    assert_eq!(shown(&entry), "a=at 2 created 1 modified 2");
    let last = |revision: Revision, entry: &Entry| {
        bytes(&format!("{} until {revision}", String::from_utf8_lossy(&entry.value)))
    };
    let entry = store.delete(b"a", Expect::Any, last).await.unwrap();
    assert_eq!(shown(&entry), "a=at 2 until 3 created 1 modified 3");
}

#[tokio::test]
async fn pages() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for key in ["a/1", "a/2", "a/3", "b/1", "a", "c"] {
        put(&store, key, "").await;
    }
    let check = |prefix: &str, after: Option<&str>, limit| {
        let after = after.map(str::as_bytes);
        let page = store.range(Range { prefix: prefix.as_bytes(), after, limit });
        let keys: Vec<_> =
            page.entries.iter().map(|it| String::from_utf8_lossy(&it.key).into_owned()).collect();
        format!("{} and {} more at {}", keys.join(" "), page.remaining, page.revision)
    };
    assert_eq!(check("a/", None, None), "a/1 a/2 a/3 and 0 more at 6");
    assert_eq!(check("a/", None, Some(2)), "a/1 a/2 and 1 more at 6");
    assert_eq!(check("a/", Some("a/2"), Some(2)), "a/3 and 0 more at 6");
    assert_eq!(check("a/", Some("a/3"), Some(2)), " and 0 more at 6");
    // After a key of another prefix: nothing is skipped or repeated.
    assert_eq!(check("b/", Some("a/2"), None), "b/1 and 0 more at 6");
    assert_eq!(check("a/", Some("b/1"), None), " and 0 more at 6");
    assert_eq!(check("", None, Some(1)), "a and 5 more at 6");
}

#[tokio::test]
async fn a_watch_shows_its_prefix_from_its_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, "a/1", "old").await;
    put(&store, "b/1", "other").await;
    put(&store, "a/1", "new").await;
    let mut watch = store.watch(b"a/", Revision::new(1)).unwrap();
    delete(&store, "a/1").await;
    expect![[r#"
        put a/1=new created 1 modified 3, before a/1=old created 1 modified 1
        delete a/1=new created 1 modified 4, before a/1=new created 1 modified 3
    "#]]
    .assert_eq(&drained(&mut watch));
    assert_eq!(watch.progress(), Some(Revision::new(4)));
    put(&store, "b/1", "other").await;
    assert_eq!((watch.progress(), watch.has_next()), (Some(Revision::new(5)), false));
    assert!(watch.next().now_or_never().is_none());
    put(&store, "a/2", "more").await;
    assert_eq!(watch.progress(), Some(Revision::new(5)));
    assert_eq!(drained(&mut watch), "put a/2=more created 6 modified 6, before -\n");
    drop(store);
    assert_eq!(drained(&mut watch), "end\n");
}

#[tokio::test]
async fn a_watch_goes_on_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    delete(&store, "a").await;
    drop(store);
    let store = open(&dir);
    let mut watch = store.watch(b"", Revision::new(1)).unwrap();
    expect![[r#"
        put a=2 created 1 modified 2, before a=1 created 1 modified 1
        delete a=2 created 1 modified 3, before a=2 created 1 modified 2
    "#]]
    .assert_eq(&drained(&mut watch));
}

#[tokio::test]
async fn a_watch_wakes_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut watch = store.watch(b"a", Revision::ZERO).unwrap();
    let (event, revision) = tokio::join!(watch.next(), async {
        tokio::task::yield_now().await;
        put(&store, "b", "").await;
        put(&store, "a", "").await
    });
    assert_eq!(event.unwrap().unwrap().revision().get(), revision);
}

#[tokio::test]
async fn the_history_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { history_events_max: 2, ..config(dir.path()) };
    let store = Store::open(&config).unwrap();
    let mut slow = store.watch(b"a", Revision::ZERO).unwrap();
    let mut quiet = store.watch(b"q", Revision::ZERO).unwrap();
    assert!(quiet.next().now_or_never().is_none());
    for _ in 0..3 {
        put(&store, "a", "").await;
    }
    let oldest = Revision::new(1);
    assert_eq!(store.watch(b"", Revision::ZERO).unwrap_err(), WatchError::Compacted { oldest });
    let newest = Revision::new(3);
    assert_eq!(store.watch(b"", Revision::new(4)).unwrap_err(), WatchError::Future { newest });
    expect![[r#"
        the watch has fallen behind: the history begins after revision 1
        end
    "#]]
    .assert_eq(&drained(&mut slow));
    // It missed nothing of its own, however much has happened elsewhere.
    put(&store, "q", "").await;
    assert_eq!(drained(&mut quiet), "put q= created 4 modified 4, before -\n");
}

#[tokio::test]
async fn the_folder_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let second = Store::open(&config(dir.path()));
    assert!(matches!(second, Err(OpenError::Locked { dir: it }) if it == config(dir.path()).dir));
    // A watch that is still around does not hold it.
    let _watch = store.watch(b"", Revision::ZERO).unwrap();
    drop(store);
    drop(open(&dir));
}

#[tokio::test]
async fn too_large() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let large = Bytes::from(vec![0; (8 << 20) + 1]);
    let value = large.clone();
    let error = store.put(bytes("a"), Expect::Any, |_| value).await.unwrap_err();
    expect!["value of 8388609 bytes is over the limit of 8388608"].assert_eq(&error.to_string());
    let error = store.put(large, Expect::Any, |_| Bytes::new()).await.unwrap_err();
    expect!["key of 8388609 bytes is over the limit of 4096"].assert_eq(&error.to_string());
    assert_eq!(put(&store, "a", "").await, 1);
}

/// Revisions that may have been seen before the machine crashed must not return.
#[tokio::test]
async fn unflushed_logs_go_on_at_a_distance() {
    let dir = tempfile::tempdir().unwrap();
    let process = Config { durability: Durability::Process, ..config(dir.path()) };
    let store = Store::open(&process).unwrap();
    put(&store, "a", "1").await;
    drop(store);
    for config in [process, config(dir.path()), config(dir.path())] {
        let store = Store::open(&config).unwrap();
        assert_eq!(shown(&store.get(b"a").unwrap()), "a=1 created 1 modified 1");
        let revision = store.revision();
        assert!(matches!(store.watch(b"", Revision::new(1)), Err(WatchError::Compacted { .. })));
        assert_eq!(put(&store, "b", "").await, revision.get() + 1);
    }
    let revision = open(&dir).revision().get();
    // Opened twice after it had been written to without flushing, and twice after not.
    assert_eq!(revision, 1 + 2 * (1 << 20) + 3);
}

/// A later writer is judged against what is on its way, and nobody reads it yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let count = async || {
        let mut won = 0;
        while won < 50 {
            let current =
                store.get(b"n").map_or(Expect::Absent, |it| Expect::Modified(it.modified));
            let value = |revision: Revision| bytes(&revision.to_string());
            match store.put(bytes("n"), current, value).await {
                Ok(_) => won += 1,
                Err(WriteError::Conflict { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    tokio::join!(count(), count(), count(), count());
    assert_eq!(shown(&store.get(b"n").unwrap()), "n=200 created 1 modified 200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_loses_finds_another_entry() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, "a", "").await;
    let change = |store: Store| async move {
        let mut lost = 0;
        for _ in 0..100 {
            let seen = store.get(b"a").unwrap().modified;
            let expect = Expect::Modified(seen);
            match store.put(bytes("a"), expect, |_| bytes("")).await {
                Ok(_) => {}
                Err(WriteError::Conflict { .. }) => {
                    assert!(seen < store.get(b"a").unwrap().modified);
                    lost += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        lost
    };
    let tasks = [(); 8].map(|()| change(store.clone()));
    #[expect(
        clippy::disallowed_methods,
        reason = "only threads of their own get in each other's way"
    )]
    let tasks = tasks.map(tokio::spawn);
    let lost = futures_util::future::join_all(tasks).await;
    assert!(lost.into_iter().map(Result::unwrap).sum::<i32>() > 0);
}
