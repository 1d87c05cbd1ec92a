//! The store as its users see it, also after they were killed.

use std::{collections::BTreeSet, io::Write as _};

use super::*;
use crate::spec::{ImageConfig, Manifest, RootFs, media};

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("images")).unwrap();
    (folder, store)
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::of(media::LAYER, bytes)
}

/// Puts an image of one layer into the store.
fn image(store: &Store, layer: &[u8]) -> Descriptor {
    let blob = store.put(layer).unwrap();
    let rootfs = RootFs { diff_ids: vec![blob.digest], ..RootFs::default() };
    let Platform { architecture, os, .. } = Platform::host();
    let config = ImageConfig { rootfs, architecture, os, ..ImageConfig::default() };
    let config = serde_json::to_vec(&config).unwrap();
    store.put(&config).unwrap();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::of(media::CONFIG, &config),
        layers: vec![descriptor(layer)],
        subject: None,
        annotations: std::collections::BTreeMap::default(),
    };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    store.put(&manifest).unwrap();
    Descriptor::of(media::MANIFEST, &manifest)
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn names_stand_for_images_that_are_there_in_full() {
    let (_folder, store) = open();
    let target = image(&store, b"layer");
    store.tag(&name("web:1"), &target).unwrap();
    let found = store.resolve(&name("docker.io/library/web:1")).unwrap().unwrap();
    assert_eq!(found.target.digest, target.digest);
    assert_eq!(found.layers.len(), 1);
    let by_digest = name("web:2").with_digest(target.digest);
    assert_eq!(store.resolve(&by_digest).unwrap().unwrap().id, found.id);
    assert!(store.resolve(&name("web:2")).unwrap().is_none());
    fs::remove_file(store.blob_path(&found.layers[0].digest)).unwrap();
    assert!(store.resolve(&name("web:1")).unwrap().is_none());
}

#[test]
fn a_name_moves_and_goes() {
    let (_folder, store) = open();
    let (one, two) = (image(&store, b"one"), image(&store, b"two"));
    store.tag(&name("web"), &one).unwrap();
    store.tag(&name("web"), &two).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(store.list().unwrap()[0].target.digest, two.digest);
    assert!(store.untag(&name("web")).unwrap());
    assert!(!store.untag(&name("web")).unwrap());
    assert!(matches!(store.tag(&name("no"), &descriptor(b"no")), Err(Error::NoBlob(_))));
}

#[test]
fn a_name_does_not_stand_for_another_machine() {
    let (_folder, store) = open();
    let config =
        br#"{"architecture":"s390x","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    store.put(config).unwrap();
    let text = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{}","size":{}}},"layers":[]}}"#,
        media::CONFIG,
        Digest::of(config),
        config.len()
    );
    store.put(text.as_bytes()).unwrap();
    store.tag(&name("far"), &Descriptor::of(media::MANIFEST, text.as_bytes())).unwrap();
    let error = store.resolve(&name("far")).unwrap_err().to_string();
    assert!(error.contains("only for linux/s390x"), "{error}");
}

#[test]
fn an_interrupted_blob_is_gone_on_with() {
    let (_folder, store) = open();
    let (content, half) = (b"some content", 5);
    let wanted = descriptor(content);
    let mut writer = store.writer_of(&wanted).unwrap().unwrap();
    writer.append(&content[..half]).unwrap();
    drop(writer);
    let mut writer = store.writer_of(&wanted).unwrap().unwrap();
    assert_eq!(writer.offset(), half as u64);
    writer.append(&content[half..]).unwrap();
    writer.commit().unwrap();
    assert!(store.writer_of(&wanted).unwrap().is_none());
    assert_eq!(fs::read(store.blob_path(&wanted.digest)).unwrap(), content);
    assert_eq!(fs::read_dir(store.staging_folder()).unwrap().count(), 0);
}

#[test]
fn lies_are_refused_and_forgotten() {
    let (_folder, store) = open();
    let wanted = descriptor(b"some content");
    let mut writer = store.writer_of(&wanted).unwrap().unwrap();
    writer.append(b"some CONTENT").unwrap();
    assert!(matches!(writer.commit(), Err(Error::Digest { .. })));
    let mut writer = store.writer_of(&wanted).unwrap().unwrap();
    assert_eq!(writer.offset(), 0);
    assert!(matches!(writer.append(b"much more than was said"), Err(Error::Size { .. })));
    writer.append(b"less").unwrap();
    assert!(matches!(writer.commit(), Err(Error::Size { found: 4, .. })));
}

#[test]
fn two_writers_of_the_same_wait_for_each_other() {
    let (_folder, store) = open();
    let content = vec![7; 3 << 20];
    let wanted = descriptor(&content);
    let write = || {
        if let Some(mut writer) = store.writer_of(&wanted).unwrap() {
            writer.restart().unwrap();
            writer.copy(&mut content.as_slice()).unwrap();
            writer.commit().unwrap();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(write);
        }
    });
    assert_eq!(store.blob_size(&wanted.digest).unwrap(), Some(3 << 20));
    assert_eq!(fs::read_dir(store.staging_folder()).unwrap().count(), 0);
}

#[test]
fn a_copy_is_what_was_read() {
    let (_folder, store) = open();
    for size in [0, 1, 1 << 20, (1 << 20) + 1, (5 << 20) + 77] {
        let content: Vec<u8> = (0..size).map(|it: u32| it.to_le_bytes()[1]).collect();
        let mut writer = store.writer().unwrap();
        assert_eq!(writer.copy(&mut content.as_slice()).unwrap(), u64::from(size));
        let blob = writer.commit().unwrap();
        assert_eq!(blob.digest, Digest::of(&content));
        assert!(fs::read(store.blob_path(&blob.digest)).unwrap() == content);
    }
}

#[test]
fn a_source_that_fails_leaves_what_it_gave() {
    struct Broken(usize);
    impl io::Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.min(buffer.len());
            self.0 -= count;
            buffer[..count].fill(1);
            if count == 0 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(count) }
        }
    }
    let (_folder, store) = open();
    let content = vec![1; 8 << 20];
    let wanted = descriptor(&content);
    let mut writer = store.writer_of(&wanted).unwrap().unwrap();
    writer.copy(&mut Broken(5 << 20)).unwrap_err();
    drop(writer);
    let mut writer = store.writer_of(&wanted).unwrap().unwrap();
    let offset = usize::try_from(writer.offset()).unwrap();
    assert!(offset > 4 << 20);
    writer.append(&content[offset..]).unwrap();
    writer.commit().unwrap();
}

fn collect(store: &Store, policy: Policy) -> Collected {
    store.collect(&BTreeSet::new(), policy).unwrap()
}

#[test]
fn what_nobody_refers_to_is_removed() {
    let (_folder, store) = open();
    let target = image(&store, b"layer");
    store.tag(&name("web"), &target).unwrap();
    let kept = store.resolve(&name("web")).unwrap().unwrap();
    for digest in [kept.layers[0].diff_id, Digest::of(b"other")] {
        let folder = store.layer_folder(&digest).join("etc");
        fs::create_dir_all(&folder).unwrap();
        // As packages make them: not even their owner may write.
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    }
    store.put(b"nobody's").unwrap();
    let mut half = store.writer().unwrap();
    half.write_all(b"being written").unwrap();
    let collected = collect(&store, Policy::Nameless);
    assert_eq!((collected.blobs, collected.layers, collected.bytes), (1, 1, 8));
    assert_eq!(half.commit().unwrap().digest, Digest::of(b"being written"));
    assert!(store.layer_folder(&kept.layers[0].diff_id).exists());
    assert!(!store.layer_folder(&Digest::of(b"other")).exists());
    assert_eq!(store.resolve(&name("web")).unwrap().unwrap(), kept);
    assert_eq!(fs::read_dir(store.staging_folder()).unwrap().count(), 0);
}

#[test]
fn a_rest_stays_for_who_goes_on_unless_room_is_needed() {
    let (_folder, store) = open();
    let wanted = descriptor(b"some content");
    store.writer_of(&wanted).unwrap().unwrap().append(b"some").unwrap();
    collect(&store, Policy::Nameless);
    assert_eq!(store.writer_of(&wanted).unwrap().unwrap().offset(), 4);
    collect(&store, Policy::Unused);
    assert_eq!(store.writer_of(&wanted).unwrap().unwrap().offset(), 0);
}

#[test]
fn claims_and_leases_keep_what_they_name() {
    let (_folder, store) = open();
    let (one, two, three) = (image(&store, b"one"), image(&store, b"two"), image(&store, b"three"));
    store.tag(&name("three"), &three).unwrap();
    store.claim("cluster", &BTreeSet::from([one.digest])).unwrap();
    let lease = store.lease().unwrap();
    lease.hold([two.digest]).unwrap();
    let there = || {
        [&one, &two, &three]
            .map(|it| store.resolve(&name("x").with_digest(it.digest)).unwrap().is_some())
    };
    // A blob of an image is not the image.
    let blob = store.lease().unwrap();
    blob.hold([Digest::of(b"three")]).unwrap();
    assert_eq!(collect(&store, Policy::Unused).names, ["docker.io/library/three:latest"]);
    drop(blob);
    assert_eq!(there(), [true, true, false]);
    drop(lease);
    collect(&store, Policy::Nameless);
    assert_eq!(there(), [true, false, false]);
    store.claim("cluster", &BTreeSet::new()).unwrap();
    collect(&store, Policy::Nameless);
    assert_eq!(there(), [false; 3]);
    assert!(store.claim("../cluster", &BTreeSet::from([one.digest])).is_err());
}

#[test]
fn the_lease_of_a_dead_process_is_none() {
    let (_folder, store) = open();
    let target = image(&store, b"one");
    fs::write(store.folder().join("leases/dead"), format!("{}\n", target.digest)).unwrap();
    assert_eq!(collect(&store, Policy::Nameless).blobs, 3);
    assert_eq!(fs::read_dir(store.folder().join("leases")).unwrap().count(), 0);
}

#[test]
fn pressure_takes_the_least_recently_used_first() {
    let (_folder, store) = open();
    for (index, text) in ["new", "old", "used"].into_iter().enumerate() {
        let target = image(&store, text.as_bytes());
        store.tag(&name(text), &target).unwrap();
        let file = fs::File::open(store.blob_path(&target.digest)).unwrap();
        let since = std::time::Duration::from_secs([30, 10, 20][index]);
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + since).unwrap();
    }
    let used = store.resolve(&name("used")).unwrap().unwrap();
    store.note_use(&used).unwrap();
    // Below the mark nothing goes; above a mark that is never reached, all that may, in order.
    assert_eq!(collect(&store, Policy::Pressure { high: 100, low: 100 }).names.len(), 0);
    let gone = collect(&store, Policy::Pressure { high: 0, low: 0 }).names;
    let gone: Vec<String> = gone.iter().map(|it| name(it).familiar()).collect();
    // What was used just now may be about to be claimed.
    assert_eq!(gone, ["old:latest", "new:latest"]);
}

#[test]
fn a_newer_store_is_refused() {
    let (_folder, store) = open();
    fs::write(store.folder().join("format"), "2\n").unwrap();
    let error = Store::open(store.folder()).unwrap_err().to_string();
    assert!(error.contains("has format 2"), "{error}");
}
