//! Files that are not as they were written.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::{
    disk::{
        Disk,
        rot::{Rot, rot},
    },
    log::{Damage, Why},
};

/// The bytes of a file before its first frame.
const HEADER: usize = 64;

/// A log of several segments, in batches of two, each flushed alone.
fn written(durability: Durability, close: bool) -> (Simulated, Vec<Message>) {
    let disk = Simulated::new(1);
    let (log, _) = open(&disk, durability);
    for batch in 0..30 {
        let messages = [message(&format!("{batch} first")), message(&"x".repeat(100 + batch))];
        drop(log.append(later(batch as u64), &messages).unwrap());
        log.flush().unwrap();
    }
    let (messages, _) = read_all(&log, EVERYTHING);
    assert_eq!(messages.len(), 60);
    if close {
        log.close(NOW).unwrap();
    }
    (disk.killed(), messages)
}

fn files(disk: &Simulated) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.files();
    assert!(files.len() >= 3, "{files:?}");
    files
}

/// More than the usual, and as many as `PROPTEST_CASES` says if that is more.
fn cases() -> ProptestConfig {
    let standard = ProptestConfig::default();
    ProptestConfig { cases: standard.cases.max(400), ..standard }
}

/// What becomes of a log's files: one of them rots, goes, or has another's bytes.
#[derive(Clone, Debug)]
enum Accident {
    Rots(Index, Rot),
    Goes(Index),
    Swaps(Index, Index),
}

fn accident() -> impl Strategy<Value = Accident> {
    let file = any::<Index>;
    prop_oneof![
        8 => (file(), rot()).prop_map(|(file, rot)| Accident::Rots(file, rot)),
        1 => file().prop_map(Accident::Goes),
        1 => (file(), file()).prop_map(|(one, other)| Accident::Swaps(one, other)),
    ]
}

fn befall(disk: &Simulated, accident: &Accident) {
    let files: Vec<(PathBuf, Vec<u8>)> = disk.files().into_iter().collect();
    if files.is_empty() {
        return;
    }
    match accident {
        Accident::Rots(file, rot) => {
            let (path, mut bytes) = file.get(&files).clone();
            rot.apply(&mut bytes);
            disk.put(&path, &bytes);
        }
        Accident::Goes(file) => disk.remove(&file.get(&files).0).unwrap(),
        Accident::Swaps(one, other) => {
            let ((one, first), (other, second)) = (one.get(&files), other.get(&files));
            disk.put(one, second);
            disk.put(other, first);
        }
    }
}

/// What is there is what was written, and what is not there is said.
fn check(disk: &Simulated, written: &[Message]) -> (Recovered, Vec<Damage>) {
    let (log, recovered) = open(disk, Durability::Disk);
    let (messages, skipped) = read_all(&log, EVERYTHING);
    let by_sequence: BTreeMap<_, _> = written.iter().map(|it| (it.sequence, it)).collect();
    for it in &messages {
        assert_eq!(by_sequence[&it.sequence], it);
    }
    let accounted: u64 = skipped.iter().map(|it| it.from.until(it.until)).sum();
    assert_eq!(messages.len() as u64 + accounted, log.first().until(log.next()));
    assert_eq!(log.missing(log.first()..log.next()), accounted);
    // Publishing goes on behind all that was.
    let next = log.next();
    drop(log.append(NOW, &[message("new")]).unwrap());
    log.flush().unwrap();
    assert_eq!(bodies(&read_all(&log, EVERYTHING).0).last(), Some(&"new"));
    let (again, _) = open(&disk.killed(), Durability::Disk);
    assert_eq!(again.next(), next.after(1));
    assert_eq!(bodies(&read_all(&again, EVERYTHING).0).last(), Some(&"new"));
    (recovered, skipped)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn one_flipped_bit_is_found(file in any::<Index>(), at in any::<Index>(), bit in 0..8_u8, close: bool) {
        let (disk, messages) = written(Durability::Disk, close);
        let files = files(&disk);
        let (path, bytes) = file.get(&files.iter().collect::<Vec<_>>()).to_owned();
        let mut bytes = bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        disk.put(path, &bytes);
        let last = files.keys().next_back() == Some(path);
        let (recovered, skipped) = check(&disk, &messages);
        let lost: u64 = skipped.iter().map(|it| it.from.until(it.until)).sum();
        if at < HEADER {
            // The messages are there; what else the header would have said is assumed to be bad.
            prop_assert!(skipped.len() <= 1 && skipped.iter().all(|it| it.why == Why::Unflushed));
        } else if last {
            // What was settled is skipped, and of the very last batch nobody can know.
            prop_assert!(lost == 2 || recovered.cut_bytes > 0);
        } else {
            // The index of a segment may be what was hit.
            prop_assert!(lost == 2 || lost == 0);
        }
        if close {
            let there = 60 - lost.min(2);
            prop_assert!(open(&disk, Durability::Disk).0.next() >= first().after(there));
        }
    }

    /// Whatever happens to the files: the log is refused, or what can be read is what was written, and
    /// all else within its bounds is said to be missing.
    #[test]
    fn any_damage_is_told(accidents in vec(accident(), 1..4), close: bool) {
        let (disk, messages) = written(Durability::Disk, close);
        accidents.iter().for_each(|it| befall(&disk, it));
        let before = disk.files();
        match try_open(&disk, config(Durability::Disk)) {
            Ok((log, _)) => drop(log),
            Err(error) => {
                let told = matches!(error, OpenError::Corrupt { .. } | OpenError::Newer { .. });
                prop_assert!(told, "{error}");
                prop_assert_eq!(disk.files(), before);
                return Ok(());
            }
        }
        for (path, _) in disk.files() {
            if !before.contains_key(&path) {
                disk.remove(&path).unwrap();
            }
        }
        before.iter().for_each(|(path, bytes)| disk.put(path, bytes));
        check(&disk, &messages);
    }

    #[test]
    fn a_torn_end_is_cut(close: bool, cut in 1..200_usize, zeros in 0..100_usize) {
        let (disk, messages) = written(Durability::Disk, close);
        let files = files(&disk);
        let (path, bytes) = files.last_key_value().unwrap();
        let mut bytes = bytes.clone();
        bytes.truncate((bytes.len() - cut).max(HEADER));
        bytes.resize(bytes.len() + zeros, 0);
        disk.put(path, &bytes);
        let (_, skipped) = check(&disk, &messages);
        prop_assert_eq!(skipped, vec![]);
    }
}

#[test]
fn a_missing_file_is_a_gap() {
    let (disk, messages) = written(Durability::Disk, false);
    let paths: Vec<PathBuf> = files(&disk).into_keys().collect();
    disk.remove(&paths[1]).unwrap();
    let (recovered, skipped) = check(&disk, &messages);
    assert_eq!((&recovered.damage, skipped.len()), (&skipped, 1));
    assert_eq!(skipped[0].why, Why::Missing);
}

#[test]
fn a_missing_end_is_a_gap() {
    let (disk, messages) = written(Durability::Disk, false);
    let (path, _) = files(&disk).pop_last().unwrap();
    disk.remove(&path).unwrap();
    let (log, recovered) = open(&disk.killed(), Durability::Disk);
    assert!(log.next() > first().after(60), "no number returns");
    assert_eq!(recovered.damage[0].why, Why::Missing);
    check(&disk, &messages);
}

#[test]
fn a_file_that_goes_while_it_is_needed_is_a_gap() {
    let (disk, messages) = written(Durability::Disk, false);
    let paths: Vec<PathBuf> = files(&disk).into_keys().collect();
    let (log, _) = open(&disk, Durability::Disk);
    disk.remove(&paths[1]).unwrap();
    let (read, skipped) = read_all(&log, EVERYTHING);
    assert_eq!((read[0].clone(), skipped.len()), (messages[0].clone(), 1));
    assert_eq!(skipped[0].why, Why::Missing);
    assert_eq!(log.since(later(0)).unwrap(), first());
    assert_eq!(log.since(later(29)).unwrap(), first().after(58));
}

#[test]
fn damage_within_a_finished_segment_shows_when_it_is_read() {
    let (disk, messages) = written(Durability::Disk, false);
    let files = files(&disk);
    let (path, bytes) = files.first_key_value().unwrap();
    let mut bytes = bytes.clone();
    for byte in &mut bytes[100..1_000] {
        *byte = 0xff;
    }
    disk.put(path, &bytes);
    let (log, recovered) = open(&disk, Durability::Disk);
    assert_eq!((recovered, log.missing(log.first()..log.next())), (Recovered::default(), 0));
    let (_, skipped) = read_all(&log, EVERYTHING);
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0].why, Why::Corrupt);
    assert!(skipped[0].from.until(skipped[0].until) >= 6);
    assert_eq!(get(&log, skipped[0].from), None);
    check(&disk, &messages);
}

#[test]
fn what_a_newer_program_wrote_is_refused() {
    let (disk, _) = written(Durability::Disk, true);
    let files = files(&disk);
    let (path, bytes) = files.last_key_value().unwrap();
    let mut bytes = bytes.clone();
    bytes[8] = 2;
    let sum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    disk.put(path, &bytes);
    let before = disk.files();
    let refused = try_open(&disk, config(Durability::Disk));
    assert!(matches!(refused, Err(OpenError::Newer { version: 2, supported: 1, .. })));
    assert_eq!(disk.files(), before);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let disk = Simulated::new(1);
    disk.create_folder(&dir()).unwrap();
    disk.put(&dir().join("00000000000000000007.log"), b"something else");
    let before = disk.files();
    let refused = try_open(&disk, config(Durability::Disk));
    assert!(matches!(refused, Err(OpenError::Corrupt { .. })));
    assert_eq!(disk.files(), before);
}

#[test]
fn names_of_others_are_left_alone() {
    let (disk, messages) = written(Durability::Disk, true);
    disk.put(&dir().join("notes.txt"), b"mine");
    disk.put(&dir().join("00000000000000000007.log.tmp"), b"not finished");
    check(&disk, &messages);
    assert!(disk.read(&dir().join("notes.txt")).is_ok());
    assert!(disk.read(&dir().join("00000000000000000007.log.tmp")).is_err());
}
