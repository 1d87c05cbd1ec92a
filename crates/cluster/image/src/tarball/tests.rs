//! Reader and writer against each other and against GNU tar.

use std::{io::Read as _, process::Command};

use proptest::prelude::*;

use super::*;

fn read_all(stream: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, Error> {
    let mut reader = Reader::new(stream);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        reader.data().read_to_end(&mut data).map_err(Error::Read)?;
        all.push((entry, data));
    }
    reader.finish()?;
    Ok(all)
}

fn write_all(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.append(entry, &mut data.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn entries() -> impl Strategy<Value = Vec<(Entry, Vec<u8>)>> {
    let text = || proptest::collection::vec(1..=255_u8, 1..300);
    let data = proptest::collection::vec(any::<u8>(), 0..1500);
    let kind = prop_oneof![
        Just(Kind::File { size: 0, pieces: None }),
        Just(Kind::Folder),
        text().prop_map(Kind::HardLink),
        text().prop_map(Kind::SymbolicLink),
        (0..0o7_777_777_u32, 0..0o7_777_777_u32).prop_map(|(a, b)| Kind::Character(a, b)),
        Just(Kind::Block(8, 1)),
        Just(Kind::Pipe),
    ];
    let numbers = (0..0o7777_u32, 0..u64::from(u32::MAX), 0..u64::from(u32::MAX), -9..i64::MAX / 4);
    let attributes = proptest::collection::vec(("[a-z.]{1,20}", text()), 0..3);
    let entry = (text(), kind, numbers, attributes, data).prop_map(
        |(name, mut kind, (mode, uid, gid, seconds), attributes, mut data)| {
            match &mut kind {
                Kind::File { size, .. } => *size = data.len() as u64,
                _ => data.clear(),
            }
            let attributes = attributes.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
            let time = Time { seconds, nanoseconds: 0 };
            (Entry { name, kind, mode, uid, gid, time, attributes }, data)
        },
    );
    proptest::collection::vec(entry, 0..6)
}

proptest! {
    #[test]
    fn what_is_written_is_read(entries in entries()) {
        let stream = write_all(&entries);
        prop_assert_eq!(stream.len() % BLOCK, 0);
        prop_assert_eq!(read_all(&stream).unwrap(), entries);
    }

    #[test]
    fn damage_ends_in_an_error(
        entries in entries(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut stream = write_all(&entries);
        for (at, byte) in damage {
            *at.get_mut(&mut stream) = byte;
        }
        stream.truncate(cut.index(stream.len()) + 1);
        // Nothing panics, nothing is without end; what is read may be anything.
        read_all(&stream).ok();
    }
}

/// A header that is right but for what `change` does to it.
fn header(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let entry = Entry {
        name: b"a".to_vec(),
        kind: Kind::Folder,
        mode: 0o755,
        uid: 0,
        gid: 0,
        time: Time::default(),
        attributes: Vec::new(),
    };
    let mut stream = write_all(&[(entry, Vec::new())]);
    change(&mut stream);
    stream[148..156].copy_from_slice(b"        ");
    let sum: u32 = stream[..BLOCK].iter().map(|it| u32::from(*it)).sum();
    stream[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    stream
}

#[test]
fn lies_are_refused() {
    let error = |change: fn(&mut [u8])| read_all(&header(change)).unwrap_err().to_string();
    assert_eq!(
        error(|it| {
            it[156] = b'x';
            it[124..135].copy_from_slice(b"77777777777");
        }),
        "an extended tar header of 8589934591 bytes, at most 1048576"
    );
    assert_eq!(error(|it| it[156] = b'M'), "a tar entry of the unknown type 'M'");
    assert_eq!(error(|it| it[108..111].copy_from_slice(b"0x1")), "bad owner in a tar header");
    assert_eq!(
        error(|it| {
            it[156] = b'0';
            it[124..136].fill(0xff);
        }),
        "bad size in a tar header"
    );
    let mut file = header(|it| {
        it[156] = b'0';
        it[124..135].copy_from_slice(b"00000000777");
    });
    file.truncate(BLOCK + 10);
    assert_eq!(read_all(&file).unwrap_err().to_string(), "the tar stream ends within an entry");
    let endless = header(|it| it[156] = b'V')[..BLOCK].repeat(100);
    let error = read_all(&endless).unwrap_err().to_string();
    assert_eq!(error, "bad number of extended headers in a tar header");
}

#[test]
fn gnu_tar_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let long = "long/".repeat(50) + "name";
    std::fs::create_dir_all(path(&"long/".repeat(50))).unwrap();
    std::fs::write(path(&long), "contents").unwrap();
    std::os::unix::fs::symlink("x".repeat(200), path("symbolic")).unwrap();
    std::fs::hard_link(path(&long), path("other")).unwrap();
    // Holes are what the file system reports, so the file has bytes far apart.
    let sparse = std::fs::File::create(path("sparse")).unwrap();
    for at in 0..9_u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"piece", at << 20).unwrap();
    }
    sparse.set_len(20 << 20).unwrap();
    let options: [&[&str]; 6] = [
        &["--format=gnu"],
        &["--format=posix"],
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ];
    for options in options {
        let output = Command::new("tar")
            .args(options)
            .args(["--sort=name", "--create", "--directory"])
            .arg(folder.path())
            .arg(".")
            .output()
            .unwrap();
        assert!(output.status.success());
        let all = read_all(&output.stdout).unwrap();
        let get = |name: &str| {
            let name = format!("./{name}").into_bytes();
            all.iter().find(|it| it.0.name == name).unwrap()
        };
        let Kind::SymbolicLink(target) = &get("symbolic").0.kind else { panic!("no link") };
        assert_eq!(target.len(), 200, "{options:?}");
        let (entry, data) = get(&long);
        let other = get("other");
        assert!(data == b"contents" || other.1 == b"contents", "{options:?}");
        assert_eq!(entry.mode & 0o400, 0o400);
        let (entry, data) = get("sparse");
        let Kind::File { size, pieces } = &entry.kind else { panic!("no file") };
        assert_eq!(*size, 20 << 20, "{options:?}");
        if let Some(pieces) = pieces {
            assert_eq!(pieces.iter().map(|it| it.length).sum::<u64>(), data.len() as u64);
            let mut rest = data.as_slice();
            for piece in pieces {
                let (bytes, after) = rest.split_at(usize::try_from(piece.length).unwrap());
                rest = after;
                if !bytes.is_empty() {
                    assert_eq!(piece.at % (1 << 20), 0, "{options:?}");
                    assert!(bytes.starts_with(b"piece"), "{options:?}");
                }
            }
        } else {
            assert!(!options.contains(&"--sparse"), "{options:?}");
        }
    }
}
