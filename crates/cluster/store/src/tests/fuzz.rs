//! Folders that this program has not written so: the committed ones, changed in several places, and
//! files of records that are whole each for itself and make no sense together. Opening them never
//! panics, and a folder that is refused is not touched.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    disk::Disk,
    fixtures::committed,
    model::{entries, open},
};
use crate::{
    Backup, Durability, OpenError, Revision,
    format::{FileName, HEADER_BYTES, Header, Record, RecordKind},
    snapshot::Encoder,
};

/// Opens a folder. A store that opens works: it can be read, written and opened again.
fn opens(files: &[(String, Vec<u8>)]) -> Result<(), TestCaseError> {
    let disk = Disk::holding(files);
    let store = match open(&disk, Durability::Disk) {
        Ok(store) => store,
        Err(OpenError::Corrupt { .. } | OpenError::Newer { .. } | OpenError::Missing { .. }) => {
            let mut files = files.to_vec();
            files.sort();
            prop_assert_eq!(disk.files(), files, "a refused folder is not touched");
            return Ok(());
        }
        Err(other) => return Err(TestCaseError::fail(other.to_string())),
    };
    let (all, revision) = (entries(&store), store.revision());
    prop_assert!(all.values().all(|it| it.created <= it.modified && it.modified <= revision));
    drop(store);
    let again = open(&disk, Durability::Disk).map_err(|it| TestCaseError::fail(it.to_string()))?;
    prop_assert_eq!((entries(&again), again.revision()), (all, revision));
    Ok(())
}

fn record() -> impl Strategy<Value = (RecordKind, [u64; 3], Vec<u8>, Vec<u8>)> {
    let kind = prop_oneof![
        4 => Just(RecordKind::Put),
        2 => Just(RecordKind::Delete),
        2 => Just(RecordKind::Entry),
        1 => Just(RecordKind::End),
    ];
    let number = || prop_oneof![8 => 0..6_u64, 1 => Just(u64::MAX), 1 => any::<u64>()];
    (kind, [number(), number(), number()], vec(any::<u8>(), 0..3), vec(any::<u8>(), 0..20))
}

proptest! {
    /// Several changes, also of lengths and of what is behind them.
    #[test]
    fn changed_folders(
        changes in vec((any::<Index>(), any::<Index>(), 0..4_u8, any::<[u8; 8]>()), 1..5),
    ) {
        let mut files = committed(1);
        for (which, at, how, with) in changes {
            let count = files.len();
            let (_, bytes) = &mut files[which.index(count)];
            let at = at.index(bytes.len() + 1);
            match how {
                0 => bytes.truncate(at),
                1 => bytes.splice(at..at, with).for_each(drop),
                2 => bytes.drain(at..(at + 8).min(bytes.len())).for_each(drop),
                _ => bytes.iter_mut().skip(at).zip(with).for_each(|(byte, with)| *byte = with),
            }
        }
        opens(&files)?;
    }

    /// Records whose checksums are right, numbered at will.
    #[test]
    fn records_that_make_no_sense(
        files in vec((any::<bool>(), 1..4_u64, 0..4_u64, vec(record(), 0..6)), 1..4),
    ) {
        let mut named = std::collections::BTreeMap::new();
        for (is_log, sequence, base, records) in files {
            let name =
                if is_log { FileName::log(sequence) } else { FileName::snapshot(sequence) };
            let base = Revision::new(base);
            let mut bytes = Header { name, base, unflushed: base.get() == 3 }.encode().to_vec();
            // In order more often than not, or nothing but the first one would be looked at.
            for ((kind, [revision, durable, created], key, value), next) in
                records.into_iter().zip(base.get() + 1..)
            {
                let revision = if revision == 0 { next } else { revision };
                let [revision, durable, created] = [revision, durable, created].map(Revision::new);
                Record { kind, revision, durable, created, key: &key, value: &value }
                    .encode(&mut bytes);
            }
            named.insert(name.text(), bytes);
        }
        opens(&named.into_iter().collect::<Vec<_>>())?;
    }

    /// The file of a backup that was changed is refused, and one that makes no sense too.
    #[test]
    fn changed_backups(
        at in any::<Index>(),
        with in 1..=255_u8,
        cut in any::<Index>(),
        records in vec(record(), 0..6),
    ) {
        let whole = {
            let store = open(&Disk::holding(&committed(1)), Durability::Disk).unwrap();
            store.backup().pieces().flatten().collect::<Vec<u8>>()
        };
        prop_assert!(Backup::read(&whole).is_ok());
        let mut changed = whole.clone();
        let at = at.index(changed.len());
        changed[at] ^= with;
        // What pads a record says nothing.
        if let Ok(read) = Backup::read(&changed) {
            prop_assert!(read.pieces().flatten().collect::<Vec<u8>>() == whole);
        }
        prop_assert!(Backup::read(&whole[..cut.index(whole.len())]).is_err());
        let mut encoder = Encoder::new(FileName::snapshot(1), Revision::new(3));
        encoder.end(Revision::new(3));
        let mut bytes = encoder.ready()[..HEADER_BYTES].to_vec();
        for (kind, [revision, durable, created], key, value) in records {
            let [revision, durable, created] = [revision, durable, created].map(Revision::new);
            Record { kind, revision, durable, created, key: &key, value: &value }.encode(&mut bytes);
        }
        if let Ok(backup) = Backup::read(&bytes) {
            prop_assert!(backup.into_memory().is_ok());
        }
    }
}
