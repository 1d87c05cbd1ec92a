//! What a log does when nothing goes wrong.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
};

use tokio::sync::watch;

use super::*;
use crate::{
    disk::{Disk, Folders, Mode},
    log::{AppendError, format, scan},
};

#[test]
fn messages_can_be_read_once_they_are_committed() {
    let disk = Simulated::new(1);
    let (log, recovered) = open(&disk, Durability::Disk);
    assert_eq!(recovered, Recovered::default());
    let delayed = NewMessage { delay: Duration::from_secs(1), ..message("b") };
    let keyed = NewMessage { key: Some(Bytes::from_static(b"k")), ..message("c") };
    let mut appended = log.append(NOW, &[message("a"), delayed, keyed]).unwrap();
    assert_eq!(appended.range, first()..first().after(3));
    assert_eq!(outcome(&mut appended), None);
    assert_eq!(log.read(first(), EVERYTHING).unwrap(), Read::End);
    let committed = log.committed();
    log.flush().unwrap();
    assert_eq!(outcome(&mut appended), Some(true));
    assert_eq!(*committed.borrow(), first().after(3));
    let messages = messages(&log.read_cached(first(), EVERYTHING).unwrap());
    assert_eq!(bodies(&messages), ["a", "b", "c"]);
    assert_eq!(messages[1].due, Some(later(1)));
    assert_eq!(messages[2].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(get(&log, first().after(1)).as_ref(), Some(&messages[1]));
    let disk = disk.power_cut();
    let (log, recovered) = open(&disk, Durability::Disk);
    assert_eq!(recovered, Recovered::default());
    assert_eq!(read_all(&log, EVERYTHING), (messages, vec![]));
}

/// What an earlier release wrote: see `tests/fixtures/README.md`.
#[test]
fn the_index_of_a_finished_segment_is_read() {
    let name = "00001795324020405580.log";
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let bytes = std::fs::read(fixtures.join("format-2/topics/long.topic").join(name)).unwrap();
    let header = format::Header::decode(&bytes).unwrap();
    let disk = Simulated::new(1);
    disk.create_folder(&dir()).unwrap();
    disk.put(&dir().join(name), &bytes);
    let file = disk.open(&dir().join(name), Mode::Read).unwrap();
    let found = scan::read_index(&*file, header.salt, header.first).unwrap().unwrap();
    assert_eq!(header.first.until(found.end), 18);
    // One at the latest after 64 KiB; a message has 60 000 bytes.
    let marks: Vec<u64> = found.marks.iter().map(|it| header.first.until(it.first)).collect();
    assert_eq!(marks, [0, 2, 4, 6, 8, 10, 12, 14, 16]);
}

/// Notes what was committed, by what watchers are told, at the moment of being woken.
struct Alarm {
    committed: watch::Receiver<Sequence>,
    seen: Mutex<Option<Sequence>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        *self.seen.lock().unwrap() = Some(*self.committed.borrow());
    }
}

#[test]
fn publishers_are_told_before_messages_are_handed_out() {
    for durability in [Durability::Disk, Durability::Process] {
        let disk = Simulated::new(1);
        let (log, _) = open(&disk, durability);
        let before = log.end();
        let appended = log.append(NOW, &[message("a")]).unwrap();
        let end = appended.range.end;
        let mut receipt = Box::pin(appended.committed());
        let alarm = Arc::new(Alarm { committed: log.committed(), seen: Mutex::default() });
        let waker = Waker::from(Arc::clone(&alarm));
        assert!(receipt.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        log.flush().unwrap();
        assert_eq!(*alarm.seen.lock().unwrap(), Some(before), "{durability:?}");
        assert!(receipt.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!((log.end(), *log.committed().borrow()), (end, end));
    }
}

#[test]
fn limits_are_kept_wherever_messages_are() {
    let disk = Simulated::new(1);
    let (log, _) = open(&disk, Durability::Disk);
    for batch in 0..40 {
        let messages: Vec<_> = (0..5).map(|it| message(&format!("{batch} {it}"))).collect();
        drop(log.append(NOW, &messages).unwrap());
        log.flush().unwrap();
    }
    let (cached, _) = read_all(&log, EVERYTHING);
    assert_eq!(cached.len(), 200);
    let disk = disk.killed();
    let (log, _) = open(&disk, Durability::Disk);
    for messages in [1, 2, 7, 1_000] {
        for bytes in [1, 10, 1_000] {
            let limit = ReadLimit { messages, bytes };
            assert_eq!(read_all(&log, limit), (cached.clone(), vec![]));
            let Read::Messages(some) = log.read(first(), limit).unwrap() else { panic!() };
            let count = some.iter().map(Run::len).sum::<usize>();
            assert!((1..=messages).contains(&count));
        }
    }
    for it in &cached {
        assert_eq!(get(&log, it.sequence).as_ref(), Some(it));
    }
    assert_eq!(get(&log, first().after(200)), None);
}

#[test]
fn messages_that_were_published_alone_are_read_together() {
    let disk = Simulated::new(1);
    let (log, _) = open(&disk, Durability::Memory);
    let large = "x".repeat(3_000);
    let published = (0..50).map(|it| it.to_string()).chain([large]).chain(["last".to_owned()]);
    let published: Vec<_> = published.collect();
    for it in &published {
        drop(log.append(NOW, &[message(it)]).unwrap());
    }
    for from in [0, 1, 20, 49, 50, 51] {
        let runs = log.read_cached(first().after(from as u64), EVERYTHING).unwrap();
        assert_eq!(bodies(&messages(&runs)), published[from..]);
        let alone = usize::from(from < 50) + usize::from(from <= 50) + 1;
        assert_eq!(runs.len(), alone, "from {from}");
    }
    let limit = ReadLimit { messages: 7, bytes: usize::MAX };
    let runs = log.read_cached(first().after(3), limit).unwrap();
    assert_eq!(bodies(&messages(&runs)), published[3..10]);
}

#[test]
fn whoever_reads_on_finds_what_follows_in_memory() {
    let disk = Simulated::new(1);
    let (log, _) = open(&disk, Durability::Disk);
    for _ in 0..20 {
        drop(log.append(NOW, &[message(&"x".repeat(50))]).unwrap());
        log.flush().unwrap();
    }
    let later = first().after(10); // In the same segment, and not in the same piece of a read.
    for (messages, there) in [(1, false), (2, true)] {
        let (log, _) = open(&disk.killed(), Durability::Disk);
        let limit = ReadLimit { messages, bytes: usize::MAX };
        assert!(matches!(log.read(first(), limit).unwrap(), Read::Messages(_)));
        assert_eq!(log.read_cached(later, EVERYTHING).is_some(), there, "of {messages}");
    }
}

#[test]
fn time_leads_to_a_message() {
    let disk = Simulated::new(1);
    let (log, _) = open(&disk, Durability::Disk);
    for second in 0..100 {
        drop(log.append(later(10 * second), &[message("a"), message("b")]).unwrap());
        log.flush().unwrap();
    }
    let check = |log: &Log| {
        assert_eq!(log.since(Nanos(0)).unwrap(), first());
        for second in 0..100 {
            assert_eq!(log.since(later(10 * second)).unwrap(), first().after(2 * second));
            assert_eq!(log.since(later(10 * second + 1)).unwrap(), first().after(2 * second + 2));
        }
    };
    check(&log);
    let disk = disk.power_cut();
    check(&open(&disk, Durability::Disk).0);
}

#[test]
fn finished_segments_go_when_retention_says_so() {
    let disk = Simulated::new(1);
    let retention = Retention { age: Some(Duration::from_secs(60)), bytes: None };
    let config = LogConfig { durability: Durability::Disk, retention };
    let (log, _) = try_open(&disk, config).unwrap();
    for second in 0..100 {
        drop(log.append(later(second), &[message(&"x".repeat(200))]).unwrap());
        log.flush().unwrap();
    }
    log.retire(first().after(50), later(100));
    log.flush().unwrap();
    let kept = log.first();
    assert!(kept > first().after(20) && kept <= first().after(40), "{kept}");
    assert_eq!(log.missing(first()..log.next()), first().until(kept));
    let Read::Skipped(damage) = log.read(first(), EVERYTHING).unwrap() else { panic!() };
    assert_eq!((damage.until, damage.why), (kept, crate::log::Why::Retired));
    // What is not finished stays, and what is finished goes in the end, also the last segment.
    log.retire(first().after(50), later(1_000));
    log.flush().unwrap();
    assert!(log.first() <= first().after(50) && log.first() > kept);
    log.retire(log.next(), later(1_000));
    log.flush().unwrap();
    log.flush().unwrap();
    assert_eq!((log.first(), log.next()), (first().after(100), first().after(100)));
    let disk = disk.power_cut();
    let (log, recovered) = try_open(&disk, config).unwrap();
    assert_eq!((log.first(), recovered), (first().after(100), Recovered::default()));
}

#[test]
fn size_is_a_reason_too() {
    let disk = Simulated::new(1);
    let retention = Retention { age: None, bytes: Some(5_000) };
    let (log, _) = try_open(&disk, LogConfig { durability: Durability::Disk, retention }).unwrap();
    for _ in 0..100 {
        drop(log.append(NOW, &[message(&"x".repeat(200))]).unwrap());
        log.flush().unwrap();
    }
    assert!(log.file_bytes() > 20_000);
    log.retire(log.next(), NOW);
    log.flush().unwrap();
    assert!((3_000..=5_000).contains(&log.file_bytes()), "{}", log.file_bytes());
}

#[test]
fn memory_mode_acknowledges_first_and_spills_later() {
    let disk = Simulated::new(1);
    let (log, _) = open(&disk, Durability::Memory);
    let mut appended = log.append(NOW, &[message("a")]).unwrap();
    assert_eq!(outcome(&mut appended), Some(true));
    assert_eq!(bodies(&messages(&log.read_cached(first(), EVERYTHING).unwrap())), ["a"]);
    // Killed, it is lost, and that shows.
    let (lost, recovered) = open(&disk.killed(), Durability::Memory);
    let (messages, skipped) = read_all(&lost, EVERYTHING);
    assert!(messages.is_empty() && skipped == recovered.damage && skipped.len() == 1);
    assert!(lost.next() > log.next());
    log.close(NOW).unwrap();
    let (log, recovered) = open(&disk.power_cut(), Durability::Memory);
    assert_eq!(recovered, Recovered::default());
    assert_eq!(bodies(&read_all(&log, EVERYTHING).0), ["a"]);
}

#[test]
fn process_mode_loses_nothing_when_only_the_process_dies() {
    let disk = Simulated::new(1);
    let (log, _) = open(&disk, Durability::Process);
    drop(log.append(NOW, &[message("a")]).unwrap());
    log.flush().unwrap();
    let (log, recovered) = open(&disk.killed(), Durability::Process);
    assert_eq!((log.next(), recovered), (first().after(1), Recovered::default()));
    // The machine may have lost something, so that numbers must not return.
    let (log, recovered) = open(&disk.power_cut(), Durability::Process);
    assert!(log.next() > first().after(1) && recovered.damage.len() == 1);
    // It is told once; then it is a known gap.
    drop(log.append(NOW, &[message("b")]).unwrap());
    log.flush().unwrap();
    assert_eq!(bodies(&read_all(&log, EVERYTHING).0).last(), Some(&"b"));
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    for secretive in [false, true] {
        let disk = Simulated::new(1);
        let (log, _) = open(&disk, Durability::Disk);
        if secretive {
            disk.hide_room();
        }
        drop(log.append(NOW, &[message("a")]).unwrap());
        log.flush().unwrap();
        disk.leave_room(Some(100));
        let mut one = log.append(NOW, &[message(&"b".repeat(100))]).unwrap();
        let mut two = log.append(NOW, &[message("c")]).unwrap();
        log.flush().unwrap();
        assert_eq!((outcome(&mut one), outcome(&mut two)), (Some(false), Some(false)));
        assert!(matches!(log.health(), Err(AppendError::NoSpace { .. })));
        disk.leave_room(None);
        let mut three = log.append(NOW, &[message("d")]).unwrap();
        assert_eq!(three.range, one.range);
        log.flush().unwrap();
        assert!(outcome(&mut three) == Some(true) && log.health().is_ok());
        let (log, recovered) = open(&disk.power_cut(), Durability::Disk);
        assert_eq!(bodies(&read_all(&log, EVERYTHING).0), ["a", "d"]);
        assert_eq!(recovered, Recovered::default());
    }
}

#[test]
fn a_full_disk_keeps_what_memory_mode_has_acknowledged() {
    let disk = Simulated::new(1);
    let (log, _) = open(&disk, Durability::Memory);
    disk.leave_room(Some(100));
    let mut acknowledged = 0;
    let big = message(&"x".repeat(1 << 20));
    let refused = loop {
        match log.append(NOW, std::slice::from_ref(&big)) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(log.flush().is_err());
        assert!(acknowledged < 100);
    };
    assert!(matches!(refused, AppendError::NoSpace { .. }));
    disk.leave_room(None);
    log.flush().unwrap();
    assert!(log.append(NOW, &[message("y")]).is_ok());
    assert_eq!(read_all(&log, EVERYTHING).0.len(), acknowledged + 1);
}

#[test]
fn a_failed_flush_ends_publishing() {
    let disk = Simulated::new(1);
    let (log, _) = open(&disk, Durability::Disk);
    drop(log.append(NOW, &[message("a")]).unwrap());
    log.flush().unwrap();
    disk.fail_after(Some(1));
    let mut appended = log.append(NOW, &[message("b")]).unwrap();
    assert!(log.flush().is_err());
    assert_eq!(outcome(&mut appended), Some(false));
    assert!(matches!(log.append(NOW, &[message("c")]), Err(AppendError::Failed { .. })));
    assert_eq!(bodies(&read_all(&log, EVERYTHING).0), ["a"]);
    assert!(log.close(NOW).is_err());
}

#[test]
fn too_much_at_once_waits() {
    let disk = Simulated::new(1);
    let memory = MemoryLimits { waiting_bytes: 1 << 20, recent_bytes: 1 << 20 };
    let committers = Committers::start(disk.arc(), memory, 0).unwrap();
    let (log, _) = Log::open(&committers, dir(), config(Durability::Disk), NOW).unwrap();
    let big = message(&"x".repeat(600 << 10));
    drop(log.append(NOW, std::slice::from_ref(&big)).unwrap());
    assert!(matches!(log.append(NOW, std::slice::from_ref(&big)), Err(AppendError::Full)));
    log.flush().unwrap();
    assert!(log.append(NOW, &[big]).is_ok());
}

#[test]
fn an_ephemeral_log_has_the_newest() {
    let disk = Simulated::new(1);
    let log = Log::ephemeral(&committers(&disk), 3, NOW);
    for text in ["a", "b", "c", "d", "e"] {
        drop(log.append(NOW, &[message(text)]).unwrap());
    }
    assert_eq!(bodies(&read_all(&log, EVERYTHING).0), ["c", "d", "e"]);
    assert_eq!(log.missing(first()..log.next()), 2);
    log.retire(first().after(4), NOW);
    assert_eq!(bodies(&read_all(&log, EVERYTHING).0), ["e"]);
    log.close(NOW).unwrap();
    assert!(log.append(NOW, &[message("f")]).is_err());
    assert!(disk.files().is_empty());
}

#[test]
fn a_deleted_log_leaves_nothing() {
    let disk = Simulated::new(1);
    let (log, _) = open(&disk, Durability::Disk);
    let appended = log.append(NOW, &[message("a")]).unwrap();
    log.delete().unwrap();
    let mut appended = appended;
    assert_eq!(outcome(&mut appended), None);
    assert!(matches!(log.append(NOW, &[message("b")]), Err(AppendError::Closed)));
    assert!(disk.power_cut().files().is_empty());
}

#[test]
fn a_closed_log_can_still_be_read_closed_and_deleted() {
    let disk = Simulated::new(1);
    let (log, _) = open(&disk, Durability::Disk);
    drop(log.append(NOW, &[message("a")]).unwrap());
    log.close(NOW).unwrap();
    log.flush().unwrap();
    log.close(NOW).unwrap();
    assert_eq!(bodies(&read_all(&log, EVERYTHING).0), ["a"]);
    let (again, recovered) = open(&disk.killed(), Durability::Disk);
    assert_eq!((again.next(), recovered), (first().after(1), Recovered::default()));
    log.delete().unwrap();
    log.delete().unwrap();
    assert!(disk.files().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_commit_for_many_publishers() {
    let home = tempfile::tempdir().unwrap();
    let disk = Arc::new(Folders);
    let committers = Committers::start(disk, MemoryLimits::default(), 2).unwrap();
    let open = |topic| {
        let dir = home.path().join(format!("t{topic}"));
        Log::open(&committers, dir, config(Durability::Disk), NOW).unwrap().0
    };
    let logs: Vec<Log> = (0..3).map(open).collect();
    let mut publishers = tokio::task::JoinSet::new();
    for publisher in 0..24 {
        let log = logs[publisher % 3].clone();
        publishers.spawn(async move {
            for it in 0..20 {
                let batch = [message(&format!("{publisher} {it}")), message("x")];
                log.append(NOW, &batch).unwrap().committed().await.unwrap();
            }
        });
    }
    while let Some(done) = publishers.join_next().await {
        done.unwrap();
    }
    for log in logs {
        let (messages, skipped) = read_all(&log, EVERYTHING);
        assert_eq!((messages.len(), skipped.len()), (8 * 20 * 2, 0));
        log.close(NOW).unwrap();
    }
    committers.close();
    let committers = Committers::start(Arc::new(Folders), MemoryLimits::default(), 0);
    let (log, recovered) =
        Log::open(&committers.unwrap(), home.path().join("t1"), config(Durability::Disk), NOW)
            .unwrap();
    assert_eq!(recovered, Recovered::default());
    assert_eq!(read_all(&log, EVERYTHING).0.len(), 320);
}
