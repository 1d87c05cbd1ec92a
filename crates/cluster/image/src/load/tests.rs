//! Archives as others make them, and such as nobody should.

use std::{collections::BTreeMap, io::Write as _, sync::Mutex};

use expect_test::{Expect, expect};
use serde_json::json;

use super::{bolt::tests::Tree, *};
use crate::{
    Event,
    spec::media,
    tarball::{Entry, Kind, Reader, Time, Writer},
};

/// A tar in memory.
struct Tar(Writer<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    fn file(self, path: &str, mut bytes: &[u8]) -> Self {
        let kind = Kind::File { size: bytes.len() as u64, pieces: None };
        self.entry(path, kind, &mut bytes)
    }

    fn link(self, path: &str, to: &str) -> Self {
        self.entry(path, Kind::SymbolicLink(to.into()), &mut io::empty())
    }

    fn entry(mut self, path: &str, kind: Kind, data: &mut dyn Read) -> Self {
        let (name, time) = (path.into(), Time::default());
        let entry = Entry { name, kind, mode: 0o644, uid: 0, gid: 0, time, attributes: Vec::new() };
        self.0.append(&entry, data).unwrap();
        self
    }

    fn done(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let Platform { architecture, os, .. } = Platform::host();
    let ids: Vec<Digest> = layers.iter().map(|it| Digest::of(it)).collect();
    let document = json!({"architecture": architecture, "os": os,
        "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": ids}});
    document.to_string().into_bytes()
}

/// Two images that share a layer, the second by a link, as older versions of Docker wrote them.
fn docker_archive() -> Vec<u8> {
    let (base, top) = (Tar::new().file("a", b"base").done(), Tar::new().file("b", b"top").done());
    let manifest = json!([
        {"Config": "one.json", "RepoTags": ["one:1", "quay.io/a/one:2"], "Layers": ["x/layer.tar"]},
        {"Config": "two.json", "RepoTags": ["two:1"], "Layers": ["y/layer.tar", "z/layer.tar"]},
    ]);
    Tar::new()
        .file("x/layer.tar", &base)
        .link("y/layer.tar", "../x/layer.tar")
        .file("z/layer.tar", &top)
        .file("one.json", &config(&[&base]))
        .file("two.json", &config(&[&base, &top]))
        .file("manifest.json", manifest.to_string().as_bytes())
        .done()
}

struct World {
    folder: tempfile::TempDir,
    store: Store,
    events: Mutex<Vec<Event>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("images")).unwrap();
        Self { folder, store, events: Mutex::default() }
    }

    fn load(&self, bytes: &[u8], name: Option<&str>) -> Result<Vec<Loaded>, Error> {
        let path = self.folder.path().join("archive");
        fs::write(&path, bytes).unwrap();
        self.load_path(&path, name)
    }

    fn load_path(&self, path: &Path, name: Option<&str>) -> Result<Vec<Loaded>, Error> {
        let name = name.map(|it| it.parse().unwrap());
        let progress = |it| self.events.lock().unwrap().push(it);
        load(&self.store, path, Options { name: name.as_ref(), progress: &progress })
    }

    fn names(&self) -> Vec<String> {
        self.store.list().unwrap().into_iter().map(|it| it.name).collect()
    }
}

fn check_error(result: Result<Vec<Loaded>, Error>, expected: Expect) {
    expected.assert_eq(&result.unwrap_err().to_string());
}

const NAMES: [&str; 3] = ["docker.io/library/one:1", "docker.io/library/two:1", "quay.io/a/one:2"];

#[test]
fn docker_archive_with_two_images() {
    let world = World::new();
    let loaded = world.load(&docker_archive(), None).unwrap();
    assert_eq!(world.names(), NAMES);
    let two = world.store.resolve(&"two:1".parse().unwrap()).unwrap().unwrap();
    assert_eq!(two.layers.len(), 2);
    assert_eq!(two.layers[0].digest, two.layers[0].diff_id);
    assert_eq!(loaded[1].image.as_ref().unwrap(), &two);
    // The second time nothing is written.
    world.events.lock().unwrap().clear();
    assert_eq!(world.load(&docker_archive(), None).unwrap()[0].target, loaded[0].target);
    let events = world.events.lock().unwrap();
    assert!(events.iter().all(|it| matches!(it, Event::Present { .. })), "{events:?}");
}

#[test]
fn compressed_archives_come_as_streams() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&docker_archive()).unwrap();
    let plain = docker_archive();
    let zstd = ruzstd::encoding::compress_to_vec(
        plain.as_slice(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    let mut targets = Vec::new();
    for bytes in [gzip.finish().unwrap(), zstd, plain] {
        let world = World::new();
        let loaded = world.load(&bytes, None).unwrap();
        assert_eq!(world.names(), NAMES);
        targets.push(loaded[1].target.clone());
    }
    assert!(targets.iter().all(|it| *it == targets[0]));
}

#[test]
fn what_cannot_be_sought_in_is_loaded() {
    let world = World::new();
    let bytes = docker_archive();
    let options = Options { name: None, progress: &drop };
    load_stream(&world.store, &mut bytes.as_slice(), options).unwrap();
    assert_eq!(world.names(), NAMES);
    let cut = &bytes[..2000];
    let error = load_stream(&world.store, &mut &cut[..], options).unwrap_err();
    assert!(matches!(error, Error::Read { .. } | Error::Store(_)), "{error:?}");
}

/// Whatever of an archive is missing, it is noticed: nothing gets a name that is not there in full.
#[test]
fn archives_that_were_cut_off_are_refused() {
    let bytes = docker_archive();
    // Behind the bytes of the last file there are what fills up its block, and two blocks that end the
    // archive: those may be missing.
    for cut in (0..bytes.len() - 3 * 512).step_by(97) {
        let world = World::new();
        let options = Options { name: None, progress: &drop };
        world.load(&bytes[..cut], None).unwrap_err();
        load_stream(&world.store, &mut &bytes[..cut], options).unwrap_err();
        assert_eq!(world.names(), Vec::<String>::new(), "{cut}");
    }
}

/// GNU's tar, in every format that it has, as a file and as a stream.
#[test]
fn archives_of_gnu_tar_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{}/layer.tar", "long".repeat(40));
    let layer = Tar::new().file("a", b"base").done();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["one:1"], "Layers": [long]}]);
    write(&folder.path().join(&long), &layer);
    write(&folder.path().join("c.json"), config(&[&layer]));
    write(&folder.path().join("manifest.json"), manifest.to_string());
    for format in ["gnu", "posix", "oldgnu"] {
        let made = std::process::Command::new("tar")
            .args([&format!("--format={format}"), "-C"])
            .arg(folder.path())
            .args(["-c", "."])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let options = Options { name: None, progress: &drop };
        let (file, stream) = (World::new(), World::new());
        file.load(&made.stdout, None).unwrap();
        load_stream(&stream.store, &mut made.stdout.as_slice(), options).unwrap();
        assert_eq!((file.names(), stream.names()), (vec![NAMES[0].into()], vec![NAMES[0].into()]));
    }
}

#[test]
fn sparse_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.json");
    fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.args(["--sparse", "-C"]).arg(folder.path()).args(["-c", "manifest.json"]);
    let made = tar.output().unwrap().stdout;
    let error = World::new().load(&made, None).unwrap_err().to_string();
    assert!(error.starts_with("`manifest.json` in the archive: a sparse file"), "{error}");
}

/// A layout with one image of a compressed layer.
fn layout(name: &str) -> (Vec<(String, Vec<u8>)>, Digest) {
    let layer = Tar::new().file("a", b"base").done();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer).unwrap();
    let (packed, config) = (gzip.finish().unwrap(), config(&[&layer]));
    let manifest = json!({"schemaVersion": 2, "mediaType": media::MANIFEST,
        "config": Descriptor::of(media::CONFIG, &config),
        "layers": [Descriptor::of(media::LAYER_GZIP, &packed)]});
    let manifest = manifest.to_string().into_bytes();
    let mut entry = Descriptor::of(media::MANIFEST, &manifest);
    entry.annotations.insert(crate::spec::ANNOTATION_NAME.to_owned(), name.to_owned());
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
    let digest = Digest::of(&manifest);
    let blobs = [packed, config, manifest];
    let path = |it: &[u8]| format!("blobs/sha256/{}", Digest::of(it).hex());
    let mut files: Vec<(String, Vec<u8>)> = blobs.into_iter().map(|it| (path(&it), it)).collect();
    files.push(("index.json".to_owned(), index));
    (files, digest)
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    files.iter().fold(Tar::new(), |tar, (path, bytes)| tar.file(&format!("./{path}"), bytes)).done()
}

#[test]
fn layout_as_folder_and_as_archive() {
    let (files, digest) = layout("localhost/a/b:1");
    let world = World::new();
    assert_eq!(world.load(&archive(&files), None).unwrap()[0].target.digest, digest);
    assert_eq!(world.names(), ["localhost/a/b:1"]);

    let world = World::new();
    let folder = world.folder.path().join("layout");
    for (path, bytes) in &files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let loaded = world.load_path(&folder, None).unwrap();
    assert_eq!(loaded[0].image.as_ref().unwrap().manifest, digest);
    // The store is itself a layout.
    let other = World::new();
    other.load_path(world.store.folder(), None).unwrap();
    assert_eq!(other.names(), world.names());
}

#[test]
fn a_tag_alone_is_no_name() {
    let (files, _) = layout("latest");
    let world = World::new();
    check_error(
        world.load(&archive(&files), None),
        expect!["the archive gives its image no name (latest): give one"],
    );
    world.load(&archive(&files), Some("web:7")).unwrap();
    assert_eq!(world.names(), ["docker.io/library/web:7"]);
}

#[test]
fn lies_are_refused() {
    let (mut files, _) = layout("a:1");
    files[0].1[20] ^= 1;
    let world = World::new();
    let error = world.load(&archive(&files), None).unwrap_err();
    assert!(matches!(error, Error::Store(store::Error::Digest { .. })), "{error:?}");
    files.remove(0);
    let error = world.load(&archive(&files), None).unwrap_err();
    assert!(matches!(error, Error::Missing(_)), "{error:?}");
    assert_eq!(world.names(), Vec::<String>::new());

    let layer = Tar::new().done();
    let manifest = json!([{"Config": "c", "RepoTags": ["a:1"], "Layers": ["l"]}]).to_string();
    let lying = Tar::new().file("l", &layer).file("c", &config(&[b"other"]));
    let error = world.load(&lying.file("manifest.json", manifest.as_bytes()).done(), None);
    assert!(matches!(error.unwrap_err(), Error::Layer { .. }));
}

#[test]
fn other_things_are_named() {
    let world = World::new();
    let bytes = Tar::new().file("a", b"b").done();
    let error = world.load(&bytes, None).unwrap_err().to_string();
    assert!(error.contains("is no archive of images"), "{error}");
    let rings = Tar::new().link("c", "d").link("d", "c");
    let manifest = br#"[{"Config":"c","RepoTags":["a:1"],"Layers":[]}]"#;
    check_error(
        world.load(&rings.file("manifest.json", manifest).done(), None),
        expect!["`c` in the archive: more than 8 links lead from one to the next"],
    );
    let outside = Tar::new().link("c", "../../etc/passwd").file("manifest.json", manifest);
    check_error(
        world.load(&outside.done(), None),
        expect!["the archive refers to `c`, which is not in it: it was cut off, or made wrongly"],
    );
    let path = world.folder.path().join("nothing");
    assert!(matches!(world.load_path(&path, None), Err(Error::Read { .. })));
}

#[test]
fn a_layout_folder_cannot_lead_outside() {
    let (files, _) = layout("a:1");
    let world = World::new();
    let folder = world.folder.path().join("layout/blobs/sha256");
    fs::create_dir_all(&folder).unwrap();
    let index = world.folder.path().join("layout/index.json");
    fs::write(&index, &files.last().unwrap().1).unwrap();
    for (path, _) in &files[..3] {
        let link = world.folder.path().join("layout").join(path);
        std::os::unix::fs::symlink("/etc/passwd", link).unwrap();
    }
    let error = world.load_path(index.parent().unwrap(), None).unwrap_err();
    assert!(matches!(error, Error::Missing(_)), "{error:?}");
}

/// What tar-split keeps of a tar: all but the content of files.
fn split(tar: &[u8]) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut lines = String::new();
    let mut from = 0;
    let segment =
        |bytes: &[u8]| json!({"type": 2, "payload": STANDARD.encode(bytes)}).to_string() + "\n";
    let mut reader = Reader::new(io::Cursor::new(tar));
    while let Some(Entry { name, kind, .. }) = reader.next_entry().unwrap() {
        let Kind::File { size, .. } = kind else { panic!("files only") };
        let begin = usize::try_from(reader.pass().unwrap()).unwrap();
        let name = String::from_utf8(name).unwrap();
        lines += &segment(&tar[from..begin]);
        lines += &(json!({"type": 1, "name": name, "size": size}).to_string() + "\n");
        from = begin + usize::try_from(size).unwrap();
    }
    lines += &segment(&tar[from..]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The stores of both programs, with the same image.
fn local_stores(root: &Path) -> [Local; 2] {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let big = vec![7; 2_000_000];
    let layers = [
        Tar::new().file("etc/a", b"base").file("b", &big).done(),
        Tar::new().file("c", b"top").done(),
    ];
    let contents: [&[(&str, &[u8])]; 2] = [&[("etc/a", b"base"), ("b", &big)], &[("c", b"top")]];
    let config = config(&[&layers[0], &layers[1]]);
    let id = Digest::of(&config);
    let podman = root.join("podman");
    let images = json!([{"id": id.hex(), "names": ["localhost/web:1"], "layer": "l1"}]);
    write(&podman.join("overlay-images/images.json"), images.to_string());
    let key = format!("={}", STANDARD.encode(id.to_string()));
    write(&podman.join("overlay-images").join(id.hex()).join(key), &config);
    let list = json!([{"id": "l1", "parent": "l0"}, {"id": "l0"}]);
    write(&podman.join("overlay-layers/layers.json"), list.to_string());
    let docker = root.join("docker");
    let data = docker.join("image/overlay2");
    let names = json!({"Repositories": {"web": {"web:1": id}}});
    write(&data.join("repositories.json"), names.to_string());
    write(&data.join("imagedb/content/sha256").join(id.hex()), &config);
    let ids = [Digest::of(&layers[0]), Digest::of(&layers[1])];
    let chains = [ids[0], Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes())];
    for index in 0..2 {
        let name = format!("l{index}");
        write(&podman.join(format!("overlay-layers/{name}.tar-split.gz")), split(&layers[index]));
        let home = data.join("layerdb/sha256").join(chains[index].hex());
        write(&home.join("tar-split.json.gz"), split(&layers[index]));
        write(&home.join("cache-id"), &name);
        for (path, content) in contents[index] {
            write(&podman.join("overlay").join(&name).join("diff").join(path), content);
            write(&docker.join("overlay2").join(&name).join("diff").join(path), content);
        }
    }
    [Local::Podman(podman), Local::Docker(docker)]
}

#[test]
fn layers_of_other_programs_are_put_together_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut targets = Vec::new();
    for local in local_stores(folder.path()) {
        let world = World::new();
        let options = Options { name: None, progress: &drop };
        let from = |name: &str| load_local(&world.store, &local, &name.parse().unwrap(), options);
        let loaded = from("web:1").unwrap();
        assert_eq!(loaded.image.unwrap().layers.len(), 2);
        assert_eq!(world.names(), ["docker.io/library/web:1"]);
        targets.push(loaded.target);
        assert!(matches!(from("web:2").unwrap_err(), Error::NotThere { .. }));
    }
    assert_eq!(targets[0], targets[1]);
}

/// Lets containerd have `web:1`, whose blobs are all in a layout.
fn containerd_of(home: &Path, files: &[(String, Vec<u8>)], namespace: &str, target: &Digest) {
    let content = home.join("io.containerd.content.v1.content");
    for (path, bytes) in files.iter().filter(|(path, _)| path.starts_with("blobs/")) {
        write(&content.join(path), bytes);
    }
    let bucket = |of: Vec<(&str, Tree)>| {
        Tree::Bucket(of.into_iter().map(|(key, it)| (key.as_bytes().to_vec(), it)).collect())
    };
    let digest = bucket(vec![("digest", Tree::Value(target.to_string().into_bytes()))]);
    let image = bucket(vec![("target", digest)]);
    let images = bucket(vec![("docker.io/library/web:1", image)]);
    let namespaces =
        bucket(vec![("k8s.io", bucket(vec![])), (namespace, bucket(vec![("images", images)]))]);
    let tree = BTreeMap::from([(b"v1".to_vec(), namespaces)]);
    write(&home.join("io.containerd.metadata.v1.bolt/meta.db"), bolt::tests::database(&tree));
}

#[test]
fn images_of_containerd_are_taken_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (files, target) = layout("web:1");
    let home = folder.path().join("docker/containerd/daemon");
    containerd_of(&home, &files, "moby", &target);
    let options = Options { name: None, progress: &drop };
    let from = |local: &Local, name: &str| {
        let world = World::new();
        load_local(&world.store, local, &name.parse().unwrap(), options)
    };
    for local in [Local::Docker(folder.path().join("docker")), Local::Containerd(home.clone())] {
        let loaded = from(&local, "web:1").unwrap();
        assert_eq!(loaded.target.digest, target);
        assert_eq!(loaded.names, ["docker.io/library/web:1".parse().unwrap()]);
        loaded.image.unwrap();
        assert!(matches!(from(&local, "web:2").unwrap_err(), Error::NotThere { .. }));
    }
    // Another one's images are not Docker's.
    containerd_of(&home, &files, "default", &target);
    let docker = Local::Docker(folder.path().join("docker"));
    assert!(matches!(from(&docker, "web:1").unwrap_err(), Error::NotThere { .. }));
    from(&Local::Containerd(home.clone()), "web:1").unwrap();
    // A blob that is gone is named.
    let content = home.join("io.containerd.content.v1.content/blobs/sha256");
    fs::remove_file(content.join(target.hex())).unwrap();
    let error = from(&Local::Containerd(home), "web:1").unwrap_err().to_string();
    assert!(error.contains(&target.hex()), "{error}");
}

#[test]
fn a_layer_that_was_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [podman, docker] = local_stores(folder.path());
    let options = Options { name: None, progress: &drop };
    let web = "web:1".parse().unwrap();
    let file = folder.path().join("podman/overlay/l1/diff/c");
    fs::write(&file, b"TOP").unwrap();
    let error = load_local(&World::new().store, &podman, &web, options).unwrap_err();
    assert!(matches!(error, Error::Layer { .. }), "{error}");
    // What stands in the place of a file does not lead elsewhere.
    let file = folder.path().join("docker/overlay2/l1/diff/c");
    fs::remove_file(&file).unwrap();
    write(&folder.path().join("secret"), b"top");
    std::os::unix::fs::symlink(folder.path().join("secret"), &file).unwrap();
    let error = load_local(&World::new().store, &docker, &web, options).unwrap_err();
    assert!(matches!(error, Error::Store(store::Error::Io { .. })), "{error:?}");
}
