//! Makes layers and images in the store out of plans: what is at which path. The same plan gives the
//! same digest, whoever makes it and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use crate::{
    Compression, Descriptor, Digest, Hasher, ImageConfig, Layer, Store,
    spec::{Manifest, media},
    store::{self, Lease},
    tarball::{Entry, Kind, Time, Writer},
};

/// The fastest level: what is built here is mostly run here.
const LEVEL: u32 = 1;

/// Bytes compressed at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Where the bytes of a file come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// From memory.
    Bytes(Vec<u8>),
    /// From a file of the machine, which must have as many bytes as the entry says.
    Path(PathBuf),
}

/// What is at one path of a layer.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    pub(crate) source: Source,
}

/// What a layer holds, by path without slashes at its ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    items: BTreeMap<Vec<u8>, Item>,
}

/// Why a layer or an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file that goes into it.
    #[error("cannot put `{path}` into the image", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Plan {
    /// Puts something at a path, in the place of what was planned there.
    pub(crate) fn put(&mut self, mut item: Item) {
        let name = item.entry.name.clone();
        if matches!(item.entry.kind, Kind::Folder) {
            item.entry.name.push(b'/');
        }
        self.items.insert(name, item);
    }

    pub(crate) fn get(&self, path: &[u8]) -> Option<&Item> {
        self.items.get(path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = (&[u8], &Item)> {
        self.items.iter().map(|(path, item)| (path.as_slice(), item))
    }

    /// Plans the folders that are missing, as root's.
    pub(crate) fn fill_folders(&mut self, time: Time) {
        for path in self.missing_folders() {
            self.put(Item::folder(path, 0o755, time));
        }
    }

    /// The folders above everything planned that are not planned themselves.
    pub(crate) fn missing_folders(&self) -> BTreeSet<Vec<u8>> {
        let mut missing = BTreeSet::new();
        for path in self.items.keys() {
            let slashes = path.iter().zip(0..).filter(|(it, _)| **it == b'/').map(|(_, at)| at);
            missing.extend(slashes.filter_map(|at: usize| path.get(..at)).map(<[u8]>::to_vec));
        }
        missing.retain(|it| !self.items.contains_key(it));
        missing
    }

    /// Writes the layer into the store, where the lease holds it.
    pub(crate) fn write(&self, store: &Store, lease: &Lease) -> Result<Layer, Error> {
        layer(store, lease, |tar| {
            for item in self.items.values() {
                let failed = |source| match &item.source {
                    Source::Path(path) => Error::File { path: path.clone(), source },
                    Source::Bytes(_) => Error::File { path: shown(&item.entry), source },
                };
                let appended = match (&item.source, &item.entry.kind) {
                    (Source::Path(path), Kind::File { .. }) => {
                        let mut file = fs::File::open(path).map_err(failed)?;
                        tar.append(&item.entry, &mut file)
                    }
                    (Source::Bytes(bytes), _) => tar.append(&item.entry, &mut bytes.as_slice()),
                    (Source::Path(_), _) => tar.append(&item.entry, &mut io::empty()),
                };
                appended.map_err(failed)?;
            }
            Ok(())
        })
    }

    /// What the layer holds, as a digest: names, kinds, modes, owners, contents. Not the times.
    pub(crate) fn digest(&self) -> Result<Digest, Error> {
        let mut hasher = Hasher::default();
        for (path, Item { entry, source }) in &self.items {
            let (mode, owner) = (entry.mode, (entry.uid, entry.gid));
            let about =
                (String::from_utf8_lossy(path), &entry.kind, mode, owner, &entry.attributes);
            hasher.update(format!("{about:?}\n").as_bytes());
            hasher.update(path);
            let contents = match (source, &entry.kind) {
                (Source::Path(path), Kind::File { .. }) => {
                    digest_of(path).map_err(|source| Error::File { path: path.clone(), source })?
                }
                (Source::Bytes(bytes), _) => Digest::of(bytes),
                (Source::Path(_), _) => Digest::of(&[]),
            };
            hasher.update(contents.to_string().as_bytes());
        }
        Ok(hasher.finish())
    }
}

impl Item {
    pub(crate) fn folder(path: Vec<u8>, mode: u32, time: Time) -> Self {
        Self::new(path, Kind::Folder, mode, time)
    }

    pub(crate) fn bytes(path: &str, bytes: Vec<u8>, mode: u32, time: Time) -> Self {
        let kind = Kind::File { size: bytes.len() as u64, pieces: None };
        let mut item = Self::new(path.as_bytes().to_vec(), kind, mode, time);
        item.source = Source::Bytes(bytes);
        item
    }

    pub(crate) fn file(path: Vec<u8>, from: &Path, size: u64, mode: u32, time: Time) -> Self {
        let mut item = Self::new(path, Kind::File { size, pieces: None }, mode, time);
        item.source = Source::Path(from.to_owned());
        item
    }

    pub(crate) fn link(path: Vec<u8>, target: Vec<u8>, time: Time) -> Self {
        Self::new(path, Kind::SymbolicLink(target), 0o777, time)
    }

    pub(crate) fn new(name: Vec<u8>, kind: Kind, mode: u32, time: Time) -> Self {
        let entry = Entry { name, kind, mode, uid: 0, gid: 0, time, attributes: Vec::new() };
        Self { entry, source: Source::Bytes(Vec::new()) }
    }
}

fn shown(entry: &Entry) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(&entry.name).into_owned())
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
}

type Tar<'a> = Writer<Hashed<io::BufWriter<flate2::write::GzEncoder<&'a mut store::Writer>>>>;

/// Writes a layer into the store; `fill` adds its entries.
fn layer<E: From<Error>>(
    store: &Store,
    lease: &Lease,
    fill: impl FnOnce(&mut Tar<'_>) -> Result<(), E>,
) -> Result<Layer, E> {
    let failed = |source| Error::File { path: store.staging_folder(), source };
    let mut writer = store.writer().map_err(Error::from)?;
    let diff_id = {
        let encoder = flate2::write::GzEncoder::new(&mut writer, flate2::Compression::new(LEVEL));
        let output = io::BufWriter::with_capacity(BUFFER_BYTES, encoder);
        let mut tar = Writer::new(Hashed { output, hasher: Hasher::default() });
        fill(&mut tar)?;
        let hashed = tar.finish().map_err(failed)?;
        let encoder = hashed.output.into_inner().map_err(|it| failed(it.into_error()))?;
        encoder.finish().map_err(failed)?;
        hashed.hasher.finish()
    };
    // Before it is there: a collection knows no other reason to leave it.
    lease.hold([writer.digest(), diff_id]).map_err(Error::from)?;
    let blob = writer.commit().map_err(Error::from)?;
    let (digest, size) = (blob.digest, blob.size);
    Ok(Layer { digest, diff_id, size, compression: Compression::Gzip })
}

struct Hashed<W> {
    output: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Puts configuration and manifest of an image of these layers, lowest first, into the store; the
/// configuration's own list of them is replaced. Gives the manifest.
pub(crate) fn image(
    store: &Store,
    lease: &Lease,
    mut config: ImageConfig,
    layers: &[Layer],
) -> Result<Descriptor, Error> {
    config.rootfs.diff_ids = layers.iter().map(|it| it.diff_id).collect();
    let config = json(&config)?;
    lease.hold([Digest::of(&config)])?;
    store.put(&config)?;
    let layer = |it: &Layer| Descriptor::new(it.compression.layer_media_type(), it.digest, it.size);
    let manifest = json(&Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::of(media::CONFIG, &config),
        layers: layers.iter().map(layer).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    })?;
    lease.hold([Digest::of(&manifest)])?;
    store.put(&manifest)?;
    Ok(Descriptor::of(media::MANIFEST, &manifest))
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|it| Error::File { path: PathBuf::from("manifest.json"), source: it.into() })
}

/// A moment as RFC 3339 text, of seconds since 1970.
#[must_use]
pub fn date(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since the first of March of the year 0, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(date(-1), "1969-12-31T23:59:59Z");
    }
}
