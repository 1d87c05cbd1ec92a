//! Layers against a model in memory, hostile ones, and kills.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
    rc::Rc,
};

use proptest::prelude::*;

use super::*;
use crate::{
    Compression, ImageConfig,
    spec::Descriptor,
    tarball::{Entry, Kind, Piece, Time, Writer},
};

fn entry(name: &str, kind: Kind) -> Entry {
    let time = Time { seconds: 1_000_000_000, nanoseconds: 0 };
    let name = name.as_bytes().to_vec();
    Entry { name, kind, mode: 0o755, uid: 0, gid: 0, time, attributes: Vec::new() }
}

fn file(name: &str, contents: &str) -> (Entry, Vec<u8>) {
    let kind = Kind::File { size: contents.len() as u64, pieces: None };
    (entry(name, kind), contents.as_bytes().to_vec())
}

fn other(name: &str, kind: Kind) -> (Entry, Vec<u8>) {
    (entry(name, kind), Vec::new())
}

fn symbolic(name: &str, target: &str) -> (Entry, Vec<u8>) {
    other(name, Kind::SymbolicLink(target.as_bytes().to_vec()))
}

fn hard(name: &str, target: &str) -> (Entry, Vec<u8>) {
    other(name, Kind::HardLink(target.as_bytes().to_vec()))
}

fn tar(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.append(entry, &mut data.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn owners() -> Owners {
    Owners::of_process().unwrap()
}

/// Unpacks into `folder`, which is made.
fn unpack(entries: &[(Entry, Vec<u8>)], folder: &Path) -> Result<layer::Applied, Error> {
    fs::create_dir(folder).unwrap();
    layer::apply(tar(entries).as_slice(), folder, owners(), &[])
}

/// The whole chain of causes.
fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |it| it.source());
    causes.fold(error.to_string(), |text, it| format!("{text}: {it}"))
}

fn refused(entries: &[(Entry, Vec<u8>)]) -> String {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("outside"), "untouched").unwrap();
    let error = unpack(entries, &place.path().join("tree")).unwrap_err();
    let outside = fs::read_to_string(place.path().join("outside")).unwrap();
    assert_eq!(outside, "untouched");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    text(&error)
}

#[test]
fn names_out_of_the_tree() {
    let out = "the name leads out of the image";
    assert_eq!(refused(&[file("../outside", "x")]), format!("entry `../outside`: {out}"));
    assert_eq!(refused(&[file("a/../../outside", "x")]), format!("entry `a/../../outside`: {out}"));
    assert_eq!(refused(&[hard("a", "../outside")]), format!("entry `a`: {out}"));
    let through = "the name leads through a symbolic link";
    assert_eq!(
        refused(&[symbolic("a", ".."), file("a/outside", "x")]),
        format!("entry `a/outside`: {through}")
    );
    assert_eq!(
        refused(&[symbolic("a", "/"), other("a/b/c", Kind::Folder)]),
        format!("entry `a/b/c`: {through}")
    );
    assert_eq!(
        refused(&[symbolic("a", ".."), hard("b", "a/outside")]),
        "entry `b`: a hard link to what the layer does not have"
    );
    assert_eq!(
        refused(&[symbolic("a", ".."), other("a/.wh.outside", Kind::Pipe)]),
        format!("entry `a/.wh.outside`: {through}")
    );
    assert_eq!(
        refused(&[symbolic("a", ".."), other("a/.wh..wh..opq", Kind::Pipe)]),
        format!("entry `a/.wh..wh..opq`: {through}")
    );
    assert_eq!(
        refused(&[other(".wh...", Kind::Pipe)]),
        "entry `.wh...`: names beginning with .wh. are for whiteouts"
    );
    assert_eq!(
        refused(&[hard("a", "/etc/passwd")]),
        "entry `a`: a hard link to what the layer does not have"
    );
    assert_eq!(refused(&[file("", "x")]), "entry ``: the image's root is no folder");
    let deep = "a/".repeat(300) + "b";
    assert!(refused(&[file(&deep, "x")]).ends_with("more than 256 folders in each other"));
    let long = "a".repeat(300);
    assert!(refused(&[file(&long, "x")]).contains("File name too long"));
    assert_eq!(
        refused(&[(entry("a\0b", Kind::HardLink(b"x\0y".to_vec())), vec![])]),
        "entry `a`: a hard link to what the layer does not have"
    );
}

#[test]
fn a_link_is_replaced_and_not_followed() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("outside"), "untouched").unwrap();
    let tree = place.path().join("tree");
    unpack(&[symbolic("a", "../outside"), file("a", "inside")], &tree).unwrap();
    assert_eq!(fs::read_to_string(tree.join("a")).unwrap(), "inside");
    assert_eq!(fs::read_to_string(place.path().join("outside")).unwrap(), "untouched");
    // Absolute names are meant within the image.
    let tree = place.path().join("other");
    unpack(&[file("/etc/a", "x"), hard("/b", "/etc/a"), symbolic("c", "/etc/a")], &tree).unwrap();
    assert_eq!(fs::read_to_string(tree.join("b")).unwrap(), "x");
    assert_eq!(fs::read_link(tree.join("c")).unwrap(), Path::new("/etc/a"));
}

#[test]
fn what_is_not_made_is_counted() {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    let mut attributed = file("a", "x");
    for (name, value) in [
        ("user.word", "value"),
        ("user.overlay.opaque", "y"),
        ("trusted.overlay.redirect", "/etc"),
        ("security.selinux", "label"),
    ] {
        attributed.0.attributes.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    }
    let disk = other("dev/sda", Kind::Block(8, 0));
    let memory = other("dev/mem", Kind::Character(1, 1));
    let applied = unpack(&[attributed, disk, memory], &tree).unwrap();
    assert_eq!((applied.lost.devices, applied.lost.attributes), (2, 3));
    let mut value = [0_u8; 9];
    let length = rustix::fs::getxattr(tree.join("a"), "user.word", value.as_mut_slice()).unwrap();
    assert_eq!(&value[..length], b"value");
    for name in ["user.overlay.opaque", "trusted.overlay.redirect"] {
        let error = rustix::fs::getxattr(tree.join("a"), name, value.as_mut_slice()).unwrap_err();
        assert_eq!(error, rustix::io::Errno::NODATA);
    }
    assert!(!tree.join("dev").exists());
}

#[test]
fn times_modes_and_holes() {
    let place = tempfile::tempdir().unwrap();
    let mut program = file("bin/su", "x");
    program.0.mode = 0o6755;
    let mut folder = other("bin", Kind::Folder);
    folder.0.mode = 0o550;
    let tree = place.path().join("tree");
    unpack(&[folder, program], &tree).unwrap();
    let stat = fs::metadata(tree.join("bin/su")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o6755, 1_000_000_000));
    let stat = fs::metadata(tree.join("bin")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o550, 1_000_000_000));

    let file = tempfile::tempfile().unwrap();
    let mut data = b"ab".as_slice();
    let mut budget = limits::Budget::default();
    for at in [5, 1 << 20] {
        layer::write_piece(&file, Piece { at, length: 1 }, &mut data, &mut budget).unwrap();
    }
    assert_eq!(file.metadata().unwrap().len(), (1 << 20) + 1);
    assert!(file.metadata().unwrap().blocks() < 100);
}

#[test]
fn limits_end_a_layer() {
    let mut budget = limits::Budget::default();
    let place = fs::File::open("/tmp").unwrap();
    let large = entry("a", Kind::File { size: limits::BYTES_MAX, pieces: None });
    budget.entry(&place, &large).unwrap();
    let (small, _) = file("b", "x");
    assert_eq!(
        text(&budget.entry(&place, &small).unwrap_err()),
        "the layer has more than 274877906944 bytes"
    );
    let mut budget = limits::Budget::default();
    let pipe = entry("a", Kind::Pipe);
    for _ in 0..limits::ENTRIES_MAX {
        budget.entry(&place, &pipe).unwrap();
    }
    assert_eq!(
        text(&budget.entry(&place, &pipe).unwrap_err()),
        "the layer has more than 4000000 entries"
    );
}

/// An image in a store, of these layers as they are.
fn image(store: &Store, blobs: &[(Vec<u8>, Digest)]) -> Image {
    let layers = blobs.iter().map(|(blob, diff_id)| Layer {
        digest: store.put(blob).unwrap().digest,
        diff_id: *diff_id,
        size: blob.len() as u64,
        compression: Compression::of_bytes(blob),
    });
    let digest = Digest::of(b"manifest");
    Image {
        target: Descriptor::new("", digest, 0),
        manifest: digest,
        id: digest,
        config: ImageConfig::default(),
        layers: layers.collect(),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    ruzstd::encoding::compress_to_vec(bytes, level)
}

/// Frames to be skipped, and members after each other, are how indexed layers are written.
#[test]
fn compressed_layers() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let large = "0123456789abcdef".repeat(100_000);
    let layer = |name: &str| tar(&[file(name, &large)]);
    let (a, b, c, d, e) = (layer("a"), layer("b"), layer("c"), layer("d"), layer("e"));
    let (half, rest) = d.split_at(d.len() / 2);
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let blobs = [
        (a.clone(), Digest::of(&a)),
        (gzip(&b), Digest::of(&b)),
        (zstd(&c), Digest::of(&c)),
        ([zstd(half), skipped.to_vec(), zstd(rest), skipped.to_vec()].concat(), Digest::of(&d)),
        ([gzip(&e[..700]), gzip(&e[700..])].concat(), Digest::of(&e)),
    ];
    let image = image(&store, &blobs);
    let layers = ensure(&store, &image, owners()).unwrap();
    for (folder, name) in layers.folders.iter().rev().zip(["a", "b", "c", "d", "e"]) {
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), large);
    }
    layers.settle().unwrap();
    let again = ensure(&store, &image, owners()).unwrap();
    assert_eq!((again.folders, again.unsettled.len()), (layers.folders, 0));
}

#[test]
fn what_is_not_as_it_says_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let layer = tar(&[file("a", "x")]);
    let wrong = Digest::of(b"another");
    let cut = gzip(&layer)[..60].to_vec();
    let mut torn = gzip(&layer);
    torn[20] ^= 0xff;
    for (blob, diff_id, reason) in [
        (layer.clone(), wrong, "its contents have the digest"),
        (gzip(&layer), wrong, "its contents have the digest"),
        (cut, Digest::of(&layer), "the layer cannot be decompressed"),
        (torn, Digest::of(&layer), "the layer cannot be decompressed"),
        (b"no tar".repeat(100), wrong, "the layer cannot be read: not a tar header"),
    ] {
        let image = image(&store, &[(blob, diff_id)]);
        let error = ensure(&store, &image, owners()).unwrap_err();
        let prefix = format!("cannot unpack layer {diff_id}: {reason}");
        assert!(text(&error).starts_with(&prefix), "{}", text(&error));
        assert!(!store.layer_folder(&diff_id).join(owners().name()).exists());
    }
}

/// What a killed process leaves is never taken for a layer, and is gone afterwards.
#[test]
fn leftovers_are_removed() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let layer = tar(&[file("a", "x")]);
    let image = image(&store, &[(layer.clone(), Digest::of(&layer))]);
    let home = store.layer_folder(&Digest::of(&layer));
    let partial = home.join(format!("{}.partial", owners().name()));
    fs::create_dir_all(partial.join("tree/deep")).unwrap();
    fs::write(partial.join("tree/deep/b"), "half").unwrap();
    let complete = home.join(owners().name());
    fs::create_dir_all(complete.join("tree")).unwrap();
    // Before the machine's last start, without having been settled; and a marker cut by its end.
    for marker in
        [r#"{"boot":"another","opaque":false,"lost":{"owners":0,"devices":0,"attributes":0}}"#, ""]
    {
        fs::write(complete.join("complete"), marker).unwrap();
        fs::write(complete.join("tree/b"), "half").unwrap();
        let layers = ensure(&store, &image, owners()).unwrap();
        assert_eq!(fs::read_dir(&layers.folders[0]).unwrap().count(), 1);
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    }
}

#[test]
fn many_at_once() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let entries: Vec<_> = (0..300).map(|it| file(&format!("a/{it}"), "x")).collect();
    let (a, b) = (tar(&entries), tar(&entries[..200]));
    let (a, b) = ((gzip(&a), Digest::of(&a)), (gzip(&b), Digest::of(&b)));
    let images = [image(&store, &[a.clone(), b.clone()]), image(&store, &[b, a])];
    std::thread::scope(|scope| {
        for number in 0..8 {
            let image = &images[number % 2];
            let store = &store;
            scope.spawn(move || {
                for folder in ensure(store, image, owners()).unwrap().folders {
                    let count = fs::read_dir(folder.join("a")).unwrap().count();
                    assert!(count == 300 || count == 200);
                }
            });
        }
    });
}

/// A folder that a layer only names is shown with the owner and mode of the layers below: above other
/// ones it is another one.
#[test]
fn folders_that_are_only_named() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let base = |mode| {
        let mut folder = other("home", Kind::Folder);
        folder.0.mode = mode;
        let bytes = tar(&[folder]);
        let digest = Digest::of(&bytes);
        (bytes, digest)
    };
    let layer = tar(&[file("home/a", "x")]);
    let layer = (layer.clone(), Digest::of(&layer));
    for mode in [0o700, 0o1777, 0o755] {
        let image = image(&store, &[base(mode), layer.clone()]);
        let layers = ensure(&store, &image, owners()).unwrap();
        let home = fs::metadata(layers.folders[0].join("home")).unwrap();
        assert_eq!(home.mode() & 0o7777, mode);
    }
}

/// An opaque root hides every layer below, which overlayfs does not do by itself.
#[test]
fn an_opaque_root() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let layers = [&[file("a", "x")][..], &[other(".wh..wh..opq", Kind::Pipe), file("b", "x")]];
    let layers = layers.map(|it| (tar(it), Digest::of(&tar(it))));
    let layers = ensure(&store, &image(&store, &layers), owners()).unwrap();
    assert_eq!(layers.folders.len(), 1);
    assert!(layers.folders[0].join("b").exists());
}

/// What a layer's folder should be like, written without looking at how it is made.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Folder { mode: u32, is_opaque: bool, children: BTreeMap<String, Self> },
    File(Rc<(u32, Vec<u8>)>),
    Link(Vec<u8>),
    Pipe,
    Whiteout,
}

impl Node {
    fn folder(is_opaque: bool) -> Self {
        Self::Folder { mode: 0o755, is_opaque, children: BTreeMap::new() }
    }

    fn children(&mut self) -> Option<&mut BTreeMap<String, Self>> {
        if let Self::Folder { children, .. } = self { Some(children) } else { None }
    }

    /// The folder of that name, made if it is missing; nothing if something else is there.
    fn descend<'a>(&'a mut self, parts: &[&str]) -> Option<&'a mut Self> {
        let [first, rest @ ..] = parts else { return Some(self) };
        let children = self.children()?;
        let next = children.entry((*first).to_owned()).or_insert_with(|| Self::folder(false));
        if *next == Self::Whiteout {
            *next = Self::folder(true);
        }
        next.children()?;
        next.descend(rest)
    }

    fn find(&self, parts: &[&str]) -> Option<&Self> {
        let [first, rest @ ..] = parts else { return Some(self) };
        if let Self::Folder { children, .. } = self {
            children.get(*first)?.find(rest)
        } else {
            None
        }
    }

    /// Whether the entry is one that can be unpacked here.
    fn apply(&mut self, entry: &Entry, data: &[u8]) -> Option<()> {
        let name = String::from_utf8(entry.name.clone()).unwrap();
        let parts: Vec<&str> = name.split('/').collect();
        let (last, above) = parts.split_last()?;
        let target = match &entry.kind {
            Kind::HardLink(target) => {
                let target = String::from_utf8(target.clone()).unwrap();
                if target == name {
                    return self.descend(above)?.find(&[last]).map(|_| ());
                }
                if name.starts_with(&format!("{target}/")) {
                    // By then it is a folder.
                    return None;
                }
                let parts: Vec<&str> = target.split('/').collect();
                let found = self.find(&parts)?.clone();
                let is_below = |one: &str, other: &str| one.starts_with(&format!("{other}/"));
                // Either gives way to the other, be it that a whiteout becomes a folder.
                if matches!(found, Self::Folder { .. })
                    || is_below(&target, &name)
                    || is_below(&name, &target)
                {
                    return None;
                }
                Some(found)
            }
            _ => None,
        };
        let folder = self.descend(above)?;
        if *last == ".wh..wh..opq" {
            if let Self::Folder { is_opaque, .. } = folder {
                *is_opaque = true;
            }
            return Some(());
        }
        let children = folder.children()?;
        if let Some(hidden) = last.strip_prefix(".wh.") {
            match children.entry(hidden.to_owned()).or_insert(Self::Whiteout) {
                Self::Folder { is_opaque, .. } => *is_opaque = true,
                Self::File(_) | Self::Link(_) | Self::Pipe | Self::Whiteout => {}
            }
            return Some(());
        }
        let old = children.remove(*last);
        let new = match &entry.kind {
            Kind::Folder => match old {
                Some(Self::Folder { is_opaque, children, .. }) => {
                    Self::Folder { mode: entry.mode, is_opaque, children }
                }
                old => {
                    let (mode, is_opaque) = (entry.mode, old.is_some());
                    Self::Folder { mode, is_opaque, children: BTreeMap::new() }
                }
            },
            Kind::File { .. } => Self::File(Rc::new((entry.mode, data.to_vec()))),
            Kind::SymbolicLink(target) => Self::Link(target.clone()),
            _ => target.unwrap_or(Self::Pipe),
        };
        children.insert((*last).to_owned(), new);
        Some(())
    }

    /// What a container sees of `self` above `below`.
    fn above(self, below: Option<Self>) -> Self {
        match (self, below) {
            (
                Self::Folder { mode, is_opaque: false, children },
                Some(Self::Folder { children: mut merged, .. }),
            ) => {
                for (name, child) in children {
                    let old = merged.remove(&name);
                    merged.insert(name, child.above(old));
                }
                Self::Folder { mode, is_opaque: false, children: merged }
            }
            (Self::Folder { mode, children, .. }, _) => {
                let children = children.into_iter().map(|(name, it)| (name, it.above(None)));
                Self::Folder { mode, is_opaque: false, children: children.collect() }
            }
            (other, _) => other,
        }
    }

    /// Without what only says that something is gone.
    fn seen(self) -> Self {
        let Self::Folder { mode, children, .. } = self else { return self };
        let children = children.into_iter().filter(|it| it.1 != Self::Whiteout);
        let children = children.map(|(name, it)| (name, it.seen())).collect();
        Self::Folder { mode, is_opaque: false, children }
    }

    /// What is in a folder. Names of one file share their contents.
    fn read(path: &Path, files: &mut BTreeMap<u64, Rc<(u32, Vec<u8>)>>) -> Self {
        let stat = fs::symlink_metadata(path).unwrap();
        let kind = stat.file_type();
        if kind.is_dir() {
            let children = fs::read_dir(path).unwrap().map(|it| {
                let name = it.unwrap().file_name();
                (name.to_str().unwrap().to_owned(), Self::read(&path.join(&name), files))
            });
            let children = children.collect();
            let is_opaque = is_opaque(&fs::File::open(path).unwrap().into()).unwrap();
            return Self::Folder { mode: stat.mode() & 0o7777, is_opaque, children };
        }
        if kind.is_file() {
            let read = || Rc::new((stat.mode() & 0o7777, fs::read(path).unwrap()));
            return Self::File(Rc::clone(files.entry(stat.ino()).or_insert_with(read)));
        }
        if kind.is_symlink() {
            return Self::Link(fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec());
        }
        if std::os::unix::fs::FileTypeExt::is_fifo(&kind) {
            return Self::Pipe;
        }
        assert_eq!(stat.rdev(), 0);
        Self::Whiteout
    }

    /// The names of every file that has several, in order.
    fn groups(&self) -> Vec<Vec<String>> {
        fn collect(node: &Node, path: &str, found: &mut BTreeMap<usize, Vec<String>>) {
            match node {
                Node::Folder { children, .. } => {
                    for (name, child) in children {
                        collect(child, &format!("{path}/{name}"), found);
                    }
                }
                Node::File(file) => {
                    found.entry(Rc::as_ptr(file) as usize).or_default().push(path.to_owned());
                }
                Node::Link(_) | Node::Pipe | Node::Whiteout => {}
            }
        }
        let mut found = BTreeMap::new();
        collect(self, "", &mut found);
        let mut groups: Vec<_> = found.into_values().filter(|it| 1 < it.len()).collect();
        groups.sort();
        groups
    }
}

fn layer_entries() -> impl Strategy<Value = Vec<(Entry, Vec<u8>)>> {
    let name = || proptest::collection::vec("[abc]", 1..4).prop_map(|it| it.join("/"));
    let kind = prop_oneof![
        3 => Just(Kind::Folder),
        3 => Just(Kind::File { size: 0, pieces: None }),
        1 => name().prop_map(|it| Kind::SymbolicLink(it.into_bytes())),
        2 => name().prop_map(|it| Kind::HardLink(it.into_bytes())),
        1 => Just(Kind::Pipe),
    ];
    let prefix = prop_oneof![5 => Just(""), 1 => Just(".wh.")];
    let strategy = (
        name(),
        prefix,
        kind,
        prop_oneof![Just(0o700_u32), Just(0o6755), Just(0o1777)],
        "[a-z]{0,9}",
    );
    let strategy = strategy.prop_map(|(name, prefix, mut kind, mode, data)| {
        let (above, last) = name.rsplit_once('/').map_or(("", name.as_str()), |it| it);
        let slash = if above.is_empty() { "" } else { "/" };
        let opaque = prefix == ".wh." && last == "a";
        let last = if opaque { ".wh..opq" } else { last };
        let name = format!("{above}{slash}{prefix}{last}");
        let data = match &mut kind {
            Kind::File { size, .. } if prefix.is_empty() => {
                *size = data.len() as u64;
                data.into_bytes()
            }
            _ => Vec::new(),
        };
        // Whatever is given that name, the name is all that counts.
        let kind = if prefix.is_empty() { kind } else { Kind::Pipe };
        let mut entry = entry(&name, kind);
        entry.mode = mode;
        (entry, data)
    });
    proptest::collection::vec(strategy, 0..14)
}

fn model(entries: &[(Entry, Vec<u8>)]) -> Option<Node> {
    let mut model = Node::folder(false);
    entries.iter().try_for_each(|(entry, data)| model.apply(entry, data))?;
    Some(model)
}

proptest! {
    #[test]
    fn layers_are_as_the_model_says(entries in layer_entries()) {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        let applied = unpack(&entries, &tree);
        match model(&entries) {
            None => prop_assert!(applied.is_err()),
            Some(expected) => {
                let applied = applied.map_err(|it| TestCaseError::fail(text(&it)))?;
                let found = Node::read(&tree, &mut BTreeMap::new());
                prop_assert_eq!(found.groups(), expected.groups());
                let Node::Folder { is_opaque, .. } = expected else { panic!("a folder") };
                prop_assert_eq!(applied.is_opaque, is_opaque);
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn a_copy_is_what_a_container_sees(layers in proptest::collection::vec(layer_entries(), 1..4)) {
        let place = tempfile::tempdir().unwrap();
        let mut expected: Option<Node> = None;
        let mut folders = Vec::new();
        for (entries, number) in layers.iter().zip(0..) {
            let Some(model) = model(entries) else { continue };
            let tree = place.path().join(format!("{number}"));
            unpack(entries, &tree).unwrap();
            folders.insert(0, tree);
            expected = Some(model.above(expected));
        }
        let Some(expected) = expected else { return Ok(()) };
        let merged = place.path().join("merged");
        fs::create_dir(&merged).unwrap();
        copy(&folders, &merged).unwrap();
        let found = Node::read(&merged, &mut BTreeMap::new());
        prop_assert_eq!(found, expected.seen());
    }

    #[test]
    fn damaged_layers_end(entries in layer_entries(), at in any::<prop::sample::Index>(), byte: u8) {
        let place = tempfile::tempdir().unwrap();
        let mut stream = tar(&entries);
        *at.get_mut(&mut stream) = byte;
        let tree = place.path().join("tree");
        fs::create_dir(&tree).unwrap();
        layer::apply(stream.as_slice(), &tree, owners(), &[]).ok();
        prop_assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
